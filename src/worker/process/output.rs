//! Passes a program's output through, byte for byte, and reads its lines on the way.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};

use super::progress::LineSplitter;

/// Read at once.
const CHUNK: usize = 64 * 1024;

/// After so long without more, a line without its end is read as far as it has come: `\r 42%` and nothing else is how
/// progress bars are drawn, and the next carriage return may be minutes away.
const BAR_FLUSH_DELAY: Duration = Duration::from_millis(50);
/// The same for a line that overwrites nothing: its end is likely to come soon, and it may say more until then.
const IDLE_FLUSH_DELAY: Duration = Duration::from_millis(250);

/// Where a program's output goes.
pub trait Sink: Send {
    /// Takes the next bytes, at any boundary.
    fn write(&mut self, bytes: &[u8]) -> impl Future<Output = io::Result<()>> + Send;

    /// There will be no more.
    fn end(&mut self) -> impl Future<Output = ()> + Send {
        async {}
    }
}

/// Sees the bytes of a program's output on their way, and when none have come for a moment.
pub trait Tap: Send {
    /// The next bytes, at any boundary.
    fn feed(&mut self, bytes: &[u8]);

    /// A line has begun, and its end does not come.
    fn idle(&mut self) {}

    /// There will be no more.
    fn end(&mut self) {}
}

/// Nobody looks.
impl Tap for () {
    fn feed(&mut self, _bytes: &[u8]) {}
}

/// Copies `from` to `sink` until it ends, and hands each line to `see`; one whose end does not come is handed over as
/// it stands, and again when it is whole. When writing fails (the reader of the
/// host's output has gone), reading ends too: the program then gets its broken pipe, as it would have by itself.
pub async fn pass_through(from: impl AsyncRead + Unpin + Send, sink: impl Sink, see: impl FnMut(&[u8]) + Send) {
    pass_through_seen(from, sink, see, ()).await;
}

/// As [`pass_through`], with somebody else who sees the bytes.
pub async fn pass_through_seen(
    mut from: impl AsyncRead + Unpin + Send,
    mut sink: impl Sink,
    mut see: impl FnMut(&[u8]) + Send,
    mut tap: impl Tap,
) {
    let mut lines = LineSplitter::default();
    let mut chunk = vec![0_u8; CHUNK];
    // The line that has begun has not been handed over as it stands now.
    let mut unread = false;
    loop {
        let silence = if lines.overwrites() { BAR_FLUSH_DELAY } else { IDLE_FLUSH_DELAY };
        let read = tokio::select! {
            read = from.read(&mut chunk) => read.unwrap_or(0),
            () = tokio::time::sleep(silence), if unread => {
                see(lines.rest());
                tap.idle();
                unread = false;
                continue;
            }
        };
        if read == 0 {
            break;
        }
        // Lines first: progress and errors are known even where the writing fails.
        lines.feed(&chunk[..read], &mut see);
        tap.feed(&chunk[..read]);
        unread = !lines.rest().is_empty();
        if sink.write(&chunk[..read]).await.is_err() {
            break;
        }
    }
    drop(from);
    sink.end().await;
    if !lines.rest().is_empty() {
        see(lines.rest());
    }
    tap.end();
}
