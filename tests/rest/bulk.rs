//! Jobs as a stream of lines: very many, with a wrong one among them, broken off, sent again.

use std::io::Write;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::api::{Reply, RestFixture, until};

/// Lines of jobs with these numbers.
fn lines(numbers: std::ops::Range<usize>) -> String {
    numbers.map(|n| format!("{{\"job_type\":\"mail\",\"title\":\"letter {n}\"}}\n")).collect()
}

async fn send(api: &RestFixture, token: &str, path: &str, body: String) -> Reply {
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/x-ndjson")];
    api.send("POST", path, &headers, body).await
}

async fn total(api: &RestFixture, token: &str, campaign: &str) -> Value {
    api.get(token, &format!("/api/v1/campaigns/{campaign}")).await.expect(200)["items_total"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_of_lines_makes_more_jobs_than_one_document_may_and_once_under_one_name() {
    let api = RestFixture::start(&[]).await;
    let ann = api.user("ann", "acme", &["*"]).await;
    let bob = api.user("bob", "acme", &["campaigns.read", "jobs.read"]).await;
    api.post(&ann, "/api/v1/campaigns", &json!({"id":"c1"})).await.expect(201);
    let path = "/api/v1/campaigns/c1/jobs?request_id=spring";
    let made = send(&api, &ann, path, lines(0..12_000)).await.expect(201);
    assert_eq!(made, json!({"count": 12_000, "new": 12_000}), "so many are not listed");
    assert_eq!(total(&api, &ann, "c1").await, 12_000);
    // The same again, and then more of it.
    assert_eq!(send(&api, &ann, path, lines(0..12_000)).await.expect(200)["new"], 0);
    assert_eq!(send(&api, &ann, path, lines(0..12_003)).await.expect(201), json!({"count": 12_003, "new": 3}));
    assert_eq!(total(&api, &ann, "c1").await, 12_003);
    let listed = api.get(&ann, "/api/v1/jobs?campaign_id=c1&limit=1").await.expect(200);
    let job = &listed["jobs"][0];
    assert_eq!(
        (&job["created_by"], &job["status"], &job["title"]),
        (&json!("ann"), &json!("pending"), &json!("letter 12002"))
    );
    // Few are answered with what it takes to find them; without a name each time is a new one.
    for _ in 0..2 {
        let few = send(&api, &ann, "/api/v1/jobs", lines(0..2)).await.expect(201);
        assert_eq!((&few["count"], few["jobs"].as_array().map(Vec::len)), (&json!(2), Some(2)));
    }
    send(&api, &bob, path, lines(0..2)).await.error(403, "permission_denied");
    let words =
        api.post(&ann, "/api/v1/jobs?request_id=x", &json!({"job_type":"mail"})).await.error(400, "invalid_message");
    assert!(words.contains("as lines"), "{words}");
    api.post(&ann, "/api/v1/campaigns/c1/close", &json!({})).await.expect(200);
    let words = send(&api, &ann, "/api/v1/campaigns/c1/jobs", lines(0..2)).await.error(409, "conflict");
    assert!(words.starts_with("line 1: campaign c1 is closed") && words.ends_with("No job was made"), "{words}");
    send(&api, &ann, "/api/v1/campaigns/none/jobs", lines(0..2)).await.error(404, "not_found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_byte_order_mark_before_a_body_is_passed_over() {
    let api = RestFixture::start(&[]).await;
    let ann = api.user("ann", "acme", &["*"]).await;
    let path = "/api/v1/jobs?request_id=marked";
    assert_eq!(send(&api, &ann, path, format!("\u{feff}{}", lines(0..3))).await.expect(201)["new"], 3);
    assert_eq!(send(&api, &ann, path, lines(0..3)).await.expect(200)["new"], 0, "the same lines");
    assert_eq!(send(&api, &ann, "/api/v1/jobs", format!("\u{feff}\r\n{}", lines(0..1))).await.expect(201)["new"], 1);
    let words = send(&api, &ann, "/api/v1/jobs", format!("{}\u{feff}{}", lines(0..1), lines(1..2))).await;
    let words = words.error(400, "invalid_message");
    assert!(words.starts_with("line 2: "), "in the middle it is none: {words}");
    let bearer = format!("Bearer {ann}");
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    api.send("POST", "/api/v1/jobs", &headers, "\u{feff}{\"job_type\":\"mail\"}".to_owned()).await.expect(201);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_line_is_named_with_what_was_made_before_it() {
    let api = RestFixture::start(&[]).await;
    let ann = api.user("ann", "acme", &["*"]).await;
    api.post(&ann, "/api/v1/campaigns", &json!({"id":"c1"})).await.expect(201);
    // Of few lines all are made or none.
    for (wrong, part) in [
        ("{\"job_type\":\"mail\",\"titel\":1}", "line 51: it does not fit: unknown field `titel`"),
        ("{\"job_type\":", "line 51: it does not fit: EOF"),
        ("{\"job_type\":\"mail\",\"campaign_id\":\"c2\"}", "line 51: campaign_id names another campaign"),
        ("{\"job_type\":\"mail\",\"max_retries\":1001}", "line 51: max_retries"),
    ] {
        let body = format!("{}{wrong}\n{}", lines(0..50), lines(50..60));
        let words = send(&api, &ann, "/api/v1/campaigns/c1/jobs", body).await.error(400, "invalid_message");
        assert!(words.starts_with(part) && words.ends_with("No job was made"), "{words}");
    }
    send(&api, &ann, "/api/v1/campaigns/c1/jobs", " \n\r\n".to_owned()).await.error(400, "invalid_message");
    assert_eq!(total(&api, &ann, "c1").await, 0);
    // Of many those before the batch of the wrong one; an empty line counts as one and is no job.
    let path = "/api/v1/campaigns/c1/jobs?request_id=spring";
    let body = |middle: &str| format!("{}\n{middle}\n{}", lines(0..11_500), lines(11_501..13_000));
    let refused = send(&api, &ann, path, body("nonsense")).await;
    let words = refused.error(400, "invalid_message");
    assert!(words.starts_with("line 11502: ") && words.contains("lines 1 to 11000 are made"), "{words}");
    assert_eq!((&refused.json()["lines_taken"], &refused.json()["request_id"]), (&json!(11_000), &json!("spring")));
    assert_eq!(total(&api, &ann, "c1").await, 11_000);
    let mended = send(&api, &ann, path, body("{\"job_type\":\"mail\"}")).await.expect(201);
    assert_eq!(mended, json!({"count": 13_000, "new": 2_000}));
    assert_eq!(total(&api, &ann, "c1").await, 13_000);
    // A job that is there already belongs to somebody else, or is another line.
    let twice = "{\"job_type\":\"mail\",\"id\":\"same\"}\n".repeat(2);
    let words = send(&api, &ann, "/api/v1/jobs?request_id=twice", twice).await.error(409, "conflict");
    assert!(words.starts_with("line 2: there is a job same already"), "{words}");
    api.get(&ann, "/api/v1/jobs/same").await.error(404, "not_found");
    let long = format!("{{\"job_type\":\"mail\",\"title\":\"{}\"}}\n", "x".repeat(1024 * 1024));
    let words = send(&api, &ann, "/api/v1/jobs", format!("{}{long}", lines(0..2))).await.error(413, "too_large");
    assert!(words.starts_with("line 3: "), "{words}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_that_was_changed_is_not_taken_for_the_one_that_was_made_before() {
    let api = RestFixture::start(&[]).await;
    let ann = api.user("ann", "acme", &["*"]).await;
    let path = "/api/v1/jobs?request_id=spring";
    let whole = |first: &str| {
        format!(
            "{first}\n{}",
            r#"{"job_type":"mail","id":"b","parameters":{"to":["x"],"n":1.50},"max_retries":2,"timeout_seconds":9}"#
        )
    };
    let first = r#"{"job_type":"mail","title":"letter"}"#;
    send(&api, &ann, path, whole(first)).await.expect(201);
    assert_eq!(send(&api, &ann, path, whole(first)).await.expect(200)["new"], 0);
    for changed in [
        r#"{"job_type":"mail","title":"another letter"}"#,
        r#"{"job_type":"mail"}"#,
        r#"{"job_type":"fax","title":"letter"}"#,
        r#"{"job_type":"mail","title":"letter","parameters":{"to":"y"}}"#,
        r#"{"job_type":"mail","title":"letter","max_retries":1}"#,
        r#"{"job_type":"mail","title":"letter","timeout_seconds":60}"#,
    ] {
        let words = send(&api, &ann, path, whole(changed)).await.error(409, "conflict");
        assert!(words.starts_with("line 1: ") && words.contains("before it was changed"), "{changed}: {words}");
    }
    // A line that was left out moves those behind it.
    let moved = send(&api, &ann, path, whole("")).await.expect(200);
    assert_eq!(moved, json!({"count": 1, "new": 0, "jobs": moved["jobs"]}), "an empty line counts as one");
    let longer = send(&api, &ann, path, format!("{first}\n{}", whole(first))).await;
    assert!(longer.error(409, "conflict").starts_with("line 3: there is a job b already"));
    assert_eq!(api.get(&ann, "/api/v1/jobs").await.expect(200)["jobs"].as_array().map(Vec::len), Some(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_breaks_off_leaves_whole_batches_and_goes_on_when_it_is_sent_again() {
    let api = RestFixture::start(&[]).await;
    let ann = api.user("ann", "acme", &["*"]).await;
    api.post(&ann, "/api/v1/campaigns", &json!({"id":"c1"})).await.expect(201);
    let path = "/api/v1/campaigns/c1/jobs?request_id=spring";
    let (address, head) = (api.address, format!("POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {ann}\r\n"));
    let begin = lines(0..12_500);
    let broken = tokio::task::spawn_blocking(move || {
        let mut socket = std::net::TcpStream::connect(address).expect("connect");
        let head = format!("{head}content-type: application/x-ndjson\r\ncontent-length: 10000000\r\n\r\n");
        socket.write_all(head.as_bytes()).expect("write");
        socket.write_all(begin.as_bytes()).expect("write");
        socket
    });
    let socket = broken.await.expect("sent");
    until("the first batches", || async { total(&api, &ann, "c1").await.as_u64() >= Some(10_000) }).await;
    drop(socket);
    let there = total(&api, &ann, "c1").await.as_u64().expect("a number");
    assert!(there.is_multiple_of(1_000) && there <= 12_000, "{there}");
    let whole = send(&api, &ann, path, lines(0..12_600)).await.expect(201);
    assert_eq!(whole["count"], 12_600);
    assert_eq!(total(&api, &ann, "c1").await, 12_600);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_loses_the_permission_while_lines_come_makes_no_further_batch() {
    let api = RestFixture::start(&[]).await;
    let (ann, admin) = (api.user("ann", "acme", &["*"]).await, api.user("admin", "acme", &["*"]).await);
    api.post(&ann, "/api/v1/campaigns", &json!({"id":"c1"})).await.expect(201);
    let mut socket = TcpStream::connect(api.address).await.expect("connect");
    let head = format!(
        "POST /api/v1/campaigns/c1/jobs HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {ann}\r\n\
         content-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    let chunk = |lines: String| format!("{:x}\r\n{lines}\r\n", lines.len());
    socket.write_all((head + &chunk(lines(0..12_500))).as_bytes()).await.expect("send");
    until("the first batches", || async { total(&api, &admin, "c1").await.as_u64() >= Some(10_000) }).await;
    let user = "ann".parse().expect("user");
    let version = api.store.revoke(&user, &["*".to_owned()]).await.expect("revoke");
    api.broker.invalidate_permissions(&user, version).await.expect("announce");
    let begun = Instant::now();
    until("the last check is old", || async { begun.elapsed() > Duration::from_millis(150) }).await;
    let before = total(&api, &admin, "c1").await.as_u64().expect("a number");
    socket.write_all((chunk(lines(12_500..20_000)) + "0\r\n\r\n").as_bytes()).await.expect("send");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 403") && answer.contains(&format!("\"lines_taken\":{before}")), "{answer}");
    assert!(answer.contains("send the lines from"), "{answer}");
    assert_eq!(total(&api, &admin, "c1").await, before);
}

/// Lines that a version before has made had ids of another kind: the same lines sent again find them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_whose_first_were_made_by_a_version_with_other_ids_make_nothing_twice() {
    let api = RestFixture::start(&[]).await;
    let ann = api.user("ann", "acme", &["*"]).await;
    for line in 1..=2 {
        let former = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, format!("acme ann spring  {line}").as_bytes());
        api.sql(&format!(
            "INSERT INTO jobs (id, tenant_id, job_type, title, origin, created_by, submitted_as)
             VALUES ('{former}', 'acme', 'mail', 'letter {}', 'queued', 'ann', 'ann spring {line}')",
            line - 1
        ))
        .await;
    }
    let path = "/api/v1/jobs?request_id=spring";
    for new in [3, 0] {
        let made = send(&api, &ann, path, lines(0..5)).await;
        assert_eq!((&made.json()["count"], &made.json()["new"]), (&json!(5), &json!(new)));
    }
    let all = api.get(&ann, "/api/v1/jobs?limit=50").await.expect(200);
    assert_eq!(all["jobs"].as_array().map(Vec::len), Some(5));
    // Others of the same day have ids in their order.
    let made = send(&api, &ann, "/api/v1/jobs?request_id=summer", lines(0..20)).await.expect(201);
    let ids: Vec<&str> = made["jobs"].as_array().expect("jobs").iter().filter_map(|job| job["id"].as_str()).collect();
    assert!(ids.len() == 20 && ids.is_sorted(), "{ids:?}");
}
