//! The pause gate: it stands between commands and the code of one running job.
//!
//! Commands give a directive. Job code obeys it at the places that it has chosen: checkpoints, guarded futures, and
//! blocking threads that ask. The gate knows when the code as a whole *really* is paused: some part of it waits at the
//! gate, no critical section is open, and every blocking thread waits too. From then on the driver does not poll the job's
//! future at all, so that no other branch of it runs on.
//!
//! This file has the side of commands and of the driver; [`code`] has the side of the job's code.

mod code;

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};
use tokio::sync::watch;

use crate::worker::sdk::error::Cancelled;

/// The code of a job waits at its next checkpoint when its host could not confirm for this long that the job is still its
/// own: by then other workers may count the host as dead.
pub(crate) const CONFIRMATION_TTL: Duration = Duration::from_secs(4);

/// What the code is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Directive {
    /// To run.
    Run,
    /// To pause.
    Pause,
    /// To pause and be dropped: another worker goes on from the resume point.
    Leave,
    /// To end because it has run for longer than it may; it counts as failed.
    TimedOut(Cancelled),
    /// To end because somebody cancelled it.
    Cancel(Cancelled),
}

impl Directive {
    /// A directive to end is replaced by one of a higher priority only.
    fn priority(&self) -> u8 {
        match self {
            Self::Run | Self::Pause => 0,
            Self::Leave | Self::TimedOut(_) => 1,
            Self::Cancel(_) => 2,
        }
    }
}

/// What the code is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExecutionState {
    /// It runs, or has not come to a place where it pauses.
    Running,
    /// Nothing of it runs.
    Paused,
    /// It has ended.
    Ended(WorkEnd),
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WorkEnd {
    /// By itself.
    Itself,
    /// Because it was cancelled.
    Cancelled,
    /// It was dropped, and another worker goes on with the job.
    Left,
}

/// What the driver may do next.
enum DriveStep {
    Poll,
    Hold,
    Drop,
}

pub(crate) struct PauseGate {
    inner: Mutex<PauseGateInner>,
    /// Wakes blocking threads that wait at the gate.
    threads: Condvar,
    directive: watch::Sender<Directive>,
    state: watch::Sender<ExecutionState>,
    confirmed: watch::Sender<Instant>,
    /// Blocking threads that are open.
    open_threads: watch::Sender<usize>,
}

#[derive(Default)]
struct PauseGateInner {
    /// Parts of the future that wait at the gate.
    parked: usize,
    /// Critical sections that are open.
    critical: usize,
    threads_open: usize,
    threads_parked: usize,
    /// The grace period is over: the future is dropped as soon as no critical section is open.
    overdue: bool,
    driver: Option<Waker>,
}

impl PauseGateInner {
    fn is_paused(&self) -> bool {
        self.critical == 0 && self.threads_parked >= self.threads_open && self.parked + self.threads_parked > 0
    }
}

impl PauseGate {
    pub(crate) fn new() -> Self {
        Self {
            inner: Mutex::default(),
            threads: Condvar::new(),
            directive: watch::Sender::new(Directive::Run),
            state: watch::Sender::new(ExecutionState::Running),
            confirmed: watch::Sender::new(Instant::now()),
            open_threads: watch::Sender::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, PauseGateInner> {
        // Only counts are changed under the lock, never by anything that can panic half-way.
        self.inner.lock()
    }

    /// Gives a directive. One that ends the code is never taken back.
    pub(crate) fn set_directive(&self, new: Directive) {
        let inner = self.lock();
        let changed = self.directive.send_if_modified(|now| {
            let keeps = now.priority() > 0 && new.priority() <= now.priority();
            if keeps || *now == new {
                return false;
            }
            *now = new;
            true
        });
        if changed {
            if matches!(*self.directive.borrow(), Directive::Run | Directive::TimedOut(_) | Directive::Cancel(_)) {
                self.set_state(ExecutionState::Running);
            }
            wake(&inner);
            self.threads.notify_all();
        }
    }

    pub(crate) fn directive(&self) -> Directive {
        self.directive.borrow().clone()
    }

    pub(crate) fn watch_directive(&self) -> watch::Receiver<Directive> {
        self.directive.subscribe()
    }

    pub(crate) fn watch_state(&self) -> watch::Receiver<ExecutionState> {
        self.state.subscribe()
    }

    /// The job still belongs to this host.
    pub(crate) fn confirm(&self) {
        self.confirmed.send_replace(Instant::now());
        self.threads.notify_all();
    }

    fn is_confirmed(&self) -> bool {
        self.confirmed.borrow().elapsed() <= CONFIRMATION_TTL
    }

    /// The grace period is over.
    pub(crate) fn overdue(&self) {
        let mut inner = self.lock();
        inner.overdue = true;
        wake(&inner);
    }

    /// The future has ended or was dropped, and so have its threads.
    pub(crate) fn ended(&self, how: WorkEnd) {
        let _inner = self.lock();
        self.state.send_replace(ExecutionState::Ended(how));
    }

    /// Changes the state, unless the code has ended: it stays ended.
    fn set_state(&self, state: ExecutionState) {
        self.state.send_if_modified(|now| {
            if matches!(now, ExecutionState::Ended(_)) || *now == state {
                return false;
            }
            *now = state;
            true
        });
    }

    fn next_step(&self, cx: &Context<'_>) -> DriveStep {
        let mut inner = self.lock();
        if inner.driver.as_ref().is_none_or(|waker| !waker.will_wake(cx.waker())) {
            inner.driver = Some(cx.waker().clone());
        }
        if inner.overdue && inner.critical == 0 {
            return DriveStep::Drop;
        }
        let is_paused = inner.is_paused();
        match *self.directive.borrow() {
            Directive::Pause if is_paused => {
                self.set_state(ExecutionState::Paused);
                DriveStep::Hold
            }
            Directive::Leave if is_paused => DriveStep::Drop,
            _ => DriveStep::Poll,
        }
    }

    /// Drives job code: polls it except while it is paused. `None`: it was dropped.
    pub(crate) async fn drive<F: Future>(&self, code: F) -> Option<F::Output> {
        let mut code = pin!(code);
        std::future::poll_fn(|cx| {
            match self.next_step(cx) {
                DriveStep::Hold => return Poll::Pending,
                DriveStep::Drop => return Poll::Ready(None),
                DriveStep::Poll => {}
            }
            if let Poll::Ready(output) = code.as_mut().poll(cx) {
                return Poll::Ready(Some(output));
            }
            // Polling may have brought it to the gate.
            match self.next_step(cx) {
                DriveStep::Drop => Poll::Ready(None),
                DriveStep::Hold | DriveStep::Poll => Poll::Pending,
            }
        })
        .await
    }

    /// Returns when no thread is open.
    pub(crate) async fn wait_for_threads(&self) {
        let _ = self.open_threads.subscribe().wait_for(|open| *open == 0).await;
    }
}

fn wake(inner: &PauseGateInner) {
    if let Some(driver) = &inner.driver {
        driver.wake_by_ref();
    }
}
