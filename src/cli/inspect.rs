//! `wheelhouse inspect`: what Redis holds, each with the `redis-cli` command that shows the same.

use std::process::ExitCode;

use clap::Subcommand;

use crate::broker::Broker;
use crate::config::Settings;
use crate::domain::{Resource, ResourceId, TenantId, UserId};

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
            let floor = keys.permission_floor(keys.partition(&tenant), &user);
            vec![
                (
                    "commands in the last minute (µs, newest first)",
                    words(&["LRANGE", &keys.rate(&tenant, &user), "0", "-1"]),
                ),
                ("cached permissions", words(&["HGETALL", &keys.permissions(&tenant, &user)])),
                ("lowest version believed", words(&["GET", &floor])),
                (
                    "open sockets (id, ms until the lease ends)",
                    words(&["ZRANGE", &keys.user_connections(&tenant, &user), "0", "-1", "WITHSCORES"]),
                ),
            ]
        }
        InspectCommand::Job { id, tenant } => resource(&broker, &Resource::job(tenant, id)),
        InspectCommand::Campaign { id, tenant } => resource(&broker, &Resource::campaign(tenant, id)),
        InspectCommand::Workers => {
            let first = keys.partitions().next().map(|p| keys.workers(p)).unwrap_or_default();
            vec![("workers (id, ms until they count as gone)", words(&["ZRANGE", &first, "0", "-1", "WITHSCORES"]))]
        }
        InspectCommand::Queue => {
            let mut views = Vec::new();
            for partition in keys.partitions() {
                for tenant in broker.waiting_tenants(partition, TENANTS_SHOWN).await? {
                    views.push((
                        "waiting (resource, ms when it may be claimed)",
                        words(&["ZRANGE", &keys.ready(&tenant), "0", "-1", "WITHSCORES"]),
                    ));
                }
                views.push((
                    "scheduled (resource|command, ms when it shall run)",
                    words(&["ZRANGE", &keys.schedule(partition), "0", "-1", "WITHSCORES"]),
                ));
                views.push(("audit entries on their way to SQL", words(&["XLEN", &keys.audit(partition)])));
            }
            views
        }
    };
    // In a cluster redis-cli must be told to go where the key is.
    let follow = if broker.is_cluster() { "-c " } else { "" };
    for (title, command) in views {
        let shown = broker.show(&command).await?;
        if shown.is_empty() {
            continue;
        }
        println!("{title}\n  $ redis-cli {follow}{}", quoted(&command));
        for line in shown {
            println!("  {line}");
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn resource(broker: &Broker, r: &Resource) -> Vec<(&'static str, Vec<String>)> {
    let keys = broker.keys();
    vec![
        ("state", words(&["HGETALL", &keys.state(r)])),
        ("commands without a result, oldest first", words(&["LRANGE", &keys.queue(r), "0", "-1"])),
        ("their records", words(&["HGETALL", &keys.commands(r)])),
        ("results, newest first", words(&["LRANGE", &keys.finished(r), "0", "9"])),
        ("result messages", words(&["HGETALL", &keys.results(r)])),
    ]
}

fn words(parts: &[&str]) -> Vec<String> {
    parts.iter().map(|part| (*part).to_owned()).collect()
}

fn quoted(command: &[String]) -> String {
    let quote = |word: &String| if word.contains(['{', '%', '*']) { format!("'{word}'") } else { word.clone() };
    command.iter().map(quote).collect::<Vec<_>>().join(" ")
}
