//! A gateway's HTTP API, from a shell.

use std::path::Path;

use anyhow::{Context, bail};
use bytes::Bytes;
use clap::Args;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, StatusCode, header};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

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

    async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<Answer> {
        let bytes = body.map(Value::to_string).unwrap_or_default();
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header(header::AUTHORIZATION, format!("Bearer {}", self.token))
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(bytes)))
            .context("the address is not a valid URL")?;
        let sent = self.client.request(request).await;
        let Ok(answer) = sent else { bail!("no gateway answers at {}: is it running?", self.base) };
        let status = answer.status();
        let bytes = answer.into_body().collect().await.context("the answer broke off")?.to_bytes();
        let body =
            serde_json::from_slice(&bytes).unwrap_or_else(|_| String::from_utf8_lossy(&bytes).into_owned().into());
        Ok(Answer { status, body })
    }
}

impl Answer {
    /// The body, or the gateway's error in one line.
    pub(super) fn good(self) -> anyhow::Result<Value> {
        if self.status.is_success() {
            return Ok(self.body);
        }
        match (self.body["error"].as_str(), self.body["message"].as_str()) {
            (Some(code), Some(message)) => bail!("{message} ({code})"),
            _ => bail!("the gateway answered {}: {}", self.status, self.body),
        }
    }
}
