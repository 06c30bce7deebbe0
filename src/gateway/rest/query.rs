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
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PageQuery {
    #[serde(default = "default_limit", deserialize_with = "limit")]
    pub(super) limit: u32,
    #[serde(default, deserialize_with = "after")]
    pub(super) after: Option<String>,
}

/// What paths take on which one can wait for a result.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WaitQuery {
    #[serde(default, deserialize_with = "wait")]
    pub(super) wait: Option<Duration>,
}

/// A parameter that may be left out; an empty one counts as left out. `form` says what it has to be.
pub(super) fn optional<'de, D: Deserializer<'de>, T>(
    deserializer: D,
    read: impl FnOnce(&str) -> Option<T>,
    form: &str,
) -> Result<Option<T>, D::Error> {
    let text = Cow::<str>::deserialize(deserializer)?;
    if text.is_empty() { Ok(None) } else { read(&text).map(Some).ok_or_else(|| D::Error::custom(form)) }
}

/// As [`optional`], for types that say themselves what they have to be.
pub(super) fn parsed<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: Display>,
{
    let text = Cow::<str>::deserialize(deserializer)?;
    (!text.is_empty()).then(|| text.parse().map_err(D::Error::custom)).transpose()
}

pub(super) fn default_limit() -> u32 {
    DEFAULT_PAGE
}

/// How many rows a page may have.
pub(super) fn limit<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let read = |text: &str| text.parse().ok().filter(|limit| (1..=MAX_PAGE).contains(limit));
    let form = format!("\"limit\" must be a number from 1 to {MAX_PAGE}");
    Ok(optional(deserializer, read, &form)?.unwrap_or(DEFAULT_PAGE))
}

/// Where a page begins.
pub(super) fn after<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let read = |text: &str| text.parse::<i64>().ok().filter(|row| *row >= 0).map(|row| row.to_string());
    optional(deserializer, read, "\"after\" must be the \"next\" of the last page")
}

fn wait<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let read = |text: &str| text.parse().ok().filter(|wait| *wait <= MAX_WAIT).map(Duration::from_secs);
    optional(deserializer, read, &format!("\"wait\" must be whole seconds, {MAX_WAIT} at most"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Query {
        #[serde(default, deserialize_with = "parsed")]
        status: Option<String>,
        #[serde(default = "default_limit", deserialize_with = "limit")]
        limit: u32,
        #[serde(default, deserialize_with = "after")]
        after: Option<String>,
        #[serde(default, deserialize_with = "wait")]
        wait: Option<Duration>,
    }

    #[test]
    fn queries_are_decoded_and_what_is_left_out_has_its_default() {
        let query = parse::<Query>(Some("token=x&status=two+wor%64s&limit=7&after=17")).expect("query");
        let Query { status, limit, after, wait } = query;
        assert_eq!((status.as_deref(), limit, after.as_deref(), wait), (Some("two words"), 7, Some("17"), None));
        for empty in [None, Some(""), Some("status=&limit=&after=&wait"), Some("&&token")] {
            let Query { status, limit, after, wait } = parse(empty).expect("query");
            assert_eq!((status, limit, after, wait), (None, DEFAULT_PAGE, None, None), "{empty:?}");
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
