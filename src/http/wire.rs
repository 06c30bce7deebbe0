//! The TCP connection under the HTTP server, with the times that a client may take: for a request's head, for taking
//! an answer, and between two requests. The library knows one time for all three.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use parking_lot::{Mutex, MutexGuard};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::addresses::AddressPlace;
use super::stream::ClientStream;

/// Longest time from the first byte of a request to the end of its head.
const HEAD: Duration = Duration::from_secs(10);
/// Longest time in which a client takes not one byte of an answer.
const STUCK: Duration = Duration::from_secs(30);
/// Bytes a second that a client takes of an answer, after the first [`STUCK`]: one that takes a byte now and then would
/// have a long answer held in memory for days.
const SLOWEST: f64 = 16.0 * 1024.0;

/// A client's connection.
pub struct Wire {
    stream: ClientStream,
    /// Came before the server began to read.
    before: Bytes,
    pace: Pace,
    timer: Pin<Box<Sleep>>,
    /// Since when no byte of an answer has been taken, while one waits.
    stuck: Option<Instant>,
    /// The answer that is being written.
    answer: AnswerTaken,
}

/// How much of an answer the client has taken.
struct AnswerTaken {
    /// The number of its request.
    number: u64,
    begun: Instant,
    bytes: u64,
}

impl AnswerTaken {
    /// When the client should have taken more than it has.
    fn deadline(&self) -> Instant {
        self.begun + STUCK + Duration::from_secs_f64(self.bytes as f64 / SLOWEST)
    }
}

/// What a connection is waiting for; shared with the service, which knows when a request is being answered.
#[derive(Clone)]
pub struct Pace(Arc<PaceShared>);

struct PaceShared {
    state: Mutex<PaceState>,
    keep_alive: Duration,
    /// The place that the connection takes of those that its address has; as long as the connection or its socket lives.
    _place: Option<AddressPlace>,
}

struct PaceState {
    doing: Doing,
    /// Requests so far.
    requests: u64,
    /// The same for the client, where a proxy has passed its request on: while that is answered, and as long as the socket
    /// lives that came of it.
    client: Option<AddressPlace>,
}

#[derive(Clone, Copy)]
enum Doing {
    /// Nothing of a request has come since then.
    Idle(Instant),
    /// The first byte of a request came then.
    Head(Instant),
    /// Requests are being answered; the handlers have times of their own.
    Answering,
}

/// A request that is being answered, until this is dropped.
pub struct Answering(Pace);

impl Pace {
    /// Of a new connection. `keep_alive`: how long it may be idle.
    pub fn new(keep_alive: Duration, place: Option<AddressPlace>) -> Self {
        let state = PaceState { doing: Doing::Idle(Instant::now()), requests: 0, client: None };
        Self(Arc::new(PaceShared { state: Mutex::new(state), keep_alive, _place: place }))
    }

    /// A request's head is here.
    pub fn answering(&self) -> Answering {
        let mut state = self.lock();
        state.doing = Doing::Answering;
        state.requests += 1;
        Answering(self.clone())
    }

    /// The client for whom a proxy sends its requests, or nobody.
    pub fn held_for(&self, client: Option<AddressPlace>) {
        let before = std::mem::replace(&mut self.lock().client, client);
        drop(before);
    }

    /// Bytes of a client have come.
    fn came(&self) {
        let mut state = self.lock();
        if matches!(state.doing, Doing::Idle(_)) {
            state.doing = Doing::Head(Instant::now());
        }
    }

    /// Bytes of an answer have left: the idle time begins after the last of them. Gives the number of the request.
    fn left(&self) -> u64 {
        let mut state = self.lock();
        if matches!(state.doing, Doing::Idle(_)) {
            state.doing = Doing::Idle(Instant::now());
        }
        state.requests
    }

    fn lock(&self) -> MutexGuard<'_, PaceState> {
        self.0.state.lock()
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.lock().doing = Doing::Idle(Instant::now());
    }
}

impl Wire {
    /// Over an accepted connection, of which these bytes have been read already.
    pub fn new(stream: ClientStream, before: Bytes, pace: Pace) -> Self {
        let answer = AnswerTaken { number: 0, begun: Instant::now(), bytes: 0 };
        Self { stream, before, pace, timer: Box::pin(tokio::time::sleep(HEAD)), stuck: None, answer }
    }

    /// The bare connection, what was read of it and not yet asked for, and what it holds.
    pub fn into_parts(self) -> (ClientStream, Bytes, Pace) {
        (self.stream, self.before, self.pace)
    }

    fn is_over(&mut self, cx: &mut Context<'_>, end: Instant) -> bool {
        if self.timer.deadline() != end {
            self.timer.as_mut().reset(end);
        }
        self.timer.as_mut().poll(cx).is_ready()
    }

    /// Reading waits. An idle connection ends as if the client had closed it, one that says half a request with an error.
    fn wait_to_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // While an answer is stuck, the timer is for that.
        if self.stuck.is_some() {
            return Poll::Pending;
        }
        let doing = self.pace.lock().doing;
        match doing {
            Doing::Answering => Poll::Pending,
            Doing::Idle(since) if self.is_over(cx, since + self.pace.0.keep_alive) => Poll::Ready(Ok(())),
            Doing::Head(since) if self.is_over(cx, since + HEAD) => Poll::Ready(Err(late("a request's head"))),
            Doing::Idle(_) | Doing::Head(_) => Poll::Pending,
        }
    }

    fn written(&mut self, cx: &mut Context<'_>, outcome: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &outcome {
            Poll::Pending => {
                let since = *self.stuck.get_or_insert_with(Instant::now);
                if self.is_over(cx, (since + STUCK).min(self.answer.deadline())) {
                    return Poll::Ready(Err(late("taking an answer")));
                }
            }
            Poll::Ready(written) => {
                self.stuck = None;
                let number = self.pace.left();
                if number != self.answer.number {
                    self.answer = AnswerTaken { number, begun: Instant::now(), bytes: 0 };
                }
                self.answer.bytes += written.as_ref().map_or(0, |bytes| *bytes as u64);
            }
        }
        outcome
    }
}

fn late(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("the client took too long: {what}"))
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.before.is_empty() {
            let some = this.before.len().min(buf.remaining());
            buf.put_slice(&this.before[..some]);
            this.before.advance(some);
            this.pace.came();
            return Poll::Ready(Ok(()));
        }
        let filled = buf.filled().len();
        match Pin::new(&mut this.stream).poll_read(cx, buf) {
            Poll::Pending => this.wait_to_read(cx),
            Poll::Ready(read) => {
                if buf.filled().len() > filled {
                    this.pace.came();
                }
                Poll::Ready(read)
            }
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.written(cx, outcome)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.written(cx, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
