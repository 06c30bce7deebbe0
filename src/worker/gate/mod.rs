//! The gate between commands and one running piece of job code.
//!
//! Commands say what is wanted; job code stops at the places it has chosen (checkpoints, guarded
//! futures, blocking threads that ask). The gate knows when the code as a whole *really* stands still:
//! somewhere it waits at the gate, no critical section is open, and every blocking thread waits too.
//! From then on the driver does not poll the job's future at all, so that no other branch of it runs on.
//!
//! Here is the side of commands and of the driver; [`code`] is the side of the job's code.

mod code;

use std::future::Future;
use std::pin::pin;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::job::Cancelled;

/// A host that could not confirm for this long that the job is still its own stops at the next
/// checkpoint: by then others may be taking it for dead.
pub(crate) const CONFIRMED_FOR: Duration = Duration::from_secs(4);

/// What commands want of the code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// To go on.
    Go,
    /// To stand still.
    Pause,
    /// To stand still and be dropped: another worker goes on from the resume point.
    Leave,
    /// To end: it has run for longer than it may, and counts as failed.
    TimedOut(Cancelled),
    /// To end.
    Cancel(Cancelled),
}

impl Wanted {
    /// A wish to end gives way to a stronger one only.
    fn strength(&self) -> u8 {
        match self {
            Self::Go | Self::Pause => 0,
            Self::Leave | Self::TimedOut(_) => 1,
            Self::Cancel(_) => 2,
        }
    }
}

/// What the code does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It runs, or is on its way to a stop.
    Going,
    /// Nothing of it runs.
    Still,
    /// It is gone.
    Ended(Ended),
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// By itself.
    Itself,
    /// Because a cancel was wanted.
    Cancelled,
    /// Dropped, to go on elsewhere.
    Left,
}

/// What the driver may do next.
enum Turn {
    Poll,
    Hold,
    Drop,
}

pub(crate) struct Gate {
    inner: Mutex<Inner>,
    /// Wakes blocking threads that wait at the gate.
    threads: Condvar,
    wanted: watch::Sender<Wanted>,
    standing: watch::Sender<Standing>,
    confirmed: watch::Sender<Instant>,
    /// Blocking threads that are open.
    open_threads: watch::Sender<usize>,
}

#[derive(Default)]
struct Inner {
    /// Places in the future that wait at the gate.
    parked: usize,
    /// Critical sections that are open.
    critical: usize,
    threads_open: usize,
    threads_parked: usize,
    /// The grace is over: drop the future as soon as no critical section is open.
    overdue: bool,
    driver: Option<Waker>,
}

impl Inner {
    fn stands_still(&self) -> bool {
        self.critical == 0 && self.threads_parked >= self.threads_open && self.parked + self.threads_parked > 0
    }
}

impl Gate {
    pub(crate) fn new() -> Self {
        Self {
            inner: Mutex::default(),
            threads: Condvar::new(),
            wanted: watch::Sender::new(Wanted::Go),
            standing: watch::Sender::new(Standing::Going),
            confirmed: watch::Sender::new(Instant::now()),
            open_threads: watch::Sender::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Only counts are changed under the lock, never by anything that can panic half-way.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says what is wanted. A wish to end is never taken back.
    pub(crate) fn want(&self, wish: Wanted) {
        let inner = self.lock();
        let changed = self.wanted.send_if_modified(|now| {
            let keep = now.strength() > 0 && wish.strength() <= now.strength();
            if keep || *now == wish {
                return false;
            }
            *now = wish;
            true
        });
        if changed {
            if matches!(*self.wanted.borrow(), Wanted::Go | Wanted::TimedOut(_) | Wanted::Cancel(_)) {
                self.set_standing(Standing::Going);
            }
            wake(&inner);
            self.threads.notify_all();
        }
    }

    pub(crate) fn wanted(&self) -> Wanted {
        self.wanted.borrow().clone()
    }

    pub(crate) fn watch_wanted(&self) -> watch::Receiver<Wanted> {
        self.wanted.subscribe()
    }

    pub(crate) fn watch_standing(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }

    /// The job is still this host's.
    pub(crate) fn confirm(&self) {
        self.confirmed.send_replace(Instant::now());
        self.threads.notify_all();
    }

    fn is_confirmed(&self) -> bool {
        self.confirmed.borrow().elapsed() <= CONFIRMED_FOR
    }

    /// The grace is over.
    pub(crate) fn overdue(&self) {
        let mut inner = self.lock();
        inner.overdue = true;
        wake(&inner);
    }

    /// The future is gone, and so are its threads.
    pub(crate) fn ended(&self, how: Ended) {
        let _inner = self.lock();
        self.standing.send_replace(Standing::Ended(how));
    }

    /// Nothing is gone for good yet, and it has ended never comes back.
    fn set_standing(&self, standing: Standing) {
        self.standing.send_if_modified(|now| {
            if matches!(now, Standing::Ended(_)) || *now == standing {
                return false;
            }
            *now = standing;
            true
        });
    }

    fn turn(&self, cx: &Context<'_>) -> Turn {
        let mut inner = self.lock();
        if inner.driver.as_ref().is_none_or(|waker| !waker.will_wake(cx.waker())) {
            inner.driver = Some(cx.waker().clone());
        }
        if inner.overdue && inner.critical == 0 {
            return Turn::Drop;
        }
        let still = inner.stands_still();
        match *self.wanted.borrow() {
            Wanted::Pause if still => {
                self.set_standing(Standing::Still);
                Turn::Hold
            }
            Wanted::Leave if still => Turn::Drop,
            _ => Turn::Poll,
        }
    }

    /// Drives job code: polls it except while it stands still. `None`: it was dropped.
    pub(crate) async fn drive<F: Future>(&self, code: F) -> Option<F::Output> {
        let mut code = pin!(code);
        std::future::poll_fn(|cx| {
            match self.turn(cx) {
                Turn::Hold => return Poll::Pending,
                Turn::Drop => return Poll::Ready(None),
                Turn::Poll => {}
            }
            if let Poll::Ready(output) = code.as_mut().poll(cx) {
                return Poll::Ready(Some(output));
            }
            // Polling may have brought it to the gate.
            match self.turn(cx) {
                Turn::Drop => Poll::Ready(None),
                Turn::Hold | Turn::Poll => Poll::Pending,
            }
        })
        .await
    }

    /// Returns when no thread is open.
    pub(crate) async fn threads_gone(&self) {
        let _ = self.open_threads.subscribe().wait_for(|open| *open == 0).await;
    }
}

fn wake(inner: &Inner) {
    if let Some(driver) = &inner.driver {
        driver.wake_by_ref();
    }
}
