//! One pub/sub connection, kept alive: subscriptions are confirmed, survive reconnection, and a gap is
//! reported so that the receiver can look at the record.

use tokio::sync::mpsc;

use super::error::BrokerError;

/// What a subscriber hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A message.
    Message {
        /// Where it was published.
        channel: String,
        /// What was published; never anything but a wake-up.
        payload: bytes::Bytes,
    },
    /// The connection was lost, and every subscription stands again: messages in between are lost.
    Gap,
}

/// A handle on the connection; cheap to clone.
#[derive(Clone)]
pub struct Subscriber {}

impl Subscriber {
    /// Connects and stays connected until the token is cancelled. Events come out of the receiver, whose
    /// queue is bounded: a receiver that falls behind holds up reading, and Redis's own output buffer
    /// limit then cuts the connection, which is a gap.
    pub async fn start(
        _settings: &crate::config::Redis,
        _tracker: &tokio_util::task::TaskTracker,
        _stop: tokio_util::sync::CancellationToken,
    ) -> Result<(Self, mpsc::Receiver<Event>), BrokerError> {
        unimplemented!()
    }

    /// Subscribes and returns when Redis has confirmed. Many callers at once share one round trip.
    /// The caller counts references; subscribing twice is harmless.
    pub async fn subscribe(&self, _channels: Vec<String>) -> Result<(), BrokerError> {
        unimplemented!()
    }

    /// As [`Self::subscribe`], for patterns.
    pub async fn psubscribe(&self, _patterns: Vec<String>) -> Result<(), BrokerError> {
        unimplemented!()
    }

    /// Unsubscribes, some time soon.
    pub fn unsubscribe(&self, _channels: Vec<String>) {
        unimplemented!()
    }

    /// Whether a message published to itself was heard in the last few seconds: the truth behind `/readyz`.
    pub fn delivers(&self) -> bool {
        unimplemented!()
    }
}
