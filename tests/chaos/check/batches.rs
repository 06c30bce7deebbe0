//! A request for a batch is one batch, its answers name every job once, and a socket that stayed was given one summary
//! after the last result, whose numbers are those of the results.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::Value;

use super::{Index, Violation, commands_of, is_ack, is_summary, result_of};
use crate::history::{History, What};
use crate::plan::WHOLE;

pub fn check(history: &History, index: &Index<'_>) -> Vec<Violation> {
    let mut found = requests(history, index);
    found.extend(summaries(history, index));
    found
}

/// One request is one batch, and its last answer says what became of each job.
fn requests(history: &History, index: &Index<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut batches = HashMap::<&str, &str>::new();
    let mut commands = HashMap::<&str, HashSet<&str>>::new();
    for row in history.record.audit.iter().filter(|row| row.is_accepted()) {
        let (Some(batch), Some(request)) = (row.batch.as_deref(), row.request.as_deref()) else { continue };
        if let Some(before) = batches.insert(request, batch)
            && before != batch
        {
            let what = format!("request {request} is the batches {before} and {batch}");
            found.push(Violation::new("batch ran twice", &row.resource, what));
        }
        commands.entry(request).or_default().extend(row.command.as_deref());
    }
    for (id, request) in &index.requests {
        let acks = || request.answers.iter().map(|(_, answer)| *answer).filter(|answer| answer["items"].is_array());
        for ack in acks() {
            let jobs = ack["items"].as_array().into_iter().flatten();
            let mut named: Vec<String> =
                jobs.map(|item| format!("job:{}", item["job_id"].as_str().unwrap_or_default())).collect();
            let mut asked = request.targets.clone();
            named.sort();
            asked.sort();
            if named != asked || ack["total"] != asked.len() {
                found.push(Violation::new("batch differs", WHOLE, format!("{id} asked for {asked:?}, was told {ack}")));
            }
            let batch = batches.get(id.as_str()).copied();
            if batch.is_some() && batch != ack["batch_id"].as_str() {
                found.push(Violation::new("answers differ", WHOLE, format!("{id} is batch {batch:?}, was told {ack}")));
            }
        }
        let Some(last) = acks().next_back() else { continue };
        let told: HashSet<&str> = commands_of(last).into_iter().map(|(_, command)| command).collect();
        if let Some(hidden) = commands.get(id.as_str()).and_then(|all| all.iter().find(|one| !told.contains(*one))) {
            let what = format!("{id} was told {last}, and {hidden} was accepted");
            found.push(Violation::new("batch differs", WHOLE, what));
        }
    }
    found
}

/// A batch that a socket was told of.
struct Asked<'a> {
    ack: &'a Value,
    /// Since the ack, which comes once more to whoever asks again.
    summed_up: bool,
}

fn summaries(history: &History, index: &Index<'_>) -> Vec<Violation> {
    let recorded = history.record.messages();
    let mut found = Vec::new();
    let mut asked = BTreeMap::<(usize, &str), Asked<'_>>::new();
    let (mut told, mut closed) = (HashSet::new(), HashSet::new());
    for event in &history.events {
        let (socket, message) = match &event.what {
            What::Closed { socket, .. } => {
                closed.insert(*socket);
                continue;
            }
            What::Saw { socket, message } => (*socket, message),
            _ => continue,
        };
        told.extend(result_of(message).map(|command| (socket, command)));
        let Some(batch) = message["batch_id"].as_str() else { continue };
        if is_ack(message) {
            if is_summary(message) {
                // Over HTTP it has the results in it, and nothing follows.
                found.extend(adds_up(message, message, &recorded));
                found.extend(tells_results(message, &recorded));
            } else {
                asked.insert((socket, batch), Asked { ack: message, summed_up: false });
            }
            continue;
        }
        if !is_summary(message) {
            continue;
        }
        match asked.get_mut(&(socket, batch)) {
            Some(asked) if !asked.summed_up => {
                asked.summed_up = true;
                found.extend(adds_up(asked.ack, message, &recorded));
                for (_, command) in commands_of(asked.ack) {
                    if !told.contains(&(socket, command)) {
                        let what = format!("socket {socket} was not told of {command} before {message}");
                        found.push(Violation::new("summary before result", WHOLE, what));
                    }
                }
            }
            Some(_) => found.push(Violation::new("doubled summary", WHOLE, format!("socket {socket}: {message}"))),
            None => found.push(Violation::new("summary of nothing", WHOLE, format!("socket {socket}: {message}"))),
        }
    }
    for ((socket, batch), asked) in &asked {
        let over_http = index.sockets.get(socket).is_none_or(|on| *on != WHOLE);
        if !asked.summed_up && !closed.contains(socket) && !over_http {
            let what = format!("socket {socket}, which stayed, was never told that {batch} is complete");
            found.push(Violation::new("lost summary", WHOLE, what));
        }
    }
    found
}

/// The numbers are those of the ack and of the results as they are recorded.
fn adds_up(ack: &Value, summary: &Value, recorded: &HashMap<&str, Value>) -> Option<Violation> {
    let commands = commands_of(ack);
    let succeeded = commands.iter().filter(|(_, command)| {
        let kind = recorded.get(command).and_then(|message| message["type"].as_str());
        kind.is_some_and(|kind| kind.ends_with("_succeeded"))
    });
    let succeeded = succeeded.count();
    let total = ack["items"].as_array().map_or(0, Vec::len);
    let expected = [
        ("total", total),
        ("succeeded", succeeded),
        ("failed", commands.len() - succeeded),
        ("refused", total - commands.len()),
    ];
    let fits = expected.iter().all(|(field, number)| summary[*field] == *number) && summary.get("unknown").is_none();
    let what = || format!("{summary}, expected {expected:?}");
    (!fits).then(|| Violation::new("wrong summary", WHOLE, what()))
}

