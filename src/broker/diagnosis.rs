//! What an operator should know of a Redis before programs rely on it: for `wheelhouse doctor`. Unlike a program's own
//! start it does not stop at the first thing that is wrong.

use std::collections::BTreeSet;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, ConnectionInfo, FromRedisValue, RedisError};

use super::channels_in_use::ChannelsInUse;
use super::client::Client;
use super::connection::{explained, this_machine_us};
use super::discovery::Discovery;
use super::error::{BrokerError, words_of};
use super::keys::{
    DISPATCH_CHANNEL, Keys, PERMISSIONS_CHANNEL, RESOURCE_PROBE_PATTERN, WORKER_CHANNELS, control_pattern,
    everything_pattern, resource_probe_channel, shard_channel, subscriber_name,
};
use super::mastership::live_replicas;
use super::scripts::lua::PROVE_WRITES;
use crate::config::{HeardChannels, PublishedChannels};
use crate::domain::ResourceKind;

/// Longest wait for a server.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The name under which this subscribes and writes; no worker and no subscriber is called so.
const NAME: &str = "@doctor";

/// What was found of one server.
#[derive(Debug, Default)]
pub struct ServerReport {
    /// Its address.
    pub address: String,
    /// The user in `redis.url`; `default` where none is named.
    pub user: String,
    /// `redis_version` of INFO; empty where this user may not ask.
    pub version: String,
    /// `maxmemory_policy` of INFO; empty where this user may not ask.
    pub maxmemory_policy: String,
    /// Whether it has an append-only file. `None`: this user may not ask.
    pub append_only: Option<bool>,
    /// Replicas that are in step. `None`: this user may not ask.
    pub replicas: Option<usize>,
    /// Its clock minus this machine's, in ms.
    pub clock_ahead_ms: i64,
    /// What the user may not do although the program does it: what was tried, and Redis's words.
    pub refused: Vec<(String, String)>,
    /// What a gateway's user may not do although it would cost less: to hear all tenants by one pattern. Redis's words.
    pub hears_tenants_singly: Option<String>,
    /// What the user may do although no program needs it.
    pub needless: Vec<&'static str>,
    /// Why a write was refused for another reason than a right: `OOM …`, `READONLY …`.
    pub write_problem: Option<String>,
}

/// Looks at the server, or the nodes of a cluster that `redis.url` names, as a worker or a gateway uses them: each node by
/// itself, so that one that is away hides nothing of the others.
pub async fn diagnose(
    settings: &crate::config::Redis,
    is_worker: bool,
) -> Result<Vec<Result<ServerReport, BrokerError>>, BrokerError> {
    let discovery = Discovery::of(settings)?;
    let servers = match &discovery {
        Discovery::Cluster(seeds) => seeds.clone(),
        one => match one.resolve().await {
            Ok(server) => vec![server],
            Err(error) => return Err(explained(one, &error).await),
        },
    };
    let reports = servers.iter().map(async |server| {
        let looked = tokio::time::timeout(TIMEOUT, look_at(server, settings, is_worker));
        let late = |_| Err((redis::ErrorKind::Io, "no answer in time").into());
        match looked.await.unwrap_or_else(late) {
            Ok(report) => Ok(report),
            Err(error) => Err(match &discovery {
                Discovery::Cluster(_) => explained(&Discovery::Single(Box::new(server.clone())), &error).await,
                one => explained(one, &error).await,
            }),
        }
    });
    Ok(futures_util::future::join_all(reports).await)
}

/// Which channels the gateways and workers of a cluster use; nothing where there is but one server.
pub async fn channels_in_use(settings: &crate::config::Redis) -> Result<BTreeSet<ChannelsInUse>, BrokerError> {
    let Discovery::Cluster(_) = Discovery::of(settings)? else { return Ok(BTreeSet::new()) };
    let (client, key) = (Client::connect(settings).await?, Keys::new(settings.partitions).channels_in_use());
    let mut read = redis::cmd("ZRANGEBYSCORE");
    read.arg(&key).arg(client.now_us(&key) / 1_000).arg("+inf");
    let said: Vec<String> = client.query(&read).await?;
    Ok(said.iter().filter_map(|said| said.parse().ok()).collect())
}

async fn look_at(
    server: &ConnectionInfo,
    settings: &crate::config::Redis,
    is_worker: bool,
) -> Result<ServerReport, RedisError> {
    let keys = Keys::new(settings.partitions);
    let client = redis::Client::open(server.clone())?;
    let mut connection = client.get_multiplexed_async_connection().await?;
    let user = server.redis_settings().username().unwrap_or("default").to_owned();
    let mut report = ServerReport { address: server.addr().to_string(), user, ..ServerReport::default() };
    let asked_us = this_machine_us();
    if let Some((seconds, micros)) = report.tried::<(i64, i64)>(&mut connection, &redis::cmd("TIME")).await? {
        let here_us = i64::midpoint(asked_us, this_machine_us());
        report.clock_ahead_ms = (seconds * 1_000_000 + micros - here_us) / 1_000;
    }
    if let Some(info) = report.tried::<String>(&mut connection, &redis::cmd("INFO")).await? {
        let field = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim();
        report.version = field("redis_version:").to_owned();
        report.maxmemory_policy = field("maxmemory_policy:").to_owned();
        report.append_only = Some(field("aof_enabled:") == "1");
        report.replicas = Some(live_replicas(&info));
    }
    report.try_scripts(&mut connection, keys, settings.published_channels).await?;
    report.try_subscriptions(&client, is_worker).await?;
    if settings.heard_channels == HeardChannels::Sharded {
        report.try_sharded_channels(&client, keys, is_worker).await?;
    }
    if is_worker {
        for partition in keys.partitions() {
            // No entry has this id.
            report.tried::<()>(&mut connection, redis::cmd("XDEL").arg(keys.audit(partition)).arg("0-1")).await?;
        }
        let types = format!("wh:types:{NAME}");
        report.tried::<()>(&mut connection, redis::cmd("SET").arg(types).arg("[]").arg("PX").arg("1")).await?;
    }
    for (command, what) in [
        (redis::cmd("CONFIG").arg("GET").arg("maxmemory"), "CONFIG and the like"),
        (redis::cmd("EXISTS").arg("not-wheelhouse"), "keys that do not begin with wh:"),
    ] {
        if command.query_async::<redis::Value>(&mut connection).await.is_ok() {
            report.needless.push(what);
        }
    }
    Ok(report)
}

