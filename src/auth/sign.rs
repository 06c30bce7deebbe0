//! Makes tokens with the symmetric key of the settings: `wheelhouse token`, the demo, tests.

use std::time::Duration;

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use secrecy::ExposeSecret;

use super::worker::TokenTenants;
use crate::config;
use crate::domain::{TenantId, UserId, WorkerId};

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

/// What a new token of a foreign worker says.
#[derive(Debug, Clone)]
pub struct WorkerClaims {
    /// `worker`.
    pub worker: WorkerId,
    /// `tenants`.
    pub tenants: TokenTenants,
    /// How long it is good for.
    pub ttl: Duration,
}

/// Without `sub` and `tenant_id`: nowhere else is it taken for a user's.
#[derive(serde::Serialize)]
struct WorkerTokenBody<'a> {
    worker: &'a str,
    tenants: Vec<&'a str>,
    iat: i64,
    exp: i64,
    jti: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<&'a str>,
}

#[derive(serde::Serialize)]
struct TokenBody<'a> {
    sub: &'a str,
    tenant_id: &'a str,
    iat: i64,
    exp: i64,
    jti: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    permissions: Option<&'a [String]>,
}

/// Signs a token with `auth.hs256_secret`, with the issuer and audience of the settings.
pub fn sign(settings: &config::Auth, claims: &Claims) -> Result<String, SignError> {
    if let Some(longest) = settings.max_token
        && claims.ttl > longest
    {
        return Err(SignError::TooLong { asked: claims.ttl.as_secs(), longest: longest.as_secs() });
    }
    let now = jiff::Timestamp::now().as_second();
    let body = TokenBody {
        sub: claims.user.as_str(),
        tenant_id: claims.tenant.as_str(),
        iat: now,
        exp: expiry(now, claims.ttl),
        jti: uuid::Uuid::now_v7().to_string(),
        iss: settings.issuer.as_deref(),
        aud: settings.audience.as_deref(),
        permissions: claims.permissions.as_deref(),
    };
    signed(settings, &body)
}

/// Signs a token of a foreign worker in the same way. Also gives its `jti`.
pub fn sign_worker(settings: &config::Auth, claims: &WorkerClaims) -> Result<(String, String), SignError> {
    let now = jiff::Timestamp::now().as_second();
    let body = WorkerTokenBody {
        worker: claims.worker.as_str(),
        tenants: claims.tenants.words(),
        iat: now,
        exp: expiry(now, claims.ttl),
        jti: uuid::Uuid::now_v7().to_string(),
        iss: settings.issuer.as_deref(),
        aud: settings.audience.as_deref(),
    };
    Ok((signed(settings, &body)?, body.jti))
}

fn expiry(now: i64, ttl: Duration) -> i64 {
    now.saturating_add(i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX))
}

fn signed(settings: &config::Auth, body: &impl serde::Serialize) -> Result<String, SignError> {
    let secret = settings.hs256_secret.as_ref().ok_or(SignError::NoSecret)?;
    let key = EncodingKey::from_secret(secret.expose_secret().as_bytes());
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), body, &key).map_err(|_| SignError::Failed)
}

/// Why no token could be made.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// There is no key to sign with.
    #[error(
        "setting auth.hs256_secret: it is empty, and a token can be signed only with a secret (from the settings); set it in a file or as WHEELHOUSE__AUTH__HS256_SECRET"
    )]
    NoSecret,
    /// No gateway with the same settings would accept it.
    #[error(
        "setting auth.max_token_seconds: is {longest}, and the token would be good for {asked} seconds, so no gateway would accept it"
    )]
    TooLong {
        /// Seconds.
        asked: u64,
        /// Seconds.
        longest: u64,
    },
    /// The library refused.
    #[error("the token could not be signed")]
    Failed,
}
