//! Many commands in one request.

use std::sync::Arc;

use hyper::StatusCode;

use super::answer::Answer;
use super::callers::Callers;
use super::query::WaitQuery;
use super::request::Request;
use crate::gateway::batch::{BatchOutcome, BatchSubmitter, waiting};
use crate::gateway::results::waiter::ResultWaiter;
use crate::http::Refusal;
use crate::protocol::MAX_BATCH_FRAME;
use crate::protocol::tenant::parse_batch;

/// Takes batches.
pub(super) struct BatchApi {
    pub(super) callers: Callers,
    pub(super) batches: Arc<BatchSubmitter>,
    pub(super) waiter: ResultWaiter,
}

impl BatchApi {
    /// `POST /api/v1/batch`: what is sent on the tenant-wide socket, and what is answered there; with `wait` the summary.
    pub(super) async fn batch(&self, request: &mut Request) -> Result<Answer, Refusal> {
        let caller = Arc::new(self.callers.caller(request).await?);
        let wait = request.query::<WaitQuery>()?.wait;
        let body = self.callers.body(request, &caller, MAX_BATCH_FRAME).await?;
        let text = std::str::from_utf8(&body).map_err(|_| Refusal::invalid("The body is not valid UTF-8"))?;
        let asked = parse_batch(text)?;
        match self.batches.ask(&caller, asked, request.address().as_deref()).await? {
            BatchOutcome::Preview(message) => Ok(Answer::message(StatusCode::OK, message)),
            BatchOutcome::Accepted(accepted) => {
                let summary = match wait {
                    Some(wait) => waiting::completed(&self.waiter, &accepted, wait).await,
                    None => None,
                };
                Ok(match summary {
                    Some(summary) => Answer::message(StatusCode::OK, summary),
                    None => Answer::message(StatusCode::ACCEPTED, accepted.message()),
                })
            }
        }
    }
}
