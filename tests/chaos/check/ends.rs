//! Every accepted command has exactly one end, the same wherever one looks.

use std::collections::{HashMap, HashSet};

use super::{Index, Violation, commands_of, is_ack, is_answer, result_of};
use crate::history::{History, What};
use crate::plan::WHOLE;

pub fn check(history: &History, index: &Index<'_>) -> Vec<Violation> {
    let mut found = in_the_trail(history, index);
    found.extend(in_redis(history, index));
    found.extend(on_sockets(history, index));
    found.extend(of_requests(history, index));
    found
}

fn in_the_trail(history: &History, index: &Index<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    let (mut ends, mut accepted) = (HashMap::<&str, Vec<&str>>::new(), HashSet::new());
    for row in &history.record.audit {
        if !row.intact {
            found.push(Violation::new("audit", &row.resource, format!("a row does not fit its hash: {row:?}")));
        }
        let Some(command) = row.command.as_deref() else { continue };
        if row.is_accepted() && !accepted.insert(command) {
            found.push(Violation::new("accepted twice", &row.resource, command));
        }
        if row.is_end() {
            ends.entry(command).or_default().push(&row.event);
            if !accepted.contains(command) {
                found.push(Violation::new("ended before it was accepted", &row.resource, command));
            }
        }
    }
    for (command, (_, row)) in &index.accepted {
        match ends.get(command).map(Vec::as_slice) {
            None => found.push(Violation::new("lost result", &row.resource, format!("{command} has no end"))),
            Some([_]) => {}
            Some(many) => {
                found.push(Violation::new("doubled result", &row.resource, format!("{command} ended {many:?}")));
            }
        }
    }
    found
}

fn in_redis(history: &History, index: &Index<'_>) -> Vec<Violation> {
    let mut found: Vec<Violation> =
        history.record.left.iter().map(|left| Violation::general("left in Redis", left)).collect();
    let mut kept = HashMap::<&str, u32>::new();
    for (resource, results) in &history.record.results {
        for (command, _) in results {
            *kept.entry(command).or_default() += 1;
            if !index.has_result(command) {
                found.push(Violation::new("result of nothing", resource, command));
            }
        }
    }
    for (command, row) in index.with_result() {
        match kept.get(command) {
            Some(1) => {}
            None => found.push(Violation::new("lost result", &row.resource, format!("Redis has none for {command}"))),
            Some(n) => {
                let what = format!("Redis lists {command} {n} times");
                found.push(Violation::new("doubled result", &row.resource, what));
            }
        }
    }
    found
}

/// What sockets were given is what is recorded, once, and after the ack. The tenant-wide socket tells a result once more
/// to whoever asks again.
fn on_sockets(history: &History, index: &Index<'_>) -> Vec<Violation> {
    let recorded = history.record.messages();
    let (mut found, mut seen, mut again) = (Vec::new(), HashSet::new(), HashSet::new());
    // On which socket a request was first sent: there its ack comes first, or the word that its outcome is unknown.
    let (mut first_on, mut answered) = (HashMap::new(), HashSet::new());
    for event in &history.events {
        match &event.what {
            What::Sent { socket, request, try_no: 1, .. } => {
                first_on.entry(request.as_str()).or_insert(*socket);
            }
            What::Saw { socket, message } => {
                let resource = index.sockets.get(socket).copied().unwrap_or_default();
                let request = message["request_id"].as_str().unwrap_or_default();
                if is_answer(message) {
                    answered.insert((*socket, request));
                }
                if is_ack(message) {
                    for (_, command) in commands_of(message) {
                        if !index.accepted.contains_key(command) && !index.scheduled.contains_key(command) {
                            found.push(Violation::new("acknowledged, never accepted", resource, command));
                        }
                        if resource == WHOLE {
                            again.insert((*socket, command));
                        }
                    }
                }
                let Some(command) = result_of(message) else { continue };
                if !seen.insert((*socket, command)) && !again.contains(&(*socket, command)) {
                    let what = format!("socket {socket} was told of {command} twice");
                    found.push(Violation::new("doubled result", resource, what));
                }
                again.remove(&(*socket, command));
                if recorded.get(command) != Some(message) {
                    let what = format!("socket {socket} saw {message}, recorded is {:?}", recorded.get(command));
                    found.push(Violation::new("results differ", resource, what));
                }
                if first_on.get(request) == Some(socket) && !answered.contains(&(*socket, request)) {
                    let what = format!("{command} on socket {socket}");
                    found.push(Violation::new("result before ack", resource, what));
                }
            }
            _ => {}
        }
    }
    found
}

