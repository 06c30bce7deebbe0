//! Walks the whole chain and says what is wrong with it. It reads page by page and remembers a few hashes, so the
//! number of rows does not matter.

use std::collections::VecDeque;

use super::{COLUMNS, audit_row};
use crate::domain::ChainLink;
use crate::store::sql::{Row, time_text};
use crate::store::{AuditBreak, AuditBreakKind as Kind, AuditVerified, Pruning, Store, StoreError, rows};

/// Rows of one page.
const PAGE: usize = 1_000;
/// Hashes remembered, to find the row that one out of order follows.
const REMEMBERED: usize = 1_000;

/// Clocks of two machines may differ by so much, in ms.
const CLOCKS_DIFFER_MS: i64 = 5 * 60 * 1_000;

/// Where the chain begins and ends, all read in one moment.
struct ChainEnds {
    head: Option<ChainLink>,
    horizon: Option<ChainLink>,
    /// The time than which all were older that were removed.
    older_than: Option<String>,
    /// Rows on record as removed at a time that has not come yet: the first and the last.
    early: Option<(i64, i64)>,
    /// The highest id there is.
    newest: i64,
    /// Rows at or below the horizon, and the first and last of them: there should be none.
    below: Option<(i64, i64)>,
}

impl Store {
    /// Checks every row up to the newest one of now against the one before it, and the ends against `audit_head`
    /// and `audit_horizon`; and against a place in the chain that was kept elsewhere. Rows may be appended and old
    /// ones removed meanwhile. `report` hears of each thing that is wrong, in the order of the rows.
    pub async fn verify_audit(
        &self,
        expected: Option<&ChainLink>,
        report: impl FnMut(AuditBreak),
    ) -> Result<AuditVerified, StoreError> {
        let ends = self.audit_ends().await?;
        let mut verified = self.walk_audit(ends, expected, report).await?;
        verified.oldest = self.oldest_audit_row().await?;
        (verified.recorded_rows, verified.last_pruning) = self.prunings().await?;
        Ok(verified)
    }

    /// The same of so many of the newest rows at most: for somebody who waits for the answer. Where there are more, the
    /// row before them is taken as it stands. Also gives the id of that row, 0 for the chain's beginning.
    pub async fn verify_newest_audit(
        &self,
        most: u32,
        report: impl FnMut(AuditBreak),
    ) -> Result<(i64, AuditVerified), StoreError> {
        let mut ends = self.audit_ends().await?;
        let head = ends.head.as_ref().map_or(0, |head| head.id);
        let begin = head.max(ends.newest) - i64::from(most);
        if ends.horizon.as_ref().is_some_and(|horizon| horizon.id < begin) {
            let text = "SELECT id, hash FROM command_audit WHERE id <= $1 ORDER BY id DESC LIMIT 1";
            let row = self.database.read().await?.row(text, &[begin.into()]).await?;
            if let Some(row) = row
                && let Some((id, hash)) = row.int("id")?.zip(row.text("hash")?)
            {
                ends.begin_at(ChainLink { id, hash });
            }
        }
        let after = ends.horizon.as_ref().map_or(0, |horizon| horizon.id);
        Ok((after, self.walk_audit(ends, None, report).await?))
    }

    async fn walk_audit(
        &self,
        ends: ChainEnds,
        expected: Option<&ChainLink>,
        report: impl FnMut(AuditBreak),
    ) -> Result<AuditVerified, StoreError> {
        let upto = ends.newest.max(ends.head.as_ref().map_or(0, |head| head.id));
        let mut walk = ChainWalk::new(ends, expected, report);
        let mut after = walk.before.id;
        while after < upto {
            let text =
                format!("SELECT {COLUMNS} FROM command_audit WHERE id > $1 AND id <= $2 ORDER BY id LIMIT {PAGE}");
            let rows = self.database.read().await?.rows(&text, &[after.into(), upto.into()]).await?;
            let links = rows.iter().map(ChainRow::of).collect::<Result<Vec<_>, _>>()?;
            if links.first().is_none_or(|first| first.place.id != after + 1)
                && let Some(horizon) = self.audit_ends().await?.horizon
                && horizon.id > after
            {
                // They were removed while we were on the way.
                after = horizon.id;
                walk.pruned_up_to(horizon);
                continue;
            }
            let Some(last) = links.last() else { break };
            after = last.place.id;
            for link in links {
                walk.next(link);
            }
        }
        Ok(walk.end())
    }

    async fn oldest_audit_row(&self) -> Result<Option<(i64, String)>, StoreError> {
        let text = "SELECT id, CAST(at AS TEXT) AS at FROM command_audit ORDER BY id LIMIT 1";
        let Some(row) = self.database.read().await?.row(text, &[]).await? else { return Ok(None) };
        Ok(row.int("id")?.zip(rows::time(row.text("at")?)))
    }

