//! What a run prints, on its way into SQL: bounded, so that a program that prints fast neither waits nor fills the memory.
//!
//! Lines wait here until they are written, a few times a second. Of more than [`MAX_WAITING`] the oldest are left out, and a
//! line says how many. What is drawn over a line (a carriage return: tqdm, rsync, curl) takes its place, so that a bar is one
//! line, which is written as it stands while it grows.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::domain::{MAX_OUTPUT_LINE, MAX_OUTPUT_LINES, OutputStream};
use crate::store::NewOutputLine;
use crate::worker::process::output::Tap;
use crate::worker::process::progress::without_colours;

/// Lines that wait: no more than are kept of a job.
const MAX_WAITING: usize = MAX_OUTPUT_LINES;

/// The lines of one run that are still to be written.
#[derive(Default)]
pub(crate) struct RunOutput {
    inner: Mutex<Waiting>,
    pub(crate) added: Notify,
}

#[derive(Default)]
struct Waiting {
    lines: VecDeque<NewOutputLine>,
    left_out: u64,
    /// The newest state of a line whose end has not come, by stream.
    open: [Option<NewOutputLine>; 2],
    /// It has changed since it was taken.
    open_changed: bool,
}

/// How a line ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LineEnd {
    /// For good.
    Newline,
    /// What comes next is drawn over it.
    Return,
    /// It has not ended yet.
    None,
}

impl RunOutput {
    /// A line of a program, as it stands; `more` bytes of it are not here.
    fn printed(&self, stream: OutputStream, bytes: &[u8], more: usize, end: LineEnd) {
        let line = new_line(stream, readable(bytes, more), end != LineEnd::Newline);
        let at = usize::from(stream == OutputStream::Stderr);
        let waiting = &mut *self.inner.lock();
        if end == LineEnd::Newline {
            // `\r\n`, and the end of a bar: the last state is the line.
            let last = waiting.open[at].take().filter(|_| line.text.is_empty());
            waiting.open_changed |= last.is_some();
            waiting.push(NewOutputLine { open: false, ..last.unwrap_or(line) });
        } else if !line.text.is_empty() {
            waiting.open[at] = Some(line);
            waiting.open_changed = true;
        }
        self.added.notify_one();
    }

    /// Lines that somebody says.
    pub(crate) fn said(&self, stream: OutputStream, text: &str) {
        let waiting = &mut *self.inner.lock();
        for line in text.split('\n') {
            waiting.push(new_line(stream, shorten(line.trim_end_matches('\r'), 0), false));
        }
        self.added.notify_one();
    }

    /// Whether there is something to write.
    pub(crate) fn is_waiting(&self) -> bool {
        let waiting = self.inner.lock();
        !waiting.lines.is_empty() || waiting.open_changed || waiting.left_out > 0
    }

    /// Everything that waits; `last`: nothing more comes, so that what has begun has ended. Lines that cannot be written
    /// are given back with [`Self::give_back`].
    pub(crate) fn take(&self, last: bool) -> Vec<NewOutputLine> {
        let waiting = &mut *self.inner.lock();
        let mut lines: Vec<NewOutputLine> = Vec::with_capacity(waiting.lines.len() + 2);
        if waiting.left_out > 0 {
            let text = format!("… {} lines left out", waiting.left_out);
            lines.push(new_line(OutputStream::Note, text, false));
            waiting.left_out = 0;
        }
        lines.extend(waiting.lines.drain(..));
        if last {
            lines.extend(
                waiting.open.iter_mut().filter_map(Option::take).map(|line| NewOutputLine { open: false, ..line }),
            );
        } else if waiting.open_changed || !lines.is_empty() {
            // It comes last, and one of them alone: in SQL the last line is the one that may go on.
            lines.extend(waiting.open.iter().flatten().max_by_key(|line| line.at).cloned());
        }
        waiting.open_changed = false;
        lines
    }

    /// Lines that could not be written wait again, in front of those that came meanwhile.
    pub(crate) fn give_back(&self, lines: Vec<NewOutputLine>) {
        let waiting = &mut *self.inner.lock();
        for line in lines.into_iter().rev() {
            if line.open {
                waiting.open_changed = true;
            } else if waiting.lines.len() < MAX_WAITING {
                waiting.lines.push_front(line);
            } else {
                waiting.left_out += 1;
            }
        }
    }
}

impl Waiting {
    fn push(&mut self, line: NewOutputLine) {
        if self.lines.len() >= MAX_WAITING {
            self.lines.pop_front();
            self.left_out += 1;
        }
        self.lines.push_back(line);
    }
}

fn new_line(stream: OutputStream, text: String, open: bool) -> NewOutputLine {
    NewOutputLine { at: jiff::Timestamp::now().as_millisecond(), stream, text, open }
}

/// What can be read of a line: without colours, with a mark for what is no UTF-8.
fn readable(bytes: &[u8], more: usize) -> String {
    shorten(&String::from_utf8_lossy(&without_colours(bytes)), more)
}

/// Without NUL, which PostgreSQL cannot keep, and not too long.
fn shorten(text: &str, more: usize) -> String {
    let kept = |c| if c == '\0' { char::REPLACEMENT_CHARACTER } else { c };
    let mut characters = text.chars();
    let mut short: String = characters.by_ref().take(MAX_OUTPUT_LINE).map(kept).collect();
    let more = characters.count() + more;
    if more > 0 {
        short.push_str(&format!(" … [{more} characters left out]"));
    }
    short
}

