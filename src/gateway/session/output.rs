//! What a job prints, on the socket of a client that has asked for it (`?output=true`).
//!
//! The socket reads the lines from SQL, when nothing else waits to be sent. So a client that reads slowly gets what is kept
//! by then, and how many lines are gone; nobody waits for it, and nothing is gathered for it.

use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::Instant;

use crate::domain::{OutputLine, Resource};
use crate::protocol::server::job_output;
use crate::store::{Store, StoreError};

/// Between two looks, while the job prints.
const MIN_INTERVAL: Duration = Duration::from_millis(500);
/// And while it does not.
const MAX_INTERVAL: Duration = Duration::from_secs(2);
/// Lines of one message.
const MAX_LINES: u32 = 200;
/// Bytes of the lines of one message.
const MAX_BYTES: usize = 256 * 1024;

/// Lines behind the last one that the client has.
pub struct OutputFollower {
    store: Store,
    job: Resource,
    /// The last line that the client has, as it ended.
    after: i64,
    /// The open line that it has.
    open: Option<OutputLine>,
    looking: Option<BoxFuture<'static, Result<Vec<OutputLine>, StoreError>>>,
    next: Instant,
    interval: Duration,
}

impl OutputFollower {
    /// From the first line that is kept.
    pub fn new(store: Store, job: Resource) -> Self {
        Self { store, job, after: 0, open: None, looking: None, next: Instant::now(), interval: MIN_INTERVAL }
    }

    /// When it wants to look again; `None`: it is looking.
    pub fn next_poll(&self) -> Option<Instant> {
        self.looking.is_none().then_some(self.next)
    }

    /// The next message.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<String> {
        let now = Instant::now();
        if self.looking.is_none() && self.next <= now {
            let (store, job, after) = (self.store.clone(), self.job.clone(), self.after);
            self.looking = Some(Box::pin(async move { store.job_output(&job, after, MAX_LINES).await }));
        }
        let Some(looking) = &mut self.looking else { return Poll::Pending };
        let Poll::Ready(found) = looking.as_mut().poll(cx) else { return Poll::Pending };
        self.looking = None;
        let lines = found.unwrap_or_else(|error| {
            tracing::debug!(%error, "websocket.output_unknown");
            Vec::new()
        });
        match self.message(lines) {
            Some(message) => {
                // There may be more at once.
                (self.interval, self.next) = (MIN_INTERVAL, if self.open.is_some() { now + MIN_INTERVAL } else { now });
                Poll::Ready(message)
            }
            None => {
                self.next = now + self.interval;
                self.interval = (self.interval * 2).min(MAX_INTERVAL);
                Poll::Pending
            }
        }
    }

    /// What of the lines is new to the client.
    fn message(&mut self, mut lines: Vec<OutputLine>) -> Option<String> {
        let mut bytes = 0;
        let fits = lines.iter().take_while(|line| {
            bytes += line.text.len();
            bytes <= MAX_BYTES
        });
        let fits = fits.count().max(1);
        lines.truncate(fits);
        let first = lines.first()?;
        if lines.len() == 1 && self.open.as_ref() == Some(first) {
            return None;
        }
        let left_out = (first.line - self.after - 1).max(0);
        if let Some(last) = lines.iter().rfind(|line| !line.open) {
            self.after = last.line;
        }
        self.open = lines.last().filter(|line| line.open).cloned();
        Some(job_output(&self.job, &lines, left_out))
    }
}
