//! The layers of settings put on top of each other, each value remembering where it came from.
//!
//! The `config` crate reads the TOML; the rest is done here because every error has to name the layer
//! that gave the value, and because values of the environment are texts that only the setting's own type
//! can read (the crate's `try_parsing` would turn a password of digits into a number).

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use config::{File, FileFormat, Source, Value, ValueKind};

use super::RenamedSetting;
use super::error::SettingError;

/// What flags set, above everything else: `("server.listen", "127.0.0.1:0")`.
pub type Overrides = Vec<(String, String)>;

/// `config/default.toml`: also the list of every setting there is.
const DEFAULTS: &str = include_str!("../../config/default.toml");
/// What the names of environment variables begin with.
const PREFIX: &str = "WHEELHOUSE__";

/// Settings that have another name now: the old one and the new one. The old one is still read, with a warning.
const RENAMED: [(&str, &str); 1] = [("worker.deaths_per_job", "worker.max_worker_crashes")];

/// Where a value came from, in words.
#[derive(Debug, Clone)]
pub(super) struct SettingValue {
    pub(super) value: ValueKind,
    pub(super) source: String,
}

/// Every setting with its winning value.
#[derive(Debug)]
pub(super) struct SettingLayers {
    entries: BTreeMap<String, SettingValue>,
    renamed: Vec<RenamedSetting>,
}

impl SettingLayers {
    /// Defaults, file, environment, flags: later ones win.
    pub(super) fn read(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        overrides: Overrides,
    ) -> Result<Self, SettingError> {
        let mut layers = Self { entries: BTreeMap::new(), renamed: Vec::new() };
        for (key, value) in toml(File::from_str(DEFAULTS, FileFormat::Toml), "the defaults")? {
            layers.entries.insert(key, SettingValue { value, source: "the defaults".to_owned() });
        }
        if let Some(path) = file {
            let source = format!("the file {}", path.display());
            let text = std::fs::read_to_string(path).map_err(|error| SettingError {
                key: "--config".to_owned(),
                problem: format!("the file cannot be read: {error}"),
                source_name: source.clone(),
            })?;
            let values = toml(File::from_str(&text, FileFormat::Toml), &source)?;
            layers.put_all(values.into_iter().map(|(key, value)| (key, value, source.clone())).collect())?;
        }
        layers.put_all(variables(environment)?)?;
        let flag = |(key, value)| {
            let source = format!("the flag that sets {key}");
            (key, ValueKind::String(value), source)
        };
        layers.put_all(overrides.into_iter().map(flag).collect())?;
        Ok(layers)
    }

    /// One setting. Every key asked for stands in the defaults; a test reads them all.
    pub(super) fn get(&self, key: &str) -> Result<&SettingValue, SettingError> {
        self.entries.get(key).ok_or_else(|| SettingError {
            key: key.to_owned(),
            problem: "has no default".to_owned(),
            source_name: "the defaults".to_owned(),
        })
    }

    /// The name of every setting.
    #[cfg(test)]
    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// The settings that were given by an old name.
    pub(super) fn into_renamed(self) -> Vec<RenamedSetting> {
        self.renamed
    }

    /// One layer: key, value, source. Where it has a setting by its old and by its new name, the new one counts.
    fn put_all(&mut self, values: Vec<(String, ValueKind, String)>) -> Result<(), SettingError> {
        let (old, new): (Vec<_>, Vec<_>) = values.into_iter().partition(|(key, ..)| new_name(key).is_some());
        for (key, value, source) in old.into_iter().chain(new) {
            let Some(new_key) = new_name(&key) else {
                self.put(key, value, source)?;
                continue;
            };
            self.put(new_key.to_owned(), value, format!("{source}, by the old name {key}"))?;
            self.renamed.push(RenamedSetting { old: key, new: new_key, source });
        }
        Ok(())
    }

    fn put(&mut self, key: String, value: ValueKind, source: String) -> Result<(), SettingError> {
        let Some(entry) = self.entries.get_mut(&key) else {
            return Err(SettingError { problem: self.unknown(&key), key, source_name: source });
        };
        *entry = SettingValue { value, source };
        Ok(())
    }

