//! A JSON object of an answer, each field as the text that came: parameters and results have numbers that no number
//! here could hold, and what is printed are the digits that were sent.

use std::collections::BTreeMap;
use std::fmt::Display;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

/// The fields by their names.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(in crate::cli) struct Object(BTreeMap<String, Box<RawValue>>);

impl Object {
    /// Reads an object; the error says what is wrong with the text.
    pub(in crate::cli) fn parse(text: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(text).map_err(|error| match serde_json::from_slice::<serde::de::IgnoredAny>(text) {
            Ok(_) => "not an object".to_owned(),
            Err(_) => error.to_string(),
        })
    }

    /// The whole in a type that has some of its fields.
    pub(in crate::cli) fn read<T: DeserializeOwned>(&self) -> Result<T, String> {
        let text = serde_json::to_string(self).map_err(|error| error.to_string())?;
        serde_json::from_str(&text).map_err(|error| error.to_string())
    }

    pub(in crate::cli) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A field that is not null, as it came.
    pub(in crate::cli) fn get(&self, name: &str) -> Option<&RawValue> {
        self.0.get(name).map(Box::as_ref).filter(|value| value.get() != "null")
    }

    /// A field that is a text.
    pub(in crate::cli) fn text(&self, name: &str) -> Option<String> {
        serde_json::from_str(self.get(name)?.get()).ok()
    }

    /// A field that is a whole number.
    pub(in crate::cli) fn number(&self, name: &str) -> Option<u64> {
        serde_json::from_str(self.get(name)?.get()).ok()
    }

    /// Puts a text in place of a field's value.
    pub(in crate::cli) fn set(&mut self, name: &str, text: impl Display) {
        self.0.insert(name.to_owned(), to_raw_value(&text.to_string()).unwrap_or_default());
    }

    pub(in crate::cli) fn remove(&mut self, name: &str) {
        self.0.remove(name);
    }

    /// Takes over what another one says.
    pub(in crate::cli) fn merge(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Names of the fields.
    pub(in crate::cli) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}
