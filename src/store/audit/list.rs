//! Pages of the audit trail, by what it is about: along an index, from row to row, so that what a page costs does not depend on
//! how long the trail is.
//!
//! Each of the filters has an index of its own, with the row's id behind it, in whose order rows are read. Of several the one is
//! taken that finds few rows, and the rows that do not fit the others are passed over, some thousand at a time. After
//! [`WALK_TIME`] the page ends where the walk is, with fewer rows than asked for, perhaps none, and a cursor that goes on from
//! there.

use std::time::{Duration, Instant};

use super::lateness::{self, Lateness};
use super::{COLUMNS, audit_row};
use crate::store::database::Database;
use crate::store::sql::{Tx, Value, time_text};
use crate::store::{AuditFilter, AuditOrder, AuditRow, Page, Store, StoreError};

/// Rows that are looked at together at first, and at most: a step is twice the one before it.
const FIRST_STEP: usize = 500;
const MAX_STEP: usize = 4_000;
/// So many rows are few.
const FEW: usize = 1_000;
/// How long a page looks for rows that fit.
const WALK_TIME: Duration = Duration::from_millis(15);

/// An index, the columns that a filter compares, and what with.
#[derive(Debug, Clone)]
struct Lookup {
    index: &'static str,
    columns: Vec<(&'static str, Value)>,
}

/// Rows with ids between these two, both left out.
#[derive(Debug, Clone, Copy)]
struct Span {
    above: i64,
    below: i64,
}

/// One question, ready to be asked.
struct AuditPlan {
    /// Along which index; `None`: along the ids themselves, through all tenants.
    along: Option<Lookup>,
    /// What that does not see to: each with its value for the `?`.
    others: Vec<(&'static str, Value)>,
    span: Span,
    is_newest_first: bool,
    /// PostgreSQL would, for a value that is frequent, rather read along the ids and leave out what does not fit, and
    /// so through all rows, where the last that fits lies far away. In an order that begins with the columns it cannot.
    is_ordered_by_columns: bool,
}

impl AuditPlan {
    /// `FROM … WHERE …`, for the rows of the index in this span, and `ORDER BY …`.
    fn within(&self, span: Span, values: &mut Vec<Value>) -> (String, String) {
        let mut next = |value: Value| {
            values.push(value);
            format!("${}", values.len())
        };
        let direction = if self.is_newest_first { " DESC" } else { "" };
        let columns = self.along.iter().flat_map(|lookup| &lookup.columns);
        let (names, places): (Vec<&str>, Vec<String>) =
            columns.map(|(name, value)| (*name, next(value.clone()))).unzip();
        let (above, below) = (next(span.above.into()), next(span.below.into()));
        let by = self.along.as_ref().map_or("", |lookup| lookup.index);
        let by = if by.is_empty() { String::new() } else { format!("{{by:{by}}}") };
        if self.is_ordered_by_columns && self.along.is_some() {
            let (names, places) = (names.join(", "), places.join(", "));
            return (
                format!(
                    "command_audit WHERE ({names}, id) > ({places}, {above}) AND ({names}, id) < ({places}, {below})"
                ),
                format!("ORDER BY {}{direction}, id{direction}", names.replace(", ", &format!("{direction}, "))),
            );
        }
        let equal: String = names.iter().zip(&places).map(|(name, place)| format!(" AND {name} = {place}")).collect();
        (format!("command_audit {by} WHERE id > {above} AND id < {below}{equal}"), format!("ORDER BY id{direction}"))
    }

    /// The last of so many rows of the index; no row: there are fewer.
    fn frontier(&self, span: Span, step: usize) -> (String, Vec<Value>) {
        let mut values = Vec::new();
        let (within, order) = self.within(span, &mut values);
        (format!("SELECT id FROM {within} {order} LIMIT 1 OFFSET {}", step - 1), values)
    }

