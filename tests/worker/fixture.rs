//! One Redis, one SQLite file, any number of workers in this process, and everything that is published.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wheelhouse::broker::scripts::submit::{ClientOrigin, Grant, Submission, SubmitLimits, SubmitOutcome};
use wheelhouse::broker::scripts::updates::JobWake;
use wheelhouse::broker::{Broker, Event, Subscriber};
use wheelhouse::config::{self, Settings};
use wheelhouse::domain::{Action, CommandId, Job as Row, JobStatus, JsonText, Resource, When, WorkerId};
use wheelhouse::store::{NewCampaign, NewJob, Store};
use wheelhouse::worker::{Job, JobContext, JobError, WorkerBuilder};

use crate::support::base::Base;
use crate::support::redis::RedisServer;

/// Longest wait for anything: far beyond what a slow machine needs.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct WorkerFixture {
    pub redis: RedisServer,
    folder: tempfile::TempDir,
    pub settings: Settings,
    pub store: Store,
    pub broker: Broker,
    /// Every message on every job's and campaign's channels, oldest first.
    heard: watch::Receiver<Vec<(String, Value)>>,
    tracker: TaskTracker,
    stop: CancellationToken,
}

/// A worker in this process.
pub struct Running {
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Running {
    /// As SIGTERM does.
    pub async fn drain(self) {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.task).await.expect("the worker ends").expect("without a panic");
    }

