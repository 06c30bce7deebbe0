//! `wheelhouse watch-child`, hidden: runs a program, passes SIGTERM on, and ends it when standard input closes:
//! that is, when whoever started it is gone, however it went. So nothing outlives `wheelhouse dev`.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::AsyncReadExt;
use tokio::signal::unix::{SignalKind, signal};

/// What to run.
#[derive(Debug, Args)]
pub(super) struct WatchArgs {
    #[arg(required = true, trailing_var_arg = true)]
    command: Vec<String>,
}

/// Time to end after SIGTERM before SIGKILL.
const GRACE: Duration = Duration::from_secs(20);

pub(super) async fn watch(args: WatchArgs) -> anyhow::Result<ExitCode> {
    let (program, rest) = args.command.split_first().ok_or_else(|| super::usage("nothing to run"))?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut child = tokio::process::Command::new(program)
        .args(rest)
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| anyhow::anyhow!("cannot start {program}: {error}"))?;
    let mut input = tokio::io::stdin();
    let mut byte = [0_u8; 1];
    tokio::select! {
        ended = child.wait() => return Ok(code_of(ended?)),
        _ = input.read(&mut byte) => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    if let Some(pid) = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)) {
        // Not reaped yet, so the id is still this child's.
        let _ = kill_process(pid, Signal::TERM);
    }
    if let Ok(ended) = tokio::time::timeout(GRACE, child.wait()).await {
        return Ok(code_of(ended?));
    }
    child.kill().await?;
    Ok(ExitCode::FAILURE)
}

fn code_of(ended: std::process::ExitStatus) -> ExitCode {
    ended.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from)
}
