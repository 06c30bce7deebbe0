//! Whether a client is still there: it takes bytes, or it answers pings.

use std::time::Duration;

use tokio::time::Instant;

/// Pings without a pong after which the socket is given up.
const MISSED: u8 = 2;
/// A connection that takes not one byte for so long, while something waits, has a client too slow to read.
const STUCK: Duration = Duration::from_secs(10);
/// Bytes a second of the slowest client that is told from one that reads nothing. A client's system makes room for more
/// only when its program has read most of what it holds; until then nothing shows whether it reads. So whoever took
/// much is given the time in which such a client reads it, where that is longer than [`STUCK`].
const SLOWEST: f64 = 5.0 * 1024.0;
/// What a client's system is believed to hold, at most: as much as with a receive buffer of the usual size. It makes
/// 26 s.
const HELD: f64 = 128.0 * 1024.0;
/// After the runtime's word that there is no room, and then between two questions to the system whether there is.
const PROBE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));
/// How long after the last of them its answer is due.
const ANSWER: Duration = Duration::from_millis(100);
/// No time that matters.
const FAR: Duration = Duration::from_secs(86_400);

/// The pings of one socket.
pub struct Pings {
    every: Duration,
    /// When the next is due. While one waits behind other messages none is: the client cannot answer what it has not got.
    next: Option<Instant>,
    due: bool,
    unanswered: u8,
}

impl Pings {
    /// Spread over the interval, so that sockets that came together are not pinged together.
    pub fn new(every: Duration) -> Self {
        let first = Instant::now() + every.mul_f64(0.5 + fastrand::f64() / 2.0);
        Self { every, next: Some(first), due: false, unanswered: 0 }
    }

    /// When to look again.
    pub fn next(&self) -> Instant {
        self.next.unwrap_or_else(|| Instant::now() + FAR)
    }

    /// `false`: nobody answers any more.
    pub fn look(&mut self, now: Instant) -> bool {
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
    pub fn take_due(&mut self) -> bool {
        std::mem::take(&mut self.due)
    }

    /// One is on its way: from now on an answer is due.
    pub fn left(&mut self, now: Instant) {
        self.unanswered = self.unanswered.saturating_add(1);
        self.next = Some(now + self.every);
    }

    /// The client has said something, or has taken something.
    pub fn somebody_is_there(&mut self) {
        self.unanswered = 0;
    }
}

/// What is to be done about a connection that takes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// Nothing.
    Fine,
    /// Ask the system itself whether it would take something.
    Probe,
    /// It took nothing for too long.
    TooSlow,
}

/// How the connection takes what is written.
pub struct Writing {
    /// Taken so far.
    bytes: u64,
    /// How many of them the slowest client would not have read yet when the last were taken, and when that was.
    unread: (f64, Instant),
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
    pub fn new(now: Instant) -> Self {
        Self { bytes: 0, unread: (0.0, now), stuck: None }
    }

    /// After an attempt to write: whether something still waits, and how many bytes have been taken altogether.
    ///
    /// `true`: bytes were taken by a connection that had been full, so whoever is there has made room. Of one that was
    /// not full this says nothing, for the system takes bytes for somebody who is gone, too.
    pub fn note(&mut self, is_waiting: bool, bytes: u64, now: Instant) -> bool {
        let took = bytes.saturating_sub(self.bytes);
        if took > 0 {
            let (unread, at) = self.unread;
            let read = now.saturating_duration_since(at).as_secs_f64() * SLOWEST;
            self.unread = (((unread - read).max(0.0) + took as f64).min(HELD), now);
            self.bytes = bytes;
        }
        let was_stuck = self.stuck.is_some();
        if !is_waiting {
            self.stuck = None;
        } else if took > 0 || !was_stuck {
            self.stuck = Some(Stuck { since: now, next_look: now + PROBE.0, is_last: false });
        }
        took > 0 && was_stuck
    }

    fn patience(&self) -> Duration {
        STUCK.max(Duration::from_secs_f64(self.unread.0 / SLOWEST))
    }

    /// When to look again.
    pub fn next_look(&self) -> Option<Instant> {
        self.stuck.as_ref().map(|stuck| stuck.next_look)
    }

    /// Whether it has taken nothing for too long.
    pub fn look(&mut self, now: Instant) -> Look {
        let patience = self.patience();
        let Some(stuck) = &mut self.stuck else { return Look::Fine };
        if now < stuck.next_look {
            return Look::Fine;
        }
        if stuck.is_last {
            return Look::TooSlow;
        }
        let end = stuck.since + patience;
        stuck.is_last = now >= end;
        stuck.next_look = if stuck.is_last { now + ANSWER } else { end.min(now + PROBE.1) };
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
        let mut writing = Writing::new(start);
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
    fn much_takes_longer_to_read_but_not_for_ever() {
        let start = Instant::now();
        let mut writing = Writing::new(start);
        assert!(!writing.note(true, 50 * 1024, start));
        let soon = start + Duration::from_secs(2);
        assert!(writing.note(true, 110 * 1024, soon));
        // 110 KiB less the ten that were read in two seconds, at five a second.
        assert_eq!(patience(&mut writing, 110 * 1024, soon), 20);
        let later = soon + Duration::from_secs(40);
        assert!(writing.note(true, 118 * 1024, later));
        assert_eq!(patience(&mut writing, 118 * 1024, later), 10);
        let mut writing = Writing::new(start);
        assert!(!writing.note(true, 10_000_000, start));
        assert_eq!(patience(&mut writing, 10_000_000, start), 25);
    }
}