impl ServerReport {
    /// What a command answers, and `None` where this user may not give it.
    async fn tried<T: FromRedisValue>(
        &mut self,
        connection: &mut MultiplexedConnection,
        command: &Cmd,
    ) -> Result<Option<T>, RedisError> {
        match command.query_async::<T>(connection).await {
            Ok(answer) => Ok(Some(answer)),
            Err(error) => {
                let name = command.args_iter().next().map(|arg| match arg {
                    redis::Arg::Simple(bytes) => String::from_utf8_lossy(bytes).into_owned(),
                    _ => String::new(),
                });
                self.note(name.unwrap_or_default(), error).map(|()| None)
            }
        }
    }

    /// A right that is missing is noted once for each command; another server's key is no trouble; anything else is an error.
    fn note(&mut self, what: String, error: RedisError) -> Result<(), RedisError> {
        if error.code() == Some("MOVED") {
            return Ok(());
        }
        match BrokerError::of_connecting(&self.address, &error) {
            problem if problem.code() == Some("NOPERM") => {
                if self.refused.iter().all(|(known, _)| *known != what) {
                    self.refused.push((what, words_of(&error)));
                }
                Ok(())
            }
            problem if problem.is_denied() => Err(error),
            BrokerError::NotServing(_) => {
                self.write_problem = Some(words_of(&error));
                Ok(())
            }
            _ => Err(error),
        }
    }

    /// Everything that scripts do, on keys of this purpose alone, in each partition.
    async fn try_scripts(
        &mut self,
        connection: &mut MultiplexedConnection,
        keys: Keys,
        published: PublishedChannels,
    ) -> Result<(), RedisError> {
        let channel = resource_probe_channel(&subscriber_name());
        for partition in keys.partitions() {
            let proof = keys.proof(partition);
            let names: Vec<&str> = proof.iter().map(String::as_str).collect();
            let script = PROVE_WRITES.in_full(published, &names, &[channel.as_bytes(), b"all"]);
            if self.tried::<i64>(connection, &script).await?.is_none() {
                break;
            }
        }
        Ok(())
    }

    /// One of each kind. Whichever server has it: the right is asked for first.
    async fn try_sharded_channels(
        &mut self,
        client: &redis::Client,
        keys: Keys,
        is_worker: bool,
    ) -> Result<(), RedisError> {
        let mut names = ResourceKind::ALL.map(if is_worker { control_pattern } else { everything_pattern }).to_vec();
        names.extend(is_worker.then(|| format!("{WORKER_CHANNELS}{NAME}")));
        for (name, partition) in names.iter().zip(keys.partitions().cycle()) {
            // A connection that hears can do nothing else.
            let mut connection = client.get_multiplexed_async_connection().await?;
            let channel = shard_channel(partition, name);
            let asked = redis::cmd("SSUBSCRIBE").arg(&channel).query_async::<redis::Value>(&mut connection).await;
            if let Err(error) = asked {
                self.note(format!("SSUBSCRIBE {channel}"), error)?;
            }
        }
        Ok(())
    }

    async fn try_subscriptions(&mut self, client: &redis::Client, is_worker: bool) -> Result<(), RedisError> {
        let mut pubsub = client.get_async_pubsub().await?;
        let own = match is_worker {
            true => vec![DISPATCH_CHANNEL.to_owned(), format!("{WORKER_CHANNELS}{NAME}")],
            false => vec![PERMISSIONS_CHANNEL.to_owned()],
        };
        for channel in own {
            if let Err(error) = pubsub.subscribe(&channel).await {
                self.note(format!("SUBSCRIBE {channel}"), error)?;
            }
        }
        let patterns = match is_worker {
            true => ResourceKind::ALL.into_iter().map(control_pattern).collect(),
            false => vec![RESOURCE_PROBE_PATTERN.to_owned()],
        };
        for pattern in patterns {
            if let Err(error) = pubsub.psubscribe(&pattern).await {
                self.note(format!("PSUBSCRIBE {pattern}"), error)?;
            }
        }
        for pattern in ResourceKind::ALL.map(everything_pattern).iter().filter(|_| !is_worker) {
            match pubsub.psubscribe(pattern).await {
                Err(error) if error.code() == Some("NOPERM") => self.hears_tenants_singly = Some(words_of(&error)),
                asked => asked?,
            }
        }
        Ok(())
    }
}
