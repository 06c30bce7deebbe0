//! `wheelhouse run`: any program as a job under live control.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use serde_json::json;
use tokio::signal::unix::SignalKind;

use super::access::duration;
use super::run_output::{Output, OwnMessages, say};
use super::run_start::{self, ParentWatch, Started};
use crate::broker::Broker;
use crate::broker::scripts::updates::Update;
use crate::config::Settings;
use crate::domain::{JobStatus, JsonText, Progress, ResourceId, TenantId, UserId};
use crate::protocol::server;
use crate::store::{ClaimedJob, NewJob, ReleasedRun, Run, RunEnd, Store};
use crate::telemetry;
use crate::worker::process::{Ended, ExitKind, Process, ProcessError, Program};
use crate::worker::signals::Signals;
use crate::worker::{AttachedEnd, AttachedHost};

/// What to run.
#[derive(Debug, Args)]
#[command(after_help = "\
The program runs in a session of its own, without a terminal. Pause stops all of it (SIGSTOP), resume lets it go on, \
cancel asks it to end (SIGTERM) and kills what is left after the grace. Pause and cancel fail if one of its processes \
may not be signalled (another user's). Its output passes through; lines like {\"progress\":42} \
(also items_total, items_processed, items_succeeded, items_failed, current_item) or 42% in it become the job's \
progress. A program that finds no terminal may hold its output back: python -u, stdbuf -oL.

It finds WHEELHOUSE_JOB_ID and WHEELHOUSE_TENANT_ID in its environment, and no setting of Wheelhouse's own. Standard \
input is passed on unless it is a terminal. What it leaves running in the background when it ends is ended as well.

Exit code: the program's; 128 and the signal's number if a signal ended it; 143 if the job was cancelled; 124 if \
its time was used up; 1 if its output could not be written (a full disk); 75 if another program has the job.

A job that is there already (--job-id) is taken over if nobody has it: one that waits, one that another system has put \
there, one that failed and may be tried again, one whose `wheelhouse run` is gone. A paused one begins when it is resumed.

Started by another program (a task of Celery or RQ, a script in Python), it ends its program when that one ends. It does \
not if a shell started it, if it has a process group of its own (setsid), or under nohup.

What was ignored when this started (SIGHUP under nohup, SIGINT for what a script puts into the background) stays \
ignored, here and in the program.

Examples:
  wheelhouse run --tenant acme -- rsync --info=progress2 -a photos/ backup/
  wheelhouse run --tenant acme --job-id nightly-7 --title 'Nightly report' -- ./report.sh --all")]
pub struct RunArgs {
    /// Whose job it is.
    #[arg(long)]
    tenant: TenantId,
    /// The job's id; made up where none is given.
    #[arg(long, value_name = "ID")]
    job_id: Option<ResourceId>,
    /// For people; the program's name where none is given.
    #[arg(long)]
    title: Option<String>,
    /// Who runs it, for the job's created_by.
    #[arg(long)]
    user: Option<UserId>,
    /// Between asking it to end and killing it: 90s, 15m; worker.grace_seconds where none is given.
    #[arg(long, value_parser = duration)]
    grace: Option<Duration>,
    /// Ends the program when it has been running for so long, and records it as failed; the time it stands paused
    /// does not count: 90s, 15m, 2h.
    #[arg(long, value_parser = duration)]
    timeout: Option<Duration>,
    /// How often the job may be run again after it failed, by a `wheelhouse run` with the same --job-id; it waits as
    /// pending for that.
    #[arg(long, value_name = "N", default_value_t = 0)]
    max_retries: u32,
    /// The program and its arguments, after `--`.
    #[arg(required = true, last = true, value_name = "CMD ARGS")]
    command: Vec<OsString>,
}

/// What is said when Redis cannot be reached any more.
const CONTACT_LOST: &str =
    "no contact with Redis; the program goes on, but cannot be paused or cancelled until it is back";
/// What is said when it can be reached again.
const CONTACT_BACK: &str = "contact with Redis is back";

/// The exit code of timeout(1).
const TIMED_OUT: u8 = 124;
/// Longest wait for the rest of the output once nothing of the program is left.
const OUTPUT_DRAIN_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest try to record the end of an interrupted job as usual; a paused one would wait for its resume.
const RECORD_INTERRUPTED: Duration = Duration::from_secs(3);

/// Runs it.
pub async fn run(args: RunArgs, mut settings: Settings) -> anyhow::Result<ExitCode> {
    if settings.log.level == "info" {
        settings.log.level = "warn".to_owned(); // Standard error is the program's.
    }
    telemetry::log::init(&settings.log);
    let store = Store::open_migrated(&settings.database).await?;
    let broker = Broker::connect(&settings.redis).await?;
    let mut signals = InterruptSignals::new()?;
    // Heard, so that it does not end this process: a file that may not grow (`ulimit -f`) is an error of the write.
    let _too_large = Signals::of(&[TOO_LARGE])?;
    let ours = OwnMessages::open()?;
    let job = new_job(&args);
    let program = program(args, &settings, &job)?;
    let name = program.name.to_string_lossy().into_owned();
    let stop = async { 128 + signals.next().await.number };
    let hosted = match run_start::start(&store, &broker, &job, stop).await? {
        Started::Hosted(hosted) => *hosted,
        Started::Not(code) => return Ok(code),
    };
    let mut parent = ParentWatch::new();

    let (process, stdout, stderr) = match Process::start(program).await {
        Ok(started) => started,
        Err(error) => {
            not_started(&store, &hosted, &error.to_string()).await;
            let missing = match &error {
                ProcessError::NotStarted { missing, .. } => *missing,
                ProcessError::Supervisor(_) => return Err(error.into()),
            };
            say(format_args!("{error}"));
            return Ok(ExitCode::from(if missing { 127 } else { 126 })); // As a shell says it.
        }
    };
    let process = Arc::new(process);
    let (id, run) = (job.id, hosted.run.clone());
    let host = AttachedHost::start(&settings, store.clone(), broker.clone(), hosted.clone(), process.clone()).await;
    let host = match host {
        Ok(host) => host,
        Err(error) => {
            process.kill();
            process.ended().await;
            not_started(&store, &hosted, &error.to_string()).await;
            return Err(error).context("cannot put the program under control, so it was ended");
        }
    };
    say(format_args!("{name} runs as job {id} of tenant {} (process {})", job.tenant, process.pid()));
    say(format_args!("from another shell: wheelhouse job pause {id} | resume {id} | cancel {id}"));

    let mut output = Output::start(ours, stdout, stderr, &id, |stream| host.output_keeper(stream));
    let (mut interrupted, mut lost, mut timed_out, mut contact) = (None, false, None, true);
    let ended = {
        let mut time_is_up = std::pin::pin!(host.timed_out());
        loop {
            tokio::select! {
                ended = process.ended() => break ended,
                () = host.lost(), if !lost => {
                    lost = true;
                    process.ask_to_end();
                }
                message = &mut time_is_up, if timed_out.is_none() => {
                    timed_out = Some(message);
                    process.ask_to_end();
                }
                has = host.contact(contact) => {
                    contact = has;
                    say(format_args!("{}", if has { CONTACT_BACK } else { CONTACT_LOST }));
                }
                progress = output.progress() => host.progress(progress),
                () = parent.gone() => {
                    if interrupted.is_none() {
                        interrupted = Some(Interrupt { name: "the end of the program that started it", number: 15 });
                    }
                    process.ask_to_end();
                }
                by = signals.next() => {
                    if interrupted.is_none() {
                        interrupted = Some(by);
                        process.ask_to_end();
                    } else {
                        process.kill();
                    }
                }
            }
        }
    };
    output.finish(OUTPUT_DRAIN_TIMEOUT).await;
    if ended.left_behind > 0 {
        let processes = if ended.left_behind == 1 { "process" } else { "processes" };
        say(format_args!("ended {} {processes} that {name} had left running", ended.left_behind));
    }

    if let Some(message) = ended.cannot_end() {
        say(format_args!("part of {name} {message}"));
    }
    let timed_out = timed_out.filter(|_| ended.by_order); // It may have ended by itself just then.
    let late = timed_out.is_some();
    let lost = output.lost();
    let is_short = !lost.is_empty() && ended.how.code() == 0;
    let end = end_of(&ended, job.max_retries > 0, interrupted, timed_out, output.last_error(), lost);
    let mut progress = output.latest();
    if matches!(end, RunEnd::Completed(_)) {
        progress.progress_percent = 100; // Most programs say nothing of the end but the end.
    }
    host.progress(progress);
    let message = match &end {
        RunEnd::Failed { error, .. } => error.clone(),
        RunEnd::Completed(_) | RunEnd::Cancelled { .. } => String::new(),
    };
    // An end that cannot be recorded holds nobody here against their will: a signal ends the trying, and the
    // job of a run that is gone is recorded as failed by the next worker that looks.
    let settled = tokio::select! {
        settled = host.finish(end) => Some(settled),
        () = tokio::time::sleep(RECORD_INTERRUPTED), if interrupted.is_some() => {
            record_interrupted(&store, &broker, &run, &message).await
        }
        _ = signals.next() => None,
    };
    Ok(match settled {
        Some(AttachedEnd::Recorded(_)) => {
            if !message.is_empty() {
                say(format_args!("job {id} failed: {message}"));
            }
            let code = if late { TIMED_OUT } else { ended.how.code().max(u8::from(is_short)) };
            ExitCode::from(interrupted.map_or(code, |by| 128 + by.number))
        }
        Some(AttachedEnd::Cancelled) => {
            say(format_args!("job {id} was cancelled"));
            ExitCode::from(143)
        }
        Some(AttachedEnd::Lost) => {
            say(format_args!("job {id} was ended or taken over by another system; its end here is not recorded"));
            ExitCode::FAILURE
        }
        None => {
            say(format_args!("the end of job {id} could not be recorded: {message}"));
            ExitCode::FAILURE
        }
    })
}

fn new_job(args: &RunArgs) -> NewJob {
    // The name alone: arguments may hold secrets, and every reader of the job sees its title and parameters.
    let name = args.command.first().map(Path::new).and_then(Path::file_name).unwrap_or_default().to_string_lossy();
    NewJob {
        title: Some(args.title.clone().unwrap_or_else(|| name.clone().into_owned())),
        parameters: JsonText::of(&json!({ "program": name })).unwrap_or_default(),
        max_retries: args.max_retries,
        timeout_seconds: args.timeout.map(|limit| u32::try_from(limit.as_secs()).unwrap_or(u32::MAX)),
        created_by: args.user.clone(),
        ..NewJob::new(args.tenant.clone(), args.job_id.clone().unwrap_or_else(ResourceId::generate), "process")
    }
}

fn program(args: RunArgs, settings: &Settings, job: &NewJob) -> anyhow::Result<Program> {
    let mut command = args.command.into_iter();
    let name = command.next().context("no program given")?;
    // A background process that reads from the terminal is stopped by the system: better it finds the end.
    let stdin: OwnedFd = if std::io::stdin().is_terminal() {
        std::fs::File::open("/dev/null")?.into()
    } else {
        std::io::stdin().as_fd().try_clone_to_owned()?
    };
    Ok(Program {
        name,
        arguments: command.collect(),
        set: vec![
            ("WHEELHOUSE_JOB_ID".into(), job.id.as_str().into()),
            ("WHEELHOUSE_TENANT_ID".into(), job.tenant.as_str().into()),
        ],
        // Passwords and keys are among them.
        unset: std::env::vars_os()
            .map(|(name, _)| name)
            .filter(|name| name.to_string_lossy().to_ascii_uppercase().starts_with("WHEELHOUSE__"))
            .collect(),
        stdin,
        grace: args.grace.unwrap_or(settings.worker.grace),
        supervisor: Program::own_binary()?,
    })
}

/// `lost`: what of its output could not be written, in words; empty if nothing.
fn end_of(
    ended: &Ended,
    may_try_again: bool,
    interrupted: Option<Interrupt>,
    timed_out: Option<String>,
    last_error: String,
    lost: String,
) -> RunEnd {
    let error = match (interrupted, timed_out, ended.how) {
        (Some(by), _, _) => format!("`wheelhouse run` was ended by {}", by.name),
        (None, Some(message), _) => message,
        // More than the last words of the program: it may have none, or none that say why.
        (None, None, how) if !lost.is_empty() => format!("{how}, but {lost}"),
        (None, None, ExitKind::Exited(0)) => {
            return RunEnd::Completed(JsonText::of(&json!({ "exit_code": 0 })).unwrap_or_default());
        }
        (None, None, how) if last_error.is_empty() => how.to_string(),
        (None, None, how) => format!("{how}: {last_error}"),
    };
    let error = match ended.cannot_end() {
        Some(message) => format!("{error}; part of the program {message}"),
        None => error,
    };
    RunEnd::Failed { error, permanent: !may_try_again || ended.cannot_end().is_some() }
}

/// The row must not stay `running` for a program that never did.
async fn not_started(store: &Store, hosted: &ClaimedJob, error: &str) {
    let end = RunEnd::Failed { error: error.to_owned(), permanent: true };
    if let Err(error) = store.finish(&hosted.run, &Progress::default(), &end).await {
        tracing::warn!(%error, "run.end_not_recorded"); // As with a crash: the next worker records it.
    }
}

/// The program is gone while its job is paused: nobody will resume it, so it is resumed and has failed, in one
/// transaction, as the jobs of a run that died.
async fn record_interrupted(store: &Store, broker: &Broker, run: &Run, error: &str) -> Option<AttachedEnd> {
    let job = store.release_dead_run(run, error, 1).await.ok()?;
    let Some(ReleasedRun { job, resumed }) = job else { return Some(AttachedEnd::Lost) };
    for status in resumed.then_some(JobStatus::Running).into_iter().chain([job.status]) {
        let message = server::job_status(&run.job, status, None);
        let update = Update { message, desired: Some(None) };
        if let Err(error) = broker.publish_update(&run.job, &update).await {
            tracing::warn!(%error, "run.update_not_published");
        }
    }
    if let Err(error) = broker.end_run(&run.job, run.number).await {
        tracing::warn!(%error, "run.end_run_failed");
    }
    Some(AttachedEnd::Recorded(Box::new(job)))
}

/// A signal that means: end the program, and then yourself.
#[derive(Debug, Clone, Copy)]
struct Interrupt {
    name: &'static str,
    number: u8,
}

/// The signals that mean this, and the one of Ctrl-Z. Those that were ignored at the start stay ignored: under `nohup`
/// the end of the terminal ends nothing, and Ctrl-C does not reach what a script has put into the background.
struct InterruptSignals(Signals);

/// The signal for whoever writes more to a file than it may hold.
const TOO_LARGE: SignalKind = SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw());
/// The signal of Ctrl-Z.
const SUSPEND: SignalKind = SignalKind::from_raw(rustix::process::Signal::TSTP.as_raw());

impl InterruptSignals {
    fn new() -> std::io::Result<Self> {
        let ends = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        Ok(Self(Signals::of(&[&ends[..], &[SUSPEND]].concat())?))
    }

    /// The next that is to end the program.
    async fn next(&mut self) -> Interrupt {
        loop {
            let kind = self.0.next().await;
            if kind == SUSPEND {
                // Stopped, this process would count as dead within seconds.
                say(format_args!("to pause the program, use `wheelhouse job pause`"));
                continue;
            }
            let names = [(SignalKind::interrupt(), "SIGINT"), (SignalKind::hangup(), "SIGHUP")];
            let name = names.into_iter().find(|(of, _)| *of == kind).map_or("SIGTERM", |(_, name)| name);
            return Interrupt { name, number: u8::try_from(kind.as_raw_value()).unwrap_or(15) };
        }
    }
}
