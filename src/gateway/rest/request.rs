//! A request as the handlers see it: who asks, and a body that is read only once they may.

use std::pin::Pin;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use hyper::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use hyper::{HeaderMap, Method};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use warp::Filter;

use super::query::{self, NoQuery};
use crate::auth::Caller;
use crate::auth::{self, PresentedToken};
use crate::domain::ResourceId;
use crate::gateway::memory::{MemoryBudget, MemoryShare};
use crate::http::ClientAddress;
use crate::http::Refusal;
use crate::protocol::ErrorCode;

/// Bytes of a body for which memory is asked for at a time.
const BODY_STEP: usize = 64 * 1024;
/// Bytes of a body that are in the weight of each request that has one.
pub(super) const INCLUDED_BODY: usize = BODY_STEP;

/// Bytes a second that a body of any length has to come at, on the average and beyond the time that any body has: less than the slowest
/// lines carry.
const MIN_BODY_RATE: u64 = 512;

/// Most bytes of a refused body that are taken in, and for how long.
const MAX_DISCARDED: usize = 32 * 1024 * 1024;
const DISCARD_TIMEOUT: Duration = Duration::from_secs(5);

type Body = Pin<Box<dyn Stream<Item = Result<Bytes, warp::Error>> + Send>>;

/// One request.
pub(super) struct Request {
    method: Method,
    query: Option<String>,
    headers: HeaderMap,
    client: Option<ClientAddress>,
    /// The lock is never waited for: it makes the request `Sync`, which a stream is not.
    body: Mutex<Body>,
    body_timeout: Duration,
    /// Of a body that is read as it comes.
    arrival: Arrival,
    /// Bytes that it takes until its answer is made, with as much of its body as [`INCLUDED_BODY`].
    weight: usize,
    /// Once it is known who asks. The lock is never waited for either.
    memory: Mutex<Option<MemoryShare>>,
}

/// How a body arrives that is read as it comes.
#[derive(Debug, Default)]
struct Arrival {
    /// Bytes that have come.
    taken: u64,
    /// For how long they were awaited, all together. What the server takes for them is not the client's time.
    awaited: Duration,
}

impl Arrival {
    /// How long the next part may take, where a whole body has so much time.
    fn left(&self, body_timeout: Duration) -> Duration {
        let earned = Duration::from_millis(self.taken.saturating_mul(1_000) / MIN_BODY_RATE);
        // Whoever has sent much in time may stand still for no longer than anybody else.
        (body_timeout + earned).saturating_sub(self.awaited).min(body_timeout)
    }

    fn note(&mut self, awaited: Duration, bytes: usize) {
        self.awaited += awaited;
        self.taken += bytes as u64;
    }
}

/// Takes any request apart. `body_timeout`: how long its body may take to arrive.
pub(super) fn filter(
    body_timeout: Duration,
) -> impl Filter<Extract = (Request,), Error = warp::Rejection> + Clone + Send + Sync + 'static {
    let query = warp::query::raw().map(Some).or(warp::any().map(|| None)).unify();
    let body = warp::body::stream().map(|stream| -> Body {
        let stream: Pin<Box<dyn Stream<Item = _> + Send>> = Box::pin(stream);
        Box::pin(stream.map(|part: Result<_, warp::Error>| part.map(to_bytes)))
    });
    warp::method()
        .and(query)
        .and(warp::header::headers_cloned())
        .and(warp::ext::optional::<ClientAddress>())
        .and(body)
        .map(move |method, query, headers, client, body| {
            let (body, memory) = (Mutex::new(body), Mutex::default());
            Request {
                method,
                query,
                headers,
                client,
                body,
                body_timeout,
                arrival: Arrival::default(),
                weight: 0,
                memory,
            }
        })
}

fn to_bytes(mut part: impl Buf) -> Bytes {
    part.copy_to_bytes(part.remaining())
}

