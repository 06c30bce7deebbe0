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

use super::stream::ClientStream;

/// Longest time from the first byte of a request to the end of its head.
const HEAD: Duration = Duration::from_secs(10);
/// Longest time in which a client takes not one byte of an answer.
const STUCK: Duration = Duration::from_secs(30);

/// A client's connection.
pub struct Wire {
    stream: ClientStream,
    /// Came before the server began to read.
    before: Bytes,
    pace: Pace,
    timer: Pin<Box<Sleep>>,
    /// Since when no byte of an answer has been taken, while one waits.
    stuck: Option<Instant>,
}

/// What a connection is waiting for; shared with the service, which knows when a request is being answered.
#[derive(Clone)]
pub struct Pace(Arc<Mutex<Doing>>, Duration);

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
    pub fn new(keep_alive: Duration) -> Self {
        Self(Arc::new(Mutex::new(Doing::Idle(Instant::now()))), keep_alive)
    }

    /// A request's head is here.
    pub fn answering(&self) -> Answering {
        *self.lock() = Doing::Answering;
        Answering(self.clone())
    }

    /// Bytes of a client have come.
    fn came(&self) {
        let mut doing = self.lock();
        if matches!(*doing, Doing::Idle(_)) {
            *doing = Doing::Head(Instant::now());
        }
    }

    /// Bytes of an answer have left: the idle time begins after the last of them.
    fn left(&self) {
        let mut doing = self.lock();
        if matches!(*doing, Doing::Idle(_)) {
            *doing = Doing::Idle(Instant::now());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Doing> {
        self.0.lock()
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        *self.0.lock() = Doing::Idle(Instant::now());
    }
}

impl Wire {
    /// Over an accepted connection, of which these bytes have been read already.
    pub fn new(stream: ClientStream, before: Bytes, pace: Pace) -> Self {
        Self { stream, before, pace, timer: Box::pin(tokio::time::sleep(HEAD)), stuck: None }
    }

    /// The bare connection, and what was read of it and not yet asked for.
    pub fn into_parts(self) -> (ClientStream, Bytes) {
        (self.stream, self.before)
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
        let doing = *self.pace.lock();
        match doing {
            Doing::Answering => Poll::Pending,
            Doing::Idle(since) if self.is_over(cx, since + self.pace.1) => Poll::Ready(Ok(())),
            Doing::Head(since) if self.is_over(cx, since + HEAD) => Poll::Ready(Err(late("a request's head"))),
            Doing::Idle(_) | Doing::Head(_) => Poll::Pending,
        }
    }

    fn written(&mut self, cx: &mut Context<'_>, outcome: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match outcome {
            Poll::Pending => {
                let since = *self.stuck.get_or_insert_with(Instant::now);
                if self.is_over(cx, since + STUCK) {
                    return Poll::Ready(Err(late("taking an answer")));
                }
            }
            Poll::Ready(_) => {
                self.stuck = None;
                self.pace.left();
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
