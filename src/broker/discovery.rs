//! Where Redis is: `redis.url` in the client library's terms, and who is the master right now.

use std::fmt;

use redis::io::tcp::TcpSettings;
use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisResult, TlsCertificates};
use secrecy::ExposeSecret;

use super::error::BrokerError;
use super::sentinels::{BEING_REPLACED, Opinion, Sentinels};
use crate::config;

/// One Redis, the one that the sentinels name, or a cluster. Its `Display` never shows a password.
#[derive(Clone)]
pub(super) enum Discovery {
    /// `redis://` or `rediss://`.
    Single(Box<ConnectionInfo>),
    /// `redis+sentinel://` or `rediss+sentinel://`, then `[user:password@]host:port,host:port/master-name`: the
    /// user is Redis's own, not the sentinels'.
    Sentinel {
        /// Who to ask.
        sentinels: Sentinels,
        /// How to connect to the master, but for its address: user, password, TLS.
        master: Box<ConnectionInfo>,
    },
    /// `redis+cluster://` or `rediss+cluster://`, then `[user:password@]host:port,host:port`: some of its nodes, at
    /// least one. All nodes have user, password and TLS in common.
    Cluster(Vec<ConnectionInfo>),
}

impl Discovery {
    /// Reads `redis.url`. An error says what to write, and never shows the address: a password may stand in it.
    pub(super) fn of(settings: &config::Redis) -> Result<Self, BrokerError> {
        let url = settings.url.expose_secret();
        config::one_database(url).map_err(|problem| refused(&problem))?;
        let (scheme, rest) = url.split_once("://").unwrap_or((url, ""));
        let tls = scheme
            .starts_with("rediss")
            .then(|| TlsCertificates { client_tls: client_tls(settings), root_cert: settings.ca_pem.clone() });
        match scheme {
            "redis+sentinel" | "rediss+sentinel" => Self::sentinel(rest, tls),
            "redis+cluster" | "rediss+cluster" => Self::cluster(rest, tls),
            _ => Ok(Self::Single(Box::new(info(rest, &tls)?))),
        }
    }

