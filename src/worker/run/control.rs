//! The one interface between commands and work: whatever runs (job code in Rust, a program in its own
//! process group) is paused, resumed and cancelled through [`Controlled`].

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;

/// What pausing or cancelling did to the work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ControlOutcome {
    /// The work is paused, or it has ended because of this call.
    Done,
    /// The work cannot be paused or ended, and goes on as before. The text tells whoever sent the command what the
    /// problem is and what has been done. The command fails with it.
    Refused(String),
    /// It ended by itself before the call reached it. How it ended is reported the usual way
    /// ([`AttachedHost::finish`](crate::worker::AttachedHost::finish)), and the command is refused.
    EndedItself,
}

/// Work that runs in this program and obeys commands.
///
/// A call may be dropped before it is done and made again: each must be safe to repeat. `resume` may
/// be called while a `pause` has not got there yet, and takes it back. `cancel` may come at any time,
/// also while paused, and cannot be taken back.
pub trait Controlled: Send + Sync + 'static {
    /// Asks the work to pause, and returns when it really has: nothing of it runs on.
    fn pause(&self) -> BoxFuture<'_, ControlOutcome>;

    /// Lets it go on.
    fn resume(&self) -> BoxFuture<'_, ()>;

    /// Ends it for good, and returns when nothing of it is left. `by` is the user who asked.
    fn cancel<'a>(&'a self, by: &'a str, reason: Option<&'a str>) -> BoxFuture<'a, ControlOutcome>;

    /// As [`pause`](Self::pause), for work that passes on who asked, and why.
    fn pause_by<'a>(&'a self, by: &'a str, reason: Option<&'a str>) -> BoxFuture<'a, ControlOutcome> {
        let _ = (by, reason);
        self.pause()
    }

    /// As [`resume`](Self::resume), for work that passes on who asked, and why.
    fn resume_by<'a>(&'a self, by: &'a str, reason: Option<&'a str>) -> BoxFuture<'a, ()> {
        let _ = (by, reason);
        self.resume()
    }

    /// Whether nothing of the work has to stay in this process while it is paused, so that another worker can go on from a
    /// resume point.
    fn can_move(&self) -> bool {
        false
    }

    /// What keeps the work from going on although no command has paused it, as a text, each time that changes; `None`
    /// when that is over. The stream ends with the work.
    fn control_problem(&self) -> BoxStream<'static, Option<String>> {
        Box::pin(futures_util::stream::empty())
    }
}
