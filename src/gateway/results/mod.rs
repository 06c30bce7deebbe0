//! Commands and their results: the one place that knows when the record is asked for a result that is awaited.
//!
//! [`awaited`] has the commands and the times; [`waiter`] waits for some of them on behalf of a request, [`follower`]
//! follows all that this gateway accepted, for the metrics, and
//! [`BatchFollower`](super::batch::follower::BatchFollower) those of one tenant-wide socket.

pub mod awaited;
pub mod follower;
pub mod waiter;
