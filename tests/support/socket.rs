//! An operator's socket in a test.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::{Error, Message, client::IntoClientRequest, http};
use tokio_tungstenite::{WebSocketStream, client_async};
use wheelhouse::domain::{ResourceId, ResourceKind};
use wheelhouse::protocol;

use super::schema::{MESSAGES, Others};

/// Longest wait for anything: far beyond every promise, so that only a real loss fails.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// An open socket.
pub struct Socket {
    stream: WebSocketStream<TcpStream>,
    about: About,
    /// Its end has been told.
    told_closed: bool,
}

/// What a socket is about: every frame on it is compared with the schema of its messages.
enum About {
    Tenant,
    One(ResourceKind, ResourceId),
    /// No operator's socket: a browser's tools, a foreign worker's.
    Other,
}

impl About {
    fn of(path: &str) -> Self {
        let Some(rest) = path.strip_prefix("/api/v1/realtime/ws") else { return Self::Other };
        let found = ResourceKind::ALL.into_iter().find_map(|kind| {
            let id = rest.strip_prefix('/')?.strip_prefix(kind.plural())?.strip_prefix('/')?;
            Some(Self::One(kind, id.parse().ok()?))
        });
        found.unwrap_or(Self::Tenant)
    }

    /// The name of what is sent to clients, or by them, in the schema.
    fn group(&self, side: &str) -> Option<String> {
        match self {
            Self::Tenant => Some(format!("tenant_{side}")),
            Self::One(kind, _) => Some(format!("{}_{side}", kind.as_str())),
            Self::Other => None,
        }
    }

    /// What a gateway sends is exactly what the schema says.
    fn received(&self, text: &str) -> Value {
        let value = serde_json::from_str(text).expect("a JSON message");
        if let Some(group) = self.group("server")
            && let Err(why) = MESSAGES.check(&group, &value, Others::Refused)
        {
            panic!("schema/messages.schema.json does not have what the gateway sends (then npm run generate): {why}");
        }
        value
    }

    /// What a gateway takes stands in the schema; tests send other things, too.
    fn sent(&self, message: &Message) {
        let Message::Text(text) = message else { return };
        let (group, is_taken) = match self {
            Self::Tenant => ("tenant_client".to_owned(), protocol::parse_tenant(text).is_ok()),
            Self::One(kind, id) => (format!("{}_client", kind.as_str()), protocol::parse(text, *kind, id).is_ok()),
            Self::Other => return,
        };
        let value = if is_taken { serde_json::from_str(text).expect("a JSON message") } else { return };
        if let Err(why) = MESSAGES.check(&group, &value, Others::AsWritten) {
            panic!("schema/messages.schema.json does not have what a gateway takes: {why}");
        }
    }
}

impl Socket {
    /// Opens one; the gateway must accept.
    pub async fn open(url: &str) -> Self {
        Self::try_open(url, &[]).await.unwrap_or_else(|(status, body)| panic!("refused with {status}: {body}"))
    }

    /// Opens one with headers; a refusal is the HTTP status and body.
    pub async fn try_open(url: &str, headers: &[(&str, &str)]) -> Result<Self, (u16, String)> {
        let mut request = url.into_client_request().expect("a URL");
        add_headers(&mut request, headers);
        let address = request.uri().authority().expect("authority").to_string();
        let tcp = TcpStream::connect(&address).await.expect("connect to the gateway");
        Self::over(tcp, request).await
    }

    /// Opens one whose own receive buffer holds almost nothing, so that the gateway soon notices when it is
    /// not read.
    pub async fn open_with_small_buffer(url: &str) -> Self {
        let request = url.into_client_request().expect("a URL");
        let address = request.uri().authority().expect("authority").as_str().parse().expect("address");
        let tcp = tokio::net::TcpSocket::new_v4().expect("socket");
        tcp.set_recv_buffer_size(4096).expect("buffer");
        let tcp = tcp.connect(address).await.expect("connect to the gateway");
        Self::over(tcp, request).await.unwrap_or_else(|(status, body)| panic!("refused with {status}: {body}"))
    }

    /// What comes here is not compared with the schema: the test publishes updates of its own make, as another system may.
    pub fn with_foreign_updates(mut self) -> Self {
        self.about = About::Other;
        self
    }

    /// Opens one through a gateway that may be away, silent or unwilling: then the words say which.
    pub async fn connect(url: &str) -> Result<Self, String> {
        Self::connect_with(url, &[]).await
    }

    /// As [`Self::connect`], with headers.
    pub async fn connect_with(url: &str, headers: &[(&str, &str)]) -> Result<Self, String> {
        let mut request = url.into_client_request().map_err(|error| error.to_string())?;
        add_headers(&mut request, headers);
        let address = request.uri().authority().map(ToString::to_string).unwrap_or_default();
        let connecting = async {
            let tcp = TcpStream::connect(&address).await.map_err(|error| error.to_string())?;
            let about = About::of(request.uri().path());
            let (stream, _) = client_async(request, tcp).await.map_err(|error| error.to_string())?;
            Ok(Self { stream, about, told_closed: false })
        };
        tokio::time::timeout(Duration::from_secs(5), connecting).await.unwrap_or_else(|_| Err("silence".to_owned()))
    }

