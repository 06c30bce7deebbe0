//! What can happen next, and what it changes.

use crate::state::{
    Claim, Command, Design, End, Entry, FIRST, GATEWAY, HOST, Held, Host, Phase, Redis, SECOND, Server, State, WORKERS,
};

/// One thing that happens. Each is what one script, one transaction or one message does: nothing comes in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// The client asks, by way of the gateway.
    Submit,
    /// The gateway ends the first command, which no worker has taken.
    Expire,
    /// A worker is given the first command.
    Claim(usize),
    /// It carries it out: one transaction.
    Apply(usize),
    /// It does not hear that the other server has its claim, and leaves the command to whoever is given it next.
    GiveUp(usize),
    /// It says what became of it.
    Complete(usize),
    /// It moves an audit entry from Redis to SQL.
    Ship(usize),
    /// A worker puts into the trail what SQL has applied and Redis has not brought.
    Recover(Command),
    /// A lease ends at a server.
    LeaseEnds(Server),
    /// The host is heard where it is connected.
    Heartbeat,
    /// The host's heartbeat ends at a server at which it is not heard.
    HeartbeatEnds(Server),
    /// A worker calls the host dead, and its job failed.
    CallDead(usize),
    HostDies,
    /// One server gives the other all that it has.
    Replicate,
    Cut,
    Promote,
    /// A program hears that the second server is the master.
    Follow(usize),
    Join,
}

impl Design {
    /// Everything that can happen in this state.
    pub fn steps(&self, state: &State) -> Vec<Step> {
        let mut steps = Vec::new();
        let mut may = |step, condition: bool| steps.extend(condition.then_some(step));
        let at = |program: usize| state.view[program];
        let writes = |program: usize| state.takes_writes(at(program));
        let lives = |worker: usize| worker != HOST || state.host_lives;

        let gateway = &state.redis[at(GATEWAY)];
        may(Step::Submit, writes(GATEWAY) && state.asked < self.tries);
        may(Step::Expire, writes(GATEWAY) && !gateway.queue.is_empty() && !gateway.claimed);
        for worker in WORKERS.into_iter().filter(|worker| lives(*worker)) {
            let redis = &state.redis[at(worker)];
            match &state.held[worker] {
                None => may(Step::Claim(worker), writes(worker) && !redis.queue.is_empty() && redis.lease.is_none()),
                Some(held) if held.outcome.is_none() => {
                    let may_begin = held.replicated || !self.waits_for_replica;
                    may(Step::Apply(worker), may_begin);
                    may(Step::GiveUp(worker), !may_begin && state.phase == Phase::Joined && held.at == FIRST);
                }
                Some(_) => may(Step::Complete(worker), writes(worker)),
            }
            let may_ship = !self.results_wait || state.is_replicated(at(worker));
            may(Step::Ship(worker), writes(worker) && may_ship && !redis.stream.is_empty());
            // The other sees whether the host's lease in SQL grows.
            let is_missed = worker != HOST && !redis.heartbeat && !state.sql.job_failed;
            may(Step::CallDead(worker), writes(worker) && is_missed && !(self.sql_decides && state.host_lives));
        }
        for command in 0..state.next {
            let is_applied = matches!(state.sql.outcomes.get(&command), Some(End::Succeeded));
            let is_audited = state.trail_of(command).any(Entry::is_end);
            may(Step::Recover(command), self.sql_decides && is_applied && !is_audited);
        }
        for server in [FIRST, SECOND] {
            let redis = &state.redis[server];
            let is_held = |claim: Claim| state.held[claim.worker].is_some_and(|held| held.claim == claim);
            let ends = redis.lease.is_some_and(|claim| !is_held(claim) || state.lease_ends < self.lease_ends);
            may(Step::LeaseEnds(server), state.takes_writes(server) && ends);
            let is_heard = state.host_lives && at(HOST) == server && state.takes_writes(server);
            let ends = redis.heartbeat && !is_heard && state.takes_writes(server);
            may(Step::HeartbeatEnds(server), self.host != Host::Unwatched && ends);
        }
        may(Step::Heartbeat, state.host_lives && writes(HOST) && !state.redis[at(HOST)].heartbeat);
        may(Step::HostDies, self.host == Host::MayDie && state.host_lives);
        may(Step::Replicate, state.lags());
        may(Step::Cut, state.phase == Phase::Together);
        may(Step::Promote, state.phase == Phase::Cut);
        may(Step::Join, state.phase == Phase::Split);
        for program in [GATEWAY].into_iter().chain(WORKERS).filter(|program| lives(*program)) {
            may(Step::Follow(program), state.phase >= Phase::Split && at(program) == FIRST);
        }
        steps
    }

