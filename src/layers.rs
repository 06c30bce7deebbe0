//! The arrows between the layers, checked: `cli → gateway | worker | console → http → auth → broker | store → domain | protocol`.

use std::fs;
use std::path::Path;

/// Each layer, and what it may use beside itself.
const ALLOWED_IMPORTS: [(&str, &[&str]); 14] = [
    ("domain", &[]),
    ("protocol", &["domain"]),
    ("config", &["domain"]),
    ("telemetry", &["config", "domain", "protocol"]),
    ("broker", &["config", "domain", "protocol"]),
    ("store", &["config", "domain"]),
    ("auth", &["broker", "store", "config", "domain", "protocol"]),
    ("http", &["auth", "broker", "config", "protocol", "telemetry"]),
    ("doctor", &["broker", "store", "config"]),
    ("console", &["config"]),
    ("gateway", &["http", "doctor", "auth", "broker", "store", "config", "console", "domain", "protocol", "telemetry"]),
    ("worker", &["http", "doctor", "auth", "broker", "store", "config", "domain", "protocol", "telemetry"]),
    ("demo", &["worker", "store", "domain"]),
    (
        "cli",
        &[
            "gateway",
            "worker",
            "http",
            "doctor",
            "demo",
            "auth",
            "broker",
            "store",
            "config",
            "domain",
            "protocol",
            "telemetry",
        ],
    ),
];

/// The layers named after `crate::` in a text, comments included: those name real paths too.
fn imports_of(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for after in text.split("crate::").skip(1) {
        let names = match after.strip_prefix('{') {
            Some(list) => list.split('}').next().unwrap_or_default().to_owned(),
            None => after.split(|c: char| !c.is_ascii_lowercase() && c != '_').next().unwrap_or_default().to_owned(),
        };
        let names = names.split(',').map(|name| name.trim().split([':', ' ']).next().unwrap_or_default().to_owned());
        found.extend(names.filter(|name| !name.is_empty()));
    }
    found
}

pub(crate) fn files(folder: &Path, out: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of the source").flatten() {
        let path = entry.path();
        if path.is_dir() {
            files(&path, out);
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
}

#[test]
fn every_layer_uses_only_those_below_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = Vec::new();
    for (layer, allowed) in ALLOWED_IMPORTS {
        let mut sources = Vec::new();
        files(&root.join(layer), &mut sources);
        assert!(!sources.is_empty(), "layer {layer} has no files");
        for source in sources {
            let text = fs::read_to_string(&source).expect("a source file");
            for name in imports_of(&text) {
                let is_layer = ALLOWED_IMPORTS.iter().any(|(other, _)| *other == name);
                if is_layer && name != layer && !allowed.contains(&name.as_str()) {
                    wrong.push(format!("{} uses {name}", source.strip_prefix(&root).unwrap_or(&source).display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "arrows that point up or sideways:\n{}", wrong.join("\n"));
}

#[test]
fn uses_are_found_in_every_way_they_are_written() {
    assert_eq!(
        imports_of("use crate::broker::Broker; use crate::{store, worker as w}; crate::auth::x()"),
        ["broker", "store", "worker", "auth"]
    );
}
