//! Tokens that are to be refused although their time is not over.

use std::time::Duration;

use hyper::StatusCode;
use serde_json::json;

use super::answer::{Answer, with_timeout};
use super::callers::Callers;
use super::input;
use super::request::Request;
use crate::auth::revocations::keep_until;
use crate::domain::Permission;
use crate::http::Refusal;
use crate::protocol::client::MAX_FRAME;
use crate::store::{NewRevocation, RevocationKind, Store};

/// Records revocations.
pub(super) struct RevocationApi {
    pub(super) callers: Callers,
    pub(super) store: Store,
    /// The longest lifetime of a token, where there is one.
    pub(super) longest: Option<Duration>,
}

impl RevocationApi {
    /// `POST /api/v1/admin/revocations`: within the caller's tenant only, whatever is asked.
    pub(super) async fn revoke(&self, request: &mut Request) -> Result<Answer, Refusal> {
        let (permission, what) = (Permission::revoke_tokens(), "revoke tokens");
        let caller = self.callers.require_permission(request, &permission, what).await?;
        request.no_query()?;
        let body = self.callers.permitted_body(request, &caller, &permission, what, MAX_FRAME).await?;
        let asked = input::revocation(&body)?;
        let (kind, name) = asked.subject();
        let new = NewRevocation {
            kind,
            name,
            tenant: Some(caller.tenant.as_str()),
            keep_until: asked.expires_at.or_else(|| keep_until(self.longest)),
            revoked_by: Some(caller.user.as_str()),
            reason: asked.reason.as_deref(),
        };
        let row = with_timeout(self.store.revoke_tokens(&new)).await?;
        tracing::info!(
            tenant_id = %caller.tenant, user_id = %caller.user, kind = kind.as_str(), name, "auth.token_revoked"
        );
        let field = if kind == RevocationKind::User { "user_id" } else { "jti" };
        let answer = json!({field: row.name, "tenant_id": caller.tenant, "revoked_at": row.revoked_at});
        Ok(Answer::json(StatusCode::CREATED, &answer))
    }
}
