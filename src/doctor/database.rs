//! What the database is like: whether it is migrated, and what this program's user may do.

use super::finding::{Finding, Program};
use super::redis::clock;
use crate::config::Settings;
use crate::store::diagnosis::PostgresReport;
use crate::store::{QuarantinedRows, Store, StoreError};

/// Rows that were taken out of the way within the last so many ms.
const QUARANTINED_WITHIN: i64 = 24 * 3_600_000;
const ROLES_LINE: &str = "psql -v ON_ERROR_STOP=1 -d DATABASE -f deploy/postgres/roles.sql";

/// Asks the database. A SQLite file that is missing is not made.
pub async fn check(settings: &Settings, program: Program) -> Vec<Finding> {
    match look(settings, program).await {
        Ok(findings) => findings,
        Err(StoreError::NotMigrated) => vec![not_migrated()],
        Err(error) => vec![Finding::error(
            "database.connection",
            error.to_string(),
            "start the database, or say where it is: database.url = \"postgres://USER:PASSWORD@HOST/NAME\"",
        )],
    }
}

async fn look(settings: &Settings, program: Program) -> Result<Vec<Finding>, StoreError> {
    // Whether it is there at all. A file that this would make says nothing.
    let store = Store::open_existing(&settings.database).await?;
    let mut findings = vec![Finding::ok("database.connection", "connected")];
    let is_migrated = store.is_migrated().await;
    let is_readable = matches!(is_migrated, Ok(true));
    findings.push(match is_migrated {
        Ok(true) if !store.is_upgrade_finished().await? => Finding::warning(
            "database.migrations",
            "tables and indexes that only programs of the version before need are still there: each job costs more to store",
            "when every gateway and worker runs this version: wheelhouse migrate --finish",
        ),
        Ok(true) => Finding::ok("database.migrations", "all migrations have been applied"),
        Ok(false) => not_migrated(),
        Err(error) => Finding::error("database.migrations", error.to_string(), ROLES_LINE),
    });
    if let Some(report) = store.diagnose(program.as_str()).await? {
        findings.extend(of_postgres(&report, program));
    }
    if is_readable {
        let since = jiff::Timestamp::now().as_millisecond() - QUARANTINED_WITHIN;
        findings.push(quarantined(store.quarantined_since(since).await));
    }
    Ok(findings)
}

fn quarantined(found: Result<QuarantinedRows, StoreError>) -> Finding {
    let check = "database.quarantined_rows";
    let found = match found {
        Ok(found) => found,
        Err(error) => {
            return Finding::warning(check, format!("jobs that ended cannot be looked at: {error}"), ROLES_LINE);
        }
    };
    let among = if found.is_partial { "among the jobs that ended last" } else { "within a day" };
    let Some(newest) = found.newest else {
        return Finding::ok(check, format!("no row of jobs was found that cannot be read, {among}"));
    };
    let (count, tenant, id, why) = (found.count, newest.tenant, newest.id, newest.why);
    let rows = if count == 1 { "row of jobs has" } else { "rows of jobs have" };
    Finding::warning(
        check,
        format!(
            "{count} {rows} failed because no worker can read or run what plain SQL has written, {among}; the newest, with the tenant \
             {tenant:?} and the id {id:?}: {why}"
        ),
        format!(
            "correct the program that writes them, and have it write these jobs again; all of them: {}",
            found.select
        ),
    )
}

fn not_migrated() -> Finding {
    Finding::error("database.migrations", "the database has not been migrated", "wheelhouse migrate")
}

fn of_postgres(report: &PostgresReport, program: Program) -> Vec<Finding> {
    let (user, program) = (&report.user, program.as_str());
    let mut findings = vec![clock("database.clock", "PostgreSQL", report.clock_ahead_ms)];
    findings.push(match report.missing.as_slice() {
        [] => Finding::ok("database.rights", format!("{user} may do what a {program} does")),
        [first, ..] => Finding::error(
            "database.rights",
            format!("{user} lacks rights that a {program} needs: {}", report.missing.join(", ")),
            format!("{ROLES_LINE}, or GRANT {first} TO {user}"),
        ),
    });
    findings.push(if report.is_superuser {
        let message = format!("{user} is a superuser, and a {program} needs no more than rights on tables");
        Finding::warning("database.needless_rights", message, role_line(program))
    } else if report.may_change_audit {
        let message =
            format!("{user} may change or remove rows of command_audit, which a {program} only reads or adds to");
        Finding::warning("database.needless_rights", message, role_line(program))
    } else {
        Finding::ok("database.needless_rights", format!("{user} cannot change the audit trail"))
    });
    findings
}

fn role_line(program: &str) -> String {
    format!("{ROLES_LINE}, and database.url = \"postgres://wheelhouse_{program}:…\"")
}
