//! The WebSocket under a session: reading, writing and closing by polling, so that one small task does all
//! three and none waits for another.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::{Sink, Stream};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error as WsError, Message};

use super::close::Close;
use super::frames::Frames;
use super::stream::ClientStream;
use super::wire::{Pace, Wire};
use crate::telemetry::metrics;

/// Read buffer, kept for every idle socket: the library's own has 128 KiB. Most messages of a client are shorter; a
/// longer one is read in pieces.
const READ_BUFFER: usize = 512;
/// Bytes gathered before they are written, where several messages wait.
const BUFFER: usize = 4 * 1024;
/// Pieces of messages that carry next to nothing, read before whoever counts them has a look.
const SCRAPS: u32 = 64;
/// Messages, and pieces of messages, that are still understood after the close was sent: they were on their way, and
/// the client's own close is behind them. Whoever sends more is flooding.
const AFTER_CLOSE: u32 = 1_024;
/// How often something is read of what is not understood any more, and how long the connection is kept open. A
/// connection that is cut while bytes of the client wait in it takes the close away with it, so that there is a limit
/// to the reading and not to the time: what is not read costs nothing.
const UNPARSED: (u32, Duration) = (4_096, Duration::from_secs(5));

/// One client's socket.
pub struct Socket {
    stream: WebSocketStream<Counted>,
    /// Something was given to the library that may not be on its way yet.
    unflushed: bool,
    /// Reading ended with an error: the connection may still hold what was not understood.
    broken: bool,
    /// A ping was given to the library, and nothing else goes before it has left.
    ping: bool,
    /// Pings that have left since this was last asked for.
    pings_left: u32,
    /// The places that the connection takes of those that an address has, for as long as the socket lives.
    _places: Pace,
}

/// A connection that knows how many bytes it has taken, which alone tells a slow client from a dead one, and how many
/// frames have come.
pub struct Counted {
    inner: ClientStream,
    written: u64,
    /// The next write asks the system itself, whatever the runtime believes.
    probe: bool,
    frames: Frames,
}

impl Socket {
    /// Takes over an upgraded connection; `None` if it is not one of this server's.
    /// `longest`: bytes of one message of the client, and of one message to it.
    pub async fn take_over(upgraded: Upgraded, longest: (usize, usize)) -> Option<Self> {
        // The bare connection: hyper's wrapping costs memory for as long as the socket lives.
        let parts = upgraded.downcast::<TokioIo<Wire>>().ok()?;
        let (stream, before, places) = parts.io.into_inner().into_parts();
        let read = [&parts.read_buf[..], &before[..]].concat();
        let mut frames = Frames::default();
        frames.feed(&read);
        let inner = Counted { inner: stream, written: 0, probe: false, frames };
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(BUFFER)
            // One message at a time is given to the library, so it never holds back more than this.
            .max_write_buffer_size(2 * longest.1)
            .max_message_size(Some(longest.0))
            .max_frame_size(Some(longest.0));
        let stream = WebSocketStream::from_partially_read(inner, read, Role::Server, Some(config)).await;
        Some(Self { stream, unflushed: false, broken: false, ping: false, pings_left: 0, _places: places })
    }

