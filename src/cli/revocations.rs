//! `wheelhouse revoke-token`, `revoke-user`: tokens that are refused although their time is not over.

use std::process::ExitCode;

use clap::Args;

use super::out::say;
use super::usage;
use crate::auth::revocations::keep_until;
use crate::auth::{TOKEN_ID_FORM, is_token_id};
use crate::config::Settings;
use crate::domain::{TenantId, UserId, WorkerId};
use crate::store::{NewRevocation, RevocationKind, Store};

/// Which token.
#[derive(Debug, Args)]
#[command(
    after_help = "Example: wheelhouse revoke-token --jti 01a22353-a34f-760b-9e0f-c6c0100e8026 --reason 'laptop stolen'"
)]
pub(super) struct RevokeTokenArgs {
    /// The token's claim jti; the audit trail has it as token_id.
    #[arg(long, required_unless_present = "worker")]
    jti: Option<String>,
    /// Every token of this foreign worker that was issued up to now; its sockets are closed.
    #[arg(long, value_name = "NAME", conflicts_with = "jti")]
    worker: Option<WorkerId>,
    #[command(flatten)]
    how: How,
}

/// Whose tokens.
#[derive(Debug, Args)]
#[command(after_help = "Example: wheelhouse revoke-user ann@example.com --reason 'left the company'\n\n\
    Tokens that are issued later are good: take the user's permissions as well (wheelhouse revoke), or close the account \
    at the issuer, where nothing more is wanted.")]
pub(super) struct RevokeUserArgs {
    /// The user.
    user: UserId,
    #[command(flatten)]
    how: How,
}

#[derive(Debug, Args)]
struct How {
    /// Only tokens for this tenant; those for every tenant where none is named.
    #[arg(long)]
    tenant: Option<TenantId>,
    /// Why, for people who read the table revoked_tokens.
    #[arg(long)]
    reason: Option<String>,
}

pub(super) async fn revoke_token(args: RevokeTokenArgs, settings: Settings) -> anyhow::Result<ExitCode> {
    if let Some(worker) = &args.worker {
        if args.how.tenant.is_some() {
            return Err(usage("--tenant does not go with --worker: a worker's token is good for several tenants"));
        }
        record(&settings, RevocationKind::Worker, worker.as_str(), &args.how).await?;
        say!(
            "Revoked every token of the worker {worker} issued up to now: they are refused everywhere within a second"
        );
        return Ok(ExitCode::SUCCESS);
    }
    let jti = args.jti.unwrap_or_default();
    if !is_token_id(&jti) {
        return Err(usage(format!("--jti must have {TOKEN_ID_FORM}: it is the claim jti, not the token")));
    }
    record(&settings, RevocationKind::Token, &jti, &args.how).await?;
    say!("Revoked the token {jti}: it is refused everywhere within a second");
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn revoke_user(args: RevokeUserArgs, settings: Settings) -> anyhow::Result<ExitCode> {
    record(&settings, RevocationKind::User, args.user.as_str(), &args.how).await?;
    say!("Revoked every token of {} issued up to now: they are refused everywhere within a second", args.user);
    Ok(ExitCode::SUCCESS)
}

async fn record(settings: &Settings, kind: RevocationKind, name: &str, how: &How) -> anyhow::Result<()> {
    let store = Store::open_migrated(&settings.database).await?;
    let revocation = NewRevocation {
        kind,
        name,
        tenant: how.tenant.as_ref().map(TenantId::as_str),
        // A token that is named by its jti may be a foreign worker's, which live longer than users'.
        keep_until: keep_until(match kind {
            RevocationKind::User => settings.auth.max_token,
            RevocationKind::Worker => Some(settings.worker.max_token),
            RevocationKind::Token => settings.auth.max_token.map(|longest| longest.max(settings.worker.max_token)),
        }),
        revoked_by: None,
        reason: how.reason.as_deref(),
    };
    store.revoke_tokens(&revocation).await?;
    Ok(())
}
