//! How the keeper ends a program: SIGTERM, SIGKILL after the grace, and words about what cannot be ended.

use std::time::{Duration, Instant};

use super::steps::{Keeper, Next};
use super::table::Entry;
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

/// A program on its way out.
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
}

impl Keeper {
    pub(super) fn step_to_end(&mut self, words: &mut Vec<Word>) -> Next {
        let others = self.tree.others();
        let Some(ending) = &mut self.ending else { return Next::In(LOOK_AGAIN) };
        let nothing_lives = self.tree.has_ended() && others.as_ref().is_ok_and(Vec::is_empty);
        if nothing_lives && self.tree.release() {
            return self.over(Vec::new(), words);
        }
        let now = Instant::now();
        if self.wanted.end == End::Kill || ending.asked_at.is_some_and(|at| now >= at + self.grace) {
            let refused = self.tree.kill();
            if let Some(cgroup) = &self.cgroup {
                // This asks for no right to signal each of them.
                let _ = cgroup::kill(cgroup);
            }
            let since = *ending.killed_at.get_or_insert(now);
            ending.kills = ending.kills.saturating_add(1);
            let again = KILL_AGAIN * ending.kills.min(100);
            if let (Ok(others), Ok(refused)) = (others, refused) {
                let alive: Vec<Entry> = others.into_iter().chain(self.tree.leader()).collect();
                let only_refused = alive.iter().all(|entry| refused.iter().any(|other| other.pid == entry.pid));
                let most = if only_refused { REFUSED } else { UNDYING };
                if !alive.is_empty() && since.elapsed() >= most {
                    return self.over(alive.iter().map(names::process).collect(), words);
                }
            }
            return Next::In(again);
        }
        let lingers = !ending.by_order && self.wanted.end == End::No && now < ending.began + LINGER;
        if ending.asked_at.is_none() && !lingers {
            ending.asked_at = Some(now);
            ending.left_behind = if ending.by_order { 0 } else { others.map_or(0, |others| others.len()) };
            // Whoever is not reached now is killed after the grace.
            let _ = self.tree.ask_to_end();
        }
        Next::In(LOOK_AGAIN)
    }

    fn over(&self, left_running: Vec<String>, words: &mut Vec<Word>) -> Next {
        let (code, signal) = self.tree.how_it_ended();
        let (by_order, left_behind) = self.ending.as_ref().map_or((false, 0), |e| (e.by_order, e.left_behind));
        words.push(Word::Ended { code, signal, by_order, left_behind, left_running });
        Next::Gone
    }
}
