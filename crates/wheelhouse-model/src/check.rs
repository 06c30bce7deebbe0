//! The checker goes through every state, and finds the faults of the design before, and none in the one that stands.

use stateright::{Checker, Expectation, Model, Property};

use crate::state::{Design, End, Entry, Host, Phase, State};
use crate::steps::Step;

const ONCE: &str = "a request is carried out once";
const TRAIL: &str = "each line of a command is in the trail once, and one end";
const TOLD: &str = "one end of a command is told";
const ALIVE: &str = "the job of a host that lives is not called failed";
const ACKNOWLEDGED: &str = "what was acknowledged has its end where everybody looks";
const AUDITED: &str = "what changed a row is in the trail at the end";
const ENDED: &str = "what the trail calls accepted has an end there at the end";

impl Model for Design {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![State::first()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Step>) {
        actions.extend(self.steps(state));
    }

    fn next_state(&self, state: &State, step: Step) -> Option<State> {
        Some(self.after(state, step))
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let dies = Property::sometimes("a host that has died is called dead", |_, state: &State| state.sql.job_failed);
        let mut properties = vec![
            Property::always(ONCE, |_, state: &State| state.sql.effects <= 1),
            Property::always(TRAIL, |_, state: &State| {
                (0..state.next).all(|command| {
                    let lines: Vec<Entry> = state.trail_of(command).collect();
                    let ends = lines.iter().filter(|line| line.is_end()).count();
                    ends <= 1 && lines.len() - ends <= 1
                })
            }),
            Property::always(TOLD, |_, state: &State| {
                (0..state.next).all(|command| state.told.iter().filter(|(of, _)| *of == command).count() <= 1)
            }),
            Property::always(ALIVE, |_, state: &State| !state.sql.job_failed || !state.host_lives),
            Property::always(ACKNOWLEDGED, |model: &Self, state: &State| {
                !model.steps(state).is_empty()
                    || state.acknowledged.iter().all(|command| {
                        let survivor = &state.redis[state.view[0]];
                        survivor.results.contains_key(command) && state.trail_of(*command).any(Entry::is_end)
                    })
            }),
            Property::always(AUDITED, |model: &Self, state: &State| {
                !model.steps(state).is_empty()
                    || state.sql.effects == 0
                    || state.sql.trail.iter().any(|line| matches!(line, Entry::Ended(_, End::Succeeded)))
            }),
            Property::always(ENDED, |model: &Self, state: &State| {
                let has_ended = |command| state.trail_of(command).any(Entry::is_end);
                !model.steps(state).is_empty() || state.sql.trail.iter().all(|line| has_ended(line.command()))
            }),
            Property::sometimes("a command is in a worker's hands while there are two masters", |_, state: &State| {
                state.phase == Phase::Split && state.held.iter().any(Option::is_some)
            }),
        ];
        properties.extend((self.host == Host::MayDie).then_some(dies));
        properties
    }
}

const NEW: Design = Design {
    sql_decides: true,
    waits_for_replica: true,
    results_wait: true,
    tries: 2,
    lease_ends: 0,
    host: Host::Unwatched,
};

/// The promises that are broken, by name. Everything that should be possible was.
fn broken(design: Design) -> Vec<&'static str> {
    let properties = design.properties();
    let checker = design.checker().spawn_bfs().join();
    let found = checker.discoveries();
    println!("{design:?}: {} states", checker.unique_state_count());
    for property in properties.iter().filter(|property| property.expectation == Expectation::Sometimes) {
        assert!(found.contains_key(property.name), "never: {}", property.name);
    }
    let broken = properties.iter().filter(|property| property.expectation == Expectation::Always);
    let mut broken: Vec<_> = broken.map(|property| property.name).filter(|name| found.contains_key(name)).collect();
    for name in &broken {
        println!("{name}, broken by:\n  {:?}", found[name].clone().into_actions());
    }
    broken.sort_unstable();
    broken
}

/// The design before: Redis alone knows.
const BEFORE: Design = Design { sql_decides: false, waits_for_replica: false, results_wait: false, ..NEW };

#[test]
fn no_order_of_events_breaks_a_promise() {
    for design in [
        NEW,
        Design { tries: 1, lease_ends: 1, ..NEW },
        Design { tries: 1, host: Host::Lives, ..NEW },
        Design { tries: 1, host: Host::MayDie, ..NEW },
    ] {
        assert_eq!(broken(design), [] as [&str; 0]);
    }
}

#[test]
fn the_design_before_breaks_every_promise_in_a_split_brain() {
    let mut commands = [ONCE, TRAIL, TOLD, ACKNOWLEDGED, AUDITED, ENDED];
    commands.sort_unstable();
    assert_eq!(broken(BEFORE), commands);
    assert!(broken(Design { tries: 1, host: Host::Lives, ..BEFORE }).contains(&ALIVE));
}

#[test]
fn without_replicas_sql_alone_keeps_the_row_the_trail_and_healthy_jobs() {
    let mut lost = [TOLD, ACKNOWLEDGED, ENDED];
    lost.sort_unstable();
    assert_eq!(broken(Design { sql_decides: true, ..BEFORE }), lost);
    assert!(!broken(Design { sql_decides: true, tries: 1, host: Host::Lives, ..BEFORE }).contains(&ALIVE));
}

#[test]
fn what_is_told_or_audited_before_a_replica_has_it_may_be_taken_back() {
    let mut taken_back = [TOLD, ENDED];
    taken_back.sort_unstable();
    assert_eq!(broken(Design { results_wait: false, ..NEW }), taken_back);
}
