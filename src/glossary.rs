//! The words that `docs/glossary.md` has retired come back nowhere: what stands in backticks in the column "replaces" is no
//! identifier of the source, the tests or the scripts. Comments and texts do not count, since plain English needs many of
//! them; but no doc comment is a mere question.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

const GLOSSARY: &str = include_str!("../docs/glossary.md");

/// Where source is: folders beside `Cargo.toml`.
const FOLDERS: [&str; 5] = ["src", "crates", "tests", "examples", "lua"];

fn retired() -> BTreeSet<&'static str> {
    let rows = GLOSSARY.lines().filter(|line| line.starts_with("| "));
    let replaced = rows.filter_map(|row| row.trim_end_matches('|').rsplit('|').next());
    replaced.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect()
}

/// The identifiers of a text in Rust or Lua, with the number of their line.
fn identifiers(text: &str, is_lua: bool) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let (mut at, mut line) = (0, 1);
    while let Some(first) = text[at..].chars().next() {
        let rest = &text[at..];
        let length = if rest.starts_with(if is_lua { "--" } else { "//" }) {
            rest.find('\n').unwrap_or(rest.len())
        } else if let Some(hashes) = raw_string(rest).filter(|_| !is_lua) {
            let end = format!("\"{}", "#".repeat(hashes));
            let begin = hashes + 2;
            rest[begin..].find(&end).map_or(rest.len(), |length| begin + length + end.len())
        } else if first == '"' || (first == '\'' && is_lua) {
            string_length(rest, first)
        } else if first.is_alphabetic() || first == '_' {
            let length = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            found.push((line, &rest[..length]));
            length
        } else if rest.starts_with("'\"'") || rest.starts_with("'\\") {
            // A quotation mark or an escape as a single character: it begins no text.
            2
        } else {
            first.len_utf8()
        };
        line += rest[..length].matches('\n').count();
        at += length;
    }
    found
}

/// How many `#` a raw string has that begins here.
fn raw_string(text: &str) -> Option<usize> {
    let rest = text.strip_prefix("r").filter(|rest| rest.starts_with(['"', '#']))?;
    let hashes = rest.len() - rest.trim_start_matches('#').len();
    rest[hashes..].starts_with('"').then_some(hashes)
}

fn string_length(text: &str, quote: char) -> usize {
    let mut is_escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            _ if c == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

fn files(folder: &Path, out: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of the source").flatten() {
        let path = entry.path();
        if path.is_dir() && !path.ends_with("target") {
            files(&path, out);
        } else if path.extension().is_some_and(|end| end == "rs" || end == "lua") {
            out.push(path);
        }
    }
}

#[test]
fn retired_words_are_used_nowhere() {
    let (retired, root) = (retired(), Path::new(env!("CARGO_MANIFEST_DIR")));
    assert!(retired.len() > 50, "the glossary has lost its retired words: {retired:?}");
    let mut sources = Vec::new();
    for folder in FOLDERS {
        files(&root.join(folder), &mut sources);
    }
    let mut wrong = Vec::new();
    for path in sources {
        let text = fs::read_to_string(&path).expect("a source file");
        let name = path.strip_prefix(root).unwrap_or(&path).display();
        for (line, word) in identifiers(&text, path.extension().is_some_and(|end| end == "lua")) {
            if retired.contains(word) {
                wrong.push(format!("{name}:{line}: {word}"));
            }
        }
    }
    assert!(wrong.is_empty(), "docs/glossary.md says which words replace these:\n{}", wrong.join("\n"));
}

#[test]
fn a_doc_comment_says_more_than_the_question_that_it_answers() {
    let questions = ["Who", "Whose", "Whom", "Why", "What", "Which", "Where", "When", "How"];
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = Vec::new();
    for folder in ["src", "crates"] {
        files(&root.join(folder), &mut sources);
    }
    let mut wrong = Vec::new();
    for path in sources {
        let text = fs::read_to_string(&path).expect("a source file");
        for (number, line) in text.lines().enumerate() {
            let comment = line.trim_start().strip_prefix("/// ").and_then(|comment| comment.strip_suffix('.'));
            if comment.is_some_and(|comment| questions.contains(&comment)) {
                wrong.push(format!("{}:{}: {}", path.display(), number + 1, line.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "say the meaning, the unit, the errors, or nothing:\n{}", wrong.join("\n"));
}

#[test]
fn identifiers_are_told_from_texts_and_comments() {
    let rust = "let a = \"b \\\" c\"; // d\nlet e = r#\"f\"g\"#; h('\"', '\\'', i, \"{j}\");";
    let found: Vec<(usize, &str)> = identifiers(rust, false);
    assert_eq!(found, [(1, "let"), (1, "a"), (2, "let"), (2, "e"), (2, "h"), (2, "i")]);
    let lua = "local a = 'b' -- c\nreturn a .. \"d\"";
    assert_eq!(identifiers(lua, true), [(1, "local"), (1, "a"), (2, "return"), (2, "a")]);
}
