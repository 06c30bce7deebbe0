//! The live workers: who they are, what they know, what they have to do.

use std::collections::HashMap;

use hyper::StatusCode;
use serde_json::{Map, Value, json};

use super::answer::{Answer, with_timeout};
use super::callers::Callers;
use super::request::Request;
use crate::broker::Broker;
use crate::domain::ResourceKind;
use crate::http::Refusal;
use crate::store::{Store, WorkerInfo, WorkerSession};

/// Shows workers.
pub(super) struct WorkerApi {
    pub(super) callers: Callers,
    pub(super) broker: Broker,
    pub(super) store: Store,
}

impl WorkerApi {
    /// `GET /api/v1/workers`: Redis says who lives, SQL who they are and what they have.
    pub(super) async fn list(&self, request: &Request) -> Result<Answer, Refusal> {
        let caller = self.callers.require_read(request, ResourceKind::Job).await?;
        request.no_query()?;
        let ids = self.broker.live_workers(&caller.tenant).await?;
        let (types, heartbeats) =
            tokio::join!(self.broker.job_types_of(&ids), self.broker.last_heartbeats(&caller.tenant));
        let heartbeats = heartbeats?;
        let infos = with_timeout(self.store.workers(&ids)).await?;
        let loads = with_timeout(self.store.worker_loads(&ids)).await?;
        let mut sessions: HashMap<String, Vec<Value>> = HashMap::new();
        for session in with_timeout(self.store.worker_sessions(&ids)).await? {
            sessions.entry(session.worker.clone()).or_default().push(shown_session(&session));
        }
        let workers = ids.iter().zip(types).map(|(id, types)| {
            let load = loads.get(id.as_str()).copied().unwrap_or_default();
            let mut row = shown(id.as_str(), infos.get(id.as_str()));
            row.insert("job_types".to_owned(), json!(types));
            row.insert("running".to_owned(), load.running.into());
            row.insert("paused".to_owned(), load.paused.into());
            row.insert("attached".to_owned(), load.attached.into());
            row.insert("last_heartbeat".to_owned(), json!(heartbeats.get(id.as_str()).and_then(|ms| time(*ms))));
            row.insert("sessions".to_owned(), sessions.remove(id.as_str()).unwrap_or_default().into());
            Value::Object(row)
        });
        Ok(Answer::json(StatusCode::OK, &json!({"workers": workers.collect::<Vec<_>>()})))
    }
}

/// Who it is, as far as it has said so.
fn shown(id: &str, info: Option<&WorkerInfo>) -> Map<String, Value> {
    let mut row = Map::new();
    row.insert("id".to_owned(), id.into());
    row.insert("name".to_owned(), json!(info.map(|info| &info.name)));
    row.insert("host".to_owned(), json!(info.map(|info| &info.machine)));
    row.insert("pid".to_owned(), json!(info.map(|info| info.pid)));
    row.insert("version".to_owned(), json!(info.map(|info| &info.version)));
    row.insert("started_at".to_owned(), json!(info.and_then(|info| info.started_at.clone())));
    row.insert("slots".to_owned(), json!(info.map(|info| info.slots)));
    row
}

fn shown_session(session: &WorkerSession) -> Value {
    let info = &session.info;
    let known = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    json!({
        "session": info.id,
        "name": info.name,
        "client": info.client.as_deref().and_then(known),
        "host": known(&info.machine),
        "pid": (info.pid > 0).then_some(info.pid),
        "jobs": session.jobs,
    })
}

fn time(ms: i64) -> Option<String> {
    jiff::Timestamp::from_millisecond(ms).ok().map(|time| time.to_string())
}
