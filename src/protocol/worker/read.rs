//! From the text of a frame to a message, or to words that say what is wrong with it.

use serde::Deserialize;

use super::from_client::{FromClient, NamedJob};

/// Largest number that every JSON reader holds exactly.
const MAX_NUMBER: u64 = (1 << 53) - 1;
const MAX_NAME: usize = 255;
const MAX_TITLE: usize = 500;
const MAX_ITEM: usize = 1_000;
const MAX_LOG_LINES: usize = 1_000;

/// Why a message cannot be used.
#[derive(Debug, Clone, PartialEq)]
pub enum Unusable {
    /// The protocol has no such message: the socket is closed with this reason.
    Unknown(String),
    /// It has one of this type, and a field is wrong.
    Invalid {
        /// Which job it is about, where that can be read.
        reference: Option<u64>,
        /// Whether an answer `refused` is waited for.
        is_attach: bool,
        /// What is wrong with it.
        message: String,
    },
}

#[derive(Deserialize)]
struct Head<'a> {
    #[serde(rename = "type", borrow)]
    kind: std::borrow::Cow<'a, str>,
    #[serde(rename = "ref")]
    reference: Option<serde_json::Value>,
}

/// Reads one frame.
pub fn read(text: &str) -> Result<FromClient, Unusable> {
    let head: Head<'_> = serde_json::from_str(text)
        .map_err(|error| Unusable::Unknown(format!("A message is a JSON object with a type: {error}")))?;
    let message = match head.kind.as_ref() {
        "hello" => fields(text).map(FromClient::Hello),
        "attach" => fields(text).map(FromClient::Attach),
        "reached" => fields(text).map(FromClient::Reached),
        "progress" => fields(text).map(FromClient::Progress),
        "failed_item" => fields(text).map(FromClient::FailedItem),
        "log" => fields(text).map(FromClient::Log),
        "save" => fields(text).map(FromClient::Save),
        "end" => fields(text).map(FromClient::End),
        "expect" => fields(text).map(FromClient::Expect),
        other => {
            let word: String = other.chars().take(40).collect();
            return Err(Unusable::Unknown(format!("There is no message {word:?}")));
        }
    };
    let checked = message.and_then(|message| message.check().map(|()| message));
    checked.map_err(|message| Unusable::Invalid {
        reference: head
            .reference
            .and_then(|value| value.as_u64())
            .filter(|reference| (1..=MAX_NUMBER).contains(reference)),
        is_attach: matches!(head.kind.as_ref(), "attach" | "expect"),
        message: format!("{}: {message}", head.kind),
    })
}

fn fields<'de, T: Deserialize<'de>>(text: &'de str) -> Result<T, String> {
    serde_json::from_str(text).map_err(|error| {
        let place = format!(" at line {} column {}", error.line(), error.column());
        let words = error.to_string().replace(&place, "");
        let names_it =
            ["missing field", "unknown field", "duplicate field"].iter().any(|begin| words.starts_with(begin));
        // The column counts within its line: what is found on another one would name a wrong field.
        match field_before(text, error.column()).filter(|_| !names_it && error.line() == 1) {
            Some(field) => format!("{field}: {words}"),
            None => words,
        }
    })
}

