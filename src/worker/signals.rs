//! Signals that ask this program to leave.
//!
//! Whoever starts a program may have it ignore some of them: `nohup` has SIGHUP ignored, and a shell without job control
//! does the same with SIGINT for what it starts with `&`, so that Ctrl-C reaches only what is in front. A handler would
//! undo that wish, here and in every program started from here, because a signal that has a handler is back at its
//! default after `exec`. So a signal that was ignored at the start is not listened to at all.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::telemetry;

/// Whether the signal was set to be ignored when this program started. Only Linux says so; elsewhere the answer is no.
pub fn is_ignored(kind: SignalKind) -> bool {
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else { return false };
    ignores(&status, kind.as_raw_value())
}

/// Whether a `/proc/PID/status` names the signal among the ignored ones: bit n - 1 of the mask is signal n.
fn ignores(status: &str, number: i32) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u128::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    (1..=128).contains(&number) && mask >> (number - 1) & 1 == 1
}

/// Several signals as one stream, without those that are ignored.
pub struct Signals(Vec<(SignalKind, Signal)>);

impl Signals {
    /// From now on these do not end the program by themselves.
    pub fn of(kinds: &[SignalKind]) -> io::Result<Self> {
        let heard = kinds.iter().filter(|kind| !is_ignored(**kind));
        heard.map(|kind| Ok((*kind, signal(*kind)?))).collect::<io::Result<_>>().map(Self)
    }

    /// The next of them; never, where all are ignored.
    pub async fn next(&mut self) -> SignalKind {
        std::future::poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<SignalKind> {
        for (kind, signal) in &mut self.0 {
            if Pin::new(signal).poll_recv(cx).is_ready() {
                return Poll::Ready(*kind);
            }
        }
        Poll::Pending
    }
}

/// Cancelled by signals that ask this program to leave.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    /// By the first of them.
    pub asked: CancellationToken,
    /// Before `asked`, where a person at a terminal asked (Ctrl-C, or a terminal that was closed) and not a process
    /// manager.
    pub by_person: CancellationToken,
}

/// Asked by the first SIGTERM, SIGINT or SIGHUP. A second SIGTERM or SIGINT ends the process at once, as an
/// impatient operator expects; a second SIGHUP does not, because a terminal that closes often sends two.
pub fn stop_on_signals() -> io::Result<Stop> {
    let mut signals = Signals::of(&[SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()])?;
    let stop = Stop::default();
    let cancel = stop.clone();
    // Lives as long as the process does: the signals no longer end it by themselves.
    tokio::spawn(async move {
        loop {
            let kind = signals.next().await;
            if !cancel.asked.is_cancelled() {
                tracing::info!("process.stopping: a second SIGTERM or Ctrl-C ends it at once");
                if kind != SignalKind::terminate() {
                    cancel.by_person.cancel();
                }
                cancel.asked.cancel();
            } else if kind != SignalKind::hangup() {
                telemetry::log::flush();
                std::process::exit(128 + kind.as_raw_value());
            }
        }
    });
    Ok(stop)
}

/// As [`stop_on_signals`], for those to whom it is the same who asked.
pub fn stop_signals() -> io::Result<CancellationToken> {
    stop_on_signals().map(|stop| stop.asked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mask_of_ignored_signals_is_read_bit_by_bit() {
        // SIGHUP is 1, SIGINT 2, SIGPIPE 13, SIGTERM 15.
        let status =
            "Name:\twheelhouse\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000001003\nSigCgt:\tffffffffffffffff\n";
        let ignored: Vec<i32> = (-1..=200).filter(|number| ignores(status, *number)).collect();
        assert_eq!(ignored, [1, 2, 13]);
        assert!(!ignores("SigIgn:\tno mask\n", 1) && !ignores("", 1));
    }
}
