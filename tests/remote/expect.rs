//! Jobs that were published to a broker and have not begun.

use std::time::Duration;

use serde_json::json;

use super::client::Client;
use super::fixture::RemoteFixture;

async fn expect(client: &mut Client, reference: u64, job: &str) -> serde_json::Value {
    let more = json!({"type": "expect", "ref": reference, "tenant_id": "acme", "job_id": job, "job_type": "csv_import",
        "title": "Soon", "max_retries": 2, "run_after": "2030-01-01T00:00:00Z"});
    client.send(more).await;
    client.about(reference, &["expected", "refused"]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expected_job_can_be_seen_and_controlled_and_no_other_worker_takes_it() {
    let mut fixture = RemoteFixture::start(&[]).await;
    let worker = fixture.worker();
    // It knows this type of job.
    fixture.fleet.demo_worker();
    let mut publisher = fixture.client(&worker, "web").await;
    for (reference, job) in [(1, "kept"), (2, "paused"), (3, "cancelled")] {
        assert_eq!(expect(&mut publisher, reference, job).await["status"], "pending");
    }
    let job = fixture.job("kept");
    assert_eq!((&job["status"], &job["title"], &job["control"]), (&json!("pending"), &json!("Soon"), &json!("row")));
    let pause = fixture.command("pause", "paused");
    assert_eq!(fixture.result_of("paused", &pause).await["control"], "row");
    let cancel = fixture.command("cancel", "cancelled");
    assert_eq!(fixture.result_of("cancelled", &cancel).await["status"], "cancelled");
    assert_eq!(expect(&mut publisher, 4, "cancelled").await["status"], "cancelled", "it is there, whatever it is");
    // Longer than a worker takes to find a job that waits for it.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(fixture.fleet.status("acme", "kept").await, "pending");

    let mut runner = fixture.client(&worker, "s1").await;
    assert_eq!(runner.attach(1, "acme", "kept").await["status"], "running");
    assert_eq!(runner.attach(2, "acme", "paused").await["status"], "paused");
    let refused = runner.attach(3, "acme", "cancelled").await;
    assert_eq!((&refused["error"], &refused["status"]), (&json!("ended"), &json!("cancelled")));
    // Its retries were said when it was published.
    runner.send(json!({"type": "end", "ref": 1, "how": "failed", "error": "no luck"})).await;
    assert_eq!(runner.about(1, &["ended"]).await["status"], "pending");
    assert_eq!(fixture.job("kept")["retry_count"], 1);
    // A foreign process that dies while its job is paused: the job fails by way of running.
    runner.send(json!({"type": "end", "ref": 2, "how": "failed", "error": "killed", "permanent": true})).await;
    assert_eq!(runner.about(2, &["ended"]).await["status"], "failed");
    assert_eq!(fixture.job("paused")["error_message"], "killed");
    // Handed back with a time.
    assert_eq!(runner.attach(5, "acme", "kept").await["type"], "attached");
    let back = json!({"type": "end", "ref": 5, "how": "handed_back", "run_after": "2031-01-01T00:00:00Z"});
    runner.send(back).await;
    assert_eq!(runner.about(5, &["ended"]).await["status"], "pending");
    assert_eq!(fixture.job("kept")["run_after"], "2031-01-01T00:00:00Z");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_that_waits_when_the_job_is_attached_keeps_it_from_beginning() {
    let mut fixture = RemoteFixture::start(&[]).await;
    // Nobody is up who could carry it out.
    fixture.fleet.external_job("acme", "j1").await;
    let cancel = fixture.command("cancel", "j1");
    let worker = fixture.worker();
    let mut client = fixture.client(&worker, "s1").await;
    let answer = client.attach(1, "acme", "j1").await;
    assert_eq!((&answer["type"], &answer["error"]), (&json!("refused"), &json!("ended")), "{answer}");
    assert_eq!(fixture.result_of("j1", &cancel).await["status"], "cancelled");
}
