//! What Redis can do at best: the yardsticks of the same run.

use anyhow::{Context, bail};
use tokio::process::Command;
use wheelhouse::broker::scripts::submit::{ClientOrigin, Grant, Submission, SubmitLimits, words};
use wheelhouse::cli::bench::environment::BenchEnvironment;
use wheelhouse::domain::{Action, CommandId, PermissionSet, Resource, UserId, When};

/// What `redis-benchmark -r` puts a random number of twelve digits in the place of: as long as the last group of a
/// command's id.
const RANDOM: &str = "__rand_int__";
/// How many different numbers: the most that the tool takes.
const RANGE: &str = "2000000000";

/// `return 1` a second, sixteen to a packet.
pub(super) async fn nothing(port: u16, count: u32) -> anyhow::Result<f64> {
    benchmark(port, count, &["EVAL".to_owned(), "return 1".to_owned(), "0".to_owned()]).await
}

/// `submit_command` itself a second, with the keys and arguments of a real command, sixteen to a packet.
pub(super) async fn submits(
    environment: &BenchEnvironment,
    port: u16,
    user: &UserId,
    job: &Resource,
    count: u32,
) -> anyhow::Result<f64> {
    let limits = SubmitLimits {
        commands_per_minute: 1_000_000_000,
        backlog_per_tenant: 1_000_000_000,
        schedules_per_tenant: 1_000,
    };
    let submission = Submission {
        command: CommandId::generate(),
        resource: job.clone(),
        action: Action::Pause,
        user: user.clone(),
        request: None,
        reason: None,
        origin: ClientOrigin {
            address: Some("127.0.0.1".to_owned()),
            token_id: Some(CommandId::generate().to_string()),
        },
        grant: Grant::Database,
        when: When::Now,
        batch: None,
    };
    // Once by the usual way: Redis knows the script then. The permissions last as long as this takes.
    let held =
        PermissionSet { version: environment.store.permission_version().await?, held: vec!["jobs.*".to_owned()] };
    let hour = std::time::Duration::from_secs(3_600);
    environment.broker.fill_permissions(&job.tenant, user, &held, hour).await?;
    environment.broker.submit(&submission, limits).await?;
    let id = submission.command.to_string();
    let free = format!("{}{RANDOM}", &id[..id.len() - RANDOM.len()]);
    let arguments: Vec<String> = words(environment.broker.keys(), &submission, limits)
        .into_iter()
        .map(|argument| argument.replace(&id, &free))
        .collect();
    benchmark(port, count, &arguments).await
}

/// Requests a second.
async fn benchmark(port: u16, count: u32, arguments: &[String]) -> anyhow::Result<f64> {
    let (port, count) = (port.to_string(), count.to_string());
    let output = Command::new("redis-benchmark")
        .args(["-p", &port, "-P", "16", "-n", &count, "-r", RANGE, "--csv"])
        .args(arguments)
        .kill_on_drop(true)
        .output()
        .await
        .context("redis-benchmark is missing: `make deps` installs it")?;
    let text = String::from_utf8_lossy(&output.stdout);
    // The name of the test stands first and may hold anything; then come requests per second and six latencies.
    let fields: Vec<&str> = text.trim_end().rsplitn(8, "\",\"").collect();
    let rate = fields.get(6).and_then(|rate| rate.parse::<f64>().ok());
    match rate {
        Some(rate) if output.status.success() => Ok(rate),
        _ => bail!("redis-benchmark said: {text} {}", String::from_utf8_lossy(&output.stderr)),
    }
}
