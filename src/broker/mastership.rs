//! Whether the server at the other end of a connection is the master: the sentinels name it, it says so itself, and where
//! the sentinels cannot be asked, it is not cut off from its replicas (`docs/decisions/0009-one-master-at-a-time.md`).

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{ConnectionAddr, RedisResult};

use super::discovery::Discovery;
use super::sentinels::{BEING_REPLACED, Opinion};

/// Between two looks at a server that is believed to be the master.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// A replica that has not acknowledged anything for more seconds than this is not counted: it does so every second, and
/// a master takes one that has become unreachable for connected for a minute.
const MAX_REPLICA_LAG: u64 = 3;

/// Returns when the server is not the master any more, and why. Never where there are no sentinels.
pub(super) async fn until_not_master(
    discovery: &Discovery,
    server: &ConnectionAddr,
    mut connection: MultiplexedConnection,
) -> &'static str {
    tokio::select! {
        why = discovery.until_left(server) => why,
        why = until_it_says_so(discovery, &mut connection) => why,
    }
}

async fn until_it_says_so(discovery: &Discovery, connection: &mut MultiplexedConnection) -> &'static str {
    loop {
        tokio::time::sleep(CHECK_INTERVAL).await;
        // No answer is the business of whoever else uses the connection.
        if let Some(opinion) = discovery.opinion()
            && let Ok(Some(why)) = why_not_master(connection, &opinion).await
        {
            return why;
        }
    }
}

/// Why a server that the sentinels named should not be used as the master; `None`: it should.
pub(super) async fn why_not_master(
    connection: &mut MultiplexedConnection,
    opinion: &Opinion,
) -> RedisResult<Option<&'static str>> {
    // Not ROLE: that counts replicas for a minute after they were cut off, and needs a right of its own.
    let info: String = redis::cmd("INFO").arg("replication").query_async(connection).await?;
    Ok(judge(&info, opinion))
}

fn judge(info: &str, opinion: &Opinion) -> Option<&'static str> {
    if opinion.is_switching {
        return Some(BEING_REPLACED);
    }
    if !info.lines().any(|line| line.trim_end() == "role:master") {
        return Some("it is a replica");
    }
    // Most sentinels are out of sight, perhaps together with the replicas: then one of these may be the master by now. A
    // master that hears its replicas has not been replaced, for they would follow the new one.
    if !opinion.is_confirmed && opinion.has_replicas && live_replicas(info) == 0 {
        return Some(
            "most sentinels do not answer, and it has lost its replicas: another one may be the master by now",
        );
    }
    None
}

/// Replicas that are in step and have said so within the last seconds.
pub(super) fn live_replicas(info: &str) -> usize {
    let replicas = info.lines().filter(|line| line.starts_with("slave") && line.contains("state=online"));
    let lag = |line: &str| line.split("lag=").nth(1)?.split(',').next()?.trim().parse::<u64>().ok();
    replicas.filter(|line| lag(line).is_some_and(|lag| lag <= MAX_REPLICA_LAG)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(role: &str, lags: &[u64]) -> String {
        let replicas = lags.iter().enumerate();
        let replicas =
            replicas.map(|(n, lag)| format!("slave{n}:ip=10.0.0.{n},port=6379,state=online,offset=7,lag={lag}\r\n"));
        format!("# Replication\r\nrole:{role}\r\nconnected_slaves:{}\r\n{}", lags.len(), replicas.collect::<String>())
    }

    #[test]
    fn a_master_is_left_when_neither_most_sentinels_nor_its_replicas_are_heard() {
        let opinion = |is_confirmed, has_replicas| Opinion { is_confirmed, has_replicas, ..Opinion::default() };
        let is_left = |info: &str, opinion| judge(info, &opinion).is_some();
        assert!(is_left(&info("slave", &[]), opinion(true, true)));
        assert!(!is_left(&info("master", &[]), opinion(true, true)), "its replicas are dead, say the sentinels");
        assert!(!is_left(&info("master", &[0, 40]), opinion(false, true)), "a replica follows it");
        assert!(is_left(&info("master", &[4, 40]), opinion(false, true)), "they were cut off");
        assert!(is_left(&info("master", &[]), opinion(false, true)));
        assert!(!is_left(&info("master", &[]), opinion(false, false)), "nothing could take its place");
        let switching = Opinion { is_switching: true, ..opinion(true, true) };
        assert!(is_left(&info("master", &[0, 0]), switching), "which replica is promoted may be decided already");
    }
}
