//! Checks tokens: signature by a key of the settings, then every claim. The key decides the algorithm.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation};
use secrecy::ExposeSecret;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::issuer::{Issuer, KeyLookup, RefreshPolicy};
use super::jwks::{ISSUER_ALGORITHMS, IssuerKey, KeySource};
use super::profile::{self, Lifetime};
use super::worker::{TokenTenants, WorkerCaller};
use super::{AuthError, Caller, LEEWAY, MAX_TOKEN_LENGTH, Revocations, TokenFacts, is_token_id};
use crate::config::{self, MIN_SECRET, PermissionSource};

const BAD_SIGNATURE: AuthError = AuthError::Invalid("its signature does not fit");

/// Why tokens cannot be checked with these settings: one line for the operator.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SetupError(pub String);

/// Checks tokens; cheap to clone.
#[derive(Clone)]
pub struct Verifier(Arc<VerifierInner>, Option<Revocations>);

struct VerifierInner {
    /// `auth.hs256_secret`, and `auth.hs256_previous_secret`.
    secrets: Vec<DecodingKey>,
    issuer: Option<Issuer>,
    /// Everything but the algorithm, which each key adds.
    rules: Validation,
    believes_permissions: bool,
    /// The longest lifetime of a token, in seconds.
    longest: Option<i64>,
}

/// The claims in use; the rest of a token is nobody's business here.
#[derive(serde::Deserialize)]
struct Claims {
    sub: Option<Value>,
    tenant_id: Option<Value>,
    exp: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    iat: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    jti: Option<Value>,
    permissions: Option<Value>,
}

/// The claims of a foreign worker's token. One with `tenant_id` is a user's.
#[derive(serde::Deserialize)]
struct WorkerTokenClaims {
    worker: Option<Value>,
    tenants: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    tenant_id: Option<Value>,
    exp: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    iat: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    jti: Option<Value>,
}

/// A claim that is there, `null` too: a claim without a value is not the same as none.
fn present<'de, D: serde::Deserializer<'de>>(claim: D) -> Result<Option<Value>, D::Error> {
    <Value as serde::Deserialize>::deserialize(claim).map(Some)
}

impl Verifier {
    /// From the settings. Without any key it is an error that says which settings to fill. With
    /// `auth.jwks_url` a task of the tracker keeps the keys fresh; an issuer that is away does not stop the start.
    pub async fn new(
        settings: &config::Auth,
        tracker: &TaskTracker,
        stop: CancellationToken,
    ) -> Result<Self, SetupError> {
        Self::with_refresh_policy(settings, RefreshPolicy::default(), tracker, stop).await
    }

    pub(super) async fn with_refresh_policy(
        settings: &config::Auth,
        policy: RefreshPolicy,
        tracker: &TaskTracker,
        stop: CancellationToken,
    ) -> Result<Self, SetupError> {
        let mut secrets = Vec::new();
        for (key, secret) in [
            ("auth.hs256_secret", &settings.hs256_secret),
            ("auth.hs256_previous_secret", &settings.hs256_previous_secret),
        ] {
            let Some(secret) = secret else { continue };
            if secret.expose_secret().len() < MIN_SECRET {
                return Err(SetupError(format!("setting {key}: must have {MIN_SECRET} bytes or more")));
            }
            secrets.push(DecodingKey::from_secret(secret.expose_secret().as_bytes()));
        }
        let issuer = match (&settings.jwks_url, &settings.jwks_file) {
            (Some(_), Some(_)) => {
                let problem = "setting auth.jwks_file: is set beside auth.jwks_url: set one of the two";
                return Err(SetupError(problem.to_owned()));
            }
            (Some(address), None) => {
                Some(("auth.jwks_url", KeySource::from_url(address, settings.ca_pem.as_deref()).map_err(SetupError)?))
            }
            (None, Some(path)) => Some(("auth.jwks_file", KeySource::File(path.clone()))),
            (None, None) => None,
        };
        if settings.jwks_url.as_deref().is_some_and(is_open_to_forgery) {
            tracing::warn!("auth.jwks_url is not https: whoever is on the way can put in keys and make tokens");
        }
        let policy = RefreshPolicy { max_age: settings.jwks_max_age, ..policy };
        let issuer = match issuer {
            None => None,
            Some((key, place)) => {
                let description = place.message();
                let started = Issuer::start(place, policy, tracker, stop).await;
                Some(started.map_err(|problem| SetupError(format!("setting {key}: {problem} ({description})")))?)
            }
        };
        if secrets.is_empty() && issuer.is_none() {
            return Err(SetupError(
                "setting auth.hs256_secret: no key to check tokens with (from the settings together); \
                 set auth.hs256_secret, auth.jwks_url or auth.jwks_file"
                    .to_owned(),
            ));
        }
        warn_of_open_claims(settings);
        let longest = settings.max_token.map(|longest| i64::try_from(longest.as_secs()).unwrap_or(i64::MAX));
        let believes_permissions = settings.permissions == PermissionSource::Token;
        Ok(Self(
            Arc::new(VerifierInner {
                secrets,
                issuer,
                rules: validation_rules(settings),
                believes_permissions,
                longest,
            }),
            None,
        ))
    }

