//! Redis and PostgreSQL as `deploy/` sets them up: the users and roles with the least that each program needs.

use std::path::Path;

use sha2::{Digest, Sha256};
use sqlx::{AssertSqlSafe, Executor, PgPool};

use super::fleet::Fleet;
use super::redis::RedisServer;

/// Redis's users in `deploy/redis/users.acl`, without the one called default.
pub const REDIS_USERS: [&str; 4] = ["wheelhouse-gateway", "wheelhouse-worker", "wheelhouse-admin", "wheelhouse-reader"];

fn deployed(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The line of one user, with the password `secret`.
pub fn acl_line(user: &str) -> String {
    let text = deployed("redis/users.acl");
    let line = text.lines().find(|line| line.starts_with(&format!("user {user} "))).expect("the user's line");
    let hash: String = Sha256::digest(b"secret").iter().map(|byte| format!("{byte:02x}")).collect();
    line.replace("#SHA256-OF-THE-PASSWORD", &format!("#{hash}"))
}

/// A Redis with exactly these users, each with the password `secret`. The user `default`, whom the file puts out, asks the
/// questions of the test itself.
pub fn redis() -> RedisServer {
    let folder = tempfile::tempdir().expect("folder");
    let file = folder.path().join("users.acl");
    let users: Vec<String> = REDIS_USERS.into_iter().map(acl_line).collect();
    std::fs::write(&file, format!("user default on nopass ~* &* +@all\n{}\n", users.join("\n"))).expect("write");
    RedisServer::start_with(|| vec!["--aclfile".to_owned(), file.display().to_string()])
}

/// A database with exactly these roles, migrated by its owner.
pub struct Database {
    url: String,
    /// As the superuser.
    pub sql: PgPool,
}

impl Database {
    /// Prepared, migrated, and given the rights on the new tables, in the order that the file's head names.
    pub async fn new(fleet: &Fleet) -> Self {
        let url = super::postgres::database().await;
        let sql = PgPool::connect(&url).await.expect("connect");
        let it = Self { url, sql };
        it.give_rights().await;
        let mut migrate = fleet.command(&["migrate"]);
        let ran = migrate.env("WHEELHOUSE__DATABASE__URL", it.url_of("owner")).output().expect("run");
        assert!(ran.status.success(), "{ran:?}");
        it.give_rights().await;
        it
    }

    async fn give_rights(&self) {
        self.sql.execute(sqlx::raw_sql(AssertSqlSafe(deployed("postgres/roles.sql")))).await.expect("roles.sql");
    }

    /// The address with which a program of this role connects.
    pub fn url_of(&self, role: &str) -> String {
        self.url.replacen("postgres@", &format!("wheelhouse_{role}@"), 1)
    }
}

/// Programs that a fleet starts from now on are these: `gateway`, `worker`, `admin` or `reader`.
pub fn become_role(fleet: &mut Fleet, database: &Database, role: &str) {
    let url = format!("redis://wheelhouse-{role}:secret@127.0.0.1:{}", fleet.redis.port());
    fleet.set("REDIS__URL", &url);
    fleet.set("DATABASE__URL", &database.url_of(role));
}
