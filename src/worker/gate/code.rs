//! The gate as job code meets it: the places where it may stop, and where it must not be stopped.

use std::cell::Cell;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::{Gate, Wanted, wake};
use crate::worker::job::Cancelled;

thread_local! {
    /// How many critical sections the future being polled on this thread is inside of.
    static CRITICAL_DEPTH: Cell<u32> = const { Cell::new(0) };
}

fn inside_critical() -> bool {
    CRITICAL_DEPTH.get() > 0
}

impl Gate {
    /// Waits at the gate while a stop is wanted.
    pub(crate) async fn checkpoint(&self) -> Result<(), Cancelled> {
        if inside_critical() {
            return Ok(());
        }
        let mut wanted = self.wanted.subscribe();
        loop {
            let answer = self.may_go(&wanted.borrow_and_update());
            match answer {
                Some(answer) => return answer,
                None => self.wait(&mut wanted).await,
            }
        }
    }

    /// Before the code begins: commands wait for the job, and the code of one that is to be cancelled need not start.
    /// Stands at the gate until one of them wants something, none waits any more, or `most` is over.
    pub(crate) async fn before_begin(
        &self,
        mut commands: watch::Receiver<i64>,
        most: Duration,
    ) -> Result<(), Cancelled> {
        if *commands.borrow() > 0 {
            let mut wanted = self.wanted.subscribe();
            let _parked = Parked::place(self);
            tokio::select! {
                _ = wanted.wait_for(|wanted| *wanted != Wanted::Go) => {}
                _ = commands.wait_for(|waiting| *waiting == 0) => {}
                () = tokio::time::sleep(most) => {}
            }
        }
        self.checkpoint().await
    }

    /// `None`: wait.
    fn may_go(&self, wanted: &Wanted) -> Option<Result<(), Cancelled>> {
        match wanted {
            Wanted::Cancel(cancelled) | Wanted::TimedOut(cancelled) => Some(Err(cancelled.clone())),
            Wanted::Go if self.is_confirmed() => Some(Ok(())),
            Wanted::Go | Wanted::Pause | Wanted::Leave => None,
        }
    }

    async fn wait(&self, wanted: &mut watch::Receiver<Wanted>) {
        let _parked = Parked::place(self);
        let mut confirmed = self.confirmed.subscribe();
        tokio::select! {
            _ = wanted.changed() => {}
            _ = confirmed.changed() => {}
        }
    }

    /// Runs a future; holds it while a stop is wanted, drops it when the end is.
    pub(crate) async fn guard<F: Future>(&self, future: F) -> Result<F::Output, Cancelled> {
        let mut future = pin!(future);
        let mut wanted = self.wanted.subscribe();
        let nested = inside_critical();
        loop {
            let turn = if nested { Some(Ok(())) } else { self.may_go(&wanted.borrow_and_update()) };
            match turn {
                Some(Err(cancelled)) => return Err(cancelled),
                Some(Ok(())) => {
                    tokio::select! {
                        biased;
                        _ = wanted.changed() => {}
                        output = &mut future => return Ok(output),
                    }
                }
                None => self.wait(&mut wanted).await,
            }
        }
    }

    /// Runs a future to its end, whatever is wanted.
    pub(crate) async fn critical<F: Future>(&self, future: F) -> F::Output {
        let _open = OpenCritical::new(self);
        let mut future = pin!(future);
        std::future::poll_fn(|cx| {
            let _depth = Depth::enter();
            Pin::as_mut(&mut future).poll(cx)
        })
        .await
    }

    /// As [`Self::checkpoint`], on a thread that may block. A host that leaves ends it: a thread cannot be dropped.
    pub(crate) fn checkpoint_blocking(&self) -> Result<(), Cancelled> {
        let mut inner = self.lock();
        loop {
            let wanted = self.wanted.borrow().clone();
            if wanted == Wanted::Leave {
                return Err(Cancelled::leaving());
            }
            if let Some(answer) = self.may_go(&wanted) {
                return answer;
            }
            inner.threads_parked += 1;
            wake(&inner);
            inner = self.threads.wait(inner).unwrap_or_else(PoisonError::into_inner);
            inner.threads_parked -= 1;
        }
    }

    /// A thread that counts: the code stands still only when it waits at the gate.
    pub(crate) fn open_thread(self: &Arc<Self>) -> OpenThread {
        let mut inner = self.lock();
        inner.threads_open += 1;
        self.open_threads.send_replace(inner.threads_open);
        OpenThread(self.clone())
    }
}

/// One place that waits at the gate.
struct Parked<'a>(&'a Gate);

impl<'a> Parked<'a> {
    fn place(gate: &'a Gate) -> Self {
        let mut inner = gate.lock();
        inner.parked += 1;
        wake(&inner);
        Self(gate)
    }
}

impl Drop for Parked<'_> {
    fn drop(&mut self) {
        self.0.lock().parked -= 1;
    }
}

struct OpenCritical<'a>(&'a Gate);

impl<'a> OpenCritical<'a> {
    fn new(gate: &'a Gate) -> Self {
        gate.lock().critical += 1;
        Self(gate)
    }
}

impl Drop for OpenCritical<'_> {
    fn drop(&mut self) {
        let mut inner = self.0.lock();
        inner.critical -= 1;
        wake(&inner);
    }
}

struct Depth;

impl Depth {
    fn enter() -> Self {
        CRITICAL_DEPTH.set(CRITICAL_DEPTH.get() + 1);
        Self
    }
}

impl Drop for Depth {
    fn drop(&mut self) {
        CRITICAL_DEPTH.set(CRITICAL_DEPTH.get() - 1);
    }
}

/// One open blocking thread.
pub(crate) struct OpenThread(Arc<Gate>);

impl Drop for OpenThread {
    fn drop(&mut self) {
        let mut inner = self.0.lock();
        inner.threads_open -= 1;
        self.0.open_threads.send_replace(inner.threads_open);
        wake(&inner);
    }
}
