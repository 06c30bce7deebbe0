//! What the supervisor does with the program, step by step.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::end::{Ending, NextStep};
use super::names;
use super::proc_table::ProcessEntry;
use super::supervisor_protocol::{EndRequest, SupervisorCommand, SupervisorEvent};
use super::tree::{ProcessTree, StopOutcome};

/// While paused: someone else may send SIGCONT to a grandchild, of which no news comes.
const CHECK_INTERVAL_PAUSED: Duration = Duration::from_secs(1);
/// While running: someone else may stop a grandchild, of which no news comes either.
const CHECK_INTERVAL_RUNNING: Duration = Duration::from_secs(2);
/// A process that is stopped for longer than this, and not by a pause, is talked about. Job control in a shell stops
/// and continues its children for moments.
const STOPPED_CONFIRM_TIME: Duration = Duration::from_millis(400);
/// A process that may not be signalled may end by itself within a moment: `sudo` with a short command.
const REFUSAL_TIMEOUT: Duration = Duration::from_millis(500);
/// Between two looks at such a one.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// After so many vain looks the whole group is stopped at once, whatever the order.
const ATTEMPTS_PER_GROUP_STOP: u32 = 20;
/// How often a tree with parents in it must be seen running, one look after the other, before it is said to be.
const MIN_SEEN_RUNNING: u32 = 3;
/// Longest wait for a parent to notice what has become of its child: it may never look.
const NOTICE_TIMEOUT: Duration = Duration::from_secs(1);
/// Longest time for a tree to come to run: what still stops itself then is talked about.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(3);
/// For so long after that, a parent that stops itself because of the pause (it had no turn before) is continued.
const RESUME_WINDOW: Duration = Duration::from_secs(2);
/// Between two looks during that time.
const CHECK_INTERVAL_AFTER_RESUME: Duration = Duration::from_millis(250);

/// Where the program is between running and standing still.
enum TreeState {
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
pub(super) struct Supervisor {
    tree: ProcessTree,
    /// The folder of its control group, where one could be made.
    cgroup: Option<PathBuf>,
    grace: Duration,
    wanted: SupervisorCommand,
    ending: Option<Ending>,
    tree_state: TreeState,
    /// The number of what is being done, and since when.
    acted: u64,
    acted_at: Instant,
    /// How often the program was looked at, and was not there yet.
    attempts: u32,
    /// Since when something may not be signalled.
    refused_since: Option<Instant>,
    /// The last [`SupervisorCommand::probe`] that was answered.
    probed: u64,
    /// Since when it runs again, and which parents have been continued once more since then.
    resumed: Option<(Instant, Vec<i32>)>,
    stopped_since: Option<Instant>,
    /// What the host was told about stops by others.
    notice: Option<String>,
}

impl Supervisor {
    pub(super) fn new(tree: ProcessTree, cgroup: Option<PathBuf>, grace: Duration) -> Self {
        Self {
            tree,
            cgroup,
            grace,
            wanted: SupervisorCommand::default(),
            ending: None,
            tree_state: TreeState::Running,
            acted: 0,
            acted_at: Instant::now(),
            attempts: 0,
            refused_since: None,
            probed: 0,
            resumed: None,
            stopped_since: None,
            notice: None,
        }
    }

    /// One line from the host; `None` when it is gone.
    pub(super) fn on_event(&mut self, order: Option<&str>) {
        match order.map(serde_json::from_str::<SupervisorCommand>) {
            Some(Ok(wanted)) => self.wanted = SupervisorCommand { end: wanted.end.max(self.wanted.end), ..wanted },
            // Gone, or no host of this version.
            Some(Err(_)) | None => self.end(EndRequest::Kill),
        }
    }

    pub(super) fn end(&mut self, how: EndRequest) {
        self.wanted.end = self.wanted.end.max(how);
    }

