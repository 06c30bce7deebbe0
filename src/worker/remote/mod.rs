//! Foreign workers: processes in any language whose work is controlled through this worker
//! (`docs/worker-protocol.md`).
//!
//! | file | what it does |
//! |---|---|
//! | `listener` | answers on `worker.listen`: health, metrics, and who may open a socket |
//! | `socket` | one socket: reads, writes, and keeps the time |
//! | `outbox`, `link` | what is to be sent on a socket; whether a session has one |
//! | `session` | a foreign process, over any number of sockets, with its jobs |
//! | `messages` | what a foreign worker says, and what is done about it |
//! | `attach` | how a session gets a job |
//! | `run` | a run in a foreign process: what it was ordered, and what it has confirmed |
//! | `saves` | the numbers of its resume points |
//! | `supervise` | sees such a run to its end |
//! | `shared` | what all of these use |

mod attach;
mod link;
mod listener;
mod messages;
mod outbox;
mod run;
mod saves;
mod session;
mod shared;
mod socket;
mod supervise;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;

use super::error::WorkerError;
use super::parts::WorkerParts;
use super::run::active_run::ExitReason;
use crate::auth::{Revocations, Verifier};
use crate::http::TrustedProxies;
use crate::http::addresses::AddressLimits;
use crate::http::close::Close;
use crate::http::server::{Listener, Paths, listen};
use crate::http::tls::TlsServer;
use crate::telemetry::exporter::Metrics;
use listener::SqlHealth;
use shared::Shared;

/// How long a worker that leaves takes to write what foreign runs have reported.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);
/// How long ends of foreign runs that are being recorded are waited for.
const RECORD_TIMEOUT: Duration = Duration::from_secs(2);

/// The listener of a worker, and everything behind it.
pub(crate) struct RemoteWorkers {
    shared: Arc<Shared>,
}

impl RemoteWorkers {
    /// Listens, if the settings say where.
    pub(crate) async fn start(parts: &WorkerParts) -> Result<Option<Self>, WorkerError> {
        let ctx = &parts.ctx;
        let Some(address) = ctx.settings.worker.listen else { return Ok(None) };
        let verifier = Verifier::new(&ctx.settings.auth, &ctx.tracker, ctx.end.clone()).await;
        let verifier = verifier.map_err(|error| WorkerError::Tokens(error.to_string()))?;
        let revocations = Revocations::load(ctx.store.clone()).await?;
        ctx.spawn(revocations.clone().poll(ctx.end.clone()));
        let verifier = verifier.refusing(revocations.clone());
        let tls = ctx.settings.server.tls.clone().map(TlsServer::new).transpose().map_err(WorkerError::Tls)?;
        if let Some(tls) = tls.clone() {
            ctx.spawn(tls.keep_fresh(ctx.end.clone()));
        }
        let listen_error = |error| WorkerError::Listen(address, error);
        let listener = listen(address).map_err(listen_error)?;
        let address = listener.local_addr().map_err(listen_error)?;
        let shared = Shared::new(parts, verifier, revocations);
        let (sql, metrics) = (SqlHealth::new(), Metrics::install());
        ctx.spawn(sql.clone().watch(shared.clone()));
        ctx.spawn(metrics.clone().upkeep(ctx.end.clone()));
        let front = Listener {
            role: "worker",
            routes: listener::routes(&shared, &sql, &metrics),
            keep_alive: ctx.settings.server.keep_alive,
            proxies: Arc::new(TrustedProxies::new(&ctx.settings.server)),
            proxy_protocol: false,
            tls,
            paths: Paths::All,
            addresses: AddressLimits::new(&ctx.settings.limits),
            tracker: ctx.tracker.clone(),
            stopping: ctx.stop.clone(),
            killed: ctx.end.clone(),
        };
        let accepting = ctx.clone();
        ctx.spawn(async move { front.accept(listener, &accepting.settings).await });
        tracing::info!(worker_id = %ctx.id, %address, "worker.listening");
        Ok(Some(Self { shared }))
    }

    /// The worker leaves: every session is sent to another worker, and takes its runs along. Their rows are left as they
    /// are, so that nobody else takes the jobs meanwhile.
    pub(crate) async fn leave(&self) {
        let sessions = self.shared.sessions.all();
        let runs: Vec<_> = sessions.iter().flat_map(|session| session.runs()).collect();
        let (ending, going_on): (Vec<_>, Vec<_>) = runs.into_iter().partition(|run| run.work.ended().is_some());
        let flushed = join_all(going_on.iter().map(|run| run.run.flush()));
        let _ = tokio::time::timeout(FLUSH_TIMEOUT, flushed).await;
        for run in &going_on {
            run.work.silence();
            self.shared.runs.remove(&run.run, ExitReason::Elsewhere);
        }
        let recorded = join_all(ending.iter().map(|run| run.run.exited()));
        let _ = tokio::time::timeout(RECORD_TIMEOUT, recorded).await;
        for session in &sessions {
            session.link.close(Close::drain());
        }
    }
}
