//! Gathers what many have to send, and sends it together.
//!
//! What comes after a quiet time goes at once. While more comes, there is no more than one batch in each interval, so that
//! those that come close together share one; somebody who is waited for hurries it. A batch that is full goes at once as well.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How much goes together.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BatchLimits {
    pub(crate) items: usize,
    /// A single item may be larger: it goes by itself.
    pub(crate) bytes: usize,
    /// From one batch to the next, where nobody hurries it.
    pub(crate) interval: Duration,
    /// Batches on their way at once.
    pub(crate) at_once: usize,
    /// Items that may wait. When so many do, whoever brings another one waits for a place.
    pub(crate) waiting: usize,
}

struct Item<T, A> {
    item: T,
    size: usize,
    is_urgent: bool,
    answer: oneshot::Sender<A>,
}

/// The way to the task that gathers.
pub(crate) struct Batcher<T, A> {
    queue: mpsc::Sender<Item<T, A>>,
    hurry: Arc<Notify>,
}

impl<T: Send + 'static, A: Send + 'static> Batcher<T, A> {
    /// Gathers and sends until `end`, in tasks of `tasks`. `send` gives an answer for each item, in their order.
    pub(crate) fn start<F>(
        limits: BatchLimits,
        tasks: &TaskTracker,
        end: &CancellationToken,
        send: impl Fn(Vec<T>) -> F + Send + 'static,
    ) -> Self
    where
        F: Future<Output = Vec<A>> + Send + 'static,
    {
        let (queue, waiting) = mpsc::channel(limits.waiting);
        let hurry = Arc::new(Notify::new());
        let gatherer = Gatherer { limits, waiting, hurry: hurry.clone(), left_over: None };
        let (batch_tasks, end) = (tasks.clone(), end.clone());
        tasks.spawn(async move { end.run_until_cancelled(gatherer.run(batch_tasks, &end, send)).await });
        Self { queue, hurry }
    }

    /// Sends an item of about so many bytes together with others, and returns its answer. `is_urgent`: somebody waits for it.
    /// `None`: the worker ends.
    pub(crate) async fn submit(&self, item: T, size: usize, is_urgent: bool) -> Option<A> {
        let (answer, answered) = oneshot::channel();
        self.queue.send(Item { item, size, is_urgent, answer }).await.ok()?;
        answered.await.ok()
    }

    /// Somebody waits by now for something that waits here.
    pub(crate) fn hurry(&self) {
        self.hurry.notify_one();
    }
}

struct Gatherer<T, A> {
    limits: BatchLimits,
    waiting: mpsc::Receiver<Item<T, A>>,
    hurry: Arc<Notify>,
    /// It came first in vain: the batch before was full.
    left_over: Option<Item<T, A>>,
}

impl<T: Send + 'static, A: Send + 'static> Gatherer<T, A> {
    async fn run<F>(mut self, tasks: TaskTracker, end: &CancellationToken, send: impl Fn(Vec<T>) -> F)
    where
        F: Future<Output = Vec<A>> + Send + 'static,
    {
        let places = Arc::new(Semaphore::new(self.limits.at_once));
        let mut next_at = Instant::now();
        while let Some(mut batch) = self.begin().await {
            self.gather(&mut batch, next_at).await;
            let Ok(place) = places.clone().acquire_owned().await else { return };
            // What came while all of them were on their way.
            while self.left_over.is_none()
                && !self.is_full(&batch)
                && let Ok(item) = self.waiting.try_recv()
            {
                self.add(&mut batch, item);
            }
            next_at = Instant::now() + self.limits.interval;
            let (items, asked): (Vec<T>, Vec<_>) = batch.items.into_iter().map(|it| (it.item, it.answer)).unzip();
            let (sent, end) = (send(items), end.clone());
            tasks.spawn(async move {
                let answers = end.run_until_cancelled(sent).await.unwrap_or_default();
                drop(place);
                for (asked, answer) in asked.into_iter().zip(answers) {
                    let _ = asked.send(answer); // Whoever does not wait any more need not know.
                }
            });
        }
    }

    async fn begin(&mut self) -> Option<Batch<T, A>> {
        let first = match self.left_over.take() {
            Some(item) => item,
            None => self.waiting.recv().await?,
        };
        Some(Batch { size: first.size, is_urgent: first.is_urgent, items: vec![first] })
    }

    /// Until it is time, or the batch is full, or somebody waits for it.
    async fn gather(&mut self, batch: &mut Batch<T, A>, until: Instant) {
        while !batch.is_urgent && self.left_over.is_none() && !self.is_full(batch) {
            tokio::select! {
                // What is here goes along.
                biased;
                item = self.waiting.recv() => match item {
                    Some(item) => self.add(batch, item),
                    None => return,
                },
                () = self.hurry.notified() => return,
                () = tokio::time::sleep_until(until) => return,
            }
        }
    }

    /// Adds it, or leaves it over for the next one, where both would be too large together.
    fn add(&mut self, batch: &mut Batch<T, A>, item: Item<T, A>) {
        if batch.size + item.size > self.limits.bytes {
            self.left_over = Some(item);
            return;
        }
        batch.size += item.size;
        batch.is_urgent |= item.is_urgent;
        batch.items.push(item);
    }

    fn is_full(&self, batch: &Batch<T, A>) -> bool {
        batch.items.len() >= self.limits.items || batch.size >= self.limits.bytes
    }
}

struct Batch<T, A> {
    items: Vec<Item<T, A>>,
    size: usize,
    is_urgent: bool,
}

#[cfg(test)]
#[path = "batcher_tests.rs"]
mod tests;
