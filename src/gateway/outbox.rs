//! What waits for one socket: bounded, with progress folded to the newest of each resource.
//!
//! Results and changes of state are never dropped. A socket that leaves more of them waiting than the limit
//! is closed with 4413 instead, and finds the truth in the snapshot when it comes back.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;

use futures_util::task::AtomicWaker;
use parking_lot::{Mutex, MutexGuard};
use tokio_tungstenite::tungstenite::Utf8Bytes;

use crate::broker::scripts::results::CommandResult;
use crate::domain::{CommandId, Resource};
use crate::http::close::Close;
use crate::telemetry::metrics;

/// Places left empty in the middle of the queue before it is closed up.
const MAX_GAPS: usize = 32;

/// One message for everybody who watches; the text is shared by all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Push {
    /// How far the work is: of several that wait only the newest of each resource is of any use.
    Progress {
        /// Whose; shared, as the text is: there may be thousands of sockets.
        resource: Arc<Resource>,
        /// Its number on the resource's stream, where it has one.
        seq: Option<i64>,
        /// The message.
        text: Utf8Bytes,
    },
    /// A change of state.
    Status {
        /// Its number on the resource's stream, where it has one.
        seq: Option<i64>,
        /// The message.
        text: Utf8Bytes,
    },
    /// A command's result.
    Result {
        /// Which command.
        command: CommandId,
        /// Whether it was applied.
        succeeded: bool,
        /// The message.
        text: Utf8Bytes,
    },
    /// A word of the gateway that has its place among the others.
    Notice(Utf8Bytes),
    /// Messages were missed. One that waits behind everything says it for all.
    Missed(Utf8Bytes),
    /// How many workers are alive. Of several that wait only the newest is of any use.
    Workers(Utf8Bytes),
    /// The feed is interrupted, or goes on. Of several that wait only the newest is of any use.
    Interruption(Utf8Bytes),
}

impl Push {
    /// A command's result.
    pub fn result(result: CommandResult) -> Self {
        Self::Result { command: result.command, succeeded: result.has_succeeded(), text: result.message.into() }
    }

    fn seq(&self) -> Option<i64> {
        match self {
            Self::Progress { seq, .. } | Self::Status { seq, .. } => *seq,
            Self::Result { .. } | Self::Notice(_) | Self::Missed(_) => None,
            Self::Workers(_) | Self::Interruption(_) => None,
        }
    }
}

/// The queue between the hub, which fills it, and the socket's own task, which empties it.
pub struct Outbox {
    state: Mutex<OutboxState>,
    wake: AtomicWaker,
    limit: usize,
    /// The client has asked to be told when what it sees may be old.
    tells_interruptions: bool,
}

struct OutboxState {
    /// A place whose message was taken out of the middle is empty.
    queue: VecDeque<Option<Push>>,
    /// The number of the first place.
    first: u64,
    gaps: usize,
    /// Where the progress of each resource waits; there is never a second. Mostly none or one: looked through.
    progress: Vec<(Arc<Resource>, u64)>,
    /// Updates up to this number are in the snapshot already.
    min_seq: i64,
    /// The last that the client was told is that no worker is alive.
    told_of_no_worker: bool,
    /// The last that the client was told is that its feed is interrupted.
    is_interrupted: bool,
    close: Option<Close>,
}

impl Outbox {
    /// Empty; `limit` messages may wait, and as many of progress, each of another resource.
    pub fn new(limit: usize) -> Self {
        let state = OutboxState {
            queue: VecDeque::new(),
            first: 0,
            gaps: 0,
            progress: Vec::new(),
            min_seq: i64::MIN,
            told_of_no_worker: false,
            is_interrupted: false,
            close: None,
        };
        let limit = limit.max(1);
        Self { state: Mutex::new(state), wake: AtomicWaker::new(), limit, tells_interruptions: false }
    }

    /// Its client is told, or not, when what it sees may be old.
    pub fn telling_interruptions(self, tells_interruptions: bool) -> Self {
        Self { tells_interruptions, ..self }
    }

    /// Adds a message. Nothing is added to a socket that is closing.
    pub fn push(&self, push: Push) {
        {
            let mut state = self.lock();
            if state.close.is_some() || push.seq().is_some_and(|seq| seq <= state.min_seq) {
                return;
            }
            if !state.add(push, self.limit) {
                state.close_with(Close::too_slow());
            }
        }
        self.wake.wake();
    }

    /// The first messages say that so many workers are alive.
    pub fn greeted_with_workers(&self, online: usize) {
        self.lock().told_of_no_worker = online == 0;
    }

