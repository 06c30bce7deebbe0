//! The multiplexed connection to Redis, and taking a new one when it dies.

use std::time::Duration;

use super::error::BrokerError;

/// A handle on the connection; cheap to clone.
#[derive(Clone)]
pub struct Link {}

impl Link {
    /// First connection.
    pub async fn connect(_settings: &crate::config::Redis) -> Result<Self, BrokerError> {
        unimplemented!()
    }

    /// Whether it is believed to be up.
    pub fn is_up(&self) -> bool {
        unimplemented!()
    }

    /// PING.
    pub async fn ping(&self, _within: Duration) -> Result<(), BrokerError> {
        unimplemented!()
    }
}
