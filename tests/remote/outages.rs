//! A worker or Redis fails exactly while a client attaches, tells of a published job, saves or ends. Such a moment is made by
//! another program that holds SQLite: what is said meanwhile is under way and not done.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};
use sqlx::Sqlite;
use sqlx::pool::PoolConnection;

use super::client::Client;
use super::fixture::{Listening, RemoteFixture};
use crate::support::api::until;
use crate::support::fleet::http_get;
use crate::support::proxy::{Line, Proxy};

const REATTACH: (&str, &str) = ("WORKER__REATTACH_SECONDS", "2");
/// Long enough for an answer that would be wrong to come.
const QUIET: Duration = Duration::from_millis(300);

/// While this lives, nobody else writes.
struct Held(PoolConnection<Sqlite>);

impl Held {
    async fn new(fixture: &RemoteFixture) -> Self {
        let mut connection = fixture.fleet.sql().await.acquire().await.expect("a connection");
        sqlx::query("BEGIN IMMEDIATE").execute(&mut *connection).await.expect("hold the database");
        Self(connection)
    }

    async fn release(mut self) {
        sqlx::query("ROLLBACK").execute(&mut *self.0).await.expect("let it go");
    }
}

/// Everything that was said before has been read: a second hello is answered at once, by an error.
pub async fn is_read(client: &mut Client, session: &str) {
    client.send(json!({"type": "hello", "v": 1, "worker": "test@here", "session": session})).await;
    client.until(|message| message["type"] == "error").await;
}

pub fn attach(reference: u64, job: &str) -> Value {
    json!({"type": "attach", "ref": reference, "tenant_id": "acme", "job_id": job})
}

pub fn expect(reference: u64, job: &str) -> Value {
    json!({"type": "expect", "ref": reference, "tenant_id": "acme", "job_id": job})
}

pub fn save(reference: u64, n: u64, point: &str) -> Value {
    json!({"type": "save", "ref": reference, "n": n, "point": point})
}

pub fn failed(reference: u64) -> Value {
    json!({"type": "end", "ref": reference, "how": "failed", "error": "no luck"})
}

/// Attaches this job, with two retries, as a new one.
pub async fn begin(client: &mut Client, reference: u64, job: &str) {
    let attached = client.attach_with(reference, "acme", job, json!({"max_retries": 2})).await;
    assert_eq!((&attached["type"], &attached["run"]), (&json!("attached"), &json!(1)), "{attached}");
}

/// Whether each thread of the process is stopped.
fn stands(pid: u32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("the process lives");
    let state = |path: std::path::PathBuf| {
        let stat = std::fs::read_to_string(path.join("stat")).unwrap_or_default();
        stat.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next())
    };
    threads.flatten().all(|thread| state(thread.path()) == Some('T'))
}

/// Attaches the run that the session holds.
async fn again(client: &mut Client, reference: u64, job: &str) -> Value {
    client.attach_with(reference, "acme", job, json!({"run": 1})).await
}

/// Status, retries and resume point of the job, as the API shows them.
fn row(fixture: &RemoteFixture, job: &str) -> (Value, Value) {
    let job = fixture.job(job);
    (job["status"].clone(), job["retry_count"].clone())
}

async fn rows(fixture: &RemoteFixture) -> i64 {
    let count = sqlx::query_scalar("SELECT COUNT(*) FROM jobs");
    count.fetch_one(&fixture.fleet.sql().await).await.expect("a count")
}