    /// The rows that fit.
    fn rows(&self, span: Span, limit: usize) -> (String, Vec<Value>) {
        let mut values = Vec::new();
        let (within, order) = self.within(span, &mut values);
        let fits = self.others.iter().map(|(condition, value)| {
            values.push(value.clone());
            condition.replace('?', &format!("${}", values.len()))
        });
        let fits = fits.collect::<Vec<_>>().join(" AND ");
        // In a CASE, so that neither database looks for another index.
        let fits = if fits.is_empty() { fits } else { format!(" AND CASE WHEN {fits} THEN 1 ELSE 0 END = 1") };
        (format!("SELECT {COLUMNS} FROM {within}{fits} {order} LIMIT {limit}"), values)
    }

    /// Up to one more than few of the rows of the index.
    fn count(&self) -> (String, Vec<Value>) {
        let mut values = Vec::new();
        let (within, order) = self.within(self.span, &mut values);
        (format!("SELECT COUNT(*) AS n FROM (SELECT id FROM {within} {order} LIMIT {}) f", FEW + 1), values)
    }

    /// What is left of a span behind a row.
    fn behind(&self, span: Span, id: i64) -> Span {
        if self.is_newest_first { Span { below: id, ..span } } else { Span { above: id, ..span } }
    }

    /// The part of a span up to a row.
    fn up_to(&self, span: Span, id: i64) -> Span {
        if self.is_newest_first {
            Span { above: id.saturating_sub(1), ..span }
        } else {
            Span { below: id.saturating_add(1), ..span }
        }
    }
}

impl Store {
    /// Rows of the audit trail beyond the cursor, in the order of the filter. A page may have fewer than asked for and still lead
    /// on.
    pub async fn audit(&self, filter: &AuditFilter) -> Result<Page<AuditRow>, StoreError> {
        let limit = filter.limit.clamp(1, 1_000) as usize;
        let mut tx = self.database.read_in_order().await?;
        let plan = self.audit_plan(&mut tx, filter).await?;
        let (started, mut step, mut span) = (Instant::now(), FIRST_STEP, plan.span);
        let mut items: Vec<AuditRow> = Vec::new();
        let next = loop {
            let until = match plan.others.is_empty() {
                true => None,
                false => {
                    let (text, values) = plan.frontier(span, step);
                    tx.row(&text, &values).await?.map(|row| row.int("id")).transpose()?.flatten()
                }
            };
            let part = until.map_or(span, |until| plan.up_to(span, until));
            let (text, values) = plan.rows(part, limit + 1 - items.len());
            for row in &tx.rows(&text, &values).await? {
                items.push(audit_row(row)?);
            }
            if items.len() > limit {
                items.truncate(limit);
                break items.last().map(|row| row.id);
            }
            let Some(until) = until else { break None };
            if started.elapsed() > WALK_TIME {
                break Some(until);
            }
            span = plan.behind(span, until);
            step = (2 * step).min(MAX_STEP);
        };
        tx.rollback().await?;
        Ok(Page { items, next: next.map(|id| id.to_string()), searched: None })
    }

    /// The statements that reading a page may take, with how the database would go about them; on PostgreSQL with the rows that
    /// each part of it gave (the statement is carried out for that).
    pub async fn explain_audit(&self, filter: &AuditFilter) -> Result<Vec<String>, StoreError> {
        let mut tx = self.database.read_in_order().await?;
        let plan = self.audit_plan(&mut tx, filter).await?;
        let mut statements = vec![plan.count(), plan.rows(plan.span, 51)];
        if !plan.others.is_empty() {
            let (text, values) = plan.frontier(plan.span, FIRST_STEP);
            let until = tx.row(&text, &values).await?.map(|row| row.int("id")).transpose()?.flatten();
            let part = until.map_or(plan.span, |until| plan.up_to(plan.span, until));
            statements = vec![plan.count(), (text, values), plan.rows(part, 51)];
        }
        let plans = tx.explain(statements).await?;
        tx.rollback().await?;
        Ok(plans)
    }

