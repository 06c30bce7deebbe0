//! Walks the whole chain and says what is wrong with it. It reads page by page and remembers a few hashes, so the
//! number of rows does not matter.

use std::collections::VecDeque;

use super::{COLUMNS, audit_row};
use crate::domain::ChainLink;
use crate::store::sql::Row;
use crate::store::{AuditBreak, AuditBreakKind as Kind, AuditVerified, Store, StoreError};

/// Rows of one page.
const PAGE: usize = 1_000;
/// Hashes remembered, to find the row that one out of order follows.
const REMEMBERED: usize = 1_000;

/// Where the chain begins and ends, all read in one moment.
struct Ends {
    head: Option<ChainLink>,
    horizon: Option<ChainLink>,
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
        let upto = ends.newest.max(ends.head.as_ref().map_or(0, |head| head.id));
        let mut walk = Walk::new(ends, expected, report);
        let mut after = walk.before.id;
        while after < upto {
            let text =
                format!("SELECT {COLUMNS} FROM command_audit WHERE id > $1 AND id <= $2 ORDER BY id LIMIT {PAGE}");
            let rows = self.database.read().await?.rows(&text, &[after.into(), upto.into()]).await?;
            let links = rows.iter().map(Link::of).collect::<Result<Vec<_>, _>>()?;
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

    async fn audit_ends(&self) -> Result<Ends, StoreError> {
        let text = "SELECT (SELECT last_id FROM audit_head WHERE id = 1) AS head_id,
            (SELECT hash FROM audit_head WHERE id = 1) AS head_hash,
            (SELECT last_id FROM audit_horizon WHERE id = 1) AS horizon_id,
            (SELECT hash FROM audit_horizon WHERE id = 1) AS horizon_hash,
            (SELECT MAX(id) FROM command_audit) AS newest,
            (SELECT MIN(id) FROM command_audit WHERE id <= (SELECT last_id FROM audit_horizon WHERE id = 1)) AS below_first,
            (SELECT MAX(id) FROM command_audit WHERE id <= (SELECT last_id FROM audit_horizon WHERE id = 1)) AS below_last";
        let row = self.database.read().await?.row(text, &[]).await?;
        let row = row.ok_or_else(|| StoreError::Refused("no answer".to_owned()))?;
        let place = |id: &str, hash: &str| -> Result<Option<ChainLink>, StoreError> {
            Ok(row.int(id)?.zip(row.text(hash)?).map(|(id, hash)| ChainLink { id, hash }))
        };
        Ok(Ends {
            head: place("head_id", "head_hash")?,
            horizon: place("horizon_id", "horizon_hash")?,
            newest: row.int("newest")?.unwrap_or(0),
            below: row.int("below_first")?.zip(row.int("below_last")?),
        })
    }
}

/// A row as the chain sees it.
struct Link {
    place: ChainLink,
    previous_hash: String,
    /// What is wrong with the row by itself, in words.
    wrong: Option<String>,
}

impl Link {
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

struct Walk<'a, F> {
    report: F,
    expected: Option<&'a ChainLink>,
    /// It was met, for good or ill.
    met: bool,
    head: Option<ChainLink>,
    pruned: Option<ChainLink>,
    /// The row that the next one must follow.
    before: ChainLink,
    /// Waits for the one after it, which says whether it belongs to the chain.
    held: Option<Link>,
    /// Places passed, oldest first.
    passed: VecDeque<ChainLink>,
    /// Rows after the one that `audit_head` names: the first and the last.
    beyond: Option<(i64, i64)>,
    rows: u64,
    breaks: u64,
}

impl<'a, F: FnMut(AuditBreak)> Walk<'a, F> {
    fn new(ends: Ends, expected: Option<&'a ChainLink>, report: F) -> Self {
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
        if let Some((first, last)) = ends.below {
            let says = format!(
                "{} at or below row {}, up to which audit_horizon says that old rows were removed: put in by hand, or audit_horizon was changed",
                stand(first, last),
                walk.before.id
            );
            walk.tell(Kind::Inserted, (first, last), says);
        }
        let before = walk.before.clone();
        walk.meet(&before);
        walk
    }

    fn tell(&mut self, kind: Kind, (first, last): (i64, i64), says: String) {
        self.breaks += 1;
        (self.report)(AuditBreak { kind, first, last, says });
    }

    /// Old rows were removed up to here: the chain goes on after it.
    fn pruned_up_to(&mut self, horizon: ChainLink) {
        self.judge(None);
        self.passed.clear();
        self.meet(&horizon);
        if self.head.as_ref().is_some_and(|head| head.id < horizon.id) {
            // So much for the rows of when the walk began.
            self.head = Some(horizon.clone());
        }
        self.before = horizon.clone();
        self.pruned = Some(horizon);
    }

    fn next(&mut self, link: Link) {
        self.rows += 1;
        if self.head.as_ref().is_some_and(|head| link.place.id > head.id) {
            let first = self.beyond.map_or(link.place.id, |(first, _)| first);
            self.beyond = Some((first, link.place.id));
            return;
        }
        self.judge(Some(&link.previous_hash));
        self.held = Some(link);
    }

    /// Judges the row that waits, knowing which hash the one after it follows.
    fn judge(&mut self, followed: Option<&str>) {
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
                self.tell(Kind::Missing, (first, last), format!("{} missing", are(first, last)));
            }
        } else if !follows {
            if followed == Some(before.hash.as_str()) {
                let says = format!(
                    "row {id} does not belong to the chain: the row after it follows row {}. It was put in by hand, or changed and given a new hash",
                    before.id
                );
                self.tell(Kind::Inserted, (id, id), says);
                self.meet(&link.place);
                // The chain goes on without it.
                self.before.id = id;
                return;
            }
            let earlier = self.passed.iter().rev().skip(1).find(|place| place.hash == link.previous_hash);
            if let Some(earlier) = earlier.map(|place| place.id) {
                let (first, last) = (earlier + 1, before.id);
                let says = format!("row {id} follows row {earlier}: {} put in between by hand", were(first, last));
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
        self.meet(&link.place);
        if self.passed.len() == REMEMBERED {
            self.passed.pop_front();
        }
        self.passed.push_back(link.place.clone());
        self.before = link.place;
    }

    /// Compares a place with the one that was kept elsewhere.
    fn meet(&mut self, place: &ChainLink) {
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
        self.judge(head.as_ref().map(|head| head.hash.as_str()));
        let end = self.before.clone();
        match &head {
            None => self.tell(
                Kind::HeadChanged,
                (end.id, end.id),
                "audit_head has no row: where the chain ends is not known".to_owned(),
            ),
            Some(head) if head.id > end.id => {
                let (first, last) = (end.id + 1, head.id);
                let says =
                    format!("{} missing at the end: audit_head says that row {last} is the last", are(first, last));
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
                stand(first, last),
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
        AuditVerified { rows: self.rows, end, pruned: self.pruned, breaks: self.breaks }
    }
}

fn are(first: i64, last: i64) -> String {
    if first == last { format!("row {first} is") } else { format!("rows {first} to {last} are") }
}

fn were(first: i64, last: i64) -> String {
    if first == last { format!("row {first} was") } else { format!("rows {first} to {last} were") }
}

fn stand(first: i64, last: i64) -> String {
    if first == last { format!("row {first} stands") } else { format!("rows {first} to {last} stand") }
}
