//! Short questions to the gateway that `wheelhouse dev` has started.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{Empty, Full};
use hyper::Request;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;

/// The status of a POST with a JSON body, as the owner of the token.
pub(super) async fn post(
    address: SocketAddr,
    path: &str,
    token: &str,
    body: &serde_json::Value,
) -> anyhow::Result<u16> {
    let request = Request::post(format!("http://{address}{path}"))
        .header(AUTHORIZATION, format!("Bearer {token}"))
        .header(CONTENT_TYPE, "application/json")
        .body(Full::<Bytes>::from(body.to_string()))?;
    let client = Client::builder(TokioExecutor::new()).build_http();
    Ok(tokio::time::timeout(Duration::from_secs(10), client.request(request)).await??.status().as_u16())
}

/// The status of a plain GET.
pub(super) async fn get_status(address: SocketAddr, path: &str) -> anyhow::Result<u16> {
    let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
    let ask = client.get(format!("http://{address}{path}").parse()?);
    Ok(tokio::time::timeout(Duration::from_secs(2), ask).await??.status().as_u16())
}
