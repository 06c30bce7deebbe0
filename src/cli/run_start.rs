//! How a `wheelhouse run` gets its job, and whether the program that started it is still there.

use std::pin::pin;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rustix::process::{Pid, getppid};
use tokio::signal::unix::SignalKind;

use super::run_output::say;
use crate::broker::Broker;
use crate::domain::{JobStatus, WorkerId};
use crate::store::{AttachedStart, ClaimedJob, NewJob, Run, Store};
use crate::worker::process::group_of;
use crate::worker::signals::is_ignored;

/// As EX_TEMPFAIL of sysexits.h: another program has the job just now.
const ELSEWHERE: u8 = 75;
/// Between two looks at a job that is paused, and at the heartbeat of its host.
const POLL_INTERVAL: Duration = Duration::from_millis(250);
/// How long the heartbeat of a host that has died still shows, and a moment more.
const HEARTBEAT_END: Duration = Duration::from_secs(6);
/// A host counts as gone when it had no heartbeat for so long.
const SILENCE: Duration = Duration::from_millis(1_500);
/// Between two looks at the parent process.
const PARENT_INTERVAL: Duration = Duration::from_millis(200);
/// What starts programs and may well end before them.
const SHELLS: [&str; 9] = ["sh", "bash", "dash", "zsh", "ksh", "fish", "ash", "busybox", "tcsh"];

/// How the start went.
pub(super) enum Started {
    /// The job is this program's.
    Hosted(Box<ClaimedJob>),
    /// Nothing is run; this program ends with this code.
    Not(ExitCode),
}

/// Makes the job or takes it over. `stop` ends the wait for a paused job or for a host, and gives the exit code.
pub(super) async fn start(
    store: &Store,
    broker: &Broker,
    job: &NewJob,
    stop: impl Future<Output = u8>,
) -> anyhow::Result<Started> {
    let (id, host) = (&job.id, WorkerId::generate());
    let mut stop = pin!(stop);
    let mut dead: Option<Run> = None;
    let mut is_told = false;
    loop {
        match store.start_attached_job(job, &host, dead.as_ref()).await? {
            AttachedStart::Hosted(hosted) => return Ok(Started::Hosted(hosted)),
            AttachedStart::Ended(status) => {
                say(format_args!("there is a job {id} already, and it is {}: it is not run again", status.as_str()));
                let code = if status == JobStatus::Cancelled { ExitCode::from(143) } else { ExitCode::FAILURE };
                return Ok(Started::Not(code));
            }
            AttachedStart::Elsewhere(run) => tokio::select! {
                is_gone = is_gone(broker, &run) => {
                    if !is_gone? {
                        say(format_args!("job {id} runs elsewhere (worker {}): it is not run a second time", run.host));
                        return Ok(Started::Not(ExitCode::from(ELSEWHERE)));
                    }
                    dead = Some(run);
                }
                code = &mut stop => return Ok(Started::Not(ExitCode::from(code))),
            },
            AttachedStart::Paused => {
                if !std::mem::replace(&mut is_told, true) {
                    say(format_args!("job {id} is paused: it begins when it is resumed"));
                }
                tokio::select! {
                    () = tokio::time::sleep(POLL_INTERVAL) => {}
                    code = &mut stop => return Ok(Started::Not(ExitCode::from(code))),
                }
            }
        }
    }
}

/// Whether the host of a run has no heartbeat. One that died a moment ago still has one.
async fn is_gone(broker: &Broker, run: &Run) -> anyhow::Result<bool> {
    let begun = Instant::now();
    let mut silent_since: Option<Instant> = None;
    loop {
        if broker.live_workers(&run.job.tenant).await?.contains(&run.host) {
            silent_since = None;
            if begun.elapsed() > HEARTBEAT_END {
                return Ok(false);
            }
        } else if silent_since.get_or_insert_with(Instant::now).elapsed() >= SILENCE {
            return Ok(true);
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// The program that started this one, where it is to be followed: the task of a queue, a script. Its end then is that of
/// the work. A shell is not followed, nor anybody by a process that has a group of its own or ignores SIGHUP: those are
/// meant to outlive whoever started them.
pub(super) struct ParentWatch(Option<Pid>);

impl ParentWatch {
    pub(super) fn new() -> Self {
        let parent = getppid().filter(|parent| parent.as_raw_pid() > 1);
        Self(parent.filter(|parent| {
            let own = i32::try_from(std::process::id()).ok().and_then(group_of);
            let shares_group = own.is_some() && own == group_of(parent.as_raw_pid());
            shares_group && !is_ignored(SignalKind::hangup()) && !is_shell(*parent)
        }))
    }

    /// Returns once, when that program has ended.
    pub(super) async fn gone(&mut self) {
        let Some(parent) = self.0 else { return std::future::pending().await };
        while getppid() == Some(parent) {
            tokio::time::sleep(PARENT_INTERVAL).await;
        }
        self.0 = None;
    }
}

fn is_shell(process: Pid) -> bool {
    let name = std::fs::read_to_string(format!("/proc/{}/comm", process.as_raw_pid())).unwrap_or_default();
    SHELLS.contains(&name.trim().trim_start_matches('-'))
}
