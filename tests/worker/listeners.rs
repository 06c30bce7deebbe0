//! Who hears the control channels: everyone in a small fleet, a few in a large one, and no command waits for that.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use wheelhouse::domain::{Action, JobStatus, Resource, WorkerId};
use wheelhouse::store::NewJob;
use wheelhouse::worker::JobContext;

use crate::code::Outcome;
use crate::fixture::{Code, Running, WorkerFixture, blank, eventually, tenant};

/// Workers that are counted as alive and are not there: with more than 32 only a few hear. A command that falls to one of them is
/// found by whoever polls.
const MADE_UP: usize = 40;
/// As many as hear of one tenant, where it has many workers of its own.
const LISTENERS: usize = 8;

/// Runs until cancelled.
fn endless() -> Code<impl Fn(JobContext) -> Outcome + Send + Sync + 'static> {
    Code(|ctx: JobContext| -> Outcome {
        Box::pin(async move {
            loop {
                ctx.checkpoint().await?;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
    })
}

async fn fleet(fixture: &WorkerFixture, ids: &[WorkerId]) -> BTreeMap<WorkerId, Running> {
    let mut workers = BTreeMap::new();
    for id in ids {
        workers.insert(id.clone(), fixture.coder(id.as_str(), endless()).await);
    }
    workers
}

fn ids(count: usize) -> Vec<WorkerId> {
    (0..count).map(|n| format!("w{n}").parse().expect("id")).collect()
}

/// Three workers for each of two homes.
fn six_in_two_homes(fixture: &WorkerFixture) -> Vec<WorkerId> {
    let of = |home| {
        let has_home = move |id: &WorkerId| fixture.broker.keys().homes(id).next() == Some(home);
        ids(1_000).into_iter().filter(has_home).take(3)
    };
    fixture.broker.keys().first_homes().take(2).flat_map(of).collect()
}

/// Many more workers are counted in these sets, as long as this is kept.
struct MadeUp(tokio::task::JoinHandle<()>);

impl MadeUp {
    async fn count(fixture: &WorkerFixture, sets: Vec<String>, seconds: i64) -> Self {
        let broker = fixture.broker.clone();
        let add = async move || {
            for set in &sets {
                let until = (broker.now_ms() + seconds * 1_000).to_string();
                let members = (0..MADE_UP).flat_map(|n| [until.clone(), format!("made-up-{n}")]);
                let words: Vec<String> = ["ZADD".to_owned(), set.clone()].into_iter().chain(members).collect();
                let _ = broker.query_any(&words).await;
            }
        };
        add().await;
        Self(tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_millis(500)).await;
                add().await;
            }
        }))
    }
}

