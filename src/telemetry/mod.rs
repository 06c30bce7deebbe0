//! What operators see: logs and metrics. Neither ever holds a token, a secret or a message's content.

#[cfg(feature = "server")]
pub mod exporter;
pub mod log;
pub mod metrics;