    fn sentinel(rest: &str, tls: Option<TlsCertificates>) -> Result<Self, BrokerError> {
        let form = || refused("write redis+sentinel://[user:password@]host:port,host:port/master-name");
        let (authority, path) = rest.split_once('/').ok_or_else(form)?;
        let (user, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (name, _) = path.split_once('/').unwrap_or((path, ""));
        if name.is_empty() || hosts.is_empty() {
            return Err(form());
        }
        // The library's own reading of an address decodes user and password for us.
        let master = info(&format!("{user}@sentinel"), &tls)?;
        let sentinels = hosts
            .split(',')
            .map(|host| info(&if host.contains(':') { host.into() } else { format!("{host}:26379") }, &tls))
            .collect::<Result<_, _>>()?;
        Ok(Self::Sentinel { sentinels: Sentinels::new(sentinels, name.to_owned()), master: Box::new(master) })
    }

    fn cluster(rest: &str, tls: Option<TlsCertificates>) -> Result<Self, BrokerError> {
        let form = || refused("write redis+cluster://[user:password@]host:port,host:port, without a database");
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        let (user, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
        if hosts.contains('/') || hosts.split(',').any(str::is_empty) {
            return Err(form());
        }
        let seeds = hosts.split(',').map(|host| info(&format!("{user}@{host}"), &tls));
        Ok(Self::Cluster(seeds.collect::<Result<_, _>>()?))
    }

    /// The server to connect to now. Of a cluster, one of the nodes that are named.
    pub(super) async fn resolve(&self) -> RedisResult<ConnectionInfo> {
        match self {
            Self::Single(info) => Ok(info.as_ref().clone()),
            Self::Sentinel { sentinels, master } => {
                let opinion = sentinels.ask().await;
                let named = opinion.borrow().master.as_ref().map(|named| at(master, &named.host, named.port));
                named.ok_or_else(|| std::io::Error::new(std::io::ErrorKind::NotConnected, sentinels.trouble()).into())
            }
            Self::Cluster(seeds) => {
                let none = || (redis::ErrorKind::InvalidClientConfig, "no node is named").into();
                fastrand::choice(seeds).cloned().ok_or_else(none)
            }
        }
    }

    /// The servers that `redis.url` names: sentinels, where it names those.
    pub(super) fn servers(&self) -> &[ConnectionInfo] {
        match self {
            Self::Single(info) => std::slice::from_ref(info),
            Self::Sentinel { sentinels, .. } => sentinels.addresses(),
            Self::Cluster(seeds) => seeds,
        }
    }

    /// The user of Redis that programs with these settings are.
    pub(super) fn user(&self) -> &str {
        let info = match self {
            Self::Single(info) | Self::Sentinel { master: info, .. } => Some(info.as_ref()),
            Self::Cluster(seeds) => seeds.first(),
        };
        info.and_then(|info| info.redis_settings().username()).unwrap_or("default")
    }

    /// What the sentinels say now; `None` where there are none to ask.
    pub(super) fn opinion(&self) -> Option<Opinion> {
        match self {
            Self::Sentinel { sentinels, .. } => Some(sentinels.opinion()),
            Self::Single(_) | Self::Cluster(_) => None,
        }
    }

    /// Returns when the sentinels name another master than the server at this address; never where there are none.
    pub(super) async fn is_deposed(&self, address: &ConnectionAddr) {
        self.until(|opinion| is_elsewhere(opinion, address)).await;
    }

    /// As [`Self::is_deposed`], and also when they begin to replace it; why.
    pub(super) async fn until_left(&self, address: &ConnectionAddr) -> &'static str {
        let opinion = self.until(|opinion| opinion.is_switching || is_elsewhere(opinion, address)).await;
        if is_elsewhere(&opinion, address) { "the sentinels name another master" } else { BEING_REPLACED }
    }

    /// Returns when the sentinels say something like this; never where there are none.
    async fn until(&self, holds: impl Fn(&Opinion) -> bool) -> Opinion {
        if let Self::Sentinel { sentinels, .. } = self {
            let mut said = sentinels.subscribe();
            if let Ok(opinion) = said.wait_for(holds).await {
                return opinion.clone();
            }
        }
        std::future::pending().await
    }
}

/// Whether another server is named than the one at this address.
fn is_elsewhere(opinion: &Opinion, address: &ConnectionAddr) -> bool {
    opinion.master.as_ref().is_some_and(|master| !master.is_at(address))
}

impl fmt::Display for Discovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |all: &[ConnectionInfo]| all.iter().map(|i| i.addr().to_string()).collect::<Vec<_>>().join(", ");
        match self {
            Self::Single(info) => write!(f, "{}", info.addr()),
            Self::Sentinel { sentinels, .. } => {
                write!(f, "{} of the sentinels {}", sentinels.name(), list(sentinels.addresses()))
            }
            Self::Cluster(seeds) => write!(f, "the cluster of {}", list(seeds)),
        }
    }
}

/// The certificate that this program shows, in the client library's terms.
fn client_tls(settings: &config::Redis) -> Option<redis::ClientTlsConfig> {
    settings.client_certificate.as_ref().map(|own| redis::ClientTlsConfig {
        client_cert: own.certificate_pem.clone(),
        client_key: own.key_pem.expose_secret().to_vec(),
    })
}

/// Another node of the same cluster.
pub(super) fn at(one: &ConnectionInfo, host: &str, port: u16) -> ConnectionInfo {
    let host = host.to_owned();
    let there = match one.addr().clone() {
        ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
            ConnectionAddr::TcpTls { host, port, insecure, tls_params }
        }
        _ => ConnectionAddr::Tcp(host, port),
    };
    one.clone().set_addr(there)
}

/// The port.
pub(super) fn port(info: &ConnectionInfo) -> u16 {
    match info.addr() {
        ConnectionAddr::Tcp(_, port) | ConnectionAddr::TcpTls { port, .. } => *port,
        _ => 0,
    }
}

