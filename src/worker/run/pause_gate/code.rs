//! The pause gate as job code meets it: the places where the code may pause, and those where it must not.

use std::cell::Cell;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::{Directive, PauseGate, wake};
use crate::worker::sdk::error::Cancelled;

thread_local! {
    /// How many critical sections the future being polled on this thread is inside of.
    static CRITICAL_DEPTH: Cell<u32> = const { Cell::new(0) };
}

fn inside_critical() -> bool {
    CRITICAL_DEPTH.get() > 0
}

impl PauseGate {
    /// Waits at the gate while the directive says so.
    pub(crate) async fn checkpoint(&self) -> Result<(), Cancelled> {
        if inside_critical() {
            return Ok(());
        }
        let mut directive = self.directive.subscribe();
        loop {
            let answer = self.permission(&directive.borrow_and_update());
            match answer {
                Some(answer) => return answer,
                None => self.wait(&mut directive).await,
            }
        }
    }

    /// Before the code begins: if commands wait for the job, the code waits until one of them gives a directive, until none
    /// waits any more, or until `longest` is over. So the code of a job that is to be cancelled never starts.
    pub(crate) async fn wait_before_start(
        &self,
        mut commands: watch::Receiver<i64>,
        longest: Duration,
    ) -> Result<(), Cancelled> {
        if *commands.borrow() > 0 {
            let mut directive = self.directive.subscribe();
            let _parked = ParkedTask::register(self);
            tokio::select! {
                _ = directive.wait_for(|directive| *directive != Directive::Run) => {}
                _ = commands.wait_for(|waiting| *waiting == 0) => {}
                () = tokio::time::sleep(longest) => {}
            }
        }
        self.checkpoint().await
    }

    /// Whether the code may go on; `None`: it has to wait.
    fn permission(&self, directive: &Directive) -> Option<Result<(), Cancelled>> {
        match directive {
            Directive::Cancel(cancelled) | Directive::TimedOut(cancelled) => Some(Err(cancelled.clone())),
            Directive::Run if self.is_confirmed() => Some(Ok(())),
            Directive::Run | Directive::Pause | Directive::Leave => None,
        }
    }

    async fn wait(&self, directive: &mut watch::Receiver<Directive>) {
        let _parked = ParkedTask::register(self);
        let mut confirmed = self.confirmed.subscribe();
        tokio::select! {
            _ = directive.changed() => {}
            _ = confirmed.changed() => {}
        }
    }

    /// Runs a future. It is not polled while the code has to wait, and it is dropped when the code is to end.
    pub(crate) async fn guard<F: Future>(&self, future: F) -> Result<F::Output, Cancelled> {
        let mut future = pin!(future);
        let mut directive = self.directive.subscribe();
        let nested = inside_critical();
        loop {
            let permission = if nested { Some(Ok(())) } else { self.permission(&directive.borrow_and_update()) };
            match permission {
                Some(Err(cancelled)) => return Err(cancelled),
                Some(Ok(())) => {
                    tokio::select! {
                        biased;
                        _ = directive.changed() => {}
                        output = &mut future => return Ok(output),
                    }
                }
                None => self.wait(&mut directive).await,
            }
        }
    }

    /// Runs a future to its end, whatever the directive is.
    pub(crate) async fn critical<F: Future>(&self, future: F) -> F::Output {
        let _open = CriticalGuard::new(self);
        let mut future = pin!(future);
        std::future::poll_fn(|cx| {
            let _depth = CriticalDepth::enter();
            Pin::as_mut(&mut future).poll(cx)
        })
        .await
    }

    /// As [`Self::checkpoint`], on a thread that may block. A host that leaves ends it: a thread cannot be dropped.
    pub(crate) fn checkpoint_blocking(&self) -> Result<(), Cancelled> {
        let mut inner = self.lock();
        loop {
            let directive = self.directive.borrow().clone();
            if directive == Directive::Leave {
                return Err(Cancelled::leaving());
            }
            if let Some(answer) = self.permission(&directive) {
                return answer;
            }
            inner.threads_parked += 1;
            wake(&inner);
            self.threads.wait(&mut inner);
            inner.threads_parked -= 1;
        }
    }

    /// Counts a blocking thread: the code is paused only when that waits at the gate, too.
    pub(crate) fn open_thread(self: &Arc<Self>) -> ThreadGuard {
        let mut inner = self.lock();
        inner.threads_open += 1;
        self.open_threads.send_replace(inner.threads_open);
        ThreadGuard(self.clone())
    }
}

/// One part of the future that waits at the gate.
struct ParkedTask<'a>(&'a PauseGate);

impl<'a> ParkedTask<'a> {
    fn register(gate: &'a PauseGate) -> Self {
        let mut inner = gate.lock();
        inner.parked += 1;
        wake(&inner);
        Self(gate)
    }
}

impl Drop for ParkedTask<'_> {
    fn drop(&mut self) {
        self.0.lock().parked -= 1;
    }
}

struct CriticalGuard<'a>(&'a PauseGate);

impl<'a> CriticalGuard<'a> {
    fn new(gate: &'a PauseGate) -> Self {
        gate.lock().critical += 1;
        Self(gate)
    }
}

impl Drop for CriticalGuard<'_> {
    fn drop(&mut self) {
        let mut inner = self.0.lock();
        inner.critical -= 1;
        wake(&inner);
    }
}

struct CriticalDepth;

impl CriticalDepth {
    fn enter() -> Self {
        CRITICAL_DEPTH.set(CRITICAL_DEPTH.get() + 1);
        Self
    }
}

impl Drop for CriticalDepth {
    fn drop(&mut self) {
        CRITICAL_DEPTH.set(CRITICAL_DEPTH.get() - 1);
    }
}

/// One open blocking thread.
pub(crate) struct ThreadGuard(Arc<PauseGate>);

impl Drop for ThreadGuard {
    fn drop(&mut self) {
        let mut inner = self.0.lock();
        inner.threads_open -= 1;
        self.0.open_threads.send_replace(inner.threads_open);
        wake(&inner);
    }
}
