//! Everything that talks to SQL: SQLite (WAL, one writer) and PostgreSQL behind one type.
//!
//! One file for each concern: `jobs` and `campaigns` (rows and lists), `selection` (which of many are there, or fit), `commands` (what a command changes) and `batch` (many of
//! them to a transaction), `queue` (which job a worker gets), `runs` (what a worker that hosts a job writes),
//! `announcements` (status messages that are owed), `failed_items`, `upkeep` (what one worker does for all), `permissions`, `audit`, `imports`, `migrations`, `rehearsal`
//! (rows for `wheelhouse bench`); `database` connects, `turn` orders SQLite's writers, and `sql` hides which database it is.

pub mod announcements;
pub mod audit;
mod batch;
mod campaigns;
mod commands;
mod database;
mod error;
mod failed_items;
mod files;
mod imports;
mod jobs;
mod migrations;
mod permissions;
mod queue;
mod rehearsal;
mod rows;
mod runs;
mod selection;
mod sql;
mod turn;
pub mod types;
mod upkeep;

use std::sync::Arc;
use std::time::Duration;

pub use announcements::{About, Announcement};
pub use campaigns::Closed;
pub use error::StoreError;
pub use failed_items::FAILED_ITEMS_KEPT;
pub use permissions::Granted;
pub use types::*;
pub use upkeep::Upkeep;

use batch::Batch;
use database::Database;

/// SQL, as the rest of the program sees it; cheap to clone.
#[derive(Clone)]
pub struct Store {
    database: Database,
    /// Commands that arrive together are committed together.
    batch: Arc<Batch>,
    turn: Arc<queue::Turn>,
}

impl Store {
    /// Connects (SQLite: creates the file where it is missing). Does not migrate.
    pub async fn open(settings: &crate::config::Database) -> Result<Self, StoreError> {
        let database = Database::open(settings).await?;
        let batch = Arc::new(Batch::start(database.clone()));
        Ok(Self { database, batch, turn: Arc::default() })
    }

    /// As [`Self::open`], for programs that can do nothing with a database that is missing or not migrated: they
    /// are told so, and no empty file is left behind.
    pub async fn open_migrated(settings: &crate::config::Database) -> Result<Self, StoreError> {
        if database::is_missing_file(settings) {
            return Err(StoreError::NotMigrated);
        }
        let store = Self::open(settings).await?;
        if store.is_migrated().await? { Ok(store) } else { Err(StoreError::NotMigrated) }
    }

    /// A read and (SQLite) a look at the files, within the time.
    pub async fn ping(&self, within: Duration) -> Result<(), StoreError> {
        let asked = async {
            if let Database::Sqlite { files, .. } = &self.database {
                files.look()?;
            }
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
