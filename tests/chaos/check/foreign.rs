//! Foreign jobs: a step is made only while the row says that the job runs, by one process at a time, and never again once
//! a resume point behind it was stored.

use std::collections::HashMap;

use super::{Index, Violation};
use crate::history::{Change, History, Work};
use crate::support::foreign::{Deed, faults_of};

/// The database's clock and the test's own are of one machine, in whole milliseconds, and one of them is set now and then.
const CLOCKS_MS: i64 = 10;
/// Steps at the wrong time that are reported of each stretch.
const PRINTED: usize = 1;

pub fn check(history: &History, _index: &Index<'_>) -> Vec<Violation> {
    let marks: Vec<_> = history.work.iter().map(|work| (work.resource.clone(), work.attempt, work.deed)).collect();
    let mut found: Vec<Violation> =
        faults_of(&marks).into_iter().map(|(job, what)| Violation::new("steps", &job, what)).collect();
    found.extend(while_it_stands(history));
    found
}

/// No step lies between the row's change to anything but `running` and its next change.
fn while_it_stands(history: &History) -> Vec<Violation> {
    let mut stretches: HashMap<&str, Vec<(i64, &str)>> = HashMap::new();
    for subject in &history.subjects {
        stretches.insert(&subject.name, vec![(i64::MIN, &subject.status)]);
    }
    for effect in &history.record.effects {
        if let Change::Row { resource, status } = &effect.change
            && let Some(changes) = stretches.get_mut(resource.as_str())
        {
            changes.push((effect.at - history.began, status));
        }
    }
    let mut found = Vec::new();
    for (resource, changes) in stretches {
        let is_step = |work: &&Work| work.resource == resource && matches!(work.deed, Deed::Step { .. });
        let steps: Vec<i64> = history.work.iter().filter(is_step).map(|work| work.at as i64).collect();
        for (n, (from, status)) in changes.iter().enumerate().filter(|(_, (_, status))| *status != "running") {
            let to = changes.get(n + 1).map_or(i64::MAX, |(to, _)| *to);
            let stands = from.saturating_add(CLOCKS_MS)..to.saturating_sub(CLOCKS_MS);
            let wrong = steps.iter().filter(|at| stands.contains(at));
            found.extend(wrong.take(PRINTED).map(|at| {
                let what = format!("a step at {at} ms while the row was {status} from {from} to {to} ms");
                Violation::new("a step while it stands", resource, what)
            }));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::{all, sample_history};
    use crate::history::{History, Nature, Work};
    use crate::support::foreign::Deed;

    /// The job j0, which a foreign process runs: paused from 116 to 216 ms, and cancelled at 316.
    fn foreign(work: &[(u64, u64, Deed)]) -> History {
        let mut history = sample_history::sound();
        history.subjects[0].nature = Nature::Foreign;
        let resource = "job:j0".to_owned();
        let work = work.iter().map(|(at, attempt, deed)| Work {
            at: *at,
            resource: resource.clone(),
            attempt: *attempt,
            deed: *deed,
        });
        history.work = work.collect();
        history
    }

    #[test]
    fn steps_while_it_runs_are_sound_and_others_are_reported() {
        let (began, step) = (Deed::Began { from: 0 }, |number| Deed::Step { number });
        let sound = [(1, 1, began), (50, 1, step(0)), (100, 1, step(1)), (250, 1, step(2))];
        assert_eq!(all(&foreign(&sound)), []);
        for at in [150, 190, 350] {
            sample_history::reports(&foreign(&[(1, 1, began), (at, 1, step(0))]), "a step while it stands");
        }
        sample_history::reports(&foreign(&[(1, 1, began), (50, 1, step(1))]), "steps");
    }
}
