//! Batches over HTTP: the answer at once, or all results.

use std::time::Duration;

use serde_json::{Value, json};
use wheelhouse::broker::Broker;
use wheelhouse::broker::scripts::claim::ClaimOutcome;
use wheelhouse::domain::{Control, Resource, WorkerId};
use wheelhouse::protocol::{CommandError, Outcome};

use crate::support::api::RestFixture;

async fn with_jobs(count: usize, settings: &[(&str, &str)]) -> (RestFixture, String) {
    let api = RestFixture::start(settings).await;
    let ann = api.user("ann", "acme", &["*"]).await;
    for n in 0..count {
        api.post(&ann, "/api/v1/jobs", &json!({"job_type": "demo", "id": format!("j{n}")})).await.expect(201);
    }
    (api, ann)
}

/// Answers the next command of a job: well, or not.
async fn carry_out(broker: &Broker, id: &str, well: bool) {
    let (worker, job): (WorkerId, _) = ("w-1".parse().expect("id"), Resource::parse(&format!("acme:job:{id}")));
    let job = job.expect("resource");
    loop {
        if let ClaimOutcome::Command(claim) = broker.claim(&job, &worker, Duration::from_secs(5)).await.expect("claim")
        {
            let outcome = match well {
                true => Outcome::Succeeded("paused".to_owned()),
                false => Outcome::Failed(CommandError::ControlFailed { reason: "Gone".to_owned() }),
            };
            broker.complete(&claim, &worker, &outcome, Some(Control::Row), None).await.expect("complete");
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_is_acknowledged_and_waiting_gives_every_result() {
    let (api, ann) = with_jobs(2, &[]).await;
    let batch = json!({"type": "pause_jobs", "job_ids": ["j0", "none", "j1"], "request_id": "r1"});
    let ack = api.post(&ann, "/api/v1/batch", &batch).await.expect(202);
    assert_eq!((&ack["type"], &ack["accepted"], &ack["refused"]), (&json!("batch_requested"), &json!(2), &json!(1)));
    let posted = api.post(&ann, "/api/v1/batch?wait=60", &batch);
    let working = async {
        carry_out(&api.broker, "j1", false).await;
        carry_out(&api.broker, "j0", true).await;
    };
    let (reply, ()) = tokio::join!(posted, working);
    let command = |n: usize| ack["items"][n]["command_id"].as_str().expect("id").to_owned();
    assert_eq!(reply.status, 200);
    assert_eq!(
        reply.text,
        format!(
            r#"{{"type":"batch_completed","batch_id":{},"tenant_id":"acme","action":"pause","total":3,"succeeded":1,"failed":1,"refused":1,"items":[{{"job_id":"j0","command_id":"{}","status":"paused","control":"row"}},{{"job_id":"none","error":"not_found","message":"There is no job none in your tenant"}},{{"job_id":"j1","command_id":"{}","error":"Gone","control":"row"}}],"more":false,"request_id":"r1"}}"#,
            ack["batch_id"],
            command(0),
            command(2)
        )
    );
    assert_eq!(api.post(&ann, "/api/v1/batch?wait=60", &batch).await.text, reply.text);
    // Nobody carries this one out: the time is up, and the answer is as it was.
    let other = json!({"type": "resume_jobs", "filter": {"status": "pending"}, "request_id": "r2"});
    let first = api.post(&ann, "/api/v1/batch", &other).await.expect(202);
    assert_eq!(api.post(&ann, "/api/v1/batch?wait=1", &other).await.expect(202), first);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_way_not_to_be_accepted_has_its_status() {
    let (api, ann) = with_jobs(1, &[("limits.commands_per_minute", "2")]).await;
    let post = async |token: &str, body: Value| api.post(token, "/api/v1/batch", &body).await;
    for (body, code, part) in [
        (json!({"type": "ping"}), "unknown_type", "this path takes cancel_jobs"),
        (json!({"type": "cancel_job", "job_id": "j0"}), "unknown_type", "this path takes cancel_jobs"),
        (json!({"type": "cancel_jobs"}), "invalid_message", "needs job_ids or a filter"),
        (
            json!({"type": "cancel_jobs", "job_ids": ["j0"], "dryrun": true}),
            "invalid_message",
            "unknown field `dryrun`",
        ),
        (
            json!({"type": "cancel_jobs", "job_ids": ["j0"], "run_at": "2030-01-01T00:00:00Z"}),
            "invalid_message",
            "runs at once",
        ),
    ] {
        let words = post(&ann, body).await.error(400, code);
        assert!(words.contains(part), "{words}");
    }
    let bearer = format!("Bearer {ann}");
    let send = async |body: &str| {
        api.send("POST", "/api/v1/batch", &[("authorization", bearer.as_str())], body.to_owned()).await
    };
    send("nonsense").await.error(400, "invalid_message");
    send(&" ".repeat(193 * 1024)).await.error(413, "too_large");
    api.send("POST", "/api/v1/batch", &[], "{}").await.error(401, "unauthorized");
    let bob = api.user("bob", "acme", &["jobs.read"]).await;
    let asked = json!({"type": "cancel_jobs", "job_ids": ["j0"], "request_id": "r1"});
    let denied = post(&bob, asked.clone()).await;
    assert_eq!(denied.error(403, "permission_denied"), "Insufficient permissions to cancel job");
    assert_eq!(denied.json()["request_id"], "r1");
    let preview = post(&ann, json!({"type": "cancel_jobs", "filter": {}, "dry_run": true})).await.expect(200);
    assert_eq!((&preview["type"], &preview["items"]), (&json!("batch_preview"), &json!([{"job_id": "j0"}])));
    post(&ann, asked).await.expect(202);
    post(&ann, json!({"type": "cancel_jobs", "job_ids": ["j0"], "request_id": "r1", "reason": "x"}))
        .await
        .error(409, "request_conflict");
    post(&ann, json!({"type": "pause_jobs", "job_ids": ["j0"]})).await.expect(202);
    let limited = post(&ann, json!({"type": "pause_jobs", "job_ids": ["j0"]})).await;
    limited.error(429, "rate_limit_exceeded");
    assert_eq!(limited.header("retry-after"), limited.json()["retry_after"].to_string());
}
