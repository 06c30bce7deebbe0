//! Checks every value and makes proper types of them. Which layer won is `layers.rs`'s business.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use ::config::ValueKind;
use secrecy::SecretString;

use super::error::SettingError;
use super::layers::{Overrides, SettingLayers, SettingValue};
use super::proxies;
use super::redis_url::one_database;
use super::{
    Audit, Auth, Command, Database, HeardChannels, Jobs, Limits, Log, LogFormat, PermissionSource, PublishedChannels,
    Redis, Server, Settings, Worker,
};
use crate::domain::TenantId;
use crate::domain::printable::is_visible;

/// Shortest symmetric key, in bytes: as long as the hash of HS256.
pub const MIN_SECRET: usize = 32;

const DAY: u64 = 24 * 60 * 60;

/// Puts the layers together, with the environment of this process.
pub fn load(file: Option<&Path>, overrides: Overrides) -> Result<Settings, SettingError> {
    load_from(file, std::env::vars_os(), overrides)
}

/// As [`load`], with another environment.
pub fn load_from(
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (std::ffi::OsString, std::ffi::OsString)>,
    overrides: Overrides,
) -> Result<Settings, SettingError> {
    let layers = SettingLayers::read(file, environment, overrides)?;
    let read = Reader { layers: &layers };
    let settings = Settings {
        server: Server {
            listen: read.listen()?,
            admin_listen: read.admin_listen()?,
            tls: read.listener_certificate()?,
            public_origins: read.items("server.public_origins", origin)?,
            drain_notice: read.seconds("server.drain_notice_seconds", 0, 3600)?,
            drain: read.seconds("server.drain_seconds", 0, 3600)?,
            body: read.seconds("server.body_seconds", 1, 3600)?,
            keep_alive: read.seconds("server.keep_alive_seconds", 1, 3600)?,
            trusted_proxies: read.items("server.trusted_proxies", proxies::network)?,
            forwarded_headers: read.items("server.forwarded_headers", proxies::header_name)?,
            proxy_protocol: read.proxy_protocol()?,
        },
        redis: Redis {
            url: read.secret_url("redis.url", redis_url)?,
            ca_pem: read.ca(
                "redis.ca_file",
                read.text("redis.url")?.0.starts_with("rediss"),
                "redis.url asks for no TLS: write rediss:// there (or rediss+sentinel://, rediss+cluster://)",
            )?,
            client_certificate: read.client_certificate()?,
            partitions: read.number("redis.partitions", 1, 1024)? as u16,
            replicas_to_wait: read.number("redis.replicas_to_wait", 0, 8)? as u32,
            fsyncs_to_wait: read.number("redis.fsyncs_to_wait", 0, 9)? as u32,
            published_channels: read.published_channels()?,
            heard_channels: read.heard_channels()?,
        },
        database: Database {
            url: read.secret_url("database.url", database_url)?,
            connections: read.number("database.connections", 1, 1000)? as u32,
        },
        auth: read.auth()?,
        oidc: read.oidc()?,
        limits: read.limits()?,
        worker: Worker {
            tenants: read.tenants()?,
            name: read.worker_name()?,
            concurrency: read.number("worker.concurrency", 1, 10_000)? as usize,
            max_held_jobs: read.number("worker.max_held_jobs", 1, 1_000_000)? as usize,
            paused_release: Some(read.seconds("worker.paused_release_seconds", 0, 30 * DAY)?)
                .filter(|time| !time.is_zero()),
            grace: read.seconds("worker.grace_seconds", 0, DAY)?,
            files_root: read.optional("worker.files_root")?.map(PathBuf::from),
            attached_lost: read.seconds("worker.attached_lost_seconds", 1, 30 * DAY)?,
            max_worker_crashes: read.number("worker.max_worker_crashes", 1, 1_000_000)? as u32,
            listen: read.optional_address("worker.listen")?,
            reattach: read.seconds("worker.reattach_seconds", 1, 3600)?,
            max_connections: read.number("worker.max_connections", 1, 1_000_000)? as usize,
            max_jobs_per_connection: read.number("worker.max_jobs_per_connection", 1, 100_000)? as usize,
            messages_per_second: read.count("worker.messages_per_second")?,
            max_token: Duration::from_secs(read.number("worker.max_token_days", 1, 3650)? * DAY),
        },
        command: Command {
            ttl: read.seconds("command.ttl", 1, 30 * DAY)?,
            lease: read.seconds("command.lease_seconds", 1, 600)?,
            max_attempts: read.number("command.max_attempts", 1, 1000)? as u32,
        },
        audit: Audit { keep: read.days("audit.keep_days", 36_500)? },
        jobs: Jobs { keep: read.days("jobs.keep_days", 36_500)? },
        log: Log { format: read.one_of("log.format", &LOG_FORMATS)?, level: read.level()?, renamed: Vec::new() },
    };
    Ok(Settings { log: Log { renamed: layers.into_renamed(), ..settings.log }, ..settings })
}

