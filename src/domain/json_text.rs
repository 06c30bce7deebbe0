//! A JSON value as it was written.
//!
//! Parameters, results and resume points belong to the authors of jobs: the system passes them on and reads nothing in
//! them. Read into a tree of values and written again, a number beyond 64 bits or a long decimal would become another
//! number without a word, so they travel as text. What is refused is what a reader later on could not read back.

use std::borrow::Cow;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use super::json_error::{DEEPEST, JsonError, LARGEST_EXPONENT, LONGEST_NUMBER};

/// So much of a refused number is quoted.
const QUOTED: usize = 40;

/// A JSON value as text, without blanks between its parts. Cheap to clone.
#[derive(Clone, Default)]
pub struct JsonText(Option<Arc<RawValue>>);

impl JsonText {
    /// Checks a text that somebody wrote.
    pub fn parse(text: &str) -> Result<Self, JsonError> {
        let raw = serde_json::from_str::<&RawValue>(text).map_err(|error| JsonError::NotJson(error.to_string()))?;
        Self::checked(raw)
    }

    /// A value as text. Numbers that JSON cannot hold are refused, where a plain writer would write null.
    pub fn of<T: Serialize + ?Sized>(value: &T) -> Result<Self, JsonError> {
        let text = serde_json::to_string(value).map_err(|error| JsonError::Unwritable(error.to_string()))?;
        super::json_numbers::check(value)?;
        Self::parse(&text)
    }

    /// Any text as a JSON text.
    pub fn string(text: &str) -> Self {
        // Texts can always be written.
        serde_json::value::to_raw_value(text).map_or_else(|_| Self::default(), |raw| Self(Some(raw.into())))
    }

    fn checked(raw: &RawValue) -> Result<Self, JsonError> {
        if raw.get() == "null" {
            return Ok(Self::default());
        }
        let own = match compact(raw.get())? {
            Cow::Borrowed(_) => raw.to_owned(),
            Cow::Owned(text) => RawValue::from_string(text).map_err(|error| JsonError::NotJson(error.to_string()))?,
        };
        Ok(Self(Some(own.into())))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        self.0.as_ref().map_or("null", |raw| raw.get())
    }

    /// Whether it is `null`.
    pub fn is_null(&self) -> bool {
        self.0.is_none()
    }

    /// Reads it into a type. A number that the type cannot hold is an error; a `serde_json::Value` holds whole numbers
    /// of 64 bits, and of others only the nearest float.
    pub fn read<T: DeserializeOwned>(&self) -> serde_json::Result<T> {
        serde_json::from_str(self.as_str())
    }

    /// Whether a text or a name in it has the character NUL, which PostgreSQL's JSON cannot keep.
    pub fn has_nul(&self) -> bool {
        nuls(self.as_str()).next().is_some()
    }

    /// With U+FFFD in place of every NUL.
    pub fn without_nul(&self) -> Self {
        if !self.has_nul() {
            return self.clone();
        }
        let text = self.as_str();
        let (mut out, mut from) = (String::with_capacity(text.len()), 0);
        for at in nuls(text) {
            out.push_str(&text[from..at]);
            out.push_str("\\ufffd");
            from = at + "\\u0000".len();
        }
        out.push_str(&text[from..]);
        // One escape in place of another of the same length: it is JSON as before.
        RawValue::from_string(out).map_or_else(|_| self.clone(), |raw| Self(Some(raw.into())))
    }
}

/// Where the escapes of NUL begin. A backslash stands nowhere but in texts, and takes the character after it along.
fn nuls(text: &str) -> impl Iterator<Item = usize> + '_ {
    let mut from = 0;
    std::iter::from_fn(move || {
        loop {
            let at = from + text[from..].find('\\')?;
            let rest = &text.as_bytes()[at..];
            from = at + 2; // The character after a backslash is one byte long.
            if rest.starts_with(b"\\u0000") {
                return Some(at);
            }
        }
    })
}

/// The value without blanks between its parts. `text` is JSON already; what is looked for is what readers or databases
/// further on refuse.
fn compact(text: &str) -> Result<Cow<'_, str>, JsonError> {
    let bytes = text.as_bytes();
    let (mut out, mut kept, mut at, mut depth) = (String::new(), 0, 0, 0_usize);
    while let Some(byte) = bytes.get(at) {
        let next = match byte {
            b'"' => end_of_text(text, at)?,
            b'-' | b'0'..=b'9' => end_of_number(text, at)?,
            b' ' | b'\t' | b'\n' | b'\r' => {
                out.push_str(&text[kept..at]);
                kept = at + 1;
                at + 1
            }
            b'[' | b'{' => {
                depth += 1;
                if depth > DEEPEST {
                    return Err(JsonError::TooDeep);
                }
                at + 1
            }
            b']' | b'}' => {
                depth = depth.saturating_sub(1);
                at + 1
            }
            _ => at + 1,
        };
        at = next;
    }
    if kept == 0 {
        return Ok(Cow::Borrowed(text));
    }
    out.push_str(&text[kept..]);
    Ok(Cow::Owned(out))
}

