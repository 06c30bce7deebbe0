//! What is wrong, or could be better, with the place that a program runs in, each with the line that mends it.
//!
//! [`settings`] needs nothing but the settings, and is looked at by every gateway and worker at its start; [`redis`] and
//! [`database`] ask the servers, for `wheelhouse doctor`.

pub mod database;
mod finding;
pub mod redis;
pub mod settings;
mod start;

pub use finding::{Finding, Level, Program};
pub use start::warn_at_start;
