//! The bytes that programs outside rely on: WebSocket messages and the control message on Redis.
//! Pure: parsing and writing, no I/O.

pub mod batch;
pub mod batch_messages;
pub mod client;
pub mod control;
pub mod error;
pub mod feed;
pub mod frame;
pub mod outcome;
pub mod server;
pub mod tenant;
pub mod worker;

pub use batch::BatchRequest;
pub use client::{ClientMessage, CommandRequest, CommonMessage, MAX_BATCH_FRAME, MAX_FRAME, parse};
pub use error::ErrorCode;
pub use feed::FeedFilter;
pub use outcome::{CommandError, Outcome};
pub use tenant::{TenantMessage, parse_tenant};
