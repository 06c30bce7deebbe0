//! What pages show beside lists: how jobs and campaigns are called, and how many jobs have ended when.

use hyper::StatusCode;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};

use super::answer::{Answer, with_timeout};
use super::callers::Callers;
use super::query::optional;
use super::request::Request;
use crate::domain::{JobStatus, ResourceId, ResourceKind};
use crate::http::Refusal;
use crate::store::Store;

/// Names asked for at once, of jobs and of campaigns.
const MAX_NAMES: usize = 100;
/// Minutes of a throughput. [`Store::ended_by_minute`] has those of a day.
const MAX_MINUTES: u32 = 24 * 60;
const DEFAULT_MINUTES: u32 = 60;

/// What `GET /api/v1/names` takes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NamesQuery {
    #[serde(default, deserialize_with = "ids")]
    jobs: Vec<ResourceId>,
    #[serde(default, deserialize_with = "ids")]
    campaigns: Vec<ResourceId>,
}

/// What `GET /api/v1/throughput` takes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ThroughputQuery {
    #[serde(default = "default_minutes", deserialize_with = "minutes")]
    minutes: u32,
}

/// Answers what is asked for many at a glance.
pub(super) struct SummaryApi {
    pub(super) callers: Callers,
    pub(super) store: Store,
}

impl SummaryApi {
    /// `GET /api/v1/names`: titles of jobs and names of campaigns by their ids; those that are not there, may not be read or have
    /// none are left out.
    pub(super) async fn names(&self, request: &Request) -> Result<Answer, Refusal> {
        let (caller, readable) = self.callers.reader_of_any(request, "read names").await?;
        let NamesQuery { jobs, campaigns } = request.query()?;
        let mut named = Map::new();
        for (kind, ids) in [(ResourceKind::Job, jobs), (ResourceKind::Campaign, campaigns)] {
            let names = match readable.contains(&kind) {
                true => with_timeout(self.store.names(&caller.tenant, kind, &ids)).await?,
                false => Vec::new(),
            };
            let names = names.into_iter().map(|(id, name)| (id.to_string(), name.into()));
            named.insert(kind.plural().to_owned(), Value::Object(names.collect()));
        }
        Ok(Answer::json(StatusCode::OK, &Value::Object(named)))
    }

    /// `GET /api/v1/throughput`: how many jobs ended in each of the last minutes, the oldest first; the last of them is not over yet.
    pub(super) async fn throughput(&self, request: &Request) -> Result<Answer, Refusal> {
        let caller = self.callers.require_read(request, ResourceKind::Job).await?;
        let ThroughputQuery { minutes } = request.query()?;
        let (newest, ended) = with_timeout(self.store.ended_by_minute(&caller.tenant, minutes)).await?;
        let until = jiff::Timestamp::from_second((newest + 1) * 60).unwrap_or_default().to_string();
        let mut shown = Map::from_iter([("until".to_owned(), json!(until))]);
        for status in JobStatus::ALL.into_iter().filter(|status| status.is_final()) {
            let mut counts = vec![0_i64; minutes as usize];
            for (minute, _, n) in ended.iter().filter(|(_, of, _)| *of == status) {
                let ago = usize::try_from(newest - minute).unwrap_or(usize::MAX);
                if let Some(count) = counts.iter_mut().rev().nth(ago) {
                    *count += n;
                }
            }
            // Where another system has changed ends of an earlier minute, there may be fewer than none.
            counts.iter_mut().for_each(|count| *count = (*count).max(0));
            shown.insert(status.as_str().to_owned(), json!(counts));
        }
        Ok(Answer::json(StatusCode::OK, &Value::Object(shown)))
    }
}

/// Ids with commas between them.
fn ids<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<ResourceId>, D::Error> {
    let read = |text: &str| {
        let ids: Option<Vec<ResourceId>> = text.split(',').map(|id| id.parse().ok()).collect();
        ids.filter(|ids| ids.len() <= MAX_NAMES)
    };
    let form = format!("\"jobs\" and \"campaigns\" must be ids with commas between them, {MAX_NAMES} of each at most");
    Ok(optional(deserializer, read, &form)?.unwrap_or_default())
}

fn default_minutes() -> u32 {
    DEFAULT_MINUTES
}

fn minutes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let read = |text: &str| text.parse().ok().filter(|minutes| (1..=MAX_MINUTES).contains(minutes));
    let form = format!("\"minutes\" must be a number from 1 to {MAX_MINUTES}");
    Ok(optional(deserializer, read, &form)?.unwrap_or(DEFAULT_MINUTES))
}