    /// How many rows `audit_prunings` has on record as removed because of their age, and the newest entry of it.
    async fn prunings(&self) -> Result<(u64, Option<Pruning>), StoreError> {
        let text = "SELECT (SELECT CAST(SUM(last_id - first_id + 1) AS BIGINT) FROM audit_prunings) AS rows_gone,
              first_id, last_id, worker_id, CAST(oldest AS TEXT) AS oldest, CAST(newest AS TEXT) AS newest,
              CAST(older_than AS TEXT) AS older_than, CAST(worker_clock AS TEXT) AS worker_clock,
              CAST(redis_clock AS TEXT) AS redis_clock
            FROM audit_prunings ORDER BY last_id DESC LIMIT 1";
        let Some(row) = self.database.read().await?.row(text, &[]).await? else { return Ok((0, None)) };
        let time = |column: &str| Ok::<_, StoreError>(rows::time(row.text(column)?).unwrap_or_default());
        let pruning = Pruning {
            first_id: row.int("first_id")?.unwrap_or(0),
            last_id: row.int("last_id")?.unwrap_or(0),
            oldest: time("oldest")?,
            newest: time("newest")?,
            older_than: time("older_than")?,
            worker_id: row.required("worker_id")?,
            worker_clock: time("worker_clock")?,
            redis_clock: time("redis_clock")?,
        };
        Ok((row.int("rows_gone")?.and_then(|n| u64::try_from(n).ok()).unwrap_or(0), Some(pruning)))
    }

    async fn audit_ends(&self) -> Result<ChainEnds, StoreError> {
        let ahead = time_text(now_ms() + CLOCKS_DIFFER_MS);
        let text = "SELECT (SELECT last_id FROM audit_head WHERE id = 1) AS head_id,
            (SELECT hash FROM audit_head WHERE id = 1) AS head_hash,
            (SELECT last_id FROM audit_horizon WHERE id = 1) AS horizon_id,
            (SELECT hash FROM audit_horizon WHERE id = 1) AS horizon_hash,
            (SELECT CAST(older_than AS TEXT) FROM audit_horizon WHERE id = 1) AS older_than,
            (SELECT MIN(first_id) FROM audit_prunings WHERE {ms:worker_clock} > {time:$1}) AS early_first,
            (SELECT MAX(last_id) FROM audit_prunings WHERE {ms:worker_clock} > {time:$1}) AS early_last,
            (SELECT MAX(id) FROM command_audit) AS newest,
            (SELECT MIN(id) FROM command_audit WHERE id <= (SELECT last_id FROM audit_horizon WHERE id = 1)) AS below_first,
            (SELECT MAX(id) FROM command_audit WHERE id <= (SELECT last_id FROM audit_horizon WHERE id = 1)) AS below_last";
        let row = self.database.read().await?.row(text, &[ahead.into()]).await?;
        let row = row.ok_or_else(|| StoreError::Refused("no answer".to_owned()))?;
        let place = |id: &str, hash: &str| -> Result<Option<ChainLink>, StoreError> {
            Ok(row.int(id)?.zip(row.text(hash)?).map(|(id, hash)| ChainLink { id, hash }))
        };
        Ok(ChainEnds {
            head: place("head_id", "head_hash")?,
            horizon: place("horizon_id", "horizon_hash")?,
            older_than: rows::time(row.text("older_than")?),
            early: row.int("early_first")?.zip(row.int("early_last")?),
            newest: row.int("newest")?.unwrap_or(0),
            below: row.int("below_first")?.zip(row.int("below_last")?),
        })
    }
}

impl ChainEnds {
    /// Leaves out what lies before a row, and what is known of it.
    fn begin_at(&mut self, row: ChainLink) {
        self.horizon = Some(row);
        (self.older_than, self.early, self.below) = (None, None, None);
    }
}

/// A row as the chain sees it.
struct ChainRow {
    place: ChainLink,
    previous_hash: String,
    /// What is wrong with the row by itself, in words.
    wrong: Option<String>,
}

