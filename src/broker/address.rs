//! Where Redis is: `redis.url` in the client library's terms, and who is the master right now.

use std::fmt;
use std::time::Duration;

use redis::io::tcp::TcpSettings;
use redis::sentinel::{Sentinel, SentinelNodeConnectionInfo};
use redis::{ConnectionInfo, IntoConnectionInfo, RedisResult};
use secrecy::ExposeSecret;

use super::error::BrokerError;

/// Longest time for asking the sentinels, all of them together.
const LOOKUP: Duration = Duration::from_secs(3);

/// One Redis, or the one that the sentinels name. Its `Display` never shows a password.
#[derive(Clone)]
pub(super) enum Address {
    /// `redis://` or `rediss://`.
    Single(Box<ConnectionInfo>),
    /// `redis+sentinel://[user:password@]host:port,host:port/master-name[/db]`: the user is Redis's own, not the
    /// sentinels'.
    Sentinel {
        /// Who to ask.
        sentinels: Vec<ConnectionInfo>,
        /// The name that the sentinels know the master by.
        name: String,
        /// User, password and database of the master.
        node: Box<redis::RedisConnectionInfo>,
    },
}

impl Address {
    /// Reads `redis.url`. An error says what to write, and never shows the address: a password may stand in it.
    pub(super) fn of(settings: &crate::config::Redis) -> Result<Self, BrokerError> {
        let url = settings.url.expose_secret();
        if let Some(rest) = url.strip_prefix("redis+sentinel://") {
            return Self::sentinel(rest);
        }
        if url.starts_with("redis+cluster://") {
            return Err(refused(
                "redis+cluster:// is not supported yet; use redis://, rediss:// or redis+sentinel://host:port,host:port/master-name",
            ));
        }
        Ok(Self::Single(Box::new(info(url)?)))
    }

    fn sentinel(rest: &str) -> Result<Self, BrokerError> {
        let form = || refused("write redis+sentinel://[user:password@]host:port,host:port/master-name[/db]");
        let (authority, path) = rest.split_once('/').ok_or_else(form)?;
        let (user, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (name, db) = path.split_once('/').unwrap_or((path, "0"));
        if name.is_empty() || hosts.is_empty() {
            return Err(form());
        }
        // The library's own reading of an address decodes user, password and database for us.
        let node = info(&format!("redis://{user}@sentinel/{db}"))?.redis_settings().clone();
        let sentinels = hosts
            .split(',')
            .map(|host| {
                info(&format!("redis://{}", if host.contains(':') { host.into() } else { format!("{host}:26379") }))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self::Sentinel { sentinels, name: name.to_owned(), node: Box::new(node) })
    }

    /// The server to connect to now. The sentinels are asked each time: the master may be another one.
    pub(super) async fn resolve(&self) -> RedisResult<ConnectionInfo> {
        match self {
            Self::Single(info) => Ok(info.as_ref().clone()),
            Self::Sentinel { sentinels, name, node } => {
                let settings = SentinelNodeConnectionInfo::default()
                    .set_redis_connection_info(node.as_ref().clone())
                    .set_tcp_settings(tcp());
                let mut asked = Sentinel::build(sentinels.clone())?;
                // It also asks the named server whether it takes itself for the master.
                let lookup = asked.async_master_for(name, Some(&settings));
                let late = || (redis::ErrorKind::Io, "the sentinels did not answer in time").into();
                let client = tokio::time::timeout(LOOKUP, lookup).await.unwrap_or_else(|_| Err(late()))?;
                Ok(client.get_connection_info().clone())
            }
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Single(info) => write!(f, "{}", info.addr()),
            Self::Sentinel { sentinels, name, .. } => {
                let all: Vec<String> = sentinels.iter().map(|s| s.addr().to_string()).collect();
                write!(f, "{name} of the sentinels {}", all.join(", "))
            }
        }
    }
}

fn tcp() -> TcpSettings {
    TcpSettings::default().set_nodelay(true)
}

fn info(url: &str) -> Result<ConnectionInfo, BrokerError> {
    let info = url.into_connection_info().map_err(|_| refused("it is not an address like redis://host:6379"))?;
    Ok(info.set_tcp_settings(tcp()))
}

fn refused(problem: &str) -> BrokerError {
    BrokerError::Refused(format!("redis.url: {problem}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(url: &str) -> Result<Address, BrokerError> {
        Address::of(&crate::config::Redis { url: url.into(), partitions: 1 })
    }

    #[test]
    fn addresses_are_read_and_never_show_the_password() {
        assert_eq!(of("redis://:hunter2@h:1/3").expect("address").to_string(), "h:1");
        let address = of("redis+sentinel://ann:hunter%3A2@a:1,b/main/3").expect("address");
        assert_eq!(address.to_string(), "main of the sentinels a:1, b:26379");
        let Address::Sentinel { node, .. } = address else { panic!("not a sentinel") };
        assert_eq!((node.username(), node.password(), node.db()), (Some("ann"), Some("hunter:2"), 3));
        for bad in [
            "redis+sentinel://hunter2@a:1",
            "redis+sentinel://hunter2@/main",
            "redis+cluster://:hunter2@a",
            "redis://:hunter2@:x",
        ] {
            let error = of(bad).err().expect("refused").to_string();
            assert!(error.contains("redis.url") && !error.contains("hunter2"), "{error}");
        }
    }
}
