//! What Redis says of itself, and what it permits.

use super::finding::{Finding, Program};
use crate::broker::channels_in_use::{CHANNELS_MEND, ChannelsInUse};
use crate::broker::diagnosis::{ServerReport, channels_in_use, diagnose};
use crate::broker::{BrokerError, RedisVersion};
use crate::config::Settings;

/// Clocks that are further apart end leases and tokens early or late.
const MAX_CLOCK_DIFFERENCE_MS: u64 = 2_000;

/// Asks every server that `redis.url` names.
pub async fn check(settings: &Settings, program: Program) -> Vec<Finding> {
    match diagnose(&settings.redis, program == Program::Worker).await {
        Err(error) => vec![unreachable(&error)],
        Ok(servers) => {
            let (wanted, fsyncs) = (settings.redis.replicas_to_wait, settings.redis.fsyncs_to_wait);
            let of = |server: &Result<ServerReport, BrokerError>| match server {
                Ok(server) => of_server(server, program, wanted).into_iter().chain(disks(server, fsyncs)).collect(),
                Err(error) => vec![unreachable(error)],
            };
            servers.iter().flat_map(of).chain(channels(settings).await).collect()
        }
    }
}

/// For each kind of programs of a cluster that this one does not hear, or that do not hear it. Where all is well that is not worth a line, and
/// a cluster that does not answer is told of by others.
async fn channels(settings: &Settings) -> Vec<Finding> {
    let (own, others) =
        (ChannelsInUse::of(&settings.redis), channels_in_use(&settings.redis).await.unwrap_or_default());
    let problems = others.into_iter().filter_map(|other| own.problem_with(other));
    problems.map(|problem| Finding::warning("redis.channels", problem, CHANNELS_MEND)).collect()
}

fn unreachable(error: &BrokerError) -> Finding {
    let mend = match error.code() {
        Some("WRONGPASS" | "NOAUTH") => "redis.url = \"redis://USER:PASSWORD@HOST:PORT\"",
        _ if error.to_string().contains("certificate") => {
            "redis.ca_file names the authority of Redis's certificate; redis.client_cert_file and redis.client_key_file are yours"
        }
        _ if error.to_string().contains("speaks TLS") => "redis.url = \"rediss://HOST:PORT\"",
        _ if error.to_string().contains("without TLS") => "redis.url = \"rediss://HOST:TLS-PORT\"",
        _ => "start Redis, or say where it is: redis.url = \"redis://HOST:PORT\"",
    };
    Finding::error("redis.connection", error.to_string(), mend)
}

fn of_server(server: &ServerReport, program: Program, replicas_to_wait: u32) -> Vec<Finding> {
    let address = &server.address;
    let mut findings = vec![Finding::ok("redis.connection", format!("{address}: connected as {}", server.user))];
    if !server.version.is_empty() {
        let number = RedisVersion::parse(&server.version);
        let message = format!("{address}: Redis {}", server.version);
        findings.push(match number >= Some(RedisVersion::OLDEST) {
            true => Finding::ok("redis.version", message),
            false => Finding::error("redis.version", format!("{message} is too old"), "install Redis 7.0 or newer"),
        });
    }
    if !server.maxmemory_policy.is_empty() {
        let message = format!("{address}: maxmemory-policy is {}", server.maxmemory_policy);
        findings.push(match server.maxmemory_policy.as_str() {
            "noeviction" => Finding::ok("redis.maxmemory_policy", message),
            _ => Finding::error(
                "redis.maxmemory_policy",
                format!("{message}: eviction would forget limits, permissions and commands"),
                "redis-cli CONFIG SET maxmemory-policy noeviction, and maxmemory-policy noeviction in redis.conf",
            ),
        });
    }
    match server.append_only {
        Some(true) => findings.push(Finding::ok("redis.append_only", format!("{address}: it has an append-only file"))),
        Some(false) => findings.push(Finding::error(
            "redis.append_only",
            format!("{address}: without an append-only file a restart loses accepted commands"),
            "redis-cli CONFIG SET appendonly yes, and appendonly yes in redis.conf",
        )),
        None => {}
    }
    findings.extend(server.replicas.and_then(|there| replicas(address, there, replicas_to_wait)));
    findings.push(clock("redis.clock", address, server.clock_ahead_ms));
    findings.push(rights(server, program));
    if let Some(words) = &server.hears_tenants_singly {
        findings.push(Finding::warning(
            "redis.all_tenants",
            format!(
                "{address}: {} may not hear all tenants by one pattern, so each tenant that is watched as a whole costs every PUBLISH two comparisons: {words}",
                server.user
            ),
            format!("redis-cli ACL SETUSER {} '&*', unless this gateway is bound to a few tenants", server.user),
        ));
    }
    findings.push(match &server.write_problem {
        None => Finding::ok("redis.writes", format!("{address}: it takes writes")),
        Some(problem) => Finding::error(
            "redis.writes",
            format!("{address}: Redis does not take what commands write: {problem}"),
            write_mend(problem),
        ),
    });
    findings.push(match server.needless.as_slice() {
        [] => Finding::ok("redis.needless_rights", format!("{address}: {} may do no more than it needs", server.user)),
        some => Finding::warning(
            "redis.needless_rights",
            format!("{address}: {} may use {}, which no program of Wheelhouse needs", server.user, some.join(" and ")),
            format!(
                "aclfile with deploy/redis/users.acl, and redis.url = \"redis://wheelhouse-{}:…\"",
                program.as_str()
            ),
        ),
    });
    findings
}

