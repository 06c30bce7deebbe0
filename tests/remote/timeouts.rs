//! The time limit of a job counts over every worker that its run is at, and begins anew with another try.

use std::time::{Duration, Instant};

use serde_json::json;

use super::client::Client;
use super::fixture::RemoteFixture;

/// How much of the limit of this job is used, in ms, as the row says.
async fn used(fixture: &RemoteFixture, job: &str) -> i64 {
    let text = "SELECT timeout_used_ms FROM jobs WHERE tenant_id = 'acme' AND id = $1";
    let (used,): (i64,) = sqlx::query_as(text).bind(job).fetch_one(&fixture.fleet.sql().await).await.expect("the row");
    used
}

async fn until_used(fixture: &RemoteFixture, job: &str, least: i64) {
    let end = Instant::now() + Duration::from_secs(30);
    while used(fixture, job).await < least {
        assert!(Instant::now() < end, "the row of {job} never says it; log:\n{}", fixture.fleet.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_moves_has_the_time_that_is_left_of_its_limit() {
    let mut fixture = RemoteFixture::start(&[]).await;
    let (first, second) = (fixture.worker(), fixture.worker());
    let mut client = fixture.client(&first, "s1").await;
    let attached = client.attach_with(1, "acme", "j1", json!({"timeout_seconds": 1000})).await;
    // A worker that is killed has told how long its job has been running.
    until_used(&fixture, "j1", 1).await;
    fixture.fleet.kill(first.handle);
    // As if it had been running for longer than anybody wants to wait here.
    let text = "UPDATE jobs SET timeout_used_ms = timeout_used_ms + 999000 WHERE id = 'j1'";
    sqlx::query(text).execute(&fixture.fleet.sql().await).await.expect("write");
    let mut client = fixture.client(&second, "s1").await;
    client.attach_with(1, "acme", "j1", json!({"run": attached["run"]})).await;
    let order = client.order(1, "time_out").await;
    client.reached(&order, "ended").await;
    assert_eq!(client.about(1, &["ended"]).await["status"], "failed");
    assert_eq!(fixture.job("j1")["error_message"], "timed out after 1000 s");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_leaves_tells_what_was_used_and_the_time_of_a_pause_is_none_of_it() {
    let mut fixture = RemoteFixture::start(&[]).await;
    let worker = fixture.worker();
    let mut client = fixture.client(&worker, "s1").await;
    let attached = client.attach_with(1, "acme", "j1", json!({"timeout_seconds": 1000})).await;
    let pause = fixture.command("pause", "j1");
    let order = client.order(1, "pause").await;
    client.reached(&order, "still").await;
    fixture.result_of("j1", &pause).await;
    let paused = used(&fixture, "j1").await;
    assert!(paused > 0, "what was used until the pause is written with it");
    // Longer than a worker lets pass between two writes.
    tokio::time::sleep(Duration::from_secs(6)).await;
    fixture.fleet.signal(worker.handle, rustix::process::Signal::TERM);
    fixture.fleet.wait(worker.handle);
    let left = used(&fixture, "j1").await;
    assert!(left < paused + 5_000, "{paused} ms before the pause, {left} ms after it");
    let worker = fixture.worker();
    let mut client = Client::connect_when_up(&worker.address, &fixture.token, "s1").await;
    assert_eq!(client.attach_with(1, "acme", "j1", json!({"run": attached["run"]})).await["status"], "paused");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_try_that_has_failed_in_its_own_queue_is_a_retry_with_the_whole_time() {
    let mut fixture = RemoteFixture::start(&[]).await;
    let worker = fixture.worker();
    let mut client = fixture.client(&worker, "s1").await;
    client.attach_with(1, "acme", "j1", json!({"timeout_seconds": 1000})).await;
    until_used(&fixture, "j1", 1).await;
    client.send(json!({"type": "end", "ref": 1, "how": "handed_back"})).await;
    assert_eq!(client.about(1, &["ended"]).await["status"], "pending");
    assert!(used(&fixture, "j1").await > 0, "a shutdown is no failure: the next run has what is left");
    assert_eq!(client.attach(2, "acme", "j1").await["type"], "attached");
    client.send(json!({"type": "end", "ref": 2, "how": "handed_back", "error": "no luck"})).await;
    assert_eq!(client.about(2, &["ended"]).await["status"], "pending");
    assert_eq!(used(&fixture, "j1").await, 0);
    let row = fixture.job("j1");
    assert_eq!((&row["retry_count"], &row["error_message"]), (&json!(1), &json!("no luck")));
    assert_eq!(client.attach(3, "acme", "j1").await["type"], "attached");
    assert_eq!(fixture.job("j1")["error_message"], json!(null), "it is another try");
    assert_eq!(client.end(3, "completed").await["status"], "completed");
}
