//! Who is calling, and what they may do.
//!
//! [`source`] finds the token in a request, [`verifier`] checks it and makes a [`Caller`] of it,
//! [`revocations`] knows which valid tokens are refused all the same,
//! [`policy`] answers whether that caller holds a permission, [`sign()`] makes tokens (`wheelhouse token`).
//! A token's text never leaves these modules: no error, log line or metric holds it.

mod issuer;
mod jwks;
pub mod policy;
mod profile;
pub mod revocations;
mod roca;
pub mod sign;
mod single_flight;
pub mod source;
pub mod verifier;
pub mod worker;

use crate::domain::{TenantId, UserId, printable};
use crate::protocol::ErrorCode;
use crate::store::RevocationKind;

pub use policy::{PERMISSIONS_BELIEVED, Policy, PolicyError};
pub use revocations::{Revocations, TokenFacts};
pub use sign::{Claims, SignError, WorkerClaims, sign, sign_worker};
pub use source::{
    PresentedToken, TokenSource, WEBSOCKET_PROTOCOL, extract, extract_for_protocol, header_values, offers_protocol,
};
pub use verifier::{SetupError, Verifier};
pub use worker::{TokenTenants, WorkerCaller};

/// Longest token that is looked at, in bytes.
pub const MAX_TOKEN_LENGTH: usize = 8 * 1024;
/// Longest `jti`, in characters: one that is cut off would name other tokens too.
const MAX_TOKEN_ID: usize = 128;
/// What a `jti` must be, in words.
pub const TOKEN_ID_FORM: &str =
    "1 to 128 printable characters, and none that is invisible or changes the direction of writing";
/// How far clocks may differ, in seconds.
pub const LEEWAY: i64 = 5;

/// Whether a text can be a `jti`: people revoke a token by it, so it must be one that SQL keeps and that can be seen.
pub fn is_token_id(text: &str) -> bool {
    let is_visible = |word: &str| word.is_empty() || printable::is_visible(word);
    (1..=MAX_TOKEN_ID).contains(&text.chars().count()) && text.split(' ').all(is_visible)
}

/// Whoever presented a valid token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// `sub`.
    pub user: UserId,
    /// `tenant_id`.
    pub tenant: TenantId,
    /// `jti`, for the audit trail.
    pub token_id: Option<String>,
    /// `exp`, Unix seconds.
    pub expires_at: i64,
    /// `iat`, Unix seconds; a token that is from a clock ahead of this one counts as issued when it was verified.
    pub issued_at: Option<i64>,
    /// The claim `permissions`, where the token has one. Believed only where the settings say so.
    pub permissions: Option<Vec<String>>,
}

impl Caller {
    /// What decides whether the token was revoked.
    pub fn token_facts(&self) -> TokenFacts<'_> {
        TokenFacts {
            kind: RevocationKind::User,
            name: self.user.as_str(),
            tenant: Some(self.tenant.as_str()),
            token_id: self.token_id.as_deref(),
            issued_at: self.issued_at,
        }
    }

    /// The moment from which on the token is good for nothing, in Unix milliseconds: the same for a request and for a
    /// socket that is open.
    pub fn expires_at_ms(&self) -> i64 {
        self.expires_at.saturating_add(LEEWAY).saturating_mul(1_000)
    }
}

/// Why a token was not accepted. The words are for the client and say what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// No token anywhere.
    #[error(
        "No token: send ?token=…, Authorization: Bearer …, the cookie access_token, or the WebSocket protocols wheelhouse, bearer.…"
    )]
    Missing,
    /// Not a token that this service accepts.
    #[error("Invalid token: {0}")]
    Invalid(&'static str),
    /// It was valid once.
    #[error("The token has expired: get a new one and try again")]
    Expired,
    /// It has not expired, and was revoked.
    #[error("The token has been revoked: sign in again")]
    Revoked,
    /// The issuer's keys could not be had, so nothing can be said about the token.
    #[error("The keys of the token's issuer cannot be fetched just now: try again shortly")]
    Unavailable,
}

impl AuthError {
    /// The code that goes with it (and, by that, the HTTP status).
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Missing | Self::Invalid(_) | Self::Expired | Self::Revoked => ErrorCode::Unauthorized,
            Self::Unavailable => ErrorCode::Unavailable,
        }
    }
}
