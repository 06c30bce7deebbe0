//! How the supervisor ends a program: SIGTERM, SIGKILL after the grace, and words about what cannot be ended.

use std::path::Path;
use std::time::{Duration, Instant};

use super::proc_table::ProcessEntry;
use super::supervisor_protocol::{EndRequest, SupervisorEvent};
use super::tree::ProcessTree;
use super::{cgroup, names};

/// What a program leaves running gets this long to end by itself: `foo > >(tee log)` in a shell does.
const IDLE_TIMEOUT: Duration = Duration::from_secs(1);
/// Between the first SIGKILLs, for processes that were being made while the last one was sent; then ever longer.
const KILL_INTERVAL: Duration = Duration::from_millis(10);
/// While waiting for the end of processes whose parent is not the supervisor.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// Processes that may not be killed get this long to end because the others have.
const REFUSED_TIMEOUT: Duration = Duration::from_secs(2);
/// Those that do not die of SIGKILL (they wait in the kernel, for a file server that does not answer) get this long.
const UNKILLABLE_TIMEOUT: Duration = Duration::from_secs(60);

/// When the next step is to be taken.
pub(super) enum NextStep {
    In(Duration),
    Gone,
}

/// The end of a program.
pub(super) struct Ending {
    by_order: bool,
    began: Instant,
    left_behind: usize,
    asked_at: Option<Instant>,
    killed_at: Option<Instant>,
    kills: u32,
}

impl Ending {
    /// `by_order`: it ran until its end was asked for.
    pub(super) fn new(by_order: bool) -> Self {
        Self { by_order, began: Instant::now(), left_behind: 0, asked_at: None, killed_at: None, kills: 0 }
    }

    /// Takes the next step to the end of `tree`, whose control group is `cgroup`. `wanted` says whether it is to be killed
    /// at once, and `grace` how long it has after SIGTERM.
    pub(super) fn step(
        &mut self,
        tree: &mut ProcessTree,
        cgroup: Option<&Path>,
        wanted: EndRequest,
        grace: Duration,
        events: &mut Vec<SupervisorEvent>,
    ) -> NextStep {
        let others = tree.others();
        let nothing_lives = tree.has_ended() && others.as_ref().is_ok_and(Vec::is_empty);
        if nothing_lives && tree.release() {
            return self.over(tree, Vec::new(), events);
        }
        let now = Instant::now();
        if wanted == EndRequest::Kill || self.asked_at.is_some_and(|at| now >= at + grace) {
            let refused = tree.kill();
            if let Some(cgroup) = cgroup {
                // This asks for no right to signal each of them.
                let _ = cgroup::kill(cgroup);
            }
            let since = *self.killed_at.get_or_insert(now);
            self.kills = self.kills.saturating_add(1);
            let again = KILL_INTERVAL * self.kills.min(100);
            if let (Ok(others), Ok(refused)) = (others, refused) {
                let alive: Vec<ProcessEntry> = others.into_iter().chain(tree.leader()).collect();
                let only_refused = alive.iter().all(|entry| refused.iter().any(|other| other.pid == entry.pid));
                let most = if only_refused { REFUSED_TIMEOUT } else { UNKILLABLE_TIMEOUT };
                if !alive.is_empty() && since.elapsed() >= most {
                    return self.over(tree, alive.iter().map(names::process).collect(), events);
                }
            }
            return NextStep::In(again);
        }
        let lingers = !self.by_order && wanted == EndRequest::No && now < self.began + IDLE_TIMEOUT;
        if self.asked_at.is_none() && !lingers {
            self.asked_at = Some(now);
            self.left_behind = if self.by_order { 0 } else { others.map_or(0, |others| others.len()) };
            // Whoever is not reached now is killed after the grace.
            let _ = tree.ask_to_end();
        }
        NextStep::In(POLL_INTERVAL)
    }

    fn over(&self, tree: &ProcessTree, left_running: Vec<String>, events: &mut Vec<SupervisorEvent>) -> NextStep {
        let (code, signal) = tree.how_it_ended();
        events.push(SupervisorEvent::Ended {
            code,
            signal,
            by_order: self.by_order,
            left_behind: self.left_behind,
            left_running,
        });
        NextStep::Gone
    }
}
