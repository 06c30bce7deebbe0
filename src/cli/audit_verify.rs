//! `wheelhouse audit verify`: has anybody touched the audit trail?

use std::process::ExitCode;

use clap::Args;

use super::out::{self, say, tell};
use crate::config::Settings;
use crate::domain::ChainLink;
use crate::store::{AuditBreak, AuditVerified, Store, StoreError};

/// How to check.
#[derive(Debug, Args)]
#[command(
    after_help = "It prints the last row and its hash. Keep that where nobody with access to the database can change it:
with --expect it proves later that nothing up to that row was rewritten."
)]
pub(super) struct VerifyArgs {
    /// A row and its hash, as printed before: it must still be the same.
    #[arg(long, value_name = "ID:HASH")]
    expect: Option<ChainLink>,
    /// One JSON object a line for each thing that is wrong, and one for the whole.
    #[arg(long)]
    json: bool,
}

/// Neither intact nor broken: it could not be read.
const NOT_CHECKED: u8 = 3;

pub(super) async fn verify(args: VerifyArgs, settings: Settings) -> anyhow::Result<ExitCode> {
    let checked = check(&args, &settings).await;
    let verified = match checked {
        Ok(verified) => verified,
        Err(error) => {
            tell!("the audit trail could not be checked to its end: {error}");
            return Ok(ExitCode::from(NOT_CHECKED));
        }
    };
    if args.json {
        print_json(&verified)
    } else {
        print(&verified)
    }
    Ok(if verified.breaks == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn check(args: &VerifyArgs, settings: &Settings) -> Result<AuditVerified, StoreError> {
    let store = Store::open_migrated(&settings.database).await?;
    let tell = |found: AuditBreak| {
        if args.json {
            out::json(&serde_json::to_value(&found).unwrap_or_default());
        } else {
            say!("{}", found.says);
        }
    };
    store.verify_audit(args.expect.as_ref(), tell).await
}

fn print(v: &AuditVerified) {
    if let Some(pruned) = &v.pruned {
        say!("rows up to {} were removed because of their age", pruned.id);
    }
    match v.breaks {
        0 => {
            say!("intact: {} rows", v.rows);
            say!("last row {}", v.end);
        }
        1 => say!("broken: 1 thing is wrong in {} rows", v.rows),
        n => say!("broken: {n} things are wrong in {} rows", v.rows),
    }
}

fn print_json(v: &AuditVerified) {
    let whole = serde_json::json!({
        "intact": v.breaks == 0,
        "breaks": v.breaks,
        "rows": v.rows,
        "last": v.end,
        "pruned": v.pruned,
    });
    out::json(&whole);
}
