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

use super::database::Database;
use super::list_cursor::{ListPosition, Place};
use super::sql::{Row, Tx, Value};
use super::{Store, StoreError};
use crate::domain::TenantId;

/// Rows that are looked at together at first, and at most: a step is twice the one before it.
const FIRST_STEP: usize = 500;
const MAX_STEP: usize = 2_000;
/// So many rows are few: they are read and sorted.
const FEW: usize = 1_000;
/// How long a page looks for rows that fit.
const WALK_TIME: Duration = Duration::from_millis(4);
/// The same where a text is searched for: it may stand anywhere, and most pages find nothing.
const SEARCH_TIME: Duration = Duration::from_millis(15);

/// What a branch is sorted by, before the number of the row.
#[derive(Debug, Clone)]
pub(super) enum SortKey {
    /// Nothing: as the rows were made.
    Row,
    /// A time; the name of its column.
    Time(&'static str),
    /// A number that an index has, and what is added to it to compare it with that of other branches.
    Number { expression: &'static str, plus: i64 },
}

/// Rows that one index gives in order.
#[derive(Debug, Clone)]
pub(super) struct Branch {
    /// The index along which the rows are read.
    pub index: &'static str,
    /// What they have in common beside the tenant, in words that the index has.
    pub only: String,
    /// In which order it gives them.
    pub key: SortKey,
}

/// A filter that an index can look up by itself.
#[derive(Debug, Clone)]
pub(super) struct IndexedFilter {
    /// The index.
    pub index: &'static str,
    /// The condition.
    pub only: String,
}

/// A list, ready to be read.
#[derive(Debug, Clone)]
pub(super) struct ListPlan {
    /// `jobs j`, `campaigns c`.
    pub table: &'static str,
    /// `$1` is the tenant; then what the conditions name.
    pub values: Vec<Value>,
    /// Read one after the other; the branches of each are merged.
    pub phases: Vec<Vec<Branch>>,
    /// What the branches do not see to.
    pub filters: Vec<String>,
    /// Those of all filters that find rows by themselves.
    pub indexed: Vec<IndexedFilter>,
    /// Everything that is asked for, for rows that are found by one of those.
    pub all_filters: Vec<String>,
    /// The order of all rows as one key, for rows that are found by one of those; the first is the phase.
    pub order: [String; 2],
    pub ascending: bool,
    /// A text is searched for.
    pub is_search: bool,
}

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

impl SortKey {
    fn sql(&self) -> String {
        match self {
            Self::Row => "0".to_owned(),
            Self::Time(column) => format!("{{key:{column}}}"),
            Self::Number { expression, .. } => (*expression).to_owned(),
        }
    }

    /// As branches are compared.
    fn merged(&self) -> String {
        match self {
            Self::Number { expression, plus } => format!("({expression}) + {plus}"),
            other => other.sql(),
        }
    }
}

/// The statements of a list.
impl ListPlan {
    fn is_by_time(&self) -> bool {
        self.phases.iter().flatten().any(|branch| matches!(branch.key, SortKey::Time(_)))
    }

    /// Behind this place, or up to it: a condition of a branch, with its values.
    fn beside(
        &self,
        key: &SortKey,
        place: &Place,
        behind: bool,
        values: &mut Vec<Value>,
    ) -> Result<String, StoreError> {
        let sign = match (behind, self.ascending) {
            (true, true) => ">",
            (true, false) => "<",
            (false, true) => "<=",
            (false, false) => ">=",
        };
        let mut next = |value: Value| {
            values.push(value);
            format!("${}", values.len())
        };
        Ok(match key {
            SortKey::Row => format!("rowid {sign} {}", next(place.row.into())),
            SortKey::Time(_) => {
                let time = next(place.key.as_str().into());
                format!("({}, rowid) {sign} ({{time:{time}}}, {})", key.sql(), next(place.row.into()))
            }
            SortKey::Number { plus, .. } => {
                let number: i64 = place.key.parse().map_err(|_| StoreError::Conflict("no cursor".to_owned()))?;
                let number = next(number.saturating_sub(*plus).into());
                format!("({}, rowid) {sign} ({number}, {})", key.sql(), next(place.row.into()))
            }
        })
    }

    fn direction(&self) -> &'static str {
        if self.ascending { "" } else { " DESC" }
    }

    /// `tenant`, what the branch has in common, and behind the place.
    fn within(&self, branch: &Branch, after: Option<&Place>, values: &mut Vec<Value>) -> Result<String, StoreError> {
        let mut text = format!("tenant_id = $1{}", and(&branch.only));
        if let Some(after) = after {
            text.push_str(&and(&self.beside(&branch.key, after, true, values)?));
        }
        Ok(text)
    }

    fn in_order(&self, branch: &Branch) -> String {
        let direction = self.direction();
        match &branch.key {
            SortKey::Row => format!("ORDER BY rowid{direction}"),
            key => format!("ORDER BY {}{direction}, rowid{direction}", key.sql()),
        }
    }

    /// Where the walk through a phase stands after a step; no row: it comes to the end within it.
    fn frontier(
        &self,
        phase: &[Branch],
        after: Option<&Place>,
        step: usize,
    ) -> Result<(String, Vec<Value>), StoreError> {
        let mut values = self.values.clone();
        let mut parts = Vec::new();
        for branch in phase {
            parts.push(format!(
                "SELECT * FROM (SELECT {key} AS sort_key, rowid AS place FROM {table} {{by:{index}}} WHERE {within} {order}
                   LIMIT 1 OFFSET {skipped}) b",
                key = branch.key.merged(),
                table = self.table,
                index = branch.index,
                within = self.within(branch, after, &mut values)?,
                order = self.in_order(branch),
                skipped = (step / phase.len()).max(1) - 1,
            ));
        }
        let (merged, direction) = (parts.join(" UNION ALL "), self.direction());
        // The first of the branches to stop says how far all of them are known.
        let text = format!(
            "SELECT CAST(sort_key AS TEXT) AS key_text, place FROM ({merged}) m
             ORDER BY sort_key{direction}, place{direction} LIMIT 1"
        );
        Ok(with_named(&text, &values))
    }