impl Drop for MadeUp {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// How many workers hear the control channels of all tenants; the fixture hears two patterns, too.
fn listening(fixture: &WorkerFixture) -> usize {
    let clients = fixture.redis.text("CLIENT LIST TYPE pubsub");
    clients.lines().filter(|client| client.contains(" psub=2 ")).count() - 1
}

/// How many hear those of the fixture's tenant alone.
fn listening_to_tenant(fixture: &WorkerFixture) -> usize {
    let numbers: (String, usize) = fixture.redis.query(&["PUBSUB", "NUMSUB", "acme:job:control"]).expect("NUMSUB");
    numbers.1
}

/// What is published on workers' own channels: worker and resource.
async fn wakes(fixture: &WorkerFixture) -> Arc<Mutex<Vec<(String, String)>>> {
    let client = redis::Client::open(fixture.redis.url()).expect("client");
    let mut pubsub = client.get_async_pubsub().await.expect("connect");
    pubsub.psubscribe("wh:worker:*").await.expect("subscribe");
    let heard = Arc::new(Mutex::new(Vec::new()));
    let told = heard.clone();
    tokio::spawn(async move {
        let mut messages = pubsub.into_on_message();
        while let Some(message) = messages.next().await {
            let worker = message.get_channel_name().trim_start_matches("wh:worker:").to_owned();
            told.lock().expect("lock").push((worker, message.get_payload().expect("text")));
        }
    });
    heard
}

/// Jobs that run, and jobs that nobody runs.
async fn jobs(fixture: &WorkerFixture, name: &str, hosted: usize, unhosted: usize) -> (Vec<Resource>, Vec<Resource>) {
    let (mut run, mut stand) = (Vec::new(), Vec::new());
    for n in 0..hosted {
        run.push(fixture.job(&format!("{name}-run-{n}")).await);
    }
    for n in 0..unhosted {
        let id = format!("{name}-stand-{n}");
        stand.push(fixture.make(NewJob { job_type: "elsewhere".to_owned(), ..blank(&id) }).await);
    }
    for job in &run {
        fixture.until_status(job, JobStatus::Running).await;
        eventually("its host is known", || async { host(fixture, job).is_some() }).await;
    }
    (run, stand)
}

fn host(fixture: &WorkerFixture, job: &Resource) -> Option<String> {
    fixture.redis.query(&["HGET", &fixture.broker.keys().state(job), "host"]).expect("HGET")
}

async fn pause(fixture: &WorkerFixture, jobs: &[Resource]) {
    join_all(jobs.iter().map(async |job| {
        assert_eq!(fixture.command(Action::Pause, job).await, "pause_succeeded", "{job}");
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_large_fleet_a_few_hear_and_wake_whoever_is_to_act_also_after_all_of_those_have_died() {
    let fixture = WorkerFixture::new().await;
    let sets = fixture.broker.keys().partitions().map(|partition| fixture.broker.keys().workers(partition)).collect();
    let made_up = MadeUp::count(&fixture, sets, 30).await;
    let mut workers = fleet(&fixture, &six_in_two_homes(&fixture)).await;
    let wakes = wakes(&fixture).await;
    eventually("one in each home hears", || async { listening(&fixture) == 2 }).await;

    let (run, stand) = jobs(&fixture, "a", 4, 6).await;
    pause(&fixture, &run).await;
    let is_woken =
        |worker: &str, job: &Resource| wakes.lock().expect("lock").contains(&(worker.to_owned(), job.to_string()));
    for job in &run {
        let host = host(&fixture, job).expect("it runs");
        eventually("the host was woken", || async { is_woken(&host, job) }).await;
    }
    pause(&fixture, &stand).await;
    let is_passed_on = |job: &Resource| wakes.lock().expect("lock").iter().any(|(_, woken)| *woken == job.to_string());
    eventually("what nobody hosts was passed on", || async { stand.iter().any(is_passed_on) }).await;

    let seated = Mutex::new(BTreeSet::new());
    eventually("both have a seat", || async {
        let now = fixture.broker.listeners(None).await.expect("listeners");
        *seated.lock().expect("lock") = now.clone();
        now.len() == 2
    })
    .await;
    let listeners = seated.into_inner().expect("lock");
    for listener in &listeners {
        workers.remove(listener).expect("one of them").crash().await;
    }
    pause(&fixture, &jobs(&fixture, "b", 0, 4).await.1).await;
    eventually("others have taken their places", || async {
        let now = fixture.broker.listeners(None).await.expect("listeners");
        now.len() == 2 && now.is_disjoint(&listeners) && listening(&fixture) == 2
    })
    .await;
    pause(&fixture, &jobs(&fixture, "c", 2, 0).await.0).await;

    drop(made_up);
    for n in 0..MADE_UP {
        let made_up = format!("made-up-{n}").parse().expect("id");
        fixture.broker.leave(&made_up, None).await.expect("leave");
    }
    eventually("all of few hear", || async { listening(&fixture) == workers.len() }).await;
    pause(&fixture, &jobs(&fixture, "d", 0, 2).await.1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_small_fleet_all_hear_and_nobody_is_woken_by_others() {
    let fixture = WorkerFixture::new().await;
    let workers = fleet(&fixture, &ids(3)).await;
    let wakes = wakes(&fixture).await;
    let (run, stand) = jobs(&fixture, "a", 2, 4).await;
    pause(&fixture, &run).await;
    pause(&fixture, &stand).await;
    eventually("all hear", || async { listening(&fixture) == workers.len() }).await;
    assert_eq!(*wakes.lock().expect("lock"), Vec::new());
    assert_eq!(fixture.broker.listeners(None).await.expect("listeners"), BTreeSet::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_of_one_tenant_hear_its_channels_alone_and_of_many_a_few_do() {
    let fixture = WorkerFixture::with(&[("worker.tenants", "acme")]).await;
    let mut workers = vec![fixture.worker_of_tenants("w", endless(), "acme").await];
    eventually("it hears", || async { listening_to_tenant(&fixture) == 1 }).await;
    assert_eq!(listening(&fixture), 0);
    let (run, stand) = jobs(&fixture, "a", 1, 2).await;
    pause(&fixture, &[run, stand].concat()).await;

    let _made_up = MadeUp::count(&fixture, vec![fixture.broker.keys().tenant_workers(&tenant())], 4).await;
    for id in ids(LISTENERS) {
        workers.push(fixture.worker_of_tenants(id.as_str(), endless(), "acme").await);
    }
    eventually("few hear", || async { listening_to_tenant(&fixture) == LISTENERS }).await;
    assert_eq!(workers.len(), LISTENERS + 1);
    let (run, stand) = jobs(&fixture, "b", 3, 4).await;
    pause(&fixture, &[run, stand].concat()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_may_not_hear_its_own_channel_hears_those_of_all_and_goes_on() {
    let fixture = WorkerFixture::new().await;
    let workers = fleet(&fixture, &ids(2)).await;
    let (run, stand) = jobs(&fixture, "a", 2, 0).await;
    assert!(stand.is_empty());
    // As the user of workers was before: Redis cuts whoever hears what is not permitted any more.
    let rights = "resetchannels &*:job:control &*:campaign:control &*:job:* &*:campaign:* &wh:dispatch &wh:probe:* &@probe:job:*";
    assert_eq!(fixture.redis.inline(&format!("ACL SETUSER default {rights}")), "+OK");
    eventually("they hear again", || async { listening(&fixture) == workers.len() }).await;
    pause(&fixture, &run).await;
    let late = fixture.coder("late", endless()).await;
    eventually("a new one hears", || async { listening(&fixture) == workers.len() + 1 }).await;
    pause(&fixture, &jobs(&fixture, "b", 0, 3).await.1).await;
    late.drain().await;
}