    /// The next text as it came, however long that takes; or how the connection ended. Safe to drop and to call again.
    pub async fn receive(&mut self) -> Result<String, String> {
        loop {
            match self.stream.next().await {
                Some(Ok(Message::Text(text))) => {
                    self.about.received(&text);
                    return Ok(text.to_string());
                }
                Some(Ok(Message::Close(Some(frame)))) => return Err(format!("{} {}", frame.code, frame.reason)),
                Some(Ok(Message::Close(None))) | None => return Err("closed".to_owned()),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error.to_string()),
            }
        }
    }

    /// The next frame of whatever kind; `None`: the connection has ended. Safe to drop and to call again.
    pub async fn next_frame(&mut self) -> Option<Message> {
        self.stream.next().await?.ok()
    }

    async fn over(tcp: TcpStream, request: http::Request<()>) -> Result<Self, (u16, String)> {
        let about = About::of(request.uri().path());
        match client_async(request, tcp).await {
            Ok((stream, _)) => Ok(Self { stream, about, told_closed: false }),
            Err(Error::Http(answer)) => {
                let body = answer.body().as_deref().map(String::from_utf8_lossy).unwrap_or_default().into_owned();
                Err((answer.status().as_u16(), body))
            }
            Err(error) => panic!("handshake: {error}"),
        }
    }

    /// Sends a JSON value.
    pub async fn send(&mut self, value: Value) {
        self.send_raw(Message::text(value.to_string())).await;
    }

    /// Sends anything.
    pub async fn send_raw(&mut self, message: Message) {
        self.try_send(message).await.expect("send");
    }

    /// Sends anything to a gateway that may have closed already.
    pub async fn try_send(&mut self, message: Message) -> Result<(), Error> {
        self.about.sent(&message);
        self.stream.send(message).await
    }

    /// The next text message, as it came and as a value.
    pub async fn next_text(&mut self) -> (String, Value) {
        let next = async {
            loop {
                match self.stream.next().await {
                    Some(Ok(Message::Text(text))) => return text.to_string(),
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                    other => panic!("no text: {other:?}"),
                }
            }
        };
        let text = tokio::time::timeout(PATIENCE, next).await.expect("a message in time");
        let value = self.about.received(&text);
        (text, value)
    }

    /// The next message if one comes within the time; pings are answered meanwhile.
    pub async fn next_within(&mut self, time: Duration) -> Option<Value> {
        tokio::time::timeout(time, self.next_forever()).await.ok()
    }

    /// The next text message, or the close code as `{"closed": CODE, "reason": …}`.
    pub async fn next(&mut self) -> Value {
        match tokio::time::timeout(PATIENCE, self.next_forever()).await {
            Ok(value) => value,
            Err(_) => panic!("nothing came within {PATIENCE:?}"),
        }
    }

    /// The close once, and then a panic: whoever waits for anything else would wait for ever.
    async fn next_forever(&mut self) -> Value {
        let closed = loop {
            match self.stream.next().await {
                Some(Ok(Message::Text(text))) => return self.about.received(&text),
                Some(Ok(Message::Close(Some(frame)))) => {
                    break serde_json::json!({"closed": u16::from(frame.code), "reason": frame.reason.as_str()});
                }
                Some(Ok(Message::Close(None))) | None => break serde_json::json!({"closed": 1005}),
                Some(Ok(_)) => {}
                Some(Err(error)) => break serde_json::json!({"closed": 1006, "reason": error.to_string()}),
            }
        };
        assert!(!self.told_closed, "the socket was closed before, and nothing comes any more");
        self.told_closed = true;
        closed
    }

    /// The next message of one of these types; others are passed over.
    pub async fn until(&mut self, kinds: &[&str]) -> Value {
        self.until_that(|v| v["type"].as_str().is_some_and(|t| kinds.contains(&t))).await
    }

    /// The next message that fits; others are passed over. A close ends the wait with a panic.
    pub async fn until_that(&mut self, mut fits: impl FnMut(&Value) -> bool) -> Value {
        let mut passed = Vec::new();
        let wait = async {
            loop {
                let value = self.next_forever().await;
                if fits(&value) {
                    return Some(value);
                }
                let closed = value.get("closed").is_some();
                passed.push(value);
                if closed {
                    return None;
                }
            }
        };
        match tokio::time::timeout(PATIENCE, wait).await {
            Ok(Some(value)) => value,
            _ => panic!("it never came; what came: {passed:#?}"),
        }
    }
}

fn add_headers(request: &mut http::Request<()>, headers: &[(&str, &str)]) {
    for (name, value) in headers {
        request
            .headers_mut()
            .insert(http::HeaderName::from_bytes(name.as_bytes()).expect("name"), value.parse().expect("value"));
    }
}
