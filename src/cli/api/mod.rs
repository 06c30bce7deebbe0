//! A gateway's HTTP API, from a shell.
//!
//! - [`gateway_locator`] finds the gateway's address and the token for it.
//! - [`tls`] decides which certificates are believed, and says in words why a connection failed.
//! - [`answer`] decides whether an answer is a gateway's at all.
//! - [`rows`] has the shape that each answer must have.
//! - [`object`] keeps an answer digit for digit as it came; [`unreachable`] is the error where none came.

mod answer;
mod gateway_locator;
mod object;
pub(super) mod rows;
mod tls;
mod unreachable;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use clap::Args;
use futures_util::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::upgrade::Upgraded;
use hyper::{Method, Request, Response, StatusCode, header, http};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

pub(super) use answer::{Answer, Told};
pub(super) use gateway_locator::GatewayLocator;
pub(super) use object::Object;
pub(super) use unreachable::Unreachable;

use super::access::duration;

/// Which gateway, and as whom. Where neither is given, a `wheelhouse dev` in this folder is taken.
#[derive(Debug, Clone, Args)]
pub(super) struct ApiArgs {
    /// The gateway's address.
    #[arg(long, env = "WHEELHOUSE_URL", value_name = "URL")]
    url: Option<String>,
    /// The token, as `wheelhouse token` prints it.
    #[arg(long, env = "WHEELHOUSE_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// A PEM file: the authority that signed the gateway's certificate, or a self-signed certificate itself. Without it
    /// SSL_CERT_FILE and SSL_CERT_DIR are taken, else the public authorities.
    #[arg(long, env = "WHEELHOUSE_CA_FILE", value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Longest wait for an answer of the gateway: 15s, 2m.
    #[arg(long, env = "WHEELHOUSE_ANSWER_TIMEOUT", value_name = "TIME", default_value = "40s", value_parser = duration)]
    answer_timeout: Duration,
    /// Print JSON, for scripts.
    #[arg(long)]
    pub json: bool,
}

/// How long a gateway is asked to hold an answer until a result is there.
pub(super) const LONG_POLL: Duration = Duration::from_secs(30);
/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// What is sent.
type Body = UnsyncBoxBody<Bytes, std::io::Error>;
/// What is sent while it is read.
pub(super) type ByteSource = Box<dyn AsyncRead + Send + Unpin>;
/// Bytes of it that are read at once.
const PART: usize = 64 * 1024;

/// A gateway's HTTP API.
pub(super) struct Api {
    base: String,
    token: String,
    client: Client<HttpsConnector<HttpConnector>, Body>,
    answer_timeout: Duration,
}

impl Api {
    pub(super) fn new(args: &ApiArgs, locator: &GatewayLocator) -> anyhow::Result<Self> {
        let (base, token) = locator.gateway(args.url.as_deref(), args.token.as_deref())?;
        let is_tls = base.starts_with("https://");
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls::client_config(args.ca_file.as_deref(), is_tls)?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(http);
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Ok(Self { base, token, client, answer_timeout: args.answer_timeout })
    }

    pub(super) async fn get(&self, path: &str) -> anyhow::Result<Answer> {
        self.ask(Method::GET, path, Bytes::new()).await
    }

    pub(super) async fn post(&self, path: &str, body: &impl Serialize) -> anyhow::Result<Answer> {
        let body = serde_json::to_vec(body).context("the request cannot be written as JSON")?;
        self.ask(Method::POST, path, body.into()).await
    }