    /// As SIGKILL does: no word to anyone.
    pub async fn crash(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

impl WorkerFixture {
    pub async fn new() -> Self {
        Self::with(&[]).await
    }

    pub async fn with(overrides: &[(&str, &str)]) -> Self {
        // `WORKER_TEST_LOG=wheelhouse=debug` shows what the workers of a failing test did.
        if let Ok(level) = std::env::var("WORKER_TEST_LOG") {
            wheelhouse::telemetry::log::init(&config::Log {
                format: config::LogFormat::Pretty,
                level,
                renamed: Vec::new(),
            });
        }
        let all = [&[("worker.grace_seconds", "5")], overrides].concat();
        let Base { redis, store, broker, settings, folder, .. } = Base::start(&all).await;
        let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
        let (subscriber, events) = Subscriber::start(&broker, &tracker, stop.clone()).await.expect("subscribe");
        subscriber.psubscribe(vec!["*:job:*".to_owned(), "*:campaign:*".to_owned()]).await.expect("subscribe");
        let (told, heard) = watch::channel(Vec::new());
        tracker.spawn(listen(events, told, subscriber));
        Self { redis, folder, settings, store, broker, heard, tracker, stop }
    }

    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// Another program's connection to the database.
    pub async fn connection(&self) -> sqlx::SqliteConnection {
        let options = sqlx::sqlite::SqliteConnectOptions::new()
            .filename(self.folder.path().join("wheelhouse.db"))
            .busy_timeout(PATIENCE);
        sqlx::ConnectOptions::connect(&options).await.expect("open the file")
    }

    /// Plain SQL, as another program would send it.
    pub async fn sql(&self, text: &str) {
        let text = sqlx::AssertSqlSafe(text.to_owned());
        sqlx::query(text).execute(&mut self.connection().await).await.expect("plain SQL");
    }

    /// Starts a worker, and waits until others see it.
    pub async fn worker(&self, id: &str, teach: impl FnOnce(WorkerBuilder) -> WorkerBuilder) -> Running {
        let running = self.start(id, teach);
        let id: WorkerId = id.parse().expect("id");
        eventually("the worker shows", || async {
            self.broker.all_live_workers().await.is_ok_and(|live| live.contains(&id))
        })
        .await;
        running
    }

    /// As [`Self::coder`], for a worker that serves some tenants only (set by the overrides).
    pub async fn worker_of_tenants(&self, id: &str, code: impl Job, tenant: &str) -> Running {
        let running = self.start(id, |builder| builder.job(code));
        let tenant = tenant.parse().expect("tenant");
        let id: WorkerId = id.parse().expect("id");
        eventually("the worker shows", || async {
            self.broker.live_workers(&tenant).await.is_ok_and(|live| live.contains(&id))
        })
        .await;
        running
    }

    fn start(&self, id: &str, teach: impl FnOnce(WorkerBuilder) -> WorkerBuilder) -> Running {
        let id: WorkerId = id.parse().expect("id");
        let worker = teach(WorkerBuilder::new(self.settings.clone()).id(id)).build();
        let stop = CancellationToken::new();
        let told = stop.clone();
        let task = tokio::spawn(async move { worker.run_until(told).await.expect("the worker runs") });
        Running { stop, task }
    }

    /// A worker that knows one kind of job, `code`.
    pub async fn coder(&self, id: &str, code: impl Job) -> Running {
        self.worker(id, |builder| builder.job(code)).await
    }

    /// A job of the kind `code`.
    pub async fn job(&self, id: &str) -> Resource {
        self.make(NewJob { job_type: "code".to_owned(), ..blank(id) }).await
    }

    pub async fn make(&self, job: NewJob) -> Resource {
        let row = self.store.create_job(&job).await.expect("create the job");
        self.broker.wake_dispatch(&JobWake::Any).await.expect("wake");
        Resource::job(row.tenant_id, row.id)
    }

    /// A campaign with so many jobs `c-0`, `c-1`, … of the kind `code`.
    pub async fn campaign(&self, jobs: usize) -> Resource {
        let id: wheelhouse::domain::ResourceId = "c".parse().expect("id");
        let jobs = (0..jobs)
            .map(|n| NewJob { job_type: "code".to_owned(), campaign: Some(id.clone()), ..blank(&format!("c-{n}")) })
            .collect();
        let campaign = NewCampaign { id: id.clone(), tenant: tenant(), name: None, created_by: None, jobs };
        self.store.create_campaign(&campaign).await.expect("create the campaign");
        self.broker.wake_dispatch(&JobWake::Any).await.expect("wake");
        Resource::campaign(tenant(), id)
    }

    /// Submits a command by ann.
    pub async fn submit(&self, action: Action, resource: &Resource) -> CommandId {
        let command = CommandId::generate();
        let submission = Submission {
            command,
            resource: resource.clone(),
            action,
            user: "ann".parse().expect("user"),
            request: None,
            reason: Some("because".to_owned()),
            origin: ClientOrigin::default(),
            grant: Grant::Token(true),
            when: When::Now,
            batch: None,
        };
        let limits = SubmitLimits { commands_per_minute: 1_000, backlog_per_tenant: 1_000, schedules_per_tenant: 100 };
        let outcome = self.broker.submit(&submission, limits).await.expect("submit");
        assert!(matches!(outcome, SubmitOutcome::Accepted { .. }), "{outcome:?}");
        command
    }

    /// The result message of a command, when it is there.
    pub async fn result(&self, resource: &Resource, command: CommandId) -> Value {
        let mut found = None;
        eventually(&format!("the result of {command}"), || async {
            // From the record, not from pub/sub: that is cut in some tests.
            self.broker.result_of(resource, command).await.ok().flatten().is_some()
        })
        .await;
        if let Ok(Some(text)) = self.broker.result_of(resource, command).await {
            found = serde_json::from_str(&text).ok();
        }
        found.expect("a result")
    }

    /// Submits a command and gives its result's type.
    pub async fn command(&self, action: Action, resource: &Resource) -> String {
        let command = self.submit(action, resource).await;
        self.result(resource, command).await["type"].as_str().expect("type").to_owned()
    }

    pub async fn row(&self, job: &Resource) -> Row {
        self.store.job(job).await.expect("read").expect("the job's row")
    }

    pub async fn until_status(&self, job: &Resource, status: JobStatus) -> Row {
        eventually(&format!("{job} is {}", status.as_str()), || async {
            self.store.job(job).await.ok().flatten().is_some_and(|row| row.status == status)
        })
        .await;
        self.row(job).await
    }

    /// What was published on a resource's channels, oldest first.
    pub fn messages(&self, resource: &Resource) -> Vec<Value> {
        let (updates, replies) = (resource.to_string(), format!("{resource}:reply"));
        let heard = self.heard.borrow();
        heard.iter().filter(|(c, _)| *c == updates || *c == replies).map(|(_, m)| m.clone()).collect()
    }

    /// Waits until something was published on a resource's channels; gives all of it.
    pub async fn until_heard(&self, resource: &Resource, what: impl Fn(&Value) -> bool) -> Vec<Value> {
        let mut heard = self.heard.clone();
        let waited = tokio::time::timeout(PATIENCE, async {
            while !self.messages(resource).iter().any(&what) {
                heard.changed().await.expect("the listener lives");
            }
        });
        if waited.await.is_err() {
            panic!("not heard on {resource}; heard: {:#?}", self.messages(resource));
        }
        self.messages(resource)
    }
}

impl Drop for WorkerFixture {
    fn drop(&mut self) {
        self.stop.cancel();
        self.tracker.close();
    }
}

async fn listen(mut events: mpsc::Receiver<Event>, told: watch::Sender<Vec<(String, Value)>>, _alive: Subscriber) {
    while let Some(event) = events.recv().await {
        if let Event::Message { channel, payload, .. } = event
            && let Ok(message) = serde_json::from_slice(&payload)
        {
            told.send_modify(|all| all.push((channel, message)));
        }
    }
}

/// Asks again and again until it is so.
pub async fn eventually<F: Future<Output = bool>>(what: &str, mut so: impl FnMut() -> F) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !so().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    assert!(waited.await.is_ok(), "in vain: {what}");
}

pub fn tenant() -> wheelhouse::domain::TenantId {
    "acme".parse().expect("tenant")
}

/// A value as the text that the system keeps.
pub fn exact(value: Value) -> JsonText {
    JsonText::of(&value).expect("JSON")
}

/// A job's result.
pub fn value(row: &Row) -> Value {
    row.result.read().expect("JSON")
}

/// A job without anything special.
pub fn blank(id: &str) -> NewJob {
    let parameters = exact(serde_json::json!({}));
    NewJob { parameters, ..NewJob::new(tenant(), id.parse().expect("id"), "code") }
}

/// Job code written as a closure.
pub struct Code<F>(pub F);

impl<F, R> Job for Code<F>
where
    F: Fn(JobContext) -> R + Send + Sync + 'static,
    R: Future<Output = Result<Value, JobError>> + Send + 'static,
{
    const TYPE: &'static str = "code";

    fn run(&self, ctx: JobContext) -> impl Future<Output = Result<Value, JobError>> + Send {
        (self.0)(ctx)
    }
}

/// Counts what job code did, and lets tests wait for it.
#[derive(Clone)]
pub struct Trace {
    counts: Arc<watch::Sender<HashMap<String, usize>>>,
    gates: Arc<Mutex<HashMap<String, Arc<tokio::sync::Semaphore>>>>,
}

impl Trace {
    pub fn new() -> Self {
        Self { counts: Arc::new(watch::Sender::new(HashMap::new())), gates: Arc::default() }
    }

