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
    (36, "former_indexes", texts!("0036_former_indexes")),
    (37, "ends", texts!("0037_ends")),
    (38, "numbers_in_range", texts!("0038_numbers_in_range")),
    (39, "counters_in_range", texts!("0039_counters_in_range")),
];
/// Those that take away what programs of the version before need. A new database has them at once, every other one when somebody
/// says that no such program runs any more.
const FINISHING: &[i64] = &[36];

impl Store {
    /// Applies the migrations that are missing; several programs may do it at once. Returns how many it applied. Programs of the
    /// version before go on meanwhile and afterwards.
    pub async fn migrate(&self) -> Result<usize, StoreError> {
        self.apply_migrations(false).await
    }

    /// The same, and takes away what only programs of the version before need: none of them may run any more.
    pub async fn finish_upgrade(&self) -> Result<usize, StoreError> {
        self.apply_migrations(true).await
    }

    async fn apply_migrations(&self, finish: bool) -> Result<usize, StoreError> {
        // One transaction that begins with a lock: all of it or nothing, and whoever comes second finds it done.
        // (sqlx's own lock is none on SQLite, and both databases can change tables inside a transaction.)
        match &self.database {
            Database::Sqlite { writer, .. } => {
                let mut tx = writer.begin_with("BEGIN IMMEDIATE").await?;
                let done = self.apply_missing(&mut *tx, finish).await?;
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
                let done = self.apply_missing(&mut *tx, finish).await?;
                tx.commit().await?;
                Ok(done)
            }
        }
    }

    /// Whether every migration that this version needs has been applied. Only reads.
    pub async fn is_migrated(&self) -> Result<bool, StoreError> {
        self.has_applied(|version| !FINISHING.contains(&version)).await
    }

    /// Whether nothing is left that only programs of the version before need. Only reads.
    pub async fn is_upgrade_finished(&self) -> Result<bool, StoreError> {
        self.has_applied(|version| FINISHING.contains(&version)).await
    }

    async fn has_applied(&self, which: impl Fn(i64) -> bool) -> Result<bool, StoreError> {
        let exists = match &self.database {
            Database::Sqlite { .. } => "SELECT COUNT(*) AS n FROM sqlite_master WHERE name = $1",
            Database::Postgres { .. } => "SELECT CASE WHEN to_regclass($1) IS NULL THEN 0::BIGINT ELSE 1 END AS n",
        };
        let mut database = self.database.read().await?;
        let found = database.row(exists, &[TABLE.into()]).await?;
        if found.map_or(Ok(None), |row| row.int("n"))?.unwrap_or(0) == 0 {
            return Ok(false);
        }
        let rows = database.rows(&format!("SELECT version AS n FROM {TABLE}"), &[]).await?;
        let applied = rows.iter().map(|row| row.int("n")).collect::<Result<Vec<_>, _>>()?;
        Ok(MIGRATIONS
            .iter()
            .filter(|(version, ..)| which(*version))
            .all(|(version, ..)| applied.contains(&Some(*version))))
    }

    async fn apply_missing<C: Migrate>(&self, connection: &mut C, finish: bool) -> Result<usize, StoreError> {
        connection.ensure_migrations_table(TABLE).await.map_err(refused)?;
        let before = connection.list_applied_migrations(TABLE).await.map_err(refused)?;
        let all = finish || before.is_empty();
        let is_wanted = |version: i64| {
            all || !FINISHING.contains(&version) || before.iter().any(|applied| applied.version == version)
        };
        let migrator = self.migrator(is_wanted);
        migrator.run_direct(None, connection, false).await.map_err(refused)?;
        let after = connection.list_applied_migrations(TABLE).await.map_err(refused)?.len();
        Ok(after.saturating_sub(before.len()))
    }

    fn migrator(&self, is_wanted: impl Fn(i64) -> bool) -> Migrator {
        let which = match &self.database {
            Database::Sqlite { .. } => 0,
            Database::Postgres { .. } => 1,
        };
        let migrations = MIGRATIONS.iter().filter(|(version, ..)| is_wanted(*version)).map(|(version, name, texts)| {
            let text = texts[which].into_sql_str();
            Migration::new(*version, Cow::Borrowed(*name), MigrationType::Simple, text, false)
        });
        let mut migrator = Migrator::with_migrations(migrations.collect());
        migrator.set_locking(false);
        migrator
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    /// A database that was made by a version from before what `FINISHING` takes away.
    async fn former_database(folder: &std::path::Path) -> Store {
        let url = format!("sqlite://{}", folder.join("former.db").display());
        let store = Store::open(&config::Database { url: url.into(), connections: 2 }).await.expect("open");
        let Database::Sqlite { writer, .. } = &store.database else { unreachable!("it is SQLite") };
        let mut tx = writer.begin_with("BEGIN IMMEDIATE").await.expect("begin");
        tx.ensure_migrations_table(TABLE).await.expect("table");
        let first = FINISHING.iter().min().copied().unwrap_or(i64::MAX) - 1;
        store.migrator(|version| version < first).run_direct(None, &mut *tx, false).await.expect("the version before");
        tx.commit().await.expect("commit");
        store
    }

    /// As the version before looks into the queue.
    async fn looks_into_the_queue(store: &Store) -> Result<(), StoreError> {
        let text =
            "SELECT rowid FROM jobs INDEXED BY jobs_queue WHERE origin = 'queued' AND status = 'pending' AND run >= 0";
        store.database.read().await?.rows(text, &[]).await.map(drop)
    }

    #[tokio::test]
    async fn what_programs_of_the_version_before_need_stays_until_the_upgrade_is_finished() {
        let folder = tempfile::tempdir().expect("folder");
        let store = former_database(folder.path()).await;
        assert!(!store.is_migrated().await.expect("asked"), "this version needs more");
        store.migrate().await.expect("migrate");
        assert!(store.is_migrated().await.expect("asked"));
        assert!(!store.is_upgrade_finished().await.expect("asked"));
        looks_into_the_queue(&store).await.expect("the version before goes on");
        assert_eq!(store.migrate().await.expect("again"), 0);
        assert_eq!(store.finish_upgrade().await.expect("finish"), FINISHING.len());
        assert!(store.is_upgrade_finished().await.expect("asked"));
        looks_into_the_queue(&store).await.expect_err("it is gone");
        assert_eq!(store.migrate().await.expect("after that"), 0);
    }

    #[tokio::test]
    async fn a_new_database_has_nothing_that_only_the_version_before_needs() {
        let folder = tempfile::tempdir().expect("folder");
        let url = format!("sqlite://{}", folder.path().join("new.db").display());
        let store = Store::open(&config::Database { url: url.into(), connections: 2 }).await.expect("open");
        assert_eq!(store.migrate().await.expect("migrate"), MIGRATIONS.len());
        assert!(store.is_upgrade_finished().await.expect("asked"));
    }
}
