//! The one interface between commands and work: whatever runs (job code in Rust, a program in its own
//! process group) is paused, resumed and cancelled through [`Controlled`].

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;

/// Where bringing work to a stop or to its end got to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reached {
    /// It is there: it stands still, or it is gone because of this call.
    Yes,
    /// It cannot be brought there, and goes on as before. In words for whoever sent the command: what hinders it, and
    /// what has been done. The command fails with them.
    Refused(String),
    /// It ended by itself before the call reached it. How it ended is reported the usual way
    /// ([`AttachedHost::finish`](super::AttachedHost::finish)), and the command is refused.
    EndedItself,
}

/// Work that runs in this program and obeys commands.
///
/// A call may be dropped before it is done and made again: each must be safe to repeat. `resume` may
/// be called while a `pause` has not got there yet, and takes it back. `cancel` may come at any time,
/// also while paused, and cannot be taken back.
pub trait Controlled: Send + Sync + 'static {
    /// Asks the work to stand still, and returns when it really does: nothing of it runs on.
    fn pause(&self) -> BoxFuture<'_, Reached>;

    /// Lets it go on.
    fn resume(&self) -> BoxFuture<'_, ()>;

    /// Ends it for good, and returns when nothing of it is left. `by` is the user who asked.
    fn cancel<'a>(&'a self, by: &'a str, reason: Option<&'a str>) -> BoxFuture<'a, Reached>;

    /// What keeps the work from going on although no command has paused it, in words, each time that changes; `None`
    /// when that is over. Ends with the work.
    fn hindrance(&self) -> BoxStream<'static, Option<String>> {
        Box::pin(futures_util::stream::empty())
    }
}