/// Longest beginning of a line that is held, in bytes.
const MAX_HELD: usize = 4 * MAX_OUTPUT_LINE;

/// Cuts one stream of a program into lines.
pub(crate) struct LineKeeper {
    output: Arc<RunOutput>,
    stream: OutputStream,
    partial: Vec<u8>,
    /// Bytes of the line beyond those.
    more: usize,
}

impl LineKeeper {
    pub(crate) fn new(output: Arc<RunOutput>, stream: OutputStream) -> Self {
        Self { output, stream, partial: Vec::new(), more: 0 }
    }

    fn hand_over(&self, end: LineEnd) {
        self.output.printed(self.stream, &self.partial, self.more, end);
    }
}

impl Tap for LineKeeper {
    fn feed(&mut self, bytes: &[u8]) {
        for part in bytes.split_inclusive(|byte| matches!(byte, b'\n' | b'\r')) {
            let (text, end) = match part.split_last() {
                Some((b'\n', text)) => (text, LineEnd::Newline),
                Some((b'\r', text)) => (text, LineEnd::Return),
                _ => (part, LineEnd::None),
            };
            let room = text.len().min(MAX_HELD - self.partial.len());
            self.partial.extend_from_slice(&text[..room]);
            self.more += text.len() - room;
            if end != LineEnd::None {
                self.hand_over(end);
                self.partial.clear();
                self.more = 0;
            }
        }
    }

    fn idle(&mut self) {
        if !self.partial.is_empty() {
            self.hand_over(LineEnd::None);
        }
    }

    fn end(&mut self) {
        if !self.partial.is_empty() {
            self.hand_over(LineEnd::Newline);
            self.partial.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(lines: &[NewOutputLine]) -> Vec<(&str, bool)> {
        lines.iter().map(|line| (line.text.as_str(), line.open)).collect()
    }

    fn keepers() -> (Arc<RunOutput>, LineKeeper, LineKeeper) {
        let output: Arc<RunOutput> = Arc::default();
        let keeper = |stream| LineKeeper::new(output.clone(), stream);
        (output.clone(), keeper(OutputStream::Stdout), keeper(OutputStream::Stderr))
    }

    #[test]
    fn a_bar_is_one_line_in_its_last_state() {
        let (output, mut out, _) = keepers();
        out.feed(b"begin\n");
        for percent in 0..100 {
            out.feed(format!("\r{percent}%").as_bytes());
        }
        out.idle();
        assert_eq!(texts(&output.take(false)), [("begin", false), ("99%", true)]);
        assert!(!output.is_waiting());
        out.feed(b"\r100%\r\nend");
        assert_eq!(texts(&output.take(false)), [("100%", false)]);
        out.end();
        assert_eq!(texts(&output.take(true)), [("end", false)]);
        // Windows' line ends are no bars, wherever the bytes are cut; and a line without words is one.
        for piece in ["one\r", "\ntwo\r\n", "\n", "three"] {
            out.feed(piece.as_bytes());
        }
        out.idle();
        assert_eq!(texts(&output.take(false)), [("one", false), ("two", false), ("", false), ("three", true)]);
        assert_eq!(texts(&output.take(true)), [("three", false)]);
    }

    #[test]
    fn a_bar_beside_other_lines_stays_one_line() {
        let (output, mut out, mut err) = keepers();
        let mut kept: Vec<NewOutputLine> = Vec::new();
        for n in 0..50 {
            err.feed(format!("\rstep {n}").as_bytes());
            err.idle();
            out.feed(format!("line {n}\n").as_bytes());
            // As the store does it: what was open is replaced.
            kept.retain(|line| !line.open);
            kept.extend(output.take(false));
        }
        assert_eq!(kept.iter().filter(|line| line.stream == OutputStream::Stderr).count(), 1);
        assert_eq!(kept.last().map(|line| line.text.as_str()), Some("step 49"));
    }

    #[test]
    fn no_more_than_is_kept_waits_and_what_is_left_out_is_counted() {
        let (output, _, mut err) = keepers();
        for n in 0..MAX_WAITING + 12 {
            err.feed(format!("line {n}\n").as_bytes());
        }
        let lines = output.take(false);
        assert_eq!((lines.len(), lines[0].text.as_str()), (MAX_WAITING + 1, "… 12 lines left out"));
        assert_eq!(lines[1].text, "line 12");
        err.feed(b"newer\n");
        output.give_back(lines);
        let lines = output.take(false);
        assert_eq!(lines[0].text, "… 2 lines left out");
        assert_eq!(lines.last().map(|line| line.text.as_str()), Some("newer"));
    }

    #[test]
    fn what_cannot_be_kept_is_replaced_or_cut() {
        let (output, mut out, _) = keepers();
        out.feed(b"a\xff\0b \x1b[31mred\x1b[0m\n");
        out.feed("x".repeat(MAX_HELD + 7).as_bytes());
        out.feed(b"y\n");
        output.said(OutputStream::Log, "one\n\ntwo");
        let lines = output.take(false);
        assert_eq!(lines[0].text, "a\u{fffd}\u{fffd}b red");
        let left_out = MAX_HELD + 8 - MAX_OUTPUT_LINE;
        assert!(lines[1].text.ends_with(&format!("x … [{left_out} characters left out]")), "{}", lines[1].text);
        let said: Vec<_> = lines[2..].iter().map(|line| line.text.as_str()).collect();
        assert_eq!(said, ["one", "", "two"]);
    }
}
