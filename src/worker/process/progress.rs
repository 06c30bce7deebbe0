//! Progress out of a program's own words: lines `{"progress":42}`, `42%`, `33,9 %`.

use std::borrow::Cow;

use serde::Deserialize;

use crate::domain::Progress;

/// Lines longer than this are passed on, but not read.
const MAX_LINE_LENGTH: usize = 4_096;
/// Longest `current_item`, in characters.
const MAX_ITEM_LENGTH: usize = 200;

/// Cuts a stream of bytes into lines, and keeps no more than one of bounded length.
#[derive(Debug, Default)]
pub struct LineSplitter {
    partial: Vec<u8>,
    too_long: bool,
    /// The line before ended in a carriage return alone: this one is drawn over it.
    overwrites: bool,
}

impl LineSplitter {
    /// Hands each line that ends in `bytes` to `see`. A carriage return ends one as well: progress bars use it.
    pub fn feed(&mut self, bytes: &[u8], mut see: impl FnMut(&[u8])) {
        for part in bytes.split_inclusive(|b| matches!(b, b'\n' | b'\r')) {
            let (text, end) = match part.split_last() {
                Some((end @ (b'\n' | b'\r'), text)) => (text, Some(*end)),
                _ => (part, None),
            };
            let ends = end.is_some();
            self.too_long |= self.partial.len() + text.len() > MAX_LINE_LENGTH;
            if self.too_long {
                self.partial.clear();
            } else if ends && self.partial.is_empty() {
                see(text); // The common case: nothing to copy.
            } else {
                self.partial.extend_from_slice(text);
                if ends {
                    see(&self.partial);
                }
            }
            if ends {
                self.partial.clear();
                (self.too_long, self.overwrites) = (false, end == Some(b'\r'));
            }
        }
    }

    /// The last line, as far as it has come: no line end has followed yet. Empty where it is too long to be kept.
    pub fn rest(&self) -> &[u8] {
        &self.partial
    }

    /// Whether that line begins with a carriage return: a progress bar, of which nothing more may come for long.
    pub fn overwrites(&self) -> bool {
        self.overwrites
    }
}

/// Reads progress line by line.
#[derive(Debug, Default)]
pub struct ProgressReader {
    latest: Progress,
    /// Once a program speaks JSON, a `%` in its other lines is just text.
    speaks_json: bool,
}

/// A line of JSON. Numbers may be written as `42` or `42.0`.
#[derive(Deserialize)]
struct ReportedProgress {
    progress: Option<f64>,
    items_total: Option<f64>,
    items_processed: Option<f64>,
    items_succeeded: Option<f64>,
    items_failed: Option<f64>,
    current_item: Option<String>,
}

impl ProgressReader {
    /// What the line says about progress, if it says something new.
    pub fn read(&mut self, line: &[u8]) -> Option<Progress> {
        let line = without_colours(line);
        let line = line.trim_ascii();
        let mut next = self.latest.clone();
        if line.first() == Some(&b'{') {
            let reported = serde_json::from_slice::<ReportedProgress>(line).ok()?;
            apply(&mut next, reported)?;
            self.speaks_json = true;
        } else if self.speaks_json {
            return None;
        } else {
            next.progress_percent = whole_percent(percent_in(line)?)?;
        }
        if next == self.latest {
            return None;
        }
        self.latest = next.clone();
        Some(next)
    }

    /// The newest.
    pub fn latest(&self) -> &Progress {
        &self.latest
    }
}

/// The line without what only a terminal understands (`ESC [ 32 m`): its numbers are none of the program's.
pub fn without_colours(line: &[u8]) -> Cow<'_, [u8]> {
    const ESCAPE: u8 = 0x1b;
    if !line.contains(&ESCAPE) {
        return Cow::Borrowed(line);
    }
    let mut plain = Vec::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.windows(2).position(|pair| pair == [ESCAPE, b'[']) {
        plain.extend_from_slice(&rest[..at]);
        let sequence = &rest[at + 2..];
        // Parameters, then one byte that ends it; anything else is no sequence, and left as it is.
        let end = sequence.iter().position(|b| !(0x20..=0x3f).contains(b)).unwrap_or(sequence.len());
        let ends = sequence.get(end).is_none_or(|b| (0x40..=0x7e).contains(b));
        rest = &sequence[(end + usize::from(ends)).min(sequence.len())..];
    }
    plain.extend_from_slice(rest);
    Cow::Owned(plain)
}