    /// Refuses tokens that have been revoked as well.
    #[must_use]
    pub fn refusing(self, revocations: Revocations) -> Self {
        Self(self.0, Some(revocations))
    }

    /// The caller of a valid token.
    pub async fn verify(&self, token: &str) -> Result<Caller, AuthError> {
        let caller = self.verified(token, |key| self.check(token, key)).await?;
        self.check_revoked(&caller).map(|()| caller)
    }

    /// The foreign worker of a valid token that lives no longer than this.
    pub async fn verify_worker(&self, token: &str, longest: Duration) -> Result<WorkerCaller, AuthError> {
        let caller = self.verified(token, |key| self.check_worker(token, key, longest)).await?;
        if self.is_revoked(&caller.token_facts()) { Err(AuthError::Revoked) } else { Ok(caller) }
    }

    /// Refuses a caller whose token was valid, and has been revoked since.
    pub fn check_revoked(&self, caller: &Caller) -> Result<(), AuthError> {
        if self.is_revoked(&caller.token_facts()) { Err(AuthError::Revoked) } else { Ok(()) }
    }

    fn is_revoked(&self, token: &TokenFacts<'_>) -> bool {
        self.1.as_ref().is_some_and(|all| all.is_revoked(token))
    }

    async fn verified<T>(
        &self,
        token: &str,
        check: impl Fn(&IssuerKey) -> Result<T, AuthError>,
    ) -> Result<T, AuthError> {
        if token.is_empty() {
            return Err(AuthError::Missing);
        }
        if token.len() > MAX_TOKEN_LENGTH {
            return Err(AuthError::Invalid("it is longer than 8 KiB"));
        }
        profile::check_header(token)?;
        // The header is read before anything is proven: it only chooses among keys, each of which then
        // insists on its own algorithm. `none` and what the library does not know end here.
        let header = jsonwebtoken::decode_header(token)
            .map_err(|_| AuthError::Invalid("it is not a JSON Web Token of a kind that is accepted here"))?;
        let mut problem = AuthError::Invalid("no key of this service fits it");
        for key in self.candidates(&header).await? {
            match check(&key) {
                Ok(caller) => return Ok(caller),
                Err(found) if found == BAD_SIGNATURE => problem = found,
                // The key fits: what is wrong with the token is wrong whichever key is tried.
                Err(found) => return Err(found),
            }
        }
        Err(problem)
    }

