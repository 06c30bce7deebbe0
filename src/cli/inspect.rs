//! `wheelhouse inspect`: what Redis holds, each with the `redis-cli` command that shows the same.

use std::process::ExitCode;

use clap::Subcommand;
use secrecy::ExposeSecret;

use super::out::{say, tell};
use crate::broker::Broker;
use crate::broker::keys::{RequestPlace, request_name};
use crate::config::Settings;
use crate::domain::{RequestId, Resource, ResourceId, TenantId, UserId};

/// Tenants of one partition that `queue` shows.
const TENANTS_SHOWN: usize = 1_000;

/// What to look at.
#[derive(Debug, Subcommand)]
pub(super) enum InspectCommand {
    /// A user's budget, cached permissions and open sockets in a tenant.
    User {
        /// The user.
        user: UserId,
        /// The tenant.
        #[arg(long)]
        tenant: TenantId,
    },
    /// A job's commands, host and live progress.
    Job {
        /// The job.
        id: ResourceId,
        /// Its tenant.
        #[arg(long)]
        tenant: TenantId,
    },
    /// A campaign's commands.
    Campaign {
        /// The campaign.
        id: ResourceId,
        /// Its tenant.
        #[arg(long)]
        tenant: TenantId,
    },
    /// What a request_id was answered with.
    Request {
        /// The client's request_id.
        request: RequestId,
        /// Who sent it.
        #[arg(long)]
        user: UserId,
        /// The tenant.
        #[arg(long)]
        tenant: TenantId,
        /// The job that it was about.
        #[arg(long, required_unless_present = "campaign", conflicts_with = "campaign")]
        job: Option<ResourceId>,
        /// The campaign that it was about.
        #[arg(long)]
        campaign: Option<ResourceId>,
    },
    /// Workers alive.
    Workers,
    /// Resources whose commands wait, and audit entries on their way to SQL.
    Queue,
}

pub(super) async fn inspect(command: InspectCommand, settings: Settings) -> anyhow::Result<ExitCode> {
    let broker = Broker::connect(&settings.redis).await?;
    let keys = broker.keys();
    let views: Vec<(&str, Vec<String>)> = match command {
        InspectCommand::User { user, tenant } => {
            let minimum = keys.min_permission_version(keys.partition(&tenant), &user);
            vec![
                (
                    "commands in the last minute (µs, newest first)",
                    arguments(&["LRANGE", &keys.rate(&tenant, &user), "0", "-1"]),
                ),
                ("cached permissions", arguments(&["HGETALL", &keys.permissions(&tenant, &user)])),
                ("lowest version believed", arguments(&["GET", &minimum])),
                (
                    "open sockets (id, Unix ms at which the lease ends)",
                    arguments(&["ZRANGE", &keys.user_connections(&tenant, &user), "0", "-1", "WITHSCORES"]),
                ),
            ]
        }
        InspectCommand::Job { id, tenant } => resource(&broker, &Resource::job(tenant, id)),
        InspectCommand::Campaign { id, tenant } => resource(&broker, &Resource::campaign(tenant, id)),
        InspectCommand::Request { request, user, tenant, job, campaign } => {
            let resource = match (job, campaign) {
                (Some(id), _) => Resource::job(tenant, id),
                (None, Some(id)) => Resource::campaign(tenant, id),
                (None, None) => anyhow::bail!("say --job or --campaign"),
            };
            answer_to_request(&broker, &resource, &user, &request)
        }
        InspectCommand::Workers => {
            let first = keys.partitions().next().map(|p| keys.workers(p)).unwrap_or_default();
            vec![(
                "workers (id, Unix ms from which they count as gone)",
                arguments(&["ZRANGE", &first, "0", "-1", "WITHSCORES"]),
            )]
        }
        InspectCommand::Queue => {
            let mut views = Vec::new();
            for partition in keys.partitions() {
                let tenants = match broker.tenants_with_ready(partition, TENANTS_SHOWN).await {
                    Ok(tenants) => tenants,
                    // One server of a cluster that is away hides nothing of the others.
                    Err(error) if broker.is_cluster() => {
                        tell!("nothing is known of partition {partition}: {error}");
                        continue;
                    }
                    Err(error) => return Err(error.into()),
                };
                for tenant in tenants {
                    views.push((
                        "waiting (resource, Unix ms from which it may be claimed)",
                        arguments(&["ZRANGE", &keys.ready(&tenant), "0", "-1", "WITHSCORES"]),
                    ));
                }
                views.push((
                    "scheduled (resource|command, Unix ms when it shall run)",
                    arguments(&["ZRANGE", &keys.schedule(partition), "0", "-1", "WITHSCORES"]),
                ));
                views.push(("audit entries on their way to SQL", arguments(&["XLEN", &keys.audit(partition)])));
            }
            views
        }
    };
    let redis_cli = redis_cli(settings.redis.url.expose_secret());
    let mut is_empty = true;
    for (title, command) in views {
        let shown = broker.query_any(&command).await?;
        if shown.is_empty() {
            continue;
        }
        is_empty = false;
        say!("{title}");
        say!("  $ {redis_cli} {}", quoted(&command));
        for line in shown {
            say!("  {line}");
        }
    }
    if is_empty {
        say!("Redis holds nothing of it.");
    }
    Ok(ExitCode::SUCCESS)
}

