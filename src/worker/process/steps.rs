//! What the keeper does with the program, step by step.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::end::{Ending, Next};
use super::names;
use super::table::Entry;
use super::tree::{Stop, Tree};
use super::wire::{End, Wanted, Word};

/// While paused: someone else may send SIGCONT to a grandchild, of which no news comes.
const WATCH_PAUSED: Duration = Duration::from_secs(1);
/// While running: someone else may stop a grandchild, of which no news comes either.
const WATCH_RUNNING: Duration = Duration::from_secs(2);
/// A process that is stopped for longer than this, and not by a pause, is talked about. Job control in a shell stops
/// and continues its children for moments.
const STOPPED_FOR: Duration = Duration::from_millis(400);
/// A process that may not be signalled may end by itself within a moment: `sudo` with a short command.
const PATIENCE: Duration = Duration::from_millis(500);
/// Between two looks at such a one.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// After so many vain looks the whole group is stopped at once, whatever the order.
const STOP_GROUP: u32 = 20;
/// How often a tree with parents in it must be seen running, one look after the other, before it is said to be.
const SEEN_RUNNING: u32 = 3;
/// Longest wait for a parent to notice what has become of its child: it may never look.
const NEWS: Duration = Duration::from_secs(1);
/// Longest time for a tree to come to run: what still stops itself then is talked about.
const SETTLE: Duration = Duration::from_secs(3);
/// For so long after that, a parent that stops itself because of the pause (it had no turn before) is continued.
const AFTER_RESUME: Duration = Duration::from_secs(2);
/// Between two looks during that time.
const LOOK_AFTER_RESUME: Duration = Duration::from_millis(250);

/// Where the program is between running and standing still.
enum Going {
    Running,
    Stopping {
        /// Nothing is stopped before all of it has been seen to obey.
        begun: bool,
    },
    Stopped,
    Continuing {
        /// How often in a row nothing was seen to stand.
        seen_running: u32,
        /// Why it could not be paused, if that is why it is continued.
        failed: Option<String>,
    },
}

/// Brings the program to what is wanted of it. Every step looks at what is there and does what is missing,
/// so it does not matter why it is called or how often.
pub(super) struct Keeper {
    tree: Tree,
    /// The folder of its control group, where one could be made.
    cgroup: Option<PathBuf>,
    grace: Duration,
    wanted: Wanted,
    ending: Option<Ending>,
    going: Going,
    /// The number of what is being done, and since when.
    acted: u64,
    acted_at: Instant,
    /// How often the program was looked at, and was not there yet.
    tries: u32,
    /// Since when something may not be signalled.
    refused_since: Option<Instant>,
    /// The last [`Wanted::probe`] that was answered.
    probed: u64,
    /// Since when it runs again, and which parents have been continued once more since then.
    resumed: Option<(Instant, Vec<i32>)>,
    stopped_since: Option<Instant>,
    /// What the host was told about stops by others.
    notice: Option<String>,
}

impl Keeper {
    pub(super) fn new(tree: Tree, cgroup: Option<PathBuf>, grace: Duration) -> Self {
        Self {
            tree,
            cgroup,
            grace,
            wanted: Wanted::default(),
            ending: None,
            going: Going::Running,
            acted: 0,
            acted_at: Instant::now(),
            tries: 0,
            refused_since: None,
            probed: 0,
            resumed: None,
            stopped_since: None,
            notice: None,
        }
    }

    /// One line from the host; `None` when it is gone.
    pub(super) fn hear(&mut self, order: Option<&str>) {
        match order.map(serde_json::from_str::<Wanted>) {
            Some(Ok(wanted)) => self.wanted = Wanted { end: wanted.end.max(self.wanted.end), ..wanted },
            // Gone, or no host of this version.
            Some(Err(_)) | None => self.end(End::Kill),
        }
    }

    pub(super) fn end(&mut self, how: End) {
        self.wanted.end = self.wanted.end.max(how);
    }

    pub(super) fn step(&mut self, words: &mut Vec<Word>) -> Next {
        self.tree.look_at_leader();
        if self.wanted.probe > self.probed
            && let Some(wait) = self.probe(words)
        {
            return wait;
        }
        if self.ending.is_none() && (self.tree.has_ended() || self.wanted.end != End::No) {
            self.ending = Some(Ending::new(!self.tree.has_ended()));
        }
        match &mut self.ending {
            Some(ending) => ending.step(&mut self.tree, self.cgroup.as_deref(), self.wanted.end, self.grace, words),
            None => self.step_to_wanted(words),
        }
    }

    /// Whether all of it can be ended. A cancel is refused as a whole when one process may not be signalled: half a
    /// program is worse than either.
    fn probe(&mut self, words: &mut Vec<Word>) -> Option<Next> {
        let hindered = match self.tree.refusing() {
            _ if self.tree.has_ended() || self.ending.is_some() => None,
            Ok(refusing) if refusing.is_empty() => None,
            Ok(refusing) => Some(cannot_be_signalled(&refusing)),
            Err(error) => Some(cannot_be_seen(&error)),
        };
        if hindered.is_some() && !self.out_of_patience() {
            return Some(Next::In(LOOK_AGAIN));
        }
        (self.probed, self.refused_since) = (self.wanted.probe, None);
        words.push(Word::Probed { number: self.probed, hindered });
        None
    }

    /// Whether something has been refused for longer than a moment.
    fn out_of_patience(&mut self) -> bool {
        self.refused_since.get_or_insert_with(Instant::now).elapsed() >= PATIENCE
    }

