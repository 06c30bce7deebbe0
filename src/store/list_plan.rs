//! How a list is read: its branches, and the statements that walk along them (`lists.rs`).

use std::cmp::Ordering;

use super::StoreError;
use super::job_indexes::IndexPiece;
use super::list_cursor::{ListPosition, Place};
use super::sql::Value;

/// So many rows are few: they are read and sorted.
pub(super) const FEW: usize = 1_000;

/// What a branch is sorted by, before the number of the row.
#[derive(Debug, Clone)]
pub(super) enum SortKey {
    /// Nothing: as the rows were made.
    Row,
    /// A time; the name of its column.
    Time(&'static str),
    /// A number that an index has, and what is added to it to compare it with that of other branches.
    Number { expression: &'static str, plus: i64 },
    /// The number 0, which all of them have: as the rows were made.
    Zero,
}

/// Rows that one index gives in order.
#[derive(Debug, Clone)]
pub(super) struct Branch {
    /// The index along which the rows are read.
    pub index: &'static str,
    /// What they have in common beside the tenant, in words that the index has.
    pub only: String,
    /// Of those only what lies between these two, where it is sorted by a time: conditions on that time.
    pub bounds: Bounds,
    /// In which order it gives them.
    pub key: SortKey,
}

/// Not before, and before.
#[derive(Debug, Clone, Default)]
pub(super) struct Bounds {
    pub lower: Option<String>,
    pub upper: Option<String>,
}

impl Bounds {
    /// Both, as one condition.
    pub(super) fn both(&self) -> String {
        self.lower.iter().chain(&self.upper).cloned().collect::<Vec<_>>().join(" AND ")
    }

    /// The same of another time.
    pub(super) fn on(&self, column: &str, other: &str) -> Self {
        let on = |bound: &Option<String>| bound.as_ref().map(|bound| bound.replace(column, other));
        Self { lower: on(&self.lower), upper: on(&self.upper) }
    }
}

/// A filter that indexes can look up by themselves.
#[derive(Debug, Clone)]
pub(super) struct IndexedFilter {
    /// The condition.
    pub only: String,
    /// What it finds, index by index. Of a time, rows are taken in its order, so that PostgreSQL takes this index: any other that begins
    /// with the tenant would do as well, if only the first thousand rows did not lie far behind.
    pub pieces: Vec<IndexPiece>,
    /// Of a time: its column, and the same condition in two.
    pub time: Option<(&'static str, Bounds)>,
}

impl IndexPiece {
    fn order(&self) -> String {
        self.time.map_or(String::new(), |column| format!(" ORDER BY {{key:{column}}}"))
    }
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

/// Behind one place and up to another.
type Between<'p> = (Option<&'p Place>, Option<&'p Place>);

/// Rows that an index looks up together.
struct Range {
    /// The tenant, and the conditions.
    within: String,
    /// As the index has them. Where they have one key, their numbers are the order: with the key in it SQLite would sort.
    order: String,
}

impl SortKey {
    fn sql(&self) -> String {
        match self {
            Self::Row | Self::Zero => "0".to_owned(),
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

    /// What the branch has behind one place and up to another, as ranges that an index can look up, each by itself. Rows with the
    /// same key (all jobs that wait have run for 0 ms) are told apart by their numbers, but SQLite does not look up a pair of an
    /// expression and a number: it would read from the beginning of the index to the place.
    fn ranges(
        &self,
        branch: &Branch,
        after: Option<&Place>,
        until: Option<&Place>,
        values: &mut Vec<Value>,
    ) -> Result<Vec<Range>, StoreError> {
        let (behind, before) = if self.ascending { (">", "<") } else { ("<", ">") };
        let key = branch.key.sql();
        let mut next = |value: Value| {
            values.push(value);
            format!("${}", values.len())
        };
        // The key of a place and the number of its row, as the text names them.
        let mut bound = |place: Option<&Place>| -> Result<Option<(String, String)>, StoreError> {
            let Some(place) = place else { return Ok(None) };
            let key = match &branch.key {
                SortKey::Row | SortKey::Zero => String::new(),
                SortKey::Time(_) => format!("{{time:{}}}", next(place.key.as_str().into())),
                SortKey::Number { plus, .. } => {
                    let number: i64 = place.key.parse().map_err(|_| StoreError::Conflict("no cursor".to_owned()))?;
                    next(number.saturating_sub(*plus).into())
                }
            };
            Ok(Some((key, next(place.row.into()))))
        };
        let (after, until) = match &branch.key {
            SortKey::Zero => match self.around_zero((after, until))? {
                Some(places) => places,
                None => return Ok(Vec::new()),
            },
            _ => (after, until),
        };
        let (from, to) = (bound(after)?, bound(until)?);
        let is_one_key = matches!((after, until), (Some(after), Some(until)) if after.key == until.key);
        let behind_row = from.as_ref().map(|(_, row)| format!("rowid {behind} {row}"));
        let up_to_row = to.as_ref().map(|(_, row)| format!("rowid {before}= {row}"));
        let by_row = format!("ORDER BY rowid{}", self.direction());
        let by_key = format!("ORDER BY {key}{direction}, rowid{direction}", direction = self.direction());
        let one_key = |bound: &Option<(String, String)>| bound.as_ref().map(|(at, _)| format!("{key} = {at}"));
        // A place is further inside than the branch's own bound on that side. SQLite looks up one condition for each side, and
        // it has to be that one.
        let own = &branch.bounds;
        let [first_own, last_own] = if self.ascending { [&own.lower, &own.upper] } else { [&own.upper, &own.lower] };
        let [first_own, last_own] = [(&from, first_own), (&to, last_own)]
            .map(|(place, own)| own.iter().filter(|_| place.is_none()).cloned().collect::<Vec<_>>());
        let mut ranges: Vec<(Vec<String>, String)> = Vec::new();
        match (&branch.key, &from, &to) {
            (SortKey::Row | SortKey::Zero, ..) => {
                ranges.push((behind_row.into_iter().chain(up_to_row).collect(), by_row))
            }
            (_, Some(_), Some(_)) if is_one_key => {
                ranges.push((one_key(&from).into_iter().chain(behind_row).chain(up_to_row).collect(), by_row));
            }
            _ => {
                let between = [(&from, behind), (&to, before)].into_iter();
                let between = between.filter_map(|(bound, sign)| Some(format!("{key} {sign} {}", bound.as_ref()?.0)));
                ranges.push((between.chain(first_own).chain(last_own).collect(), by_key));
                for (bound, row) in [(&from, behind_row), (&to, up_to_row)] {
                    if let Some(same) = one_key(bound) {
                        ranges.push(([same].into_iter().chain(row).collect(), by_row.clone()));
                    }
                }
            }
        }
        let range = |(conditions, order): (Vec<String>, String)| {
            let conditions: String = conditions.iter().map(|condition| and(condition)).collect();
            // Also those that a place stands in for: a client may have made it up.
            let own: Vec<String> = own.lower.iter().chain(&own.upper).cloned().collect();
            Range { within: format!("tenant_id = $1{}{conditions}{}", and(&branch.only), passing(&own)), order }
        };
        Ok(ranges.into_iter().map(range).collect())
    }

    /// Which of two places lie among rows with the number 0, so that the number of the row counts; `None`: no such row is behind
    /// the one and up to the other.
    fn around_zero<'p>(&self, (after, until): Between<'p>) -> Result<Option<Between<'p>>, StoreError> {
        // Whether zero comes before the place, at it, or behind it.
        let zero = |place: Option<&Place>| -> Result<Option<Ordering>, StoreError> {
            let Some(place) = place else { return Ok(None) };
            let number = place.key.parse::<i64>().map_err(|_| StoreError::Conflict("no cursor".to_owned()))?;
            Ok(Some(if self.ascending { 0.cmp(&number) } else { number.cmp(&0) }))
        };
        let (from, to) = (zero(after)?, zero(until)?);
        if from == Some(Ordering::Less) || to == Some(Ordering::Greater) {
            return Ok(None);
        }
        Ok(Some((after.filter(|_| from == Some(Ordering::Equal)), until.filter(|_| to == Some(Ordering::Equal)))))
    }

    fn direction(&self) -> &'static str {
        if self.ascending { "" } else { " DESC" }
    }

    /// Where the walk through a phase stands after a step; no row: it comes to the end within it.
    pub(super) fn frontier(
        &self,
        phase: &[Branch],
        after: Option<&Place>,
        step: usize,
    ) -> Result<(String, Vec<Value>), StoreError> {
        let mut values = self.values.clone();
        let mut parts = Vec::new();
        for branch in phase {
            for Range { within, order } in self.ranges(branch, after, None, &mut values)? {
                parts.push(format!(
                    "SELECT * FROM (SELECT {key} AS sort_key, rowid AS place FROM {table} {{by:{index}}} WHERE {within} {order}
                       LIMIT 1 OFFSET {skipped}) b",
                    key = branch.key.merged(),
                    table = self.table,
                    index = branch.index,
                    skipped = (step / phase.len()).max(1) - 1,
                ));
            }
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
    pub(super) fn rows(
        &self,
        number: usize,
        after: Option<&Place>,
        until: Option<&Place>,
        limit: usize,
    ) -> Result<(String, Vec<Value>), StoreError> {
        let mut values = self.values.clone();
        let mut parts = Vec::new();
        for branch in &self.phases[number] {
            for Range { within, order } in self.ranges(branch, after, until, &mut values)? {
                parts.push(format!(
                    "SELECT * FROM (SELECT id, {key} AS sort_key, rowid AS place FROM {table} {{by:{index}}}
                       WHERE {within}{filters} {order} LIMIT {limit}) b",
                    key = branch.key.merged(),
                    table = self.table,
                    index = branch.index,
                    filters = passing(&self.filters),
                ));
            }
        }
        let (merged, direction) = (parts.join(" UNION ALL "), self.direction());
        let text = format!(
            "SELECT id, CAST({number} AS BIGINT) AS phase, CAST(sort_key AS TEXT) AS key_text, place FROM ({merged}) m
             ORDER BY sort_key{direction}, place{direction} LIMIT {limit}"
        );
        Ok(with_named(&text, &values))
    }

    /// The next rows of all, by a filter that finds few.
    pub(super) fn few(&self, by: &IndexedFilter, after: Option<&ListPosition>, limit: usize) -> (String, Vec<Value>) {
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
        let of_piece = |piece: &IndexPiece| {
            format!(
                "SELECT * FROM (SELECT id, CAST({phase} AS BIGINT) AS phase, {key} AS sort_key, rowid AS place
                   FROM {table} {{by:{index}}} WHERE tenant_id = $1{only}{filters}{order} LIMIT {most}) p",
                table = self.table,
                index = piece.index,
                only = and(&piece.only),
                filters = passing(&self.all_filters),
                order = piece.order(),
                // Never reached, but for rows that came just now: PostgreSQL reads what is limited before it thinks of the order.
                most = 10 * FEW,
            )
        };
        let text = format!(
            "SELECT id, phase, CAST(sort_key AS TEXT) AS key_text, place FROM ({}) f{behind}
             ORDER BY phase, sort_key{direction}, place{direction} LIMIT {limit}",
            by.pieces.iter().map(of_piece).collect::<Vec<_>>().join(" UNION ALL "),
        );
        with_named(&text, &values)
    }

    /// Whether a filter finds few rows.
    pub(super) fn count(&self, by: &IndexedFilter) -> (String, Vec<Value>) {
        let of_piece = |piece: &IndexPiece| {
            format!(
                "SELECT * FROM (SELECT 1 AS one FROM {} {{by:{}}} WHERE tenant_id = $1{}{} LIMIT {}) p",
                self.table,
                piece.index,
                and(&piece.only),
                piece.order(),
                FEW + 1
            )
        };
        let found = by.pieces.iter().map(of_piece).collect::<Vec<_>>().join(" UNION ALL ");
        with_named(&format!("SELECT COUNT(*) AS n FROM ({found}) f"), &self.values)
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
