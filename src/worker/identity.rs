//! Who this worker is, for people: its name, its machine, its process.

use std::sync::Arc;

use super::context::WorkerContext;
use crate::domain::{WorkerId, printable};
use crate::store::{WORKER_SAYS_AGAIN, WorkerInfo};

/// Characters of the id that a made-up name ends with.
const SHORT_ID: usize = 6;

/// The name of this machine, or of the container.
pub(crate) fn machine() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if name.is_empty() { "localhost".to_owned() } else { printable(&name).into_owned() }
}

/// The name of a worker for which the settings have none. Ids begin with the time: their ends differ.
fn made_up(machine: &str, id: &WorkerId) -> String {
    let id: Vec<char> = id.as_str().chars().collect();
    let short: String = id[id.len().saturating_sub(SHORT_ID)..].iter().collect();
    format!("{machine}-{short}")
}

/// Says who this worker is, again and again: what is not said for long is forgotten. Lists do without where it cannot be
/// said.
pub(crate) async fn run(ctx: Arc<WorkerContext>, slots: usize) {
    loop {
        register(&ctx, slots).await;
        tokio::time::sleep(WORKER_SAYS_AGAIN).await;
    }
}

/// Says it once.
pub(crate) async fn register(ctx: &WorkerContext, slots: usize) {
    let machine = machine();
    let info = WorkerInfo {
        id: ctx.id.to_string(),
        name: ctx.settings.worker.name.clone().unwrap_or_else(|| made_up(&machine, &ctx.id)),
        machine,
        pid: std::process::id().into(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        slots: i64::try_from(slots).unwrap_or(i64::MAX),
        client: None,
        started_at: None,
    };
    if let Err(error) = ctx.store.register_worker(&info).await {
        tracing::warn!(%error, "worker.not_registered");
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_made_up_name_is_the_machine_and_the_end_of_the_id() {
        let id = "0190f3c8-0000-7000-8000-00000012abcd".parse().expect("id");
        assert_eq!(super::made_up("box7", &id), "box7-12abcd");
        let id = "w1".parse().expect("id");
        assert_eq!(super::made_up("box7", &id), "box7-w1");
    }
}