impl Request {
    /// Its method, as one of the words that metrics may hold.
    pub(super) fn method(&self) -> &'static str {
        match self.method {
            Method::GET => "GET",
            Method::HEAD => "HEAD",
            Method::POST => "POST",
            Method::PUT => "PUT",
            Method::PATCH => "PATCH",
            Method::DELETE => "DELETE",
            Method::OPTIONS => "OPTIONS",
            _ => "other",
        }
    }

    /// Its query, as this path takes it.
    pub(super) fn query<T: DeserializeOwned>(&self) -> Result<T, Refusal> {
        query::parse(self.query.as_deref())
    }

    /// Refuses every query but a token.
    pub(super) fn no_query(&self) -> Result<(), Refusal> {
        self.query().map(|NoQuery {}| ())
    }

    /// The token that comes along, and how.
    pub(super) fn token(&self) -> Option<PresentedToken> {
        auth::extract(self.query.as_deref(), &self.headers)
    }

    /// Whether it only reads.
    pub(super) fn is_read(&self) -> bool {
        matches!(self.method, Method::GET | Method::HEAD)
    }

    /// Its headers.
    pub(super) fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// Where it comes from, for the audit trail.
    pub(super) fn address(&self) -> Option<String> {
        self.client.map(|client| client.0.to_string())
    }

    /// Whether the body is a JSON value a line, by its own word.
    pub(super) fn is_json_lines(&self) -> bool {
        let kind = self.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        ["application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines"]
            .contains(&kind.as_str())
    }

    /// Whether the client says that its body has so many bytes at most; one that says nothing may be larger.
    pub(super) fn announces_at_most(&self, bytes: usize) -> bool {
        self.announced().is_some_and(|length| length <= bytes)
    }

    fn announced(&self) -> Option<usize> {
        self.headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok())
    }

    /// Says how much memory it takes, by the path that it is for and its query.
    pub(super) fn weigh(&mut self, weight: impl FnOnce(Option<&str>) -> usize) {
        self.weight = weight(self.query.as_deref());
    }

    /// Takes its memory out of the share of who asks.
    pub(super) async fn reserve(&self, budget: &MemoryBudget, caller: &Caller) -> Result<(), Refusal> {
        let share = budget.reserve(caller, self.weight).await?;
        *self.memory.lock() = Some(share);
        Ok(())
    }

    /// Its memory, for its answer.
    pub(super) fn take_memory(&mut self) -> Option<MemoryShare> {
        self.memory.get_mut().take()
    }

    /// The body, which may have so many bytes. While it is awaited, the request holds nothing that another may wait for,
    /// but the bytes that have come.
    pub(super) async fn body(&mut self, limit: usize) -> Result<Bytes, Refusal> {
        self.refuse_encoded()?;
        if self.announced().is_some_and(|length| length > limit) {
            return Err(too_large(limit));
        }
        let (parts, memory, weight) = (self.body.get_mut(), self.memory.get_mut(), self.weight);
        let collect = async {
            let mut whole = BytesMut::new();
            while let Some(part) = parts.next().await {
                let part = part.map_err(|_| Refusal::invalid("The body broke off"))?;
                let length = whole.len() + part.len();
                if length > limit {
                    return Err(too_large(limit));
                }
                if length > whole.capacity() {
                    let room = length.next_multiple_of(BODY_STEP).max(2 * whole.capacity()).min(limit.max(length));
                    if let Some(memory) = memory.as_mut() {
                        memory.grow_to(weight + room.saturating_sub(INCLUDED_BODY))?;
                    }
                    whole.reserve(room - whole.len());
                }
                whole.extend_from_slice(&part);
            }
            Ok(without_byte_order_mark(whole.freeze()))
        };
        tokio::time::timeout(self.body_timeout, collect).await.map_err(|_| too_slow())?
    }

    /// The next part of the body as it arrives, for what is read while it comes; `None` at its end. All parts together have the time
    /// that a whole body has otherwise, and what so many bytes take at [`MIN_BODY_RATE`]; only while one is awaited does it run.
    pub(super) async fn next_part(&mut self) -> Result<Option<Bytes>, Refusal> {
        self.refuse_encoded()?;
        let (left, begun) = (self.arrival.left(self.body_timeout), Instant::now());
        let part = tokio::time::timeout(left, self.body.get_mut().next()).await.map_err(|_| too_slow())?;
        let part = part.transpose().map_err(|_| Refusal::invalid("The body broke off"))?;
        self.arrival.note(begun.elapsed(), part.as_ref().map_or(0, Bytes::len));
        Ok(part)
    }

    /// A body is taken as it is: what is compressed would otherwise be refused for what it is not.
    fn refuse_encoded(&self) -> Result<(), Refusal> {
        // An encoding that is no text is none that is known.
        let named = self.headers.get_all(CONTENT_ENCODING).iter().map(|value| value.to_str().unwrap_or("unknown"));
        let mut encodings = named.flat_map(|list| list.split(',')).map(str::trim).filter(|one| !one.is_empty());
        match encodings.find(|one| !one.eq_ignore_ascii_case("identity")) {
            Some(_) => Err(Refusal::new(
                ErrorCode::UnsupportedEncoding,
                "The body has a Content-Encoding, and nothing is uncompressed here: send it as it is, without that header",
            )),
            None => Ok(()),
        }
    }

    /// Takes so much memory for what is kept of the body, if it has not got that yet.
    pub(super) fn hold_at_least(&mut self, bytes: usize) -> Result<(), Refusal> {
        let all = self.weight + bytes.next_multiple_of(BODY_STEP).saturating_sub(INCLUDED_BODY);
        self.memory.get_mut().as_mut().map_or(Ok(()), |memory| memory.grow_to(all))
    }

    /// Takes in what is left of a body that nobody wanted: an answer sent while the client is still writing
    /// gets lost, because the connection is then reset under it. Within reason; then it is lost.
    pub(super) async fn discard_body(&mut self) {
        let parts = self.rest_of_body();
        let discard = async {
            let mut left = MAX_DISCARDED;
            while let Some(Ok(part)) = parts.next().await {
                match left.checked_sub(part.len()) {
                    Some(less) => left = less,
                    None => return,
                }
            }
        };
        let _ = tokio::time::timeout(DISCARD_TIMEOUT, discard).await;
    }

    fn rest_of_body(&mut self) -> &mut Body {
        self.body.get_mut()
    }
}

