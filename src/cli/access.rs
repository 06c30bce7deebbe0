//! `wheelhouse token`, `grant`, `grants`, `revoke`: who may come in, and what they may do.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::out::{self, say, tell};
use super::usage::usage;
use crate::auth::{self, Claims, PERMISSIONS_BELIEVED, TokenTenants, WorkerClaims};
use crate::broker::Broker;
use crate::config::Settings;
use crate::domain::{TenantId, UserId, WorkerId, permission};
use crate::store::{PermissionGrant, Store};

/// What the token says.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  wheelhouse token --user ann@example.com --tenant acme --ttl 8h\n  \
    wheelhouse token --worker celery-1 --tenants acme,globex --ttl 90d\n\n\
    The token of a foreign worker is good at worker.listen alone, and a user's is not good there.")]
pub(super) struct TokenArgs {
    /// The user (claim sub).
    #[arg(long, required_unless_present = "worker", requires = "tenant")]
    user: Option<UserId>,
    /// The tenant (claim tenant_id).
    #[arg(long)]
    tenant: Option<TenantId>,
    /// The name of a foreign worker, for a token of its own (claim worker).
    #[arg(long, value_name = "NAME", conflicts_with_all = ["user", "tenant", "permissions"], requires = "tenants")]
    worker: Option<WorkerId>,
    /// The tenants whose jobs that worker may run, with commas; '*' stands for all.
    #[arg(long, value_delimiter = ',', conflicts_with = "user")]
    tenants: Option<Vec<String>>,
    /// How long it is good for: 90s, 15m, 1h, 7d. Without it a user's lives for 1h, a worker's for 90d.
    #[arg(long, value_parser = duration)]
    ttl: Option<Duration>,
    /// The claim permissions, with commas; used where auth.permissions = "token".
    #[arg(long, value_delimiter = ',')]
    permissions: Option<Vec<String>>,
}

/// How long a user's token lives where nothing else is said.
const USER_TTL: Duration = Duration::from_secs(3_600);
/// The same for a foreign worker's.
const WORKER_TTL: Duration = Duration::from_secs(90 * 86_400);

/// What is granted to whom.
#[derive(Debug, Args)]
#[command(after_help = "Example: wheelhouse grant --user ann@example.com --tenant acme jobs.read 'campaigns.*'")]
pub(super) struct GrantArgs {
    /// Print every permission and pattern that there is, and change nothing.
    #[arg(long, conflicts_with_all = ["user", "permissions"])]
    list: bool,
    /// The user.
    #[arg(long, required_unless_present = "list")]
    user: Option<UserId>,
    /// Only in this tenant; in every one where none is named.
    #[arg(long, conflicts_with = "list")]
    tenant: Option<TenantId>,
    /// One or more permissions or patterns (quote the star); `grant --list` prints them all.
    #[arg(required_unless_present = "list", value_name = "PERMISSION")]
    permissions: Vec<String>,
}

/// What is taken from whom.
#[derive(Debug, Args)]
pub(super) struct RevokeArgs {
    /// The user.
    #[arg(long)]
    user: UserId,
    /// Only what was granted in this tenant; else everywhere, also what was granted in single tenants.
    #[arg(long)]
    tenant: Option<TenantId>,
    /// One or more permissions or patterns, as `wheelhouse grants` prints them (quote the star).
    #[arg(required = true, value_name = "PERMISSION")]
    permissions: Vec<String>,
}

/// Whose permissions are listed.
#[derive(Debug, Args)]
pub(super) struct GrantsArgs {
    /// Only this user's.
    #[arg(long)]
    user: Option<UserId>,
    /// One JSON object a line, for scripts.
    #[arg(long)]
    json: bool,
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
    if let Some(worker) = &args.worker {
        return worker_token(worker, args, settings);
    }
    known_only(args.permissions.iter().flatten())?;
    let (Some(user), Some(tenant)) = (args.user.clone(), args.tenant.clone()) else {
        return Err(usage("name a --user and a --tenant, or a --worker and its --tenants"));
    };
    let claims = Claims { user, tenant, ttl: args.ttl.unwrap_or(USER_TTL), permissions: args.permissions.clone() };
    say!("{}", auth::sign(&settings.auth, &claims)?);
    Ok(ExitCode::SUCCESS)
}

