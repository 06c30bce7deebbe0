//! Whether a client is still there: it takes bytes, or it answers pings.

use std::time::Duration;

use tokio::time::Instant;

/// Pings without a pong after which the socket is given up.
const MISSED: u8 = 2;
/// A connection that takes not one byte for so long, while something waits, has a client too slow to read.
const STUCK: Duration = Duration::from_secs(10);
/// The same where it had just taken a gulp: the client's system makes room for more only when its program has read most
/// of that, and until then a slow one cannot be told from one that reads nothing. Enough for 6 KB/s and a receive buffer
/// of the usual size, which takes about 120 KB.
const STUCK_AFTER_A_GULP: Duration = Duration::from_secs(25);
/// More than this, within this time, is a gulp.
const GULP: (u64, Duration) = (48 * 1024, Duration::from_secs(1));
/// Between two questions to the system whether there is room again.
const PROBE: Duration = Duration::from_secs(1);
/// How long after the last of them its answer is due.
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
pub(super) struct Writing {
    /// Taken so far.
    bytes: u64,
    /// Since when bytes have been taken without a pause, and how many there were before.
    gulp: (Instant, u64),
    stuck: Option<Stuck>,
}

struct Stuck {
    since: Instant,
    next_look: Instant,
    /// The last question has been asked.
    is_last: bool,
}

impl Writing {
    /// Nothing has been written yet.
    pub(super) fn new() -> Self {
        Self { bytes: 0, gulp: (Instant::now(), 0), stuck: None }
    }

    /// After an attempt to write: whether something still waits, and how many bytes have been taken altogether.
    ///
    /// `true`: bytes were taken by a connection that had been full, so whoever is there has made room. Of one that was
    /// not full this says nothing, for the system takes bytes for somebody who is gone, too.
    pub(super) fn note(&mut self, is_waiting: bool, bytes: u64, now: Instant) -> bool {
        let took = self.bytes != bytes;
        if took {
            if now.duration_since(self.gulp.0) > GULP.1 {
                self.gulp = (now, self.bytes);
            }
            self.bytes = bytes;
        }
        let was_stuck = self.stuck.is_some();
        if !is_waiting {
            self.stuck = None;
        } else if took || !was_stuck {
            self.stuck = Some(Stuck { since: now, next_look: now + PROBE, is_last: false });
        }
        took && was_stuck
    }

    fn patience(&self) -> Duration {
        if self.bytes - self.gulp.1 > GULP.0 { STUCK_AFTER_A_GULP } else { STUCK }
    }

    /// When to look again.
    pub(super) fn next_look(&self) -> Option<Instant> {
        self.stuck.as_ref().map(|stuck| stuck.next_look)
    }

    /// Whether it has taken nothing for too long.
    pub(super) fn look(&mut self, now: Instant) -> Look {
        let patience = self.patience();
        let Some(stuck) = &mut self.stuck else { return Look::Fine };
        if now < stuck.next_look {
            return Look::Fine;
        }
        if stuck.is_last {
            return Look::TooSlow;
        }
        stuck.is_last = now >= stuck.since + patience;
        stuck.next_look = now + if stuck.is_last { ANSWER } else { PROBE };
        Look::Probe
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

    /// Looks whenever one is due, while nothing is taken; how many seconds until it is too slow.
    fn patience(writing: &mut Writing, bytes: u64, start: Instant) -> u64 {
        loop {
            let now = writing.next_look().expect("it is stuck");
            match writing.look(now) {
                Look::TooSlow => return now.duration_since(start).as_secs(),
                _ => assert!(!writing.note(true, bytes, now)),
            }
        }
    }

    #[test]
    fn a_byte_taken_in_ten_seconds_is_life_and_none_is_not() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut writing = Writing { bytes: 0, gulp: (start, 0), stuck: None };
        assert!(!writing.note(true, 20_000, start));
        for second in 1..=9 {
            assert_eq!((writing.look(after(second)), writing.look(after(second))), (Look::Probe, Look::Fine));
            assert!(!writing.note(true, 20_000, after(second)));
        }
        assert!(writing.note(true, 20_001, after(9)), "it has made room");
        assert_eq!(patience(&mut writing, 20_001, after(9)), 10);
        assert!(!writing.note(false, 20_001, after(30)));
        assert_eq!((writing.next_look(), writing.look(after(60))), (None, Look::Fine));
    }

    #[test]
    fn a_gulp_takes_longer_to_read() {
        let start = Instant::now();
        let mut writing = Writing { bytes: 0, gulp: (start, 0), stuck: None };
        assert!(!writing.note(true, 60_000, start));
        let soon = start + Duration::from_millis(500);
        assert!(writing.note(true, 120_000, soon));
        assert_eq!(patience(&mut writing, 120_000, soon), 25);
        let later = soon + Duration::from_secs(40);
        assert!(writing.note(true, 128_000, later));
        assert_eq!(patience(&mut writing, 128_000, later), 10);
    }
}
