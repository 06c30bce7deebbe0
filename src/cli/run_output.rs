//! What `wheelhouse run` does with the program's output: passes it on, reads progress out of it, remembers its
//! last words on standard error, and draws a progress bar beneath it where a person watches.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, poll};
use tokio::io::AsyncRead;
use tokio::process::{ChildStderr, ChildStdout};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use crate::domain::{OutputStream, Progress, ResourceId, printable};
use crate::worker::LineKeeper;
use crate::worker::process::output::{Sink, pass_through_seen};
use crate::worker::process::progress::{ProgressReader, without_colours};

/// Longest last line of standard error in a job's error, in characters.
const MAX_LAST_ERROR: usize = 300;

pub(super) struct Output {
    bar: Option<ProgressBar>,
    progress: watch::Receiver<Progress>,
    last_error: Arc<Mutex<String>>,
    lost: LostOutput,
    passing: TaskTracker,
}

/// This program's own two streams: descriptors without a buffer, so that whatever has been written is there, and
/// whatever cannot be is known.
pub(super) struct OwnMessages {
    out: File,
    err: File,
}

impl OwnMessages {
    pub(super) fn open() -> io::Result<Self> {
        let (out, err) = (io::stdout().as_fd().try_clone_to_owned()?, io::stderr().as_fd().try_clone_to_owned()?);
        Ok(Self { out: out.into(), err: err.into() })
    }
}

/// What of the program's output could not be written, and why, in words; empty if nothing.
type LostOutput = Arc<Mutex<Vec<String>>>;

/// Says something to the person at the terminal. Where standard error cannot be written to, nobody is there to hear it,
/// and that is no reason to end: `eprintln!` would panic.
pub(super) fn say(message: std::fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "wheelhouse: {}", printable(&message.to_string()));
}

/// Which of ours the program's goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stream {
    Out,
    Err,
}

impl Output {
    /// Begins to pass it on. The two tasks end with the program's output, and are left alone after `finish`.
    /// `keeper` keeps the lines of a stream.
    pub(super) fn start(
        ours: OwnMessages,
        stdout: ChildStdout,
        stderr: ChildStderr,
        id: &ResourceId,
        keeper: impl Fn(OutputStream) -> LineKeeper,
    ) -> Self {
        let (tell, progress) = watch::channel(Progress::default());
        let reader = Arc::new(Mutex::new(ProgressReader::default()));
        let last_error = Arc::new(Mutex::new(String::new()));
        let output =
            Self { bar: bar(id), progress, last_error, lost: LostOutput::default(), passing: TaskTracker::new() };
        let (out, err) = (keeper(OutputStream::Stdout), keeper(OutputStream::Stderr));
        output.pass((Stream::Out, ours.out), stdout, reader.clone(), tell.clone(), out);
        output.pass((Stream::Err, ours.err), stderr, reader, tell, err);
        output.passing.close();
        output
    }

