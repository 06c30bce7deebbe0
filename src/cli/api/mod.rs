//! A gateway's HTTP API, from a shell.

use std::fmt;
use std::path::Path;

use anyhow::{Context, bail};
use bytes::Bytes;
use clap::Args;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper::{Method, Request, Response, StatusCode, header, http};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::usage;

/// Which gateway, and as whom. Where neither is given, a `wheelhouse dev` in this folder is taken.
#[derive(Debug, Clone, Args)]
pub(super) struct ApiArgs {
    /// The gateway's address.
    #[arg(long, env = "WHEELHOUSE_URL", value_name = "URL")]
    url: Option<String>,
    /// The token, as `wheelhouse token` prints it.
    #[arg(long, env = "WHEELHOUSE_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// The data folder of the `wheelhouse dev` to use.
    #[arg(long, default_value = ".wheelhouse", value_name = "DIR")]
    data_dir: String,
    /// Print JSON, for scripts.
    #[arg(long)]
    pub json: bool,
}

/// A gateway's HTTP API.
pub(super) struct Api {
    base: String,
    token: String,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

/// What a gateway answered.
pub(super) struct Answer {
    pub status: StatusCode,
    pub body: Value,
}

impl Api {
    pub(super) fn new(args: &ApiArgs) -> anyhow::Result<Self> {
        let kept = |name: &str| -> Option<String> {
            let text = std::fs::read_to_string(Path::new(&args.data_dir).join(name)).ok()?;
            Some(text.trim().to_owned())
        };
        let base = args.url.clone().or_else(|| kept("url")).unwrap_or_else(|| "http://127.0.0.1:8000".to_owned());
        let token = args.token.clone().or_else(|| kept("token")).ok_or_else(|| {
            usage("no token: pass --token or set WHEELHOUSE_TOKEN (wheelhouse token --user U --tenant T prints one)")
        })?;
        if !base.starts_with("http://") && !base.starts_with("https://") {
            return Err(usage(format!("--url {base}: write it as http://HOST:PORT or https://HOST")));
        }
        let connector = HttpsConnectorBuilder::new().with_webpki_roots().https_or_http().enable_http1().build();
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Ok(Self { base: base.trim_end_matches('/').to_owned(), token, client })
    }

    pub(super) async fn get(&self, path: &str) -> anyhow::Result<Answer> {
        self.ask(Method::GET, path, None).await
    }

    pub(super) async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Answer> {
        self.ask(Method::POST, path, Some(body)).await
    }

    pub(super) async fn delete(&self, path: &str) -> anyhow::Result<Answer> {
        self.ask(Method::DELETE, path, None).await
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
        let answer = self.send(request, Bytes::new()).await?;
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            Answer::read(answer).await?.good()?;
            bail!("what answers at {} is no gateway", self.base);
        }
        let accepted = answer.headers().get(header::SEC_WEBSOCKET_ACCEPT).map(|value| value.as_bytes().to_owned());
        if accepted.as_deref() != Some(derive_accept_key(key.as_bytes()).as_bytes()) {
            bail!("what answers at {} is no gateway", self.base);
        }
        let connection = hyper::upgrade::on(answer).await.context("the connection broke off")?;
        Ok(WebSocketStream::from_raw_socket(TokioIo::new(connection), Role::Client, None).await)
    }

    async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<Answer> {
        let bytes = Bytes::from(body.map(Value::to_string).unwrap_or_default());
        let request = self.request(method, path).header(header::CONTENT_TYPE, "application/json");
        Answer::read(self.send(request, bytes).await?).await
    }

    fn request(&self, method: Method, path: &str) -> http::request::Builder {
        Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header(header::AUTHORIZATION, format!("Bearer {}", self.token))
    }

    async fn send(&self, request: http::request::Builder, body: Bytes) -> anyhow::Result<Response<Incoming>> {
        let request = request.body(Full::new(body)).context("the address is not a valid URL")?;
        self.client.request(request).await.map_err(|_| {
            let words = format!("no gateway answers at {}: is it running?", self.base);
            Away(words).into()
        })
    }
}

/// No gateway answers, or one that cannot do anything now: worth trying again.
#[derive(Debug)]
pub(super) struct Away(String);

impl Away {
    /// A socket that was closed.
    pub(super) fn closed() -> Self {
        Self("the gateway closed the connection".to_owned())
    }
}

impl fmt::Display for Away {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Away {}

impl Answer {
    async fn read(answer: Response<Incoming>) -> anyhow::Result<Self> {
        let status = answer.status();
        let broke_off = |_| anyhow::Error::from(Away("the answer broke off".to_owned()));
        let bytes = answer.into_body().collect().await.map_err(broke_off)?.to_bytes();
        let body =
            serde_json::from_slice(&bytes).unwrap_or_else(|_| String::from_utf8_lossy(&bytes).into_owned().into());
        Ok(Self { status, body })
    }

    /// The body, or the gateway's error in one line.
    pub(super) fn good(self) -> anyhow::Result<Value> {
        if self.status.is_success() {
            return Ok(self.body);
        }
        let words = match (self.body["error"].as_str(), self.body["message"].as_str()) {
            (Some(code), Some(message)) => match self.body["retry_after"].as_u64() {
                Some(seconds) => format!("{message}; try again in {seconds} s ({code})"),
                None => format!("{message} ({code})"),
            },
            _ => format!("the gateway answered {}: {}", self.status, self.body),
        };
        let away = matches!(
            self.status,
            StatusCode::TOO_MANY_REQUESTS
                | StatusCode::BAD_GATEWAY
                | StatusCode::SERVICE_UNAVAILABLE
                | StatusCode::GATEWAY_TIMEOUT
        );
        if away { Err(Away(words).into()) } else { Err(anyhow::Error::msg(words)) }
    }
}
