//! What a run tells: a line of figures, and, where a promise was broken, the whole history in a file and the
//! resource's own as a timeline.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;

use serde_json::json;

use crate::check::{Index, Violation, is_answer, is_summary, result_of};
use crate::history::{Change, History, What};
use crate::plan::{Plan, WHOLE};
use crate::support::foreign::Deed;

/// Violations that are printed; the file has all.
const PRINTED: usize = 20;

/// How much a run has tried.
pub struct Summary {
    pub accepted: usize,
    words: String,
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.words)
    }
}

pub fn summary(history: &History) -> Summary {
    let audit = &history.record.audit;
    let count = |event: &str| audit.iter().filter(|row| row.event == event).count();
    let superseded = audit.iter().filter(|row| row.outcome.as_deref() == Some(crate::check::order::SUPERSEDED)).count();
    let again = audit.iter().filter(|row| row.attempts.is_some_and(|attempts| attempts > 1)).count();
    let events = &history.events;
    let happened = |is: fn(&What) -> bool| events.iter().filter(|event| is(&event.what)).count();
    let error = |word: &str| {
        let saw = |what: &What| matches!(what, What::Saw { message, .. } if message["error"] == word);
        events.iter().filter(|event| saw(&event.what)).count()
    };
    let index = Index::of(history);
    let tries: u32 = index.requests.values().map(|request| request.tries.saturating_sub(1)).sum();
    let words = format!(
        "{} accepted ({} of {} batches; {} succeeded, {} failed, {superseded} of them superseded; {again} claimed more than once), {} scheduled ({} withdrawn, {} denied when they were to run), {} denied, {} over the budget, {} \
         unavailable, {} unknown, {} conflicts; {} requests, {tries} repeats, {} results seen on {} sockets, {} steps \
         in {} attempts of foreign jobs, {} acts of chaos",
        count("accepted"),
        audit.iter().filter(|row| row.is_accepted() && row.batch.is_some()).count(),
        audit.iter().filter_map(|row| row.batch.as_deref()).collect::<BTreeSet<_>>().len(),
        count("succeeded"),
        count("failed"),
        count("scheduled"),
        count("withdrawn"),
        index.denied_late.len(),
        count("denied") - index.denied_late.len(),
        count("rate_limited"),
        error("unavailable"),
        error("outcome_unknown"),
        error("request_conflict"),
        index.requests.len(),
        happened(|what| matches!(what, What::Saw { message, .. } if result_of(message).is_some())),
        index.sockets.len(),
        history.work.iter().filter(|work| matches!(work.deed, Deed::Step { .. })).count(),
        history.work.iter().filter(|work| matches!(work.deed, Deed::Began { .. })).count(),
        happened(|what| matches!(what, What::Fault { .. })),
    );
    Summary { accepted: count("accepted"), words }
}

/// What the files of a run are called: `TOPOLOGY-SEED`.
pub fn name(plan: &Plan) -> String {
    format!("{}-{}", format!("{:?}", plan.topology).to_lowercase(), plan.seed)
}

/// The history of the run of this name: `target/chaos/TOPOLOGY-SEED.jsonl`.
pub fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/chaos").join(format!("{name}.jsonl"))
}

/// Writes everything to [`file`].
pub fn write(plan: &Plan, history: &History, violations: &[Violation]) -> PathBuf {
    let file = file(&name(plan));
    std::fs::create_dir_all(file.parent().expect("a folder")).expect("make target/chaos");
    let mut out = std::io::BufWriter::new(std::fs::File::create(&file).expect("make the history's file"));
    let record = &history.record;
    let mut lines = vec![json!({"seed": plan.seed, "began": history.began, "plan": format!("{plan:?}")})];
    lines.extend(violations.iter().map(|violation| json!({"violation": violation})));
    lines.extend(history.events.iter().map(|event| json!({"event": event})));
    lines.extend(record.audit.iter().map(|row| json!({"audit": row})));
    lines.extend(record.effects.iter().map(|effect| json!({"effect": effect})));
    lines.extend(history.work.iter().map(|work| json!({"work": work})));
    lines.push(json!({"results": record.results, "rows": record.rows, "left": record.left}));
    for line in lines {
        writeln!(out, "{line}").expect("write the history");
    }
    file
}

