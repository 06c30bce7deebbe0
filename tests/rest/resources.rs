//! Making, listing and showing jobs and campaigns.

use serde_json::{Value, json};
use wheelhouse::broker::scripts::updates::Update;
use wheelhouse::domain::{FailedItem, Resource};
use wheelhouse::store::SavedRun;

use crate::support::api::RestFixture;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_is_made_shown_and_listed_and_other_tenants_see_nothing_of_it() {
    let api = RestFixture::start(&[]).await;
    let ann = api.user("ann", "acme", &["*"]).await;
    let stranger = api.user("eve", "globex", &["*"]).await;
    let body = json!({"job_type":"demo","id":"j1","title":"T ü","parameters":{"rows":[1,{"a":null}]},"max_retries":2});
    let reply = api.post(&ann, "/api/v1/jobs", &body).await;
    let made = reply.expect(201);
    assert_eq!(reply.header("location"), "/api/v1/jobs/j1");
    assert_eq!((&made["id"], &made["status"], &made["created_by"]), (&json!("j1"), &json!("pending"), &json!("ann")));
    assert_eq!(made["parameters"], body["parameters"]);
    api.post(&ann, "/api/v1/jobs", &body).await.error(409, "conflict");
    let shown = api.get(&ann, "/api/v1/jobs/j1").await.expect(200);
    assert_eq!((&shown["title"], &shown["job_id"], &shown["seq"]), (&json!("T ü"), &json!("j1"), &json!(0)));
    assert_eq!(shown.get("desired"), None);
    let theirs = api.get(&stranger, "/api/v1/jobs/j1").await;
    let none = api.get(&stranger, "/api/v1/jobs/j2").await;
    theirs.error(404, "not_found");
    assert_eq!(theirs.text, none.text, "another tenant's job looks like none");
    assert_eq!(api.get(&stranger, "/api/v1/jobs").await.expect(200)["jobs"], json!([]));
    // The same id in another tenant is another job.
    api.post(&stranger, "/api/v1/jobs", &body).await.expect(201);
    assert_eq!(api.get(&stranger, "/api/v1/jobs/j1").await.expect(200)["tenant_id"], "globex");
    let generated = api.post(&ann, "/api/v1/jobs", &json!({"job_type":"demo"})).await.expect(201);
    assert_eq!(generated["id"].as_str().map(str::len), Some(36));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_under_way_shows_as_desired_with_its_seq() {
    let api = RestFixture::start(&[]).await;
    let ann = api.user("ann", "acme", &["*"]).await;
    api.post(&ann, "/api/v1/jobs", &json!({"job_type":"demo","id":"j1"})).await.expect(201);
    let job = Resource::parse("acme:job:j1").expect("resource");
    let message = r#"{"type":"job_status","job_id":"j1","tenant_id":"acme","status":"pending","desired":"paused""#;
    let update = Update { message: message.to_owned(), desired: Some(Some("paused".to_owned())) };
    let seq = api.broker.publish_update(&job, &update).await.expect("publish");
    let shown = api.get(&ann, "/api/v1/jobs/j1").await.expect(200);
    assert_eq!((&shown["desired"], shown["seq"].as_i64()), (&json!("paused"), Some(seq)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_are_filtered_and_come_in_pages() {
    let api = RestFixture::start(&[]).await;
    let ann = api.user("ann", "acme", &["*"]).await;
    api.post(&ann, "/api/v1/campaigns", &json!({"id":"c1","name":"N"})).await.expect(201);
    for n in 0..7 {
        let mut body = json!({"job_type": if n % 2 == 0 { "even" } else { "odd" }, "id": format!("j{n}")});
        if n < 3 {
            body["campaign_id"] = "c1".into();
        }
        api.post(&ann, "/api/v1/jobs", &body).await.expect(201);
    }
    let ids = |page: &Value| -> Vec<String> {
        page["jobs"].as_array().expect("jobs").iter().map(|job| job["id"].as_str().expect("id").to_owned()).collect()
    };
    let list = async |query: &str| ids(&api.get(&ann, &format!("/api/v1/jobs?{query}")).await.expect(200));
    assert_eq!(list("job_type=odd").await, ["j5", "j3", "j1"]);
    assert_eq!(list("campaign_id=c1").await, ["j2", "j1", "j0"]);
    assert_eq!(list("campaign_id=c1&job_type=even").await, ["j2", "j0"]);
    assert_eq!(list("status=running").await, [""; 0]);
    let (mut all, mut query) = (Vec::new(), "limit=3".to_owned());
    loop {
        let page = api.get(&ann, &format!("/api/v1/jobs?{query}")).await.expect(200);
        all.extend(ids(&page));
        let Some(next) = page["next"].as_str() else { break };
        query = format!("limit=3&after={next}");
    }
    assert_eq!(all, ["j6", "j5", "j4", "j3", "j2", "j1", "j0"]);
    for (query, part) in [
        ("status=stopped", "must be one of pending"),
        ("stauts=running", "Unknown query parameter"),
        ("limit=0", "1 to 1000"),
        ("after=x", "\"next\""),
        ("campaign_id=a%3Ab", "1 to 128 letters"),
    ] {
        let words = api.get(&ann, &format!("/api/v1/jobs?{query}")).await.error(400, "invalid_message");
        assert!(words.contains(part), "{query}: {words}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_campaign_is_made_with_all_its_jobs_or_not_at_all() {
    let api = RestFixture::start(&[]).await;
    let ann = api.user("ann", "acme", &["*"]).await;
    let jobs: Vec<Value> = (0..10_000).map(|n| json!({"job_type":"demo","id":format!("j{n}")})).collect();
    let made = api.post(&ann, "/api/v1/campaigns", &json!({"id":"c1","name":"Big","jobs":jobs})).await.expect(201);
    assert_eq!(
        (&made["items_total"], &made["is_active"], &made["status"]),
        (&json!(10_000), &json!(true), &json!("active"))
    );
    let shown = api.get(&ann, "/api/v1/campaigns/c1").await.expect(200);
    assert_eq!((&shown["campaign_id"], &shown["name"], &shown["seq"]), (&json!("c1"), &json!("Big"), &json!(0)));
    // One of its jobs is there already: nothing of it is made.
    let clash = json!({"id":"c2","jobs":[{"job_type":"demo","id":"new"},{"job_type":"demo","id":"j77"}]});
    let words = api.post(&ann, "/api/v1/campaigns", &clash).await.error(409, "conflict");
    assert!(words.contains("j77"), "{words}");
    api.get(&ann, "/api/v1/campaigns/c2").await.error(404, "not_found");
    api.get(&ann, "/api/v1/jobs/new").await.error(404, "not_found");
    let words = api.post(&ann, "/api/v1/campaigns", &json!({"id":"c1"})).await.error(409, "conflict");
    assert!(words.contains("c1") && !words.to_lowercase().contains("unique"), "{words}");
    let list = api.get(&ann, "/api/v1/campaigns").await.expect(200);
    assert_eq!(list["campaigns"].as_array().map(Vec::len), Some(1));
    let absent = json!({"job_type":"demo","campaign_id":"c9"});
    assert!(api.post(&ann, "/api/v1/jobs", &absent).await.error(409, "conflict").contains("c9"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_that_do_not_fit_are_refused_and_say_why() {
    let api = RestFixture::start(&[]).await;
    let ann = api.user("ann", "acme", &["*"]).await;
    let bearer = format!("Bearer {ann}");
    let raw = async |path: &str, body: String| api.send("POST", path, &[("authorization", &bearer)], body).await;
    for (body, part) in [
        ("{\"job_type\":", "EOF"),
        ("[]", "does not fit"),
        ("{\"job_type\":\"x\",\"jobtype\":1}", "unknown field `jobtype`"),
        ("{\"job_type\":\"x\",\"id\":\"../etc\"}", "1 to 128 letters"),
        ("", "EOF"),
    ] {
        let words = raw("/api/v1/jobs", body.to_owned()).await.error(400, "invalid_message");
        assert!(words.contains(part), "{words}");
    }
    let large = json!({"job_type":"x","parameters":"x".repeat(1024 * 1024)}).to_string();
    raw("/api/v1/jobs", large.clone()).await.error(413, "too_large");
    // A campaign may have more, but not without end.
    let larger = json!({"jobs":[{"job_type":"x","parameters":"x".repeat(1024 * 1024)}]}).to_string();
    raw("/api/v1/campaigns", larger).await.expect(201);
    raw("/api/v1/campaigns", "x".repeat(16 * 1024 * 1024 + 1)).await.error(413, "too_large");
    // What is compressed is refused as such, also where lines are read as they come.
    for (kind, encoding) in [("application/json", "gzip"), ("application/x-ndjson", "zstd")] {
        let headers = [("authorization", bearer.as_str()), ("content-type", kind), ("content-encoding", encoding)];
        let reply = api.send("POST", "/api/v1/jobs", &headers, "{\"job_type\":\"x\"}").await;
        let words = reply.error(415, "unsupported_encoding");
        assert!(words.contains("send it as it is") && reply.header("accept-encoding") == "identity", "{words}");
        let headers = [headers[0], headers[1], ("content-encoding", "identity")];
        api.send("POST", "/api/v1/jobs/j1/cancel", &headers, "{}").await.error(404, "not_found");
    }
    api.get(&ann, "/api/v1/jobs/a:b").await.error(400, "invalid_message");
    assert_eq!(api.get(&ann, "/api/v1/jobs").await.expect(200)["jobs"].as_array().map(Vec::len), Some(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_are_made_also_while_redis_is_away() {
    let mut api = RestFixture::start(&[]).await;
    let ann = api.user("ann", "acme", &["*"]).await;
    let nobody = api.user("nobody", "acme", &[]).await;
    api.redis.kill();
    api.post(&ann, "/api/v1/jobs", &json!({"job_type":"demo","id":"j1"})).await.expect(201);
    api.post(&nobody, "/api/v1/jobs", &json!({"job_type":"demo"})).await.error(403, "permission_denied");
    api.redis.restart();
    let shown = async || api.get(&ann, "/api/v1/jobs/j1").await.status == 200;
    crate::support::api::until("Redis is found again", shown).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_has_a_time_limit_where_it_was_given_one() {
    let api = RestFixture::start(&[]).await;
    let ann = api.user("ann", "acme", &["*"]).await;
    for (id, limit) in [("with", json!(90)), ("without", json!(null))] {
        let made = api.post(&ann, "/api/v1/jobs", &json!({"job_type":"demo","id":id,"timeout_seconds":limit})).await;
        assert_eq!(made.expect(201)["timeout_seconds"], limit);
        let shown = api.get(&ann, &format!("/api/v1/jobs/{id}")).await.expect(200);
        assert_eq!((&shown["timeout_seconds"], &shown["run_after"]), (&limit, &json!(null)));
    }
    let none = api.post(&ann, "/api/v1/jobs", &json!({"job_type":"demo","timeout_seconds":0})).await;
    assert!(none.error(400, "invalid_message").contains("timeout_seconds must be"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_failed_items_of_a_job_come_in_pages_for_those_who_may_read_it() {
    let api = RestFixture::start(&[]).await;
    let ann = api.user("ann", "acme", &["jobs.*"]).await;
    let (bob, stranger) = (api.user("bob", "acme", &["campaigns.read"]).await, api.user("eve", "globex", &["*"]).await);
    api.post(&ann, "/api/v1/jobs", &json!({"job_type":"demo","id":"j1"})).await.expect(201);
    let path = "/api/v1/jobs/j1/failed_items";
    assert_eq!(api.get(&ann, path).await.expect(200), json!({"failed_items": [], "next": null}));
    let host = "w".parse().expect("worker");
    let hosted = api.store.claim_job(&host, None, &["demo".to_owned()]).await.expect("claim").expect("the job");
    let failed_items =
        (0..5).map(|n| FailedItem { item: format!("row {n}"), error: "no \"quotes\"".to_owned() }).collect();
    api.store.save(&hosted.run, &SavedRun { failed_items, ..SavedRun::default() }).await.expect("save");

    let (mut items, mut after) = (Vec::new(), String::new());
    loop {
        let page = api.get(&ann, &format!("{path}?limit=2&after={after}")).await.expect(200);
        let rows = page["failed_items"].as_array().expect("rows").clone();
        assert!(rows.len() <= 2);
        items.extend(rows);
        let Some(next) = page["next"].as_str() else { break };
        after = next.to_owned();
    }
    let names: Vec<&Value> = items.iter().map(|row| &row["item"]).collect();
    assert_eq!(json!(names), json!(["row 0", "row 1", "row 2", "row 3", "row 4"]));
    assert_eq!((&items[0]["error"], &items[0]["run"]), (&json!("no \"quotes\""), &json!(1)));
    assert!(items[0]["at"].as_str().is_some_and(|at| at.ends_with('Z')), "{items:?}");

    api.get(&bob, path).await.error(403, "permission_denied");
    api.get(&stranger, path).await.error(404, "not_found");
    api.get(&ann, "/api/v1/jobs/none/failed_items").await.error(404, "not_found");
    api.get(&ann, &format!("{path}?limit=0")).await.error(400, "invalid_message");
    api.get(&ann, &format!("{path}?after=x")).await.error(400, "invalid_message");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_has_parameters_and_results_only_where_they_are_asked_for() {
    let api = RestFixture::start(&[]).await;
    let ann = api.user("ann", "acme", &["*"]).await;
    api.post(&ann, "/api/v1/jobs", &json!({"job_type":"demo","id":"j1","parameters":{"a":1}})).await.expect(201);
    let first =
        async |query: &str| api.get(&ann, &format!("/api/v1/jobs?{query}")).await.expect(200)["jobs"][0].clone();
    let usual = first("").await;
    assert_eq!((usual.get("parameters"), usual.get("result"), &usual["title"]), (None, None, &Value::Null));
    assert_eq!(first("fields=parameters,status").await, json!({"id":"j1","status":"pending","parameters":{"a":1}}));
    let words = api.get(&ann, "/api/v1/jobs?fields=params").await.error(400, "invalid_message");
    assert!(words.contains("\"params\"") && words.contains("parameters, result"), "{words}");
    assert_eq!(api.get(&ann, "/api/v1/jobs/j1").await.expect(200)["parameters"], json!({"a":1}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_error_is_shown_in_part_and_can_be_had_whole() {
    let api = RestFixture::start(&[]).await;
    let ann = api.user("ann", "acme", &["*"]).await;
    let stranger = api.user("eve", "globex", &["*"]).await;
    api.post(&ann, "/api/v1/jobs", &json!({"job_type":"demo","id":"j1"})).await.expect(201);
    assert_eq!(api.get(&ann, "/api/v1/jobs/j1/error").await.expect(200)["error_message"], Value::Null);
    api.sql("UPDATE jobs SET status = 'failed', error_message = 'begin' || hex(zeroblob(1500000)) || 'end'").await;
    let shown = api.get(&ann, "/api/v1/jobs/j1").await.expect(200);
    let shown = shown["error_message"].as_str().expect("text").to_owned();
    assert!(shown.len() < 4_100 && shown.starts_with("begin") && shown.ends_with("end"), "{shown}");
    let whole = api.get(&ann, "/api/v1/jobs/j1/error").await.expect(200);
    assert_eq!(whole["error_message"].as_str().map(str::len), Some(3_000_008));
    api.get(&stranger, "/api/v1/jobs/j1/error").await.error(404, "not_found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_are_added_to_an_open_campaign_many_at_a_time_until_it_is_closed() {
    let api = RestFixture::start(&[]).await;
    let ann = api.user("ann", "acme", &["*"]).await;
    let viewer = api.user("vic", "acme", &["campaigns.read", "jobs.read"]).await;
    let made = api.post(&ann, "/api/v1/campaigns", &json!({"id":"c1"})).await.expect(201);
    assert_eq!((&made["is_open"], &made["status"]), (&json!(true), &json!("active")));
    let array = json!([{"job_type":"demo","id":"a1"},{"job_type":"demo","id":"a2"}]);
    let many = api.post(&ann, "/api/v1/campaigns/c1/jobs", &array).await.expect(201);
    assert_eq!((&many["jobs"][1]["id"], &many["jobs"][1]["campaign_id"]), (&json!("a2"), &json!("c1")));
    let lines = "{\"job_type\":\"demo\",\"id\":\"l1\"}\n{\"job_type\":\"demo\",\"id\":\"l2\",\"campaign_id\":\"c1\"}\n";
    let bearer = format!("Bearer {ann}");
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/x-ndjson")];
    api.send("POST", "/api/v1/jobs", &headers, lines).await.expect(201);
    let one = api.post(&ann, "/api/v1/campaigns/c1/jobs", &json!({"job_type":"demo","id":"o1"})).await;
    assert_eq!((&one.expect(201)["campaign_id"], one.header("location")), (&json!("c1"), "/api/v1/jobs/o1"));
    let clash = json!([{"job_type":"demo","id":"new"},{"job_type":"demo","id":"a1"}]);
    api.post(&ann, "/api/v1/campaigns/c1/jobs", &clash).await.error(409, "conflict");
    api.get(&ann, "/api/v1/jobs/new").await.error(404, "not_found");
    api.post(&ann, "/api/v1/campaigns/none/jobs", &array).await.error(404, "not_found");
    api.post(&viewer, "/api/v1/campaigns/c1/jobs", &array).await.error(403, "permission_denied");
    api.post(&viewer, "/api/v1/campaigns/c1/close", &json!({})).await.error(403, "permission_denied");
    // The first of the lines named no campaign.
    let row = api.get(&ann, "/api/v1/campaigns/c1").await.expect(200);
    assert_eq!((&row["items_total"], &row["jobs_by_status"]["pending"]), (&json!(4), &json!(4)));
    let closed = api.post(&ann, "/api/v1/campaigns/c1/close", &json!({})).await.expect(200);
    assert_eq!((&closed["is_open"], &closed["status"]), (&json!(false), &json!("active")));
    let words = api.post(&ann, "/api/v1/campaigns/c1/jobs", &json!({"job_type":"demo"})).await.error(409, "conflict");
    assert!(words.contains("closed"), "{words}");
    api.post(&ann, "/api/v1/campaigns", &json!({"id":"c2"})).await.expect(201);
    let empty = api.post(&ann, "/api/v1/campaigns/c2/close", &json!({})).await.expect(200);
    assert_eq!(empty["status"], "completed");
    api.post(&ann, "/api/v1/campaigns/c3/close", &json!({})).await.error(404, "not_found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_in_parameters_keep_every_digit() {
    let api = RestFixture::start(&[]).await;
    let ann = api.user("ann", "acme", &["*"]).await;
    let exact = r#"{"whole":123456789012345678901234567890,"decimal":0.1000000000000000055511151231257827}"#;
    let body = format!(r#"{{"job_type":"demo","id":"j1","parameters":{exact}}}"#);
    let bearer = format!("Bearer {ann}");
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    let made = api.send("POST", "/api/v1/jobs", &headers, body).await;
    assert!(made.text.contains(exact), "{}", made.text);
    api.sql(
        r#"INSERT INTO jobs (id, tenant_id, job_type, parameters) VALUES ('j2', 'acme', 'demo',
             '{"whole":123456789012345678901234567890,"decimal":0.1000000000000000055511151231257827}')"#,
    )
    .await;
    for path in ["/api/v1/jobs/j1", "/api/v1/jobs/j2", "/api/v1/jobs?fields=parameters"] {
        let text = api.get(&ann, path).await.text;
        assert!(text.contains(exact), "{path}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parameters_that_a_reader_or_a_database_could_not_take_are_refused_in_words() {
    let api = RestFixture::start(&[]).await;
    let ann = api.user("ann", "acme", &["*"]).await;
    let bearer = format!("Bearer {ann}");
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let digits = |count: usize| "1".repeat(count);
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    for (parameters, words) in [
        (nested(128), "more than 127 arrays and objects inside one another"),
        (digits(1_001), "more than 1000 characters"),
        ("{\"a\":1e401}".to_owned(), "an exponent beyond 400: 1e401; give it as text"),
        (r#"["\ud83d"]"#.to_owned(), "half a surrogate pair"),
        (r#"["\u0000"]"#.to_owned(), "NUL"),
        ("NaN".to_owned(), "expected"),
    ] {
        let job = format!(r#"{{"job_type":"demo","parameters":{parameters}}}"#);
        let campaign = format!(r#"{{"jobs":[{job}]}}"#);
        for (path, body) in [("/api/v1/jobs", job), ("/api/v1/campaigns", campaign)] {
            let said = api.send("POST", path, &headers, body).await.error(400, "invalid_message");
            assert!(said.contains(words), "{path} {parameters:.40}: {said}");
        }
    }
    for (id, parameters) in [("deep", nested(127)), ("long", digits(1_000)), ("large", "[1e400,-1E-400]".to_owned())] {
        let body = format!(r#"{{"job_type":"demo","id":"{id}","parameters":{parameters}}}"#);
        // Compared as texts: the numbers are too large for the test's own reader.
        let made = api.send("POST", "/api/v1/jobs", &headers, body).await;
        assert_eq!(made.status, 201, "{}", made.text);
        let text = api.get(&ann, &format!("/api/v1/jobs/{id}")).await.text;
        assert!(text.contains(&format!("\"parameters\":{parameters}")), "{text}");
    }
}
