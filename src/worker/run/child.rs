//! Programs that job code starts: they stop, go on and end together with the job.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::stream::BoxStream;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::process::{ChildStderr, ChildStdout};
use tokio_util::task::TaskTracker;

use super::control::{ControlOutcome, Controlled};
use super::run_output::{LineKeeper, RunOutput};
use crate::domain::OutputStream;
use crate::worker::process::output::{Sink, pass_through_seen};
use crate::worker::process::{Ended, Process, Program};
use crate::worker::sdk::error::JobError;

/// A program that belongs to one run of a job. Dropped, it is killed, with all that it started.
#[derive(Debug)]
pub struct ChildProgram {
    process: Arc<Process>,
    /// What it writes. Its last lines are kept in the job's output, whether they are read here or not; but a program whose
    /// pipe is full stands still, so read it, or drop it.
    pub stdout: Option<ChildStdout>,
    /// The same for its errors.
    pub stderr: Option<ChildStderr>,
}

impl ChildProgram {
    /// Returns when nothing of it is left. While the job is paused it stands still, and this waits.
    pub async fn ended(&self) -> Ended {
        self.process.ended().await
    }

    /// Its process id, which is its group's as well.
    pub fn pid(&self) -> i32 {
        self.process.pid()
    }

    /// Keeps what it writes in the output of the job, on its way to whoever reads it here.
    pub(crate) fn keep_output(&mut self, output: &Arc<RunOutput>, tracker: &TaskTracker) -> io::Result<()> {
        if let Some(stdout) = self.stdout.take() {
            let keeper = LineKeeper::new(output.clone(), OutputStream::Stdout);
            let read = ChildStdout::from_std(kept(stdout, keeper, tracker)?.into())?;
            self.stdout = Some(read);
        }
        if let Some(stderr) = self.stderr.take() {
            let keeper = LineKeeper::new(output.clone(), OutputStream::Stderr);
            let read = ChildStderr::from_std(kept(stderr, keeper, tracker)?.into())?;
            self.stderr = Some(read);
        }
        Ok(())
    }

    pub(crate) fn control_problems(&self) -> BoxStream<'static, Option<String>> {
        self.process.control_problem()
    }
}

/// A second pipe behind a program's: what comes out of it has been seen.
fn kept(
    from: impl AsyncRead + Unpin + Send + 'static,
    keeper: LineKeeper,
    tracker: &TaskTracker,
) -> io::Result<OwnedFd> {
    let (reader, writer) = io::pipe()?;
    let sink = ReaderSink(Some(pipe::Sender::from_owned_fd(writer.into())?));
    tracker.spawn(pass_through_seen(from, sink, |_: &[u8]| {}, keeper));
    Ok(reader.into())
}

/// Writes for a reader that may have gone: the rest is then only kept.
struct ReaderSink(Option<pipe::Sender>);

impl Sink for ReaderSink {
    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Some(writer) = &mut self.0
            && writer.write_all(bytes).await.is_err()
        {
            self.0 = None;
        }
        Ok(())
    }
}

impl Drop for ChildProgram {
    fn drop(&mut self) {
        // The list of children keeps it until nothing of it is left: the job ends after its programs.
        self.process.kill();
    }
}

/// The programs of one run. Those that have ended are forgotten when another is started.
#[derive(Default)]
pub(crate) struct ChildPrograms(Mutex<Vec<Arc<Process>>>);

impl ChildPrograms {
    pub(crate) async fn start(&self, program: Program) -> Result<ChildProgram, JobError> {
        let (process, stdout, stderr) = Process::start(program).await.map_err(JobError::failed)?;
        let process = Arc::new(process);
        let mut all = self.0.lock();
        all.retain(|child| child.ended().now_or_never().is_none());
        all.push(process.clone());
        Ok(ChildProgram { process, stdout: Some(stdout), stderr: Some(stderr) })
    }

    /// Whether none of them runs.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.lock().iter().all(|child| child.ended().now_or_never().is_some())
    }

    fn all(&self) -> Vec<Arc<Process>> {
        self.0.lock().clone()
    }

    /// `Err`: one of them cannot be paused. The others may stand: resume them all.
    pub(crate) async fn pause(&self) -> Result<(), String> {
        let all = self.all();
        let pauses = futures_util::future::join_all(all.iter().map(|child| child.pause())).await;
        pauses.into_iter().try_for_each(|outcome| match outcome {
            ControlOutcome::Refused(why) => Err(why),
            ControlOutcome::Done | ControlOutcome::EndedItself => Ok(()),
        })
    }

    /// Whether each can be ended, with all that belongs to it. Nothing is done to them.
    pub(crate) async fn check_can_end(&self) -> Result<(), String> {
        let all = self.all();
        futures_util::future::join_all(all.iter().map(|child| child.check_can_end())).await.into_iter().collect()
    }

    pub(crate) async fn resume(&self) {
        futures_util::future::join_all(self.all().iter().map(|child| child.resume())).await;
    }

    /// Asks each to end, and waits until nothing of them is left. `Err`: what could not be ended, in words.
    pub(crate) async fn end(&self) -> Result<(), String> {
        let all = self.all();
        let ends = all.iter().map(|child| async {
            child.ask_to_end();
            child.ended().await.cannot_end().map_or(Ok(()), Err)
        });
        futures_util::future::join_all(ends).await.into_iter().collect()
    }
}
