//! What comes by patterns: only what somebody wants, and each message once.
//!
//! Redis sends a message as often as there are patterns that fit it. A gateway that changes from one pattern for each tenant to one
//! for all has both for a moment, and must not tell its sockets anything twice. It also hears much then that is nobody's, which has to
//! be passed over before it costs anything.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use redis::Msg;

/// Whether somebody wants to hear what is published on a channel.
pub type ChannelFilter = Box<dyn Fn(&str) -> bool + Send + Sync>;

/// The same, once it is known.
pub(super) type SharedFilter = Arc<OnceLock<ChannelFilter>>;

/// What came by patterns, of one subscriber.
pub(super) struct PatternMessages {
    /// Everything is wanted where there is none.
    filter: SharedFilter,
    last: Option<PatternMessage>,
}

struct PatternMessage {
    pattern: String,
    channel: String,
    payload: Bytes,
}

impl PatternMessages {
    pub(super) fn new(filter: SharedFilter) -> Self {
        Self { filter, last: None }
    }

    /// The payload, unless nobody wants it, or it is the one before by another pattern: what Redis sends of one PUBLISH it sends
    /// one right after the other.
    pub(super) fn take(&mut self, message: &Msg) -> Option<Bytes> {
        let channel = message.get_channel_name();
        if self.filter.get().is_some_and(|wants| !wants(channel)) {
            return None;
        }
        let pattern: String = message.get_pattern().ok()?;
        self.once(pattern, channel, message.get_payload_bytes())
    }

    fn once(&mut self, pattern: String, channel: &str, payload: &[u8]) -> Option<Bytes> {
        let is_same = |last: &PatternMessage| {
            last.pattern != pattern && last.channel == channel && last.payload.as_ref() == payload
        };
        if self.last.as_ref().is_some_and(is_same) {
            return None;
        }
        let payload = Bytes::copy_from_slice(payload);
        self.last = Some(PatternMessage { pattern, channel: channel.to_owned(), payload: payload.clone() });
        Some(payload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_by_two_patterns_is_one_message_and_what_is_published_twice_is_two() {
        let mut messages = PatternMessages::new(Arc::default());
        let mut is_told = |pattern: &str, channel: &str, payload: &str| {
            messages.once(pattern.to_owned(), channel, payload.as_bytes()).is_some()
        };
        assert!(is_told("acme:job:*", "acme:job:j1", "x"));
        assert!(!is_told("*:job:*", "acme:job:j1", "x"));
        assert!(is_told("acme:job:*", "acme:job:j1", "x"), "published again");
        assert!(!is_told("*:job:*", "acme:job:j1", "x"));
        assert!(is_told("*:job:*", "acme:job:j1", "y"));
        assert!(is_told("*:job:*", "acme:job:j1", "y"), "published twice");
        assert!(is_told("globex:job:*", "globex:job:j1", "y"));
    }
}
