//! [`Store`]: what the rest of the program has of SQL. Its operations are in the other files, one for each concern.

use std::sync::Arc;
use std::time::Duration;

use super::StoreError;
use super::database::{Database, file_name, is_missing_file};
use super::group_commit::GroupCommit;
use super::run_ends::RunEnds;
use super::sql::{Row, Value};
use super::tenant_cursor::TenantCursor;

/// SQL, as the rest of the program sees it; cheap to clone.
#[derive(Clone)]
pub struct Store {
    pub(super) database: Database,
    /// Commands that arrive together are committed together.
    pub(super) group_commit: Arc<GroupCommit>,
    /// So are the ends of runs.
    pub(super) run_ends: Arc<RunEnds>,
    pub(super) cursor: Arc<TenantCursor>,
    clock: Clock,
}

/// Tells this moment in Unix ms.
type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

impl Store {
    /// Connects (SQLite: creates the file where it is missing). Does not migrate.
    pub async fn open(settings: &crate::config::Database) -> Result<Self, StoreError> {
        let database = Database::open(settings).await?;
        let group_commit = Arc::new(GroupCommit::start(database.clone()));
        let run_ends = Arc::new(RunEnds::start(database.clone()));
        Ok(Self {
            database,
            group_commit,
            run_ends,
            cursor: Arc::default(),
            clock: Arc::new(|| jiff::Timestamp::now().as_millisecond()),
        })
    }

    /// The same store, going by another clock for the times of retries. Workers go by Redis's: what one has written
    /// another compares, and the clocks of their machines may be a day apart.
    pub fn by_clock(self, clock: impl Fn() -> i64 + Send + Sync + 'static) -> Self {
        Self { clock: Arc::new(clock), ..self }
    }

    pub(super) fn now_ms(&self) -> i64 {
        (self.clock)()
    }

    /// As [`Self::open`], for programs that can do nothing with a database that is missing or not migrated: they
    /// are told so, and no empty file is left behind.
    pub async fn open_migrated(settings: &crate::config::Database) -> Result<Self, StoreError> {
        if is_missing_file(settings) {
            return Err(StoreError::MissingFile(file_name(settings)));
        }
        let store = Self::open(settings).await?;
        if store.is_migrated().await? { Ok(store) } else { Err(StoreError::NotMigrated) }
    }

    /// As [`Self::open`], and makes no file where there is none.
    pub async fn open_existing(settings: &crate::config::Database) -> Result<Self, StoreError> {
        if is_missing_file(settings) { Err(StoreError::NotMigrated) } else { Self::open(settings).await }
    }

    /// A read and (SQLite) a look at the files, within the time.
    pub async fn ping(&self, within: Duration) -> Result<(), StoreError> {
        let asked = async {
            if let Database::Sqlite { files, .. } = &self.database {
                files.check_now()?;
            }
            let mut tx = self.database.read().await?;
            tx.rows("SELECT version FROM permission_version", &[]).await.map(|_| ())
        };
        let late = || StoreError::Unavailable("no answer in time".to_owned());
        match tokio::time::timeout(within, asked).await.unwrap_or_else(|_| Err(late())) {
            Ok(()) => Ok(()),
            Err(error) => Err(self.database.explain(error).await),
        }
    }

    /// Whether what a gateway writes could be written: a row of `jobs`. Writes nothing, and takes the way of a write: a
    /// standby, a read-only file system and a missing right all show. `None`: it could not be found out within the time,
    /// because others were writing.
    pub async fn prove_inserts(&self, within: Duration) -> Option<Result<(), StoreError>> {
        self.prove(
            within,
            &["INSERT INTO jobs (id, tenant_id, status) SELECT id, tenant_id, status FROM jobs WHERE 1 = 0"],
        )
        .await
    }

    /// As [`Self::prove_inserts`], for what a worker writes when it carries out a command.
    pub async fn prove_updates(&self, within: Duration) -> Option<Result<(), StoreError>> {
        let statements = [
            "UPDATE jobs SET status = status WHERE 1 = 0",
            "UPDATE campaigns SET status = status WHERE 1 = 0",
            "DELETE FROM applied_commands WHERE 1 = 0",
        ];
        self.prove(within, &statements).await
    }

    /// Up to so many rows that can be read. Those that cannot be stay where they are, and must not take the places of others.
    pub(super) async fn readable<T>(
        &self,
        limit: u32,
        text: impl Fn(u32) -> String,
        values: &[Value],
        read: impl Fn(&Row) -> Result<T, StoreError>,
    ) -> Result<Vec<T>, StoreError> {
        let mut asked = limit;
        loop {
            let found = self.database.read().await?.rows(&text(asked), values).await?;
            let mut readable: Vec<T> = found.iter().filter_map(|row| read(row).ok()).collect();
            let is_all = found.len() < usize::try_from(asked).unwrap_or(usize::MAX);
            if is_all || readable.len() >= usize::try_from(limit).unwrap_or(usize::MAX) {
                let unreadable = found.len() - readable.len();
                if let Some(Err(error)) = found.iter().map(&read).find(Result::is_err) {
                    tracing::warn!(rows = unreadable, %error, "store.unreadable_rows");
                }
                readable.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
                return Ok(readable);
            }
            asked = asked.saturating_mul(2);
        }
    }

    async fn prove(&self, within: Duration, statements: &[&str]) -> Option<Result<(), StoreError>> {
        let tried = async {
            let mut tx = self.database.write().await?;
            for statement in statements {
                tx.execute(statement, &[]).await?;
            }
            tx.rollback().await
        };
        match tokio::time::timeout(within, tried).await {
            Ok(Err(error)) if error.is_contention() => None,
            Ok(tried) => Some(tried),
            Err(_) => None,
        }
    }
}
