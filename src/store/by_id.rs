//! Rows of a tenant that are named by their ids.

use super::StoreError;
use super::sql::{MultiRowInsert, Row, Tx, Value};
use crate::domain::TenantId;

/// The rows of `table` with these ids; an id that the tenant does not have is left out.
///
/// Each is named by its whole key. By `tenant_id = … AND id IN (…)` PostgreSQL would read a tenant of which it believes that it
/// has few rows as a whole, and would go on so when they are many: a thousand ids among 100,000 rows took it longer than a
/// statement may take.
pub(super) async fn rows_by_id(
    tx: &mut Tx,
    columns: &str,
    table: &str,
    tenant: &TenantId,
    ids: impl Iterator<Item = &str>,
) -> Result<Vec<Row>, StoreError> {
    let keys: Vec<Vec<Value>> = ids.map(|id| vec![tenant.as_str().into(), id.into()]).collect();
    let text = MultiRowInsert {
        before: &format!("SELECT {columns} FROM {table} WHERE (tenant_id, id) IN ("),
        row: "(?, ?)",
        after: ")",
        rows: &keys,
    };
    tx.rows_of_many(&text).await
}
