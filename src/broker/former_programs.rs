//! Whether programs of the version before run beside this one, as during a rolling upgrade: then what this version remembers of a
//! request is written as they read it, too.
//!
//! A gateway proves to itself each second that it hears what scripts publish, on a channel whose name tells its version, and every
//! gateway hears the proofs of all others. So whoever has listened for a while and heard none of the version before knows that
//! there is none. Who does not know yet, or cannot listen, takes it that there is one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// So long a program listens until it believes that there are none; each proves itself every second.
const LISTEN_FOR: Duration = Duration::from_secs(8);
/// One that was heard may be there for so long.
const HEARD_FOR: Duration = Duration::from_secs(60);

/// What was heard of them; cheap to clone.
#[derive(Clone, Default)]
pub(super) struct FormerPrograms(Arc<Mutex<Heard>>);

#[derive(Default)]
struct Heard {
    /// Since when all that is published has been heard.
    listening_since: Option<Instant>,
    last: Option<Instant>,
}

impl FormerPrograms {
    /// From now on nothing is heard.
    pub(super) fn stop_listening(&self) {
        self.0.lock().listening_since = None;
    }

    /// The program has heard itself, and so it hears others.
    pub(super) fn note_listening(&self) {
        self.0.lock().listening_since.get_or_insert_with(Instant::now);
    }

    /// One of them was heard.
    pub(super) fn note_heard(&self) {
        self.0.lock().last = Some(Instant::now());
    }

    /// Whether there may be any.
    pub(super) fn may_run(&self) -> bool {
        self.0.lock().may_run_at(Instant::now())
    }
}

impl Heard {
    fn may_run_at(&self, now: Instant) -> bool {
        let has_listened = self.listening_since.is_some_and(|since| now.duration_since(since) >= LISTEN_FOR);
        !has_listened || self.last.is_some_and(|last| now.duration_since(last) < HEARD_FOR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_may_be_one_until_a_while_of_listening_has_brought_none() {
        let (begin, mut heard) = (Instant::now(), Heard::default());
        let at = |seconds: u64| begin + Duration::from_secs(seconds);
        assert!(heard.may_run_at(at(100)), "nobody has listened");
        heard.listening_since = Some(at(100));
        assert!(heard.may_run_at(at(107)));
        assert!(!heard.may_run_at(at(108)));
        heard.last = Some(at(120));
        assert!(heard.may_run_at(at(179)));
        assert!(!heard.may_run_at(at(180)));
        heard.listening_since = None;
        assert!(heard.may_run_at(at(200)), "what is published now is not heard");
    }
}