    /// What to say of a key that does not exist.
    fn unknown(&self, key: &str) -> String {
        let section = format!("{key}.");
        let inside: Vec<&str> = self.entries.keys().filter(|k| k.starts_with(&section)).map(String::as_str).collect();
        if !inside.is_empty() {
            return format!("is a section, not a setting; in it are {}", inside.join(", "));
        }
        // The last part alone also counts, and a part of it, so that `listen`, `redis_url` and `auth.secret`
        // find their way.
        let wanted = key.rsplit('.').next().unwrap_or(key);
        // More letters than that are not a slip: it is another word.
        let max_distance = wanted.chars().count() / 3;
        let distance_to = |known: &str| {
            let last = known.rsplit('.').next().unwrap_or(known);
            let (whole, of_last) = (edit_distance(key, known), edit_distance(wanted, last));
            let is_part = wanted.len() > 3 && last.contains(wanted) && wanted.len() * 2 >= last.len();
            let near = [
                (whole <= max_distance).then_some(whole),
                (of_last <= max_distance).then_some(of_last + 2),
                is_part.then_some(2),
            ];
            near.into_iter().flatten().min().map(|distance| (distance, whole))
        };
        let known = self.entries.keys();
        match known.filter_map(|known| Some((distance_to(known)?, known))).min() {
            Some((_, nearest)) => format!("there is no such setting; the nearest is {nearest}"),
            None => "there is no such setting".to_owned(),
        }
    }
}

/// What a setting is called now that once had another name.
fn new_name(key: &str) -> Option<&'static str> {
    RENAMED.iter().find(|(old, _)| *old == key).map(|(_, new)| *new)
}

/// A TOML text as `section.key` → value.
fn toml(
    file: File<config::FileSourceString, FileFormat>,
    source: &str,
) -> Result<Vec<(String, ValueKind)>, SettingError> {
    let map = file.collect().map_err(|error| {
        // Such errors quote the line they stumbled over, and a secret may stand in it: only the place
        // (first line) and the reason (last line) are passed on.
        let text = error.to_string();
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.contains('|'));
        let place = lines.next().unwrap_or("not valid TOML").to_owned();
        let problem = match lines.next_back() {
            Some(reason) => format!("{place}: {reason}"),
            None => place,
        };
        SettingError { key: "--config".to_owned(), problem, source_name: source.to_owned() }
    })?;
    let mut flat = Vec::new();
    for (key, value) in map {
        flatten(key, value, &mut flat);
    }
    Ok(flat)
}

fn flatten(key: String, value: Value, into: &mut Vec<(String, ValueKind)>) {
    match value.kind {
        ValueKind::Table(table) if !table.is_empty() => {
            for (inner, value) in table {
                flatten(format!("{key}.{inner}"), value, into);
            }
        }
        // An empty section says nothing.
        ValueKind::Table(_) => {}
        kind => into.push((key, kind)),
    }
}

/// The variables that are settings: key, value, source. Their names count in any case of letters.
fn variables(
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Vec<(String, ValueKind, String)>, SettingError> {
    let mut found = Vec::new();
    for (name, value) in environment {
        let Some(name) = name.to_str() else { continue };
        let upper = name.to_ascii_uppercase();
        let Some(rest) = upper.strip_prefix(PREFIX) else { continue };
        let key = rest.to_ascii_lowercase().replace("__", ".");
        let source = format!("the environment variable {name}");
        let value = value.into_string().map_err(|_| SettingError {
            key: key.clone(),
            problem: "the value is not valid UTF-8".to_owned(),
            source_name: source.clone(),
        })?;
        found.push((key, ValueKind::String(value), source));
    }
    Ok(found)
}

/// Levenshtein's distance: how many letters to add, drop or change.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut corner = i;
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let changed = corner + usize::from(x != *y);
            corner = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(corner + 1);
        }
    }
    row[b.len()]
}
