//! What operators see: logs and metrics. Neither ever holds a token, a secret or a message's content.

pub mod log;
pub mod metrics;