    /// The state after a step.
    pub fn after(&self, before: &State, step: Step) -> State {
        let mut state = before.clone();
        match step {
            Step::Submit => self.submit(&mut state),
            Step::Expire => {
                let command = state.redis[before.view[GATEWAY]].queue.remove(0);
                self.end(&mut state, before.view[GATEWAY], command, End::Expired);
            }
            Step::Claim(worker) => {
                let at = state.view[worker];
                let redis = &mut state.redis[at];
                redis.fence += 1;
                let claim = Claim { command: redis.queue[0], worker, fence: redis.fence };
                redis.lease = Some(claim);
                redis.claimed = true;
                state.held[worker] = Some(Held { claim, at, replicated: false, outcome: None });
            }
            Step::Apply(worker) => self.apply(&mut state, worker),
            Step::GiveUp(worker) => state.held[worker] = None,
            Step::Complete(worker) => self.complete(&mut state, worker),
            Step::Ship(worker) => {
                let entry = state.redis[before.view[worker]].stream.remove(0);
                self.append(&mut state, entry);
            }
            Step::Recover(command) => {
                if !state.trail_of(command).any(|entry| entry == Entry::Accepted(command)) {
                    self.append(&mut state, Entry::Accepted(command));
                }
                self.append(&mut state, Entry::Ended(command, End::Succeeded));
            }
            Step::LeaseEnds(server) => {
                let claim = state.redis[server].lease.take();
                let is_held = claim.is_some_and(|claim| state.held[claim.worker].is_some_and(|h| h.claim == claim));
                state.lease_ends += u8::from(is_held);
            }
            Step::Heartbeat => state.redis[before.view[HOST]].heartbeat = true,
            Step::HeartbeatEnds(server) => state.redis[server].heartbeat = false,
            Step::CallDead(_) => state.sql.job_failed = true,
            Step::HostDies => {
                state.host_lives = false;
                state.held[HOST] = None;
            }
            Step::Replicate => replicate(&mut state),
            Step::Cut => state.phase = Phase::Cut,
            Step::Promote => state.phase = Phase::Split,
            Step::Follow(program) => state.view[program] = SECOND,
            Step::Join => {
                state.phase = Phase::Joined;
                // Nobody is a master after this one: what it has as a replica is of no account.
                state.redis[FIRST] = Redis::default();
                state.unacknowledged.retain(|(at, _)| *at == SECOND);
                state.untold.retain(|(at, ..)| *at == SECOND);
            }
        }
        state
    }

    fn submit(&self, state: &mut State) {
        state.asked += 1;
        let at = state.view[GATEWAY];
        let redis = &mut state.redis[at];
        let command = redis.request.unwrap_or_else(|| {
            let command = state.next;
            state.next += 1;
            redis.request = Some(command);
            redis.queue.push(command);
            redis.stream.push(Entry::Accepted(command));
            command
        });
        if self.waits_for_replica {
            state.unacknowledged.insert((at, command));
        } else {
            state.acknowledged.insert(command);
        }
    }

    fn apply(&self, state: &mut State, worker: usize) {
        let Some(held) = &mut state.held[worker] else { return };
        let (sql, claim) = (&mut state.sql, held.claim);
        if sql.fence > claim.fence {
            state.held[worker] = None;
            return;
        }
        sql.fence = claim.fence;
        let known = sql.outcomes.get(&claim.command).copied();
        let outcome = known.unwrap_or_else(|| {
            let is_repeat = self.sql_decides && sql.outcomes.values().any(|outcome| *outcome == End::Succeeded);
            sql.effects += u8::from(!is_repeat);
            End::Succeeded
        });
        sql.outcomes.insert(claim.command, outcome);
        held.outcome = Some(outcome);
    }

    fn complete(&self, state: &mut State, worker: usize) {
        let Some(Held { claim, outcome: Some(outcome), .. }) = state.held[worker].take() else { return };
        let at = state.view[worker];
        let redis = &mut state.redis[at];
        if redis.lease == Some(claim) {
            redis.queue.remove(0);
            (redis.lease, redis.claimed) = (None, false);
            self.end(state, at, claim.command, outcome);
        }
    }

    /// The result of a command that is out of the queue.
    fn end(&self, state: &mut State, at: Server, command: Command, end: End) {
        state.redis[at].results.insert(command, end);
        state.redis[at].stream.push(Entry::Ended(command, end));
        if self.results_wait {
            state.untold.insert((at, command, end));
        } else {
            state.told.insert((command, end));
        }
    }

    /// What `append_audit` does: see `src/store/audit/ends.rs`.
    fn append(&self, state: &mut State, entry: Entry) {
        if self.sql_decides {
            let has_ended = state.trail_of(entry.command()).any(Entry::is_end);
            if has_ended || state.trail_of(entry.command()).any(|known| known == entry) {
                return;
            }
            if let Entry::Ended(command, End::Expired) = entry {
                // From now on it is not carried out; and if it was, the line is untrue.
                if *state.sql.outcomes.entry(command).or_insert(End::Refused) == End::Succeeded {
                    return;
                }
            }
        }
        state.sql.trail.push(entry);
    }
}

fn replicate(state: &mut State) {
    let Some(source) = state.source() else { return };
    if state.phase == Phase::Together {
        state.redis[SECOND] = state.redis[FIRST].clone();
    }
    for held in state.held.iter_mut().flatten().filter(|held| held.at == source) {
        held.replicated = true;
    }
    for (_, command) in state.unacknowledged.extract_if(.., |(at, _)| *at == source) {
        state.acknowledged.insert(command);
    }
    for (_, command, end) in state.untold.extract_if(.., |(at, ..)| *at == source) {
        state.told.insert((command, end));
    }
}
