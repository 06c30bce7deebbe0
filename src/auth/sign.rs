//! Makes tokens with the symmetric key of the settings: `wheelhouse token`, the demo, tests.

use std::time::Duration;

use crate::config;
use crate::domain::{TenantId, UserId};

/// What a new token says.
#[derive(Debug, Clone)]
pub struct Claims {
    /// `sub`.
    pub user: UserId,
    /// `tenant_id`.
    pub tenant: TenantId,
    /// How long it is good for.
    pub ttl: Duration,
    /// The claim `permissions`, where wanted.
    pub permissions: Option<Vec<String>>,
}

/// Signs a token with `auth.hs256_secret`, with the issuer and audience of the settings.
pub fn sign(_settings: &config::Auth, _claims: &Claims) -> Result<String, SignError> {
    unimplemented!()
}

/// Why no token could be made.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// There is no key to sign with.
    #[error(
        "setting auth.hs256_secret: it is empty, and a token can be signed only with a secret (from the settings); set it in a file or as WHEELHOUSE__AUTH__HS256_SECRET"
    )]
    NoSecret,
    /// The library refused.
    #[error("the token could not be signed")]
    Failed,
}
