//! Where a list goes on: a text for the client, good for the same question alone.

use std::fmt::Debug;

use sha2::{Digest, Sha256};

use super::sql::Row;
use super::{JobSort, StoreError};

/// Words of a text that is no cursor.
const NO_CURSOR: &str = "\"after\" must be the \"next\" of the last page";
/// Words of a cursor that belongs to other filters, or another order.
const OTHER_LIST: &str =
    "\"after\" is the \"next\" of another list: filters, search and order must be those of the page it came with";

/// A row in the order of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// What the list is sorted by.
    pub key: String,
    /// The row's number, among rows with the same key.
    pub row: i64,
}

/// How far a list has been read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ListPosition {
    /// In which part of it.
    pub phase: usize,
    /// Behind which row of that part; `None`: at its beginning.
    pub place: Option<Place>,
    /// Rows that were looked at for a filter without an index.
    pub searched: u64,
}

impl Place {
    pub fn read(row: &Row) -> Result<Self, StoreError> {
        Ok(Self { key: row.text("key_text")?.unwrap_or_default(), row: row.int("place")?.unwrap_or(0) })
    }
}

impl ListPosition {
    /// Whether what stands in it can be compared with what the list is sorted by: a client may have written the cursor
    /// itself, and PostgreSQL ends the statement where a text is no time.
    pub fn fits(&self, sort: JobSort) -> Result<(), &'static str> {
        let Some(Place { key, .. }) = &self.place else { return Ok(()) };
        let fits = match sort {
            JobSort::Unfinished => true,
            JobSort::Created | JobSort::Updated => is_time(key),
            JobSort::Duration => key.parse::<i64>().is_ok(),
        };
        if fits { Ok(()) } else { Err(NO_CURSOR) }
    }
}

/// Whether a text is a time as the databases write it: `2026-01-02T03:04:05.678Z`, `2026-01-02 03:04:05.678+00`.
fn is_time(text: &str) -> bool {
    let has_no_more = text.bytes().all(|byte| byte.is_ascii_digit() || b"-+:. TZ".contains(&byte));
    let offset = text.get(10..).and_then(|time| time.rsplit_once(['+', '-'])).map(|(_, offset)| offset);
    // PostgreSQL knows no offset of 16 hours.
    let near = offset.is_none_or(|offset| offset.get(..2).is_some_and(|hours| hours < "16"));
    has_no_more && near && text.parse::<jiff::Timestamp>().is_ok()
}

/// What a question is known by: a cursor of another one is refused.
fn digest(question: &impl Debug) -> String {
    let hash = Sha256::digest(format!("{question:?}"));
    hex::encode(&hash[..6])
}

/// The cursor of a position in the answer to a question, begun at this time (Unix ms).
pub(super) fn write(question: &impl Debug, begun: i64, position: &ListPosition) -> String {
    let (key, row) = position.place.as_ref().map_or(("", -1), |place| (place.key.as_str(), place.row));
    let text = format!("{}|{begun}|{}|{}|{row}|{key}", digest(question), position.phase, position.searched);
    hex::encode(text)
}

/// The inverse of [`write`]; the words of an error are for the client.
pub(super) fn read(question: &impl Debug, text: &str) -> Result<(i64, ListPosition), &'static str> {
    let bytes = hex::decode(text).map_err(|_| NO_CURSOR)?;
    let text = String::from_utf8(bytes).map_err(|_| NO_CURSOR)?;
    let parts: Vec<&str> = text.splitn(6, '|').collect();
    let [of, begun, phase, searched, row, key] = parts[..] else { return Err(NO_CURSOR) };
    if of != digest(question) {
        return Err(OTHER_LIST);
    }
    let number = |text: &str| text.parse::<i64>().map_err(|_| NO_CURSOR);
    let row = number(row)?;
    let place = (row >= 0).then(|| Place { key: key.to_owned(), row });
    let phase = phase.parse::<usize>().ok().filter(|phase| *phase < 2).ok_or(NO_CURSOR)?;
    Ok((number(begun)?, ListPosition { phase, place, searched: searched.parse().map_err(|_| NO_CURSOR)? }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_made_up_is_no_time_and_what_the_databases_write_is() {
        let fits = |sort: JobSort, key: &str| {
            let place = Some(Place { key: key.to_owned(), row: 1 });
            ListPosition { phase: 0, place, searched: 0 }.fits(sort).is_ok()
        };
        for time in ["2026-01-02T03:04:05.678Z", "2026-01-02 03:04:05.67892+00", "2026-01-02 03:04:05-09:30"] {
            assert!(fits(JobSort::Created, time) && fits(JobSort::Updated, time), "{time}");
        }
        for odd in [
            "",
            "0",
            "x') OR 1=1 --",
            "2026-13-02T03:04:05Z",
            "2026-01-02 03:04:05+16",
            "2026-01-02T03:04:05Z[UTC]",
            "now",
            "\0",
        ] {
            assert!(!fits(JobSort::Created, odd), "{odd}");
        }
        assert!(fits(JobSort::Duration, "-5") && !fits(JobSort::Duration, "5.5") && fits(JobSort::Unfinished, "0"));
    }

    #[test]
    fn a_cursor_comes_back_as_it_was_and_only_to_its_question() {
        let place = Some(Place { key: "2026-01-02 03:04:05+00|x".to_owned(), row: 7 });
        let position = ListPosition { phase: 1, place, searched: 4_000 };
        let text = write(&"jobs", 12, &position);
        assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{text}");
        assert_eq!(read(&"jobs", &text), Ok((12, position)));
        let start = ListPosition { phase: 1, place: None, searched: 0 };
        assert_eq!(read(&"jobs", &write(&"jobs", 0, &start)), Ok((0, start)));
        assert_eq!(read(&"campaigns", &text), Err(OTHER_LIST));
        for odd in ["", "17", "zz", "ff", &text[2..], &hex::encode("a|b|c"), &text[..text.len() - 3]] {
            assert!(read(&"jobs", odd).is_err(), "{odd}");
        }
    }
}
