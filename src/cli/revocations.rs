//! `wheelhouse revoke-token`, `revoke-user`: tokens that are refused although their time is not over.

use std::process::ExitCode;

use clap::Args;

use super::out::say;
use super::usage;
use crate::auth::MAX_TOKEN_ID;
use crate::auth::revocations::keep_until;
use crate::config::Settings;
use crate::domain::{TenantId, UserId};
use crate::store::{NewRevocation, RevocationKind, Store};

/// Which token.
#[derive(Debug, Args)]
#[command(
    after_help = "Example: wheelhouse revoke-token --jti 01a22353-a34f-760b-9e0f-c6c0100e8026 --reason 'laptop stolen'"
)]
pub(super) struct RevokeTokenArgs {
    /// The token's claim jti; the audit trail has it as token_id.
    #[arg(long)]
    jti: String,
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
    if !(1..=MAX_TOKEN_ID).contains(&args.jti.chars().count()) {
        return Err(usage("--jti must have 1 to 128 characters: it is the claim jti, not the token"));
    }
    record(&settings, RevocationKind::Token, &args.jti, &args.how).await?;
    say!("Revoked the token {}: it is refused everywhere within a second", args.jti);
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
        keep_until: keep_until(settings.auth.max_token),
        revoked_by: None,
        reason: how.reason.as_deref(),
    };
    store.revoke_tokens(&revocation).await?;
    Ok(())
}
