//! Passes a program's output through, byte for byte, and reads its lines on the way.

use tokio::io::{AsyncRead, AsyncReadExt};

use super::progress::Lines;

/// Read at once.
const CHUNK: usize = 64 * 1024;

/// Copies `from` to `write` until it ends, and hands each line to `see`. When writing fails (the reader of the
/// host's output has gone), reading ends too: the program then gets its broken pipe, as it would have by itself.
pub async fn pass_through<W, F>(mut from: impl AsyncRead + Unpin, mut write: W, mut see: F)
where
    W: AsyncFnMut(&[u8]) -> std::io::Result<()>,
    F: FnMut(&[u8]),
{
    let mut lines = Lines::default();
    let mut chunk = vec![0_u8; CHUNK];
    while let Ok(read) = from.read(&mut chunk).await {
        if read == 0 {
            break;
        }
        // Lines first: progress and errors are known even where the writing fails.
        lines.feed(&chunk[..read], &mut see);
        if write(&chunk[..read]).await.is_err() {
            break;
        }
    }
    if !lines.rest().is_empty() {
        see(lines.rest());
    }
}