/// `None`: none is waited for, or it cannot be known whether it can be.
fn disks(server: &ServerReport, fsyncs_to_wait: u32) -> Option<Finding> {
    if fsyncs_to_wait == 0 {
        return None;
    }
    let (check, address) = ("redis.fsyncs_to_wait", &server.address);
    let number = RedisVersion::parse(&server.version)?;
    let replicas = server.replicas.unwrap_or(0) as u32;
    Some(match (number >= RedisVersion::WITH_WAITAOF, server.append_only) {
        (false, _) => Finding::error(
            check,
            format!("{address}: Redis {} cannot say what is on disk, so that programs refuse to start", server.version),
            "install Redis 7.2 or newer, or redis.fsyncs_to_wait = 0",
        ),
        (true, Some(false)) => Finding::error(
            check,
            format!("{address}: commands wait for the append-only file, and there is none"),
            "redis-cli CONFIG SET appendonly yes, and appendonly yes in redis.conf, or redis.fsyncs_to_wait = 0",
        ),
        _ if fsyncs_to_wait - 1 > replicas => Finding::error(
            check,
            format!(
                "{address}: commands wait for the disks of {} replicas, and there are {replicas}",
                fsyncs_to_wait - 1
            ),
            "start the replicas, or redis.fsyncs_to_wait = 1",
        ),
        _ => Finding::ok(check, format!("{address}: commands wait for {fsyncs_to_wait} disks")),
    })
}

/// `None`: there are none, and none are waited for.
fn replicas(address: &str, there: usize, wanted: u32) -> Option<Finding> {
    let check = "redis.replicas_to_wait";
    Some(match (there, wanted) {
        (0, 0) => return None,
        (_, 0) => Finding::ok(
            check,
            format!(
                "{address}: {there} replicas, and none is waited for: a failover may lose what was accepted last (redis.replicas_to_wait = 1)"
            ),
        ),
        (there, wanted) if there < wanted as usize => Finding::error(
            check,
            format!(
                "{address}: commands wait for {wanted} replicas, and there are {there}: each of them is answered outcome_unknown"
            ),
            "start the replicas, or redis.replicas_to_wait = 0",
        ),
        _ => Finding::ok(check, format!("{address}: commands wait for {wanted} of {there} replicas")),
    })
}

/// For Redis and for PostgreSQL.
pub(super) fn clock(check: &'static str, address: &str, ahead_ms: i64) -> Finding {
    let seconds = ahead_ms.unsigned_abs() as f64 / 1_000.0;
    match ahead_ms.unsigned_abs() > MAX_CLOCK_DIFFERENCE_MS {
        false => Finding::ok(check, format!("{address}: its clock and this machine's agree to {seconds:.1} s")),
        true => Finding::error(
            check,
            format!(
                "{address}: its clock is {seconds:.1} s {} this machine's",
                if ahead_ms > 0 { "ahead of" } else { "behind" }
            ),
            "timedatectl set-ntp true, on both machines",
        ),
    }
}

fn rights(server: &ServerReport, program: Program) -> Finding {
    let (check, user, address) = ("redis.rights", &server.user, &server.address);
    let Some((_, words)) = server.refused.first() else {
        return Finding::ok(check, format!("{address}: {user} may do what a {} does", program.as_str()));
    };
    let tried: Vec<&str> = server.refused.iter().map(|(what, _)| what.as_str()).collect();
    let message =
        format!("{address}: {user} may not do what a {} does ({}): {words}", program.as_str(), tried.join(", "));
    // Redis names a command that is not permitted; of keys and channels it says only that it is one of them.
    let denied = words.split("the '").nth(1).and_then(|rest| rest.split('\'').next());
    let mend = match denied {
        Some(command) => format!("redis-cli ACL SETUSER {user} +{command}"),
        None if words.contains("key") => format!("redis-cli ACL SETUSER {user} '~wh:*'"),
        None if words.contains("channel") => format!("redis-cli ACL SETUSER {user} '&*'"),
        None => format!("the line of wheelhouse-{} in deploy/redis/users.acl has all that is needed", program.as_str()),
    };
    Finding::error(check, message, mend)
}

fn write_mend(problem: &str) -> &'static str {
    match problem.split(' ').next().unwrap_or_default() {
        "OOM" => "redis-cli CONFIG SET maxmemory 0, or more memory",
        "READONLY" => "redis.url names a replica: name the master, or its sentinels (redis+sentinel://)",
        "NOREPLICAS" => "start a replica, or redis-cli CONFIG SET min-replicas-to-write 0",
        "MISCONF" => "free the disk that Redis writes its files to",
        _ => "redis-cli INFO says more",
    }
}