fn worker_token(worker: &WorkerId, args: &TokenArgs, settings: &Settings) -> anyhow::Result<ExitCode> {
    let words = args.tenants.iter().flatten().map(|word| word.trim());
    let tenants = TokenTenants::parse(words).map_err(|error| usage(format!("--tenants: {error}")))?;
    let (ttl, longest) = (args.ttl.unwrap_or(WORKER_TTL), settings.worker.max_token);
    if ttl > longest {
        let days = longest.as_secs() / 86_400;
        return Err(usage(format!("--ttl: a worker's token may live for {days} days at most (worker.max_token_days)")));
    }
    let (token, jti) = auth::sign_worker(&settings.auth, &WorkerClaims { worker: worker.clone(), tenants, ttl })?;
    say!("{token}");
    tell!("to revoke it before its time: wheelhouse revoke-token --jti {jti}");
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn grant(
    args: GrantArgs,
    settings: impl FnOnce() -> anyhow::Result<Settings>,
) -> anyhow::Result<ExitCode> {
    let Some(user) = args.user.filter(|_| !args.list) else {
        for permission in permission::known_permissions() {
            say!("{permission}");
        }
        return Ok(ExitCode::SUCCESS);
    };
    known_only(&args.permissions)?;
    let (store, broker) = open(&settings()?).await?;
    let version = store.grant_in(args.tenant.as_ref(), &user, &args.permissions).await?;
    invalidate(&broker, &user, version).await?;
    say!("Granted to {user}{}: {}", within(args.tenant.as_ref()), args.permissions.join(", "));
    Ok(ExitCode::SUCCESS)
}

/// Also what is not known here: an older version may have granted it.
pub(super) async fn revoke(args: RevokeArgs, settings: Settings) -> anyhow::Result<ExitCode> {
    if let Some(odd) = args.permissions.iter().find(|p| !permission::is_well_formed(p)) {
        return Err(usage(format!(
            "{odd:?} is no permission: `wheelhouse grants --user {}` prints what is held",
            args.user
        )));
    }
    let (store, broker) = open(&settings).await?;
    let version = match &args.tenant {
        Some(tenant) => store.revoke_in(tenant, &args.user, &args.permissions).await?,
        None => store.revoke(&args.user, &args.permissions).await?,
    };
    invalidate(&broker, &args.user, version).await?;
    say!("Revoked from {}{}: {}", args.user, within(args.tenant.as_ref()), args.permissions.join(", "));
    for PermissionGrant { permission, tenant, role, .. } in store.grants(Some(&args.user)).await? {
        let asked = args.tenant.as_ref().map(TenantId::as_str);
        let is_held = asked.is_none() || tenant.is_none() || tenant.as_deref() == asked;
        if is_held && args.permissions.contains(&permission) {
            let by = role.map_or_else(|| "granted in every tenant".to_owned(), |role| format!("by role {role}"));
            tell!("{} still holds {permission}, {by}", args.user);
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn grants(args: GrantsArgs, settings: Settings) -> anyhow::Result<ExitCode> {
    let store = Store::open_migrated(&settings.database).await?;
    let granted = store.grants(args.user.as_ref()).await?;
    if args.json {
        for PermissionGrant { user, permission, tenant, role } in granted {
            out::json(&json!({ "user_id": user, "permission": permission, "tenant_id": tenant, "role": role }));
        }
        return Ok(ExitCode::SUCCESS);
    }
    if granted.is_empty() {
        tell!("nobody asked for holds any permission");
    }
    let known = permission::known_permissions();
    for PermissionGrant { user, permission, tenant, role } in granted {
        let place = tenant.map(|tenant| format!("  in tenant {tenant}")).unwrap_or_default();
        let by = role.map(|role| format!("  by role {role}")).unwrap_or_default();
        let odd = match (known.contains(&permission), user.parse::<UserId>()) {
            (false, _) => "  (unknown: it grants nothing)",
            (true, Err(_)) => "  (nobody can have this user id: it grants nothing)",
            (true, Ok(_)) => "",
        };
        say!("{user}  {permission}{place}{by}{odd}");
    }
    Ok(ExitCode::SUCCESS)
}

fn within(tenant: Option<&TenantId>) -> String {
    tenant.map(|tenant| format!(" in tenant {tenant}")).unwrap_or_default()
}

/// A misspelt permission would be kept, and would allow nothing.
fn known_only<'a>(permissions: impl IntoIterator<Item = &'a String>) -> anyhow::Result<()> {
    let known = permission::known_permissions();
    match permissions.into_iter().find(|permission| !known.contains(permission)) {
        Some(odd) => Err(usage(format!("{odd:?} is no permission; there are {}", known.join(", ")))),
        None => Ok(()),
    }
}

async fn open(settings: &Settings) -> anyhow::Result<(Store, Broker)> {
    Ok((Store::open_migrated(&settings.database).await?, Broker::connect(&settings.redis).await?))
}

/// Before returning: from here on no gateway believes what it read earlier. Where a server of Redis could not be told, that
/// is so because what was read has expired meanwhile.
async fn invalidate(broker: &Broker, user: &UserId, version: i64) -> anyhow::Result<()> {
    let not_told = broker.invalidate_permissions(user, version).await?;
    if !not_told.is_empty() {
        let names: Vec<String> = not_told.iter().map(ToString::to_string).collect();
        let seconds = PERMISSIONS_BELIEVED.as_secs();
        tell!(
            "the Redis of {} is away: waiting {seconds} s, until nothing cached there is believed any more",
            names.join(", ")
        );
        tokio::time::sleep(PERMISSIONS_BELIEVED).await;
    }
    Ok(())
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
