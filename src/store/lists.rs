//! Lists that are filtered, searched and sorted by the database, page by page: jobs and campaigns.
//!
//! Every page is read along an index that has the order of the list (`0021_lists.sql`), from where the last page ended
//! (`list_cursor.rs`), so what a page costs does not depend on how many rows there are:
//!
//! 1. Where an index has what is asked for and the order, its next rows are the page.
//! 2. Where one filter finds few rows, those are read and sorted.
//! 3. Else the index of the order is walked, [`MAX_STEP`] rows at a time at most, and rows that do not fit are passed over.
//!    After [`WALK_TIME`] the page ends where the walk is, with fewer rows than asked for, perhaps none, and a cursor that goes on
//!    from there.
//!
//! Several branches, one for each status or each way to say how long a job ran, are merged by one statement, which sees
//! one moment.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::by_id::rows_by_id;
use super::list_cursor::{ListPosition, Place};
use super::list_plan::{FEW, IndexedFilter, ListPlan};
use super::sql::{Row, Tx, Value};
use super::{Store, StoreError};
use crate::domain::TenantId;

/// Rows that are looked at together at first, and at most: a step is twice the one before it.
const FIRST_STEP: usize = 500;
const MAX_STEP: usize = 2_000;
/// How long a page looks for rows that fit.
const WALK_TIME: Duration = Duration::from_millis(4);
/// The same where a text is searched for: it may stand anywhere, and most pages find nothing.
const SEARCH_TIME: Duration = Duration::from_millis(15);

/// Rows of a page, in their order, and where the next page begins.
pub(super) struct FoundRows {
    pub rows: Vec<FoundRow>,
    pub next: Option<ListPosition>,
}

/// One of them.
pub(super) struct FoundRow {
    pub id: String,
    pub phase: usize,
    pub place: Place,
}

impl Store {
    /// The next `limit` rows behind a place.
    pub(super) async fn list(
        &self,
        plan: &ListPlan,
        after: Option<&ListPosition>,
        limit: usize,
    ) -> Result<FoundRows, StoreError> {
        let mut tx = self.database.read_in_order().await?;
        let found = match few(&mut tx, plan).await? {
            Some(by) => {
                let (text, values) = plan.few(by, after, limit + 1);
                let found = tx.rows(&text, &values).await?;
                let found = found.iter().map(FoundRow::read).collect::<Result<_, _>>()?;
                cut(found, limit, after.map_or(0, |after| after.searched))
            }
            None => walk(&mut tx, plan, after, limit).await?,
        };
        tx.rollback().await?;
        Ok(found)
    }

    /// The rows that were found, by their ids; one that is gone since is left out.
    pub(super) async fn rows_of(
        &self,
        columns: &str,
        table: &str,
        tenant: &TenantId,
        found: &[FoundRow],
    ) -> Result<HashMap<String, Row>, StoreError> {
        if found.is_empty() {
            return Ok(HashMap::new());
        }
        let ids = found.iter().map(|row| row.id.as_str());
        let rows = rows_by_id(&mut self.database.read().await?, columns, table, tenant, ids).await?;
        rows.into_iter().map(|row| Ok((row.shown_key("id")?, row))).collect()
    }

    /// How the database goes about reading a list: one text for each statement that may take, with its plan; on PostgreSQL
    /// with the rows that each part of it gave (the statement is carried out for that).
    pub(super) async fn explain_list(
        &self,
        plan: &ListPlan,
        after: Option<&ListPosition>,
    ) -> Result<Vec<String>, StoreError> {
        let mut tx = self.database.read_in_order().await?;
        let mut statements = Vec::new();
        for by in plan.indexed.iter().filter(|_| !plan.filters.is_empty()) {
            statements.push(plan.count(by));
        }
        match few(&mut tx, plan).await? {
            Some(by) => statements.push(plan.few(by, after, 51)),
            None => statements.extend(first_steps(&mut tx, plan, after).await?),
        }
        let plans = tx.explain(statements).await?;
        tx.rollback().await?;
        Ok(plans)
    }
}