/// What the test panics with.
pub fn failure(history: &History, violations: &[Violation], again: &str, file: &std::path::Path) -> String {
    let mut out = format!("{} broken promises. Again: {again}. Everything: {}\n", violations.len(), file.display());
    for violation in violations.iter().take(PRINTED) {
        let _ = writeln!(out, "  {violation}");
    }
    let about: BTreeSet<&str> = violations.iter().filter_map(|violation| violation.resource.as_deref()).collect();
    for resource in about.into_iter().take(2) {
        let _ = writeln!(out, "\n{resource}, ms since the start:\n{}", timeline(history, resource));
    }
    out
}

/// One resource's history from all sources, by time. The trail's and SQL's clocks are brought to the test's.
pub fn timeline(history: &History, resource: &str) -> String {
    let index = Index::of(history);
    let mut lines: Vec<(i64, String)> = Vec::new();
    for event in &history.events {
        let at = event.at as i64;
        let on = |socket: &usize| index.sockets.get(socket) == Some(&resource);
        let id = resource.split_once(':').map_or(resource, |(_, id)| id);
        let names = |socket: &usize, text: &str| {
            on(socket) || (index.sockets.get(socket) == Some(&WHOLE) && text.contains(&format!("\"{id}\"")))
        };
        match &event.what {
            What::Opened { socket, client, gateway, .. } if on(socket) => {
                lines.push((at, format!("socket {socket}  opened by {client} at {gateway}")));
            }
            What::Sent { socket, text, try_no, .. } if names(socket, text) => {
                lines.push((at, format!("socket {socket}  > {text} (try {try_no})")));
            }
            What::Saw { socket, message } if names(socket, &message.to_string()) => {
                let told = is_answer(message) || is_summary(message) || result_of(message).is_some();
                lines.extend(told.then(|| (at, format!("socket {socket}  < {message}"))));
            }
            What::Closed { socket, how } if on(socket) => lines.push((at, format!("socket {socket}  closed: {how}"))),
            What::Fault { act } => lines.push((at, format!("---- {act}"))),
            What::Rights { user, held } => {
                lines.push((at, format!("---- {user} has {} right", if *held { "its" } else { "no" })));
            }
            _ => {}
        }
    }
    for row in history.record.audit.iter().filter(|row| row.resource == resource) {
        let (command, outcome) = (row.command.as_deref().unwrap_or("-"), row.outcome.as_deref().unwrap_or(""));
        let request = row.request.as_deref().unwrap_or("-");
        let what = format!("audit     {} {} {command} of {} ({request}) {outcome}", row.event, row.action, row.user);
        lines.push((row.at - history.began, what));
    }
    for effect in &history.record.effects {
        let at = effect.at - history.began;
        match &effect.change {
            Change::Row { resource: of, status } if of == resource => {
                lines.push((at, format!("SQL       row is {status}")))
            }
            Change::Applied { command, outcome }
                if index.accepted.get(command.as_str()).is_some_and(|(_, row)| row.resource == resource) =>
            {
                lines.push((at, format!("SQL       {command} applied: {outcome}")));
            }
            _ => {}
        }
    }
    for work in history.work.iter().filter(|work| work.resource == resource) {
        // Each of thousands of steps would hide the rest.
        if !matches!(work.deed, Deed::Step { .. }) {
            lines.push((work.at as i64, format!("work      attempt {} {:?}", work.attempt, work.deed)));
        }
    }
    lines.sort_by_key(|(at, _)| *at);
    lines.iter().map(|(at, what)| format!("{at:>7}  {what}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::sample_history;

    #[test]
    fn a_timeline_has_what_everybody_saw_of_one_resource_in_order() {
        let text = timeline(&sample_history::sound(), "job:j0");
        let lines: Vec<&str> = text.lines().collect();
        let at = |words: &str| {
            let found = lines.iter().position(|line| line.contains(words));
            found.unwrap_or_else(|| panic!("{words} is not in\n{text}"))
        };
        assert!(at("> {\"request_id\":\"r1\"") < at("audit     accepted pause c1"));
        assert!(at("audit     accepted pause c1") < at("SQL       row is paused"));
        assert!(at("SQL       c1 applied: paused") < at("audit     succeeded pause c1"));
        assert!(at("audit     succeeded pause c1") < at("pause_succeeded"));
        assert_eq!(timeline(&sample_history::sound(), "job:j1"), "");
    }
}
