//! Passes a program's output through, byte for byte, and reads its lines on the way.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

use super::progress::Lines;

/// Read at once.
const CHUNK: usize = 64 * 1024;

/// Where a program's output goes.
pub trait Sink: Send {
    /// Takes the next bytes, at any boundary.
    fn write(&mut self, bytes: &[u8]) -> impl Future<Output = io::Result<()>> + Send;

    /// There will be no more.
    fn end(&mut self) -> impl Future<Output = ()> + Send {
        async {}
    }
}

/// Copies `from` to `sink` until it ends, and hands each line to `see`. When writing fails (the reader of the
/// host's output has gone), reading ends too: the program then gets its broken pipe, as it would have by itself.
pub async fn pass_through(
    mut from: impl AsyncRead + Unpin + Send,
    mut sink: impl Sink,
    mut see: impl FnMut(&[u8]) + Send,
) {
    let mut lines = Lines::default();
    let mut chunk = vec![0_u8; CHUNK];
    while let Ok(read) = from.read(&mut chunk).await {
        if read == 0 {
            break;
        }
        // Lines first: progress and errors are known even where the writing fails.
        lines.feed(&chunk[..read], &mut see);
        if sink.write(&chunk[..read]).await.is_err() {
            break;
        }
    }
    drop(from);
    sink.end().await;
    if !lines.rest().is_empty() {
        see(lines.rest());
    }
}
