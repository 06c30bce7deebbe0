//! What `wheelhouse run` does with the program's output: passes it on, reads progress out of it, remembers its
//! last words on standard error, and draws a progress bar beneath it where a person watches.

use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::process::{ChildStderr, ChildStdout};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use crate::domain::{Progress, ResourceId};
use crate::worker::process::output::{Sink, pass_through};
use crate::worker::process::progress::{ProgressReader, without_colours};

/// Longest last line of standard error in a job's error, in characters.
const LAST_ERROR: usize = 300;

pub(super) struct Output {
    bar: Option<ProgressBar>,
    progress: watch::Receiver<Progress>,
    last_error: Arc<Mutex<String>>,
    passing: TaskTracker,
}

/// Which of ours the program's goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stream {
    Out,
    Err,
}

impl Output {
    /// Begins to pass it on. The two tasks end with the program's output, and are left alone after `finish`.
    pub(super) fn start(stdout: ChildStdout, stderr: ChildStderr, id: &ResourceId) -> Self {
        let (tell, progress) = watch::channel(Progress::default());
        let reader = Arc::new(Mutex::new(ProgressReader::default()));
        let last_error = Arc::new(Mutex::new(String::new()));
        let output = Self { bar: bar(id), progress, last_error, passing: TaskTracker::new() };
        output.pass(Stream::Out, stdout, reader.clone(), tell.clone());
        output.pass(Stream::Err, stderr, reader, tell);
        output.passing.close();
        output
    }

    fn pass(
        &self,
        stream: Stream,
        from: impl AsyncRead + Unpin + Send + 'static,
        reader: Arc<Mutex<ProgressReader>>,
        tell: watch::Sender<Progress>,
    ) {
        let last_error = self.last_error.clone();
        let see = move |line: &[u8]| {
            let read = reader.lock().unwrap_or_else(PoisonError::into_inner).read(line);
            if let Some(progress) = read {
                tell.send_replace(progress);
            }
            if stream == Stream::Err && !line.trim_ascii().is_empty() {
                *last_error.lock().unwrap_or_else(PoisonError::into_inner) = printable(line);
            }
        };
        match self.bar.clone() {
            None => drop(self.passing.spawn(pass_through(from, Plain(stream), see))),
            Some(bar) => {
                let above = AboveBar { stream, bar, partial: Vec::new() };
                drop(self.passing.spawn(pass_through(from, above, see)));
            }
        }
    }

    /// The next change of progress.
    pub(super) async fn progress(&mut self) -> Progress {
        if self.progress.changed().await.is_err() {
            std::future::pending::<()>().await; // Both streams have ended: there will be no more.
        }
        let progress = self.progress.borrow_and_update().clone();
        if let Some(bar) = &self.bar {
            bar.set_position(u64::from(progress.progress_percent));
            bar.set_message(progress.current_item.clone().unwrap_or_default());
        }
        progress
    }

    pub(super) fn latest(&self) -> Progress {
        self.progress.borrow().clone()
    }

    /// The last line on standard error.
    pub(super) fn last_error(&self) -> String {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for the rest of the output, but no longer than that: someone else may hold the pipe.
    pub(super) async fn finish(&self, within: Duration) {
        let _ = tokio::time::timeout(within, self.passing.wait()).await;
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Without colours and control characters, which could do things to the terminal of whoever reads the job.
fn printable(line: &[u8]) -> String {
    let line = without_colours(line);
    String::from_utf8_lossy(&line).trim().chars().filter(|c| !c.is_control()).take(LAST_ERROR).collect()
}

/// Only where both streams are a terminal: anything else wants the program's bytes and nothing else.
fn bar(id: &ResourceId) -> Option<ProgressBar> {
    if !(io::stdout().is_terminal() && io::stderr().is_terminal()) {
        return None;
    }
    let style = ProgressStyle::with_template("{prefix} [{bar:40}] {percent:>3}% {wide_msg}").ok()?;
    let bar = ProgressBar::with_draw_target(Some(100), ProgressDrawTarget::stderr());
    bar.set_style(style.progress_chars("=> "));
    bar.set_prefix(id.to_string());
    Some(bar)
}

/// Bytes as they come.
struct Plain(Stream);

impl Sink for Plain {
    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self.0 {
            Stream::Out => whole(tokio::io::stdout(), bytes).await,
            Stream::Err => whole(tokio::io::stderr(), bytes).await,
        }
    }
}

async fn whole(mut to: impl AsyncWrite + Unpin, bytes: &[u8]) -> io::Result<()> {
    to.write_all(bytes).await?;
    to.flush().await
}

/// Whole lines, with the bar taken away while they are written: it would overwrite half a line.
struct AboveBar {
    stream: Stream,
    bar: ProgressBar,
    partial: Vec<u8>,
}

/// A line longer than this is written as it is.
const LONG_LINE: usize = 64 * 1024;

impl AboveBar {
    fn show(&mut self, up_to: usize) -> io::Result<()> {
        let bytes = &self.partial[..up_to];
        self.bar.suspend(|| match self.stream {
            Stream::Out => io::stdout().write_all(bytes).and_then(|()| io::stdout().flush()),
            Stream::Err => io::stderr().write_all(bytes),
        })?;
        self.partial.drain(..up_to);
        Ok(())
    }
}

impl Sink for AboveBar {
    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.partial.extend_from_slice(bytes);
        match self.partial.iter().rposition(|b| *b == b'\n') {
            Some(last) => self.show(last + 1),
            None if self.partial.len() > LONG_LINE => self.show(self.partial.len()),
            None => Ok(()),
        }
    }

    async fn end(&mut self) {
        if !self.partial.is_empty() {
            let _ = self.show(self.partial.len());
        }
    }
}
