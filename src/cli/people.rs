//! `wheelhouse token`, `grant`, `revoke`: who may come in, and what they may do.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::usage;
use crate::auth::{self, Claims};
use crate::broker::Broker;
use crate::config::Settings;
use crate::domain::permission::is_grantable;
use crate::domain::{TenantId, UserId};
use crate::store::Store;

/// What the token says.
#[derive(Debug, Args)]
#[command(after_help = "Example: wheelhouse token --user ann@example.com --tenant acme --ttl 8h")]
pub(super) struct TokenArgs {
    /// The user (claim sub).
    #[arg(long)]
    user: UserId,
    /// The tenant (claim tenant_id).
    #[arg(long)]
    tenant: TenantId,
    /// How long it is good for: 90s, 15m, 1h, 7d.
    #[arg(long, default_value = "1h", value_parser = duration)]
    ttl: Duration,
    /// The claim permissions, with commas; used where auth.permissions = "token".
    #[arg(long, value_delimiter = ',')]
    permissions: Option<Vec<String>>,
}

/// Whose permissions.
#[derive(Debug, Args)]
#[command(
    after_help = "Permissions: jobs.read, jobs.create, jobs.cancel, jobs.pause, jobs.resume, campaigns.…, audit.read, or patterns: 'jobs.*', '*'"
)]
pub(super) struct PermissionArgs {
    /// The user.
    #[arg(long)]
    user: UserId,
    /// One or more permissions or patterns (quote the star).
    #[arg(required = true, value_name = "PERMISSION")]
    permissions: Vec<String>,
}

/// `90s`, `15m`, `1h`, `7d`; a bare number is seconds.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().map_err(|_| "write a number and s, m, h or d, like 15m".to_owned())?;
    let unit = match &text[digits.len()..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        other => return Err(format!("unknown unit {other:?}: use s, m, h or d")),
    };
    match number.checked_mul(unit) {
        Some(seconds @ 1..=315_360_000) => Ok(Duration::from_secs(seconds)),
        _ => Err("it must be between a second and ten years".to_owned()),
    }
}

pub(super) fn token(args: &TokenArgs, settings: &Settings) -> anyhow::Result<ExitCode> {
    let claims = Claims {
        user: args.user.clone(),
        tenant: args.tenant.clone(),
        ttl: args.ttl,
        permissions: args.permissions.clone(),
    };
    println!("{}", auth::sign(&settings.auth, &claims)?);
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn grant(args: PermissionArgs, settings: Settings) -> anyhow::Result<ExitCode> {
    change(args, settings, true).await
}

pub(super) async fn revoke(args: PermissionArgs, settings: Settings) -> anyhow::Result<ExitCode> {
    change(args, settings, false).await
}

async fn change(args: PermissionArgs, settings: Settings, grant: bool) -> anyhow::Result<ExitCode> {
    if let Some(odd) = args.permissions.iter().find(|p| !is_grantable(p)) {
        return Err(usage(format!(
            "{odd:?} is no permission: write area.verb like jobs.cancel, a pattern like 'jobs.*', or '*'"
        )));
    }
    let (store, broker) = (Store::open_migrated(&settings.database).await?, Broker::connect(&settings.redis).await?);
    let version = if grant {
        store.grant(&args.user, &args.permissions).await?
    } else {
        store.revoke(&args.user, &args.permissions).await?
    };
    // Before returning: from here on no gateway believes what it read earlier.
    broker.invalidate_permissions(&args.user, version).await?;
    let done = if grant { "Granted to" } else { "Revoked from" };
    println!("{done} {}: {}", args.user, args.permissions.join(", "));
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, seconds) in [("90", 90), ("90s", 90), ("15m", 900), ("1h", 3_600), ("7d", 604_800)] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)));
        }
        for bad in ["", "h", "1w", "0", "-1h", "99999999999999999999d", "9999999d", "1.5h"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