    /// The next rows of a phase that fit, up to a place.
    fn rows(
        &self,
        number: usize,
        after: Option<&Place>,
        until: Option<&Place>,
        limit: usize,
    ) -> Result<(String, Vec<Value>), StoreError> {
        let mut values = self.values.clone();
        let mut parts = Vec::new();
        for branch in &self.phases[number] {
            let mut within = self.within(branch, after, &mut values)?;
            if let Some(until) = until {
                within.push_str(&and(&self.beside(&branch.key, until, false, &mut values)?));
            }
            parts.push(format!(
                "SELECT * FROM (SELECT id, {key} AS sort_key, rowid AS place FROM {table} {{by:{index}}}
                   WHERE {within}{filters} {order} LIMIT {limit}) b",
                key = branch.key.merged(),
                table = self.table,
                index = branch.index,
                filters = passing(&self.filters),
                order = self.in_order(branch),
            ));
        }
        let (merged, direction) = (parts.join(" UNION ALL "), self.direction());
        let text = format!(
            "SELECT id, CAST({number} AS BIGINT) AS phase, CAST(sort_key AS TEXT) AS key_text, place FROM ({merged}) m
             ORDER BY sort_key{direction}, place{direction} LIMIT {limit}"
        );
        Ok(with_named(&text, &values))
    }

    /// The next rows of all, by a filter that finds few.
    fn few(&self, by: &IndexedFilter, after: Option<&ListPosition>, limit: usize) -> (String, Vec<Value>) {
        let mut values = self.values.clone();
        let ([phase, key], direction) = (&self.order, self.direction());
        let mut behind = String::new();
        if let Some(after) = after {
            let mut next = |value: Value| {
                values.push(value);
                format!("${}", values.len())
            };
            let at = after.phase;
            behind = format!(" WHERE phase >= {at}");
            if let Some(place) = &after.place {
                let given = match self.is_by_time() {
                    true => format!("{{time:{}}}", next(place.key.as_str().into())),
                    false => next(place.key.parse::<i64>().unwrap_or(0).into()),
                };
                let sign = if self.ascending { ">" } else { "<" };
                let row = next(place.row.into());
                behind =
                    format!(" WHERE (phase > {at} OR (phase = {at} AND (sort_key, place) {sign} ({given}, {row})))");
            }
        }
        let text = format!(
            "SELECT id, phase, CAST(sort_key AS TEXT) AS key_text, place FROM (
               SELECT id, CAST({phase} AS BIGINT) AS phase, {key} AS sort_key, rowid AS place FROM {table} {{by:{index}}}
               WHERE tenant_id = $1{only}{filters} LIMIT {most}) f{behind}
             ORDER BY phase, sort_key{direction}, place{direction} LIMIT {limit}",
            table = self.table,
            index = by.index,
            only = and(&by.only),
            filters = passing(&self.all_filters),
            // Never reached, but for rows that came just now: PostgreSQL reads what is limited before it thinks of the order.
            most = 10 * FEW,
        );
        with_named(&text, &values)
    }

    /// Whether a filter finds few rows.
    fn count(&self, by: &IndexedFilter) -> (String, Vec<Value>) {
        let text = format!(
            "SELECT COUNT(*) AS n FROM (SELECT 1 FROM {} {{by:{}}} WHERE tenant_id = $1{} LIMIT {}) f",
            self.table,
            by.index,
            and(&by.only),
            FEW + 1
        );
        with_named(&text, &self.values)
    }
}