const LOG_FORMATS: [(&str, LogFormat); 2] = [("pretty", LogFormat::Pretty), ("json", LogFormat::Json)];
const PERMISSION_SOURCES: [(&str, PermissionSource); 2] =
    [("database", PermissionSource::Database), ("token", PermissionSource::Token)];

/// Reads single settings, and names key and source where one is wrong.
pub(super) struct Reader<'a> {
    pub(super) layers: &'a SettingLayers,
}

impl Reader<'_> {
    pub(super) fn wrong<T>(
        &self,
        key: &str,
        entry: &SettingValue,
        problem: impl Into<String>,
    ) -> Result<T, SettingError> {
        Err(SettingError { key: key.to_owned(), problem: problem.into(), source_name: entry.source.clone() })
    }

    /// Values from files have types of their own, those of the environment are texts: both are read here.
    pub(super) fn text(&self, key: &str) -> Result<(&str, &SettingValue), SettingError> {
        let entry = self.layers.get(key)?;
        match &entry.value {
            ValueKind::String(text) => Ok((text.trim(), entry)),
            _ => self.wrong(key, entry, "must be a text"),
        }
    }

    /// A text that may be empty, which stands for none.
    pub(super) fn optional(&self, key: &str) -> Result<Option<String>, SettingError> {
        let (text, _) = self.text(key)?;
        Ok((!text.is_empty()).then(|| text.to_owned()))
    }

    /// A name that fits into lists and terminals.
    fn worker_name(&self) -> Result<Option<String>, SettingError> {
        let (text, entry) = self.text("worker.name")?;
        if text.chars().count() > 128 || !is_visible(text) {
            return self.wrong("worker.name", entry, "must be 128 visible characters without spaces at most");
        }
        Ok((!text.is_empty()).then(|| text.to_owned()))
    }

    fn number(&self, key: &str, least: u64, most: u64) -> Result<u64, SettingError> {
        let entry = self.layers.get(key)?;
        let number = match &entry.value {
            ValueKind::I64(n) => u64::try_from(*n).ok(),
            ValueKind::U64(n) => Some(*n),
            ValueKind::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        match number {
            Some(n) if (least..=most).contains(&n) => Ok(n),
            _ => self.wrong(
                key,
                entry,
                format!("must be a whole number from {least} to {most}, not {}", display_value(entry)),
            ),
        }
    }

    /// A limit: at least one, because "nobody may do anything" is never meant.
    fn count(&self, key: &str) -> Result<u32, SettingError> {
        Ok(self.number(key, 1, 1_000_000_000)? as u32)
    }

    fn seconds(&self, key: &str, least: u64, most: u64) -> Result<Duration, SettingError> {
        Ok(Duration::from_secs(self.number(key, least, most)?))
    }

    /// Days; 0 stands for no end.
    fn days(&self, key: &str, most: u64) -> Result<Option<Duration>, SettingError> {
        let days = self.number(key, 0, most)?;
        Ok((days > 0).then(|| Duration::from_secs(days * DAY)))
    }

    fn one_of<T: Copy>(&self, key: &str, choices: &[(&str, T)]) -> Result<T, SettingError> {
        let (text, entry) = self.text(key)?;
        match choices.iter().find(|(choice, _)| *choice == text) {
            Some((_, value)) => Ok(*value),
            None => {
                let all: Vec<String> = choices.iter().map(|(choice, _)| format!("{choice:?}")).collect();
                self.wrong(key, entry, format!("must be {}, not {text:?}", all.join(" or ")))
            }
        }
    }

    fn published_channels(&self) -> Result<PublishedChannels, SettingError> {
        let key = "redis.published_channels";
        let published = self.one_of(key, &PublishedChannels::ALL)?;
        let is_cluster =
            self.text("redis.url")?.0.split("://").next().is_some_and(|scheme| scheme.ends_with("+cluster"));
        if published != PublishedChannels::Plain && !is_cluster {
            let problem = "needs a cluster (redis+cluster:// in redis.url): one server has nobody to pass messages on to. \
                           Leave it \"plain\"";
            return self.wrong(key, self.layers.get(key)?, problem);
        }
        Ok(published)
    }

    /// What is heard has to be published.
    fn heard_channels(&self) -> Result<HeardChannels, SettingError> {
        let key = "redis.heard_channels";
        let heard = self.one_of(key, &HeardChannels::ALL)?;
        let problem = match (self.published_channels()?, heard) {
            (PublishedChannels::Plain, HeardChannels::Sharded) => {
                "is \"sharded\", and redis.published_channels is \"plain\": nothing would be heard. Set that to \"both\" first, \
                 everywhere"
            }
            (PublishedChannels::Sharded, HeardChannels::Plain) => {
                "is \"plain\", and redis.published_channels is \"sharded\": nothing would be heard. Set this to \"sharded\", or that \
                 to \"both\""
            }
            _ => return Ok(heard),
        };
        self.wrong(key, self.layers.get(key)?, problem)
    }

    /// A list of the file, or a text with commas.
    pub(super) fn items<T>(
        &self,
        key: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Vec<T>, SettingError> {
        let entry = self.layers.get(key)?;
        let texts: Option<Vec<&str>> = match &entry.value {
            ValueKind::String(text) => Some(text.split(',').map(str::trim).filter(|t| !t.is_empty()).collect()),
            ValueKind::Array(values) => values
                .iter()
                .map(|value| match &value.kind {
                    ValueKind::String(text) => Some(text.trim()),
                    _ => None,
                })
                .collect(),
            _ => None,
        };
        let Some(texts) = texts else { return self.wrong(key, entry, "must be a list of texts") };
        texts.into_iter().map(|text| parse(text).or_else(|problem| self.wrong(key, entry, problem))).collect()
    }

    /// An address that may hold a password: what is wrong with it is said without it.
    fn secret_url(&self, key: &str, check: fn(&str) -> Result<(), String>) -> Result<SecretString, SettingError> {
        let (text, entry) = self.text(key)?;
        match check(text) {
            Ok(()) => Ok(SecretString::from(text)),
            Err(problem) => self.wrong(key, entry, problem),
        }
    }

    fn listen(&self) -> Result<SocketAddr, SettingError> {
        let (text, entry) = self.text("server.listen")?;
        text.parse().or_else(|_| {
            let problem = format!("must be an IP address and a port, as in \"127.0.0.1:8000\", not {text:?}");
            self.wrong("server.listen", entry, problem)
        })
    }

    /// An address of which there may be none.
    fn optional_address(&self, key: &str) -> Result<Option<SocketAddr>, SettingError> {
        let (text, entry) = self.text(key)?;
        if text.is_empty() {
            return Ok(None);
        }
        text.parse().map(Some).or_else(|_| {
            let problem = format!("must be an IP address and a port, as in \"127.0.0.1:8100\", or empty, not {text:?}");
            self.wrong(key, entry, problem)
        })
    }

    fn admin_listen(&self) -> Result<Option<SocketAddr>, SettingError> {
        let key = "server.admin_listen";
        let address = self.optional_address(key)?;
        if address.is_some_and(|address| address.port() != 0) && address == Some(self.listen()?) {
            return self.wrong(key, self.layers.get(key)?, "is the same as server.listen: give it a port of its own");
        }
        Ok(address)
    }

    fn proxy_protocol(&self) -> Result<bool, SettingError> {
        let key = "server.proxy_protocol";
        let is_on = self.one_of(key, &[("off", false), ("on", true)])?;
        if is_on && self.items("server.trusted_proxies", proxies::network)?.is_empty() {
            let problem = "is \"on\", but server.trusted_proxies names nobody whose header would be believed: \
                           list the proxies' networks there";
            return self.wrong(key, self.layers.get(key)?, problem);
        }
        Ok(is_on)
    }

    fn limits(&self) -> Result<Limits, SettingError> {
        Ok(Limits {
            commands_per_minute: self.count("limits.commands_per_minute")?,
            backlog_per_tenant: self.count("limits.backlog_per_tenant")?,
            schedules_per_tenant: self.count("limits.schedules_per_tenant")?,
            connections_per_tenant: self.count("limits.connections_per_tenant")?,
            connections_per_user: self.count("limits.connections_per_user")?,
            messages_per_second: self.count("limits.messages_per_second")?,
            outbox_messages: self.number("limits.outbox_messages", 8, 65_536)? as usize,
            requests_per_second: self.count("limits.requests_per_second")?,
            requests_per_second_per_address: self.count("limits.requests_per_second_per_address")?,
            connections_per_address: self.count("limits.connections_per_address")?,
            new_connections_per_second: self.count("limits.new_connections_per_second")?,
            // A tenant's half has room for the largest answer, and a user's share too.
            memory: self.mebibytes("limits.memory_mib", 64)?,
            memory_per_user: self.mebibytes("limits.memory_per_user_mib", 32)?,
        })
    }

    fn mebibytes(&self, key: &str, least: u64) -> Result<u32, SettingError> {
        Ok(self.number(key, least, 2_048)? as u32 * 1024 * 1024)
    }

    fn tenants(&self) -> Result<Option<Vec<TenantId>>, SettingError> {
        let key = "worker.tenants";
        let texts = self.items(key, |text| Ok(text.to_owned()))?;
        if texts.len() == 1 && texts[0] == "*" {
            return Ok(None);
        }
        if texts.is_empty() {
            return self.wrong(key, self.layers.get(key)?, "must be \"*\" for all tenants, or name at least one");
        }
        let parse = |text: &str| TenantId::from_str(text).map_err(|error| format!("{text:?}: {error}"));
        self.items(key, parse).map(Some)
    }

    fn level(&self) -> Result<String, SettingError> {
        let (text, entry) = self.text("log.level")?;
        match log_level(text) {
            Ok(()) => Ok(text.to_owned()),
            Err(problem) => self.wrong("log.level", entry, problem),
        }
    }

    fn token_secret(&self, key: &str) -> Result<Option<SecretString>, SettingError> {
        let secret = self.optional(key)?;
        if let Some(secret) = &secret
            && secret.len() < MIN_SECRET
        {
            let problem = format!("must have {MIN_SECRET} bytes or more, and this has {}", secret.len());
            return self.wrong(key, self.layers.get(key)?, problem);
        }
        Ok(secret.map(SecretString::from))
    }

    fn auth(&self) -> Result<Auth, SettingError> {
        let jwks_url = self.optional("auth.jwks_url")?;
        let jwks_file = self.optional("auth.jwks_file")?;
        if let Some(url) = &jwks_url {
            if let Err(problem) = keys_url(url) {
                return self.wrong("auth.jwks_url", self.layers.get("auth.jwks_url")?, problem);
            }
            if jwks_file.is_some() {
                let problem = "is set beside auth.jwks_url: set one of the two";
                return self.wrong("auth.jwks_file", self.layers.get("auth.jwks_file")?, problem);
            }
        }
        let is_tls = jwks_url.as_deref().is_some_and(|url| url.starts_with("https"));
        let ca_pem = self.ca("auth.ca_file", is_tls, "auth.jwks_url is not an https:// address")?;
        let longest = self.seconds("auth.max_token_seconds", 0, 100 * 366 * DAY)?;
        Ok(Auth {
            hs256_secret: self.token_secret("auth.hs256_secret")?,
            hs256_previous_secret: self.token_secret("auth.hs256_previous_secret")?,
            jwks_url,
            jwks_file: jwks_file.map(PathBuf::from),
            jwks_max_age: self.seconds("auth.jwks_max_age_seconds", 60, 30 * DAY)?,
            ca_pem,
            issuer: self.optional("auth.issuer")?,
            audience: self.optional("auth.audience")?,
            max_token: (!longest.is_zero()).then_some(longest),
            permissions: self.one_of("auth.permissions", &PERMISSION_SOURCES)?,
        })
    }
}

/// A value as an error may show it. Only for settings that are no secrets.
fn display_value(entry: &SettingValue) -> String {
    match &entry.value {
        ValueKind::String(text) => format!("{text:?}"),
        ValueKind::Array(_) => "a list".to_owned(),
        other => other.to_string(),
    }
}

/// `scheme://host[:port]` as browsers write it in `Origin`: lower case, no default port, no path.
pub(super) fn origin(text: &str) -> Result<String, String> {
    let wrong = || format!("{text:?} is not an origin: write scheme://host or scheme://host:port, without a path");
    let lower = text.to_ascii_lowercase();
    let (scheme, rest) = lower.split_once("://").ok_or_else(wrong)?;
    let default_port = match scheme {
        "https" => ":443",
        "http" => ":80",
        _ => return Err(wrong()),
    };
    let uri: http::Uri = lower.parse().map_err(|_| wrong())?;
    let authority = uri.authority().ok_or_else(wrong)?;
    if authority.as_str() != rest || rest.contains('@') || authority.host().is_empty() || rest.contains('*') {
        return Err(wrong());
    }
    Ok(format!("{scheme}://{}", rest.strip_suffix(default_port).unwrap_or(rest)))
}

fn redis_url(text: &str) -> Result<(), String> {
    has_scheme(text, &["redis", "rediss", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster"])?;
    one_database(text)
}

fn database_url(text: &str) -> Result<(), String> {
    has_scheme(text, &["sqlite", "postgres", "postgresql"])
}

fn keys_url(text: &str) -> Result<(), String> {
    has_scheme(text, &["https", "http"])?;
    let host = text.parse::<http::Uri>().ok().and_then(|uri| uri.host().map(|host| !host.is_empty()));
    if host == Some(true) { Ok(()) } else { Err("is not a web address".to_owned()) }
}

/// The problem never shows the address: a password may stand in it.
fn has_scheme(text: &str, schemes: &[&str]) -> Result<(), String> {
    let fits = text.split_once("://").is_some_and(|(scheme, rest)| schemes.contains(&scheme) && !rest.is_empty());
    if fits && text.contains(char::is_whitespace) {
        return Err("contains a space: write it as %20".to_owned());
    }
    if fits {
        return Ok(());
    }
    let all: Vec<String> = schemes.iter().map(|scheme| format!("{scheme}://…")).collect();
    Err(format!("must be an address of the form {}", all.join(" or ")))
}

/// Levels and filters. A single word that is no level would be taken for a module's name by the library,
/// and `log.level = "verbose"` would then print nothing at all.
fn log_level(text: &str) -> Result<(), String> {
    let help = "write error, warn, info, debug, trace or off, or filters as in \"wheelhouse=debug,warn\"";
    for part in text.split(',').map(str::trim) {
        let is_level = matches!(part, "error" | "warn" | "info" | "debug" | "trace" | "off");
        if !is_level && !part.contains('=') {
            return Err(format!("{part:?} is not a level: {help}"));
        }
    }
    tracing_subscriber::EnvFilter::builder()
        .parse(text)
        .map(|_| ())
        .map_err(|_| format!("{text:?} is not a filter: {help}"))
}

#[cfg(test)]
#[path = "load_tests.rs"]
mod tests;