impl ChainRow {
    fn of(row: &Row) -> Result<Self, StoreError> {
        let id = row.int("id")?.unwrap_or(0);
        Ok(match audit_row(row) {
            Ok(read) => {
                let e = &read.entry;
                let wrong = (!read.is_intact()).then(|| {
                    format!(
                        "row {id} is not as it was written: its hash is not that of what it says, which is {:?} {} of {} {:?} by {:?} in {:?} at {}",
                        e.event, e.action, e.resource_kind, e.resource_id, e.user_id, e.tenant_id, read.time
                    )
                });
                Self { place: ChainLink { id, hash: read.hash }, previous_hash: read.previous_hash, wrong }
            }
            Err(error) => Self {
                // What can be read of it still shows where it belongs.
                place: ChainLink { id, hash: row.text("hash").ok().flatten().unwrap_or_default() },
                previous_hash: row.text("previous_hash").ok().flatten().unwrap_or_default(),
                wrong: Some(format!("row {id} is not as it was written: it cannot be read ({error})")),
            },
        })
    }
}

struct ChainWalk<'a, F> {
    report: F,
    expected: Option<&'a ChainLink>,
    /// It was met, for good or ill.
    met: bool,
    head: Option<ChainLink>,
    pruned: Option<ChainLink>,
    /// The row that the next one must follow.
    before: ChainLink,
    /// Waits for the one after it, which says whether it belongs to the chain.
    held: Option<ChainRow>,
    /// Places passed, oldest first.
    passed: VecDeque<ChainLink>,
    /// Rows after the one that `audit_head` names: the first and the last.
    beyond: Option<(i64, i64)>,
    rows: u64,
    breaks: u64,
}

impl<'a, F: FnMut(AuditBreak)> ChainWalk<'a, F> {
    fn new(ends: ChainEnds, expected: Option<&'a ChainLink>, report: F) -> Self {
        let start = ChainLink { id: 0, hash: String::new() };
        let mut walk = Self {
            report,
            expected,
            met: false,
            head: ends.head,
            pruned: ends.horizon.clone().filter(|horizon| horizon.id > 0),
            before: ends.horizon.clone().unwrap_or(start),
            held: None,
            passed: VecDeque::new(),
            beyond: None,
            rows: 0,
            breaks: 0,
        };
        if ends.horizon.is_none() {
            walk.tell(
                Kind::HorizonChanged,
                (0, 0),
                "audit_horizon has no row: where the chain begins is not known".to_owned(),
            );
        }
        if let Some((first, last)) = ends.early {
            let says = format!(
                "{} removed because of their age at a time that lies ahead of this machine's clock: one of the clocks was wrong, and perhaps rows went that were to be kept",
                rows_were(first, last)
            );
            walk.tell(Kind::PrunedTooEarly, (first, last), says);
        } else if let (Some(horizon), Some(older_than)) = (&ends.horizon, &ends.older_than)
            && horizon.id > 0
            && older_than.parse::<jiff::Timestamp>().is_ok_and(|at| at.as_millisecond() > now_ms() + CLOCKS_DIFFER_MS)
        {
            let says = format!(
                "rows 1 to {} were removed because they were older than {older_than}, which lies ahead of this machine's clock: one of the clocks was wrong, and rows went that were to be kept",
                horizon.id
            );
            walk.tell(Kind::PrunedTooEarly, (1, horizon.id), says);
        }
        if let Some((first, last)) = ends.below {
            let says = format!(
                "{} at or below row {}, up to which audit_horizon says that old rows were removed: put in by hand, or audit_horizon was changed",
                rows_stand(first, last),
                walk.before.id
            );
            walk.tell(Kind::Inserted, (first, last), says);
        }
        let before = walk.before.clone();
        walk.compare_expected(&before);
        walk
    }

    fn tell(&mut self, kind: Kind, (first, last): (i64, i64), says: String) {
        self.breaks += 1;
        (self.report)(AuditBreak { kind, first, last, says });
    }

    /// Old rows were removed up to here: the chain goes on after it.
    fn pruned_up_to(&mut self, horizon: ChainLink) {
        self.check_held_row(None);
        self.passed.clear();
        self.compare_expected(&horizon);
        if self.head.as_ref().is_some_and(|head| head.id < horizon.id) {
            // So much for the rows of when the walk began.
            self.head = Some(horizon.clone());
        }
        self.before = horizon.clone();
        self.pruned = Some(horizon);
    }

    fn next(&mut self, link: ChainRow) {
        self.rows += 1;
        if self.head.as_ref().is_some_and(|head| link.place.id > head.id) {
            let first = self.beyond.map_or(link.place.id, |(first, _)| first);
            self.beyond = Some((first, link.place.id));
            return;
        }
        self.check_held_row(Some(&link.previous_hash));
        self.held = Some(link);
    }

