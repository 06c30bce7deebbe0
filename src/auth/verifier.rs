//! Checks tokens: signature by a key of the settings, then every claim.

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{AuthError, Caller};
use crate::config;

/// Why tokens cannot be checked with these settings: one line for the operator.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SetupError(pub String);

/// Checks tokens; cheap to clone.
#[derive(Clone)]
pub struct Verifier {}

impl Verifier {
    /// From the settings. Without any key it is an error that says which settings to fill. With
    /// `auth.jwks_url` a task of the tracker keeps the keys fresh; an issuer that is away does not stop the start.
    pub async fn new(
        _settings: &config::Auth,
        _tracker: &TaskTracker,
        _stop: CancellationToken,
    ) -> Result<Self, SetupError> {
        unimplemented!()
    }

    /// The caller of a valid token.
    pub async fn verify(&self, _token: &str) -> Result<Caller, AuthError> {
        unimplemented!()
    }
}
