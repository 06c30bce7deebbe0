//! Whether a client is still there: it takes bytes, or it answers pings.

use std::time::Duration;

use tokio::time::Instant;

/// Pings without a pong after which the socket is given up.
const MISSED: u8 = 2;
/// A connection that takes not one byte for so long, while something waits, has a client too slow to read.
const STUCK: Duration = Duration::from_secs(10);
/// How long after the last question to the system its answer is due.
const ANSWER: Duration = Duration::from_millis(100);
/// No time that matters.
const FAR: Duration = Duration::from_secs(86_400);

/// The pings of one socket.
pub(super) struct Pings {
    every: Duration,
    /// When the next is due. While one waits behind other messages none is: the client cannot answer what it has not got.
    next: Option<Instant>,
    due: bool,
    unanswered: u8,
}

impl Pings {
    /// Spread over the interval, so that sockets that came together are not pinged together.
    pub(super) fn new(every: Duration) -> Self {
        let first = Instant::now() + every.mul_f64(0.5 + fastrand::f64() / 2.0);
        Self { every, next: Some(first), due: false, unanswered: 0 }
    }

    /// When to look again.
    pub(super) fn next(&self) -> Instant {
        self.next.unwrap_or_else(|| Instant::now() + FAR)
    }

    /// `false`: nobody answers any more.
    pub(super) fn look(&mut self, now: Instant) -> bool {
        if self.next.is_some_and(|next| now >= next) {
            if self.unanswered >= MISSED {
                return false;
            }
            self.due = true;
            self.next = None;
        }
        true
    }

    /// Whether one is to be sent; it is given out once.
    pub(super) fn take_due(&mut self) -> bool {
        std::mem::take(&mut self.due)
    }

    /// One is on its way: from now on an answer is due.
    pub(super) fn left(&mut self, now: Instant) {
        self.unanswered = self.unanswered.saturating_add(1);
        self.next = Some(now + self.every);
    }

    /// The client has said something, or has taken something.
    pub(super) fn somebody_is_there(&mut self) {
        self.unanswered = 0;
    }
}

/// What is to be done about a connection that takes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// Nothing.
    Fine,
    /// Ask the system itself whether it would take something.
    Probe,
    /// It took nothing for too long.
    TooSlow,
}

/// How the connection takes what is written.
#[derive(Default)]
pub(super) struct Writing {
    stuck: Option<Stuck>,
}

struct Stuck {
    since: Instant,
    /// Bytes that had been taken by then.
    bytes: u64,
    /// When the system was asked.
    probed: Option<Instant>,
}

impl Writing {
    /// After an attempt to write: whether something still waits, and how many bytes have been taken altogether.
    ///
    /// `true`: bytes were taken by a connection that had been full, so whoever is there has made room. Of one that was
    /// not full this says nothing, for the system takes bytes for somebody who is gone, too.
    pub(super) fn note(&mut self, is_waiting: bool, bytes: u64, now: Instant) -> bool {
        let took = self.stuck.as_ref().is_some_and(|stuck| stuck.bytes != bytes);
        if !is_waiting {
            self.stuck = None;
        } else if took || self.stuck.is_none() {
            self.stuck = Some(Stuck { since: now, bytes, probed: None });
        }
        took
    }

    /// When to look again.
    pub(super) fn next_look(&self) -> Option<Instant> {
        self.stuck.as_ref().map(|stuck| stuck.probed.map_or(stuck.since + STUCK, |at| at + ANSWER))
    }

    /// Whether it has taken nothing for too long.
    pub(super) fn look(&mut self, now: Instant) -> Look {
        let Some(stuck) = &mut self.stuck else { return Look::Fine };
        match stuck.probed {
            None if now >= stuck.since + STUCK => {
                stuck.probed = Some(now);
                Look::Probe
            }
            Some(at) if now >= at + ANSWER => Look::TooSlow,
            _ => Look::Fine,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_to_answer_begins_when_the_ping_has_left() {
        let every = Duration::from_secs(30);
        let mut pings = Pings::new(every);
        let mut now = pings.next();
        assert!(pings.look(now) && pings.take_due() && !pings.take_due());
        // It waits behind a long message for ten minutes: nothing is held against the client.
        now += Duration::from_secs(600);
        assert!(pings.look(now) && !pings.take_due());
        pings.left(now);
        assert_eq!(pings.next(), now + every);
        now += every;
        assert!(pings.look(now) && pings.take_due());
        pings.left(now);
        now += every;
        assert!(!pings.look(now), "two have left and none was answered");
        pings.somebody_is_there();
        assert!(pings.look(now) && pings.take_due());
    }

    #[test]
    fn a_byte_taken_in_ten_seconds_is_life_and_none_is_not() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut writing = Writing::default();
        assert!(!writing.note(true, 100, after(0)));
        assert_eq!(writing.next_look(), Some(after(10)));
        assert_eq!(writing.look(after(9)), Look::Fine);
        assert!(writing.note(true, 101, after(9)), "it has made room");
        assert_eq!(writing.look(after(18)), Look::Fine);
        assert_eq!(writing.look(after(19)), Look::Probe);
        // The question found room for a byte.
        assert!(writing.note(true, 102, after(19)));
        assert_eq!(writing.look(after(29)), Look::Probe);
        assert!(!writing.note(true, 102, after(29)));
        assert_eq!(writing.look(after(29)), Look::Fine, "the answer is not due yet");
        assert_eq!(writing.look(after(30)), Look::TooSlow);
        assert!(!writing.note(false, 102, after(30)));
        assert_eq!(writing.next_look(), None);
    }
}
