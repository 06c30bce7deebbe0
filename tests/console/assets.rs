//! That the files of the console fit together, and hold nothing that the policy forbids.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use wheelhouse::console;

/// Made by esbuild from clients/typescript, which writes its exports in a list at the end.
const BUILT: &str = "/assets/client.js";

const MESSAGES: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/schema/messages.schema.json"));

/// The value after each of `marks` up to the quote that opened it: `href="…"`, `from "…"`.
fn quoted_after<'a>(text: &'a str, mark: &str) -> Vec<&'a str> {
    text.split(mark).skip(1).filter_map(|rest| rest.split('"').next()).collect()
}

#[test]
fn every_file_in_the_folder_is_served_and_every_file_referred_to_exists() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/console/assets");
    let on_disk: BTreeSet<String> = std::fs::read_dir(folder)
        .expect("assets")
        .map(|entry| entry.expect("entry").file_name().into_string().expect("UTF-8"))
        .map(|name| if name == "index.html" { "/".to_owned() } else { format!("/assets/{name}") })
        .collect();
    let served: BTreeMap<&str, &str> = console::ASSETS.iter().map(|asset| (asset.path, asset.body)).collect();
    assert_eq!(on_disk.iter().map(String::as_str).collect::<Vec<_>>(), served.keys().copied().collect::<Vec<_>>());

    let mut reached = BTreeSet::from(["/"]);
    for (path, body) in &served {
        let mut references: Vec<String> = Vec::new();
        for mark in ["href=\"", "src=\""] {
            references.extend(quoted_after(body, mark).into_iter().filter(|r| !r.starts_with('#')).map(str::to_owned));
        }
        for line in body.lines().filter(|line| line.starts_with("import ") || line.starts_with("} from ")) {
            let module = quoted_after(line, "from \"");
            assert_eq!(module.len(), 1, "{path}: {line}");
            let name = module[0].strip_prefix("./").unwrap_or_else(|| panic!("{path} imports {}", module[0]));
            references.push(format!("/assets/{name}"));
        }
        for reference in references {
            let (known, _) = served.get_key_value(reference.as_str()).unwrap_or_else(|| panic!("{path}: {reference}"));
            reached.insert(known);
        }
    }
    let unreached: Vec<_> = served.keys().filter(|path| !reached.contains(*path)).collect();
    assert!(unreached.is_empty(), "nothing refers to {unreached:?}");
}

#[test]
fn every_name_that_a_module_imports_is_exported_by_the_other() {
    let modules: BTreeMap<&str, &str> =
        console::ASSETS.iter().filter(|a| a.path.ends_with(".js")).map(|a| (a.path, a.body)).collect();
    let mut checked = 0;
    for (path, body) in modules.iter().filter(|(path, _)| **path != BUILT) {
        for line in body.lines().filter(|line| line.starts_with("import {")) {
            let names = line.split(['{', '}']).nth(1).expect("names");
            let from = format!("/assets/{}", quoted_after(line, "from \"./")[0]);
            for name in names.split(',').map(str::trim) {
                let body = modules[from.as_str()];
                let is_exported = if from == BUILT {
                    let list = body.rsplit_once("export {").expect("a list of exports").1;
                    list.split([',', '}']).any(|exported| exported.trim() == name)
                } else {
                    ["const", "function", "class", "async function"].iter().any(|kind| {
                        body.lines().any(|l| {
                            l.strip_prefix("export ").and_then(|l| l.strip_prefix(kind)).is_some_and(|rest| {
                                rest.trim_start()
                                    .strip_prefix(name)
                                    .is_some_and(|after| !after.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
                            })
                        })
                    })
                };
                assert!(is_exported, "{path} imports {name}, which {from} does not export");
                checked += 1;
            }
        }
    }
    assert!(checked > 20, "only {checked} names found: does the reading of imports still fit?");
}

#[test]
fn nothing_is_inline_nothing_comes_from_elsewhere_and_no_text_becomes_markup() {
    for asset in console::ASSETS {
        let (path, body) = (asset.path, asset.body);
        for forbidden in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"] {
            assert!(!body.contains(forbidden), "{path} has {forbidden}");
        }
        // The one address that is a name and not a place.
        let outside = body.replace("http://www.w3.org/2000/svg", "");
        for scheme in ["http://", "https://", "//cdn", "@import", "url("] {
            assert!(!outside.contains(scheme), "{path} has {scheme}");
        }
        for keeper in ["localStorage", "document.cookie", "console.log"] {
            assert!(!body.contains(keeper), "{path}: a token could end up in {keeper}");
        }
        if path != "/" {
            continue;
        }
        for script in body.split("<script").skip(1) {
            let (tag, rest) = script.split_once('>').expect("a whole tag");
            assert!(tag.contains("src=\"/assets/"), "inline script: <script{tag}>");
            assert!(rest.starts_with("</script>"), "a script with src has no text of its own");
        }
        assert!(!body.contains("<style") && !body.contains(" style="), "the policy forbids inline styles");
        for attribute in body.split_whitespace().filter(|word| word.contains('=')) {
            assert!(!attribute.starts_with("on"), "inline handler: {attribute}");
        }
    }
}

#[test]
fn every_code_that_a_request_can_be_refused_with_has_its_words() {
    let schema: serde_json::Value = serde_json::from_str(MESSAGES).expect("the schema");
    let codes = schema["$defs"]["error_code"]["enum"].as_array().expect("codes");
    let messages = console::ASSETS.iter().find(|asset| asset.path == "/assets/messages.js").expect("words").body;
    let why = messages.split_once("export function why(").expect("the function").1;
    let why = why.split_once("default:").expect("its end").0;
    assert!(codes.len() > 10);
    // "failed", "network" and "closed" are the client's own.
    for code in codes.iter().filter_map(serde_json::Value::as_str).chain(["failed", "network", "closed"]) {
        assert!(why.contains(&format!("case \"{code}\":")), "{code} has no words in messages.js");
    }
}

#[test]
fn files_written_by_hand_are_short_enough_to_be_read() {
    for asset in console::ASSETS.iter().filter(|asset| asset.path != BUILT) {
        let lines = asset.body.lines().count();
        assert!(lines < 400, "{} has {lines} lines", asset.path);
    }
}
