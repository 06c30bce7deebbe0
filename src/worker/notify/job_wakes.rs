//! Which workers ask SQL when they hear that jobs wait.
//!
//! Everybody hears it, as it stands nowhere who knows the type of a job and has room. In a large fleet a few ask at once, a few more
//! for each further job, and the others a little later, one after the other, unless one of the first says meanwhile that nothing is
//! left. So one job costs a few looks into SQL instead of one for each worker, and a worker that happens to be full, or not to know the
//! type, holds a job up for some milliseconds.
//!
//! Who is first differs from wake-up to wake-up, and every worker finds its place by itself.

use std::sync::OnceLock;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::broker::scripts::updates::JobWake;
use crate::domain::{TenantId, WorkerId, fnv1a};
use crate::worker::maintenance::live_workers::mixed;

/// In so small a fleet all ask at once.
const ALL_ASK: usize = 8;
/// So many ask at once for one job; one more for each further job.
const FIRST: u64 = 4;
/// The others wait so long, the time in which one of the first takes a job and says that nothing is left,
const HEAD_START: Duration = Duration::from_millis(80);
/// and then so much longer each,
const STEP: Duration = Duration::from_millis(4);
/// and no longer than this.
const MAX_DELAY: Duration = Duration::from_millis(500);

/// What a worker has heard of jobs that wait, and when it is to ask SQL.
#[derive(Default)]
pub(crate) struct JobWakes {
    state: Mutex<JobWakesState>,
    /// Notified when it is to ask at another time than before.
    changed: Notify,
    /// What [`kind_of`] says of this worker.
    kind: OnceLock<u64>,
}

#[derive(Default)]
struct JobWakesState {
    /// The name of the wake-up that was heard last.
    last: Option<String>,
    /// Somebody has said that nothing is left of what was heard until then.
    is_settled: bool,
    ask_at: Option<Instant>,
}

impl JobWakes {
    /// What this worker takes. Until it is said, what others say of the jobs that are left counts for nothing.
    pub(crate) fn set_kind(&self, kind: u64) {
        let _ = self.kind.set(kind);
    }

    pub(crate) fn kind(&self) -> Option<u64> {
        self.kind.get().copied()
    }

    /// A wake-up was heard. `workers`: about how many hear it.
    pub(crate) fn hear(&self, wake: &JobWake, me: &WorkerId, workers: usize) {
        let mut state = self.state.lock();
        match wake {
            JobWake::Jobs { count, name } => {
                (state.last, state.is_settled) = (Some(name.clone()), false);
                let delay = delay(me, name, *count, workers);
                let at = Instant::now() + delay;
                state.ask_at = Some(state.ask_at.map_or(at, |before| before.min(at)));
            }
            // From a version that does not say how many, or a program of others.
            JobWake::Any => (state.last, state.ask_at) = (None, Some(Instant::now())),
            JobWake::NothingLeft { name, kind: of } => {
                // What came after the wake-up that its sender had heard is another matter.
                if Some(*of) != self.kind() || state.last.as_ref() != Some(name) {
                    return;
                }
                (state.is_settled, state.ask_at) = (true, None);
            }
        }
        drop(state);
        self.changed.notify_one();
    }

    /// The worker begins to look into SQL: the name of the wake-up that was heard last, unless all is said about that.
    pub(crate) fn begin(&self) -> Option<String> {
        let mut state = self.state.lock();
        state.ask_at = None;
        state.last.clone().filter(|_| !state.is_settled)
    }

    /// Whether others still have to be told that nothing is left of what this wake-up was about.
    pub(crate) fn is_open(&self, name: &str) -> bool {
        let state = self.state.lock();
        !state.is_settled && state.last.as_deref() == Some(name)
    }

    /// Notifies `due` whenever it is time to ask, until the worker ends.
    pub(crate) async fn run(&self, due: &Notify) {
        loop {
            let ask_at = self.state.lock().ask_at;
            let time = async {
                match ask_at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.changed.notified() => {}
                () = time => {
                    self.state.lock().ask_at = None;
                    due.notify_one();
                }
            }
        }
    }
}

/// Whether a fleet is so large that not all ask at once.
pub(crate) fn takes_turns(workers: usize) -> bool {
    workers > ALL_ASK
}

/// The same for workers that may take the same jobs.
pub(crate) fn kind_of(types: &[String], tenants: Option<&[TenantId]>) -> u64 {
    let mut types: Vec<&str> = types.iter().map(String::as_str).collect();
    types.sort_unstable();
    let mut names: Vec<&str> = tenants.unwrap_or_default().iter().map(|tenant| tenant.as_str()).collect();
    names.sort_unstable();
    fnv1a(&format!("{types:?} {} {names:?}", tenants.is_some()))
}