async fn back(fixture: &RemoteFixture, worker: &Listening) -> Client {
    Client::connect_when_up(&worker.address, &fixture.token, "s1").await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_worker_has_not_answered_when_it_is_killed_is_said_to_the_next_one_and_what_it_has_answered_is_there() {
    let mut fixture = RemoteFixture::start(&[REATTACH]).await;
    let worker = fixture.worker();
    let mut client = fixture.client(&worker, "s1").await;
    begin(&mut client, 1, "saves").await;
    begin(&mut client, 2, "ends").await;
    let held = Held::new(&fixture).await;
    for message in [save(1, 1, "here"), failed(2), attach(3, "begins"), expect(4, "waits")] {
        client.send(message).await;
    }
    is_read(&mut client, "s1").await;
    for reference in 1..=4 {
        let answer = client.hears_within(reference, QUIET).await;
        assert_eq!(answer, None, "nothing of it is in SQL");
    }
    fixture.fleet.kill(worker.handle);
    held.release().await;
    assert_eq!(rows(&fixture).await, 2, "nothing was done");
    let worker = fixture.worker_at(&worker.address);
    let mut client = back(&fixture, &worker).await;
    assert_eq!(again(&mut client, 1, "saves").await["type"], "attached");
    assert_eq!(again(&mut client, 2, "ends").await["type"], "attached");
    for (message, kind) in [
        (save(1, 1, "here"), "saved"),
        (failed(2), "ended"),
        (attach(3, "begins"), "attached"),
        (expect(4, "waits"), "expected"),
    ] {
        let reference = message["ref"].as_u64().expect("a ref");
        client.send(message).await;
        client.about(reference, &[kind]).await;
    }
    // At once: only what was answered is known to be there.
    fixture.fleet.kill(worker.handle);
    assert_eq!(row(&fixture, "ends"), (json!("pending"), json!(1)));
    assert_eq!(row(&fixture, "waits"), (json!("pending"), json!(0)));
    let worker = fixture.worker_at(&worker.address);
    let mut client = back(&fixture, &worker).await;
    let attached = client.attach_with(1, "acme", "saves", json!({"run": 2})).await;
    assert_eq!((&attached["type"], &attached["resume_point"]), (&json!("attached"), &json!("here")), "{attached}");
    assert_eq!(rows(&fixture).await, 4);
}

/// All of it is in SQL, and the client has heard nothing of that.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_done_and_whose_answer_was_lost_is_not_done_again() {
    for kills in [false, true] {
        let mut fixture = RemoteFixture::start(&[REATTACH]).await;
        let worker = fixture.worker();
        let port = worker.address.rsplit_once(':').expect("a port").1.parse().expect("a number");
        let proxy = Proxy::to(port).await;
        let way = format!("127.0.0.1:{}", proxy.port());
        let mut client = Client::connect(&way, &fixture.token, "s1").await;
        begin(&mut client, 1, "fails").await;
        begin(&mut client, 2, "handed").await;
        begin(&mut client, 3, "done").await;
        let held = Held::new(&fixture).await;
        client.send(failed(1)).await;
        client.send(json!({"type": "end", "ref": 2, "how": "handed_back", "error": "again, please"})).await;
        client.send(json!({"type": "end", "ref": 3, "how": "completed"})).await;
        client.send(attach(4, "begins")).await;
        is_read(&mut client, "s1").await;
        proxy.set(Line::Swallow);
        held.release().await;
        for (job, status) in [("fails", "pending"), ("handed", "pending"), ("done", "completed")] {
            fixture.until_status(job, status).await;
        }
        while rows(&fixture).await < 4 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let worker = if kills {
            fixture.fleet.kill(worker.handle);
            fixture.worker_at(&worker.address)
        } else {
            worker
        };
        let mut client = back(&fixture, &worker).await;
        for (reference, job, status) in [(1, "fails", "pending"), (2, "handed", "pending"), (3, "done", "completed")] {
            let refused = again(&mut client, reference, job).await;
            assert_eq!((&refused["error"], &refused["status"]), (&json!("ended"), &json!(status)), "{job}: {refused}");
        }
        assert_eq!(row(&fixture, "fails"), (json!("pending"), json!(1)), "one try has failed");
        assert_eq!(row(&fixture, "handed"), (json!("pending"), json!(1)));
        // Its next run is to be had, by whoever is given it.
        assert_eq!(client.attach(5, "acme", "handed").await["run"], 2);
        // Nobody has begun this one, and nobody but this session may: it asks until it has it.
        let mut answer = client.attach(4, "acme", "begins").await;
        assert!(kills || answer["type"] == "attached", "the same worker knows whose it is: {answer}");
        let patience = Instant::now() + Duration::from_secs(30);
        while answer["type"] != "attached" {
            assert_eq!(answer["error"], "elsewhere", "{answer}");
            assert!(Instant::now() < patience, "it is never given; log:\n{}", fixture.fleet.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
            answer = client.attach(4, "acme", "begins").await;
        }
        assert_eq!(client.end(4, "completed").await["status"], "completed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_was_stopped_in_the_middle_changes_nothing_of_what_the_client_has_taken_to_another() {
    let mut fixture = RemoteFixture::start(&[]).await;
    let (stopped, other) = (fixture.worker(), fixture.worker());
    let mut client = fixture.client(&stopped, "s1").await;
    begin(&mut client, 1, "saves").await;
    begin(&mut client, 2, "ends").await;
    let held = Held::new(&fixture).await;
    for message in [save(1, 1, "old"), failed(2), attach(3, "begins"), expect(4, "waits")] {
        client.send(message).await;
    }
    is_read(&mut client, "s1").await;
    fixture.fleet.signal(stopped.handle, Signal::STOP);
    // Each thread stops by itself: one that still runs would take the database now, and keep it while it is stopped.
    until("every thread stands", async || stands(fixture.fleet.process(stopped.handle).id())).await;
    held.release().await;
    let mut client = back(&fixture, &other).await;
    for (reference, job) in [(1, "saves"), (2, "ends")] {
        assert_eq!(again(&mut client, reference, job).await["type"], "attached", "{job}");
    }
    client.send(save(1, 2, "new")).await;
    client.about(1, &["saved"]).await;
    client.send(failed(2)).await;
    assert_eq!(client.about(2, &["ended"]).await["status"], "pending");
    assert_eq!(client.attach(3, "acme", "begins").await["run"], 1);
    client.send(expect(4, "waits")).await;
    client.about(4, &["expected"]).await;
    fixture.fleet.signal(stopped.handle, Signal::CONT);
    // It has found out everything when it answers somebody else.
    let mut somebody = Client::connect_when_up(&stopped.address, &fixture.token, "s2").await;
    assert_eq!(somebody.attach(1, "acme", "another").await["type"], "attached");
    let pause = fixture.command("pause", "begins");
    let order = client.order(3, "pause").await;
    client.reached(&order, "still").await;
    assert_eq!(fixture.result_of("begins", &pause).await["control"], "live", "the other worker has it");
    assert_eq!(row(&fixture, "ends"), (json!("pending"), json!(1)));
    assert_eq!(rows(&fixture).await, 5);
    client.socket.send_raw(tokio_tungstenite::tungstenite::Message::Close(None)).await;
    fixture.fleet.kill(other.handle);
    let mut client = back(&fixture, &stopped).await;
    let attached = client.attach_with(1, "acme", "saves", json!({"run": 2})).await;
    assert_eq!((&attached["type"], &attached["resume_point"]), (&json!("attached"), &json!("new")), "{attached}");
}

#[tokio::test(flavor = "multi_thread")]
async fn work_does_not_begin_before_redis_has_said_whether_its_cancel_waits() {
    let mut fixture = RemoteFixture::start(&[]).await;
    let proxy = Proxy::to(fixture.fleet.redis.port()).await;
    fixture.fleet.set("REDIS__URL", &format!("redis://127.0.0.1:{}", proxy.port()));
    let worker = fixture.worker();
    let mut client = fixture.client(&worker, "s1").await;
    client.send(expect(1, "j1")).await;
    client.about(1, &["expected"]).await;
    proxy.set(Line::Hold);
    let cancel = fixture.command("cancel", "j1");
    client.send(attach(2, "j1")).await;
    // Longer than this worker waits for one answer of Redis.
    let answer = client.hears_within(2, Duration::from_secs(3)).await;
    assert_eq!(answer, None, "nobody knows yet what waits for it");
    proxy.set(Line::Pass);
    let refused = client.about(2, &["attached", "refused"]).await;
    assert_eq!((&refused["error"], &refused["status"]), (&json!("ended"), &json!("cancelled")), "{refused}");
    assert_eq!(fixture.result_of("j1", &cancel).await["status"], "cancelled");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_redis_is_gone_nothing_that_was_answered_is_lost_and_nothing_is_done_twice() {
    let mut fixture = RemoteFixture::start(&[]).await;
    let worker = fixture.worker();
    let mut client = fixture.client(&worker, "s1").await;
    begin(&mut client, 1, "saves").await;
    begin(&mut client, 2, "ends").await;
    fixture.fleet.redis.kill();
    let said = [save(1, 1, "here"), failed(2), attach(3, "begins"), expect(4, "waits")];
    for message in &said {
        client.send(message.clone()).await;
    }
    // It cannot confirm the run any more.
    assert_eq!(client.closed().await, 1012);
    fixture.fleet.redis.restart();
    let gateway = fixture.fleet.process(fixture.gateway).address.clone();
    until("the gateway is ready", async || http_get(&gateway, "/readyz").is_some_and(|(status, _)| status == 200))
        .await;
    let mut client = back(&fixture, &worker).await;
    assert_eq!(again(&mut client, 1, "saves").await["type"], "attached");
    let ends = again(&mut client, 2, "ends").await;
    if ends["type"] == "attached" {
        client.send(failed(2)).await;
        client.about(2, &["ended"]).await;
    } else {
        assert_eq!((&ends["error"], &ends["status"]), (&json!("ended"), &json!("pending")), "{ends}");
    }
    for (message, kind) in [(&said[0], "saved"), (&said[2], "attached"), (&said[3], "expected")] {
        client.send(message.clone()).await;
        client.about(message["ref"].as_u64().expect("a ref"), &[kind]).await;
    }
    assert_eq!(row(&fixture, "ends"), (json!("pending"), json!(1)));
    assert_eq!(rows(&fixture).await, 4);
    let pause = fixture.command("pause", "begins");
    let order = client.order(3, "pause").await;
    client.reached(&order, "still").await;
    assert_eq!(fixture.result_of("begins", &pause).await["control"], "live");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_told_of_although_its_publisher_ends_while_sql_is_away() {
    let mut fixture = RemoteFixture::start(&[]).await;
    let worker = fixture.worker();
    let mut client = fixture.client(&worker, "web").await;
    let held = Held::new(&fixture).await;
    client.send(expect(1, "j1")).await;
    is_read(&mut client, "web").await;
    client.socket.send_raw(tokio_tungstenite::tungstenite::Message::Close(None)).await;
    // Longer than SQLite is waited for at a time.
    tokio::time::sleep(Duration::from_secs(6)).await;
    held.release().await;
    let begun = Instant::now();
    while rows(&fixture).await == 0 {
        assert!(begun.elapsed() < Duration::from_secs(30), "it never appears; log:\n{}", fixture.fleet.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(fixture.job("j1")["status"], "pending");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resume_point_with_a_smaller_number_takes_nothing_back() {
    let mut fixture = RemoteFixture::start(&[]).await;
    let worker = fixture.worker();
    let mut client = fixture.client(&worker, "s1").await;
    begin(&mut client, 1, "j1").await;
    client.send(save(1, 5, "fifth")).await;
    assert_eq!(client.about(1, &["saved"]).await["n"], 5);
    for (n, point) in [(5, "other"), (1, "first"), (4, "fourth")] {
        client.send(save(1, n, point)).await;
        assert_eq!(client.about(1, &["saved"]).await["n"], 5, "{point}");
    }
    // Also where the later one is under way.
    let held = Held::new(&fixture).await;
    for (n, point) in [(9, "ninth"), (7, "seventh")] {
        client.send(save(1, n, point)).await;
    }
    is_read(&mut client, "s1").await;
    held.release().await;
    assert_eq!(client.about(1, &["saved"]).await["n"], 9);
    client.send(json!({"type": "end", "ref": 1, "how": "handed_back"})).await;
    client.about(1, &["ended"]).await;
    assert_eq!(client.attach(2, "acme", "j1").await["resume_point"], "ninth");
}