    /// So many workers are alive, which `text` says: added where it is news to this client whether there is any.
    pub fn tell_workers(&self, online: usize, text: &Utf8Bytes) {
        {
            let mut state = self.lock();
            if state.close.is_some() || state.told_of_no_worker == (online == 0) {
                return;
            }
            state.told_of_no_worker = online == 0;
            state.add(Push::Workers(text.clone()), self.limit);
        }
        self.wake.wake();
    }

    /// What the client sees may be old, which `text` says: added where it wants to know and does not know it yet.
    pub fn interrupt(&self, text: &Utf8Bytes) {
        if self.tells_interruptions {
            self.tell_interruption(true, text);
        }
    }

    /// What the client is sent is true again, which `text` says: added where it was told otherwise.
    pub fn resume(&self, text: &Utf8Bytes) {
        self.tell_interruption(false, text);
    }

    /// Whether the client was told that what it sees may be old, and not yet that this is over.
    pub fn is_interrupted(&self) -> bool {
        self.lock().is_interrupted
    }

    fn tell_interruption(&self, is_interrupted: bool, text: &Utf8Bytes) {
        {
            let mut state = self.lock();
            if state.close.is_some() || state.is_interrupted == is_interrupted {
                return;
            }
            state.is_interrupted = is_interrupted;
            state.add(Push::Interruption(text.clone()), self.limit);
        }
        self.wake.wake();
    }

    /// The next message. `hold_results`: a command's answer is still to come, and must come before its result.
    pub fn pop(&self, hold_results: bool) -> Option<Push> {
        let mut state = self.lock();
        let may_go = |push: &Push| !hold_results || !matches!(push, Push::Result { .. });
        let index = state.queue.iter().position(|place| place.as_ref().is_some_and(may_go))?;
        let push = state.take(index);
        if let Some(Push::Progress { resource, .. }) = &push {
            state.drop_progress(resource);
        }
        if state.queue.is_empty() {
            // Most sockets are idle most of the time.
            state.queue.shrink_to(1);
            state.progress.shrink_to(4);
        }
        push
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.lock().queue.is_empty()
    }

    /// The snapshot says everything up to this number.
    pub fn set_min_seq(&self, seq: i64) {
        let mut state = self.lock();
        state.min_seq = seq;
        let waiting = state.clear();
        for push in waiting.into_iter().filter(|push| push.seq().is_none_or(|n| n > seq)) {
            state.put(push);
        }
    }

    /// The numbers have begun anew (Redis lost its data): a minimum above them would hide everything.
    pub fn lower_min_seq(&self, seq: i64) {
        let mut state = self.lock();
        if state.min_seq > seq {
            state.min_seq = i64::MIN;
        }
    }

    /// Asks the socket's task to close. The first one who asks decides with which code.
    pub fn close(&self, close: Close) {
        self.lock().close_with(close);
        self.wake.wake();
    }

    /// Whether, and how, the socket shall close.
    pub fn closing(&self) -> Option<Close> {
        self.lock().close.clone()
    }

    /// Wakes the socket's task though nothing was added: something else has to be looked at.
    pub fn wake(&self) {
        self.wake.wake();
    }

    /// The task to wake when something is added. Register first, then look.
    pub fn register(&self, waker: &Waker) {
        self.wake.register(waker);
    }

    fn lock(&self) -> MutexGuard<'_, OutboxState> {
        self.state.lock()
    }
}

impl OutboxState {
    /// `false`: there is no room.
    fn add(&mut self, push: Push, limit: usize) -> bool {
        match &push {
            Push::Progress { resource, .. } => {
                // Taken out and put at the end: it must not overtake a change of state.
                if let Some(number) = self.drop_progress(resource) {
                    self.take(usize::try_from(number - self.first).unwrap_or(usize::MAX));
                    metrics::message_folded();
                } else if self.progress.len() >= limit {
                    return false;
                }
            }
            Push::Missed(_) | Push::Workers(_) | Push::Interruption(_) => {
                // To the end as well: what the client reads when it is told must be newer than all that waits. There
                // is always room, since there is never a second.
                let kind = std::mem::discriminant(&push);
                let waiting = |place: &Option<Push>| place.as_ref().map(std::mem::discriminant) == Some(kind);
                if let Some(index) = self.queue.iter().position(waiting) {
                    self.take(index);
                }
            }
            _ if self.queue.len() - self.gaps - self.progress.len() >= limit => return false,
            _ => {}
        }
        self.put(push);
        true
    }

