//! Identifiers, checked at every entrance.
//!
//! A `:` or a glob character inside an id would break the isolation of a channel or of a key, so no
//! value of these types can hold one. User ids are the issuer's and may hold almost anything; they
//! are percent-encoded where they become part of a key.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::printable::is_visible;

/// Longest tenant, resource, worker or request id, in bytes.
pub const MAX_ID: usize = 128;
/// Longest user id, in characters.
pub const MAX_USER_ID: usize = 255;

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Not `^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`.
    #[error("{what} must be 1 to 128 letters, digits, '.', '_' or '-', and start with a letter or digit")]
    Malformed {
        /// Which id, in words.
        what: &'static str,
    },
    /// Not a UUID.
    #[error(
        "a command id is a UUID, such as the command_id of an acknowledgement, 01a22353-a34f-760b-9e0f-c6c0100e8026"
    )]
    Command,
    /// Not 1 to 255 visible characters.
    #[error(
        "a user id must be 1 to 255 printable characters without spaces, and none that is invisible, changes the direction of writing or is for private use"
    )]
    User,
}

fn is_plain(text: &str) -> bool {
    let bytes = text.as_bytes();
    (1..=MAX_ID).contains(&bytes.len())
        && bytes[0].is_ascii_alphanumeric()
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

macro_rules! plain_id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                if is_plain(text) { Ok(Self(text.into())) } else { Err(IdError::Malformed { what: $what }) }
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0.as_ref().to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

plain_id!(
    /// A customer of the platform; nothing of one tenant is visible to another.
    TenantId, "a tenant id"
);
plain_id!(
    /// The id of a job or of a campaign.
    ResourceId, "an id"
);
plain_id!(
    /// One worker process, unique per start.
    WorkerId, "a worker id"
);
plain_id!(
    /// The client's own name for a request, so that sending it again is safe.
    RequestId, "a request_id"
);

impl WorkerId {
    /// A new id, unlikely to be anyone else's: the number of this process, for whoever looks for it, and 64 random bits.
    pub fn generate() -> Self {
        Self(format!("worker-{}-{:016x}", std::process::id(), fastrand::u64(..)).into())
    }
}

impl ResourceId {
    /// A new id that sorts by time.
    pub fn generate() -> Self {
        Self(uuid::Uuid::now_v7().to_string().into())
    }
}

/// The issuer's name for a user (`auth0|5f7c…`, `ann@example.com`), kept as it is.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct UserId(Arc<str>);

impl UserId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id as it stands inside a key name: everything but letters, digits, `.`, `_`, `-` as `%XX`.
    pub fn encoded(&self) -> String {
        use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
        const KEEP: &AsciiSet = &NON_ALPHANUMERIC.remove(b'.').remove(b'_').remove(b'-');
        utf8_percent_encode(&self.0, KEEP).to_string()
    }
}

impl FromStr for UserId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let is_short = (1..=MAX_USER_ID).contains(&text.chars().count());
        if is_short && is_visible(text) { Ok(Self(text.into())) } else { Err(IdError::User) }
    }
}

impl TryFrom<String> for UserId {
    type Error = IdError;
    fn try_from(text: String) -> Result<Self, IdError> {
        text.parse()
    }
}

impl From<UserId> for String {
    fn from(id: UserId) -> String {
        id.0.as_ref().to_owned()
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_that_could_break_a_key_or_a_channel_is_refused() {
        let long = "a".repeat(129);
        for bad in ["", ":", "a:b", "a*", "a?", "[a]", "-a", ".a", "_a", "a b", "ä", "a\n", "{a}", long.as_str()] {
            assert!(bad.parse::<TenantId>().is_err(), "{bad:?} must be refused");
        }
        let longest = "a".repeat(128);
        for good in ["a", "7", "tenant-123", "a.b_c-d", longest.as_str()] {
            assert_eq!(good.parse::<TenantId>().expect("accepted").as_str(), good);
        }
    }

    #[test]
    fn a_user_id_keeps_its_text_and_is_encoded_for_keys() {
        let user: UserId = "auth0|5f7c:x@é".parse().expect("accepted");
        assert_eq!(user.as_str(), "auth0|5f7c:x@é");
        assert_eq!(user.encoded(), "auth0%7C5f7c%3Ax%40%C3%A9");
        for bad in ["", "a b", "a\u{7}", "a\tb", "x".repeat(256).as_str()] {
            assert!(bad.parse::<UserId>().is_err(), "{bad:?} must be refused");
        }
    }

    #[test]
    fn a_user_id_has_no_character_that_cannot_be_seen() {
        for good in [
            "ann@example.com",
            "auth0|5f7c",
            "google-oauth2|1148",
            "CN=Ann,OU=Ops,O=Acme",
            "https://issuer.example/users/7?a=b#c",
            "J\u{f6}rg.M\u{fc}ller",
            "Jo\u{308}rg",
            "\u{738b}\u{5c0f}\u{660e}",
            "\u{395}\u{3bb}\u{3ad}\u{3bd}\u{3b7}",
            "\u{645}\u{631}\u{64a}\u{645}",
            "\u{939}\u{93f}\u{928}\u{94d}\u{926}\u{940}",
            "\u{1f642}",
        ] {
            assert!(good.parse::<UserId>().is_ok(), "{good:?} must be accepted");
        }
        for hidden in [
            '\u{0}',
            '\u{ad}',
            '\u{34f}',
            '\u{61c}',
            '\u{115f}',
            '\u{17b4}',
            '\u{180e}',
            '\u{200b}',
            '\u{200c}',
            '\u{200d}',
            '\u{200e}',
            '\u{200f}',
            '\u{202a}',
            '\u{202e}',
            '\u{2028}',
            '\u{2060}',
            '\u{2064}',
            '\u{2066}',
            '\u{2069}',
            '\u{206a}',
            '\u{2800}',
            '\u{3000}',
            '\u{3164}',
            '\u{a0}',
            '\u{e000}',
            '\u{fe00}',
            '\u{fe0f}',
            '\u{feff}',
            '\u{ffa0}',
            '\u{fff9}',
            '\u{fffd}',
            '\u{fffe}',
            '\u{1d173}',
            '\u{e0001}',
            '\u{e0041}',
            '\u{e0100}',
            '\u{f0000}',
            '\u{10fffd}',
        ] {
            for text in [format!("ann{hidden}"), format!("a{hidden}nn"), format!("{hidden}ann")] {
                assert!(text.parse::<UserId>().is_err(), "{text:?} must be refused");
            }
        }
        assert!("\u{308}ann".parse::<UserId>().is_err(), "a mark would stand on what is printed before it");
    }
}