/// The last field of the object itself (not of one inside it) whose value begins before this place. The text is JSON.
fn field_before(text: &str, place: usize) -> Option<&str> {
    let (bytes, mut depth, mut at) = (text.as_bytes(), 0_u32, 0);
    let (mut last_text, mut found) = (None, None);
    while at < bytes.len() && at < place {
        match bytes[at] {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => {
                let begin = at + 1;
                at = begin;
                while at < bytes.len() && bytes[at] != b'"' {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
                last_text = text.get(begin..at);
            }
            b':' if depth == 1 => found = last_text,
            _ => {}
        }
        at += 1;
    }
    found
}

impl FromClient {
    /// What the types alone do not say.
    fn check(&self) -> Result<(), String> {
        if let Some(reference) = self.reference() {
            within("ref", reference, 1)?;
        }
        match self {
            Self::Hello(hello) => {
                length("worker", Some(&hello.worker), 1, MAX_NAME)?;
                length("software", hello.software.as_ref(), 0, MAX_NAME)?;
                length("host", hello.host.as_ref(), 0, MAX_NAME)?;
                hello.pid.map_or(Ok(()), |pid| within("pid", pid, 0))
            }
            Self::Attach(job) => {
                only_in("expect", "run_after", job.run_after.is_some())?;
                if job.run.is_some_and(|run| run < 1) {
                    return Err("run must be at least 1".to_owned());
                }
                describe(job)
            }
            Self::Expect(job) => {
                only_in("attach", "run", job.run.is_some())?;
                describe(job)
            }
            Self::Reached(reached) if reached.order < 0 => Err("order must not be negative".to_owned()),
            Self::Progress(figures) => {
                let counts = [
                    ("items_total", figures.items_total),
                    ("items_processed", figures.items_processed),
                    ("items_succeeded", figures.items_succeeded),
                    ("items_failed", figures.items_failed),
                ];
                for (name, count) in counts {
                    count.map_or(Ok(()), |count| within(name, count, 0))?;
                }
                if figures.progress_percent.is_some_and(|percent| !(0.0..=100.0).contains(&percent)) {
                    return Err("progress_percent must be from 0 to 100".to_owned());
                }
                length("current_item", figures.current_item.as_ref().and_then(Option::as_ref), 0, MAX_ITEM)
            }
            Self::Save(save) => within("n", save.n, 1),
            Self::Log(log) if log.lines.is_empty() || log.lines.len() > MAX_LOG_LINES => {
                Err(format!("lines must be 1 to {MAX_LOG_LINES}"))
            }
            Self::Log(_) | Self::Reached(_) | Self::FailedItem(_) | Self::End(_) => Ok(()),
        }
    }
}

fn describe(job: &NamedJob) -> Result<(), String> {
    length("job_type", job.job_type.as_ref(), 1, MAX_NAME)?;
    length("title", job.title.as_ref(), 0, MAX_TITLE)?;
    if job.timeout_seconds == Some(0) { Err("timeout_seconds must be at least 1".to_owned()) } else { Ok(()) }
}

/// `attach` and `expect` are one shape but for a field of each.
fn only_in(message: &str, field: &str, is_there: bool) -> Result<(), String> {
    if is_there { Err(format!("unknown field {field}: only {message} has it")) } else { Ok(()) }
}

fn within(name: &str, number: u64, least: u64) -> Result<(), String> {
    if (least..=MAX_NUMBER).contains(&number) {
        Ok(())
    } else {
        Err(format!("{name} must be a whole number from {least} to {MAX_NUMBER}"))
    }
}

fn length(name: &str, text: Option<&String>, least: usize, most: usize) -> Result<(), String> {
    match text.map(|text| text.chars().count()) {
        Some(count) if !(least..=most).contains(&count) => {
            Err(format!("{name} must have {least} to {most} characters"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_read_with_its_fields_and_an_odd_one_says_what_is_wrong() {
        let attach = r#"{"type":"attach","ref":3,"tenant_id":"t","job_id":"j","parameters":{"a":1.10},"run":2}"#;
        let Ok(FromClient::Attach(read_attach)) = read(attach) else { panic!("{:?}", read(attach)) };
        assert_eq!((read_attach.reference, read_attach.run), (3, Some(2)));
        assert_eq!(read_attach.parameters.expect("parameters").as_str(), r#"{"a":1.10}"#);
        let figures = |text: &str| match read(text) {
            Ok(FromClient::Progress(figures)) => figures.current_item,
            other => panic!("{other:?}"),
        };
        assert_eq!(figures(r#"{"type":"progress","ref":1}"#), None);
        assert_eq!(figures(r#"{"type":"progress","ref":1,"current_item":null}"#), Some(None));
        for (text, word) in [
            (r#"{"type":"attach","ref":0,"tenant_id":"t","job_id":"j"}"#, "ref must be"),
            (r#"{"type":"attach","ref":1,"tenant_id":"t:","job_id":"j"}"#, "tenant_id: a tenant id"),
            (r#"{"type":"attach","ref":1,"job_id":7,"tenant_id":"t"}"#, "job_id: invalid type"),
            (r#"{"type":"attach","ref":1,"parameters":{"job_id":":"},"job_id":"a\"b","tenant_id":"t"}"#, "job_id: "),
            (r#"{"type":"attach","ref":1,"tenant_id":"t"}"#, "job_id"),
            (r#"{"type":"attach","ref":1,"tenant_id":"t","job_id":"j","color":1}"#, "color"),
            (r#"{"type":"progress","ref":1,"progress_percent":101}"#, "progress_percent"),
            (r#"{"type":"reached","ref":1,"order":1,"state":"gone"}"#, "gone"),
            (r#"{"type":"save","ref":1,"n":0,"point":1}"#, "n must be"),
            (r#"{"type":"end","ref":1,"how":"completed","run_after":"soon"}"#, "run_after"),
        ] {
            match read(text) {
                Err(Unusable::Invalid { message, .. }) => assert!(message.contains(word), "{text}: {message}"),
                other => panic!("{text}: {other:?}"),
            }
        }
        for text in ["", "[]", "{}", r#"{"type":1}"#, r#"{"type":"ping"}"#] {
            assert!(matches!(read(text), Err(Unusable::Unknown(_))), "{text}");
        }
    }
}
