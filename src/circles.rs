//! No two files of the source use each other, not even through others: whoever reads a file can read what it uses first.
//!
//! A file uses another one when it names something that is defined there: in a `use`, or by a path. What a `mod.rs` only
//! passes on (`pub use`) counts as a use of the file that defines it. Comments and unit tests do not count.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

type Module = Vec<String>;

struct Source {
    file: String,
    text: String,
    /// What it passes on: the name, and the path that it stands for.
    passed_on: BTreeMap<String, Module>,
}

/// The files of the source by their modules, without comments and unit tests.
fn sources() -> BTreeMap<Module, Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    crate::layers::files(&root, &mut files);
    let mut all = BTreeMap::new();
    for path in files {
        let file = path.strip_prefix(&root).expect("beneath src").to_str().expect("a name").to_owned();
        if file == "main.rs" || file.ends_with("_tests.rs") {
            continue;
        }
        let mut module: Module = file.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
        if matches!(module.last().map(String::as_str), Some("mod" | "lib")) {
            module.pop();
        }
        let text = fs::read_to_string(&path).expect("a source file");
        let text = text.split("\n#[cfg(test)]\nmod ").next().unwrap_or_default();
        let text: Vec<&str> = text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect();
        all.insert(module, Source { file, text: text.join("\n"), passed_on: BTreeMap::new() });
    }
    let passed_on: Vec<(Module, String, Module)> = all
        .iter()
        .flat_map(|(module, source)| {
            let starts = source.text.match_indices("pub").filter_map(|(at, _)| {
                let rest = source.text[at + 3..].trim_start();
                let rest = if rest.starts_with('(') { rest.split_once(')')?.1.trim_start() } else { rest };
                rest.strip_prefix("use ")
            });
            starts.flat_map(paths).map(|(path, name)| (module.clone(), name, absolute(module, path, &all)))
        })
        .collect();
    for (module, name, path) in passed_on {
        all.get_mut(&module).expect("a module").passed_on.insert(name, path);
    }
    all
}

/// The paths of a use tree (`a::{b, c::D as E}`), each with the name that it gets.
fn paths(text: &str) -> Vec<(Module, String)> {
    fn tree(text: &str, before: &[String], out: &mut Vec<(Module, String)>) -> usize {
        let (mut path, mut at) = (before.to_vec(), 0);
        loop {
            let rest = &text[at..];
            at += rest.len() - rest.trim_start().len();
            let rest = &text[at..];
            if rest.starts_with('{') {
                at += 1;
                while !text[at..].trim_start().starts_with('}') && at < text.len() {
                    at += tree(&text[at..], &path, out);
                    at += text[at..].len() - text[at..].trim_start_matches([',', ' ', '\n']).len();
                }
                return at + text[at..].find('}').map_or(0, |end| end + 1);
            }
            let word = rest.split(|c: char| !c.is_alphanumeric() && c != '_' && c != '*').next().unwrap_or_default();
            at += word.len();
            if word != "self" || path.is_empty() {
                path.push(word.to_owned());
            }
            if let Some(rest) = text[at..].strip_prefix("::")
                && rest.starts_with(|c: char| c.is_alphabetic() || matches!(c, '_' | '{' | '*'))
            {
                at += 2;
                continue;
            }
            let mut name = path.last().cloned().unwrap_or_default();
            if let Some(rest) = text[at..].strip_prefix(" as ") {
                name = rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default().to_owned();
                at += 4 + name.len();
            }
            out.push((path, name));
            return at;
        }
    }
    let mut out = Vec::new();
    tree(text, &[], &mut out);
    out
}

/// A path as it is written in a module, from the root of the source.
fn absolute(module: &Module, path: Module, all: &BTreeMap<Module, Source>) -> Module {
    let mut path = path.into_iter().peekable();
    let mut full = module.clone();
    match path.peek().map(String::as_str) {
        Some("crate") => {
            path.next();
            full.clear();
        }
        Some("self") => {
            path.next();
        }
        Some("super") => {
            while path.next_if_eq("super").is_some() {
                full.pop();
            }
        }
        Some(child) => {
            let of_child: Module = full.iter().cloned().chain([child.to_owned()]).collect();
            if !all.contains_key(&of_child) {
                full = vec!["extern".to_owned()];
            }
        }
        None => {}
    }
    full.extend(path);
    full
}