    fn step_to_wanted(&mut self, words: &mut Vec<Word>) -> Next {
        if self.acted != self.wanted.number {
            (self.acted, self.acted_at, self.tries) = (self.wanted.number, Instant::now(), 0);
            self.refused_since = None;
            if self.wanted.paused {
                self.going = Going::Stopping { begun: false };
            } else {
                self.set_going(None);
            }
        }
        match self.going {
            Going::Stopping { begun } => self.step_to_pause(begun, words),
            Going::Stopped => match self.tree.stop(self.acted_at) {
                Ok(Stop::NotYet) => self.soon(),
                _ => {
                    self.tries = 0;
                    Next::In(WATCH_PAUSED)
                }
            },
            Going::Continuing { .. } => self.step_to_running(words),
            Going::Running => self.watch_running(words),
        }
    }

    fn soon(&mut self) -> Next {
        self.tries = self.tries.saturating_add(1);
        Next::In(Duration::from_millis(u64::from(self.tries.min(20))))
    }

    fn step_to_pause(&mut self, begun: bool, words: &mut Vec<Word>) -> Next {
        let refusing = if begun { Ok(Vec::new()) } else { self.tree.refusing() };
        let look = match refusing {
            Ok(refusing) if refusing.is_empty() => {
                self.going = Going::Stopping { begun: true };
                self.tree.stop(self.acted_at)
            }
            Ok(refusing) => Ok(Stop::Refused(refusing)),
            Err(error) => Err(error),
        };
        let why = match look {
            Ok(Stop::Still) => {
                self.going = Going::Stopped;
                words.push(Word::Reached { number: self.acted });
                self.tell(None, words);
                return Next::In(WATCH_PAUSED);
            }
            Ok(Stop::NotYet) => {
                if self.tries % STOP_GROUP == STOP_GROUP - 1 {
                    self.tree.stop_group();
                }
                self.refused_since = None;
                return self.soon();
            }
            Ok(Stop::Refused(refusing)) => cannot_be_signalled(&refusing),
            Err(error) => cannot_be_seen(&error),
        };
        if !self.out_of_patience() {
            return Next::In(LOOK_AGAIN);
        }
        (self.acted_at, self.tries) = (Instant::now(), 0);
        self.set_going(Some(format!("Not paused: {why}. The program runs on")));
        Next::In(Duration::ZERO)
    }

    /// Continues everything; that all of it runs is seen later.
    fn set_going(&mut self, failed: Option<String>) {
        // If the table cannot be read now, the looks that follow continue what they find.
        let _ = self.tree.resume();
        self.going = Going::Continuing { seen_running: 0, failed };
    }

    fn step_to_running(&mut self, words: &mut Vec<Word>) -> Next {
        let Going::Continuing { seen_running, failed } = &mut self.going else { return Next::In(Duration::ZERO) };
        let since = self.acted_at.elapsed();
        let settled = match self.tree.look_at_running() {
            Ok(look) if !look.stopped.is_empty() => {
                self.tree.resume_these(&look.stopped);
                *seen_running = 0;
                false
            }
            Ok(look) if look.news_waits && since < NEWS => {
                *seen_running = 0;
                false
            }
            Ok(look) => {
                *seen_running += 1;
                look.parents.is_empty() || *seen_running >= SEEN_RUNNING
            }
            Err(_) => false,
        };
        if !settled && since < SETTLE {
            return self.soon();
        }
        let number = self.acted;
        words.push(match failed.take() {
            Some(error) => Word::NotPaused { number, error },
            None => Word::Reached { number },
        });
        self.going = Going::Running;
        self.resumed = Some((Instant::now(), Vec::new()));
        Next::In(LOOK_AFTER_RESUME)
    }

    fn watch_running(&mut self, words: &mut Vec<Word>) -> Next {
        let _ = self.tree.reap();
        let Ok(look) = self.tree.look_at_running() else { return Next::In(WATCH_RUNNING) };
        self.resumed.take_if(|(at, _)| at.elapsed() > AFTER_RESUME);
        let mut stopped = look.stopped;
        if let Some((_, continued)) = &mut self.resumed {
            let by_pause = |entry: &Entry| look.parents.contains(&entry.pid) && !continued.contains(&entry.pid);
            let (again, others): (Vec<Entry>, Vec<Entry>) = stopped.into_iter().partition(by_pause);
            self.tree.resume_these(&again);
            continued.extend(again.iter().map(|entry| entry.pid));
            stopped = others;
        }
        if stopped.is_empty() {
            self.stopped_since = None;
            self.tell(None, words);
            return Next::In(if self.resumed.is_some() { LOOK_AFTER_RESUME } else { WATCH_RUNNING });
        }
        if self.stopped_since.get_or_insert_with(Instant::now).elapsed() >= STOPPED_FOR {
            let all: Vec<String> = stopped.iter().map(names::process).collect();
            self.tell(
                Some(format!("Stopped by a signal from outside: {}. A resume continues it", names::list(&all))),
                words,
            );
        }
        Next::In(STOPPED_FOR)
    }

    fn tell(&mut self, notice: Option<String>, words: &mut Vec<Word>) {
        if self.notice != notice {
            self.notice.clone_from(&notice);
            words.push(Word::Notice { text: notice });
        }
    }
}

fn cannot_be_signalled(refusing: &[Entry]) -> String {
    let all: Vec<String> = refusing.iter().map(names::process).collect();
    format!("no signal may be sent to {}", names::list(&all))
}

fn cannot_be_seen(error: &std::io::Error) -> String {
    format!("which processes belong to the program cannot be read: {error}")
}
