//! The bytes that programs outside rely on: WebSocket messages and the control message on Redis.
//! Pure: parsing and writing, no I/O.

pub mod client;
pub mod control;
pub mod error;
pub mod frame;
pub mod server;

pub use client::{ClientMessage, CommandRequest, MAX_FRAME, parse};
pub use error::ErrorCode;