/// Behind the text that begins here.
fn end_of_text(text: &str, begin: usize) -> Result<usize, JsonError> {
    let bytes = text.as_bytes();
    let unit = |at: usize| {
        let escape = text.get(at..at + 6)?;
        u16::from_str_radix(escape.strip_prefix("\\u")?, 16).ok()
    };
    let mut at = begin + 1;
    loop {
        match bytes.get(at) {
            None => return Ok(at),
            Some(b'"') => return Ok(at + 1),
            Some(b'\\') => match (unit(at), unit(at + 6)) {
                (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => at += 12,
                (Some(0xd800..=0xdfff), _) => {
                    return Err(JsonError::HalfCharacter(text.get(at..at + 6).unwrap_or_default().to_owned()));
                }
                (Some(_), _) => at += 6,
                (None, _) => at += 2,
            },
            Some(_) => at += 1,
        }
    }
}

/// Behind the number that begins here.
fn end_of_number(text: &str, begin: usize) -> Result<usize, JsonError> {
    let rest = &text[begin..];
    let number =
        &rest[..rest.find(|c: char| !matches!(c, '0'..='9' | '+' | '-' | '.' | 'e' | 'E')).unwrap_or(rest.len())];
    let exponent = number.split_once(['e', 'E']).map_or(Ok(0), |(_, digits)| {
        digits.trim_start_matches(['+', '-']).trim_start_matches('0').parse::<u32>().or_else(|error| {
            // Nothing but zeros is none; too many digits are too large.
            if *error.kind() == std::num::IntErrorKind::Empty { Ok(0) } else { Err(error) }
        })
    });
    if number.len() > LONGEST_NUMBER || !exponent.is_ok_and(|exponent| exponent <= LARGEST_EXPONENT) {
        let dots = if number.len() > QUOTED { "…" } else { "" };
        return Err(JsonError::OddNumber(format!("{}{dots}", &number[..number.len().min(QUOTED)])));
    }
    Ok(begin + number.len())
}

impl std::fmt::Display for JsonText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::fmt::Debug for JsonText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl PartialEq for JsonText {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for JsonText {}

/// Whether it says the same, in whatever order its fields stand.
impl PartialEq<serde_json::Value> for JsonText {
    fn eq(&self, other: &serde_json::Value) -> bool {
        self.read::<serde_json::Value>().is_ok_and(|value| value == *other)
    }
}

impl std::str::FromStr for JsonText {
    type Err = JsonError;

    fn from_str(text: &str) -> Result<Self, JsonError> {
        Self::parse(text)
    }
}

impl TryFrom<serde_json::Value> for JsonText {
    type Error = JsonError;

    fn try_from(value: serde_json::Value) -> Result<Self, JsonError> {
        Self::of(&value)
    }
}

impl Serialize for JsonText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            None => serializer.serialize_unit(),
            Some(raw) => raw.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for JsonText {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(from)?;
        Self::checked(&raw).map_err(|error| serde::de::Error::custom(format!("a JSON value that {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nested(depth: usize) -> String {
        format!("{}{}", "[".repeat(depth), "]".repeat(depth))
    }

    #[test]
    fn what_was_written_stays_but_for_blanks() {
        for (text, kept) in [
            (" { \"a\" : [ 1 ,\n 2 ] , \"b c\" : \" d \" } ", r#"{"a":[1,2],"b c":" d "}"#),
            ("123456789012345678901234567890", "123456789012345678901234567890"),
            (
                "[0.1000000000000000055511151231257827,1e400,-0.0,1E+2]",
                "[0.1000000000000000055511151231257827,1e400,-0.0,1E+2]",
            ),
            (r#"["\"[ ","\\","\ud83d\ude80"]"#, r#"["\"[ ","\\","\ud83d\ude80"]"#),
            (" null", "null"),
        ] {
            let read = JsonText::parse(text).expect(text);
            assert_eq!(read.as_str(), kept);
            assert_eq!(serde_json::to_string(&[&read]).expect("JSON"), format!("[{kept}]"));
            assert_eq!(serde_json::from_str::<Vec<JsonText>>(&format!("[{text}]")).expect("JSON"), [read]);
        }
    }

    #[test]
    fn what_a_reader_could_not_read_back_is_refused() {
        assert!(JsonText::parse(&nested(DEEPEST)).expect("deep").read::<serde_json::Value>().is_ok());
        assert_eq!(JsonText::parse(&nested(DEEPEST + 1)), Err(JsonError::TooDeep));
        let long = "1".repeat(LONGEST_NUMBER + 1);
        for (text, part) in [
            ("{\"a\":", "is not JSON"),
            ("NaN", "is not JSON"),
            ("1e401", "beyond 400: 1e401"),
            ("[1E-0000401]", "beyond 400"),
            ("1e99999999999", "beyond 400"),
            (long.as_str(), "more than 1000 characters"),
            (r#"["\ud83d"]"#, "half a surrogate pair (\\ud83d)"),
            (r#"["\ude80\ud83d"]"#, "half a surrogate pair (\\ude80)"),
        ] {
            let error = JsonText::parse(text).expect_err(text).to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
        assert!(JsonText::parse("[1e-400,1e0000000000000000000001,0e0]").is_ok());
    }

    #[test]
    fn a_nul_is_found_and_replaced_and_a_backslash_before_a_u_is_none() {
        let text = JsonText::parse(r#"{"a\u0000":"\\u0000","b":"\\\u0000x"}"#).expect("JSON");
        assert!(text.has_nul());
        assert_eq!(text.without_nul().as_str(), r#"{"a\ufffd":"\\u0000","b":"\\\ufffdx"}"#);
        assert!(!JsonText::parse(r#"["\\u0000"]"#).expect("JSON").has_nul());
        assert_eq!(JsonText::string("a\0").without_nul().as_str(), r#""a\ufffd""#);
    }
}
