//! The results that one tenant-wide socket waits for, and the batches they belong to.
//!
//! A result comes over the tenant's feed; what was lost on the way is found by reading the record: when something new
//! is waited for, after a gap, and now and then.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::AcceptedBatch;
use crate::broker::scripts::results::CommandResult;
use crate::domain::{CommandId, Resource};
use crate::gateway::hub::{FeedSubscriber, RecentMap};
use crate::gateway::results::awaited::AwaitedResults;
use crate::protocol::batch_messages::{self, BatchCounts, BatchHeader};

/// Results that one socket may wait for.
pub const MAX_AWAITED: usize = 10_000;
/// Shortest and longest time between two questions about one result.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(15));
/// Results that were told and not taken from the feed, to be told once.
const MAX_DELIVERED: usize = 4_096;

/// What a socket waits for.
pub struct BatchFollower {
    subscriber: Arc<FeedSubscriber>,
    /// How long a command may wait for a worker.
    ttl: Duration,
    /// Each with the batch that it belongs to.
    awaited: AwaitedResults<Option<CommandId>>,
    batches: HashMap<CommandId, ActiveBatch>,
    told: RecentMap<CommandId, ()>,
}

struct ActiveBatch {
    head: BatchHeader,
    waiting: usize,
    counts: BatchCounts,
}

/// Whether, and with what after it, a result is told.
pub enum FollowerEvent {
    /// The client has it already.
    Already,
    /// It is told; then this summary, if it was the last of a batch.
    Now(Option<String>),
}

impl BatchFollower {
    /// Nothing yet. `ttl`: how long a command may wait for a worker.
    pub fn new(subscriber: Arc<FeedSubscriber>, ttl: Duration) -> Self {
        let awaited = AwaitedResults::new(PAUSES);
        Self { subscriber, ttl, awaited, batches: HashMap::new(), told: RecentMap::new(MAX_DELIVERED) }
    }

    /// Whether so many more may be waited for.
    pub fn has_room(&self, more: usize) -> bool {
        self.awaited.len() + more <= MAX_AWAITED
    }

    /// The ack of one command is told; its result shall be. `known`: it is there already.
    pub fn one(
        &mut self,
        resource: Resource,
        command: CommandId,
        known: Option<&CommandResult>,
        out: &mut VecDeque<Utf8Bytes>,
    ) {
        self.expect(std::iter::once((resource, command)), None);
        if let Some(result) = known {
            self.found(result, out);
        }
    }

    /// The ack of a batch is told; its results and its summary shall be.
    pub fn batch(&mut self, accepted: &AcceptedBatch, out: &mut VecDeque<Utf8Bytes>) {
        let batch = accepted.head.batch;
        let commands: Vec<(Resource, CommandId)> = accepted.commands().collect();
        let underway =
            ActiveBatch { head: accepted.head.clone(), waiting: commands.len(), counts: BatchCounts::default() };
        if commands.is_empty() {
            out.push_back(underway.summary().into());
            return;
        }
        self.batches.insert(batch, underway);
        self.expect(commands.into_iter(), Some(batch));
        for result in &accepted.results {
            self.found(result, out);
        }
    }

    fn expect(&mut self, commands: impl Iterator<Item = (Resource, CommandId)>, batch: Option<CommandId>) {
        let commands: Vec<(Resource, CommandId)> = commands.collect();
        self.subscriber.expect(commands.iter().map(|(_, command)| *command));
        for (resource, command) in commands {
            // Asked for at once: they may have ended before the feed knew that they are waited for.
            self.awaited.expect(resource, command, batch, Duration::ZERO);
        }
    }

    /// A result comes out of the feed.
    pub fn heard(&mut self, command: CommandId, succeeded: bool) -> FollowerEvent {
        if self.told.contains(&command) {
            return FollowerEvent::Already;
        }
        FollowerEvent::Now(self.ended(command, succeeded))
    }

    /// A result was found otherwise.
    pub fn found(&mut self, result: &CommandResult, out: &mut VecDeque<Utf8Bytes>) {
        let command = result.command;
        if !self.awaited.contains(command) {
            return;
        }
        // The feed may still bring it.
        self.told.put(command, ());
        out.push_back(result.message.as_str().into());
        let summary = self.ended(command, result.has_succeeded());
        out.extend(summary.map(Utf8Bytes::from));
    }

    fn ended(&mut self, command: CommandId, succeeded: bool) -> Option<String> {
        let batch = self.awaited.remove(command)?;
        self.subscriber.forget(command);
        let underway = self.batches.get_mut(&batch?)?;
        match succeeded {
            true => underway.counts.succeeded += 1,
            false => underway.counts.failed += 1,
        }
        self.complete_one(batch?)
    }

    fn complete_one(&mut self, batch: CommandId) -> Option<String> {
        let underway = self.batches.get_mut(&batch)?;
        underway.waiting = underway.waiting.saturating_sub(1);
        if underway.waiting > 0 {
            return None;
        }
        self.batches.remove(&batch).map(|ended| ended.summary())
    }

