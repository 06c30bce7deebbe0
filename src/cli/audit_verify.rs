//! `wheelhouse audit verify`: has anybody touched the audit trail?

use std::process::ExitCode;

use clap::Args;

use super::out::{self, say, tell};
use crate::config::Settings;
use crate::domain::ChainLink;
use crate::store::{AuditBreak, AuditVerified, Pruning, Store, StoreError};

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
        say!("{} rows, up to row {}, were removed because of their age", v.pruned_rows, pruned.id);
        match &v.last_pruning {
            Some(last) => say!("{}", last_removal(last)),
            None => say!("  when and by whom is not on record"),
        }
        if v.last_pruning.is_some() && v.recorded_rows < v.pruned_rows {
            say!("  of {} of them it is not on record when and by whom", v.pruned_rows - v.recorded_rows);
        }
    }
    match v.breaks {
        0 => {
            say!("intact: {} rows", v.rows);
            say!("last row {}", v.end);
        }
        1 => say!("broken: 1 thing is wrong in {} rows", v.rows),
        n => say!("broken: {n} things are wrong in {} rows", v.rows),
    }
    if let Some((id, time)) = &v.oldest {
        say!("the oldest row that is kept is row {id} of {time}");
    }
}

fn last_removal(last: &Pruning) -> String {
    format!(
        "  last rows {} to {}, of {} to {} and so older than {}: by worker {} when its clock said {} and Redis's {}",
        last.first_id,
        last.last_id,
        last.oldest,
        last.newest,
        last.older_than,
        last.worker_id,
        last.worker_clock,
        last.redis_clock
    )
}

fn print_json(v: &AuditVerified) {
    let whole = serde_json::json!({
        "intact": v.breaks == 0,
        "breaks": v.breaks,
        "rows": v.rows,
        "last": v.end,
        "pruned": v.pruned,
        "pruned_rows": v.pruned_rows,
        "recorded_rows": v.recorded_rows,
        "last_pruning": v.last_pruning,
        "oldest": v.oldest.as_ref().map(|(id, at)| serde_json::json!({"id": id, "at": at})),
    });
    out::json(&whole);
}