/// Each item of a summary over HTTP says what its result says.
fn tells_results(summary: &Value, recorded: &HashMap<&str, Value>) -> Vec<Violation> {
    let items = summary["items"].as_array().into_iter().flatten();
    let wrong = items.filter(|item| {
        let Some(result) = item["command_id"].as_str().and_then(|command| recorded.get(command)) else { return false };
        item.get("status") != result.get("status") || item.get("error") != result.get("error")
    });
    wrong.map(|item| Violation::new("results differ", WHOLE, format!("{item} of {summary}"))).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::super::{all, sample_history};
    use crate::history::{Event, History, What};

    /// Does something to every message of this type on the tenant-wide socket.
    fn change(history: &mut History, kind: &str, how: impl Fn(&mut Value)) {
        for event in &mut history.events {
            if let What::Saw { socket: 2, message } = &mut event.what
                && message["type"] == kind
            {
                how(message);
            }
        }
    }

    fn saw(event: &Event, kind: &str) -> bool {
        matches!(&event.what, What::Saw { socket: 2, message } if message["type"] == kind)
    }

    #[test]
    fn a_batch_that_went_well_breaks_no_promise() {
        assert_eq!(all(&sample_history::batch()), []);
        // Asked for again, and answered with everything once more.
        let mut history = sample_history::batch();
        let again: Vec<Event> =
            history.events.iter().filter(|event| matches!(event.what, What::Saw { socket: 2, .. })).cloned().collect();
        history.events.extend(again);
        assert_eq!(all(&history), []);
    }

    #[test]
    fn a_summary_that_is_missing_or_comes_twice_is_reported() {
        let mut history = sample_history::batch();
        history.events.retain(|event| !saw(event, "batch_completed"));
        sample_history::reports(&history, "lost summary");
        history.events.push(Event { at: 9_000, what: What::Closed { socket: 2, how: "left".to_owned() } });
        assert_eq!(all(&history), []);
        let mut history = sample_history::batch();
        let summary = history.events.iter().find(|event| saw(event, "batch_completed")).expect("a summary").clone();
        history.events.push(summary);
        sample_history::reports(&history, "doubled summary");
        change(&mut history, "batch_completed", |message| message["batch_id"] = "B9".into());
        sample_history::reports(&history, "summary of nothing");
    }

    #[test]
    fn numbers_that_do_not_add_up_are_reported() {
        for field in ["total", "succeeded", "failed", "refused"] {
            let mut history = sample_history::batch();
            change(&mut history, "batch_completed", |message| message[field] = 7.into());
            sample_history::reports(&history, "wrong summary");
        }
        let mut history = sample_history::batch();
        change(&mut history, "batch_completed", |message| message["unknown"] = 1.into());
        sample_history::reports(&history, "wrong summary");
    }

    #[test]
    fn a_summary_before_a_result_is_reported() {
        let mut history = sample_history::batch();
        let at = history.events.iter().position(|event| saw(event, "batch_completed")).expect("a summary");
        let summary = history.events.remove(at);
        let ack = history.events.iter().position(|event| saw(event, "batch_requested")).expect("an ack");
        history.events.insert(ack + 1, summary);
        sample_history::reports(&history, "summary before result");
    }

    #[test]
    fn a_result_told_twice_although_nobody_asked_again_is_reported() {
        let mut history = sample_history::batch();
        let result = history.events.iter().find(|event| saw(event, "pause_succeeded")).expect("a result").clone();
        history.events.push(result);
        sample_history::reports(&history, "doubled result");
    }

    #[test]
    fn a_batch_that_ran_twice_is_reported() {
        let mut history = sample_history::batch();
        let mut again = history.record.audit.last().expect("a row").clone();
        (again.event, again.command, again.batch) =
            ("accepted".to_owned(), Some("c9".to_owned()), Some("B2".to_owned()));
        history.record.audit.push(again);
        sample_history::reports(&history, "batch ran twice");
        sample_history::reports(&history, "request ran twice");
        sample_history::reports(&history, "lost result");
    }

    #[test]
    fn an_answer_that_leaves_a_job_out_or_hides_a_command_is_reported() {
        let mut history = sample_history::batch();
        change(&mut history, "batch_requested", |message| drop(message["items"].as_array_mut().expect("items").pop()));
        sample_history::reports(&history, "batch differs");
        let mut history = sample_history::batch();
        change(&mut history, "batch_requested", |message| {
            drop(message["items"][0].as_object_mut().expect("an item").remove("command_id"));
        });
        sample_history::reports(&history, "batch differs");
    }

    #[test]
    fn a_summary_over_http_that_says_otherwise_than_the_results_is_reported() {
        let summed_up = |status: &str| {
            let mut history = sample_history::batch();
            change(&mut history, "batch_requested", |message| {
                message["type"] = "batch_completed".into();
                message["items"][0]["error"] = sample_history::ENDED.into();
                message["items"][1]["status"] = status.into();
                for (field, number) in [("succeeded", 1), ("failed", 1), ("refused", 0)] {
                    message[field] = number.into();
                }
            });
            history.events.retain(|event| {
                !matches!(&event.what, What::Saw { socket: 2, message }
                    if message["type"] == "batch_completed" && message.get("items").is_none())
            });
            history
        };
        assert_eq!(all(&summed_up("paused")), []);
        sample_history::reports(&summed_up("running"), "results differ");
    }
}
