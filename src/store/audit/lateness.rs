//! How far rows are from the order of their times, which is nearly that in which they were written.
//!
//! Entries come from several Redis servers, each with its own clock, and now and then one comes late. The row `audit_head` says by
//! how much at most. So the rows of a span of time are looked for between two rows that are further from it than that, and not
//! among all that are older or newer, and yet none is missed.

use crate::store::StoreError;
use crate::store::sql::{Row, Tx, Value, time_text};

/// Those of `audit_head`.
pub(super) const COLUMNS: &str = "last_id, times_to, latest_at, most_late";

/// See the head of this file. Times are Unix ms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lateness {
    /// The newest row.
    last_id: i64,
    /// Up to this row it is known.
    times_to: i64,
    latest_at: i64,
    most_late: i64,
}

impl Lateness {
    pub(super) fn read(head: &Row) -> Result<Self, StoreError> {
        let number = |column| Ok::<_, StoreError>(head.int(column)?.unwrap_or(0));
        Ok(Self {
            last_id: number("last_id")?,
            times_to: number("times_to")?,
            latest_at: number("latest_at")?,
            most_late: number("most_late")?,
        })
    }

    /// Takes in the newest rows where a program has written them that knows nothing of this.
    pub(super) async fn catch_up(&mut self, tx: &mut Tx) -> Result<(), StoreError> {
        if self.times_to == self.last_id {
            return Ok(());
        }
        let text =
            "SELECT CAST(MIN({ms:at}) AS TEXT) AS earliest, CAST(MAX({ms:at}) AS TEXT) AS latest FROM command_audit
                    WHERE id > $1 AND id <= $2";
        let found = tx.row(text, &[self.times_to.into(), self.last_id.into()]).await?;
        for column in ["latest", "earliest"] {
            let text = found.as_ref().map(|row| row.text(column)).transpose()?.flatten();
            let time = crate::store::rows::time(text).and_then(|text| text.parse::<jiff::Timestamp>().ok());
            // The earliest as if it were the last of them: at least as late as it is.
            time.into_iter().for_each(|time| self.add(time.as_millisecond()));
        }
        self.times_to = self.last_id;
        Ok(())
    }

    /// One more row, of this time.
    pub(super) fn add(&mut self, at: i64) {
        self.most_late = self.most_late.max(self.latest_at.saturating_sub(at));
        self.latest_at = self.latest_at.max(at);
    }

    /// `latest_at`, `most_late`.
    pub(super) fn values(&self) -> [Value; 2] {
        [self.latest_at.into(), self.most_late.into()]
    }

    /// Between which rows, both left out, all rows are that are not older than `since` and older than `until`; 0 and `i64::MAX`
    /// where nothing is known.
    pub(super) async fn rows_between(
        &self,
        tx: &mut Tx,
        since: Option<i64>,
        until: Option<i64>,
    ) -> Result<(i64, i64), StoreError> {
        let (mut above, mut below) = (0, i64::MAX);
        // Only rows of which it is known: a row that comes just now may be later than any before it.
        let is_known = self.times_to == self.last_id;
        let far = jiff::Timestamp::MAX.as_millisecond();
        if let Some(older) = since.map(|since| since.saturating_sub(self.most_late)).filter(|older| *older > 0) {
            // Whatever stands before a row that is older than that is older than `since`.
            let text = "SELECT id FROM command_audit {by:command_audit_by_time} WHERE {ms:at} < {time:$1} AND id <= $2
                        ORDER BY {ms:at} DESC, id DESC LIMIT 1";
            let row = tx.row(text, &[time_text(older).into(), self.times_to.into()]).await?;
            above = row.map(|row| row.int("id")).transpose()?.flatten().unwrap_or(above);
        }
        if let Some(newer) =
            until.map(|until| until.saturating_add(self.most_late)).filter(|newer| is_known && *newer < far)
        {
            // Whatever stands behind a row that is as new as that is not older than `until`.
            let text = "SELECT id FROM command_audit {by:command_audit_by_time} WHERE {ms:at} >= {time:$1} AND id <= $2
                        ORDER BY {ms:at}, id LIMIT 1";
            let row = tx.row(text, &[time_text(newer).into(), self.times_to.into()]).await?;
            below = row.map(|row| row.int("id")).transpose()?.flatten().unwrap_or(below);
        }
        Ok((above, below))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_as_late_as_the_latest_before_it_is_newer() {
        let mut lateness = Lateness { last_id: 0, times_to: 0, latest_at: 0, most_late: 0 };
        for (at, late) in
            [(1_000, 0), (3_000, 0), (2_500, 500), (2_900, 500), (9_000, 500), (1, 8_999), (i64::MIN, i64::MAX)]
        {
            lateness.add(at);
            assert_eq!(lateness.most_late, late, "after {at}");
        }
    }
}
