//! Many to a transaction, and none waits for company: a batch is what has gathered while those before it were written.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Hands out what comes in the queue, up to `size` together and in up to `lanes` batches at once, until the queue is closed or
/// it is stopped. A batch holds its lane until it drops the permit.
pub(super) async fn run<T, F>(
    mut queue: mpsc::Receiver<T>,
    (lanes, size): (usize, usize),
    tasks: TaskTracker,
    stop: CancellationToken,
    handle: impl Fn(Vec<T>, OwnedSemaphorePermit) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let lanes = Arc::new(Semaphore::new(lanes));
    loop {
        // What comes while all of them are busy gathers in the queue.
        let Ok(lane) = lanes.clone().acquire_owned().await else { return };
        let mut waiting = Vec::new();
        let taken = tokio::select! {
            () = stop.cancelled() => return,
            taken = queue.recv_many(&mut waiting, size) => taken,
        };
        if taken == 0 {
            return;
        }
        tasks.spawn(handle(waiting, lane));
    }
}
