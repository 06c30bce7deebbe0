//! What an answer waits for before it is told, and the answers that wait.

use tokio::sync::oneshot;

/// Answers that may be held; more of them wait for room, as commands do that are on their way to Redis.
pub(super) const CAPACITY: usize = 8_192;

/// An answer that is held: a key that lies on the same server, and who hears that it may go.
pub(super) struct Held {
    pub(super) key: String,
    pub(super) may_go: oneshot::Sender<bool>,
}

/// What is waited for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Waits {
    /// `redis.replicas_to_wait`.
    pub(super) replicas: u32,
    /// `redis.fsyncs_to_wait`.
    pub(super) fsyncs: u32,
}

impl Waits {
    pub(super) fn of(settings: &crate::config::Redis) -> Self {
        Self { replicas: settings.replicas_to_wait, fsyncs: settings.fsyncs_to_wait }
    }

    pub(super) fn is_none(self) -> bool {
        self == Self::default()
    }

    /// What it means that they were waited for in vain.
    pub(super) fn in_vain(self) -> &'static str {
        match self.fsyncs {
            0 => "too few replicas have it (redis.replicas_to_wait)",
            _ => "it is not on as many disks in time as redis.fsyncs_to_wait says",
        }
    }
}