    fn pass(
        &self,
        (stream, to): (Stream, File),
        from: impl AsyncRead + Unpin + Send + 'static,
        reader: Arc<Mutex<ProgressReader>>,
        tell: watch::Sender<Progress>,
        keeper: LineKeeper,
    ) {
        let last_error = self.last_error.clone();
        let see = move |line: &[u8]| {
            let read = reader.lock().read(line);
            if let Some(progress) = read {
                tell.send_replace(progress);
            }
            if stream == Stream::Err && !line.trim_ascii().is_empty() {
                *last_error.lock() = plain(line);
            }
        };
        match self.bar.clone() {
            None => {
                let sink = FailureReportingSink {
                    sink: PlainSink(Arc::new(to)),
                    stream,
                    lost: self.lost.clone(),
                    gone: false,
                };
                drop(self.passing.spawn(pass_through_seen(from, sink, see, keeper)));
            }
            Some(bar) => {
                let sink = BarSink { to, bar, partial: Vec::new() };
                let sink = FailureReportingSink { sink, stream, lost: self.lost.clone(), gone: false };
                drop(self.passing.spawn(pass_through_seen(from, sink, see, keeper)));
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
        self.last_error.lock().clone()
    }

    /// What of the output could not be written, and why, in words; empty if nothing.
    pub(super) fn lost(&self) -> String {
        self.lost.lock().join("; ")
    }

    /// Waits for the rest of the output, but no longer than that: someone else may hold the pipe.
    pub(super) async fn finish(&self, within: Duration) {
        let _ = tokio::time::timeout(within, self.passing.wait()).await;
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// A line of the program without its colours and control characters, no longer than is kept.
fn plain(line: &[u8]) -> String {
    let line = without_colours(line);
    String::from_utf8_lossy(&line).trim().chars().filter(|c| !c.is_control()).take(MAX_LAST_ERROR).collect()
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

impl Stream {
    fn describe(self) -> &'static str {
        match self {
            Self::Out => "standard output",
            Self::Err => "standard error",
        }
    }

    fn is_terminal(self) -> bool {
        match self {
            Self::Out => io::stdout().is_terminal(),
            Self::Err => io::stderr().is_terminal(),
        }
    }
}

/// Writes to another sink, and says so when that fails: a full disk, a quota, a file that may not grow.
///
/// Only a reader that has gone ends the passing on, and so reaches the program as a broken pipe, which most programs
/// take for what it is. Any other failure would look the same to the program, and end it for a reason that is not true.
/// So it goes on; what it writes from then on is dropped, for a file with a hole in it is worse than one that ends too
/// early; and its job has failed, because what it was to deliver is not there.
struct FailureReportingSink<S> {
    sink: S,
    stream: Stream,
    lost: LostOutput,
    gone: bool,
}

impl<S: Sink> Sink for FailureReportingSink<S> {
    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.gone {
            return Ok(());
        }
        let error = match self.sink.write(bytes).await {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => error,
            done => return done,
        };
        self.gone = true;
        // A terminal that is gone (EIO): nobody is left who could read it, and nothing is lost that was to be kept.
        if !self.stream.is_terminal() {
            let message = format!("its {} could not be written: {error}", self.stream.describe());
            say(format_args!(
                "{message}. The program goes on, the rest of that output is dropped, and the job will have failed"
            ));
            self.lost.lock().push(message);
        }
        Ok(())
    }

    async fn end(&mut self) {
        if !self.gone {
            self.sink.end().await;
        }
    }
}

/// Bytes as they come.
struct PlainSink(Arc<File>);

impl Sink for PlainSink {
    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let (to, bytes) = (self.0.clone(), bytes.to_vec());
        tokio::task::spawn_blocking(move || write_all(&to, &bytes)).await.unwrap_or_else(|e| Err(io::Error::other(e)))
    }
}

fn write_all(mut to: &File, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match to.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Another program that shares this pipe or terminal has made it non-blocking for everybody.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let _ = poll(&mut [PollFd::new(&to, PollFlags::OUT)], None);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Whole lines, with the bar taken away while they are written: it would overwrite half a line. The line that has
/// begun stands beside the bar until its end comes.
struct BarSink {
    to: File,
    bar: ProgressBar,
    partial: Vec<u8>,
}

/// A line longer than this is written as it is.
const MAX_LINE_LENGTH: usize = 64 * 1024;

impl BarSink {
    fn show(&mut self, up_to: usize) -> io::Result<()> {
        let bytes = &self.partial[..up_to];
        self.bar.suspend(|| write_all(&self.to, bytes))?;
        self.partial.drain(..up_to);
        Ok(())
    }
}

impl Sink for BarSink {
    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.partial.extend_from_slice(bytes);
        if let Some(last) = self.partial.iter().rposition(|b| *b == b'\n') {
            self.show(last + 1)?;
        }
        // What stands before a carriage return is overwritten by what follows it, once something does.
        let returns = self.partial.iter().rev().skip(1).position(|b| *b == b'\r');
        if let Some(from_end) = returns {
            self.partial.drain(..self.partial.len() - from_end - 2);
        }
        if self.partial.len() > MAX_LINE_LENGTH {
            self.show(self.partial.len())?;
        } else if !self.partial.is_empty() {
            self.bar.set_message(printable(&plain(&self.partial)).into_owned());
        }
        Ok(())
    }

    async fn end(&mut self) {
        if !self.partial.is_empty() {
            let _ = self.show(self.partial.len());
        }
    }
}