    /// It happened once more.
    pub fn mark(&self, what: impl Into<String>) {
        self.counts.send_modify(|counts| *counts.entry(what.into()).or_default() += 1);
    }

    pub fn count(&self, what: &str) -> usize {
        self.counts.borrow().get(what).copied().unwrap_or(0)
    }

    /// The rest of the name of what begins like this.
    pub fn named(&self, start: &str) -> String {
        let counts = self.counts.borrow();
        counts.keys().find_map(|name| name.strip_prefix(start)).expect("it happened").to_owned()
    }

    /// Waits until it has happened so often.
    pub async fn until(&self, what: &str, times: usize) {
        let mut counts = self.counts.subscribe();
        let waited =
            tokio::time::timeout(PATIENCE, counts.wait_for(|counts| counts.get(what).copied().unwrap_or(0) >= times));
        if !waited.await.is_ok_and(|waited| waited.is_ok()) {
            panic!("{what} did not happen {times} times: {:?}", *self.counts.borrow());
        }
    }

    fn gate(&self, name: &str) -> Arc<tokio::sync::Semaphore> {
        let mut gates = self.gates.lock().expect("gates");
        gates.entry(name.to_owned()).or_insert_with(|| Arc::new(tokio::sync::Semaphore::new(0))).clone()
    }

    /// Job code waits here until the test opens.
    pub async fn wait(&self, name: &str) {
        self.gate(name).acquire().await.expect("open").forget();
    }

    /// Lets one waiter through.
    pub fn open(&self, name: &str) {
        self.gate(name).add_permits(1);
    }
}
