//! What the settings alone show: who is let in, and what leaves this machine unencrypted.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use secrecy::ExposeSecret;

use super::finding::{Finding, Program};
use crate::config::Settings;
use crate::store::diagnosis::transport;

/// A symmetric key with fewer different bytes was typed by a person, or repeats itself.
const MIN_DISTINCT_BYTES: usize = 12;
/// The length of a key that `openssl rand -base64 48` makes is 64; below this a guess is cheaper than it need be.
const KEY_LINE: &str = "WHEELHOUSE__AUTH__HS256_SECRET=\"$(openssl rand -base64 48)\"";

/// Everything that needs no server.
pub fn check(settings: &Settings, program: Program) -> Vec<Finding> {
    let mut findings = vec![redis_encryption(settings)];
    findings.extend(database_encryption(settings));
    let listen = match program {
        Program::Gateway => Some(settings.server.listen),
        Program::Worker => settings.worker.listen,
    };
    // A worker that listens to nobody takes no tokens.
    if let Some(listen) = listen {
        findings.extend(keys(settings));
        findings.extend([audience(settings), issuer(settings), lifetime(settings), listener(settings, listen)]);
    }
    findings
}

fn keys(settings: &Settings) -> Vec<Finding> {
    let auth = &settings.auth;
    let mut findings = Vec::new();
    if let Some(secret) = &auth.hs256_secret {
        let check = "auth.hs256_secret";
        let distinct = secret.expose_secret().bytes().collect::<BTreeSet<u8>>().len();
        findings.push(if distinct < MIN_DISTINCT_BYTES {
            let message =
                format!("the key that signs tokens has only {distinct} different characters: it can be guessed");
            Finding::warning(check, message, KEY_LINE)
        } else {
            Finding::ok(check, format!("the key that signs tokens has {} bytes", secret.expose_secret().len()))
        });
    }
    if let Some(url) = auth.jwks_url.as_deref().filter(|url| url.starts_with("http://") && !is_local_url(url)) {
        let message =
            "the issuer's keys are fetched without TLS: whoever is on the way can put in keys and make tokens";
        findings.push(Finding::warning(
            "auth.jwks_url",
            message,
            format!("auth.jwks_url = \"{}\"", url.replacen("http://", "https://", 1)),
        ));
    }
    if auth.hs256_secret.is_none() && auth.jwks_url.is_none() && auth.jwks_file.is_none() {
        findings.push(Finding::error("auth.keys", "there is no key to check tokens with", KEY_LINE));
    }
    findings
}

fn audience(settings: &Settings) -> Finding {
    let check = "auth.audience";
    match &settings.auth.audience {
        Some(audience) => Finding::ok(check, format!("tokens must be for {audience:?}")),
        None => Finding::warning(
            check,
            "a token that the issuer made for another program is taken here too",
            "auth.audience = \"wheelhouse\"",
        ),
    }
}

fn issuer(settings: &Settings) -> Finding {
    let check = "auth.issuer";
    match &settings.auth.issuer {
        Some(issuer) => Finding::ok(check, format!("tokens must be of {issuer:?}")),
        None => Finding::warning(
            check,
            "a token is taken whichever issuer it names, as long as its signature fits",
            "auth.issuer = \"https://login.example.com/\"",
        ),
    }
}

fn lifetime(settings: &Settings) -> Finding {
    let check = "auth.max_token_seconds";
    match settings.auth.max_token {
        Some(longest) => Finding::ok(check, format!("a token may be good for {} days", longest.as_secs() / 86_400)),
        None => Finding::warning(
            check,
            "a token may be good for ever: one that was stolen is never too old",
            "auth.max_token_seconds = 7776000",
        ),
    }
}

fn listener(settings: &Settings, listen: SocketAddr) -> Finding {
    let (check, server) = ("server.tls", &settings.server);
    if server.tls.is_some() {
        return Finding::ok(check, "the listener speaks TLS");
    }
    if listen.ip().is_loopback() {
        return Finding::ok(check, "the listener is for this machine alone");
    }
    if !server.trusted_proxies.is_empty() {
        return Finding::ok(check, "the listener speaks plain HTTP, behind proxies that are named");
    }
    Finding::warning(
        check,
        format!("tokens travel unencrypted to {listen}, and no proxy with TLS is named"),
        "server.tls_cert_file and server.tls_key_file, or server.trusted_proxies = [\"10.0.0.0/8\"] behind a proxy with TLS",
    )
}

fn redis_encryption(settings: &Settings) -> Finding {
    let check = "redis.tls";
    let url = settings.redis.url.expose_secret();
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    if scheme.starts_with("rediss") {
        return Finding::ok(check, "the way to Redis is encrypted");
    }
    let hosts = rest.split(['/', '?']).next().unwrap_or_default();
    let hosts = hosts.rsplit_once('@').map_or(hosts, |(_, hosts)| hosts);
    if hosts.split(',').all(is_local_host) {
        return Finding::ok(check, "Redis is on this machine");
    }
    let mend = format!(
        "redis.url = \"{}://…\", and redis.ca_file where its authority is your own",
        scheme.replacen("redis", "rediss", 1)
    );
    Finding::warning(check, "passwords and commands travel to Redis unencrypted", mend)
}

fn database_encryption(settings: &Settings) -> Option<Finding> {
    let check = "database.tls";
    let transport = transport(&settings.database)?;
    let mend = "database.url = \"postgres://…?sslmode=verify-full&sslrootcert=/etc/wheelhouse/postgres-ca.pem\"";
    let mode = transport.ssl_mode;
    Some(match mode {
        "verify-full" | "verify-ca" => {
            Finding::ok(check, format!("the way to PostgreSQL is encrypted (sslmode={mode})"))
        }
        _ if transport.is_local => Finding::ok(check, "PostgreSQL is on this machine"),
        "require" => Finding::warning(
            check,
            "the way to PostgreSQL is encrypted, but anybody may say that they are the server (sslmode=require)",
            mend,
        ),
        _ => Finding::warning(
            check,
            format!("the way to PostgreSQL is unencrypted, or becomes so when somebody asks for it (sslmode={mode})"),
            mend,
        ),
    })
}

fn is_local_url(url: &str) -> bool {
    url.split_once("://").is_some_and(|(_, rest)| is_local_host(rest.split('/').next().unwrap_or_default()))
}

/// `HOST`, `HOST:PORT` or `[IPv6]:PORT`.
fn is_local_host(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name == "localhost" || name.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::is_local_host;

    #[test]
    fn what_stays_on_this_machine_is_known_by_name_and_number() {
        for local in ["localhost", "localhost:6379", "127.0.0.1:1", "127.8.0.1", "[::1]:6379"] {
            assert!(is_local_host(local), "{local}");
        }
        for elsewhere in ["", "redis", "10.0.0.5:6379", "localhost.example.com", "[2001:db8::1]:6379"] {
            assert!(!is_local_host(elsewhere), "{elsewhere}");
        }
    }
}
