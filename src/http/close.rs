//! The codes with which a socket is closed (CONTRACT section 4).

use std::time::Duration;

use tokio_tungstenite::tungstenite::Utf8Bytes;
use tokio_tungstenite::tungstenite::error::CapacityError;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error as WsError, error::ProtocolError};

use super::reply::Refusal;

/// Sent where a client sends more messages than it may.
const FLOOD: u16 = 4429;
/// Longest pause that a drained client is asked to make before it comes back.
const JITTER_MS: u64 = 2_000;
/// How long a client may take to answer the close.
const PATIENCE: Duration = Duration::from_secs(5);
/// The same for one that has not been reading: it must read what the kernel holds before it finds the code.
const SLOW_PATIENCE: Duration = Duration::from_secs(30);

/// A code and its reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Close {
    code: u16,
    reason: Utf8Bytes,
}

impl Close {
    /// How long the answer to a client's own close may take.
    pub const ANSWER: Duration = PATIENCE;

    fn of(code: u16, reason: &'static str) -> Self {
        Self { code, reason: Utf8Bytes::from_static(reason) }
    }

    /// Only text frames are understood.
    pub fn binary() -> Self {
        Self::of(1003, "send text frames")
    }

    /// This process leaves. The pause in the reason keeps all of its clients from coming back at once.
    pub fn drain() -> Self {
        Self { code: 1012, reason: format!("reconnect in {} ms", fastrand::u64(0..=JITTER_MS)).into() }
    }

    /// A newer socket of the same session is open.
    pub fn replaced() -> Self {
        Self::of(4409, "a newer socket of this session is open")
    }

    /// A message that the protocol does not have. A reason has 123 bytes at most.
    pub fn unknown_message(reason: &str) -> Self {
        let mut end = reason.len().min(123);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        Self { code: 4400, reason: reason[..end].into() }
    }

    /// The token was revoked.
    pub fn token_revoked() -> Self {
        Self::of(4403, "token revoked")
    }

    /// The token's time is over.
    pub fn expired() -> Self {
        Self::of(4401, "token expired")
    }

    /// The permission to watch was taken away.
    pub fn revoked() -> Self {
        Self::of(4403, "access revoked")
    }

    /// What the socket was refused for, where that has a close code: 4000 and the HTTP status. The reason is the stable
    /// code of the refusal.
    pub fn refused(refusal: &Refusal) -> Option<Self> {
        let status = refusal.code.http_status();
        matches!(status, 401 | 403 | 404 | 429 | 503).then(|| Self::of(4000 + status, refusal.code.as_str()))
    }

    /// Two pings went unanswered.
    pub fn no_pong() -> Self {
        Self::of(4408, "no pong")
    }

    /// More waits than may.
    pub fn too_slow() -> Self {
        Self::of(4413, "too slow to read")
    }

    /// This process cannot confirm just now that the client's jobs are its own; another one may.
    pub fn unconfirmed() -> Self {
        Self::of(1012, "this worker has lost contact: reconnect")
    }

    /// More messages than allowed.
    pub fn flood() -> Self {
        Self::of(FLOOD, "message flood")
    }

    /// What to say to a client whose bytes could not be read as messages; `None`: the connection itself is gone.
    pub fn for_error(error: &WsError) -> Option<Self> {
        match error {
            WsError::Capacity(CapacityError::MessageTooLong { max_size, .. }) => {
                Some(Self { code: 1009, reason: format!("a message may have {} KiB", max_size / 1024).into() })
            }
            WsError::Utf8(_) => Some(Self::of(1007, "text must be UTF-8")),
            WsError::Protocol(ProtocolError::ResetWithoutClosingHandshake) => None,
            WsError::Protocol(_) => Some(Self::of(1002, "not as RFC 6455 says")),
            _ => None,
        }
    }

    /// The number.
    pub fn code(&self) -> u16 {
        self.code
    }

    /// Whether the client sends more than is worth reading.
    pub fn is_flood(&self) -> bool {
        self.code == FLOOD
    }

    /// Whether what waits in the outbox is sent before the close.
    pub fn delivers_first(&self) -> bool {
        matches!(self.code, 1012 | 4401)
    }

    /// How long to wait for the client's own close.
    pub fn patience(&self) -> Duration {
        if self.code == 4413 { SLOW_PATIENCE } else { PATIENCE }
    }

    /// As it travels.
    pub fn frame(&self) -> CloseFrame {
        CloseFrame { code: self.code.into(), reason: self.reason.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drain_names_a_pause_in_milliseconds() {
        let frame = Close::drain().frame();
        assert_eq!(u16::from(frame.code), 1012);
        let pause = frame.reason.strip_prefix("reconnect in ").and_then(|r| r.strip_suffix(" ms")).expect("form");
        assert!(pause.parse::<u64>().expect("number") <= JITTER_MS);
    }

    #[test]
    fn an_unreadable_message_gets_the_code_of_its_kind() {
        let long = WsError::Capacity(CapacityError::MessageTooLong { size: 20_000, max_size: 16 * 1024 });
        let close = Close::for_error(&long).expect("a code");
        assert_eq!((close.code(), close.frame().reason.as_str()), (1009, "a message may have 16 KiB"));
        let masked = WsError::Protocol(ProtocolError::UnmaskedFrameFromClient);
        assert_eq!(Close::for_error(&masked).map(|c| c.code()), Some(1002));
        let reset = WsError::Protocol(ProtocolError::ResetWithoutClosingHandshake);
        assert_eq!(Close::for_error(&reset), None);
    }
}
