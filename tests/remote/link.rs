//! The link between a session and its worker breaks, and workers die or leave.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use super::client::Client;
use super::fixture::{Listening, RemoteFixture};

/// Short, so that the tests need not wait for ten seconds.
const REATTACH: (&str, &str) = ("WORKER__REATTACH_SECONDS", "2");

/// The session comes back with the run that it holds.
async fn back(fixture: &RemoteFixture, worker: &Listening, run: &serde_json::Value) -> (Client, serde_json::Value) {
    let mut client = Client::connect_when_up(&worker.address, &fixture.token, "s1").await;
    let attached = client.attach_with(1, "acme", "j1", json!({"run": run})).await;
    (client, attached)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_comes_back_goes_on_with_its_run_and_gets_its_order_again() {
    let mut fixture = RemoteFixture::start(&[]).await;
    let worker = fixture.worker();
    let mut client = fixture.client(&worker, "s1").await;
    let attached = client.attach(1, "acme", "j1").await;
    let pause = fixture.command("pause", "j1");
    let order = client.order(1, "pause").await;
    drop(client);
    let (mut client, again) = back(&fixture, &worker, &attached["run"]).await;
    assert_eq!(again["run"], attached["run"], "the run is the same");
    let repeated = client.order(1, "pause").await;
    assert_eq!(repeated["order"], order["order"]);
    client.reached(&repeated, "still").await;
    assert_eq!(fixture.result_of("j1", &pause).await["type"], "pause_succeeded");
    // While it is paused the same holds.
    drop(client);
    let (mut client, again) = back(&fixture, &worker, &attached["run"]).await;
    assert_eq!(again["status"], "paused");
    let resume = fixture.command("resume", "j1");
    client.order(1, "resume").await;
    fixture.result_of("j1", &resume).await;
    // A newer socket of the session takes over from one that is still open.
    let mut newer = fixture.client(&worker, "s1").await;
    assert_eq!(client.closed().await, 4409);
    assert_eq!(newer.attach_with(1, "acme", "j1", json!({"run": 1})).await["type"], "attached");
    assert_eq!(newer.end(1, "completed").await["status"], "completed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_session_stays_away_is_handed_back_and_a_late_session_is_refused_if_somebody_has_the_job() {
    let mut fixture = RemoteFixture::start(&[REATTACH]).await;
    let worker = fixture.worker();
    let mut client = fixture.client(&worker, "s1").await;
    client.attach(1, "acme", "j1").await;
    client.attach(2, "acme", "j2").await;
    client.send(json!({"type": "save", "ref": 1, "n": 1, "point": [1, 2]})).await;
    client.about(1, &["saved"]).await;
    let pause = fixture.command("pause", "j2");
    let order = client.order(2, "pause").await;
    client.reached(&order, "still").await;
    fixture.result_of("j2", &pause).await;
    drop(client);
    let mut other = fixture.client(&worker, "s2").await;
    assert_eq!(other.attach(1, "acme", "j1").await["error"], "elsewhere", "its session may come back");
    fixture.until_status("j1", "pending").await;
    assert_eq!(fixture.fleet.status("acme", "j2").await, "paused");
    let attached = other.attach(2, "acme", "j1").await;
    assert_eq!((&attached["run"], &attached["resume_point"]), (&json!(2), &json!([1, 2])));
    let (mut client, refused) = back(&fixture, &worker, &json!(1)).await;
    assert_eq!(refused["error"], "elsewhere", "{refused}");
    // Nobody has taken the other one: it goes on, and still stands.
    let attached = client.attach_with(2, "acme", "j2", json!({"run": 1})).await;
    assert_eq!((&attached["status"], &attached["run"]), (&json!("paused"), &json!(2)), "{attached}");
    // Somebody has had the first one, and given it back: steps of that run may not be made again.
    other.send(json!({"type": "end", "ref": 2, "how": "handed_back"})).await;
    other.about(2, &["ended"]).await;
    let late = client.attach_with(3, "acme", "j1", json!({"run": 1})).await;
    assert_eq!(late["error"], "elsewhere", "{late}");
    assert_eq!(client.attach(4, "acme", "j1").await["run"], 3, "as a new run it is to be had");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_of_a_run_whose_session_is_gone_for_good_cancels_the_row_and_says_so() {
    let mut fixture = RemoteFixture::start(&[REATTACH]).await;
    let worker = fixture.worker();
    let mut client = fixture.client(&worker, "s1").await;
    client.attach(1, "acme", "j1").await;
    drop(client);
    let cancel = fixture.command("cancel", "j1");
    let result = fixture.result_of("j1", &cancel).await;
    assert_eq!((&result["type"], &result["control"]), (&json!("cancel_succeeded"), &json!("row")), "{result}");
    let (_client, refused) = back(&fixture, &worker, &json!(1)).await;
    assert_eq!((&refused["error"], &refused["status"]), (&json!("ended"), &json!("cancelled")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_moves_to_another_worker_when_its_own_is_killed() {
    let mut fixture = RemoteFixture::start(&[]).await;
    let (first, second) = (fixture.worker(), fixture.worker());
    let mut client = fixture.client(&first, "s1").await;
    let attached = client.attach(1, "acme", "j1").await;
    client.send(json!({"type": "save", "ref": 1, "n": 1, "point": "here"})).await;
    client.about(1, &["saved"]).await;
    fixture.fleet.kill(first.handle);
    drop(client);
    let mut other = fixture.client(&second, "s2").await;
    assert_eq!(other.attach(1, "acme", "j1").await["error"], "elsewhere");
    let (mut client, moved) = back(&fixture, &second, &attached["run"]).await;
    assert_eq!((&moved["type"], &moved["resume_point"]), (&json!("attached"), &json!("here")), "{moved}");
    assert!(moved["run"].as_i64() > attached["run"].as_i64());
    let pause = fixture.command("pause", "j1");
    let order = client.order(1, "pause").await;
    client.reached(&order, "still").await;
    assert_eq!(fixture.result_of("j1", &pause).await["control"], "live");
    let cancel = fixture.command("cancel", "j1");
    let order = client.order(1, "cancel").await;
    client.reached(&order, "ended").await;
    assert_eq!(fixture.result_of("j1", &cancel).await["status"], "cancelled");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_comes_back_from_another_worker_is_not_told_of_the_run_it_had_before() {
    let mut fixture = RemoteFixture::start(&[]).await;
    let (first, second) = (fixture.worker(), fixture.worker());
    let mut client = fixture.client(&first, "s1").await;
    let run = client.attach(1, "acme", "j1").await["run"].clone();
    let ended_run = client.attach(2, "acme", "j2").await["run"].clone();
    drop(client);
    let (mut client, moved) = back(&fixture, &second, &run).await;
    let ended_run = client.attach_with(2, "acme", "j2", json!({"run": ended_run})).await["run"].clone();
    assert_eq!(client.end(2, "completed").await["status"], "completed");
    drop(client);
    // The first worker has not noticed yet that the runs are not its own any more.
    let (mut client, again) = back(&fixture, &first, &moved["run"]).await;
    assert!(again["run"].as_i64() > moved["run"].as_i64(), "{again}");
    let refused = client.attach_with(2, "acme", "j2", json!({"run": ended_run})).await;
    assert_eq!((&refused["error"], &refused["status"]), (&json!("ended"), &json!("completed")), "{refused}");
    let cancel = fixture.command("cancel", "j1");
    let order = client.order(1, "cancel").await;
    client.reached(&order, "ended").await;
    let result = fixture.result_of("j1", &cancel).await;
    assert_eq!((&result["type"], &result["control"]), (&json!("cancel_succeeded"), &json!("live")), "{result}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_its_session_does_not_ask_for_when_it_is_back_is_handed_back() {
    let mut fixture = RemoteFixture::start(&[REATTACH]).await;
    let worker = fixture.worker();
    let mut client = fixture.client(&worker, "s1").await;
    client.attach(1, "acme", "j1").await;
    let kept = client.attach(2, "acme", "j2").await;
    drop(client);
    // As a client that has never heard the answer, and was refused at another worker since.
    let mut client = fixture.client(&worker, "s1").await;
    let again = client.attach_with(2, "acme", "j2", json!({"run": kept["run"]})).await;
    assert_eq!(again["run"], kept["run"]);
    assert_eq!(client.attach(3, "acme", "j1").await["error"], "elsewhere");
    fixture.until_status("j1", "pending").await;
    assert_eq!(client.attach(4, "acme", "j1").await["type"], "attached");
    let cancel = fixture.command("cancel", "j1");
    let order = client.order(4, "cancel").await;
    client.reached(&order, "ended").await;
    assert_eq!(fixture.result_of("j1", &cancel).await["type"], "cancel_succeeded");
    assert_eq!(fixture.fleet.status("acme", "j2").await, "running", "the one that it asked for is its own");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_asked_to_leave_sends_its_sessions_away_and_the_runs_move_at_once() {
    let mut fixture = RemoteFixture::start(&[]).await;
    let first = fixture.worker();
    let mut client = fixture.client(&first, "s1").await;
    let attached = client.attach(1, "acme", "j1").await;
    fixture.fleet.signal(first.handle, Signal::TERM);
    assert_eq!(client.closed().await, 1012);
    assert_eq!(fixture.fleet.status("acme", "j1").await, "running", "nobody else takes it meanwhile");
    drop(client);
    assert_eq!(fixture.fleet.wait(first.handle), Some(0));
    // The only worker comes back under the same address: the run goes on there.
    let again = fixture.worker_at(&first.address);
    let (mut client, moved) = back(&fixture, &again, &attached["run"]).await;
    assert_eq!((&moved["type"], &moved["status"]), (&json!("attached"), &json!("running")), "{moved}");
    assert_eq!(client.end(1, "completed").await["status"], "completed");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_run_of_a_dead_worker_is_released_if_its_session_never_comes_and_that_is_no_crash() {
    let mut fixture = RemoteFixture::start(&[REATTACH]).await;
    let first = fixture.worker();
    fixture.worker();
    let mut client = fixture.client(&first, "s1").await;
    client.attach(1, "acme", "j1").await;
    fixture.fleet.kill(first.handle);
    fixture.until_status("j1", "pending").await;
    let row: (i64, Option<String>) = sqlx::query_as("SELECT deaths, remote_session FROM jobs WHERE id = 'j1'")
        .fetch_one(&fixture.fleet.sql().await)
        .await
        .expect("the row");
    assert_eq!(row, (0, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_another_system_ends_is_lost_to_its_session() {
    let mut fixture = RemoteFixture::start(&[]).await;
    let worker = fixture.worker();
    let mut client = fixture.client(&worker, "s1").await;
    client.attach(1, "acme", "j1").await;
    sqlx::query("UPDATE jobs SET status = 'failed', host = NULL WHERE id = 'j1'")
        .execute(&fixture.fleet.sql().await)
        .await
        .expect("update");
    assert_eq!(client.about(1, &["lost", "order", "ended"]).await["type"], "lost");
    assert_eq!(client.hears_within(1, Duration::from_millis(300)).await, None, "and nothing after that");
    assert_eq!(fixture.fleet.status("acme", "j1").await, "failed");
}
