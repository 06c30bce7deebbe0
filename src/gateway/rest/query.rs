//! Queries: each path has a type of its own for what it takes. Whatever is not known is refused by name, because a
//! misspelt parameter that is silently left out does something else than was asked.

use std::borrow::Cow;
use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer};

use crate::http::Refusal;

/// Longest wait for a result, in seconds.
const MAX_WAIT: u64 = 60;
/// Longest page of a list.
const MAX_PAGE: u32 = 1000;
/// Length of a page for which the client gives none.
const DEFAULT_PAGE: u32 = 50;

/// Reads a query. The token may stand in that of every path.
pub(super) fn parse<T: DeserializeOwned>(query: Option<&str>) -> Result<T, Refusal> {
    let query = query.unwrap_or_default();
    // The decoder puts a mark in place of what is no text.
    if percent_encoding::percent_decode_str(query).decode_utf8().is_err() {
        return Err(Refusal::invalid("The query is not valid UTF-8"));
    }
    let own: Vec<&str> = query.split('&').filter(|pair| pair.split('=').next() != Some("token")).collect();
    serde_urlencoded::from_str(&own.join("&")).map_err(|error| {
        let error = error.to_string().replacen("unknown field", "Unknown query parameter", 1);
        let error = error.replacen("duplicate field", "This query parameter is there twice:", 1);
        Refusal::invalid(error.replacen("there are no fields", "this path takes none", 1))
    })
}

/// What paths take that take nothing.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NoQuery {}

/// What the lists take that have nothing but pages.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct PageQuery {
    pub(super) limit: PageLength,
    pub(super) after: Given<Cursor>,
}

/// What paths take on which one can wait for a result.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct WaitQuery {
    pub(super) wait: Given<Wait>,
}

/// A parameter that may be left out; an empty one counts as left out.
#[derive(Debug)]
pub(super) struct Given<T>(pub(super) Option<T>);

impl<T> Default for Given<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<'de, T: FromStr<Err: Display>> Deserialize<'de> for Given<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        let value = (!text.is_empty()).then(|| text.parse().map_err(D::Error::custom));
        value.transpose().map(Self)
    }
}

/// `limit`: how many rows a page may have.
#[derive(Debug, Default, Deserialize)]
pub(super) struct PageLength(Given<RowCount>);

#[derive(Debug)]
struct RowCount(u32);

impl PageLength {
    pub(super) fn rows(&self) -> u32 {
        self.0.0.as_ref().map_or(DEFAULT_PAGE, |count| count.0)
    }
}

impl FromStr for RowCount {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let count = text.parse().ok().filter(|count| (1..=MAX_PAGE).contains(count));
        count.map(Self).ok_or_else(|| format!("\"limit\" must be a number from 1 to {MAX_PAGE}"))
    }
}

/// `after`: where a page begins.
#[derive(Debug)]
pub(super) struct Cursor(pub(super) i64);

impl FromStr for Cursor {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let cursor = text.parse().ok().filter(|cursor| *cursor >= 0);
        cursor.map(Self).ok_or("\"after\" must be the \"next\" of the last page")
    }
}

impl Given<Cursor> {
    /// As the store takes it.
    pub(super) fn text(&self) -> Option<String> {
        self.0.as_ref().map(|cursor| cursor.0.to_string())
    }
}

/// `wait`: how long to wait for a result.
#[derive(Debug)]
pub(super) struct Wait(Duration);

impl FromStr for Wait {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let seconds = text.parse().ok().filter(|seconds| *seconds <= MAX_WAIT);
        let wait = seconds.map(|seconds| Self(Duration::from_secs(seconds)));
        wait.ok_or_else(|| format!("\"wait\" must be whole seconds, {MAX_WAIT} at most"))
    }
}

impl WaitQuery {
    pub(super) fn wait(&self) -> Option<Duration> {
        self.wait.0.as_ref().map(|wait| wait.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Query {
        status: Given<String>,
        job_type: Given<String>,
        limit: PageLength,
        after: Given<Cursor>,
        wait: Given<Wait>,
    }

    #[test]
    fn queries_are_decoded_and_what_is_left_out_has_its_default() {
        let query = parse::<Query>(Some("token=x&status=two+words&job_type=a%2Eb&limit=7&after=17")).expect("query");
        assert_eq!((query.status.0.as_deref(), query.job_type.0.as_deref()), (Some("two words"), Some("a.b")));
        assert_eq!((query.limit.rows(), query.after.text().as_deref()), (7, Some("17")));
        for empty in [None, Some(""), Some("status=&limit=&after=&wait"), Some("&&token")] {
            let query = parse::<Query>(empty).expect("query");
            assert!(query.status.0.is_none() && query.after.text().is_none() && query.wait.0.is_none(), "{empty:?}");
            assert_eq!(query.limit.rows(), DEFAULT_PAGE);
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_with_its_name() {
        for (query, part) in [
            ("stat=1", "Unknown query parameter `stat`"),
            ("status=1&status=2", "there twice: `status`"),
            ("status=%ff", "UTF-8"),
            ("limit=0", "\"limit\" must be a number from 1 to 1000"),
            ("limit=1001", "\"limit\" must be"),
            ("limit=x", "\"limit\" must be"),
            ("after=-1", "\"next\" of the last page"),
            ("after=1.5", "\"next\" of the last page"),
            ("after=9223372036854775808", "\"next\" of the last page"),
            ("wait=61", "\"wait\" must be whole seconds, 60 at most"),
            ("wait=-1", "\"wait\" must be"),
            ("wait=1.5", "\"wait\" must be"),
        ] {
            let refusal = parse::<Query>(Some(query)).expect_err(query);
            assert!(refusal.message.contains(part), "{query}: {}", refusal.message);
        }
        let refusal = parse::<NoQuery>(Some("a=1")).expect_err("unknown");
        assert_eq!(refusal.message, "Unknown query parameter `a`, this path takes none");
    }
}