    /// Messages were missed: the record is asked as soon as can be.
    pub fn poll_soon(&mut self) {
        self.awaited.poll_soon();
    }

    /// When the record is to be asked.
    pub fn next_poll(&self) -> Option<Instant> {
        self.awaited.next_poll()
    }

    /// What to ask the record for now. Those whose results will not come any more are given up.
    pub fn take_due(&mut self, now: Instant, out: &mut VecDeque<Utf8Bytes>) -> Vec<(Resource, CommandId)> {
        for (command, batch) in self.awaited.take_expired(self.ttl, now) {
            self.subscriber.forget(command);
            let Some(batch) = batch else { continue };
            if let Some(underway) = self.batches.get_mut(&batch) {
                underway.counts.unknown += 1;
            }
            let summary = self.complete_one(batch);
            out.extend(summary.map(Utf8Bytes::from));
        }
        self.awaited.take_due(now)
    }
}

impl ActiveBatch {
    fn summary(&self) -> String {
        batch_messages::completed(&self.head, self.counts, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Action, ResourceKind};
    use crate::gateway::access::ReadableKinds;
    use crate::gateway::outbox::Outbox;
    use crate::protocol::batch_messages::{BatchItem, ItemState};
    use crate::protocol::{ErrorCode, Outcome};

    fn following(ttl: Duration) -> BatchFollower {
        let subscriber = FeedSubscriber::new(Arc::new(Outbox::new(8)), Arc::new(ReadableKinds::default()));
        BatchFollower::new(Arc::new(subscriber), ttl)
    }

    fn accepted(commands: &[CommandId], results: Vec<CommandResult>) -> AcceptedBatch {
        let item = |n: usize, state| BatchItem { id: format!("j{n}").parse().expect("id"), state };
        let mut items: Vec<BatchItem> =
            commands.iter().enumerate().map(|(n, command)| item(n, ItemState::Accepted(*command, None))).collect();
        items.push(item(99, ItemState::Refused(ErrorCode::NotFound, String::new())));
        let head = BatchHeader {
            batch: CommandId::generate(),
            tenant: "t".parse().expect("tenant"),
            kind: ResourceKind::Job,
            action: Action::Cancel,
            total: items.len(),
            refused: 1,
            request_id: None,
        };
        AcceptedBatch { head, workers_online: 1, items, more: false, results }
    }

    const DONE: &str = r#"{"type":"cancel_succeeded"}"#;

    fn done(command: CommandId) -> CommandResult {
        let outcome = Outcome::Succeeded("cancelled".to_owned());
        CommandResult { command, ended_at: 0, workers_online: 0, outcome, control: None, message: DONE.to_owned() }
    }

    #[test]
    fn the_summary_follows_the_last_result_whichever_way_the_results_come() {
        let commands: Vec<CommandId> = (0..4).map(|_| CommandId::generate()).collect();
        let mut out = VecDeque::new();
        let mut following = following(Duration::from_secs(60));
        following.batch(&accepted(&commands, vec![done(commands[0])]), &mut out);
        assert_eq!(out.drain(..).collect::<Vec<_>>(), [DONE]);
        assert!(matches!(following.heard(commands[0], true), FollowerEvent::Already));
        assert!(matches!(following.heard(commands[1], false), FollowerEvent::Now(None)));
        assert!(matches!(following.heard(CommandId::generate(), true), FollowerEvent::Now(None)), "somebody else's");
        following.found(&done(commands[2]), &mut out);
        following.found(&done(commands[2]), &mut out);
        assert_eq!(out.drain(..).collect::<Vec<_>>(), [DONE]);
        assert_eq!(following.take_due(Instant::now(), &mut out).len(), 1);
        let FollowerEvent::Now(Some(summary)) = following.heard(commands[3], true) else { panic!("no summary") };
        assert!(summary.contains(r#""total":5,"succeeded":3,"failed":1,"refused":1"#), "{summary}");
        assert!(following.next_poll().is_none() && out.is_empty());
    }

    #[test]
    fn a_batch_without_commands_is_over_at_once() {
        let mut out = VecDeque::new();
        following(Duration::ZERO).batch(&accepted(&[], Vec::new()), &mut out);
        assert!(out[0].contains(r#""total":1,"succeeded":0,"failed":0,"refused":1"#), "{out:?}");
    }

    #[test]
    fn results_that_never_come_do_not_hold_the_summary_for_ever() {
        let commands: Vec<CommandId> = (0..2).map(|_| CommandId::generate()).collect();
        let mut out = VecDeque::new();
        let mut following = following(Duration::from_secs(60));
        following.batch(&accepted(&commands, Vec::new()), &mut out);
        following.heard(commands[0], true);
        assert_eq!(following.take_due(Instant::now(), &mut out).len(), 1);
        assert!(out.is_empty());
        let late = Instant::now() + Duration::from_secs(181);
        assert!(following.take_due(late, &mut out).is_empty());
        assert!(out[0].contains(r#""succeeded":1,"failed":0,"refused":1,"unknown":1"#), "{out:?}");
    }
}