/// How long a worker waits after a wake-up.
fn delay(me: &WorkerId, name: &str, count: u64, workers: usize) -> Duration {
    if !takes_turns(workers) {
        return Duration::ZERO;
    }
    // Of so many in a row, by lot: the lot of each is the same for nobody else and for no other wake-up.
    let lot = mixed(fnv1a(me.as_str()) ^ mixed(fnv1a(name))) as f64 / u64::MAX as f64;
    let place = lot * workers as f64;
    let first = FIRST.saturating_add(count.saturating_sub(1)) as f64;
    if place < first {
        return Duration::ZERO;
    }
    let step = STEP.min((MAX_DELAY - HEAD_START) / u32::try_from(workers).unwrap_or(u32::MAX));
    HEAD_START + step.mul_f64(place - first)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: u64 = 7;

    fn worker(n: usize) -> WorkerId {
        format!("w{n}").parse().expect("id")
    }

    fn jobs(name: &str, count: u64) -> JobWake {
        JobWake::Jobs { count, name: name.to_owned() }
    }

    /// How many of a fleet ask at once, on the average of many wake-ups, and the longest that anybody waits.
    fn asking(workers: usize, count: u64) -> (f64, Duration) {
        let (mut at_once, mut longest) = (0, Duration::ZERO);
        for wake in 0..200 {
            for n in 0..workers {
                let delay = delay(&worker(n), &format!("wake{wake}"), count, workers);
                at_once += usize::from(delay.is_zero());
                longest = longest.max(delay);
                assert!(delay.is_zero() || delay >= HEAD_START);
            }
        }
        (at_once as f64 / 200.0, longest)
    }

    #[test]
    fn a_few_ask_at_once_for_one_job_as_many_as_there_are_jobs_for_many_and_nobody_waits_for_long() {
        assert_eq!(asking(ALL_ASK, 1), (ALL_ASK as f64, Duration::ZERO));
        for workers in [60, 200, 1_000] {
            let (at_once, longest) = asking(workers, 1);
            assert!((3.0..5.0).contains(&at_once), "{at_once} of {workers}");
            assert!(longest <= MAX_DELAY, "{longest:?} of {workers}");
        }
        assert_eq!(asking(60, 60).0, 60.0);
        assert_eq!(asking(60, u64::MAX).0, 60.0);
    }

    #[test]
    fn a_worker_asks_in_its_turn_unless_it_hears_that_nothing_is_left_of_what_it_has_heard() {
        let wakes = JobWakes::default();
        wakes.set_kind(KIND);
        let nothing_left = |name: &str, kind| JobWake::NothingLeft { name: name.to_owned(), kind };
        // One whose turn comes later for both.
        let late = (0..).map(worker).find(|me| ["a", "b"].iter().all(|name| !delay(me, name, 1, 60).is_zero()));
        let me = late.expect("one of many");
        let hear = |wake: &JobWake| wakes.hear(wake, &me, 60);
        let is_to_ask = || wakes.state.lock().ask_at.is_some();

        hear(&jobs("a", 1));
        assert!(is_to_ask());
        hear(&nothing_left("a", KIND));
        assert!(!is_to_ask());
        for (name, kind) in [("a", KIND), ("b", KIND + 1)] {
            hear(&jobs("a", 1));
            hear(&jobs("b", 1));
            hear(&nothing_left(name, kind));
            assert!(is_to_ask(), "another job came, or the sender knows other types: {name} {kind}");
        }
        hear(&nothing_left("b", KIND));
        assert!(!is_to_ask());
        hear(&JobWake::Any);
        assert!(is_to_ask());

        hear(&jobs("b", 1));
        assert_eq!(wakes.begin().as_deref(), Some("b"));
        assert!(!is_to_ask() && wakes.is_open("b"));
        hear(&nothing_left("b", KIND));
        assert!(!wakes.is_open("b") && wakes.begin().is_none(), "it is said already");
    }

    #[test]
    fn workers_are_of_one_kind_that_may_take_the_same_jobs() {
        let types = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let acme: Vec<TenantId> = vec!["acme".parse().expect("tenant")];
        assert_eq!(kind_of(&types(&["a", "b"]), None), kind_of(&types(&["b", "a"]), None));
        assert_ne!(kind_of(&types(&["a"]), None), kind_of(&types(&["b"]), None));
        assert_ne!(kind_of(&types(&["a"]), None), kind_of(&types(&["a"]), Some(&acme)));
        assert_ne!(kind_of(&types(&["a"]), None), kind_of(&types(&["a"]), Some(&[])));
    }
}
