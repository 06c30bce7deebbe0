//! Who sends a request, and whether they may.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::header::ORIGIN;
use tokio::time::Instant;

use super::request::Request;
use crate::auth::{AuthError, Caller, Policy, TokenSource, Verifier};
use crate::config::Limits;
use crate::domain::{Permission, ResourceKind, TenantId, UserId};
use crate::gateway::memory::MemoryBudget;
use crate::http::Refusal;
use crate::http::flood::Budgets;
use crate::http::handshake::origin_allowed;
use crate::protocol::ErrorCode;

/// Seconds of the rate of requests that may come at once: a script's first page of work is not held up.
const BURST_SECONDS: f64 = 10.0;

/// For so long a check of a permission counts: whoever sends a request in one go is asked once.
const CHECK_LASTS: Duration = Duration::from_millis(100);

/// Checks tokens and permissions; cheap to clone.
#[derive(Clone)]
pub(super) struct Callers {
    pub(super) verifier: Verifier,
    pub(super) policy: Policy,
    pub(super) public_origins: Arc<[String]>,
    pub(super) limits: Arc<CallerLimits>,
}

/// What one user may use up at this gateway.
pub(super) struct CallerLimits {
    pub(super) memory: MemoryBudget,
    requests: Budgets<(TenantId, UserId)>,
    requests_per_second: u32,
}

impl CallerLimits {
    /// As the settings say.
    pub(super) fn new(memory: MemoryBudget, limits: &Limits) -> Self {
        let requests_per_second = limits.requests_per_second;
        Self { memory, requests: Budgets::over_seconds(requests_per_second, BURST_SECONDS), requests_per_second }
    }

    async fn admit(&self, request: &Request, caller: &Caller) -> Result<(), Refusal> {
        if !self.requests.take((caller.tenant.clone(), caller.user.clone()), Instant::now()) {
            let most = self.requests_per_second;
            let message = format!("You send too many requests: a gateway answers {most} a second of one user");
            return Err(Refusal::new(ErrorCode::RateLimitExceeded, message).with_retry_after(1));
        }
        request.reserve(&self.memory, caller).await
    }
}

impl Callers {
    /// Who asks, with what they may still use up: called once for each request. A token in a cookie also comes along when a page of somebody else's makes the browser send the request,
    /// so whatever changes something then needs a word of the browser on where it comes from.
    pub(super) async fn caller(&self, request: &Request) -> Result<Caller, Refusal> {
        let presented = request.token().ok_or(AuthError::Missing)?;
        if presented.place == TokenSource::Cookie && !request.is_read() && !self.is_from_here(request) {
            return Err(Refusal::new(
                ErrorCode::Forbidden,
                "With a token in a cookie, this must come from a page of this service or of server.public_origins",
            ));
        }
        let caller = self.verifier.verify(&presented.token).await?;
        self.limits.admit(request, &caller).await?;
        Ok(caller)
    }

    /// As [`Self::caller`], who must hold a permission. `what` completes "Insufficient permissions to …".
    pub(super) async fn require_permission(
        &self,
        request: &Request,
        permission: &Permission,
        what: &str,
    ) -> Result<Caller, Refusal> {
        let caller = self.caller(request).await?;
        if self.policy.check(&caller, permission).await? {
            return Ok(caller);
        }
        Err(Refusal::forbidden(what))
    }

    /// The body of a request. It comes when its sender likes, and a token that was revoked meanwhile is refused.
    pub(super) async fn body(&self, request: &mut Request, caller: &Caller, limit: usize) -> Result<Bytes, Refusal> {
        let body = request.body(limit).await?;
        self.verifier.check_revoked(caller)?;
        Ok(body)
    }

    /// As [`Self::body`], of somebody who has just been found to hold a permission, and must still hold it when the body is there.
    pub(super) async fn permitted_body(
        &self,
        request: &mut Request,
        caller: &Caller,
        permission: &Permission,
        what: &str,
        limit: usize,
    ) -> Result<Bytes, Refusal> {
        let checked_at = Instant::now();
        let body = request.body(limit).await?;
        self.check_again(caller, permission, what, checked_at).await?;
        Ok(body)
    }

    /// Refuses a caller from whom the token or this permission was taken since they were checked. Gives when they were checked last.
    pub(super) async fn check_again(
        &self,
        caller: &Caller,
        permission: &Permission,
        what: &str,
        checked_at: Instant,
    ) -> Result<Instant, Refusal> {
        self.verifier.check_revoked(caller)?;
        if checked_at.elapsed() < CHECK_LASTS {
            return Ok(checked_at);
        }
        let now = Instant::now();
        if self.policy.check(caller, permission).await? { Ok(now) } else { Err(Refusal::forbidden(what)) }
    }

    /// As [`Self::require_permission`], to read resources of a kind.
    pub(super) async fn require_read(&self, request: &Request, kind: ResourceKind) -> Result<Caller, Refusal> {
        self.require_permission(request, &Permission::read(kind), &format!("read {}", kind.as_str())).await
    }

    /// Who asks, and which kinds of resources they may read. `what` completes "Insufficient permissions to …" where they
    /// may read none.
    pub(super) async fn reader_of_any(
        &self,
        request: &Request,
        what: &str,
    ) -> Result<(Caller, Vec<ResourceKind>), Refusal> {
        let caller = self.caller(request).await?;
        let mut readable = Vec::new();
        for kind in ResourceKind::ALL {
            if self.policy.check(&caller, &Permission::read(kind)).await? {
                readable.push(kind);
            }
        }
        if readable.is_empty() { Err(Refusal::forbidden(what)) } else { Ok((caller, readable)) }
    }

    fn is_from_here(&self, request: &Request) -> bool {
        // Every browser of the last years sends one of the two with a POST.
        if request.headers().contains_key(ORIGIN) {
            return origin_allowed(request.headers(), &self.public_origins);
        }
        request.headers().get("sec-fetch-site").is_some_and(|site| site == "same-origin")
    }
}