/// `None` when the line is JSON about something else.
fn apply(to: &mut Progress, reported: ReportedProgress) -> Option<()> {
    let count = |number: f64| (number.is_finite() && number >= 0.0).then_some(number as i64);
    let counts = [reported.items_total, reported.items_processed, reported.items_succeeded, reported.items_failed];
    let [total, processed, succeeded, failed] = counts.map(|number| number.and_then(count));
    to.items_total = total.or(to.items_total);
    to.items_processed = processed.unwrap_or(to.items_processed);
    to.items_succeeded = succeeded.unwrap_or(to.items_succeeded);
    to.items_failed = failed.unwrap_or(to.items_failed);
    match (reported.progress, total, processed) {
        (Some(percent), ..) => to.progress_percent = whole_percent(percent)?,
        // It counts: the percentage follows.
        (None, _, Some(processed)) => {
            if let Some(total) = to.items_total.filter(|total| *total > 0) {
                to.progress_percent = whole_percent(processed as f64 * 100.0 / total as f64)?;
            }
        }
        (None, Some(_), None) => {}
        (None, None, None) => return None,
    }
    if let Some(item) = reported.current_item {
        to.current_item = Some(item.chars().filter(|c| !c.is_control()).take(MAX_ITEM_LENGTH).collect());
    }
    Some(())
}

fn whole_percent(percent: f64) -> Option<u8> {
    percent.is_finite().then(|| percent.clamp(0.0, 100.0) as u8)
}

/// The last `42%`, `42.5%`, `42,5%` or `42 %` of a line; a number above 100 is no progress.
fn percent_in(line: &[u8]) -> Option<f64> {
    let mut end = line.len();
    while let Some(sign) = line[..end].iter().rposition(|b| *b == b'%') {
        if let Some(number) = number_before(&line[..sign], &line[sign + 1..]) {
            return Some(number);
        }
        end = sign;
    }
    None
}

/// What may stand between a number and its sign, once: a space or a tab, and in UTF-8 the spaces that do not break
/// (as French and German are set) and the thin one.
const SPACES: [&str; 5] = [" ", "\t", "\u{a0}", "\u{202f}", "\u{2009}"];
/// In UTF-8: some programs print a real minus.
const MINUS: &str = "\u{2212}";

/// The number, 0 to 100, that a percent sign belongs to. `after`: what follows the sign.
fn number_before(before: &[u8], after: &[u8]) -> Option<f64> {
    let close = SPACES.iter().find_map(|space| before.strip_suffix(space.as_bytes()));
    // In `7 %d` and `PID 7 %CPU` the sign belongs to the word behind it.
    if close.is_some() && after.first().is_some_and(u8::is_ascii_alphanumeric) {
        return None;
    }
    let (head, digits) = digits_at_end(close.unwrap_or(before));
    if digits.is_empty() {
        return None;
    }
    // A point or a comma is a decimal one where a digit stands before it. Otherwise it ends the words before
    // (`Loading...42%`, `done,42%`), but for a single point that begins the number: `.5%`.
    let (head, number) = match head.split_last() {
        Some((b'.' | b',', rest)) if rest.last().is_some_and(u8::is_ascii_digit) => {
            let (head, whole) = digits_at_end(rest);
            // `1.2.3%`, `1,234,567%`: nothing that can be a percentage.
            if matches!(head, [.., digit, b'.' | b','] if digit.is_ascii_digit()) {
                return None;
            }
            (head, [whole, b".", digits].concat())
        }
        Some((b'.', rest)) if rest.last().is_none_or(u8::is_ascii_whitespace) => (rest, [b"0.", digits].concat()),
        _ => (head, digits.to_vec()),
    };
    // Part of a word or a negative number: `x5%`, `-5%`.
    if head.last().is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'-') || head.ends_with(MINUS.as_bytes()) {
        return None;
    }
    let number: f64 = std::str::from_utf8(&number).ok()?.parse().ok()?;
    (0.0..=100.0).contains(&number).then_some(number)
}