    /// Writes what `next` gives, until it gives nothing; ready when all of it is on its way.
    pub fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        mut next: impl FnMut() -> Option<Message>,
    ) -> Poll<Result<(), WsError>> {
        loop {
            if self.ping {
                // By itself, so that the moment is known in which it leaves: from then on the client's answer is due.
                ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
                (self.ping, self.unflushed) = (false, false);
                self.pings_left += 1;
            }
            ready!(Pin::new(&mut self.stream).poll_ready(cx))?;
            let Some(message) = next() else { break };
            self.ping = matches!(message, Message::Ping(_));
            Pin::new(&mut self.stream).start_send(message)?;
            self.unflushed = true;
        }
        if self.unflushed {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// The next message; `None`: the connection has ended.
    pub fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Message, WsError>>> {
        let read = ready!(Pin::new(&mut self.stream).poll_next(cx));
        match &read {
            // The library has put an answer into its buffer.
            Some(Ok(Message::Ping(_) | Message::Close(_))) => self.unflushed = true,
            Some(Err(_)) => self.broken = true,
            _ => {}
        }
        Poll::Ready(read)
    }

    /// Bytes the connection has taken so far.
    pub fn written(&self) -> u64 {
        self.stream.get_ref().written
    }

    /// Makes the next write ask the system itself whether there is room: the runtime learns of it only when there is
    /// much, and a client that takes a little at a time is not one that takes nothing.
    pub fn probe(&mut self) {
        self.stream.get_mut().probe = true;
    }

    /// How many pings have left since the last call.
    pub fn take_pings_left(&mut self) -> u32 {
        std::mem::take(&mut self.pings_left)
    }

    /// How many pieces of messages that carry next to nothing came since the last call.
    pub fn take_scraps(&mut self) -> u32 {
        self.stream.get_mut().frames.take_scraps()
    }

    /// Ends a conversation that the client has closed: its close is answered.
    pub async fn answer_close(&mut self) {
        let answering = std::future::poll_fn(|cx| self.poll_write(cx, || None));
        let _ = tokio::time::timeout(Close::ANSWER, answering).await;
    }

    /// Closes with a code, and waits for the client's own close. Where that is not worth the work, because the client is
    /// flooding or what it sends cannot be understood, its bytes are thrown away as they come.
    pub async fn close(&mut self, close: &Close) {
        let mut frame = Some(Message::Close(Some(close.frame())));
        let closing = async {
            std::future::poll_fn(|cx| self.poll_write(cx, || frame.take())).await?;
            if self.broken || close.is_flood() {
                return Ok(Answer::NotWaitedFor);
            }
            let mut left = AFTER_CLOSE;
            Ok::<_, WsError>(std::future::poll_fn(|cx| self.poll_answer(cx, &mut left)).await)
        };
        let told = tokio::time::timeout(close.patience(), closing).await;
        if matches!(told, Ok(Ok(Answer::NotWaitedFor))) {
            self.throw_away_the_rest().await;
        }
    }

    /// Looks for the client's own close among so many messages.
    fn poll_answer(&mut self, cx: &mut Context<'_>, left: &mut u32) -> Poll<Answer> {
        loop {
            let read = self.poll_read(cx);
            *left = left.saturating_sub(self.take_scraps());
            match read {
                _ if *left == 0 => return Poll::Ready(Answer::NotWaitedFor),
                Poll::Ready(Some(Ok(_))) => *left -= 1,
                Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(Answer::Came),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Says that nothing more comes, and reads without a look at it what the client sends, so that it finds the close.
    async fn throw_away_the_rest(&mut self) {
        let stream = &mut self.stream.get_mut().inner;
        let reading = async {
            stream.shutdown().await?;
            let mut some = vec![0_u8; BUFFER];
            for _ in 0..UNPARSED.0 {
                match stream.read(&mut some).await? {
                    0 => return Ok(()),
                    bytes => metrics::bytes_unparsed(bytes as u64),
                }
            }
            std::future::pending::<io::Result<()>>().await
        };
        let _ = tokio::time::timeout(UNPARSED.1, reading).await;
    }
}

/// What became of a close.
enum Answer {
    /// The client has closed as well, or is gone.
    Came,
    /// Nobody looks for it.
    NotWaitedFor,
}

impl AsyncRead for Counted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.frames.scraps() >= SCRAPS {
            // The library goes on reading as long as there is no whole message. Whoever counts has its turn first.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let filled = buf.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(cx, buf);
        self.frames.feed(&buf.filled()[filled..]);
        read
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut outcome = Pin::new(&mut self.inner).poll_write(cx, bytes);
        // With TLS only the library may write.
        if outcome.is_pending()
            && std::mem::take(&mut self.probe)
            && let Some(stream) = self.inner.plain()
        {
            let flags = rustix::net::SendFlags::DONTWAIT | rustix::net::SendFlags::NOSIGNAL;
            match rustix::net::send(stream, bytes, flags) {
                // The runtime's waker is set all the same: should it be late, the next look finds the rest.
                Ok(written) => outcome = Poll::Ready(Ok(written)),
                Err(error) if error == rustix::io::Errno::AGAIN => {}
                Err(error) => outcome = Poll::Ready(Err(error.into())),
            }
        }
        let written = ready!(outcome)?;
        self.written += written as u64;
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
