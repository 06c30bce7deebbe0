//! What can go wrong on the way to Redis.

use redis::{ErrorKind, RedisError};

/// Server errors after which nothing was done, and which pass: the caller may come again.
const TRANSIENT_CODES: [&str; 9] =
    ["READONLY", "LOADING", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "MISCONF", "OOM", "NOREPLICAS", "BUSY"];

/// Server errors after which nothing was done, and which last until an operator changes a password or a right.
const ACCESS_CODES: [&str; 3] = ["NOPERM", "WRONGPASS", "NOAUTH"];

/// Nothing was done; they name another node, which could not be reached either.
const REDIRECT_CODES: [&str; 2] = ["MOVED", "ASK"];

/// How Redis begins to say that a command inside a script is not permitted: it gives no code of its own for that.
const DENIED_IN_SCRIPT: &str = "The user executing the script";

/// Why Redis gave no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BrokerError {
    /// Nothing was sent: there is no connection. Nothing was done, and nothing will be.
    #[error("Redis is not reachable: {0}")]
    Unavailable(String),
    /// Redis is reached, and says in these words why it does not do what it is asked: it is full, lacks replicas, is
    /// still loading, or does not permit it. Nothing was done, and nothing will be.
    #[error("Redis does not serve this program: {0}")]
    NotServing(String),
    /// It was sent, and no answer came in time: it may have been done.
    #[error("Redis did not answer in time: {0}")]
    Unknown(String),
    /// Redis answered with an error, or with something a wrapper does not understand: a bug or a wrong server.
    #[error("Redis refused: {0}")]
    Refused(String),
    /// A setting that Redis was never asked about.
    #[error("setting {0}")]
    Setting(String),
}

impl BrokerError {
    /// The one word by which Redis names why it does not serve: `OOM`, `NOPERM`, … It holds nothing that is secret.
    pub fn code(&self) -> Option<&'static str> {
        let Self::NotServing(words) = self else { return None };
        let known = |code: &&&'static str| words.split([' ', ':', ',', '.']).any(|word| word == **code);
        TRANSIENT_CODES.iter().chain(&ACCESS_CODES).find(known).copied()
    }

    /// Whether only an operator can mend it: a password or a right.
    pub fn is_denied(&self) -> bool {
        self.code().is_some_and(|code| ACCESS_CODES.contains(&code))
    }

    /// Whether keys of the call were on two servers of a cluster, because their slot is just moved.
    pub(super) fn is_slot_on_its_way(&self) -> bool {
        self.code() == Some("TRYAGAIN")
    }

    /// What an error of a connection that could not be made, or a question that changes nothing, means: a server that
    /// answers is reached, whatever it answers.
    pub(super) fn of_connecting(place: &dyn std::fmt::Display, error: &RedisError) -> Self {
        match serves_not(error) {
            Some(words) => Self::NotServing(format!("{place}: {words}")),
            None => Self::Unavailable(format!("{place}: {}", words_of(error))),
        }
    }
}

impl From<RedisError> for BrokerError {
    /// What an error of a command that was sent once means for whoever sent it.
    fn from(error: RedisError) -> Self {
        if let Some(words) = serves_not(&error) {
            return Self::NotServing(words);
        }
        if error.code().is_some_and(|code| REDIRECT_CODES.contains(&code)) {
            return Self::Unavailable(words_of(&error));
        }
        if error.is_connection_refusal() {
            // Why the connection could not be made: perhaps a server that was reached and refused the password.
            let words = words_of(&error);
            let code =
                words.split([' ', ':']).find(|word| TRANSIENT_CODES.contains(word) || ACCESS_CODES.contains(word));
            return if code.is_some() { Self::NotServing(words) } else { Self::Unavailable(words) };
        }
        if error.is_io_error() || error.is_unrecoverable_error() {
            return Self::Unknown(words_of(&error));
        }
        Self::Refused(words_of(&error))
    }
}

/// Redis's own words, where it was reached and did nothing.
fn serves_not(error: &RedisError) -> Option<String> {
    let words = words_of(error);
    let detail = error.detail().unwrap_or_default();
    if detail.contains(DENIED_IN_SCRIPT) {
        return Some(format!("NOPERM {detail}"));
    }
    if ACCESS_CODES.into_iter().chain(["DB index is out of range"]).any(|denied| words.contains(denied)) {
        return Some(words);
    }
    if error.kind() == ErrorKind::AuthenticationFailed {
        return Some(format!("WRONGPASS {words}"));
    }
    error.code().is_some_and(|code| TRANSIENT_CODES.contains(&code)).then_some(words)
}

/// As Redis wrote it, where it did: the client library writes the names of the codes that it knows in its own way.
pub(super) fn words_of(error: &RedisError) -> String {
    let words = match (error.code(), error.detail()) {
        // A failure to set a connection up quotes what the server said behind a description of its own.
        (Some("ERR" | "ResponseError") | None, _) => error.to_string(),
        (Some(code), Some(detail)) => format!("{code} {detail}"),
        (Some(code), None) => code.to_owned(),
    };
    words.trim().to_owned()
}