    pub(super) fn step(&mut self, events: &mut Vec<SupervisorEvent>) -> NextStep {
        self.tree.check_leader();
        if self.wanted.probe > self.probed
            && let Some(wait) = self.probe(events)
        {
            return wait;
        }
        if self.ending.is_none() && (self.tree.has_ended() || self.wanted.end != EndRequest::No) {
            self.ending = Some(Ending::new(!self.tree.has_ended()));
        }
        match &mut self.ending {
            Some(ending) => ending.step(&mut self.tree, self.cgroup.as_deref(), self.wanted.end, self.grace, events),
            None => self.step_to_wanted(events),
        }
    }

    /// Whether all of it can be ended. A cancel is refused as a whole when one process may not be signalled: half a
    /// program is worse than either.
    fn probe(&mut self, events: &mut Vec<SupervisorEvent>) -> Option<NextStep> {
        let hindered = match self.tree.unsignallable() {
            _ if self.tree.has_ended() || self.ending.is_some() => None,
            Ok(refusing) if refusing.is_empty() => None,
            Ok(refusing) => Some(cannot_be_signalled(&refusing)),
            Err(error) => Some(cannot_be_seen(&error)),
        };
        if hindered.is_some() && !self.refused_too_long() {
            return Some(NextStep::In(POLL_INTERVAL));
        }
        (self.probed, self.refused_since) = (self.wanted.probe, None);
        events.push(SupervisorEvent::Probed { number: self.probed, hindered });
        None
    }

    /// Whether something has been refused for longer than a moment.
    fn refused_too_long(&mut self) -> bool {
        self.refused_since.get_or_insert_with(Instant::now).elapsed() >= REFUSAL_TIMEOUT
    }

    fn step_to_wanted(&mut self, events: &mut Vec<SupervisorEvent>) -> NextStep {
        if self.acted != self.wanted.number {
            (self.acted, self.acted_at, self.attempts) = (self.wanted.number, Instant::now(), 0);
            self.refused_since = None;
            if self.wanted.paused {
                self.tree_state = TreeState::Stopping { begun: false };
            } else {
                self.continue_tree(None);
            }
        }
        match self.tree_state {
            TreeState::Stopping { begun } => self.step_to_pause(begun, events),
            TreeState::Stopped => match self.tree.stop(self.acted_at) {
                Ok(StopOutcome::NotYet) => self.recheck(),
                _ => {
                    self.attempts = 0;
                    NextStep::In(CHECK_INTERVAL_PAUSED)
                }
            },
            TreeState::Continuing { .. } => self.step_to_running(events),
            TreeState::Running => self.watch_running(events),
        }
    }

    fn recheck(&mut self) -> NextStep {
        self.attempts = self.attempts.saturating_add(1);
        NextStep::In(Duration::from_millis(u64::from(self.attempts.min(20))))
    }

    fn step_to_pause(&mut self, begun: bool, events: &mut Vec<SupervisorEvent>) -> NextStep {
        let refusing = if begun { Ok(Vec::new()) } else { self.tree.unsignallable() };
        let look = match refusing {
            Ok(refusing) if refusing.is_empty() => {
                self.tree_state = TreeState::Stopping { begun: true };
                self.tree.stop(self.acted_at)
            }
            Ok(refusing) => Ok(StopOutcome::Refused(refusing)),
            Err(error) => Err(error),
        };
        let why = match look {
            Ok(StopOutcome::Stopped) => {
                self.tree_state = TreeState::Stopped;
                events.push(SupervisorEvent::Reached { number: self.acted });
                self.notify(None, events);
                return NextStep::In(CHECK_INTERVAL_PAUSED);
            }
            Ok(StopOutcome::NotYet) => {
                if self.attempts % ATTEMPTS_PER_GROUP_STOP == ATTEMPTS_PER_GROUP_STOP - 1 {
                    self.tree.stop_group();
                }
                self.refused_since = None;
                return self.recheck();
            }
            Ok(StopOutcome::Refused(refusing)) => cannot_be_signalled(&refusing),
            Err(error) => cannot_be_seen(&error),
        };
        if !self.refused_too_long() {
            return NextStep::In(POLL_INTERVAL);
        }
        (self.acted_at, self.attempts) = (Instant::now(), 0);
        self.continue_tree(Some(format!("Not paused: {why}. The program runs on")));
        NextStep::In(Duration::ZERO)
    }