    /// Judges the row that waits, knowing which hash the one after it follows.
    fn check_held_row(&mut self, followed: Option<&str>) {
        let Some(link) = self.held.take() else { return };
        let (id, before) = (link.place.id, self.before.clone());
        let follows = link.previous_hash == before.hash;
        if id > before.id + 1 {
            let (first, last) = (before.id + 1, id - 1);
            if follows {
                let says = format!(
                    "row {id} follows row {} by its hash, and yet the ids between are free: rows were renumbered",
                    before.id
                );
                self.tell(Kind::Renumbered, (first, id), says);
            } else {
                self.tell(Kind::Missing, (first, last), format!("{} missing", rows_are(first, last)));
            }
        } else if !follows {
            if followed == Some(before.hash.as_str()) {
                let says = format!(
                    "row {id} does not belong to the chain: the row after it follows row {}. It was put in by hand, or changed and given a new hash",
                    before.id
                );
                self.tell(Kind::Inserted, (id, id), says);
                self.compare_expected(&link.place);
                // The chain goes on without it.
                self.before.id = id;
                return;
            }
            let earlier = self.passed.iter().rev().skip(1).find(|place| place.hash == link.previous_hash);
            if let Some(earlier) = earlier.map(|place| place.id) {
                let (first, last) = (earlier + 1, before.id);
                let says = format!("row {id} follows row {earlier}: {} put in between by hand", rows_were(first, last));
                self.tell(Kind::Inserted, (first, last), says);
            } else {
                let says = format!(
                    "row {id} was written after another row than row {}, as that stands there now: it was changed and given a new hash, or rows were put in or taken out here and all later ones renumbered",
                    before.id
                );
                self.tell(Kind::Replaced, (before.id, id), says);
            }
        }
        if let Some(wrong) = link.wrong {
            self.tell(Kind::Changed, (id, id), wrong);
        }
        self.compare_expected(&link.place);
        if self.passed.len() == REMEMBERED {
            self.passed.pop_front();
        }
        self.passed.push_back(link.place.clone());
        self.before = link.place;
    }

    /// Compares a place with the one that was kept elsewhere.
    fn compare_expected(&mut self, place: &ChainLink) {
        let Some(expected) = self.expected.filter(|expected| expected.id == place.id) else { return };
        self.met = true;
        if expected.hash != place.hash {
            let says =
                format!("row {} has not the hash that was kept: it or something before it was changed", place.id);
            self.tell(Kind::NotAsExpected, (place.id, place.id), says);
        }
    }

    fn end(mut self) -> AuditVerified {
        let head = self.head.clone();
        self.check_held_row(head.as_ref().map(|head| head.hash.as_str()));
        let end = self.before.clone();
        match &head {
            None => self.tell(
                Kind::HeadChanged,
                (end.id, end.id),
                "audit_head has no row: where the chain ends is not known".to_owned(),
            ),
            Some(head) if head.id > end.id => {
                let (first, last) = (end.id + 1, head.id);
                let says = format!(
                    "{} missing at the end: audit_head says that row {last} is the last",
                    rows_are(first, last)
                );
                self.tell(Kind::CutOff, (first, last), says);
            }
            Some(head) if *head != end => {
                let says = format!(
                    "audit_head names row {} with another hash than that of row {}, the last there should be: one of the two was changed",
                    head.id, end.id
                );
                self.tell(Kind::HeadChanged, (end.id, end.id), says);
            }
            Some(_) => {}
        }
        if let Some((first, last)) = self.beyond {
            let says = format!(
                "{} after row {}, which audit_head says is the last: put in by hand, or audit_head was changed",
                rows_stand(first, last),
                end.id
            );
            self.tell(Kind::Inserted, (first, last), says);
        }
        if let Some(expected) = self.expected.filter(|_| !self.met) {
            let says = if self.pruned.as_ref().is_some_and(|pruned| expected.id < pruned.id) {
                format!(
                    "row {} was removed because of its age: what was kept of it cannot be compared any more",
                    expected.id
                )
            } else {
                format!("row {} is not there, and was when its hash was kept", expected.id)
            };
            self.tell(Kind::NotAsExpected, (expected.id, expected.id), says);
        }
        AuditVerified {
            rows: self.rows,
            end,
            pruned_rows: self.pruned.as_ref().and_then(|pruned| u64::try_from(pruned.id).ok()).unwrap_or(0),
            pruned: self.pruned,
            recorded_rows: 0,
            last_pruning: None,
            oldest: None,
            breaks: self.breaks,
        }
    }
}

fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

fn rows_are(first: i64, last: i64) -> String {
    if first == last { format!("row {first} is") } else { format!("rows {first} to {last} are") }
}

fn rows_were(first: i64, last: i64) -> String {
    if first == last { format!("row {first} was") } else { format!("rows {first} to {last} were") }
}

fn rows_stand(first: i64, last: i64) -> String {
    if first == last { format!("row {first} stands") } else { format!("rows {first} to {last} stand") }
}