/// What stands behind the byte order mark that some programs put before a text in UTF-8 (RFC 8259, section 8.1: it may be passed over).
pub(super) fn without_byte_order_mark(text: Bytes) -> Bytes {
    const MARK: &[u8] = "\u{feff}".as_bytes();
    if text.starts_with(MARK) { text.slice(MARK.len()..) } else { text }
}

/// The body has too many bytes.
pub(super) fn too_large(limit: usize) -> Refusal {
    Refusal::new(ErrorCode::TooLarge, format!("The body may have {limit} bytes at most"))
}

fn too_slow() -> Refusal {
    Refusal::new(ErrorCode::Timeout, "The body did not arrive in time, or comes too slowly: send it again")
}

/// An id out of a path.
pub(super) fn id(text: &str) -> Result<ResourceId, Refusal> {
    Ok(text.parse::<ResourceId>()?)
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    /// A request with this body, which may take 60 s.
    fn request_with(body: Body, headers: HeaderMap) -> Request {
        Request {
            method: Method::POST,
            query: None,
            headers,
            client: None,
            body: Mutex::new(body),
            body_timeout: Duration::from_secs(60),
            arrival: Arrival::default(),
            weight: INCLUDED_BODY,
            memory: Mutex::default(),
        }
    }

    /// A request with this body, of which as much memory as a short one takes is kept.
    async fn request(body: &'static [u8], budget: &MemoryBudget, caller: &Caller) -> Request {
        let request = request_with(Box::pin(stream::iter([Ok(Bytes::from_static(body))])), HeaderMap::new());
        request.reserve(budget, caller).await.expect("room");
        request
    }

    /// For how many seconds a body is taken that has so many bytes each so many seconds; an hour at most.
    fn is_taken_for(bytes: usize, seconds: u64) -> u64 {
        let (mut arrival, mut at, interval) = (Arrival::default(), 0, Duration::from_secs(seconds));
        while at < 3_600 {
            let left = arrival.left(Duration::from_secs(60));
            if left < interval {
                return at + left.as_secs();
            }
            arrival.note(interval, bytes);
            at += seconds;
        }
        at
    }

    #[test]
    fn a_body_that_trickles_is_refused_after_the_time_of_a_whole_one_and_one_on_a_slow_line_is_not() {
        assert_eq!(is_taken_for(1, 3), 60, "a byte each 3 s");
        assert_eq!(is_taken_for(256, 1), 119, "half of what is wanted");
        assert_eq!(is_taken_for(600, 1), 3_600, "more than what is wanted");
        assert_eq!(is_taken_for(20_000, 30), 3_600, "the same in large parts");
        assert_eq!(is_taken_for(1_000_000, 61), 60, "no part may take longer than a body");
    }

    #[tokio::test]
    async fn an_encoded_body_is_refused_as_such_and_identity_is_none() {
        let request = |encodings: &[&str]| {
            let mut headers = HeaderMap::new();
            for encoding in encodings {
                headers.append(CONTENT_ENCODING, encoding.parse().expect("a header"));
            }
            request_with(Box::pin(stream::iter([Ok(Bytes::from_static(b"{}"))])), headers)
        };
        for encodings in [&["gzip"][..], &["identity, br"], &["identity", "GZIP"], &["deflate"]] {
            for refusal in [request(encodings).body(9).await.err(), request(encodings).next_part().await.err()] {
                assert_eq!(refusal.expect("refused").code, ErrorCode::UnsupportedEncoding, "{encodings:?}");
            }
        }
        for encodings in [&[][..], &["identity"], &["Identity, identity"], &[""]] {
            assert_eq!(request(encodings).body(9).await.as_deref(), Ok(&b"{}"[..]), "{encodings:?}");
        }
    }

    #[tokio::test]
    async fn a_short_body_is_read_also_where_the_user_has_no_memory_left() {
        let limits = crate::config::load_from(None, [], Vec::new()).expect("settings").limits;
        let budget = MemoryBudget::new(&limits);
        let caller = Caller {
            user: "ann".parse().expect("user"),
            tenant: "acme".parse().expect("tenant"),
            token_id: None,
            expires_at: 0,
            issued_at: None,
            permissions: None,
        };
        let mut short = request(&[b' '; BODY_STEP], &budget, &caller).await;
        let mut long = request(&[b' '; BODY_STEP + 1], &budget, &caller).await;
        let all = limits.memory_per_user as usize - 2 * INCLUDED_BODY;
        let _rest = budget.reserve(&caller, all).await.expect("room");
        assert_eq!(short.body(1024 * 1024).await.expect("read").len(), BODY_STEP);
        assert_eq!(long.body(1024 * 1024).await.expect_err("refused").code, ErrorCode::RateLimitExceeded);
    }
}