/// What stands before the ASCII digits at the end, and these.
fn digits_at_end(text: &[u8]) -> (&[u8], &[u8]) {
    text.split_at(text.iter().rposition(|b| !b.is_ascii_digit()).map_or(0, |at| at + 1))
}

#[cfg(test)]
mod tests {
    use proptest::strategy::Strategy;

    use super::*;

    fn percent(line: &str) -> Option<u8> {
        ProgressReader::default().read(line.as_bytes()).map(|p| p.progress_percent)
    }

    #[test]
    fn a_percentage_is_found_wherever_it_stands_in_a_line() {
        for (line, expected) in [
            ("42%", Some(42)),
            ("  7% done", Some(7)),
            ("Downloading [####  ] 33.9% 1.2MB/s", Some(33)),
            ("10% then 20%", Some(20)),
            ("100%", Some(100)),
            ("250% of a thing", None),
            ("-5%", None),
            ("a5%", None),
            ("%", None),
            ("no number", None),
            ("1.2.3%", None),
            ("50% of 300%", Some(50)),
        ] {
            assert_eq!(percent(line), expected, "{line:?}");
        }
        assert_eq!(percent("\u{1b}[2K 12%"), Some(12));
        for line in
            ["\u{1b}[32m42%\u{1b}[0m", "\u{1b}[1;32m 42\u{1b}[0m%", "\u{1b}[1m{\"progress\":42}\u{1b}[0m", "42%\u{1b}["]
        {
            assert_eq!(percent(line), Some(42), "{line:?}");
        }
        assert_eq!(percent("\u{1b}[42m%\u{1b}[0m"), None, "a colour is no number");
        assert_eq!(ProgressReader::default().read(b"\xff\xfe 9%").map(|p| p.progress_percent), Some(9));
    }

