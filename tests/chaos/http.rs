//! One request over HTTP, through whatever lies between, and its answer as a socket would have given it.

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What a GET says, the status and the body; `None` where there was no whole answer.
pub async fn get(port: u16, path: &str) -> Option<(u16, Value)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    let head = format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.ok()?;
    read(stream).await.ok()
}

/// Posts to the gateway of a socket's URL (`ws://HOST/…?token=T`), with its token. The status and the body; an error
/// where there was no whole answer.
pub async fn post(url: &str, path: &str, body: &Value) -> Result<(u16, Value), String> {
    let rest = url.strip_prefix("ws://").ok_or("no socket's URL")?;
    let (host, query) = rest.split_once('/').ok_or("no path")?;
    let (_, token) = query.split_once("?token=").ok_or("no token")?;
    // On a socket the type says what a path says here; a batch has both.
    let mut body = body.clone();
    if !path.starts_with("/api/v1/batch")
        && let Some(fields) = body.as_object_mut()
    {
        fields.remove("type");
    }
    let body = body.to_string();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\n\
         connection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(host).await.map_err(|error| error.to_string())?;
    stream.write_all(head.as_bytes()).await.map_err(|error| error.to_string())?;
    read(stream).await
}

/// The status and the body.
async fn read(mut stream: TcpStream) -> Result<(u16, Value), String> {
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.map_err(|error| error.to_string())?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("no answer")?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or("no status")?;
    let body = serde_json::from_str(body).map_err(|_| format!("half an answer: {status} {body:?}"))?;
    Ok((status, body))
}

/// Where a message of a socket on this resource goes.
pub fn path_of(resource: &str, message: &Value, waiting: bool) -> String {
    let action = message["type"].as_str().and_then(|kind| kind.split('_').next()).unwrap_or_default();
    let path = match resource.split_once(':') {
        Some((kind, id)) => format!("/api/v1/{kind}s/{id}/{action}"),
        None => "/api/v1/batch".to_owned(),
    };
    if waiting { format!("{path}?wait=3") } else { path }
}

/// An error has no `type` over HTTP, and some are told before the request is read.
pub fn as_on_a_socket((status, body): &(u16, Value), asked: &Value) -> Value {
    let mut message = body.clone();
    if *status >= 400 {
        message["type"] = "error".into();
        if message.get("request_id").is_none() {
            message["request_id"] = asked["request_id"].clone();
        }
    }
    message
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_and_errors_are_those_of_the_socket() {
        let pause = json!({"type": "pause_job", "request_id": "r1"});
        assert_eq!(path_of("job:j1", &pause, false), "/api/v1/jobs/j1/pause");
        assert_eq!(path_of("campaign:c1", &json!({"type": "cancel_campaign"}), false), "/api/v1/campaigns/c1/cancel");
        assert_eq!(path_of("tenant", &json!({"type": "pause_jobs"}), true), "/api/v1/batch?wait=3");
        let told = as_on_a_socket(&(503, json!({"error": "unavailable"})), &pause);
        assert_eq!(told, json!({"type": "error", "error": "unavailable", "request_id": "r1"}));
    }
}
