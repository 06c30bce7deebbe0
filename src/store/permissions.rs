//! Who may do what: direct permissions and roles, with a version that grows with every change.

use super::sql::Row;
use super::{Store, StoreError};
use crate::domain::PermissionSet;
use crate::domain::UserId;

/// One permission or pattern that a user holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PermissionGrant {
    /// Who.
    pub user: String,
    /// What.
    pub permission: String,
    /// The role through which; none if directly.
    pub role: Option<String>,
}

impl Store {
    /// A user's permissions and patterns, direct and by role, with the version, in one snapshot.
    pub async fn permissions_of(&self, user: &UserId) -> Result<PermissionSet, StoreError> {
        // One statement: on SQLite and PostgreSQL alike it sees one moment.
        let found = self
            .database
            .read()
            .await?
            .rows(
                "SELECT version, permission FROM permission_version LEFT JOIN (
                   SELECT permission FROM user_permissions WHERE user_id = $1
                   UNION SELECT rp.permission FROM user_roles ur JOIN role_permissions rp ON rp.role_id = ur.role_id
                     WHERE ur.user_id = $1) held ON TRUE",
                &[user.as_str().into()],
            )
            .await?;
        let mut set = PermissionSet::default();
        for row in &found {
            set.version = row.int("version")?.unwrap_or(0);
            set.held.extend(row.text("permission")?);
        }
        Ok(set)
    }

    /// Who holds what and through which role, by user; of one user where one is named.
    pub async fn grants(&self, user: Option<&UserId>) -> Result<Vec<PermissionGrant>, StoreError> {
        let (only, values) = match user {
            Some(user) => ("WHERE user_id = $1", vec![user.as_str().into()]),
            None => ("", Vec::new()),
        };
        let text = format!(
            "SELECT user_id, permission, role FROM (
               SELECT user_id, permission, NULL AS role FROM user_permissions
               UNION ALL SELECT ur.user_id, rp.permission, ur.role_id AS role
                 FROM user_roles ur JOIN role_permissions rp ON rp.role_id = ur.role_id) held
             {only} ORDER BY user_id, permission, role"
        );
        let found = self.database.read().await?.rows(&text, &values).await?;
        let granted = |row: &Row| {
            Ok(PermissionGrant {
                user: row.required("user_id")?,
                permission: row.required("permission")?,
                role: row.text("role")?,
            })
        };
        found.iter().map(granted).collect()
    }

    /// The version: grows with every change of any permission, also by plain SQL.
    pub async fn permission_version(&self) -> Result<i64, StoreError> {
        let row = self.database.read().await?.row("SELECT version FROM permission_version", &[]).await?;
        row.map_or(Ok(0), |row| Ok(row.int("version")?.unwrap_or(0)))
    }

    /// Grants; returns the new version.
    pub async fn grant(&self, user: &UserId, permissions: &[String]) -> Result<i64, StoreError> {
        let text = "INSERT INTO user_permissions (user_id, permission) VALUES ($1, $2) ON CONFLICT DO NOTHING";
        self.for_each(text, user, permissions).await
    }

    /// Revokes; returns the new version.
    pub async fn revoke(&self, user: &UserId, permissions: &[String]) -> Result<i64, StoreError> {
        self.for_each("DELETE FROM user_permissions WHERE user_id = $1 AND permission = $2", user, permissions).await
    }

    async fn for_each(&self, text: &str, user: &UserId, permissions: &[String]) -> Result<i64, StoreError> {
        let mut tx = self.database.write().await?;
        for permission in permissions {
            tx.execute(text, &[user.as_str().into(), permission.as_str().into()]).await?;
        }
        let row = tx.row("SELECT version FROM permission_version", &[]).await?;
        let version = row.map_or(Ok(None), |row| row.int("version"))?.unwrap_or(0);
        tx.commit().await?;
        Ok(version)
    }
}
