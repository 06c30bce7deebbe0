//! What whoever hears is told, and how it asks: the same on plain and on sharded channels.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::error::BrokerError;
use super::keys::Partition;

/// Requests that may wait for the owner; more callers wait for room.
pub(super) const REQUEST_QUEUE: usize = 4_096;
/// In a cluster, where another node hears the same: between two looks whether this one answers, and how long it may take.
pub(super) const PING_INTERVAL: Duration = Duration::from_millis(350);
pub(super) const PING_TIMEOUT: Duration = Duration::from_millis(550);
/// Longest wait for one node of a cluster to be connected to: there are others.
pub(super) const NODE_TIMEOUT: Duration = Duration::from_millis(700);
/// Longest wait for a connection or a confirmation.
pub(super) const ANSWER: Duration = Duration::from_secs(3);

/// What a subscriber hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A message.
    Message {
        /// Where it was published.
        channel: String,
        /// What was published; never anything but a wake-up.
        payload: bytes::Bytes,
        /// It came by a pattern, or by several. Where both a pattern and the channel itself are subscribed, it comes twice,
        /// once by each.
        by_pattern: bool,
    },
    /// Messages were lost, and every subscription stands (again).
    Gap,
    /// Messages may have been lost that are about tenants of these partitions: their server is another one now, or what is
    /// published there does not come through. Comes again and again while that lasts.
    PartitionGap(Vec<Partition>),
    /// The right to hear these channels and patterns has been taken away. They are no longer subscribed.
    Denied(Vec<String>),
}

/// Hears that it stands, or why it does not.
pub(super) type Done = oneshot::Sender<Result<(), BrokerError>>;

/// Asks, and waits until it is done.
pub(super) async fn confirmed<T>(
    requests: &mpsc::Sender<T>,
    request: T,
    done: oneshot::Receiver<Result<(), BrokerError>>,
) -> Result<(), BrokerError> {
    let gone = || BrokerError::Unavailable("the subscriber has stopped".to_owned());
    let asked = async {
        requests.send(request).await.map_err(|_| gone())?;
        done.await.map_err(|_| gone())?
    };
    let late = || BrokerError::Unavailable("subscription not confirmed in time".to_owned());
    tokio::time::timeout(ANSWER, asked).await.map_err(|_| late())?
}
