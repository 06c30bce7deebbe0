//! Jobs that are run again, and what they print, over HTTP, on both databases.

use serde_json::{Value, json};
use wheelhouse::domain::{OutputStream, Progress, Resource};
use wheelhouse::store::{NewOutputLine, Run, RunEnd};

use crate::support::api::RestFixture;
use crate::support::postgres;
use crate::support::socket::Socket;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_are_run_again_on_sqlite() {
    run_again(RestFixture::start(&[]).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_are_run_again_on_postgresql() {
    let url = postgres::database().await;
    run_again(RestFixture::start(&[("database.url", &url)]).await).await;
}

/// A worker takes the oldest job, prints a line, and fails.
async fn fails(api: &RestFixture, id: &str) {
    let claimed = api.store.claim_job(&"w1".parse().expect("id"), None, &["mail".to_owned()]).await.expect("claim");
    let run = claimed.expect("a job").run;
    assert_eq!(run.job.id.as_str(), id);
    let line = |text: &str, open| NewOutputLine { at: 1, stream: OutputStream::Stderr, text: text.to_owned(), open };
    api.store.add_output(&run, &[line("first", false), line("\u{1b}]0;x\u{7}second", false)]).await.expect("write");
    api.store.add_output(&run, &[line("50%", true)]).await.expect("write");
    let end = RunEnd::Failed { error: "no".to_owned(), permanent: true };
    api.store.finish(&run, &Progress::default(), &end).await.expect("finish");
}

async fn run_again(api: RestFixture) {
    let ann = api.user("ann", "acme", &["*"]).await;
    let viewer = api.user("vic", "acme", &["jobs.read"]).await;
    let eve = api.user("eve", "globex", &["*"]).await;
    let job = json!({"job_type": "mail", "id": "old", "parameters": {"to": ["a", 1.50]}, "title": "Letters"});
    api.post(&ann, "/api/v1/jobs", &job).await.expect(201);
    let words = api.post(&ann, "/api/v1/jobs/old/rerun", &json!({})).await.error(409, "conflict");
    assert!(words.contains("old is pending"), "{words}");
    fails(&api, "old").await;
    let path = "/api/v1/jobs/old/rerun";
    let words = api.post(&viewer, path, &json!({})).await.error(403, "permission_denied");
    assert!(words.contains("rerun job"), "{words}");
    api.post(&eve, path, &json!({})).await.error(404, "not_found");
    let asked = json!({"request_id": "r1", "reason": "mended"});
    let made = api.post(&ann, path, &asked).await;
    let location = made.header("location").to_owned();
    let made = made.expect(201);
    assert_eq!(
        (&made["rerun_of"], &made["status"], &made["created_by"]),
        (&json!("old"), &json!("pending"), &json!("ann"))
    );
    assert_eq!((&made["parameters"], &made["title"]), (&job["parameters"], &json!("Letters")));
    let id = made["id"].as_str().expect("id").to_owned();
    assert_eq!(location, format!("/api/v1/jobs/{id}"));
    // The same request again makes nothing; another, and another user's of the same name, do.
    assert_eq!(api.post(&ann, path, &asked).await.expect(200)["id"], json!(id));
    let header = [("authorization", format!("Bearer {ann}")), ("idempotency-key", "\"r1\"".to_owned())];
    let header: Vec<(&str, &str)> = header.iter().map(|(name, value)| (*name, value.as_str())).collect();
    assert_eq!(api.send("POST", path, &header, "").await.expect(200)["id"], json!(id));
    let other = api.post(&ann, path, &json!({"request_id": "r2"})).await.expect(201);
    assert_ne!(other["id"], json!(id));
    let old = api.get(&ann, "/api/v1/jobs/old").await.expect(200);
    assert_eq!((&old["status"], &old["reruns"]), (&json!("failed"), &json!([other["id"], id])));
    for (body, part) in [
        (json!({"request_id": "a b"}), "request_id"),
        (json!({"reasons": 1}), "unknown field"),
        (json!({"reason": "x".repeat(501)}), "500 characters"),
    ] {
        let words = api.post(&ann, path, &body).await.error(400, "invalid_message");
        assert!(words.contains(part), "{body}: {words}");
    }
    many(&api, &ann).await;
    audited(&api, &id).await;
    output(&api, &ann, &eve).await;
}

/// All failed jobs of a campaign.
async fn many(api: &RestFixture, ann: &str) {
    // What waits is none of this.
    api.sql("UPDATE jobs SET status = 'cancelled', cancelled_at = updated_at WHERE status = 'pending'").await;
    api.post(ann, "/api/v1/campaigns", &json!({"id": "c1", "name": "C"})).await.expect(201);
    for n in 0..3 {
        let job = json!({"job_type": "mail", "id": format!("m{n}"), "campaign_id": "c1"});
        api.post(ann, "/api/v1/jobs", &job).await.expect(201);
        fails(api, &format!("m{n}")).await;
    }
    api.sql("INSERT INTO jobs (id, tenant_id, status, campaign_id) VALUES ('ext', 'acme', 'failed', 'c1')").await;
    let path = "/api/v1/jobs/rerun";
    let mut asked = json!({"filter": {"campaign_id": "c1"}, "dry_run": true, "request_id": "all"});
    let tried = api.post(ann, path, &asked).await.expect(200);
    assert_eq!((&tried["total"], &tried["accepted"], &tried["refused"]), (&json!(4), &json!(3), &json!(1)));
    asked["dry_run"] = json!(false);
    let made = api.post(ann, path, &asked).await.expect(201);
    assert_eq!((&made["accepted"], &made["more"]), (&json!(3), &json!(false)));
    let items = made["items"].as_array().expect("items");
    assert!(items[0]["message"].as_str().is_some_and(|words| words.contains("another system")), "{}", items[0]);
    assert_eq!(items[1]["job_id"], "m2");
    assert_eq!(api.post(ann, path, &asked).await.expect(201)["items"], made["items"], "the same request again");
    let rest = api.post(ann, path, &json!({"filter": {"campaign_id": "c1"}})).await.expect(200);
    assert_eq!((&rest["total"], &rest["accepted"]), (&json!(1), &json!(0)), "each has been run again");
    let row = api.get(ann, &format!("/api/v1/jobs/{}", items[1]["rerun"].as_str().expect("id"))).await.expect(200);
    assert_eq!((&row["campaign_id"], &row["rerun_of"]), (&json!("c1"), &json!("m2")));
    let named = api.post(ann, path, &json!({"job_ids": ["m0", "none"]})).await.expect(201);
    assert_eq!((&named["accepted"], &named["items"][1]["error"]), (&json!(1), &json!("not_found")));
    for (body, part) in [
        (json!({}), "either"),
        (json!({"job_ids": []}), "1 to 1000"),
        (json!({"job_ids": ["a", "a"]}), "a twice"),
        (json!({"filter": {"status": ["running"]}}), "not ended"),
    ] {
        let words = api.post(ann, path, &body).await.error(400, "invalid_message");
        assert!(words.contains(part), "{body}: {words}");
    }
}

/// The stream from which workers write the trail has both entries of the rerun.
async fn audited(api: &RestFixture, id: &str) {
    let partition = api.broker.keys().partition(&"acme".parse().expect("tenant"));
    let entries = api.broker.audit_after(partition, "0", 1_000).await.expect("stream");
    let of_old: Vec<_> = entries.iter().filter(|entry| entry.resource_id == "old").collect();
    assert_eq!((of_old[0].action.as_str(), of_old[0].event.as_str()), ("rerun", "accepted"));
    assert_eq!((of_old[0].reason.as_deref(), of_old[0].user_id.as_str()), (Some("mended"), "ann"));
    assert_eq!((of_old[1].event.as_str(), of_old[1].outcome.clone()), ("succeeded", Some(format!("job {id}"))));
    assert_eq!(of_old[0].command_id, of_old[1].command_id);
}

async fn output(api: &RestFixture, ann: &str, eve: &str) {
    let path = "/api/v1/jobs/old/output";
    let all = api.get(ann, path).await.expect(200);
    let texts = |page: &Value| -> Vec<String> {
        let lines = page["lines"].as_array().expect("lines");
        lines.iter().map(|line| line["text"].as_str().expect("text").to_owned()).collect()
    };
    assert_eq!(texts(&all), ["first", "\u{1b}]0;x\u{7}second", "50%"]);
    assert_eq!((&all["lines"][2]["open"], &all["next"], &all["more"]), (&json!(true), &json!(2), &json!(false)));
    assert_eq!((&all["lines"][0]["stream"], &all["lines"][0]["run"]), (&json!("stderr"), &json!(1)));
    let page = api.get(ann, &format!("{path}?limit=1")).await.expect(200);
    assert_eq!((texts(&page).len(), &page["next"], &page["more"]), (1, &json!(1), &json!(true)));
    assert_eq!(texts(&api.get(ann, &format!("{path}?after=1&limit=5")).await.expect(200)).len(), 2);
    assert_eq!(texts(&api.get(ann, &format!("{path}?tail=1")).await.expect(200)), ["50%"]);
    api.get(eve, path).await.error(404, "not_found");
    for query in ["after=-1", "tail=0", "after=1&tail=2", "limit=0", "lines=3"] {
        api.get(ann, &format!("{path}?{query}")).await.error(400, "invalid_message");
    }
    // Who asks for it on the job's socket gets it there.
    let url = format!("ws://{}/api/v1/realtime/ws/jobs/m0?output=true&token={ann}", api.address);
    let mut socket = Socket::open(&url).await;
    let frame = socket.until(&["job_output"]).await;
    assert_eq!((frame["lines"].as_array().map(Vec::len), &frame["job_id"]), (Some(3), &json!("m0")));
    let job = Resource::parse("acme:job:m0").expect("resource");
    let run = Run { job, host: "w1".parse().expect("id"), number: 1 };
    let more = NewOutputLine { at: 2, stream: OutputStream::Log, text: "more".to_owned(), open: false };
    assert!(api.store.add_output(&run, &[more]).await.expect("write"));
    let frame = socket.until(&["job_output"]).await;
    assert_eq!((&frame["lines"][0]["text"], &frame["lines"][0]["line"]), (&json!("more"), &json!(3)));
}