/// The statement with those of the values that it names, which PostgreSQL wants to be all of them.
fn with_named(text: &str, values: &[Value]) -> (String, Vec<Value>) {
    let (mut named, mut out): (Vec<usize>, String) = (Vec::new(), String::with_capacity(text.len()));
    let mut parts = text.split('$');
    out.push_str(parts.next().unwrap_or_default());
    for part in parts {
        let digits = part.bytes().take_while(u8::is_ascii_digit).count();
        let number: usize = part[..digits].parse().unwrap_or(0);
        let place = named.iter().position(|known| *known == number).unwrap_or_else(|| {
            named.push(number);
            named.len() - 1
        });
        out.push_str(&format!("${}{}", place + 1, &part[digits..]));
    }
    let values = named.iter().filter_map(|number| values.get(number.wrapping_sub(1)).cloned()).collect();
    (out, values)
}

fn and(condition: &str) -> String {
    if condition.is_empty() { String::new() } else { format!(" AND {condition}") }
}

/// Conditions that no index is looked for: the walk along the one that has the order is bounded, and any other would have
/// to be sorted.
fn passing(filters: &[String]) -> String {
    if filters.is_empty() {
        return String::new();
    }
    format!(" AND CASE WHEN {} THEN 1 ELSE 0 END = 1", filters.join(" AND "))
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
        let mut values: Vec<Value> = vec![tenant.as_str().into()];
        values.extend(found.iter().map(|row| Value::from(row.id.as_str())));
        let ids = (2..=values.len()).map(|n| format!("${n}")).collect::<Vec<_>>().join(", ");
        let text = format!("SELECT {columns} FROM {table} WHERE tenant_id = $1 AND id IN ({ids})");
        let rows = self.database.read().await?.rows(&text, &values).await?;
        rows.into_iter().map(|row| Ok((row.required("id")?, row))).collect()
    }

    /// How the database goes about reading a list: one text for each statement that may take, with its plan; on PostgreSQL
    /// with the rows that each part of it gave (the statement is carried out for that).
    pub(super) async fn explain_list(
        &self,
        plan: &ListPlan,
        after: Option<&ListPosition>,
    ) -> Result<Vec<String>, StoreError> {
        let (word, column) = match &self.database {
            Database::Sqlite { .. } => ("EXPLAIN QUERY PLAN", "detail"),
            Database::Postgres { .. } => ("EXPLAIN (ANALYZE, TIMING OFF, SUMMARY OFF)", "QUERY PLAN"),
        };
        let mut plans = Vec::new();
        let mut tx = self.database.read_in_order().await?;
        let mut statements = Vec::new();
        for by in plan.indexed.iter().filter(|_| !plan.filters.is_empty()) {
            statements.push(plan.count(by));
        }
        match few(&mut tx, plan).await? {
            Some(by) => statements.push(plan.few(by, after, 51)),
            None => statements.extend(first_steps(&mut tx, plan, after).await?),
        }
        for (text, values) in statements {
            let rows = tx.rows(&format!("{word} {text}"), &values).await?;
            let lines = rows.iter().map(|row| row.required(column)).collect::<Result<Vec<_>, _>>()?;
            plans.push(format!("{text}\n=> {}", lines.join("\n=> ")));
        }
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
        Ok(Self { id: row.required("id")?, phase, place: Place::read(row)? })
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
