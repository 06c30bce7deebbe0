//! A JSON object written field by field, in the order the contract prints it.

use std::fmt::Write;

use crate::domain::text::{MAX_LONG_TEXT, excerpt};
use crate::domain::{Control, Resource};

/// Room for most messages, so that they are not moved while they grow.
const INITIAL_CAPACITY: usize = 256;

/// A message under construction. Fields stand in the order they are added.
#[derive(Debug, Clone)]
pub struct Frame(String);

impl Frame {
    /// `{"type":"…"`.
    pub fn new(kind: &str) -> Self {
        Self::of_parts(&[kind])
    }

    /// As [`Self::new`], for a type put together from parts.
    pub fn of_parts(kind: &[&str]) -> Self {
        let mut text = String::with_capacity(INITIAL_CAPACITY);
        text.push_str("{\"type\":\"");
        kind.iter().for_each(|part| text.push_str(part));
        text.push('"');
        Self(text)
    }

    /// An object that begins with this field and has no type.
    pub fn beginning_with(name: &str, value: &str) -> Self {
        let mut text = String::with_capacity(INITIAL_CAPACITY);
        text.push_str("{\"");
        text.push_str(name);
        text.push_str("\":\"");
        text.push_str(value);
        text.push('"');
        Self(text)
    }

    /// `"job_id":"…","tenant_id":"…"`; ids need no escaping.
    pub fn resource(self, resource: &Resource) -> Self {
        self.ascii(resource.kind.id_field(), resource.id.as_str()).ascii("tenant_id", resource.tenant.as_str())
    }

    /// A text known to need no escaping: an id, a status, a code.
    pub fn ascii(mut self, name: &str, value: &str) -> Self {
        self.name(name);
        self.0.push('"');
        self.0.push_str(value);
        self.0.push('"');
        self
    }

    /// `,"name":`; written piece by piece, because every message passes here and the formatting machinery takes
    /// longer than all the rest.
    fn name(&mut self, name: &str) {
        self.0.push_str(",\"");
        self.0.push_str(name);
        self.0.push_str("\":");
    }

    /// A text of anyone's; of a very long one its beginning and its end, since clients cut connections on which a
    /// message is longer than they expect.
    pub fn text(self, name: &str, value: &str) -> Self {
        self.json(name, &excerpt(value, MAX_LONG_TEXT))
    }

    /// A whole number.
    pub fn number(mut self, name: &str, value: i64) -> Self {
        self.name(name);
        let _ = write!(self.0, "{value}");
        self
    }

    /// A value that is written as JSON already.
    pub fn raw(mut self, name: &str, json: &str) -> Self {
        let _ = write!(self.0, ",\"{name}\":{json}");
        self
    }

    /// Any value.
    pub fn json(mut self, name: &str, value: &impl serde::Serialize) -> Self {
        // Serializing into a String fails only for maps with keys that are not text; there are none here.
        let value = serde_json::to_string(value).unwrap_or_else(|_| "null".to_owned());
        self.name(name);
        self.0.push_str(&value);
        self
    }

    /// `"control":"live"` or `"row"`, of a job.
    pub fn control(self, control: Option<Control>) -> Self {
        match control {
            Some(control) => self.ascii("control", control.as_str()),
            None => self,
        }
    }

    /// `"request_id":"…"` where the client gave one.
    pub fn request(self, request_id: Option<&str>) -> Self {
        match request_id {
            Some(id) => self.ascii("request_id", id),
            None => self,
        }
    }

    /// The object without its closing brace, for a script that appends `,"seq":N}`.
    pub fn open(self) -> String {
        self.0
    }

    /// The whole object.
    pub fn end(mut self) -> String {
        self.0.push('}');
        self.0
    }
}