    /// Sends lines of JSON while they are read, however many those are. It is given up when nothing of them has been taken, and
    /// no answer has come, for as long as an answer is waited for.
    pub(super) async fn post_lines(&self, path: &str, lines: ByteSource) -> anyhow::Result<Answer> {
        let taken = Arc::new(AtomicU64::new(0));
        let parts = stream::unfold((lines, taken.clone()), |(mut lines, taken)| async move {
            let mut part = vec![0; PART];
            taken.fetch_add(1, Ordering::Relaxed);
            let part = match lines.read(&mut part).await {
                Ok(0) => return None,
                Ok(length) => {
                    part.truncate(length);
                    Ok(Frame::data(Bytes::from(part)))
                }
                Err(error) => Err(error),
            };
            // Whoever writes the lines may take as long as it likes.
            taken.fetch_add(1, Ordering::Relaxed);
            Some((part, (lines, taken)))
        });
        let request = self.request(Method::POST, path).header(header::CONTENT_TYPE, "application/x-ndjson");
        let request = request.body(StreamBody::new(parts).boxed_unsync());
        let request = request.context("the address or the token cannot stand in a request")?;
        let mut sent = std::pin::pin!(self.client.request(request));
        let mut before = 0;
        let answer = loop {
            match tokio::time::timeout(self.answer_timeout, &mut sent).await {
                Ok(sent) => break sent.map_err(|error| tls::to_message(&error, &self.base))?,
                Err(_) => {
                    let now = taken.load(Ordering::Relaxed);
                    // An odd number: a part is being read.
                    if now == before && now.is_multiple_of(2) {
                        return Err(Unreachable::silent(&self.base, self.answer_timeout));
                    }
                    before = now;
                }
            }
        };
        Answer::read(answer, &self.base, self.answer_timeout).await
    }

    pub(super) async fn delete(&self, path: &str) -> anyhow::Result<Answer> {
        self.ask(Method::DELETE, path, Bytes::new()).await
    }

    /// Longest wait for what a gateway sends unasked at once, as the first messages on a socket.
    pub(super) fn answer_timeout(&self) -> Duration {
        self.answer_timeout
    }

    /// Opens a socket; a refusal is an error in the gateway's words.
    pub(super) async fn socket(&self, path: &str) -> anyhow::Result<WebSocketStream<TokioIo<Upgraded>>> {
        let key = generate_key();
        let request = self
            .request(Method::GET, path)
            .header(header::UPGRADE, "websocket")
            .header(header::CONNECTION, "Upgrade")
            .header(header::SEC_WEBSOCKET_VERSION, "13")
            .header(header::SEC_WEBSOCKET_KEY, &key);
        let answer = self.send(request, Bytes::new(), self.answer_timeout).await?;
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            let answer = Answer::read(answer, &self.base, self.answer_timeout).await?;
            let problem = answer.is_no_gateway("it opened no WebSocket");
            answer.good()?;
            return Err(problem);
        }
        let accepted = answer.headers().get(header::SEC_WEBSOCKET_ACCEPT).map(|value| value.as_bytes().to_owned());
        if accepted.as_deref() != Some(derive_accept_key(key.as_bytes()).as_bytes()) {
            return Err(self.no_gateway("it opened a WebSocket with a wrong Sec-WebSocket-Accept"));
        }
        let connection = hyper::upgrade::on(answer).await.context("the connection broke off")?;
        Ok(WebSocketStream::from_raw_socket(TokioIo::new(connection), Role::Client, None).await)
    }

    /// What answers behaved as no gateway does.
    pub(super) fn no_gateway(&self, what_it_did: &str) -> anyhow::Error {
        answer::no_gateway(&self.base, what_it_did)
    }

    async fn ask(&self, method: Method, path: &str, body: Bytes) -> anyhow::Result<Answer> {
        let request = self.request(method, path).header(header::CONTENT_TYPE, "application/json");
        // Where the gateway is asked to hold the answer, that is no fault of its.
        let patience = self.answer_timeout + if path.contains("wait=") { LONG_POLL } else { Duration::ZERO };
        Answer::read(self.send(request, body, patience).await?, &self.base, patience).await
    }

    fn request(&self, method: Method, path: &str) -> http::request::Builder {
        Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header(header::AUTHORIZATION, format!("Bearer {}", self.token))
    }

    async fn send(
        &self,
        request: http::request::Builder,
        body: Bytes,
        patience: Duration,
    ) -> anyhow::Result<Response<Incoming>> {
        let body = Full::new(body).map_err(|never| match never {}).boxed_unsync();
        let request = request.body(body).context("the address or the token cannot stand in a request")?;
        match tokio::time::timeout(patience, self.client.request(request)).await {
            Ok(sent) => sent.map_err(|error| tls::to_message(&error, &self.base)),
            Err(_) => Err(Unreachable::silent(&self.base, patience)),
        }
    }
}
