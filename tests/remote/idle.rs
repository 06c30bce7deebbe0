//! Foreign sessions that have nothing to do are in nobody's way, and are no workers.

use std::time::{Duration, Instant};

use serde_json::json;

use super::fixture::RemoteFixture;

const SESSIONS: usize = 4;
/// Rows of another system, of which each is paused and resumed.
const ROWS: usize = 20;

/// Pauses and resumes each row; gives how long the pauses took, sorted.
async fn pauses(fixture: &RemoteFixture) -> Vec<Duration> {
    let mut took = Vec::new();
    for n in 0..ROWS {
        let id = format!("row{n}");
        let begun = Instant::now();
        let pause = fixture.command("pause", &id);
        let result = fixture.result_of(&id, &pause).await;
        took.push(begun.elapsed());
        assert_eq!((&result["type"], &result["control"]), (&json!("pause_succeeded"), &json!("row")), "{result}");
        let resume = fixture.command("resume", &id);
        assert_eq!(fixture.result_of(&id, &resume).await["type"], "resume_succeeded");
    }
    took.sort_unstable();
    took
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_sessions_do_not_count_as_workers_and_other_rows_are_paused_as_before() {
    let mut fixture = RemoteFixture::start(&[("LIMITS__COMMANDS_PER_MINUTE", "10000")]).await;
    for n in 0..ROWS {
        fixture.fleet.external_job("acme", &format!("row{n}")).await;
    }
    let worker = fixture.worker();
    let mut watch = fixture.watch("row0").await;
    let online = async |watch: &mut crate::support::socket::Socket, request: &str| {
        watch.send(json!({"type": "resume_job", "request_id": request})).await;
        watch.until(&["resume_requested"]).await["workers_online"].clone()
    };
    assert_eq!(online(&mut watch, "before").await, 1);
    let alone = pauses(&fixture).await;
    let mut sessions = Vec::new();
    for n in 0..SESSIONS {
        sessions.push(fixture.client(&worker, &format!("s{n}")).await);
    }
    // One of them holds a job that stands paused: it has nothing to do, either.
    assert_eq!(sessions[0].attach(1, "acme", "j1").await["status"], "running");
    let pause = fixture.command("pause", "j1");
    let order = sessions[0].order(1, "pause").await;
    sessions[0].reached(&order, "still").await;
    fixture.result_of("j1", &pause).await;
    let beside = pauses(&fixture).await;
    // For docs/performance.md; a busy machine gives any figure, so none of them decides.
    let p95 = |took: &[Duration]| took[took.len() * 95 / 100 - 1];
    println!("p95 of a pause without sessions {:?}, beside {SESSIONS} {:?}", p95(&alone), p95(&beside));
    assert_eq!(online(&mut watch, "beside").await, 1, "sessions carry out no commands of others");

    // Without the worker nobody is left who could carry a command out, however many sessions look for another one.
    fixture.fleet.signal(worker.handle, rustix::process::Signal::TERM);
    fixture.fleet.wait(worker.handle);
    assert_eq!(online(&mut watch, "none").await, 0);
}