    /// The keys whose own algorithm is the one the token names; by name where both have one.
    async fn candidates(&self, header: &Header) -> Result<Vec<IssuerKey>, AuthError> {
        if header.alg == Algorithm::HS256 {
            let keys = self.0.secrets.iter().cloned();
            return Ok(keys.map(|key| IssuerKey { kid: None, algorithm: Algorithm::HS256, key }).collect());
        }
        let Some(issuer) = &self.0.issuer else { return Ok(Vec::new()) };
        if !ISSUER_ALGORITHMS.contains(&header.alg) {
            return Ok(Vec::new());
        }
        let fits = |key: &IssuerKey| {
            let named = match (&header.kid, &key.kid) {
                (Some(wanted), Some(kid)) => wanted == kid,
                _ => true,
            };
            named && key.algorithm == header.alg
        };
        match issuer.lookup(fits).await {
            KeyLookup::Found(keys) => Ok(keys),
            KeyLookup::Unknown => Ok(Vec::new()),
            KeyLookup::Unavailable => Err(AuthError::Unavailable),
        }
    }

    fn check(&self, token: &str, key: &IssuerKey) -> Result<Caller, AuthError> {
        let mut rules = self.0.rules.clone();
        rules.algorithms = vec![key.algorithm];
        let data =
            jsonwebtoken::decode::<Claims>(token, &key.key, &rules).map_err(|error| to_auth_error(error.kind()))?;
        let Claims { sub, tenant_id, exp, iat, jti, permissions } = data.claims;
        let user = text(sub.as_ref()).and_then(|text| text.parse().ok());
        let tenant = text(tenant_id.as_ref()).and_then(|text| text.parse().ok());
        let now = jiff::Timestamp::now();
        let life = Lifetime::read(iat.as_ref(), exp.as_ref(), now.as_second(), self.0.longest)?;
        let caller = Caller {
            user: user.ok_or(AuthError::Invalid("its sub is not a user id"))?,
            tenant: tenant.ok_or(AuthError::Invalid("its tenant_id is missing or not a tenant id"))?,
            token_id: token_id(jti)?,
            expires_at: life.expires_at,
            issued_at: life.issued_at.map(|at| at.min(now.as_second())),
            permissions: self.permissions(permissions)?,
        };
        // The library compares whole seconds. A socket ends at the millisecond, and one that is let in must not end
        // at once.
        if now.as_millisecond() >= caller.expires_at_ms() {
            return Err(AuthError::Expired);
        }
        Ok(caller)
    }

    fn check_worker(&self, token: &str, key: &IssuerKey, longest: Duration) -> Result<WorkerCaller, AuthError> {
        let mut rules = self.0.rules.clone();
        rules.algorithms = vec![key.algorithm];
        rules.required_spec_claims.remove("sub");
        let data = jsonwebtoken::decode::<WorkerTokenClaims>(token, &key.key, &rules)
            .map_err(|error| to_auth_error(error.kind()))?;
        let WorkerTokenClaims { worker, tenants, tenant_id, exp, iat, jti } = data.claims;
        if tenant_id.is_some() || worker.is_none() {
            return Err(AuthError::Invalid(
                "it is a user's, and foreign workers have tokens of their own: wheelhouse token --worker NAME --tenants a,b",
            ));
        }
        let worker = text(worker.as_ref()).and_then(|text| text.parse().ok());
        let tenants = tenants.as_ref().and_then(Value::as_array).and_then(|tenants| {
            let words: Option<Vec<&str>> = tenants.iter().map(Value::as_str).collect();
            TokenTenants::parse(words?).ok()
        });
        let now = jiff::Timestamp::now();
        let longest = i64::try_from(longest.as_secs()).unwrap_or(i64::MAX);
        let life = Lifetime::read(iat.as_ref(), exp.as_ref(), now.as_second(), Some(longest))?;
        let caller = WorkerCaller {
            worker: worker.ok_or(AuthError::Invalid("its worker is not the name of one"))?,
            tenants: tenants.ok_or(AuthError::Invalid("its tenants are not a list of tenant ids"))?,
            token_id: token_id(jti)?,
            issued_at: life.issued_at.map(|at| at.min(now.as_second())),
            expires_at: life.expires_at,
        };
        if now.as_millisecond() >= caller.expires_at_ms() {
            return Err(AuthError::Expired);
        }
        Ok(caller)
    }

