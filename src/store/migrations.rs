//! The schema: what `migrations/` holds, applied once however many programs start together.

use std::borrow::Cow;

use sqlx::migrate::{Migrate, MigrateError, Migration, MigrationType, Migrator};
use sqlx::{Connection, SqlSafeStr};

use super::database::Database;
use super::{Store, StoreError};

/// Where sqlx writes which migrations have been applied.
const TABLE: &str = "_sqlx_migrations";
/// PostgreSQL's lock for it: an arbitrary number that no other program is likely to use.
const LOCK: &str = "SELECT pg_advisory_xact_lock(7748390125561)";

macro_rules! texts {
    ($file:literal) => {
        [
            include_str!(concat!("../../migrations/sqlite/", $file, ".sql")),
            include_str!(concat!("../../migrations/postgres/", $file, ".sql")),
        ]
    };
}

/// In their order, for SQLite and PostgreSQL: the number by which a database remembers each, its name, its texts.
const MIGRATIONS: &[(i64, &str, [&str; 2])] = &[
    (1, "first", texts!("0001_first")),
    (2, "jobs", texts!("0002_jobs")),
    (3, "audit", texts!("0003_audit")),
    (4, "unended", texts!("0004_unended")),
    (5, "lean", texts!("0005_lean")),
    (6, "jobs_kept", texts!("0006_jobs")),
    (7, "leaving", texts!("0007_leaving")),
    (8, "control", texts!("0008_control")),
    (11, "prunings", texts!("0011_prunings")),
    (12, "revocations", texts!("0012_revocations")),
    (13, "remote", texts!("0013_remote")),
    (15, "least_privilege", texts!("0015_least_privilege")),
    (17, "tenant_rights", texts!("0017_tenant_rights")),
    (18, "failover", texts!("0018_failover")),
    (20, "refusals", texts!("0020_refusals")),
    (21, "lists", texts!("0021_lists")),
    (22, "output", texts!("0022_output")),
    (23, "timeouts", texts!("0023_timeouts")),
    (25, "counts", texts!("0025_counts")),
    (26, "bulk", texts!("0026_bulk")),
    (29, "audit_by_command", texts!("0029_audit_by_command")),
    (33, "repeated", texts!("0033_repeated")),
    (34, "audit_lookups", texts!("0034_audit_lookups")),
    (35, "cheaper_rows", texts!("0035_cheaper_rows")),
    (37, "ends", texts!("0037_ends")),
];

impl Store {
    /// Applies the migrations that are missing; several programs may do it at once. Returns how many it applied.
    pub async fn migrate(&self) -> Result<usize, StoreError> {
        // One transaction that begins with a lock: all of it or nothing, and whoever comes second finds it done.
        // (sqlx's own lock is none on SQLite, and both databases can change tables inside a transaction.)
        let migrator = self.migrator();
        match &self.database {
            Database::Sqlite { writer, .. } => {
                let mut tx = writer.begin_with("BEGIN IMMEDIATE").await?;
                let done = missing(&migrator, &mut *tx).await?;
                tx.commit().await?;
                Ok(done)
            }
            Database::Postgres { pool, .. } => {
                let mut connection = pool.acquire().await?;
                let mut tx = connection.begin().await?;
                // A change of a large table may take long, and the other program's has to be waited for.
                for text in ["SET LOCAL statement_timeout = 0", "SET LOCAL lock_timeout = 0", LOCK] {
                    sqlx::query(text).execute(&mut *tx).await?;
                }
                let done = missing(&migrator, &mut *tx).await?;
                tx.commit().await?;
                Ok(done)
            }
        }
    }

    /// Whether every migration has been applied. Only reads.
    pub async fn is_migrated(&self) -> Result<bool, StoreError> {
        let exists = match &self.database {
            Database::Sqlite { .. } => "SELECT COUNT(*) AS n FROM sqlite_master WHERE name = $1",
            Database::Postgres { .. } => "SELECT CASE WHEN to_regclass($1) IS NULL THEN 0::BIGINT ELSE 1 END AS n",
        };
        let count = async |text: &str, values: &[super::sql::Value]| {
            let row = self.database.read().await?.row(text, values).await?;
            row.map_or(Ok(0), |row| Ok::<_, StoreError>(row.int("n")?.unwrap_or(0)))
        };
        if count(exists, &[TABLE.into()]).await? == 0 {
            return Ok(false);
        }
        let applied = count(&format!("SELECT COUNT(*) AS n FROM {TABLE}"), &[]).await?;
        Ok(usize::try_from(applied).unwrap_or(0) >= self.migrator().iter().count())
    }

    fn migrator(&self) -> Migrator {
        let which = match &self.database {
            Database::Sqlite { .. } => 0,
            Database::Postgres { .. } => 1,
        };
        let migrations = MIGRATIONS.iter().map(|(version, name, texts)| {
            let text = texts[which].into_sql_str();
            Migration::new(*version, Cow::Borrowed(*name), MigrationType::Simple, text, false)
        });
        let mut migrator = Migrator::with_migrations(migrations.collect());
        migrator.set_locking(false);
        migrator
    }
}

/// Applies what is missing; how many that were.
async fn missing<C: Migrate>(migrator: &Migrator, connection: &mut C) -> Result<usize, StoreError> {
    connection.ensure_migrations_table(TABLE).await.map_err(refused)?;
    let before = connection.list_applied_migrations(TABLE).await.map_err(refused)?.len();
    migrator.run_direct(None, connection, false).await.map_err(refused)?;
    Ok(connection.list_applied_migrations(TABLE).await.map_err(refused)?.len().saturating_sub(before))
}

fn refused(error: MigrateError) -> StoreError {
    match error {
        MigrateError::Execute(inner) | MigrateError::ExecuteMigration(inner, _) => inner.into(),
        MigrateError::VersionMismatch(_) | MigrateError::VersionMissing(_) | MigrateError::Dirty(_) => {
            StoreError::Refused(format!("{error}: this database belongs to another version of the program"))
        }
        other => StoreError::Refused(other.to_string()),
    }
}
