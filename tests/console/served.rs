//! What is served, and with which headers.

use std::collections::BTreeSet;

use http_body_util::{BodyExt, Empty};
use hyper::{HeaderMap, Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use warp::Filter;
use wheelhouse::config::Oidc;
use wheelhouse::console;

/// A server with the console and one route of somebody else's behind it.
struct Served {
    address: std::net::SocketAddr,
    task: tokio::task::JoinHandle<()>,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

impl Served {
    async fn start() -> Self {
        Self::with(None).await
    }

    async fn with(oidc: Option<&Oidc>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("bind");
        let address = listener.local_addr().expect("address");
        let routes = console::routes(oidc).or(warp::path!("api" / "v1" / "me").map(|| "somebody else's"));
        let task = tokio::spawn(warp::serve(routes).incoming(listener).run());
        Self { address, task }
    }

    async fn ask(&self, method: Method, path: &str, headers: &[(&str, &str)]) -> Answer {
        let stream = TcpStream::connect(self.address).await.expect("connect");
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("handshake");
        let connection = tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(path).header("host", "wheelhouse.test");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Empty::<bytes::Bytes>::new()).expect("request");
        let response = sender.send_request(request).await.expect("answer");
        let (parts, body) = response.into_parts();
        let body = body.collect().await.expect("body").to_bytes();
        connection.abort();
        Answer { status: parts.status, headers: parts.headers, body: String::from_utf8(body.to_vec()).expect("UTF-8") }
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, path, &[]).await
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|v| v.to_str().expect("text")).unwrap_or_default()
    }
}

#[tokio::test]
async fn every_file_is_served_with_its_type_and_the_headers_that_protect_it() {
    let served = Served::start().await;
    for asset in console::ASSETS {
        let answer = served.get(asset.path).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", asset.path);
        assert_eq!(answer.body, asset.body, "{}", asset.path);
        let expected = match asset.path.rsplit_once('.').map(|(_, end)| end) {
            None => "text/html; charset=utf-8",
            Some("css") => "text/css; charset=utf-8",
            Some("js") => "text/javascript; charset=utf-8",
            Some("svg") => "image/svg+xml",
            Some(other) => panic!("what is a .{other}?"),
        };
        assert_eq!(answer.header("content-type"), expected, "{}", asset.path);
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert_eq!(answer.header("referrer-policy"), "no-referrer");
        assert_eq!(answer.header("cache-control"), "no-cache");
        let policy = answer.header("content-security-policy");
        for part in ["default-src 'none'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'"] {
            assert!(policy.split(';').any(|directive| directive.trim() == part), "{part} in {policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        assert!(!policy.contains('*') && !policy.contains("http"), "{policy}");
    }
}

#[tokio::test]
async fn what_a_browser_has_already_is_not_sent_again_until_it_changes() {
    let served = Served::start().await;
    let mut tags = BTreeSet::new();
    for asset in console::ASSETS {
        let tag = served.get(asset.path).await.header("etag").to_owned();
        assert!(tag.starts_with('"') && tag.ends_with('"') && tag.len() > 10, "{tag}");
        for known in [tag.clone(), format!("W/{tag}"), format!("\"old\", {tag}"), "*".to_owned()] {
            let again = served.ask(Method::GET, asset.path, &[("if-none-match", &known)]).await;
            assert_eq!(again.status, StatusCode::NOT_MODIFIED, "{} {known}", asset.path);
            assert_eq!(again.body, "");
            assert_eq!(again.header("etag"), tag);
        }
        let changed = served.ask(Method::GET, asset.path, &[("if-none-match", "\"old\"")]).await;
        assert_eq!(changed.status, StatusCode::OK);
        tags.insert(tag);
    }
    assert_eq!(tags.len(), console::ASSETS.len(), "each file has a tag of its own");
}

#[tokio::test]
async fn an_address_with_a_token_is_kept_by_nobody() {
    let served = Served::start().await;
    let tag = served.get("/").await.header("etag").to_owned();
    let answer = served.ask(Method::GET, "/?token=a.b.c", &[("if-none-match", &tag)]).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(answer.header("etag"), "");
    assert_eq!(answer.header("referrer-policy"), "no-referrer");
    assert!(!answer.body.contains("a.b.c"), "nothing of the query stands in the page");
}

#[tokio::test]
async fn other_methods_and_files_are_refused_in_words_and_other_paths_are_passed_on() {
    let served = Served::start().await;
    let head = served.ask(Method::HEAD, "/", &[]).await;
    assert_eq!((head.status, head.body.as_str()), (StatusCode::OK, ""));
    for path in ["/", "/assets/main.js"] {
        let post = served.ask(Method::POST, path, &[]).await;
        assert_eq!(post.status, StatusCode::METHOD_NOT_ALLOWED, "{path}");
        assert_eq!(post.header("allow"), "GET, HEAD");
    }
    for path in ["/assets/", "/assets/none.js", "/assets/../main.js", "/assets/..%2fmod.rs", "/assets//main.js"] {
        let answer = served.get(path).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
        assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
    }
    assert_eq!(served.get("/api/v1/me").await.body, "somebody else's");
    assert_eq!(served.get("/index.html").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn the_issuer_of_a_sign_in_is_the_only_other_place_that_the_page_may_ask() {
    let answer = Served::start().await.get("/assets/sign-in.json").await;
    assert_eq!((answer.status, answer.body.as_str()), (StatusCode::OK, "{\"oidc\":null}"));
    let oidc = Oidc {
        issuer: "https://issuer.test/realms/one".to_owned(),
        client_id: "console".to_owned(),
        scopes: "openid".to_owned(),
        parameters: "resource=urn:w".to_owned(),
        origins: vec!["https://issuer.test".to_owned(), "https://tokens.test".to_owned()],
    };
    let served = Served::with(Some(&oidc)).await;
    for path in ["/", "/?code=c&state=s", "/assets/main.js", "/assets/none.js", "/assets/sign-in.json"] {
        let policy = served.get(path).await.header("content-security-policy").to_owned();
        let connects = policy.split(';').find(|directive| directive.trim().starts_with("connect-src"));
        assert_eq!(connects, Some(" connect-src 'self' https://issuer.test https://tokens.test"), "{path}");
        assert_eq!(policy.matches("https://").count(), 2, "{policy}");
    }
    let told = served.get("/assets/sign-in.json").await;
    assert_eq!((told.header("content-type"), told.header("cache-control")), ("application/json", "no-store"));
    let told: serde_json::Value = serde_json::from_str(&told.body).expect("JSON");
    assert_eq!(told["oidc"]["issuer"], "https://issuer.test/realms/one");
    assert_eq!((&told["oidc"]["client_id"], &told["oidc"]["scopes"]), (&"console".into(), &"openid".into()));
}
