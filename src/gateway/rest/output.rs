//! What jobs print.

use hyper::StatusCode;
use serde::{Deserialize, Deserializer};
use serde_json::json;

use super::answer::{Answer, with_timeout};
use super::callers::Callers;
use super::query::{default_limit, limit, optional};
use super::request::{Request, id};
use super::resources::exists;
use crate::domain::{Resource, ResourceKind};
use crate::http::Refusal;
use crate::store::Store;

/// Gives the lines of a job.
pub(super) struct OutputApi {
    pub(super) callers: Callers,
    pub(super) store: Store,
}

/// What `GET /api/v1/jobs/{job_id}/output` takes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OutputQuery {
    #[serde(default, deserialize_with = "line")]
    after: Option<i64>,
    #[serde(default, deserialize_with = "tail")]
    tail: Option<u32>,
    #[serde(default = "default_limit", deserialize_with = "limit")]
    limit: u32,
}

fn line<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    let read = |text: &str| text.parse::<i64>().ok().filter(|line| *line >= 0);
    optional(deserializer, read, "\"after\" must be the number of a line, or the \"next\" of the last answer")
}

fn tail<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    let read = |text: &str| text.parse().ok().filter(|lines| (1..=1_000).contains(lines));
    optional(deserializer, read, "\"tail\" must be a number from 1 to 1000")
}

impl OutputApi {
    /// `GET /api/v1/jobs/{job_id}/output`: lines behind one, or the last ones. `next` is where to go on, also when the job
    /// prints more later: an open line comes again as it has become.
    pub(super) async fn output(&self, request: &Request, text: &str) -> Result<Answer, Refusal> {
        let caller = self.callers.require_read(request, ResourceKind::Job).await?;
        let query: OutputQuery = request.query()?;
        if query.after.is_some() && query.tail.is_some() {
            return Err(Refusal::invalid("Give either \"after\" or \"tail\""));
        }
        let job = Resource::job(caller.tenant, id(text)?);
        exists(&self.store, &job).await?;
        let after = match query.tail {
            Some(lines) => with_timeout(self.store.output_tail(&job, lines)).await?,
            None => query.after.unwrap_or(0),
        };
        let limit = query.tail.unwrap_or(query.limit);
        let mut lines = with_timeout(self.store.job_output(&job, after, limit + 1)).await?;
        let more = lines.len() > limit as usize;
        lines.truncate(limit as usize);
        let first = lines.first().map_or(after, |line| line.line - 1);
        let next = lines.iter().filter(|line| !line.open).map(|line| line.line).next_back().unwrap_or(after);
        let body =
            json!({"job_id": job.id, "lines": lines, "next": next, "more": more, "left_out": (first - after).max(0)});
        Ok(Answer::json(StatusCode::OK, &body))
    }
}
