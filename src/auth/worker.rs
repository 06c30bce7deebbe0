//! Whoever presented the token of a foreign worker. Such tokens are good at the worker's listener alone, and users' tokens
//! are not.

use crate::domain::{TenantId, WorkerId};

use super::LEEWAY;
use super::revocations::TokenFacts;
use crate::store::RevocationKind;

/// Whoever presented a valid token of a foreign worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerCaller {
    /// `worker`.
    pub worker: WorkerId,
    /// `tenants`.
    pub tenants: TokenTenants,
    /// `jti`.
    pub token_id: Option<String>,
    /// `iat`, Unix seconds.
    pub issued_at: Option<i64>,
    /// `exp`, Unix seconds.
    pub expires_at: i64,
}

impl WorkerCaller {
    /// What decides whether the token was revoked.
    pub fn token_facts(&self) -> TokenFacts<'_> {
        TokenFacts {
            kind: RevocationKind::Worker,
            name: self.worker.as_str(),
            tenant: None,
            token_id: self.token_id.as_deref(),
            issued_at: self.issued_at,
        }
    }

    /// The moment from which on the token is good for nothing, in Unix milliseconds.
    pub fn expires_at_ms(&self) -> i64 {
        self.expires_at.saturating_add(LEEWAY).saturating_mul(1_000)
    }
}

/// The tenants whose jobs a foreign worker may run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenTenants {
    /// Every tenant: `["*"]`.
    All,
    /// These.
    These(Vec<TenantId>),
}

impl TokenTenants {
    /// From the words of a claim or of a flag.
    pub fn parse<'a>(words: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let words: Vec<&str> = words.into_iter().collect();
        match words.as_slice() {
            [] => Err("name at least one tenant, or * for all".to_owned()),
            ["*"] => Ok(Self::All),
            _ => words
                .iter()
                .map(|word| word.parse().map_err(|error| format!("{word:?}: {error}")))
                .collect::<Result<_, _>>()
                .map(Self::These),
        }
    }

    /// The inverse of [`Self::parse`].
    pub fn words(&self) -> Vec<&str> {
        match self {
            Self::All => vec!["*"],
            Self::These(tenants) => tenants.iter().map(TenantId::as_str).collect(),
        }
    }

    /// Whether this tenant is among them.
    pub fn contains(&self, tenant: &TenantId) -> bool {
        match self {
            Self::All => true,
            Self::These(tenants) => tenants.contains(tenant),
        }
    }
}