/// The file that defines what a path names; `None` for another crate's.
fn definition<'a>(path: &Module, all: &'a BTreeMap<Module, Source>) -> Option<&'a Source> {
    if path.first().is_some_and(|first| first == "extern") {
        return None;
    }
    let depth = (0..=path.len()).rev().find(|depth| all.contains_key(&path[..*depth]))?;
    let source = &all[&path[..depth]];
    match path.get(depth).and_then(|name| source.passed_on.get(name)) {
        Some(stands_for) => {
            let further: Module = stands_for.iter().chain(&path[depth + 1..]).cloned().collect();
            definition(&further, all)
        }
        None => Some(source),
    }
}

/// Which files each file uses.
fn uses() -> BTreeMap<String, BTreeSet<String>> {
    let all = sources();
    let mut uses = BTreeMap::new();
    for (module, source) in &all {
        let mut used = BTreeSet::new();
        // Modules that were given a name here, by a `use` or by being declared.
        let mut named: BTreeMap<String, Module> = all
            .keys()
            .filter(|other| other.len() == module.len() + 1 && other.starts_with(module))
            .filter_map(|child| Some((child.last()?.clone(), child.clone())))
            .collect();
        for begin in ["crate::", "super::", "self::"] {
            for (at, _) in source.text.match_indices(begin) {
                if source.text[..at].ends_with(|c: char| c.is_alphanumeric() || matches!(c, '_' | ':')) {
                    continue;
                }
                let line = source.text[..at].rsplit('\n').next().unwrap_or_default().trim_start();
                let passes_on = line.starts_with("pub") && line.ends_with("use ");
                for (path, name) in paths(&source.text[at..]) {
                    let path = absolute(module, path, &all);
                    if all.contains_key(&path) {
                        named.insert(name, path);
                    } else if !passes_on {
                        used.extend(definition(&path, &all).map(|source| source.file.clone()));
                    }
                }
            }
        }
        for (name, path) in &named {
            let begin = format!("{name}::");
            for (at, _) in source.text.match_indices(&begin) {
                let before = &source.text[..at];
                if before.ends_with(|c: char| c.is_alphanumeric() || matches!(c, '_' | ':')) {
                    continue;
                }
                let line = before.rsplit('\n').next().unwrap_or_default().trim_start();
                if line.starts_with("pub") && line.ends_with("use ") {
                    continue;
                }
                for (tail, _) in paths(&source.text[at + begin.len()..]) {
                    let full: Module = path.iter().cloned().chain(tail).collect();
                    used.extend(definition(&full, &all).map(|source| source.file.clone()));
                }
            }
        }
        used.remove(&source.file);
        uses.insert(source.file.clone(), used);
    }
    uses
}

/// Everything that can be reached from a file.
fn reached<'a>(from: &'a str, uses: &'a BTreeMap<String, BTreeSet<String>>) -> BTreeSet<&'a str> {
    let (mut found, mut left) = (BTreeSet::new(), vec![from]);
    while let Some(file) = left.pop() {
        let next = uses.get(file).into_iter().flatten().map(String::as_str);
        left.extend(next.filter(|other| found.insert(*other)));
    }
    found
}

#[test]
fn no_files_use_each_other_in_a_circle() {
    let uses = uses();
    let mut wrong = Vec::new();
    for (file, used) in &uses {
        let closing = used.iter().filter(|other| reached(other, &uses).contains(file.as_str()));
        wrong.extend(closing.map(|other| format!("{file} uses {other}")));
    }
    assert!(wrong.is_empty(), "these uses are parts of circles:\n{}", wrong.join("\n"));
}

#[test]
fn uses_are_found_in_every_way_they_are_written() {
    let found = paths("crate::a::{b, c::{D as E, self}, *};\nfn x()");
    let found: Vec<(String, String)> = found.into_iter().map(|(path, name)| (path.join("/"), name)).collect();
    let expected = [("crate/a/b", "b"), ("crate/a/c/D", "E"), ("crate/a/c", "c"), ("crate/a/*", "*")];
    assert_eq!(found, expected.map(|(path, name)| (path.to_owned(), name.to_owned())));

    let uses = uses();
    let users: Vec<&str> =
        uses.iter().filter(|(_, used)| used.contains("worker/context.rs")).map(|(file, _)| file.as_str()).collect();
    assert!(users.contains(&"worker/commands/scheduler.rs"), "{users:?}");
    assert!(uses["worker/run/child.rs"].contains("worker/process/handle.rs"), "what a mod.rs passes on");
    assert!(uses["worker/maintenance/periodic.rs"].contains("worker/maintenance/clocks.rs"), "through a named module");
}
