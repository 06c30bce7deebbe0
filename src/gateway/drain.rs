//! The end of a gateway: every socket is sent away, in batches, each with a pause of its own.

use std::time::Duration;

use super::Gateway;
use super::close::Close;

/// Batches; and the part of `server.drain` over which they are spread, so that the clients' own closes and
/// the commands under way have the rest.
const BATCHES: u32 = 20;
const SPREAD: f64 = 0.4;
/// No longer than this, however long the drain may take.
const LONGEST: Duration = Duration::from_secs(5);
/// Sockets that make a batch worth a pause.
const SMALLEST: usize = 25;

/// Asks every socket to close; a command under way is answered first.
pub async fn send_away(gateway: &Gateway) {
    let sockets = gateway.access().outboxes();
    let size = sockets.len().div_ceil(BATCHES as usize).max(SMALLEST);
    let pause = (gateway.settings().server.drain.mul_f64(SPREAD)).min(LONGEST) / BATCHES;
    for (n, batch) in sockets.chunks(size).enumerate() {
        if n > 0 {
            tokio::time::sleep(pause).await;
        }
        for outbox in batch {
            outbox.close(Close::drain());
        }
    }
}