    /// Where a resource's progress waited.
    fn drop_progress(&mut self, resource: &Arc<Resource>) -> Option<u64> {
        // Mostly the very same; each update of a tenant's feed has a resource of its own.
        let same = |other: &Arc<Resource>| Arc::ptr_eq(other, resource) || other == resource;
        let at = self.progress.iter().position(|(other, _)| same(other))?;
        Some(self.progress.swap_remove(at).1)
    }

    fn put(&mut self, push: Push) {
        if let Push::Progress { resource, .. } = &push {
            self.progress.push((resource.clone(), self.first + self.queue.len() as u64));
        }
        self.queue.push_back(Some(push));
    }

    /// Takes the message out of a place.
    fn take(&mut self, index: usize) -> Option<Push> {
        let push = self.queue.get_mut(index)?.take();
        self.gaps += usize::from(push.is_some());
        while matches!(self.queue.front(), Some(None)) {
            self.queue.pop_front();
            self.first += 1;
            self.gaps -= 1;
        }
        if self.gaps > MAX_GAPS && self.gaps > self.queue.len() / 2 {
            for push in self.clear() {
                self.put(push);
            }
        }
        push
    }

    /// Empties the queue; gives what waited, in its order.
    fn clear(&mut self) -> Vec<Push> {
        self.first += self.queue.len() as u64;
        self.gaps = 0;
        self.progress.clear();
        self.queue.drain(..).flatten().collect()
    }

