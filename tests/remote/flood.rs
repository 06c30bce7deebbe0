//! A client that publishes without end takes neither the worker's memory nor other sessions along.

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use super::fixture::RemoteFixture;

/// More than the bytes of messages that wait for SQL, and what the program uses for them, may come to.
const MOST_GROWTH_KIB: u64 = 192 * 1024;

fn expect(reference: u64, job: &str, parameters: &Value) -> Message {
    let message =
        json!({"type": "expect", "ref": reference, "tenant_id": "acme", "job_id": job, "parameters": parameters});
    Message::text(message.to_string())
}

/// Rows whose ids begin so.
async fn rows(fixture: &RemoteFixture, begin: &str) -> i64 {
    let count = sqlx::query_scalar("SELECT COUNT(*) FROM jobs WHERE id LIKE $1 || '%'").bind(begin);
    count.fetch_one(&fixture.fleet.sql().await).await.expect("a count")
}

#[tokio::test(flavor = "multi_thread")]
async fn who_publishes_large_jobs_without_end_fills_no_memory_and_others_are_served() {
    let mut fixture = RemoteFixture::start(&[]).await;
    let worker = fixture.worker();
    let mut other = fixture.client(&worker, "s1").await;
    assert_eq!(other.attach(1, "acme", "first").await["type"], "attached");
    let before = fixture.resident(&worker);
    // Three processes that send as fast as they are let, and read nothing.
    let mut floods = Vec::new();
    for process in 0..3 {
        let mut flooder = fixture.client(&worker, &format!("flood{process}")).await;
        floods.push(tokio::spawn(async move {
            let parameters = json!("x".repeat(200_000));
            for n in 1_u64.. {
                let message = expect(n, &format!("large-{process}-{n}"), &parameters);
                if flooder.socket.try_send(message).await.is_err() {
                    return;
                }
            }
        }));
    }
    // Meanwhile a job is attached, paused, resumed and ended over and over.
    let (mut reference, mut most) = (1, 0);
    while reference < 4 || rows(&fixture, "large-").await < 60 {
        reference += 1;
        let job = format!("served-{reference}");
        assert_eq!(other.attach(reference, "acme", &job).await["type"], "attached");
        let pause = fixture.command("pause", &job);
        let order = other.order(reference, "pause").await;
        other.reached(&order, "still").await;
        assert_eq!(fixture.result_of(&job, &pause).await["type"], "pause_succeeded");
        let resume = fixture.command("resume", &job);
        other.order(reference, "resume").await;
        fixture.result_of(&job, &resume).await;
        assert_eq!(other.end(reference, "completed").await["status"], "completed");
        most = most.max(fixture.resident(&worker));
    }
    floods.iter().for_each(tokio::task::JoinHandle::abort);
    assert!(most < before + MOST_GROWTH_KIB, "{before} KiB became {most}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_publishes_thousands_of_jobs_at_once_stands_in_nobodys_way() {
    const FLOOD: u64 = 1_000;
    let mut fixture = RemoteFixture::start(&[]).await;
    let worker = fixture.worker();
    let mut other = fixture.client(&worker, "s1").await;
    let mut flooder = fixture.client(&worker, "flood").await;
    for n in 1..=FLOOD {
        flooder.socket.send_raw(expect(n, &format!("small-{n}"), &json!(n))).await;
    }
    flooder.until(|message| message["type"] == "expected").await;
    assert_eq!(other.attach(1, "acme", "first").await["type"], "attached");
    // It did not wait for all of those that had come before.
    let waited_for = rows(&fixture, "small-").await;
    assert!(waited_for < 900, "{waited_for} of {FLOOD} came first");
    // And they are all told of in the end.
    for _ in 1..FLOOD {
        flooder.until(|message| message["type"] == "expected").await;
    }
    assert_eq!(rows(&fixture, "small-").await, 1_000);
}