/// The name or number of the machine.
pub(super) fn host(info: &ConnectionInfo) -> &str {
    match info.addr() {
        ConnectionAddr::Tcp(host, _) | ConnectionAddr::TcpTls { host, .. } => host,
        _ => "",
    }
}

fn tcp() -> TcpSettings {
    TcpSettings::default().set_nodelay(true)
}

/// What stands behind the `://`, with the settings that all connections have in common.
fn info(rest: &str, tls: &Option<TlsCertificates>) -> Result<ConnectionInfo, BrokerError> {
    let unreadable = |_| refused("it is not an address like redis://host:6379");
    let scheme = if tls.is_some() { "rediss" } else { "redis" };
    let info = format!("{scheme}://{rest}").into_connection_info().map_err(unreadable)?.set_tcp_settings(tcp());
    match tls {
        None => Ok(info),
        Some(certificates) => {
            let client = redis::Client::build_with_tls(info, certificates.clone())
                .map_err(|error| BrokerError::Setting(format!("redis.ca_file: {error}")))?;
            Ok(client.get_connection_info().clone())
        }
    }
}

fn refused(problem: &str) -> BrokerError {
    BrokerError::Setting(format!("redis.url: {problem}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(url: &str) -> Result<Discovery, BrokerError> {
        Discovery::of(&config::Redis {
            url: url.into(),
            ca_pem: None,
            client_certificate: None,
            partitions: 1,
            replicas_to_wait: 0,
            fsyncs_to_wait: 0,
            published_channels: config::PublishedChannels::Plain,
            heard_channels: config::HeardChannels::Plain,
        })
    }

    #[test]
    fn addresses_are_read_and_never_show_the_password() {
        assert_eq!(of("redis://:hunter2@h:1/0").expect("address").to_string(), "h:1");
        let address = of("redis+sentinel://ann:hunter%3A2@a:1,b/main/0").expect("address");
        assert_eq!(address.to_string(), "main of the sentinels a:1, b:26379");
        let Discovery::Sentinel { master, .. } = address else { panic!("not a sentinel") };
        let settings = master.redis_settings();
        assert_eq!((settings.username(), settings.password()), (Some("ann"), Some("hunter:2")));
        let address = of("redis+cluster://ann:hunter2@a:1,b,[::1]:3/").expect("address");
        assert_eq!(address.to_string(), "the cluster of a:1, b:6379, ::1:3");
        let Discovery::Cluster(seeds) = address else { panic!("not a cluster") };
        for seed in &seeds {
            let settings = seed.redis_settings();
            assert_eq!((settings.username(), settings.password()), (Some("ann"), Some("hunter2")));
        }
        for bad in [
            "redis+sentinel://hunter2@a:1",
            "redis+sentinel://hunter2@/main",
            "redis+cluster://:hunter2@",
            "redis+cluster://:hunter2@a,,b",
            "redis+cluster://:hunter2@a/3",
            "redis://:hunter2@:x",
            "redis://:hunter2@h/3",
            "rediss://ann:hunter2@h:1/15",
            "redis+sentinel://:hunter2@a/main/2",
        ] {
            let error = of(bad).err().expect("refused").to_string();
            assert!(error.contains("redis.url") && !error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn an_s_in_the_scheme_means_tls_for_every_connection() {
        let is_tls = |info: &ConnectionInfo| matches!(info.addr(), ConnectionAddr::TcpTls { insecure: false, .. });
        let Ok(Discovery::Single(info)) = of("rediss://h:1") else { panic!() };
        assert!(is_tls(&info));
        let Ok(Discovery::Sentinel { sentinels, master }) = of("rediss+sentinel://a,b/main") else { panic!() };
        assert!(sentinels.addresses().iter().all(is_tls) && is_tls(&master));
        let Ok(Discovery::Cluster(seeds)) = of("rediss+cluster://a,b") else { panic!() };
        assert!(seeds.iter().all(is_tls) && is_tls(&at(&seeds[0], "c", 7)));
        assert!(!is_tls(&at(&info_of("redis://a"), "c", 7)));
    }

    fn info_of(url: &str) -> ConnectionInfo {
        let Ok(Discovery::Single(info)) = of(url) else { panic!() };
        *info
    }
}