    #[test]
    fn a_percentage_may_have_a_point_or_a_comma_and_a_space_before_its_sign() {
        for (line, expected) in [
            ("33.9%", Some(33.9)),
            ("33,9%", Some(33.9)),
            ("10,5%", Some(10.5)),
            ("0,5 %", Some(0.5)),
            ("100,0%", Some(100.0)),
            ("100,1%", None),
            ("42 %", Some(42.0)),
            ("42\t%", Some(42.0)),
            ("42\u{a0}% erledigt", Some(42.0)),
            ("33,9\u{202f}% effectu\u{e9}s", Some(33.9)),
            ("7\u{2009}%", Some(7.0)),
            ("42  %", None),
            ("42\n%", None),
            ("Loading...42%", Some(42.0)),
            ("done,42%", Some(42.0)),
            ("done.42%", Some(42.0)),
            ("10, 20%", Some(20.0)),
            ("(42%)", Some(42.0)),
            ("~42%", Some(42.0)),
            (".5%", Some(0.5)),
            ("is .5 %", Some(0.5)),
            ("..5%", Some(5.0)),
            ("5.%", None),
            ("1,2,3%", None),
            ("1.234,5%", None),
            ("1,234,567%", None),
            ("-33,9%", None),
            ("-33,9 %", None),
            ("\u{2212}5%", None),
            ("x5 %", None),
            ("7 %d", None),
            ("7 %CPU", None),
            ("%CPU 12 %MEM, 12 %", Some(12.0)),
            ("10% of 250,5%", Some(10.0)),
            ("00042%", Some(42.0)),
            (" %", None),
            (",%", None),
            ("%%%", None),
        ] {
            assert_eq!(percent_in(line.as_bytes()), expected, "{line:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn whatever_a_program_prints_is_no_progress_or_one_from_0_to_100(
            pieces in proptest::collection::vec(proptest::prop_oneof![
                proptest::collection::vec(proptest::prelude::any::<u8>(), 0..40),
                // Mostly what comes near a percentage.
                "[0-9.,%\\- \r\n\u{a0}\u{202f}x]{0,20}".prop_map(String::into_bytes),
                "\\{\"(progress|items_total|items_processed)\": ?-?[0-9]{1,20}(\\.[0-9]{1,4})?(e[0-9]{1,3})?\\}[\r\n]?".prop_map(String::into_bytes),
            ], 0..12)
        ) {
            let (mut lines, mut reader) = (LineSplitter::default(), ProgressReader::default());
            for piece in &pieces {
                let mut read = Vec::new();
                lines.feed(piece, |line| read.extend(reader.read(line)));
                read.extend(reader.read(lines.rest()));
                for progress in read {
                    proptest::prop_assert!(progress.progress_percent <= 100);
                    proptest::prop_assert!(progress.items_processed >= 0);
                }
                let number = percent_in(piece);
                proptest::prop_assert!(number.is_none_or(|number| (0.0..=100.0).contains(&number)));
            }
        }

        #[test]
        fn every_percentage_is_read_as_it_was_printed(tenths in 0_u32..=1_000, comma: bool, space: bool, word: bool) {
            let (point, space) = (if comma { ',' } else { '.' }, if space { " " } else { "" });
            let (before, after) = if word { ("at: ", " of it") } else { ("", "") };
            let line = format!("{before}{}{point}{}{space}%{after}", tenths / 10, tenths % 10);
            proptest::prop_assert_eq!(percent_in(line.as_bytes()), Some(f64::from(tenths) / 10.0));
        }
    }

    #[test]
    fn json_says_percent_counts_and_item() {
        let mut reader = ProgressReader::default();
        let line = br#"{"progress": 41.7, "items_total": 200, "items_processed": 83, "items_failed": 1, "current_item": "row 83", "other": [1]}"#;
        let read = reader.read(line).expect("progress");
        assert_eq!((read.progress_percent, read.items_total, read.items_processed), (41, Some(200), 83));
        assert_eq!((read.items_failed, read.current_item.as_deref()), (1, Some("row 83")));
        assert_eq!(reader.read(line), None, "nothing new");
        assert_eq!(reader.read(b"99% of the disk is full"), None, "it speaks JSON");
        let read = reader.read(br#"{"items_processed": 100}"#).expect("progress");
        assert_eq!((read.progress_percent, read.items_total), (50, Some(200)), "what is not said stays");
        assert_eq!(reader.latest(), &read);
    }

    #[test]
    fn what_is_not_progress_is_left_alone() {
        for line in [
            "",
            "{",
            "{}",
            r#"{"level":"info"}"#,
            r#"{"progress":"half"}"#,
            r#"{"progress":null}"#,
            "[42]",
            r#"{"progress":1e999}"#,
        ] {
            assert_eq!(percent(line), None, "{line:?}");
        }
        assert_eq!(percent(r#"{"progress":-3,"items_processed":-1,"current_item":"x"}"#), Some(0));
        assert_eq!(percent(r#"{"progress":400}"#), Some(100));
    }

    #[test]
    fn lines_are_put_together_from_pieces_and_long_ones_are_not_kept() {
        let mut lines = LineSplitter::default();
        let mut seen = Vec::new();
        let mut feed = |bytes: &[u8]| lines.feed(bytes, |line| seen.push(String::from_utf8_lossy(line).into_owned()));
        feed(b"on");
        feed(b"e\ntwo\rthr");
        feed(b"ee\n");
        for _ in 0..100 {
            feed(&[b'x'; 1_000]);
        }
        feed(b"\nfour\nrest");
        assert_eq!(seen, ["one", "two", "three", "four"]);
        assert_eq!((lines.rest(), lines.overwrites()), (&b"rest"[..], false));
        lines.feed(b"\r 42%", |_| {});
        assert_eq!((lines.rest(), lines.overwrites()), (&b" 42%"[..], true));
    }
}
