//! Everything that talks to SQL: SQLite (WAL, one writer) and PostgreSQL behind one type.
//!
//! One file for each concern: `jobs` (rows and lists), `commands` (what a command changes), `runs` (what a
//! worker that hosts a job writes), `permissions`, `audit`, `imports`; `sql` hides which database it is.

mod audit;
mod commands;
mod error;
mod imports;
mod jobs;
mod permissions;
mod rows;
mod runs;
mod sql;
pub mod types;

use std::borrow::Cow;
use std::time::Duration;

use sqlx::SqlSafeStr;
use sqlx::migrate::{Migrate, MigrateError, Migration, MigrationType, Migrator};

pub use error::StoreError;
pub use types::*;

use sql::Database;

/// SQL, as the rest of the program sees it; cheap to clone.
#[derive(Clone)]
pub struct Store {
    database: Database,
}

impl Store {
    /// Connects (SQLite: creates the file where it is missing). Does not migrate.
    pub async fn open(settings: &crate::config::Database) -> Result<Self, StoreError> {
        Ok(Self { database: Database::open(settings).await? })
    }

    /// Applies the migrations that are missing; several programs may do it at once. Returns how many it applied.
    pub async fn migrate(&self) -> Result<usize, StoreError> {
        let migrator = self.migrator();
        let before = self.applied().await?;
        // SQLite has no lock of its own for this: a migration that another program was applying at the same
        // time fails here, and is found applied when asked again.
        let mut tries = 0;
        loop {
            let done = match &self.database {
                Database::Sqlite { writer, .. } => migrator.run(writer).await,
                Database::Postgres { pool } => migrator.run(pool).await,
            };
            match done {
                Ok(()) => break,
                Err(
                    error @ (MigrateError::VersionMismatch(_)
                    | MigrateError::VersionMissing(_)
                    | MigrateError::Dirty(_)),
                ) => {
                    return Err(StoreError::Refused(format!(
                        "{error}: this database belongs to another version of the program"
                    )));
                }
                Err(error) if tries >= 20 => return Err(StoreError::Refused(error.to_string())),
                Err(_) => tries += 1,
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(self.applied().await?.saturating_sub(before))
    }

    /// Whether every migration has been applied.
    pub async fn is_migrated(&self) -> Result<bool, StoreError> {
        Ok(self.applied().await? >= self.migrator().iter().count())
    }

    async fn applied(&self) -> Result<usize, StoreError> {
        let refused = |e: MigrateError| StoreError::Refused(e.to_string());
        let table = "_sqlx_migrations";
        match &self.database {
            Database::Sqlite { writer, .. } => {
                let mut connection = writer.acquire().await?;
                connection.ensure_migrations_table(table).await.map_err(refused)?;
                Ok(connection.list_applied_migrations(table).await.map_err(refused)?.len())
            }
            Database::Postgres { pool } => {
                let mut connection = pool.acquire().await?;
                connection.ensure_migrations_table(table).await.map_err(refused)?;
                Ok(connection.list_applied_migrations(table).await.map_err(refused)?.len())
            }
        }
    }

    fn migrator(&self) -> Migrator {
        let first = match &self.database {
            Database::Sqlite { .. } => include_str!("../../migrations/sqlite/0001_first.sql"),
            Database::Postgres { .. } => include_str!("../../migrations/postgres/0001_first.sql"),
        };
        let migration = |version, name: &'static str, text: &'static str| {
            Migration::new(version, Cow::Borrowed(name), MigrationType::Simple, text.into_sql_str(), false)
        };
        Migrator::with_migrations(vec![migration(1, "first", first)])
    }

    /// One read, within the time.
    pub async fn ping(&self, within: Duration) -> Result<(), StoreError> {
        let asked = async {
            let mut tx = self.database.read().await?;
            tx.rows("SELECT version FROM permission_version", &[]).await.map(|_| ())
        };
        let late = || StoreError::Unavailable("no answer in time".to_owned());
        tokio::time::timeout(within, asked).await.map_err(|_| late())?
    }
}

/// Where a list goes on.
#[derive(Debug, Clone)]
pub struct Page<T> {
    /// The rows.
    pub items: Vec<T>,
    /// Pass it as `after` for the next page; `None` at the end.
    pub next: Option<String>,
}
