//! The messages between a foreign worker process and a Wheelhouse worker (`docs/worker-protocol.md`,
//! `schema/worker.schema.json`).

mod from_client;
mod read;
mod to_client;

pub use from_client::{
    End, EndedHow, FailedItem, Figures, FromClient, Hello, LogLines, LogStream, NamedJob, Reached, ReachedState, Save,
};
pub use read::{Unusable, read};
pub use to_client::{OrderKind, RefusedWhy, ToClient};

use crate::domain::text::{MAX_LONG_TEXT, excerpt};

/// The subprotocol of the socket.
pub const WORKER_PROTOCOL: &str = "wheelhouse-worker.1";
/// The version in `hello` and `welcome`.
pub const VERSION: u32 = 1;
/// Longest frame of a client, in bytes.
pub const MAX_WORKER_FRAME: usize = 256 * 1024;
/// The type of a job for which none is given.
pub const FOREIGN_TYPE: &str = "foreign";

/// What a client says of an error, as long as it may be in a command's answer.
pub fn sentence(error: Option<&str>, otherwise: &str) -> String {
    let text = error.map(str::trim).filter(|text| !text.is_empty()).unwrap_or(otherwise);
    excerpt(text, MAX_LONG_TEXT).into_owned()
}