    async fn audit_plan(&self, tx: &mut Tx, filter: &AuditFilter) -> Result<AuditPlan, StoreError> {
        let is_newest_first = filter.order == AuditOrder::NewestFirst;
        let after = filter.after.as_deref().map(str::parse::<i64>).transpose();
        let after = after.map_err(|_| StoreError::Conflict("\"after\" is not a cursor".to_owned()))?;
        let (mut above, mut below) = (0, i64::MAX);
        if filter.since.is_some() || filter.until.is_some() {
            let text = format!("SELECT {} FROM audit_head WHERE id = 1", lateness::COLUMNS);
            if let Some(head) = tx.row(&text, &[]).await? {
                (above, below) = Lateness::read(&head)?.rows_between(tx, filter.since, filter.until).await?;
            }
        }
        match (after, is_newest_first) {
            (Some(after), true) => below = below.min(after),
            (Some(after), false) => above = above.max(after),
            (None, _) => {}
        }
        let (lookups, mut others) = lookups(filter);
        if let Some(since) = filter.since {
            others.push(("{ms:+at} >= {time:?}", time_text(since).into()));
        }
        if let Some(until) = filter.until {
            others.push(("{ms:+at} < {time:?}", time_text(until).into()));
        }
        let is_ordered_by_columns = matches!(self.database, Database::Postgres { .. });
        let plan_along = |along: Option<&Lookup>| {
            // What the other indexes would look up.
            let beside = lookups.iter().filter(|other| along.is_some_and(|along| along.index != other.index));
            let beside = beside.flat_map(|other| other.columns.iter().filter(|(name, _)| *name != "tenant_id"));
            let beside = beside.map(|(name, value)| (equals(name), value.clone()));
            AuditPlan {
                along: along.cloned(),
                others: beside.chain(others.iter().cloned()).collect(),
                span: Span { above, below },
                is_newest_first,
                is_ordered_by_columns,
            }
        };
        for lookup in lookups.iter().filter(|_| lookups.len() > 1) {
            let plan = plan_along(Some(lookup));
            let (text, values) = plan.count();
            let count = tx.row(&text, &values).await?.map(|row| row.int("n")).transpose()?.flatten();
            if count.unwrap_or(0) <= FEW as i64 {
                return Ok(plan);
            }
        }
        Ok(plan_along(lookups.first()))
    }
}

/// The indexes that could look up what is asked for, the one that probably finds the fewest first; and, where it is asked through
/// all tenants, for which there is none, the conditions.
fn lookups(filter: &AuditFilter) -> (Vec<Lookup>, Vec<(&'static str, Value)>) {
    let given: Vec<(&'static str, &'static str, Value)> = [
        filter.resource.as_ref().map(|id| ("command_audit_by_resource", "resource_id", id.as_str())),
        filter.user.as_ref().map(|id| ("command_audit_by_user", "user_id", id.as_str())),
        filter.event.map(|event| ("command_audit_by_event", "event", event.as_str())),
        filter.action.map(|action| ("command_audit_by_action", "action", action.as_str())),
    ]
    .into_iter()
    .flatten()
    .map(|(index, column, value)| (index, column, value.into()))
    .collect();
    let Some(tenant) = &filter.tenant else {
        return (Vec::new(), given.into_iter().map(|(_, column, value)| (equals(column), value)).collect());
    };
    let tenant = ("tenant_id", Value::from(tenant.as_str()));
    let with_tenant = |(index, column, value)| Lookup { index, columns: vec![tenant.clone(), (column, value)] };
    let mut lookups: Vec<Lookup> = given.into_iter().map(with_tenant).collect();
    if lookups.is_empty() {
        lookups.push(Lookup { index: "command_audit_by_tenant", columns: vec![tenant.clone()] });
    }
    (lookups, Vec::new())
}

/// A condition on one of the columns.
fn equals(column: &str) -> &'static str {
    match column {
        "resource_id" => "resource_id = ?",
        "user_id" => "user_id = ?",
        "event" => "event = ?",
        _ => "action = ?",
    }
}
