//! What an operator should know of a database before programs rely on it: for `wheelhouse doctor`.

use std::str::FromStr;

use secrecy::ExposeSecret;
use sqlx::postgres::{PgConnectOptions, PgSslMode};

use super::database::Database;
use super::{Store, StoreError};

/// The rights of each role, as operators give them: what a program needs is read from there.
const ROLES: &str = include_str!("../../deploy/postgres/roles.sql");

/// How the way to PostgreSQL is secured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transport {
    /// It does not leave this machine.
    pub is_local: bool,
    /// `sslmode` of `database.url`.
    pub ssl_mode: &'static str,
}

/// What was found of PostgreSQL.
#[derive(Debug)]
pub struct PostgresReport {
    /// As whom this program is connected.
    pub user: String,
    /// Whether this very connection is encrypted.
    pub is_encrypted: bool,
    /// Its clock minus this machine's, in ms.
    pub clock_ahead_ms: i64,
    /// The user may do anything.
    pub is_superuser: bool,
    /// The user may change or remove rows of the audit trail, or switch its triggers off.
    pub may_change_audit: bool,
    /// Rights that the program needs and the user lacks: `INSERT ON jobs`.
    pub missing: Vec<String>,
}

/// How the way to the database is secured. `None`: it is a file.
pub fn transport(settings: &crate::config::Database) -> Option<Transport> {
    let url = settings.url.expose_secret();
    if url.starts_with("sqlite:") {
        return None;
    }
    let options = PgConnectOptions::from_str(url).ok()?;
    let host = options.get_host();
    let is_loopback = host.trim_matches(['[', ']']).parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
    let is_local = options.get_socket().is_some() || host.starts_with('/') || host == "localhost" || is_loopback;
    let ssl_mode = match options.get_ssl_mode() {
        PgSslMode::Disable => "disable",
        PgSslMode::Allow => "allow",
        PgSslMode::Prefer => "prefer",
        PgSslMode::Require => "require",
        PgSslMode::VerifyCa => "verify-ca",
        PgSslMode::VerifyFull => "verify-full",
    };
    Some(Transport { is_local, ssl_mode })
}

impl Store {
    /// Looks at PostgreSQL with the eyes of a role of `deploy/postgres/roles.sql`: `gateway` or `worker`. `None`: it is SQLite.
    pub async fn diagnose(&self, role: &str) -> Result<Option<PostgresReport>, StoreError> {
        if matches!(self.database, Database::Sqlite { .. }) {
            return Ok(None);
        }
        let asked_ms = jiff::Timestamp::now().as_millisecond();
        let text = "SELECT CURRENT_USER::TEXT AS name,
              (EXTRACT(EPOCH FROM clock_timestamp()) * 1000)::BIGINT AS now_ms,
              (SELECT CASE WHEN ssl THEN 1::BIGINT ELSE 0 END FROM pg_stat_ssl WHERE pid = pg_backend_pid()) AS encrypted,
              (SELECT CASE WHEN rolsuper THEN 1::BIGINT ELSE 0 END FROM pg_roles WHERE rolname = CURRENT_USER) AS super,
              (SELECT CASE WHEN has_table_privilege(oid, 'UPDATE, DELETE, TRUNCATE') OR pg_has_role(relowner, 'USAGE')
                 THEN 1::BIGINT ELSE 0 END FROM pg_class WHERE oid = to_regclass('command_audit')) AS audit";
        let row = self.database.read().await?.row(text, &[]).await?;
        let row = row.ok_or_else(|| StoreError::Unavailable("PostgreSQL does not say who this is".to_owned()))?;
        let here_ms = i64::midpoint(asked_ms, jiff::Timestamp::now().as_millisecond());
        let is = |name: &str| Ok::<bool, StoreError>(row.int(name)? == Some(1));
        let mut report = PostgresReport {
            user: row.required("name")?,
            is_encrypted: is("encrypted")?,
            clock_ahead_ms: row.int("now_ms")?.unwrap_or(here_ms) - here_ms,
            is_superuser: is("super")?,
            may_change_audit: is("audit")?,
            missing: Vec::new(),
        };
        for (table, privilege, column) in rights_of(role) {
            let text = "SELECT CASE WHEN to_regclass($1) IS NULL OR has_table_privilege($1, $2)
                  OR ($3 <> '' AND has_column_privilege($1, $3, $2)) THEN 1::BIGINT ELSE 0 END AS has";
            let values = [table.as_str().into(), privilege.as_str().into(), column.as_str().into()];
            let row = self.database.read().await?.row(text, &values).await?;
            if row.map_or(Ok(None), |row| row.int("has"))? == Some(0) {
                let column = if column.is_empty() { column } else { format!(" ({column})") };
                report.missing.push(format!("{privilege}{column} ON {table}"));
            }
        }
        Ok(Some(report))
    }
}

/// The lines of `roles.sql` that give a role something: table, privilege, and the column where it is about one alone.
fn rights_of(role: &str) -> Vec<(String, String, String)> {
    let mut rights = Vec::new();
    for line in ROLES.lines() {
        let parts: Vec<&str> = line.trim().trim_start_matches('(').split('\'').collect();
        // ('TABLE', 'ROLES', 'PRIVILEGES'),
        let &[_, table, _, roles, _, privileges, _] = parts.as_slice() else { continue };
        if !roles.split(", ").any(|one| one == role) {
            continue;
        }
        let (privileges, columns) = privileges.split_once(" (").unwrap_or((privileges, ""));
        for privilege in privileges.split(", ") {
            for column in columns.trim_end_matches(')').split(", ") {
                rights.push((table.to_owned(), privilege.to_owned(), column.to_owned()));
            }
        }
    }
    rights
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rights_of_a_role_are_read_as_they_are_written() {
        let gateway = rights_of("gateway");
        for (table, privilege, column) in
            [("jobs", "INSERT", ""), ("campaigns", "UPDATE", "closed_at"), ("user_permissions", "SELECT", "")]
        {
            let right = (table.to_owned(), privilege.to_owned(), column.to_owned());
            assert!(gateway.contains(&right), "{right:?} in {gateway:?}");
        }
        assert!(!gateway.iter().any(|(table, privilege, _)| table == "jobs" && privilege == "DELETE"));
        assert!(rights_of("worker").len() > 25);
    }

    #[test]
    fn what_leaves_the_machine_unencrypted_is_known_from_the_address() {
        let of = |url: &str| {
            let transport = transport(&crate::config::Database { url: url.into(), connections: 1 });
            transport.map(|transport| (transport.is_local, transport.ssl_mode))
        };
        assert_eq!(of("sqlite://wheelhouse.db"), None);
        assert_eq!(of("postgres://ann@localhost/w"), Some((true, "prefer")));
        assert_eq!(of("postgres://ann@[::1]/w?sslmode=disable"), Some((true, "disable")));
        assert_eq!(of("postgres://ann@10.0.0.5/w"), Some((false, "prefer")));
        assert_eq!(of("postgres://ann@db.example/w?sslmode=verify-full"), Some((false, "verify-full")));
    }
}