    /// A claim of another form is an error only where it is believed: other issuers use the name otherwise.
    fn permissions(&self, claim: Option<Value>) -> Result<Option<Vec<String>>, AuthError> {
        match claim.map(serde_json::from_value) {
            None => Ok(None),
            Some(Ok(list)) => Ok(Some(list)),
            Some(Err(_)) if !self.0.believes_permissions => Ok(None),
            Some(Err(_)) => Err(AuthError::Invalid("its permissions are not a list of texts")),
        }
    }
}

fn token_id(jti: Option<Value>) -> Result<Option<String>, AuthError> {
    match jti {
        None => Ok(None),
        Some(Value::String(jti)) if is_token_id(&jti) => Ok(Some(jti)),
        // A token that could not be revoked by its name.
        Some(_) => Err(AuthError::Invalid("its jti is not a text of 1 to 128 printable characters")),
    }
}

/// Said at start, since nothing else would show it.
fn warn_of_open_claims(settings: &config::Auth) {
    let unset: Vec<&str> = [("auth.issuer", &settings.issuer), ("auth.audience", &settings.audience)]
        .into_iter()
        .filter_map(|(key, value)| value.is_none().then_some(key))
        .collect();
    if !unset.is_empty() {
        let unset = unset.join(" and ");
        tracing::warn!(
            unset,
            "auth.any_token_of_the_key: a token with a good signature is accepted whoever issued it and whatever it is \
             meant for; set what is not set"
        );
    }
}

/// Plain HTTP to another machine.
fn is_open_to_forgery(address: &str) -> bool {
    let host = address.parse::<hyper::Uri>().ok().and_then(|uri| uri.host().map(str::to_owned)).unwrap_or_default();
    let is_here = host == "localhost" || host.trim_matches(['[', ']']).parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
    address.starts_with("http:") && !is_here
}

fn text(value: Option<&Value>) -> Option<&str> {
    value.and_then(Value::as_str)
}

/// The library's defaults accept what must not be accepted: a missing iss or aud, any nbf, a token that
/// expired a minute ago.
fn validation_rules(settings: &config::Auth) -> Validation {
    let mut rules = Validation::new(Algorithm::HS256);
    rules.algorithms = Vec::new();
    rules.leeway = LEEWAY.unsigned_abs();
    rules.validate_exp = true;
    rules.validate_nbf = true;
    let mut required = vec!["exp", "sub"];
    if let Some(issuer) = &settings.issuer {
        rules.set_issuer(&[issuer]);
        required.push("iss");
    }
    match &settings.audience {
        Some(audience) => {
            rules.set_audience(&[audience]);
            required.push("aud");
        }
        // Without a name of its own the service cannot tell whether it is meant.
        None => rules.validate_aud = false,
    }
    rules.set_required_spec_claims(&required);
    rules
}

/// What the client is told; none of it depends on the key or shows the token.
fn to_auth_error(kind: &ErrorKind) -> AuthError {
    AuthError::Invalid(match kind {
        ErrorKind::ExpiredSignature => return AuthError::Expired,
        ErrorKind::ImmatureSignature => "it is not valid yet",
        ErrorKind::InvalidIssuer => "it is from another issuer",
        ErrorKind::InvalidAudience => "it is for another audience",
        ErrorKind::InvalidSignature => return BAD_SIGNATURE,
        ErrorKind::MissingRequiredClaim(claim) | ErrorKind::InvalidClaimFormat(claim) => match claim.as_str() {
            "exp" => "its exp is missing or not a time",
            "nbf" => "its nbf is not a time",
            "sub" => "its sub is missing, so it names no user (a token for a worker is none for a gateway)",
            "iss" => "it names no issuer",
            "aud" => "it names no audience",
            _ => "a claim is missing",
        },
        _ => "it is not a JSON Web Token of a kind that is accepted here",
    })
}

#[cfg(test)]
#[path = "verifier_tests.rs"]
mod tests;
