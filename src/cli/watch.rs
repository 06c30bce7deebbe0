//! `wheelhouse watch-child`, hidden: runs a program, passes SIGTERM on, and ends it when standard input closes:
//! that is, when whoever started it is gone, however it went. So nothing outlives `wheelhouse dev`. Nor does the program
//! outlive this process (on Linux): killed, it could not pass anything on any more.

use std::os::unix::process::CommandExt;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use rustix::process::{Pid, Signal, getpid, kill_process};
use tokio::io::AsyncReadExt;
use tokio::signal::unix::SignalKind;

use crate::worker::signals::Signals;

/// What to run.
#[derive(Debug, Args)]
pub(super) struct WatchArgs {
    /// Turn into it, to end with this process, the parent.
    #[arg(long, value_name = "PID")]
    child_of: Option<i32>,
    #[arg(required = true, trailing_var_arg = true)]
    command: Vec<String>,
}

/// Time to end after SIGTERM before SIGKILL.
const GRACE_PERIOD: Duration = Duration::from_secs(20);

pub(super) async fn watch(args: WatchArgs) -> anyhow::Result<ExitCode> {
    if let Some(parent) = args.child_of {
        return replace_process(&args.command, parent);
    }
    let mut signals = Signals::of(&[SignalKind::terminate(), SignalKind::interrupt()])?;
    let mut child = tokio::process::Command::new(std::env::current_exe()?)
        .args(["watch-child", "--child-of", &getpid().as_raw_nonzero().to_string(), "--"])
        .args(args.command)
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let mut input = tokio::io::stdin();
    let mut byte = [0_u8; 1];
    tokio::select! {
        ended = child.wait() => return Ok(code_of(ended?)),
        _ = input.read(&mut byte) => {}
        _ = signals.next() => {}
    }
    if let Some(pid) = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)) {
        // Not reaped yet, so the id is still this child's.
        let _ = kill_process(pid, Signal::TERM);
    }
    if let Ok(ended) = tokio::time::timeout(GRACE_PERIOD, child.wait()).await {
        return Ok(code_of(ended?));
    }
    child.kill().await?;
    Ok(ExitCode::FAILURE)
}

/// Asks the system for SIGTERM at the parent's end, and becomes the program: that only the process itself can ask for.
fn replace_process(command: &[String], parent: i32) -> anyhow::Result<ExitCode> {
    let (program, rest) = command.split_first().ok_or_else(|| super::usage::usage("nothing to run"))?;
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(Signal::TERM))?;
    // It may have ended before that.
    if rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get()) != Some(parent) {
        return Ok(ExitCode::FAILURE);
    }
    let error = std::process::Command::new(program).args(rest).exec();
    Err(anyhow::anyhow!("cannot start {program}: {error}"))
}

fn code_of(ended: std::process::ExitStatus) -> ExitCode {
    ended.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from)
}
