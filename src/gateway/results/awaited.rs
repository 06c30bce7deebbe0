//! Commands whose results are awaited, and when the record is asked for each of them next: ever more rarely.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

use crate::broker::Broker;
use crate::broker::scripts::results::CommandResult;
use crate::domain::{CommandId, Resource};

/// Commands that are asked about in one go: they share the round trip.
const BATCH_SIZE: usize = 256;
/// How much longer than a command may wait for a worker its result is awaited.
const GRACE: Duration = Duration::from_secs(120);

/// Awaited results, each with something that whoever awaits it wants to know of it.
pub struct AwaitedResults<T> {
    commands: HashMap<CommandId, Awaited<T>>,
    /// The commands by the time at which the record is asked for them next.
    polls: BTreeSet<(Instant, CommandId)>,
    /// Shortest and longest time between two questions about one command.
    pauses: (Duration, Duration),
}

struct Awaited<T> {
    resource: Resource,
    since: Instant,
    next_poll: Instant,
    about: T,
}

impl<T> AwaitedResults<T> {
    /// Nothing is awaited yet. `pauses`: the shortest and the longest time between two questions about one command.
    pub fn new(pauses: (Duration, Duration)) -> Self {
        Self { commands: HashMap::new(), polls: BTreeSet::new(), pauses }
    }

    /// How many results are awaited.
    pub fn len(&self) -> usize {
        self.commands.len()
    }

    /// Whether no result is awaited.
    pub fn is_empty(&self) -> bool {
        self.commands.is_empty()
    }

    /// Whether the result of this command is awaited.
    pub fn contains(&self, command: CommandId) -> bool {
        self.commands.contains_key(&command)
    }

    /// Awaits a result, for which the record is first asked after a while.
    pub fn expect(&mut self, resource: Resource, command: CommandId, about: T, first_poll_in: Duration) {
        let since = Instant::now();
        let next_poll = since + first_poll_in;
        self.remove(command);
        self.commands.insert(command, Awaited { resource, since, next_poll, about });
        self.polls.insert((next_poll, command));
    }

    /// The result is there, or nobody awaits it any more. Gives what was to be known of the command.
    pub fn remove(&mut self, command: CommandId) -> Option<T> {
        let awaited = self.commands.remove(&command)?;
        self.polls.remove(&(awaited.next_poll, command));
        Some(awaited.about)
    }

    /// Removes those that have been awaited for so long that their results will not come any more: only recent ones are
    /// kept, and Redis may have lost them. `ttl`: how long a command may wait for a worker.
    pub fn take_expired(&mut self, ttl: Duration, now: Instant) -> Vec<(CommandId, T)> {
        let is_over = |awaited: &Awaited<T>| now.saturating_duration_since(awaited.since) > ttl + GRACE;
        let over = self.commands.iter().filter(|(_, awaited)| is_over(awaited)).map(|(command, _)| *command);
        let over: Vec<CommandId> = over.collect();
        over.into_iter().filter_map(|command| Some((command, self.remove(command)?))).collect()
    }

    /// Asks for everything as soon as can be: messages were missed.
    pub fn poll_soon(&mut self) {
        let now = Instant::now();
        self.commands.values_mut().for_each(|awaited| awaited.next_poll = now);
        self.polls = self.commands.keys().map(|command| (now, *command)).collect();
    }

    /// When the record is to be asked next.
    pub fn next_poll(&self) -> Option<Instant> {
        self.polls.first().map(|(at, _)| *at)
    }

    /// Some for which the record is to be asked now, as many as are asked in one go.
    pub fn take_due(&mut self, now: Instant) -> Vec<(Resource, CommandId)> {
        let due: Vec<(Instant, CommandId)> =
            self.polls.iter().take_while(|(at, _)| *at <= now).take(BATCH_SIZE).copied().collect();
        let mut asked = Vec::with_capacity(due.len());
        for poll in due {
            self.polls.remove(&poll);
            let Some(awaited) = self.commands.get_mut(&poll.1) else { continue };
            let pause = now.saturating_duration_since(awaited.since) / 2;
            awaited.next_poll = now + pause.clamp(self.pauses.0, self.pauses.1);
            self.polls.insert((awaited.next_poll, poll.1));
            asked.push((awaited.resource.clone(), poll.1));
        }
        asked
    }
}

/// The results of those commands that have one. What cannot be read just now is read the next time: a server that is
/// away delays its own commands and no others.
pub async fn look_up(broker: &Broker, commands: &[(Resource, CommandId)]) -> Vec<CommandResult> {
    let asked = commands.iter().map(|(resource, command)| broker.command_result(resource, *command));
    join_all(asked).await.into_iter().filter_map(|found| found.ok().flatten()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_is_asked_ever_more_rarely_until_the_result_is_there() {
        let mut awaited = AwaitedResults::new((Duration::from_secs(1), Duration::from_secs(30)));
        let resource = Resource::parse("acme:job:j1").expect("resource");
        let (command, other) = (CommandId::generate(), CommandId::generate());
        awaited.expect(resource.clone(), command, 'a', Duration::ZERO);
        awaited.expect(resource.clone(), other, 'b', Duration::from_secs(500));
        let start = awaited.next_poll().expect("a time");
        let (mut at, mut pauses) = (start, Vec::new());
        for _ in 0..12 {
            assert_eq!(awaited.take_due(at), [(resource.clone(), command)]);
            assert!(awaited.take_due(at).is_empty(), "once each time");
            let next = awaited.next_poll().expect("a time");
            pauses.push((next - at).as_secs());
            at = next;
        }
        assert_eq!(pauses, [1, 1, 1, 1, 2, 3, 5, 7, 11, 17, 25, 30]);
        awaited.poll_soon();
        assert_eq!(awaited.take_due(Instant::now()).len(), 2);
        assert_eq!((awaited.remove(command), awaited.remove(command), awaited.len()), (Some('a'), None, 1));
        assert!(awaited.take_expired(Duration::from_secs(60), start).is_empty());
        let late = start + Duration::from_secs(200);
        assert_eq!(awaited.take_expired(Duration::from_secs(60), late), [(other, 'b')]);
        assert!(awaited.is_empty() && awaited.next_poll().is_none());
    }

    #[test]
    fn no_more_are_asked_about_at_once_than_share_a_round_trip() {
        let mut awaited = AwaitedResults::new((Duration::from_secs(1), Duration::from_secs(1)));
        let resource = Resource::parse("acme:job:j1").expect("resource");
        for _ in 0..BATCH_SIZE + 1 {
            awaited.expect(resource.clone(), CommandId::generate(), (), Duration::ZERO);
        }
        let now = Instant::now();
        assert_eq!([awaited.take_due(now).len(), awaited.take_due(now).len()], [BATCH_SIZE, 1]);
        assert!(awaited.take_due(now).is_empty());
    }
}
