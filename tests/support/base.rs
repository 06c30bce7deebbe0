//! What a gateway or a worker stands on, inside a test: a private Redis, a migrated SQLite file, and the settings for both.

use std::time::Duration;

use wheelhouse::auth::{Claims, sign};
use wheelhouse::broker::Broker;
use wheelhouse::config::{self, Settings};
use wheelhouse::store::Store;

use super::fleet::SECRET;
use super::redis::RedisServer;

/// Gone when dropped.
pub struct Base {
    pub redis: RedisServer,
    pub store: Store,
    pub broker: Broker,
    pub settings: Settings,
    /// Of the database.
    url: String,
    /// The database is in it, and workers may read files there.
    pub folder: tempfile::TempDir,
}

impl Base {
    /// With these settings beside the usual ones; the gateway's port is any free one.
    pub async fn start(settings: &[(&str, &str)]) -> Self {
        let redis = RedisServer::start();
        let folder = tempfile::tempdir().expect("folder");
        let mut flags = vec![
            ("server.listen".to_owned(), "127.0.0.1:0".to_owned()),
            ("redis.url".to_owned(), redis.url()),
            ("database.url".to_owned(), format!("sqlite://{}", folder.path().join("wheelhouse.db").display())),
            ("auth.hs256_secret".to_owned(), SECRET.to_owned()),
            ("server.drain_notice_seconds".to_owned(), "0".to_owned()),
            ("worker.files_root".to_owned(), folder.path().display().to_string()),
        ];
        flags.extend(settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
        let url = flags.iter().rev().find(|(key, _)| key == "database.url").map(|(_, url)| url.clone());
        let settings = config::load_from(None, Vec::new(), flags).expect("settings");
        let store = Store::open(&settings.database).await.expect("database");
        store.migrate().await.expect("migrate");
        let broker = Broker::connect(&settings.redis).await.expect("Redis");
        Self { redis, store, broker, settings, url: url.expect("an address"), folder }
    }

    pub async fn grant(&self, user: &str, permissions: &[&str]) {
        let permissions: Vec<String> = permissions.iter().map(|p| (*p).to_owned()).collect();
        self.store.grant(&user.parse().expect("user"), &permissions).await.expect("grant");
    }

    pub fn token_for(&self, user: &str, tenant: &str, seconds: u64, permissions: Option<&[&str]>) -> String {
        let claims = Claims {
            user: user.parse().expect("user"),
            tenant: tenant.parse().expect("tenant"),
            ttl: Duration::from_secs(seconds),
            permissions: permissions.map(|all| all.iter().map(|p| (*p).to_owned()).collect()),
        };
        sign(&self.settings.auth, &claims).expect("token")
    }

    /// The database as another system would open it.
    pub async fn sql(&self, statement: &str) {
        use sqlx::{AssertSqlSafe, Connection, Executor};
        let (url, statement) = (self.url.as_str(), AssertSqlSafe(statement.to_owned()));
        if url.starts_with("sqlite") {
            let mut connection = sqlx::SqliteConnection::connect(url).await.expect("open");
            connection.execute(statement).await.expect("SQL");
            connection.close().await.expect("close");
        } else {
            let mut connection = sqlx::PgConnection::connect(url).await.expect("connect");
            connection.execute(statement).await.expect("SQL");
        }
    }
}
