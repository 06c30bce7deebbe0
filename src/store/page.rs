//! Lists that come in pages.

use super::sql::Row;
use super::{StoreError, rows};

/// Where a list goes on.
#[derive(Debug, Clone)]
pub struct Page<T> {
    /// The rows.
    pub items: Vec<T>,
    /// Pass it as `after` for the next page; `None` at the end.
    pub next: Option<String>,
    /// How many rows were looked at so far, where rows had to be looked at one by one and the list goes on.
    pub searched: Option<u64>,
}

/// The row behind which a page begins: the cursor that the last page ended with.
pub(super) fn cursor(after: Option<&str>) -> Result<i64, StoreError> {
    let Some(after) = after else { return Ok(i64::MAX) };
    after
        .parse()
        .map_err(|_| StoreError::Conflict("\"after\" is not a cursor: pass on the last page's \"next\"".to_owned()))
}

/// One more than asked for, to know whether there is a next page.
pub(super) fn sql_limit(limit: u32) -> u32 {
    limit.clamp(1, 1_000) + 1
}

/// How many items a page has at most.
pub(super) fn limit_of(limit: u32) -> usize {
    limit.clamp(1, 1_000) as usize
}

/// A page of rows that were asked for with [`sql_limit`]. Rows that cannot be read are left out.
pub(super) fn page_of<T>(
    found: &[Row],
    limit: u32,
    read: impl Fn(&Row) -> Result<T, StoreError>,
) -> Result<Page<T>, StoreError> {
    let limit = limit_of(limit);
    let shown = &found[..found.len().min(limit)];
    let next = match shown.last() {
        Some(last) if found.len() > limit => last.int("row_id")?.map(|id| id.to_string()),
        _ => None,
    };
    let items = shown.iter().filter_map(|row| rows::skip_unreadable(read(row))).collect();
    Ok(Page { items, next, searched: None })
}
