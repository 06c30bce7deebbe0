//! A gateway inside the test, over a private Redis and a SQLite file, and a client of its HTTP API.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{HeaderMap, Method, Request};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::base::Base;

/// One gateway with all it needs, gone when dropped.
pub struct RestFixture {
    base: Base,
    pub address: SocketAddr,
    client: Client<HttpConnector, Full<Bytes>>,
    _stop: DropGuard,
}

impl std::ops::Deref for RestFixture {
    type Target = Base;
    fn deref(&self) -> &Base {
        &self.base
    }
}

impl std::ops::DerefMut for RestFixture {
    fn deref_mut(&mut self) -> &mut Base {
        &mut self.base
    }
}

/// What came back.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
}

impl Reply {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The status, which must be this one, and the body.
    pub fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        self.json()
    }

    /// As [`Self::expect`], for an error with this code; gives its words.
    pub fn error(&self, status: u16, code: &str) -> String {
        let body = self.expect(status);
        assert_eq!(body["error"], code, "{self:?}");
        body["message"].as_str().expect("a message").to_owned()
    }

    /// One header.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().expect("text")).unwrap_or_default()
    }
}

impl RestFixture {
    /// With these settings beside the usual ones.
    pub async fn start(settings: &[(&str, &str)]) -> Self {
        let base = Base::start(settings).await;
        let stop = CancellationToken::new();
        let (ready, listens) = tokio::sync::oneshot::channel();
        tokio::spawn(wheelhouse::gateway::serve(base.settings.clone(), Some(ready), stop.clone()));
        let address = listens.await.expect("the gateway started");
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self { base, address, client, _stop: stop.drop_guard() }
    }

    /// A token of this user, who holds these permissions in SQL.
    pub async fn user(&self, user: &str, tenant: &str, permissions: &[&str]) -> String {
        if !permissions.is_empty() {
            self.grant(user, permissions).await;
        }
        self.token(user, tenant, None)
    }

    /// A token with these permissions in it.
    pub fn token(&self, user: &str, tenant: &str, permissions: Option<&[&str]>) -> String {
        self.token_for(user, tenant, 600, permissions)
    }

    /// Any request.
    pub async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Reply {
        let mut request = Request::builder()
            .method(method.parse::<Method>().expect("method"))
            .uri(format!("http://{}{path}", self.address));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into())).expect("request");
        let sent = tokio::time::timeout(Duration::from_secs(90), self.client.request(request));
        let answer = sent.await.expect("an answer").unwrap_or_else(|error| panic!("{method} {path}: {error}"));
        let (head, body) = answer.into_parts();
        let body = body.collect().await.expect("body").to_bytes();
        let text = String::from_utf8(body.to_vec()).expect("text");
        Reply { status: head.status.as_u16(), headers: head.headers, text }
    }

    /// GET with a token.
    pub async fn get(&self, token: &str, path: &str) -> Reply {
        self.send("GET", path, &[("authorization", &format!("Bearer {token}"))], "").await
    }

    /// POST with a token.
    pub async fn post(&self, token: &str, path: &str, body: &Value) -> Reply {
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        self.send("POST", path, &headers, body.to_string()).await
    }
}

/// Waits until something is so.
pub async fn until<F: Future<Output = bool>>(what: &str, is_so: impl Fn() -> F) {
    let waited = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waited).await.unwrap_or_else(|_| panic!("never: {what}"));
}
