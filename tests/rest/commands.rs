//! Commands over HTTP: the ack, the result, and every way not to be accepted.

use std::time::Duration;

use serde_json::json;
use wheelhouse::broker::Broker;
use wheelhouse::broker::scripts::claim::ClaimOutcome;
use wheelhouse::domain::{Control, Resource, WorkerId};
use wheelhouse::protocol::Outcome;

use crate::support::api::{RestFixture, until};

fn worker() -> WorkerId {
    "w-1".parse().expect("id")
}

/// Answers the oldest command of a resource as a worker would, once there is one.
async fn carry_out(broker: &Broker, resource: &Resource) {
    loop {
        if let ClaimOutcome::Command(claim) =
            broker.claim(resource, &worker(), Duration::from_secs(5)).await.expect("claim")
        {
            let outcome = Outcome::Succeeded("cancelled".to_owned());
            broker.complete(&claim, &worker(), &outcome, Some(Control::Row), None).await.expect("complete");
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn with_job(settings: &[(&str, &str)]) -> (RestFixture, String, Resource) {
    let api = RestFixture::start(settings).await;
    let ann = api.user("ann", "acme", &["*"]).await;
    api.post(&ann, "/api/v1/jobs", &json!({"job_type":"demo","id":"j1"})).await.expect(201);
    (api, ann, Resource::parse("acme:job:j1").expect("resource"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_is_acknowledged_and_its_result_is_found_under_its_id() {
    let (api, ann, job) = with_job(&[]).await;
    api.broker.heartbeat(&worker(), None, Duration::from_secs(60)).await.expect("heartbeat");
    let reply = api.post(&ann, "/api/v1/jobs/j1/cancel", &json!({"request_id":"r1","reason":"enough"})).await;
    let ack = reply.expect(202);
    let id = ack["command_id"].as_str().expect("id");
    assert_eq!(
        reply.text,
        format!(
            r#"{{"type":"cancel_requested","job_id":"j1","tenant_id":"acme","command_id":"{id}","workers_online":1,"control":"row","request_id":"r1"}}"#
        )
    );
    let place = reply.header("location").to_owned();
    assert_eq!(place, format!("/api/v1/jobs/j1/commands/{id}"));
    let pending = api.get(&ann, &place).await;
    assert_eq!(
        (pending.status, pending.text),
        (
            200,
            format!(r#"{{"type":"pending","job_id":"j1","tenant_id":"acme","command_id":"{id}","workers_online":1}}"#)
        )
    );
    let unknown = format!("/api/v1/jobs/j1/commands/{}?wait=60", wheelhouse::domain::CommandId::generate());
    api.get(&ann, &unknown).await.error(404, "not_found");
    carry_out(&api.broker, &job).await;
    let result = format!(
        r#"{{"type":"cancel_succeeded","job_id":"j1","tenant_id":"acme","command_id":"{id}","status":"cancelled","control":"row","request_id":"r1"}}"#
    );
    assert_eq!(api.get(&ann, &place).await.text, result);
    // The same request again is the same command, and with `wait` its result at once.
    let again = api.post(&ann, "/api/v1/jobs/j1/cancel", &json!({"request_id":"r1","reason":"enough"})).await;
    assert_eq!(again.expect(202)["command_id"], ack["command_id"]);
    let waited = api.post(&ann, "/api/v1/jobs/j1/cancel?wait=60", &json!({"request_id":"r1","reason":"enough"})).await;
    assert_eq!((waited.status, waited.text), (200, result));
    let other = api.post(&ann, "/api/v1/jobs/j1/pause", &json!({"request_id":"r1"})).await;
    other.error(409, "request_conflict");
    assert_eq!(other.json()["request_id"], "r1");
}

/// Who has sent no command sees all the same what waits, for whom, and whether a worker has it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_is_shown_to_everybody_who_may_read_it_until_it_has_its_result() {
    let (api, ann, job) = with_job(&[]).await;
    api.post(&ann, "/api/v1/campaigns", &json!({"id":"j1"})).await.expect(201);
    let bob = api.user("bob", "acme", &["jobs.read"]).await;
    let path = "/api/v1/queue/waiting";
    assert_eq!(api.get(&bob, path).await.expect(200), json!({"waiting": [], "more": false}));
    let pause = api.post(&ann, "/api/v1/jobs/j1/pause", &json!({"reason":"lunch"})).await.expect(202);
    let resume = api.post(&ann, "/api/v1/jobs/j1/resume", &json!({})).await.expect(202);
    api.post(&ann, "/api/v1/campaigns/j1/cancel", &json!({})).await.expect(202);

    let listed = api.get(&bob, path).await.expect(200);
    let waits = listed["waiting"].as_array().expect("a list").clone();
    let told = |waits: &[serde_json::Value]| -> Vec<_> {
        waits.iter().map(|one| (one["command_id"].clone(), one["state"].clone())).collect()
    };
    let (first, second) = (pause["command_id"].clone(), resume["command_id"].clone());
    // The campaign is not for bob to read.
    assert_eq!(told(&waits), [(first.clone(), json!("waiting")), (second.clone(), json!("waiting"))]);
    assert_eq!(
        (&waits[0]["job_id"], &waits[0]["action"], &waits[0]["user_id"], &waits[0]["reason"]),
        (&json!("j1"), &json!("pause"), &json!("ann"), &json!("lunch"))
    );
    assert!(waits[0]["accepted_at"].is_string() && waits[1]["reason"].is_null());
    let named = async |token: &str, query: &str| -> usize {
        let listed = api.get(token, &format!("{path}?{query}")).await.expect(200);
        listed["waiting"].as_array().expect("a list").len()
    };
    assert_eq!((named(&ann, "resource=j1").await, named(&bob, "resource=j1").await), (3, 2));
    assert_eq!(named(&ann, "resource=other").await, 0);
    api.get(&ann, &format!("{path}?limit=1")).await.error(400, "invalid_message");

    let claimed = api.broker.claim(&job, &worker(), Duration::from_secs(30)).await.expect("claim");
    let ClaimOutcome::Command(claim) = claimed else { panic!("the pause can be claimed") };
    let listed = api.get(&bob, path).await.expect(200);
    let waits = listed["waiting"].as_array().expect("a list");
    assert_eq!(told(waits), [(first, json!("claimed")), (second.clone(), json!("waiting"))]);
    let outcome = Outcome::Succeeded("paused".to_owned());
    api.broker.complete(&claim, &worker(), &outcome, Some(Control::Row), None).await.expect("complete");
    let listed = api.get(&bob, path).await.expect(200);
    assert_eq!(told(listed["waiting"].as_array().expect("a list")), [(second, json!("waiting"))]);
    let eve = api.user("eve", "globex", &["*"]).await;
    assert_eq!(api.get(&eve, path).await.expect(200)["waiting"], json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_gives_the_result_itself() {
    let (api, ann, job) = with_job(&[]).await;
    let nothing = json!({});
    let posted = api.post(&ann, "/api/v1/jobs/j1/cancel?wait=60", &nothing);
    let (reply, ()) = tokio::join!(posted, carry_out(&api.broker, &job));
    assert_eq!(reply.expect(200)["type"], "cancel_succeeded");
    // Nobody carries this one out: the time is up, and the ack says that it is on its way.
    let reply = api.post(&ann, "/api/v1/jobs/j1/pause?wait=1", &json!({})).await;
    assert_eq!(reply.expect(202)["type"], "pause_requested");
    let place = reply.header("location").to_owned();
    let path = format!("{place}?wait=60");
    let (result, ()) = tokio::join!(api.get(&ann, &path), carry_out(&api.broker, &job));
    assert_eq!(result.expect(200)["type"], "pause_succeeded");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_body_is_a_command_and_a_campaign_takes_them_too() {
    let (api, ann, _) = with_job(&[]).await;
    let bearer = format!("Bearer {ann}");
    let reply = api.send("POST", "/api/v1/jobs/j1/pause", &[("authorization", &bearer)], "").await;
    assert_eq!(reply.expect(202)["type"], "pause_requested");
    api.post(&ann, "/api/v1/campaigns", &json!({"id":"c1"})).await.expect(201);
    for action in ["pause", "resume", "cancel"] {
        let ack = api.post(&ann, &format!("/api/v1/campaigns/c1/{action}"), &json!({})).await.expect(202);
        assert_eq!((&ack["type"], &ack["campaign_id"]), (&json!(format!("{action}_requested")), &json!("c1")));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_says_why_with_the_fitting_status() {
    let (api, ann, job) = with_job(&[("limits.commands_per_minute", "3")]).await;
    let reader = api.user("reader", "acme", &["jobs.read"]).await;
    let eve = api.user("eve", "globex", &["*"]).await;
    let denied = api.post(&reader, "/api/v1/jobs/j1/cancel", &json!({})).await;
    assert_eq!(denied.error(403, "permission_denied"), "Insufficient permissions to cancel job");
    // Nothing of what exists is told to those who may not act on it.
    let absent = api.post(&reader, "/api/v1/jobs/none/cancel", &json!({})).await;
    assert_eq!(absent.error(403, "permission_denied"), "Insufficient permissions to cancel job");
    api.post(&ann, "/api/v1/jobs/none/cancel", &json!({})).await.error(404, "not_found");
    api.post(&eve, "/api/v1/jobs/j1/cancel", &json!({})).await.error(404, "not_found");
    api.post(&ann, "/api/v1/jobs/a:b/cancel", &json!({})).await.error(400, "invalid_message");
    let odd = api.post(&ann, "/api/v1/jobs/j1/cancel", &json!({"reson":"x"})).await;
    assert!(odd.error(400, "invalid_message").contains("\"reson\""));
    api.post(&ann, "/api/v1/jobs/j1/cancel?wait=61", &json!({})).await.error(400, "invalid_message");
    api.get(&ann, "/api/v1/jobs/j1/commands/none").await.error(400, "invalid_message");
    assert!(api.broker.recent_results(&job, 10).await.expect("results").is_empty());
    for _ in 0..3 {
        api.post(&ann, "/api/v1/jobs/j1/pause", &json!({})).await.expect(202);
    }
    let limited = api.post(&ann, "/api/v1/jobs/j1/pause", &json!({"request_id":"r9"})).await;
    assert_eq!(limited.error(429, "rate_limit_exceeded"), "Rate limit exceeded: 3/3 commands per minute");
    let body = limited.json();
    let seconds = body["retry_after"].as_i64().expect("seconds");
    assert!((1..=60).contains(&seconds), "{body}");
    assert_eq!((limited.header("retry-after"), &body["request_id"]), (seconds.to_string().as_str(), &json!("r9")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_a_command_is_refused_and_goes_through_once_it_is_back() {
    let (mut api, ann, _) = with_job(&[]).await;
    api.redis.kill();
    let cancel = async |api: &RestFixture, request: &str| {
        api.post(&ann, "/api/v1/jobs/j1/cancel", &json!({"request_id": request})).await
    };
    let reply = cancel(&api, "r1").await;
    assert!(reply.status == 503 || reply.status == 504, "{reply:?}");
    // Another request: where the first one was on its way to Redis when that was killed, its outcome stays unknown until Redis is back.
    until("refused at once", || async {
        let reply = cancel(&api, "r2").await;
        reply.status == 503 && reply.json()["error"] == "unavailable" && !reply.header("retry-after").is_empty()
    })
    .await;
    api.redis.restart();
    until("accepted", || async { cancel(&api, "r1").await.status == 202 }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_gateway_that_accepted_a_command_counts_its_result_whoever_carried_it_out() {
    let (api, ann, _) = with_job(&[]).await;
    api.post(&ann, "/api/v1/campaigns", &json!({"id":"c1"})).await.expect(201);
    // All gateways of this process share their metrics: no other test carries this very kind of command out.
    let labels = r#"{resource="campaign",action="resume"}"#;
    let read = async |name: &str| -> u64 {
        let text = api.send("GET", "/metrics", &[], "").await.text;
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name}{labels} ")).map(str::to_owned));
        line.and_then(|value| value.parse().ok()).unwrap_or_default()
    };
    let (success, latency) = ("websocket_control_commands_success_total", "websocket_control_latency_seconds_count");
    let before = (read(success).await, read(latency).await);
    api.post(&ann, "/api/v1/campaigns/c1/resume", &json!({})).await.expect(202);
    assert_eq!((read(success).await, read(latency).await), before, "not before it has a result");
    carry_out(&api.broker, &Resource::parse("acme:campaign:c1").expect("resource")).await;
    until("counted", || async { (read(success).await, read(latency).await) == (before.0 + 1, before.1 + 1) }).await;
}
