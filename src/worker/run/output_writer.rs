//! Writes what a run prints into SQL, a few times a second, beside everything else: neither a pause nor the end of the run
//! waits for it, but that the last lines are tried once.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::active_run::ActiveRun;
use crate::worker::context::WorkerContext;

/// Between two writes of one run's lines.
const WRITE_INTERVAL: Duration = Duration::from_millis(400);
/// And while SQL does not take them.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);
/// How long after its end a run may still print: the rest of its programs' pipes.
const LAST_LINES: Duration = Duration::from_secs(2);

/// Writes until the run has exited, and then what is left.
pub(crate) async fn run(ctx: Arc<WorkerContext>, run: Arc<ActiveRun>, turns: Arc<Semaphore>) {
    let output = run.progress.output.clone();
    loop {
        tokio::select! {
            () = run.exited() => break,
            () = output.added.notified() => {}
        }
        if output.is_waiting() {
            let Ok(turn) = turns.acquire().await else { return };
            let written = Box::pin(write(&ctx, &run, false)).await; // Boxed: most runs print nothing.
            drop(turn);
            if !written {
                tokio::time::sleep(RETRY_INTERVAL).await;
            }
        }
        tokio::select! {
            () = run.exited() => break,
            () = tokio::time::sleep(WRITE_INTERVAL) => {}
        }
    }
    Box::pin(write(&ctx, &run, true)).await;
    // Whoever reads the programs' pipes may come to their ends a moment later.
    let more = async {
        loop {
            output.added.notified().await;
            tokio::time::sleep(WRITE_INTERVAL).await;
            Box::pin(write(&ctx, &run, true)).await;
        }
    };
    let _ = tokio::time::timeout(LAST_LINES, more).await;
}

/// Writes what waits now. `false`: SQL did not take it, and may do so later.
pub(crate) async fn write(ctx: &WorkerContext, run: &ActiveRun, last: bool) -> bool {
    let lines = run.progress.output.take(last);
    if lines.is_empty() {
        return true;
    }
    match ctx.store.add_output(run.run(), &lines).await {
        // A run that is over has nothing more to say.
        Ok(_) => true,
        Err(error) => {
            tracing::debug!(job = %run.resource(), %error, "worker.output_not_written");
            run.progress.output.give_back(lines);
            !error.is_transient()
        }
    }
}