    fn close_with(&mut self, close: Close) {
        if self.close.is_some() {
            return;
        }
        if !close.delivers_first() {
            self.clear();
            (self.queue, self.progress) = (VecDeque::new(), Vec::new());
        }
        self.close = Some(close);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress_of(id: &str, seq: i64) -> Push {
        let resource = Resource::parse(&format!("t:job:{id}")).expect("resource");
        Push::Progress { resource: resource.into(), seq: Some(seq), text: format!("{id}{seq}").into() }
    }

    fn progress(seq: i64) -> Push {
        progress_of("p", seq)
    }

    fn status(seq: i64) -> Push {
        Push::Status { seq: Some(seq), text: format!("s{seq}").into() }
    }

    fn result(command: CommandId) -> Push {
        Push::Result { command, succeeded: true, text: "r".into() }
    }

    fn all(outbox: &Outbox) -> Vec<Push> {
        std::iter::from_fn(|| outbox.pop(false)).collect()
    }

    #[test]
    fn progress_is_folded_to_the_newest_and_never_overtakes_a_change_of_state() {
        let outbox = Outbox::new(10);
        for push in [progress(1), progress(2), status(3), progress(4), progress(5), status(6)] {
            outbox.push(push);
        }
        assert_eq!(all(&outbox), [status(3), progress(5), status(6)]);
        outbox.push(progress(7));
        assert_eq!(all(&outbox), [progress(7)]);
    }

    #[test]
    fn progress_of_each_resource_is_folded_by_itself_however_much_of_it_comes() {
        let outbox = Outbox::new(10);
        for seq in 1..=1_000 {
            for id in ["a", "b", "c"] {
                outbox.push(progress_of(id, seq));
            }
            if seq == 500 {
                outbox.push(status(500));
            }
        }
        assert!(outbox.lock().queue.len() < 100, "folded messages leave no places behind for ever");
        let newest = ["a", "b", "c"].map(|id| progress_of(id, 1_000));
        assert_eq!(all(&outbox), [vec![status(500)], newest.to_vec()].concat());
        assert_eq!(outbox.lock().gaps, 0);
    }

    #[test]
    fn as_many_resources_as_messages_may_wait() {
        let outbox = Outbox::new(3);
        for id in ["a", "b", "c", "a"] {
            outbox.push(progress_of(id, 1));
        }
        assert_eq!(outbox.closing(), None);
        outbox.push(progress_of("d", 1));
        assert_eq!(outbox.closing(), Some(Close::too_slow()));
    }

    #[test]
    fn what_was_missed_is_said_once_after_everything_that_is_older() {
        let outbox = Outbox::new(3);
        let missed = Push::Missed("m".into());
        for push in [status(1), missed.clone(), missed.clone(), status(2), missed.clone()] {
            outbox.push(push);
        }
        assert_eq!(all(&outbox), [status(1), status(2), missed.clone()]);
        outbox.push(missed.clone());
        assert_eq!(all(&outbox), [missed]);
    }

    #[test]
    fn that_no_worker_is_alive_is_said_when_it_is_news_and_folded_while_it_waits() {
        let told = |text: &'static str| Push::Workers(text.into());
        let tell = |outbox: &Outbox, online| outbox.tell_workers(online, &format!("w{online}").into());
        let outbox = Outbox::new(1);
        tell(&outbox, 3);
        assert!(outbox.is_empty(), "nobody was told that there is none");
        for online in [0, 0, 2, 3, 0] {
            tell(&outbox, online);
        }
        assert_eq!(outbox.closing(), None);
        assert_eq!(all(&outbox), [told("w0")]);
        tell(&outbox, 0);
        tell(&outbox, 1);
        assert_eq!(all(&outbox), [told("w1")]);
        outbox.greeted_with_workers(0);
        tell(&outbox, 0);
        assert!(outbox.is_empty(), "the first messages have said so");
        tell(&outbox, 1);
        assert_eq!(all(&outbox), [told("w1")]);
    }

    #[test]
    fn that_the_feed_is_interrupted_is_said_to_those_who_asked_and_that_it_goes_on_to_those_who_were_told() {
        let (interrupted, resumed): (Utf8Bytes, Utf8Bytes) = ("i".into(), "r".into());
        let plain = Outbox::new(1);
        plain.interrupt(&interrupted);
        plain.resume(&resumed);
        assert!(plain.is_empty() && !plain.is_interrupted());
        let outbox = Outbox::new(1).telling_interruptions(true);
        outbox.resume(&resumed);
        assert!(outbox.is_empty(), "nothing was interrupted");
        outbox.push(status(1));
        for _ in 0..3 {
            outbox.interrupt(&interrupted);
        }
        assert!(outbox.is_interrupted());
        assert_eq!(all(&outbox), [status(1), Push::Interruption(interrupted.clone())]);
        outbox.resume(&resumed);
        outbox.interrupt(&interrupted);
        outbox.resume(&resumed);
        assert_eq!(all(&outbox), [Push::Interruption(resumed)], "of several that wait the newest counts");
        assert_eq!(outbox.closing(), None);
    }

    #[test]
    fn progress_does_not_count_and_everything_else_does() {
        let outbox = Outbox::new(2);
        for seq in 1..100 {
            outbox.push(progress(seq));
        }
        outbox.push(status(100));
        outbox.push(result(CommandId::generate()));
        outbox.push(progress(101));
        assert_eq!(outbox.closing(), None);
        outbox.push(status(102));
        assert_eq!(outbox.closing(), Some(Close::too_slow()));
        assert!(outbox.is_empty(), "what waited goes with the socket");
        outbox.push(status(103));
        assert!(outbox.is_empty(), "a closing socket takes nothing");
    }

    #[test]
    fn results_wait_while_an_answer_is_on_its_way_and_the_rest_goes_on() {
        let outbox = Outbox::new(10);
        let command = CommandId::generate();
        for push in [result(command), status(1), progress(2)] {
            outbox.push(push);
        }
        assert_eq!(outbox.pop(true), Some(status(1)));
        assert_eq!(outbox.pop(true), Some(progress(2)));
        assert_eq!(outbox.pop(true), None);
        assert_eq!(outbox.pop(false), Some(result(command)));
        assert_eq!(outbox.pop(false), None);
    }

    #[test]
    fn what_the_snapshot_says_is_not_said_again() {
        let outbox = Outbox::new(10);
        let unnumbered = Push::Status { seq: None, text: "n".into() };
        for push in [status(4), progress(5), unnumbered.clone()] {
            outbox.push(push);
        }
        outbox.set_min_seq(5);
        outbox.push(status(5));
        outbox.push(status(6));
        assert_eq!(all(&outbox), [unnumbered, status(6)]);
        outbox.push(progress(7));
        assert_eq!(all(&outbox), [progress(7)]);
    }

    #[test]
    fn numbers_that_begin_anew_are_heard() {
        let outbox = Outbox::new(10);
        outbox.set_min_seq(50);
        outbox.lower_min_seq(60);
        outbox.push(status(50));
        assert!(outbox.is_empty());
        outbox.lower_min_seq(2);
        outbox.push(status(2));
        assert_eq!(all(&outbox), [status(2)]);
    }

    #[test]
    fn a_drain_delivers_first_and_a_revocation_does_not() {
        let outbox = Outbox::new(10);
        outbox.push(status(1));
        outbox.close(Close::drain());
        outbox.close(Close::revoked());
        assert_eq!(outbox.closing().map(|c| c.code()), Some(1012));
        assert_eq!(all(&outbox), [status(1)]);
        let outbox = Outbox::new(10);
        outbox.push(status(1));
        outbox.close(Close::revoked());
        assert!(outbox.is_empty());
    }
}
