//! Who may do what, and in which tenant: direct permissions and roles, with a version that grows with every change.

use super::sql::{Row, Value};
use super::{Store, StoreError};
use crate::domain::PermissionSet;
use crate::domain::{TenantId, UserId};

/// What is held directly and by roles. A role counts in a tenant if it, and the giving of it, are for that tenant or for all.
const HELD: &str = "SELECT user_id, permission, tenant_id, NULL AS role FROM user_permissions
    UNION ALL SELECT ur.user_id, rp.permission, COALESCE(ur.tenant_id, r.tenant_id) AS tenant_id, ur.role_id AS role
      FROM user_roles ur JOIN role_permissions rp ON rp.role_id = ur.role_id LEFT JOIN roles r ON r.id = ur.role_id
      WHERE ur.tenant_id IS NULL OR r.tenant_id IS NULL OR ur.tenant_id = r.tenant_id";

/// One permission or pattern that a user holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PermissionGrant {
    /// The user who has the permission.
    pub user: String,
    /// The permission, such as `jobs.cancel` or `jobs.*`.
    pub permission: String,
    /// The one tenant in which; none if in every one.
    pub tenant: Option<String>,
    /// The role through which; none if directly.
    pub role: Option<String>,
}

impl Store {
    /// A user's permissions and patterns in a tenant, direct and by role, with the version, in one snapshot.
    pub async fn permissions_of(&self, user: &UserId, tenant: &TenantId) -> Result<PermissionSet, StoreError> {
        // One statement: on SQLite and PostgreSQL alike it sees one moment.
        let text = format!(
            "SELECT version, permission FROM permission_version LEFT JOIN (
               SELECT DISTINCT permission FROM ({HELD}) every_right
               WHERE user_id = $1 AND (tenant_id IS NULL OR tenant_id = $2)) held ON TRUE"
        );
        let found = self.database.read().await?.rows(&text, &[user.as_str().into(), tenant.as_str().into()]).await?;
        let mut set = PermissionSet::default();
        for row in &found {
            set.version = row.int("version")?.unwrap_or(0);
            set.held.extend(row.text("permission")?);
        }
        Ok(set)
    }

    /// Who holds what, where and through which role, by user; of one user where one is named.
    pub async fn grants(&self, user: Option<&UserId>) -> Result<Vec<PermissionGrant>, StoreError> {
        let (only, values) = match user {
            Some(user) => ("WHERE user_id = $1", vec![user.as_str().into()]),
            None => ("", Vec::new()),
        };
        let text = format!(
            "SELECT user_id, permission, tenant_id, role FROM ({HELD}) held {only}
             ORDER BY user_id, permission, tenant_id, role"
        );
        let found = self.database.read().await?.rows(&text, &values).await?;
        let granted = |row: &Row| {
            Ok(PermissionGrant {
                user: row.required("user_id")?,
                permission: row.required("permission")?,
                tenant: row.text("tenant_id")?,
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

    /// Grants in every tenant; returns the new version.
    pub async fn grant(&self, user: &UserId, permissions: &[String]) -> Result<i64, StoreError> {
        self.grant_in(None, user, permissions).await
    }

    /// Grants in one tenant, or in every one; returns the new version.
    pub async fn grant_in(
        &self,
        tenant: Option<&TenantId>,
        user: &UserId,
        permissions: &[String],
    ) -> Result<i64, StoreError> {
        let text =
            "INSERT INTO user_permissions (user_id, permission, tenant_id) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
        let tenant = Value::Text(tenant.map(ToString::to_string));
        self.for_each(text, user, permissions, &[tenant]).await
    }

    /// Revokes everywhere, also what was granted in single tenants; returns the new version.
    pub async fn revoke(&self, user: &UserId, permissions: &[String]) -> Result<i64, StoreError> {
        let text = "DELETE FROM user_permissions WHERE user_id = $1 AND permission = $2";
        self.for_each(text, user, permissions, &[]).await
    }

    /// Revokes what was granted in this tenant; returns the new version. What is granted in every tenant stays.
    pub async fn revoke_in(&self, tenant: &TenantId, user: &UserId, permissions: &[String]) -> Result<i64, StoreError> {
        let text = "DELETE FROM user_permissions WHERE user_id = $1 AND permission = $2 AND tenant_id = $3";
        self.for_each(text, user, permissions, &[tenant.as_str().into()]).await
    }

    async fn for_each(
        &self,
        text: &str,
        user: &UserId,
        permissions: &[String],
        more: &[Value],
    ) -> Result<i64, StoreError> {
        let mut tx = self.database.write().await?;
        for permission in permissions {
            let mut values = vec![user.as_str().into(), permission.as_str().into()];
            values.extend_from_slice(more);
            tx.execute(text, &values).await?;
        }
        let row = tx.row("SELECT version FROM permission_version", &[]).await?;
        let version = row.map_or(Ok(None), |row| row.int("version"))?.unwrap_or(0);
        tx.commit().await?;
        Ok(version)
    }
}
