//! Programs that job code starts: they stop, go on and end together with the job.

use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt;
use tokio::process::{ChildStderr, ChildStdout};

use super::hosted::Controlled;
use super::process::{Ended, Process, Program};
use super::{Cancelled, JobError};

/// A program that belongs to one run of a job. Dropped, it is killed, with all that it started.
#[derive(Debug)]
pub struct ChildProgram {
    process: Arc<Process>,
    /// What it writes; a program whose pipe is full stands still, so read it, or drop it.
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
}

impl Drop for ChildProgram {
    fn drop(&mut self) {
        // The list of children keeps it until nothing of it is left: the job ends after its programs.
        self.process.kill();
    }
}

/// The programs of one run. Those that have ended are forgotten when another is started.
#[derive(Default)]
pub(crate) struct Children(Mutex<Vec<Arc<Process>>>);

impl Children {
    pub(crate) async fn start(&self, program: Program) -> Result<ChildProgram, JobError> {
        let (process, stdout, stderr) = Process::start(program).await.map_err(JobError::failed)?;
        let process = Arc::new(process);
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|child| child.ended().now_or_never().is_none());
        all.push(process.clone());
        Ok(ChildProgram { process, stdout: Some(stdout), stderr: Some(stderr) })
    }

    fn all(&self) -> Vec<Arc<Process>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) async fn pause(&self) {
        futures_util::future::join_all(self.all().iter().map(|child| child.pause())).await;
    }

    pub(crate) async fn resume(&self) {
        futures_util::future::join_all(self.all().iter().map(|child| child.resume())).await;
    }

    /// Asks each to end, and waits until nothing of them is left.
    pub(crate) async fn end(&self, why: &Cancelled) {
        let all = self.all();
        let ends = all.iter().map(|child| child.cancel(&why.by, why.reason.as_deref()));
        futures_util::future::join_all(ends).await;
    }
}
