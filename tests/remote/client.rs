//! A foreign worker in a test: the protocol of `docs/worker-protocol.md`, frame by frame, and nothing around it.

use std::time::Duration;

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use super::schema;
use crate::support::socket::{PATIENCE, Socket};

/// One socket of a foreign session.
pub struct Client {
    pub socket: Socket,
    /// Messages that came before one that was waited for.
    passed: Vec<Value>,
}

/// Opens a socket; a refusal is the HTTP status and its body.
pub async fn open(address: &str, token: &str) -> Result<Socket, (u16, String)> {
    let url = format!("ws://{address}/api/v1/worker/ws");
    Socket::try_open(&url, &[("sec-websocket-protocol", &format!("wheelhouse-worker.1, bearer.{token}"))]).await
}

impl Client {
    /// Opens a socket and says hello for this session.
    pub async fn connect(address: &str, token: &str, session: &str) -> Self {
        let socket =
            open(address, token).await.unwrap_or_else(|(status, body)| panic!("refused with {status}: {body}"));
        Self::over(socket, session).await
    }

    /// Says hello for this session on a socket that is open.
    async fn over(socket: Socket, session: &str) -> Self {
        let mut client = Self { socket, passed: Vec::new() };
        client.send(json!({"type": "hello", "v": 1, "worker": "test@here", "session": session, "pid": 1})).await;
        let welcome = client.next().await;
        assert_eq!((&welcome["type"], &welcome["session"]), (&json!("welcome"), &json!(session)), "{welcome}");
        client
    }

    /// As [`Self::connect`], until there is a worker that takes the socket.
    pub async fn connect_when_up(address: &str, token: &str, session: &str) -> Self {
        let up = async {
            loop {
                // Nobody listens there yet (it panics), or it is not in touch with Redis again.
                if tokio::net::TcpStream::connect(address).await.is_ok()
                    && let Ok(socket) = open(address, token).await
                {
                    return socket;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let socket = tokio::time::timeout(PATIENCE, up).await.expect("a worker that takes sockets");
        Self::over(socket, session).await
    }

    /// Sends a message of the protocol.
    pub async fn send(&mut self, message: Value) {
        schema::is_from_client(&message)
            .unwrap_or_else(|why| panic!("the test sends what the schema does not have: {why}"));
        self.socket.send(message).await;
    }

    /// Sends any text.
    pub async fn send_text(&mut self, text: &str) {
        self.socket.send_raw(Message::text(text.to_owned())).await;
    }

    /// Attaches a job; gives the answer, whatever it is.
    pub async fn attach(&mut self, reference: u64, tenant: &str, job: &str) -> Value {
        self.attach_with(reference, tenant, job, json!({})).await
    }

    /// As [`Self::attach`], with more fields.
    pub async fn attach_with(&mut self, reference: u64, tenant: &str, job: &str, more: Value) -> Value {
        let mut message = json!({"type": "attach", "ref": reference, "tenant_id": tenant, "job_id": job});
        for (name, value) in more.as_object().expect("fields") {
            message[name] = value.clone();
        }
        self.send(message).await;
        self.about(reference, &["attached", "refused"]).await
    }

    /// Answers an order.
    pub async fn reached(&mut self, order: &Value, state: &str) {
        let (reference, number) = (order["ref"].clone(), order["order"].clone());
        self.send(json!({"type": "reached", "ref": reference, "order": number, "state": state})).await;
    }

    /// Says that the work has ended.
    pub async fn end(&mut self, reference: u64, how: &str) -> Value {
        self.send(json!({"type": "end", "ref": reference, "how": how})).await;
        self.about(reference, &["ended", "lost"]).await
    }

    /// The next message, whatever it is; a close is `{"closed": CODE}`.
    pub async fn next(&mut self) -> Value {
        if !self.passed.is_empty() {
            return self.passed.remove(0);
        }
        self.receive().await
    }

    async fn receive(&mut self) -> Value {
        let message = self.socket.next().await;
        if message.get("closed").is_none() {
            schema::is_from_worker(&message)
                .unwrap_or_else(|why| panic!("the worker sends what the schema does not have: {why}"));
        }
        message
    }

    /// The next message about a job that is of one of these types; others wait.
    pub async fn about(&mut self, reference: u64, kinds: &[&str]) -> Value {
        self.until(|m| m["ref"] == reference && m["type"].as_str().is_some_and(|kind| kinds.contains(&kind))).await
    }

    /// The next order for a job.
    pub async fn order(&mut self, reference: u64, what: &str) -> Value {
        self.until(|m| m["type"] == "order" && m["ref"] == reference && m["do"] == what).await
    }

    /// The next message that fits; others wait.
    pub async fn until(&mut self, fits: impl Fn(&Value) -> bool) -> Value {
        if let Some(at) = self.passed.iter().position(&fits) {
            return self.passed.remove(at);
        }
        let waited = async {
            loop {
                let message = self.receive().await;
                if fits(&message) {
                    return message;
                }
                assert!(message.get("closed").is_none(), "closed with {message}; before that came {:#?}", self.passed);
                self.passed.push(message);
            }
        };
        tokio::time::timeout(PATIENCE, waited).await.expect("a message in time")
    }

    /// The code with which the worker closes the socket.
    pub async fn closed(&mut self) -> Value {
        loop {
            let message = self.receive().await;
            if let Some(code) = message.get("closed") {
                return code.clone();
            }
        }
    }

    /// Whether something comes about a job within this time.
    pub async fn hears_within(&mut self, reference: u64, time: Duration) -> Option<Value> {
        if let Some(at) = self.passed.iter().position(|m| m["ref"] == reference) {
            return Some(self.passed.remove(at));
        }
        let end = tokio::time::Instant::now() + time;
        loop {
            let left = end.saturating_duration_since(tokio::time::Instant::now());
            let message = self.socket.next_within(left).await?;
            if message["ref"] == reference {
                return Some(message);
            }
            self.passed.push(message);
        }
    }
}