/// `redis-cli` and where to, so that the line can be pasted. No user and no password: they would end up on a screen.
fn redis_cli(url: &str) -> String {
    let plain = "redis-cli".to_owned();
    let Some((scheme, _)) = url.split_once("://") else { return plain };
    if scheme.ends_with("+cluster") {
        return "redis-cli -c".to_owned(); // It goes where the key is, from any node.
    }
    let Ok(uri) = url.parse::<hyper::Uri>() else { return plain };
    if !matches!(scheme, "redis" | "rediss") {
        return plain; // Who the master is changes.
    }
    let mut line = plain;
    match uri.host() {
        None | Some("127.0.0.1" | "localhost") => {}
        Some(host) => line.push_str(&format!(" -h {host}")),
    }
    if let Some(port) = uri.port_u16().filter(|port| *port != 6379) {
        line.push_str(&format!(" -p {port}"));
    }
    if scheme == "rediss" {
        line.push_str(" --tls");
    }
    line
}

fn resource(broker: &Broker, r: &Resource) -> Vec<(&'static str, Vec<String>)> {
    let keys = broker.keys();
    vec![
        ("state", arguments(&["HGETALL", &keys.state(r)])),
        ("commands without a result, oldest first", arguments(&["LRANGE", &keys.queue(r), "0", "-1"])),
        ("their records", arguments(&["HGETALL", &keys.commands(r)])),
        ("results, newest first", arguments(&["LRANGE", &keys.finished(r), "0", "9"])),
        ("result messages", arguments(&["HGETALL", &keys.results(r)])),
    ]
}

/// Wherever it may be: among those of the last days, as the version before keeps it, or in a key of its own.
fn answer_to_request(
    broker: &Broker,
    r: &Resource,
    user: &UserId,
    request: &RequestId,
) -> Vec<(&'static str, Vec<String>)> {
    let (keys, name) = (broker.keys(), request_name(r, user, request.as_str()));
    let (partition, place) = (keys.partition(&r.tenant), RequestPlace::of(&name));
    let title = "answer: l, r, n accepted (control live, row, none) or d denied; until when (10 digits, Unix s); the \
                 command's id (32); workers online; what was asked for";
    let now = keys.requests(partition, &place).map(|key| (title, arguments(&["HGET", &key, place.field()])));
    let former = keys.former_requests(partition, &name);
    let former = former.map(|key| ("answer, as the version before keeps it", arguments(&["HGET", &key, &name])));
    let own = arguments(&["GET", &keys.request(r, user, request.as_str())]);
    now.into_iter().chain(former).chain([("answer of a scheduled command", own)]).collect()
}

fn arguments(parts: &[&str]) -> Vec<String> {
    parts.iter().map(|part| (*part).to_owned()).collect()
}

fn quoted(command: &[String]) -> String {
    let quote =
        |argument: &String| if argument.contains(['{', '%', '*']) { format!("'{argument}'") } else { argument.clone() };
    command.iter().map(quote).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_goes_to_the_same_redis_and_holds_no_password() {
        for (url, line) in [
            ("redis://127.0.0.1:6379", "redis-cli"),
            ("redis://localhost", "redis-cli"),
            ("redis://127.0.0.1:41499", "redis-cli -p 41499"),
            ("redis://ann:secret@10.0.0.5:6380/0", "redis-cli -h 10.0.0.5 -p 6380"),
            ("rediss://:secret@redis.example.com", "redis-cli -h redis.example.com --tls"),
            ("redis+sentinel://:secret@a:26379,b:26379/main", "redis-cli"),
        ] {
            assert_eq!(redis_cli(url), line);
        }
    }
}