/// One request is one command (one for each resource of a batch), whatever happened between its tries.
fn of_requests(history: &History, index: &Index<'_>) -> Vec<Violation> {
    let (mut found, mut commands) = (Vec::new(), HashMap::<(&str, &str), &str>::new());
    for row in history.record.audit.iter().filter(|row| row.is_accepted() || row.event == "scheduled") {
        let (Some(request), Some(command)) = (row.request.as_deref(), row.command.as_deref()) else { continue };
        // What was scheduled is accepted later, under the same id.
        if let Some(before) = commands.insert((request, &row.resource), command)
            && (before != command || !index.scheduled.contains_key(command))
        {
            let what = format!("request {request} is {before} and {command}");
            found.push(Violation::new("request ran twice", &row.resource, what));
        }
    }
    for (id, request) in &index.requests {
        for (_, answer) in request.answers.iter().filter(|(_, answer)| is_ack(answer)) {
            for (resource, command) in commands_of(answer) {
                let resource = resource.as_deref().unwrap_or(request.resource);
                let accepted = commands.get(&(id.as_str(), resource)).copied();
                if accepted != Some(command) {
                    let what = format!("request {id} was answered {answer}, accepted was {accepted:?}");
                    found.push(Violation::new("answers differ", resource, what));
                }
            }
        }
    }
    found.extend(history.unanswered.iter().map(|request| Violation::general("never answered", request)));
    found
}

#[cfg(test)]
mod tests {
    use super::super::{all, sample_history};
    use crate::history::What;

    #[test]
    fn a_second_end_in_the_trail_is_a_doubled_result() {
        let mut history = sample_history::sound();
        let end = history.record.audit.iter().find(|row| row.is_end()).expect("an end").clone();
        history.record.audit.push(end);
        sample_history::reports(&history, "doubled result");
    }

    #[test]
    fn a_second_entry_in_redis_is_a_doubled_result() {
        let mut history = sample_history::sound();
        let results = history.record.results.get_mut("job:j0").expect("results");
        results.push(results[0].clone());
        sample_history::reports(&history, "doubled result");
    }

    #[test]
    fn a_result_given_to_a_socket_twice_is_a_doubled_result() {
        let mut history = sample_history::sound();
        let again = history.events.iter().find(|e| sample_history::is_result(e)).expect("a result").clone();
        history.events.push(again);
        sample_history::reports(&history, "doubled result");
    }

    #[test]
    fn a_command_without_an_end_is_a_lost_result() {
        let mut history = sample_history::sound();
        let at = history.record.audit.iter().position(|row| row.is_end()).expect("an end");
        history.record.audit.remove(at);
        sample_history::reports(&history, "lost result");
        let mut history = sample_history::sound();
        history.record.results.get_mut("job:j0").expect("results").remove(0);
        sample_history::reports(&history, "lost result");
    }

    #[test]
    fn an_ack_that_no_trail_knows_of_is_reported() {
        let mut history = sample_history::sound();
        history.record.audit.retain(|row| row.command.as_deref() != Some("c2"));
        sample_history::reports(&history, "acknowledged, never accepted");
    }

    #[test]
    fn results_must_be_the_same_everywhere() {
        let mut history = sample_history::sound();
        for event in &mut history.events {
            if let What::Saw { socket: 1, message } = &mut event.what
                && message["type"] == "resume_succeeded"
            {
                message["status"] = "paused".into();
            }
        }
        sample_history::reports(&history, "results differ");
    }

    #[test]
    fn a_result_before_its_ack_is_reported() {
        let mut history = sample_history::sound();
        let ack = history.events.iter().position(sample_history::is_ack).expect("an ack");
        let event = history.events.remove(ack);
        history.events.push(event);
        sample_history::reports(&history, "result before ack");
    }

    #[test]
    fn a_request_accepted_twice_is_reported() {
        let mut history = sample_history::sound();
        for row in &mut history.record.audit {
            if row.command.as_deref() == Some("c2") {
                row.request = Some("r1".to_owned());
            }
        }
        sample_history::reports(&history, "request ran twice");
        sample_history::reports(&history, "answers differ");
    }

    #[test]
    fn what_still_waits_or_has_no_answer_or_was_altered_is_reported() {
        let mut history = sample_history::sound();
        history.record.left.push("job:j0 queue: c9".to_owned());
        sample_history::reports(&history, "left in Redis");
        let mut history = sample_history::sound();
        history.unanswered.push("r9".to_owned());
        sample_history::reports(&history, "never answered");
        let mut history = sample_history::sound();
        history.record.audit[0].intact = false;
        sample_history::reports(&history, "audit");
    }

    #[test]
    fn a_sound_history_breaks_no_promise() {
        assert_eq!(all(&sample_history::sound()), []);
    }
}
