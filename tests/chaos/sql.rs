//! The database from outside: plain SQL, a log of what changes in it, and its faults.

use sqlx::postgres::{PgPool, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool, SqlitePoolOptions};
use sqlx::{AssertSqlSafe, Postgres, Row, Sqlite, Transaction};
use std::path::Path;
use std::time::Duration;

pub enum Sql {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

/// While it is there nobody else can write.
pub enum Lock {
    Sqlite(Transaction<'static, Sqlite>),
    Postgres(Transaction<'static, Postgres>),
}

/// Every change of a status, and every command that is applied, in the order of the commits: SQLite has one writer,
/// and in PostgreSQL whoever changes a resource holds its row until the commit. A row without a record is of a command that
/// has ended without being applied.
const SQLITE_LOG: &str = "
CREATE TABLE chaos_effects (n INTEGER PRIMARY KEY AUTOINCREMENT, at TEXT NOT NULL, resource TEXT, status TEXT, command TEXT);
CREATE TRIGGER chaos_jobs AFTER UPDATE ON jobs WHEN NEW.status <> OLD.status BEGIN
  INSERT INTO chaos_effects (at, resource, status) VALUES (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'), 'job:' || NEW.id, NEW.status); END;
CREATE TRIGGER chaos_campaigns AFTER UPDATE ON campaigns WHEN NEW.status <> OLD.status BEGIN
  INSERT INTO chaos_effects (at, resource, status) VALUES (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'), 'campaign:' || NEW.id, NEW.status); END;
CREATE TRIGGER chaos_applied AFTER INSERT ON applied_commands WHEN NEW.record <> '' BEGIN
  INSERT INTO chaos_effects (at, status, command) VALUES (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'), NEW.outcome, NEW.command_id); END;
";
const POSTGRES_LOG: &str = "
CREATE TABLE chaos_effects (n BIGSERIAL PRIMARY KEY, at TIMESTAMPTZ NOT NULL, resource TEXT, status TEXT, command TEXT);
CREATE FUNCTION chaos_row() RETURNS TRIGGER LANGUAGE plpgsql AS $$ BEGIN
  INSERT INTO chaos_effects (at, resource, status) VALUES (clock_timestamp(), TG_ARGV[0] || NEW.id, NEW.status); RETURN NULL; END $$;
CREATE FUNCTION chaos_command() RETURNS TRIGGER LANGUAGE plpgsql AS $$ BEGIN
  INSERT INTO chaos_effects (at, status, command) VALUES (clock_timestamp(), NEW.outcome, NEW.command_id); RETURN NULL; END $$;
CREATE TRIGGER chaos_jobs AFTER UPDATE ON jobs FOR EACH ROW WHEN (NEW.status <> OLD.status) EXECUTE FUNCTION chaos_row('job:');
CREATE TRIGGER chaos_campaigns AFTER UPDATE ON campaigns FOR EACH ROW WHEN (NEW.status <> OLD.status) EXECUTE FUNCTION chaos_row('campaign:');
CREATE TRIGGER chaos_applied AFTER INSERT ON applied_commands FOR EACH ROW WHEN (NEW.record <> '') EXECUTE FUNCTION chaos_command();
";

impl Sql {
    pub async fn sqlite(file: &Path) -> Self {
        // A worker may be stopped while it writes: the plan goes on, without this lock or this change of rights.
        let options = SqliteConnectOptions::new().filename(file).busy_timeout(Duration::from_secs(2));
        Self::Sqlite(SqlitePoolOptions::new().max_connections(3).connect_with(options).await.expect("open SQLite"))
    }

    pub async fn postgres(url: &str) -> Self {
        Self::Postgres(PgPoolOptions::new().max_connections(3).connect(url).await.expect("connect to PostgreSQL"))
    }

    /// Starts the log that [`Self::effects`] reads.
    pub async fn log_effects(&self) {
        self.run(match self {
            Self::Sqlite(_) => SQLITE_LOG,
            Self::Postgres(_) => POSTGRES_LOG,
        })
        .await
        .expect("make the triggers");
    }

    /// Statements.
    pub async fn run(&self, text: &str) -> sqlx::Result<()> {
        let text = sqlx::raw_sql(AssertSqlSafe(text.to_owned()));
        match self {
            Self::Sqlite(pool) => text.execute(pool).await.map(|_| ()),
            Self::Postgres(pool) => text.execute(pool).await.map(|_| ()),
        }
    }

    /// `at` (Unix ms), `resource`, `status`, `command` of every effect, oldest first.
    pub async fn effects(&self) -> sqlx::Result<Vec<(i64, Option<String>, String, Option<String>)>> {
        macro_rules! read {
            ($pool:expr, $at:literal) => {
                sqlx::query(concat!("SELECT ", $at, " AS at, resource, status, command FROM chaos_effects ORDER BY n"))
                    .fetch_all($pool)
                    .await?
                    .iter()
                    .map(|row| {
                        let at: String = row.try_get("at")?;
                        let at = at.parse::<jiff::Timestamp>().map_or(0, |at| at.as_millisecond());
                        Ok((at, row.try_get("resource")?, row.try_get("status")?, row.try_get("command")?))
                    })
                    .collect()
            };
        }
        match self {
            Self::Sqlite(pool) => read!(pool, "at"),
            Self::Postgres(pool) => {
                read!(pool, "to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')")
            }
        }
    }

    /// Nobody else writes until [`Lock::release`].
    pub async fn lock(&self) -> sqlx::Result<Lock> {
        Ok(match self {
            Self::Sqlite(pool) => Lock::Sqlite(pool.begin_with("BEGIN IMMEDIATE").await?),
            Self::Postgres(pool) => {
                let mut tx = pool.begin().await?;
                let tables = "LOCK TABLE jobs, campaigns, command_audit IN EXCLUSIVE MODE";
                sqlx::query(tables).execute(&mut *tx).await?;
                Lock::Postgres(tx)
            }
        })
    }

    /// PostgreSQL ends every connection but the one that asks.
    pub async fn end_connections(&self) {
        let Self::Postgres(_) = self else { return };
        let text = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                    WHERE datname = current_database() AND pid <> pg_backend_pid()";
        // Its own pool's other connections go, too; the pool makes new ones.
        let _ = self.run(text).await;
    }
}

impl Lock {
    pub async fn release(self) {
        // Where the connection was ended meanwhile, the lock went with it.
        match self {
            Self::Sqlite(tx) => drop(tx.rollback().await),
            Self::Postgres(tx) => drop(tx.rollback().await),
        }
    }
}