    /// Continues everything; that all of it runs is seen later.
    fn continue_tree(&mut self, failed: Option<String>) {
        // If the table cannot be read now, the looks that follow continue what they find.
        let _ = self.tree.resume();
        self.tree_state = TreeState::Continuing { seen_running: 0, failed };
    }

    fn step_to_running(&mut self, events: &mut Vec<SupervisorEvent>) -> NextStep {
        let TreeState::Continuing { seen_running, failed } = &mut self.tree_state else {
            return NextStep::In(Duration::ZERO);
        };
        let since = self.acted_at.elapsed();
        let settled = match self.tree.check_running() {
            Ok(look) if !look.stopped.is_empty() => {
                self.tree.resume_these(&look.stopped);
                *seen_running = 0;
                false
            }
            Ok(look) if look.news_waits && since < NOTICE_TIMEOUT => {
                *seen_running = 0;
                false
            }
            Ok(look) => {
                *seen_running += 1;
                look.parents.is_empty() || *seen_running >= MIN_SEEN_RUNNING
            }
            Err(_) => false,
        };
        if !settled && since < SETTLE_TIMEOUT {
            return self.recheck();
        }
        let number = self.acted;
        events.push(match failed.take() {
            Some(error) => SupervisorEvent::NotPaused { number, error },
            None => SupervisorEvent::Reached { number },
        });
        self.tree_state = TreeState::Running;
        self.resumed = Some((Instant::now(), Vec::new()));
        NextStep::In(CHECK_INTERVAL_AFTER_RESUME)
    }

    fn watch_running(&mut self, events: &mut Vec<SupervisorEvent>) -> NextStep {
        let _ = self.tree.reap();
        let Ok(look) = self.tree.check_running() else { return NextStep::In(CHECK_INTERVAL_RUNNING) };
        self.resumed.take_if(|(at, _)| at.elapsed() > RESUME_WINDOW);
        let mut stopped = look.stopped;
        if let Some((_, continued)) = &mut self.resumed {
            let by_pause = |entry: &ProcessEntry| look.parents.contains(&entry.pid) && !continued.contains(&entry.pid);
            let (again, others): (Vec<ProcessEntry>, Vec<ProcessEntry>) = stopped.into_iter().partition(by_pause);
            self.tree.resume_these(&again);
            continued.extend(again.iter().map(|entry| entry.pid));
            stopped = others;
        }
        if stopped.is_empty() {
            self.stopped_since = None;
            self.notify(None, events);
            return NextStep::In(if self.resumed.is_some() {
                CHECK_INTERVAL_AFTER_RESUME
            } else {
                CHECK_INTERVAL_RUNNING
            });
        }
        if self.stopped_since.get_or_insert_with(Instant::now).elapsed() >= STOPPED_CONFIRM_TIME {
            let all: Vec<String> = stopped.iter().map(names::process).collect();
            self.notify(
                Some(format!("Stopped by a signal from outside: {}. A resume continues it", names::list(&all))),
                events,
            );
        }
        NextStep::In(STOPPED_CONFIRM_TIME)
    }

    fn notify(&mut self, notice: Option<String>, events: &mut Vec<SupervisorEvent>) {
        if self.notice != notice {
            self.notice.clone_from(&notice);
            events.push(SupervisorEvent::Notice { text: notice });
        }
    }
}

fn cannot_be_signalled(refusing: &[ProcessEntry]) -> String {
    let all: Vec<String> = refusing.iter().map(names::process).collect();
    format!("no signal may be sent to {}", names::list(&all))
}

fn cannot_be_seen(error: &std::io::Error) -> String {
    format!("which processes belong to the program cannot be read: {error}")
}