/// The first of the filters that finds few rows, where not all of them are seen to by one index.
async fn few<'a>(tx: &mut Tx, plan: &'a ListPlan) -> Result<Option<&'a IndexedFilter>, StoreError> {
    for by in plan.indexed.iter().filter(|_| !plan.filters.is_empty()) {
        let (text, values) = plan.count(by);
        let count = tx.row(&text, &values).await?;
        if count.map_or(Ok(None), |row| row.int("n"))?.unwrap_or(0) <= FEW as i64 {
            return Ok(Some(by));
        }
    }
    Ok(None)
}

/// The statements of the first step of a walk through each phase.
async fn first_steps(
    tx: &mut Tx,
    plan: &ListPlan,
    after: Option<&ListPosition>,
) -> Result<Vec<(String, Vec<Value>)>, StoreError> {
    let mut all = Vec::new();
    for (number, phase) in plan.phases.iter().enumerate().filter(|(_, phase)| !phase.is_empty()) {
        let after = after.filter(|after| after.phase == number).and_then(|after| after.place.as_ref());
        let mut until = None;
        if !plan.filters.is_empty() {
            let (text, values) = plan.frontier(phase, after, FIRST_STEP)?;
            until = tx.row(&text, &values).await?.as_ref().map(Place::read).transpose()?;
            all.push((text, values));
        }
        all.push(plan.rows(number, after, until.as_ref(), 51)?);
    }
    Ok(all)
}

/// The page, along the index of its order.
async fn walk(
    tx: &mut Tx,
    plan: &ListPlan,
    after: Option<&ListPosition>,
    limit: usize,
) -> Result<FoundRows, StoreError> {
    let started = Instant::now();
    let mut rows: Vec<FoundRow> = Vec::new();
    let mut searched = after.map_or(0, |after| after.searched);
    let first = after.map_or(0, |after| after.phase);
    let (time, mut step) = (if plan.is_search { SEARCH_TIME } else { WALK_TIME }, FIRST_STEP);
    for (number, phase) in plan.phases.iter().enumerate().skip(first).filter(|(_, phase)| !phase.is_empty()) {
        let mut place = after.filter(|_| number == first).and_then(|after| after.place.clone());
        loop {
            let until = match plan.filters.is_empty() {
                true => None,
                false => {
                    let (text, values) = plan.frontier(phase, place.as_ref(), step)?;
                    tx.row(&text, &values).await?.as_ref().map(Place::read).transpose()?
                }
            };
            let (text, values) = plan.rows(number, place.as_ref(), until.as_ref(), limit + 1 - rows.len())?;
            for row in &tx.rows(&text, &values).await? {
                let row = FoundRow::read(row)?;
                // One that ended between two phases is found in both.
                if rows.iter().all(|known| known.id != row.id) {
                    rows.push(row);
                }
            }
            if rows.len() > limit {
                return Ok(cut(rows, limit, searched));
            }
            let Some(until) = until else { break };
            searched += step as u64;
            if started.elapsed() > time {
                return Ok(FoundRows {
                    rows,
                    next: Some(ListPosition { phase: number, place: Some(until), searched }),
                });
            }
            place = Some(until);
            step = (2 * step).min(MAX_STEP);
        }
    }
    Ok(FoundRows { rows, next: None })
}

impl FoundRow {
    fn read(row: &Row) -> Result<Self, StoreError> {
        let phase = usize::try_from(row.int("phase")?.unwrap_or(0)).unwrap_or(0);
        Ok(Self { id: row.shown_key("id")?, phase, place: Place::read(row)? })
    }
}

/// A page out of one row more than it has.
fn cut(mut rows: Vec<FoundRow>, limit: usize, searched: u64) -> FoundRows {
    let more = rows.len() > limit;
    rows.truncate(limit);
    let next = rows.last().filter(|_| more);
    let next = next.map(|last| ListPosition { phase: last.phase, place: Some(last.place.clone()), searched });
    FoundRows { rows, next }
}
