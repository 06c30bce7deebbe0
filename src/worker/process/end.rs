//! How the keeper ends a program: SIGTERM, SIGKILL after the grace, and words about what cannot be ended.

use std::path::Path;
use std::time::{Duration, Instant};

use super::table::Entry;
use super::tree::Tree;
use super::wire::{End, Word};
use super::{cgroup, names};

/// What a program leaves running gets this long to end by itself: `foo > >(tee log)` in a shell does.
const LINGER: Duration = Duration::from_secs(1);
/// Between the first SIGKILLs, for processes that were being made while the last one was sent; then ever longer.
const KILL_AGAIN: Duration = Duration::from_millis(10);
/// While waiting for the end of processes whose parent is not the keeper.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// Processes that may not be killed get this long to end because the others have.
const REFUSED: Duration = Duration::from_secs(2);
/// Those that do not die of SIGKILL (they wait in the kernel, for a file server that does not answer) get this long.
const UNDYING: Duration = Duration::from_secs(60);

/// When the next step is to be taken.
pub(super) enum Next {
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
        tree: &mut Tree,
        cgroup: Option<&Path>,
        wanted: End,
        grace: Duration,
        words: &mut Vec<Word>,
    ) -> Next {
        let others = tree.others();
        let nothing_lives = tree.has_ended() && others.as_ref().is_ok_and(Vec::is_empty);
        if nothing_lives && tree.release() {
            return self.over(tree, Vec::new(), words);
        }
        let now = Instant::now();
        if wanted == End::Kill || self.asked_at.is_some_and(|at| now >= at + grace) {
            let refused = tree.kill();
            if let Some(cgroup) = cgroup {
                // This asks for no right to signal each of them.
                let _ = cgroup::kill(cgroup);
            }
            let since = *self.killed_at.get_or_insert(now);
            self.kills = self.kills.saturating_add(1);
            let again = KILL_AGAIN * self.kills.min(100);
            if let (Ok(others), Ok(refused)) = (others, refused) {
                let alive: Vec<Entry> = others.into_iter().chain(tree.leader()).collect();
                let only_refused = alive.iter().all(|entry| refused.iter().any(|other| other.pid == entry.pid));
                let most = if only_refused { REFUSED } else { UNDYING };
                if !alive.is_empty() && since.elapsed() >= most {
                    return self.over(tree, alive.iter().map(names::process).collect(), words);
                }
            }
            return Next::In(again);
        }
        let lingers = !self.by_order && wanted == End::No && now < self.began + LINGER;
        if self.asked_at.is_none() && !lingers {
            self.asked_at = Some(now);
            self.left_behind = if self.by_order { 0 } else { others.map_or(0, |others| others.len()) };
            // Whoever is not reached now is killed after the grace.
            let _ = tree.ask_to_end();
        }
        Next::In(LOOK_AGAIN)
    }

    fn over(&self, tree: &Tree, left_running: Vec<String>, words: &mut Vec<Word>) -> Next {
        let (code, signal) = tree.how_it_ended();
        words.push(Word::Ended { code, signal, by_order: self.by_order, left_behind: self.left_behind, left_running });
        Next::Gone
    }
}
