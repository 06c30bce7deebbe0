//! Who may come in: tokens in their places, permissions, tenants, pages of other sites.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::api::{RestFixture, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_taken_from_each_of_its_places_and_nobody_comes_in_without() {
    let api = RestFixture::start(&[]).await;
    let token = api.user("ann@example.com", "acme", &["jobs.read", "campaigns.*"]).await;
    let bearer = format!("Bearer {token}");
    let cookie = format!("theme=dark; access_token={token}");
    let query = format!("/api/v1/me?token={token}");
    for reply in [
        api.send("GET", "/api/v1/me", &[("authorization", &bearer)], "").await,
        api.send("GET", "/api/v1/me", &[("cookie", &cookie)], "").await,
        api.send("GET", &query, &[], "").await,
    ] {
        let me = reply.expect(200);
        assert_eq!((&me["user_id"], &me["tenant_id"]), (&json!("ann@example.com"), &json!("acme")));
        assert_eq!(me["permissions"], json!(["campaigns.*", "jobs.read"]));
        assert!(me["expires_at"].as_i64().is_some_and(|at| at > 1_700_000_000));
        assert_eq!(reply.header("x-content-type-options"), "nosniff");
        assert_eq!(reply.header("cache-control"), "no-store");
    }
    let reply = api.send("GET", "/api/v1/jobs", &[], "").await;
    assert!(reply.error(401, "unauthorized").starts_with("No token"));
    assert_eq!(reply.header("www-authenticate"), "Bearer");
    let forged = format!("{}x", token);
    let reply = api.get(&forged, "/api/v1/jobs").await;
    assert!(reply.error(401, "unauthorized").starts_with("Invalid token"));
    assert!(!reply.text.contains(&token[..20]));
    let metrics = api.send("GET", "/metrics", &[], "").await;
    assert!(!metrics.text.contains(&token[..20]), "no token in a metric");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_of_another_site_cannot_use_the_cookie_of_an_operator() {
    let api = RestFixture::start(&[("server.public_origins", "https://ops.example.com")]).await;
    let token = api.user("ann", "acme", &["*"]).await;
    let cookie = format!("access_token={token}");
    let own = format!("http://{}", api.address);
    let body = json!({"job_type": "demo"}).to_string();
    let post = async |origin: Option<(&str, &str)>| {
        let mut headers = vec![("cookie", cookie.as_str())];
        headers.extend(origin);
        api.send("POST", "/api/v1/jobs", &headers, body.clone()).await
    };
    for other in [
        None,
        Some(("origin", "https://evil.example")),
        Some(("origin", "null")),
        Some(("origin", "https://ops.example.com.evil.example")),
        Some(("sec-fetch-site", "cross-site")),
        Some(("sec-fetch-site", "same-site")),
    ] {
        post(other).await.error(403, "forbidden");
    }
    for good in [("origin", own.as_str()), ("origin", "https://ops.example.com"), ("sec-fetch-site", "same-origin")] {
        post(Some(good)).await.expect(201);
    }
    // By the rules of the sockets: behind a proxy the host may come with its port, and an origin never does.
    let proxied = [("cookie", cookie.as_str()), ("host", "wheel.example:443"), ("origin", "https://wheel.example")];
    api.send("POST", "/api/v1/jobs", &proxied, body.clone()).await.expect(201);
    // A header cannot be sent along by a foreign page: no question is asked there.
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str()), ("origin", "https://evil.example")];
    api.send("POST", "/api/v1/jobs", &headers, body.clone()).await.expect(201);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_token_nothing_is_said_of_what_else_is_wrong() {
    let api = RestFixture::start(&[]).await;
    let document = api.send("GET", "/api/v1/openapi.json", &[], "").await.expect(200);
    for (path, item) in document["paths"].as_object().expect("paths") {
        if !path.starts_with("/api/v1/") || path.starts_with("/api/v1/realtime/") || path.ends_with("openapi.json") {
            continue;
        }
        let path = path.split('/').map(|part| if part.starts_with('{') { "some" } else { part });
        let path = format!("{}?no_such=1&limit=x&status=odd", path.collect::<Vec<_>>().join("/"));
        for method in ["get", "post", "delete"].into_iter().filter(|method| item.get(*method).is_some()) {
            api.send(&method.to_uppercase(), &path, &[], "").await.error(401, "unauthorized");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_of_the_listed_origins_may_use_the_api_and_no_others() {
    let api = RestFixture::start(&[("server.public_origins", "https://ops.example.com")]).await;
    let token = api.user("ann", "acme", &["*"]).await;
    let bearer = format!("Bearer {token}");
    let ours = ("origin", "https://ops.example.com");
    // What a browser asks before it sends a request with a token or with JSON.
    let asks = ("access-control-request-method", "POST");
    let answer = api.send("OPTIONS", "/api/v1/jobs", &[ours, asks], "").await;
    assert_eq!(answer.status, 204, "{answer:?}");
    assert_eq!(answer.header("access-control-allow-origin"), "https://ops.example.com");
    assert_eq!(answer.header("access-control-allow-methods"), "GET, POST");
    assert!(answer.header("access-control-allow-headers").contains("Authorization"), "{answer:?}");
    assert_eq!(answer.header("access-control-allow-credentials"), "true");
    let headers = [("authorization", bearer.as_str()), ours];
    for (path, status) in [("/api/v1/jobs", 200), ("/api/v1/jobs/nothing-here", 404), ("/api/v1/no-such-path", 404)] {
        let answer = api.send("GET", path, &headers, "").await;
        assert_eq!(answer.status, status, "{answer:?}");
        assert_eq!(answer.header("access-control-allow-origin"), "https://ops.example.com", "{path}");
        assert!(answer.header("vary").contains("Origin"), "{path}");
    }
    // Also a refusal can be read by the page that gets it.
    let answer = api.send("GET", "/api/v1/jobs", &[ours], "").await;
    assert_eq!(answer.header("access-control-allow-origin"), "https://ops.example.com");
    answer.error(401, "unauthorized");

    for other in ["https://evil.example", "http://ops.example.com", "https://ops.example.com.evil.example", "null"] {
        let answer = api.send("OPTIONS", "/api/v1/jobs", &[("origin", other), asks], "").await;
        answer.error(405, "method_not_allowed");
        for answer in
            [answer, api.send("GET", "/api/v1/jobs", &[("authorization", &bearer), ("origin", other)], "").await]
        {
            assert_eq!(answer.header("access-control-allow-origin"), "", "{other}");
            assert!(answer.header("vary").contains("Origin"), "{other}");
        }
    }
    api.send("OPTIONS", "/api/v1/jobs", &[ours], "").await.error(405, "method_not_allowed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_operation_asks_for_its_permission() {
    let api = RestFixture::start(&[]).await;
    let reader = api.user("reader", "acme", &["jobs.read", "campaigns.read"]).await;
    let nobody = api.user("nobody", "acme", &[]).await;
    let job = json!({"job_type": "demo"});
    assert_eq!(
        api.post(&reader, "/api/v1/jobs", &job).await.error(403, "permission_denied"),
        "Insufficient permissions to create job"
    );
    assert_eq!(
        api.post(&reader, "/api/v1/campaigns", &json!({})).await.error(403, "permission_denied"),
        "Insufficient permissions to create campaign"
    );
    assert_eq!(
        api.get(&reader, "/api/v1/audit").await.error(403, "permission_denied"),
        "Insufficient permissions to read the audit trail"
    );
    for path in ["/api/v1/jobs", "/api/v1/jobs/j1", "/api/v1/campaigns", "/api/v1/campaigns/c1", "/api/v1/workers"] {
        api.get(&nobody, path).await.error(403, "permission_denied");
    }
    assert_eq!(api.get(&nobody, "/api/v1/me").await.expect(200)["permissions"], json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_plain_sql_grants_and_revokes_takes_effect() {
    let api = RestFixture::start(&[]).await;
    let token = api.user("ann", "acme", &[]).await;
    let status = async || api.get(&token, "/api/v1/jobs").await.status;
    assert_eq!(status().await, 403);
    api.store.grant(&"ann".parse().expect("user"), &["jobs.read".to_owned()]).await.expect("grant");
    until("granted", || async { status().await == 200 }).await;
    api.store.revoke(&"ann".parse().expect("user"), &["jobs.read".to_owned()]).await.expect("revoke");
    until("revoked", || async { status().await == 403 }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_that_was_announced_holds_from_then_on() {
    let api = RestFixture::start(&[]).await;
    let user = "ann".parse().expect("user");
    let token = api.user("ann", "acme", &[]).await;
    for _ in 0..20 {
        let version = api.store.grant(&user, &["jobs.read".to_owned()]).await.expect("grant");
        api.broker.invalidate_permissions(&user, version).await.expect("announce");
        assert_eq!(api.get(&token, "/api/v1/jobs").await.status, 200);
        // Requests under way while it is revoked must not bring the old answer back.
        let noise = async {
            for _ in 0..5 {
                api.get(&token, "/api/v1/jobs").await;
            }
        };
        let revoke = async {
            let version = api.store.revoke(&user, &["jobs.read".to_owned()]).await.expect("revoke");
            api.broker.invalidate_permissions(&user, version).await.expect("announce");
            api.get(&token, "/api/v1/jobs").await.status
        };
        let ((), status) = tokio::join!(noise, revoke);
        assert_eq!(status, 403);
        assert_eq!(api.get(&token, "/api/v1/jobs").await.status, 403);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn permissions_of_the_token_count_only_where_the_settings_say_so() {
    let by_token = RestFixture::start(&[("auth.permissions", "token")]).await;
    let token = by_token.token("ann", "acme", Some(&["jobs.read"]));
    by_token.get(&token, "/api/v1/jobs").await.expect(200);
    by_token.get(&token, "/api/v1/campaigns").await.error(403, "permission_denied");
    assert_eq!(by_token.get(&token, "/api/v1/me").await.expect(200)["permissions"], json!(["jobs.read"]));
    let without = by_token.user("bob", "acme", &["*"]).await;
    by_token.get(&without, "/api/v1/jobs").await.error(403, "permission_denied");
    let by_sql = RestFixture::start(&[]).await;
    let token = by_sql.token("ann", "acme", Some(&["*"]));
    by_sql.get(&token, "/api/v1/jobs").await.error(403, "permission_denied");
}

/// A request of which all has come but the last byte of its body.
struct Unfinished {
    path: &'static str,
    socket: TcpStream,
    last: [u8; 1],
}

impl Unfinished {
    async fn begin(api: &RestFixture, token: &str, path: &'static str, body: &str) -> Self {
        let mut socket = TcpStream::connect(api.address).await.expect("connect");
        let kind = if body.ends_with('\n') { "x-ndjson" } else { "json" };
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {token}\r\n\
             content-type: application/{kind}\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let (most, last) = body.as_bytes().split_at(body.len() - 1);
        socket.write_all(&[head.as_bytes(), most].concat()).await.expect("send");
        Self { path, socket, last: [last[0]] }
    }

    /// Sends the last byte, and returns the path and the status of the answer.
    async fn finish(mut self) -> (&'static str, u16) {
        self.socket.write_all(&self.last).await.expect("send");
        let mut answer = String::new();
        self.socket.read_to_string(&mut answer).await.expect("an answer");
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
        (self.path, status.unwrap_or_else(|| panic!("{}: {answer}", self.path)))
    }
}

/// A check counts for a moment, so that a body which comes at once is not asked about twice. This waits until it counts no more.
async fn until_old(begun: Instant) {
    until("the first check is old", || async { begun.elapsed() > Duration::from_millis(150) }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_permission_that_is_revoked_while_a_body_comes_is_no_permission() {
    let api = RestFixture::start(&[]).await;
    let token = api.user("ann", "acme", &["jobs.*", "campaigns.*", "tokens.*"]).await;
    let bodies = [
        ("/api/v1/jobs", r#"{"job_type":"mail"}"#),
        ("/api/v1/jobs", "{\"job_type\":\"mail\"}\n"),
        ("/api/v1/campaigns", r#"{"name":"c"}"#),
        ("/api/v1/jobs/rerun", r#"{"job_ids":["j"]}"#),
        ("/api/v1/jobs/j/rerun", "{}"),
        ("/api/v1/admin/revocations", r#"{"jti":"x"}"#),
    ];
    let mut begun = Vec::new();
    for (path, body) in bodies {
        begun.push(Unfinished::begin(&api, &token, path, body).await);
    }
    // They have been let in by then: what each of them was asked first is asked of this one after them.
    api.get(&token, "/api/v1/jobs").await.expect(200);
    until_old(Instant::now()).await;
    let user = "ann".parse().expect("user");
    let all = ["jobs.*", "campaigns.*", "tokens.*"].map(str::to_owned);
    let version = api.store.revoke(&user, &all).await.expect("revoke");
    api.broker.invalidate_permissions(&user, version).await.expect("announce");
    for request in begun {
        let (path, status) = request.finish().await;
        assert_eq!(status, 403, "{path}");
    }
    let admin = api.user("admin", "acme", &["*"]).await;
    assert_eq!(api.get(&admin, "/api/v1/jobs").await.expect(200)["jobs"], json!([]));
    assert_eq!(api.get(&admin, "/api/v1/campaigns").await.expect(200)["campaigns"], json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_is_revoked_while_a_body_comes_is_refused() {
    let api = RestFixture::start(&[]).await;
    let admin = api.user("admin", "acme", &["*"]).await;
    let token = api.user("ann", "acme", &["*"]).await;
    let bodies = [
        ("/api/v1/jobs", r#"{"job_type":"mail"}"#),
        ("/api/v1/jobs", "{\"job_type\":\"mail\"}\n"),
        ("/api/v1/campaigns", r#"{"name":"c"}"#),
        ("/api/v1/jobs/rerun", r#"{"job_ids":["j"]}"#),
        ("/api/v1/batch", r#"{"type":"cancel_jobs","job_ids":["j"]}"#),
        ("/api/v1/jobs/j/cancel", "{}"),
        ("/api/v1/admin/revocations", r#"{"jti":"x"}"#),
    ];
    let mut begun = Vec::new();
    for (path, body) in bodies {
        begun.push(Unfinished::begin(&api, &token, path, body).await);
    }
    api.get(&token, "/api/v1/jobs").await.expect(200);
    let revoked = api.post(&admin, "/api/v1/admin/revocations", &json!({"user_id": "ann"})).await;
    revoked.expect(201);
    until("every token of the user is refused", || async { api.get(&token, "/api/v1/jobs").await.status == 401 }).await;
    for request in begun {
        let (path, status) = request.finish().await;
        assert_eq!(status, 401, "{path}");
    }
    assert_eq!(api.get(&admin, "/api/v1/jobs").await.expect(200)["jobs"], json!([]));
}
