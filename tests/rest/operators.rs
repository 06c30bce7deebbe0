//! What operators and programs ask: health, readiness, metrics, the description, the audit trail.

use serde_json::json;
use wheelhouse::broker::scripts::audit::AuditEntry;
use wheelhouse::domain::WorkerId;
use wheelhouse::store::{NewJob, WorkerInfo};

use crate::support::api::{RestFixture, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readiness_tells_what_is_away_and_comes_back() {
    let mut api = RestFixture::start(&[]).await;
    let ready = async |path: &str| api.send("GET", path, &[], "").await;
    until("ready", || async { ready("/readyz").await.status == 200 }).await;
    let body = ready("/readyz").await.expect(200);
    assert_eq!(body, json!({"redis":true,"sql":true,"subscription":true,"draining":false}));
    assert_eq!(ready("/healthz").await.expect(200), json!({"status":"ok"}));
    let metrics = ready("/metrics").await;
    for name in [
        "websocket_control_commands_total",
        "websocket_control_commands_success_total",
        "websocket_control_commands_failed_total",
        "websocket_connections",
        "wheelhouse_redis_up",
    ] {
        assert!(metrics.text.contains(&format!("# TYPE {name} ")), "{name} in {}", metrics.text);
    }
    assert!(metrics.text.contains("http_requests_total{method=\"GET\",route=\"/readyz\",status=\"200\"}"));
    assert!(metrics.header("content-type").starts_with("text/plain"));
    api.redis.kill();
    let ready = async |path: &str| api.send("GET", path, &[], "").await;
    until("not ready", || async { ready("/readyz").await.status == 503 }).await;
    assert_eq!(ready("/healthz").await.status, 200, "the process lives");
    assert_eq!(ready("/readyz").await.expect(503)["sql"], json!(true));
    api.redis.restart();
    let ready = async |path: &str| api.send("GET", path, &[], "").await;
    until("ready again", || async { ready("/readyz").await.status == 200 }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paths_and_methods_that_do_not_exist_are_answered_in_json() {
    let api = RestFixture::start(&[]).await;
    let ann = api.user("ann", "acme", &["*"]).await;
    for path in ["/api/v1/job", "/api/v1/jobs/j1/stop", "/api/v2/jobs", "/api/v1/", "/nothing/here"] {
        api.get(&ann, path).await.error(404, "not_found");
    }
    let reply = api.send("DELETE", "/api/v1/jobs", &[], "").await;
    assert!(reply.error(405, "method_not_allowed").contains("GET, POST"));
    assert_eq!(reply.header("allow"), "GET, POST");
    api.send("GET", "/api/v1/jobs/j1/cancel", &[], "").await.error(405, "method_not_allowed");
    let head = api.send("HEAD", "/healthz", &[], "").await;
    assert_eq!((head.status, head.text.as_str()), (200, ""));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_description_is_served_and_every_path_in_it_answers() {
    let api = RestFixture::start(&[]).await;
    let document = api.send("GET", "/api/v1/openapi.json", &[], "").await.expect(200);
    assert_eq!(document["openapi"], "3.1.0");
    let ann = api.user("ann", "acme", &["*"]).await;
    for (path, item) in document["paths"].as_object().expect("paths") {
        let path = path.replace("{command_id}", "0190f3c8-0000-7000-8000-000000000001");
        let path = path.replace("{job_id}", "x").replace("{campaign_id}", "x");
        for method in item.as_object().expect("item").keys().filter(|key| *key != "parameters") {
            let bearer = format!("Bearer {ann}");
            let reply = api.send(&method.to_uppercase(), &path, &[("authorization", &bearer)], "").await;
            assert_ne!(reply.status, 405, "{method} {path}");
            assert!(!reply.text.contains("No such path"), "{method} {path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn live_workers_are_listed() {
    let api = RestFixture::start(&[]).await;
    let ann = api.user("ann", "acme", &["jobs.read"]).await;
    assert_eq!(api.get(&ann, "/api/v1/workers").await.expect(200), json!({"workers":[]}));
    for (id, tenants) in [("w-1", None), ("w-2", Some(["globex".parse().expect("tenant")]))] {
        let worker: WorkerId = id.parse().expect("id");
        let tenants = tenants.as_ref().map(<[_; 1]>::as_slice);
        api.broker.heartbeat(&worker, tenants, std::time::Duration::from_secs(60)).await.expect("heartbeat");
    }
    let listed = api.get(&ann, "/api/v1/workers").await.expect(200);
    assert_eq!((&listed["workers"][0]["id"], listed["workers"].as_array().map(Vec::len)), (&json!("w-1"), Some(1)));
    assert_eq!(listed["workers"][0]["name"], json!(null), "it has not said who it is");
    let info = WorkerInfo {
        id: "w-1".to_owned(),
        name: "night shift".to_owned(),
        machine: "box7".to_owned(),
        pid: 42,
        version: "1.2.3".to_owned(),
        slots: 4,
        client: None,
        started_at: None,
    };
    api.store.register_worker(&info).await.expect("register");
    let worker: WorkerId = "w-1".parse().expect("id");
    let minute = std::time::Duration::from_secs(60);
    api.broker.announce_job_types(&worker, &["mail".to_owned()], true, minute).await.expect("announce");
    api.store
        .create_job(&NewJob::new("acme".parse().expect("tenant"), "j1".parse().expect("id"), "mail"))
        .await
        .expect("job");
    api.store.claim_job(&worker, None, &["mail".to_owned()]).await.expect("claim").expect("the job");
    let listed = api.get(&ann, "/api/v1/workers").await.expect(200);
    let mut row = listed["workers"][0].clone();
    for time in ["started_at", "last_heartbeat"] {
        assert!(row[time].as_str().is_some_and(|time| time.ends_with('Z')), "{row}");
        row.as_object_mut().expect("object").remove(time);
    }
    let expected = json!({"id":"w-1","name":"night shift","host":"box7","pid":42,"version":"1.2.3","slots":4,
        "job_types":["mail"],"running":1,"paused":0,"attached":0,"sessions":[]});
    assert_eq!(row, expected);
    let shown = api.get(&ann, "/api/v1/jobs/j1").await.expect(200);
    assert_eq!((&shown["worker"]["name"], &shown["worker"]["host"]), (&json!("night shift"), &json!("box7")));
    let list = api.get(&ann, "/api/v1/jobs?worker=night%20shift").await.expect(200);
    assert_eq!((list["jobs"].as_array().map(Vec::len), &list["jobs"][0]["worker"]["id"]), (Some(1), &json!("w-1")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_are_told_of_what_may_be_read_and_throughput_is_exact_however_many_have_ended() {
    let api = RestFixture::start(&[]).await;
    let ann = api.user("ann", "acme", &["*"]).await;
    let ben = api.user("ben", "acme", &["campaigns.read"]).await;
    api.sql("INSERT INTO campaigns (id, tenant_id, name, status) VALUES ('c1', 'acme', 'Spring', 'active')").await;
    api.sql(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000) INSERT INTO jobs \
         (id, tenant_id, title, status) SELECT 'j' || i, 'acme', 'Number ' || i, 'running' FROM n",
    )
    .await;
    api.sql("INSERT INTO jobs (id, tenant_id, title, status) VALUES ('theirs', 'globex', 'Secret', 'running')").await;
    let path = "/api/v1/names?jobs=j1,theirs,nobody&campaigns=c1";
    let both = json!({"jobs": {"j1": "Number 1"}, "campaigns": {"c1": "Spring"}});
    assert_eq!(api.get(&ann, path).await.expect(200), both);
    assert_eq!(api.get(&ben, path).await.expect(200), json!({"jobs": {}, "campaigns": {"c1": "Spring"}}));
    assert_eq!(api.get(&ann, "/api/v1/names").await.expect(200), json!({"jobs": {}, "campaigns": {}}));
    let nobody = api.user("eve", "acme", &["jobs.cancel"]).await;
    api.get(&nobody, path).await.error(403, "permission_denied");
    for wrong in ["jobs=a,,b".to_owned(), "jobs=a:b".to_owned(), format!("campaigns={}", vec!["x"; 101].join(","))] {
        let message = api.get(&ann, &format!("/api/v1/names?{wrong}")).await.error(400, "invalid_message");
        assert!(message.contains("must be ids with commas between them"), "{message}");
    }

    let sums = async |query: &str| {
        let told = api.get(&ann, &format!("/api/v1/throughput{query}")).await.expect(200);
        let until: jiff::Timestamp = told["until"].as_str().expect("a time").parse().expect("RFC 3339");
        assert!(until > jiff::Timestamp::now() - jiff::SignedDuration::from_secs(60));
        ["completed", "failed", "cancelled"].map(|status| {
            let counts: Vec<i64> = serde_json::from_value(told[status].clone()).expect("numbers");
            (counts.len(), counts.iter().sum::<i64>())
        })
    };
    assert_eq!(sums("").await, [(60, 0); 3]);
    api.sql("UPDATE jobs SET status = CASE WHEN id IN ('j1', 'j2') THEN 'failed' ELSE 'completed' END").await;
    assert_eq!(sums("").await, [(60, 2_998), (60, 2), (60, 0)]);
    assert_eq!(sums("?minutes=1440").await, [(1_440, 2_998), (1_440, 2), (1_440, 0)]);
    api.get(&ben, "/api/v1/throughput").await.error(403, "permission_denied");
    for wrong in ["0", "1441", "x"] {
        let message = api.get(&ann, &format!("/api/v1/throughput?minutes={wrong}")).await.error(400, "invalid_message");
        assert!(message.contains("\"minutes\" must be a number from 1 to 1440"), "{message}");
    }
}

fn entry(id: &str, tenant: &str, resource: &str) -> AuditEntry {
    AuditEntry {
        id: id.to_owned(),
        at: 1_767_225_600_000,
        event: "accepted".to_owned(),
        tenant_id: tenant.to_owned(),
        user_id: "ann".to_owned(),
        resource_kind: "job".to_owned(),
        resource_id: resource.to_owned(),
        action: "cancel".to_owned(),
        command_id: Some(format!("command-{id}")),
        request_id: None,
        reason: Some("because".to_owned()),
        address: None,
        token_id: None,
        outcome: None,
        worker_id: None,
        attempts: None,
        latency_ms: None,
        run_at: None,
        batch_id: None,
        refusals: None,
        first_at: None,
        last_at: None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_audit_trail_shows_the_own_tenant_only_in_pages() {
    let api = RestFixture::start(&[]).await;
    let entries = [entry("1-0", "acme", "j1"), entry("2-0", "globex", "j1"), entry("3-0", "acme", "j2")];
    assert!(api.store.append_audit("audit:{00}", &entries).await.expect("append") == 3);
    let auditor = api.user("auditor", "acme", &["audit.read"]).await;
    let all = api.get(&auditor, "/api/v1/audit").await.expect(200);
    let resources: Vec<&str> =
        all["entries"].as_array().expect("entries").iter().filter_map(|entry| entry["resource_id"].as_str()).collect();
    assert_eq!(resources, ["j1", "j2"]);
    let first = &all["entries"][0];
    assert_eq!((&first["event"], &first["reason"]), (&json!("accepted"), &json!("because")));
    assert!(first["at"].as_str().is_some_and(|at| at.starts_with("2026-01-01T00:00:00")), "{first}");
    assert!(first["id"].is_i64() && first["hash"].is_string());
    let one = api.get(&auditor, "/api/v1/audit?resource=j2").await.expect(200);
    assert_eq!(one["entries"].as_array().map(Vec::len), Some(1));
    let page = api.get(&auditor, "/api/v1/audit?limit=1").await.expect(200);
    let next = page["next"].as_str().expect("more");
    let rest = api.get(&auditor, &format!("/api/v1/audit?after={next}")).await.expect(200);
    assert_eq!(rest["entries"][0]["resource_id"], "j2");
    assert_eq!(rest["next"], json!(null));
    // The newest first, page by page; what has come since is asked for in the other order.
    let newest = api.get(&auditor, "/api/v1/audit?order=newest&limit=1").await.expect(200);
    assert_eq!(newest["entries"][0]["resource_id"], "j2");
    let next = newest["next"].as_str().expect("more");
    let older = api.get(&auditor, &format!("/api/v1/audit?order=newest&after={next}")).await.expect(200);
    assert_eq!(
        (older["entries"].as_array().map(Vec::len), &older["entries"][0]["resource_id"]),
        (Some(1), &json!("j1"))
    );
    assert_eq!(older["next"], json!(null));
    let since = api.get(&auditor, "/api/v1/audit?order=oldest&after=1").await.expect(200);
    assert_eq!(
        (since["entries"].as_array().map(Vec::len), &since["entries"][0]["resource_id"]),
        (Some(1), &json!("j2"))
    );
    let refused = api.get(&auditor, "/api/v1/audit?order=upwards").await.error(400, "invalid_message");
    assert_eq!(refused, "\"order\" must be oldest or newest");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_audit_trail_is_searched_and_exported_within_the_own_tenant() {
    let api = RestFixture::start(&[]).await;
    let make = |n: i64, tenant: &str, user: &str, action: &str, event: &str| AuditEntry {
        at: n * 1_000,
        user_id: user.to_owned(),
        action: action.to_owned(),
        event: event.to_owned(),
        reason: Some("=1+1".to_owned()),
        ..entry(&format!("{n}-0"), tenant, "j1")
    };
    let entries = [
        make(1, "acme", "ann", "pause", "accepted"),
        make(2, "globex", "ann", "pause", "accepted"),
        make(3, "acme", "bob", "cancel", "denied"),
        make(4, "acme", "ann", "pause", "succeeded"),
    ];
    api.store.append_audit("audit:{00}", &entries).await.expect("append");
    let auditor = api.user("auditor", "acme", &["audit.read"]).await;
    let found = async |query: &str| -> Vec<i64> {
        let all = api.get(&auditor, &format!("/api/v1/audit?{query}")).await.expect(200);
        all["entries"].as_array().expect("entries").iter().filter_map(|entry| entry["id"].as_i64()).collect()
    };
    assert_eq!(found("").await, [1, 3, 4]);
    assert_eq!(found("user=ann").await, [1, 4], "ann's in another tenant are not shown");
    assert_eq!(found("action=cancel").await, [3]);
    assert_eq!(found("event=succeeded&user=ann&resource=j1").await, [4]);
    assert_eq!(found("since=1970-01-01T00:00:03Z").await, [3, 4]);
    assert_eq!(found("until=1970-01-01T00:00:03Z").await, [1]);
    assert_eq!(found("since=24h").await, [0_i64; 0]);
    assert_eq!(found("until=24h").await, [1, 3, 4]);
    for wrong in ["action=stop", "event=done", "since=yesterday", "user=a%20b", "format=xml", "tenant=globex"] {
        api.get(&auditor, &format!("/api/v1/audit?{wrong}")).await.error(400, "invalid_message");
    }
    let stranger = api.user("stranger", "acme", &["jobs.*"]).await;
    api.get(&stranger, "/api/v1/audit?format=csv").await.error(403, "permission_denied");

    // Page after page makes one file.
    let mut files = Vec::new();
    for format in ["csv", "jsonl"] {
        let (mut file, mut after) = (String::new(), String::new());
        loop {
            let page = api.get(&auditor, &format!("/api/v1/audit?format={format}&limit=2{after}")).await;
            assert_eq!(page.status, 200);
            assert!(page.header("content-disposition").contains(&format!("audit.{format}")));
            file.push_str(&page.text);
            if page.header("x-next").is_empty() {
                break;
            }
            after = format!("&after={}", page.header("x-next"));
        }
        files.push(file);
    }
    let lines: Vec<&str> = files[0].lines().collect();
    assert_eq!(lines.len(), 4, "{}", files[0]);
    assert!(lines[0].starts_with("id,at,event,tenant_id,user_id,"));
    assert!(
        lines[2].starts_with("3,1970-01-01T00:00:03Z,denied,acme,bob,cancel,job,j1,") && lines[2].contains(",'=1+1,")
    );
    let objects: Vec<serde_json::Value> =
        files[1].lines().map(|line| serde_json::from_str(line).expect("an object a line")).collect();
    assert_eq!(objects.len(), 3);
    assert_eq!((&objects[1]["user_id"], &objects[1]["reason"]), (&json!("bob"), &json!("=1+1")));
    let whole = api.get(&auditor, "/api/v1/audit").await.expect(200);
    assert_eq!(whole["entries"], json!(objects), "the same in every format");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newest_of_the_audit_trail_is_checked_for_whoever_may_read_it() {
    let api = RestFixture::start(&[]).await;
    let auditor = api.user("auditor", "acme", &["audit.read"]).await;
    let empty = api.get(&auditor, "/api/v1/audit/verify").await.expect(200);
    assert_eq!((&empty["intact"], &empty["rows"], &empty["after"]), (&json!(true), &json!(0), &json!(0)));
    // The chain goes through all tenants.
    for (n, tenant) in ["acme", "globex", "acme", "globex", "acme"].into_iter().enumerate() {
        let entry = entry(&format!("{}-0", n + 1), tenant, &format!("j{n}"));
        assert_eq!(api.store.append_audit("audit:{00}", &[entry]).await.expect("append"), 1);
    }
    let whole = api.get(&auditor, "/api/v1/audit/verify").await.expect(200);
    assert_eq!((&whole["intact"], &whole["rows"], &whole["after"]), (&json!(true), &json!(5), &json!(0)));
    assert_eq!((&whole["last"]["id"], &whole["breaks"]), (&json!(5), &json!([])));
    let newest = api.get(&auditor, "/api/v1/audit/verify?rows=2").await.expect(200);
    assert_eq!((&newest["intact"], &newest["rows"], &newest["after"]), (&json!(true), &json!(2), &json!(3)));
    assert_eq!(newest["last"], whole["last"]);

    // Where something is wrong is told; what stands there, of another tenant, is not.
    // By somebody who may do anything with the database.
    api.sql("DROP TRIGGER command_audit_u").await;
    api.sql("DROP TRIGGER command_audit_d").await;
    api.sql("UPDATE command_audit SET user_id = 'eve' WHERE id = 2").await;
    let broken = api.get(&auditor, "/api/v1/audit/verify").await.expect(200);
    assert_eq!(broken["intact"], false);
    assert_eq!(broken["breaks"], json!([{"kind": "changed", "first": 2, "last": 2}]));
    assert!(!broken.to_string().contains("globex") && !broken.to_string().contains("eve"), "{broken}");
    let newest = api.get(&auditor, "/api/v1/audit/verify?rows=2").await.expect(200);
    assert_eq!(newest["intact"], true, "only these two were looked at");
    api.sql("DELETE FROM command_audit WHERE id = 5").await;
    let cut = api.get(&auditor, "/api/v1/audit/verify?rows=2").await.expect(200);
    assert_eq!(cut["breaks"], json!([{"kind": "cut_off", "first": 5, "last": 5}]));

    for wrong in ["rows=0", "rows=10001", "rows=x", "tenant=globex"] {
        api.get(&auditor, &format!("/api/v1/audit/verify?{wrong}")).await.error(400, "invalid_message");
    }
    let stranger = api.user("stranger", "acme", &["jobs.*"]).await;
    api.get(&stranger, "/api/v1/audit/verify").await.error(403, "permission_denied");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_metrics_show_how_many_audit_entries_wait() {
    let api = RestFixture::start(&[]).await;
    for _ in 0..3 {
        api.redis.inline("XADD wh:{03}:audit * event accepted entry {}");
    }
    api.redis.inline("XADD wh:{07}:audit * event accepted entry {}");
    until("the gauge shows it", || async {
        api.send("GET", "/metrics", &[], "").await.text.lines().any(|line| line == "wheelhouse_audit_backlog 4")
    })
    .await;
}
