//! Everything of one tenant, handed to those who want it.

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::OnceCell;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::recent::RecentMap;
use super::update::Update;
use crate::broker::scripts::results::CommandResult;
use crate::domain::{CommandId, JobFacts, Resource, ResourceId, TenantId};
use crate::gateway::access::ReadableKinds;
use crate::gateway::outbox::{Outbox, Push};
use crate::http::close::Close;
use crate::protocol::FeedFilter;
use crate::protocol::tenant::feed_resumed;

/// Results that are remembered as handed out, numbers of streams, and facts of jobs, each.
const CACHE_CAPACITY: usize = 8_192;
/// A result that ended longer ago, in ms, is no news: somebody repeats an old message. It was missed by nobody,
/// because whoever may have missed something was told so.
const MAX_RESULT_AGE_MS: i64 = 60_000;
/// How far this process's idea of Redis's clock may be off, in ms.
const CLOCK_TOLERANCE_MS: i64 = 2_000;

/// One tenant-wide socket: what it wants, and where that goes.
pub struct FeedSubscriber {
    outbox: Arc<Outbox>,
    readable: Arc<ReadableKinds>,
    wants: Mutex<SubscriberFilter>,
}

#[derive(Default)]
struct SubscriberFilter {
    filter: FeedFilter,
    /// Results of its own commands, whatever the filter says.
    awaited: HashSet<CommandId>,
}

/// What a message is about, for [`FeedSubscriber::deliver`].
struct UpdateSubject<'a> {
    resource: &'a Resource,
    status: Option<&'a str>,
    facts: Option<&'a JobFacts>,
    /// Nobody but who awaits this command's result.
    only_for: Option<CommandId>,
}

impl FeedSubscriber {
    /// Wants everything that may be read.
    pub fn new(outbox: Arc<Outbox>, readable: Arc<ReadableKinds>) -> Self {
        Self { outbox, readable, wants: Mutex::default() }
    }

    /// Wants what the filter says from here on: `answer` stands in the outbox where it begins.
    pub fn subscribe(&self, filter: FeedFilter, answer: Utf8Bytes) {
        let mut wants = self.lock();
        wants.filter = filter;
        self.outbox.push(Push::Notice(answer));
    }

    /// Wants the results of these commands.
    pub fn expect(&self, commands: impl Iterator<Item = CommandId>) {
        self.lock().awaited.extend(commands);
    }

    /// No longer wants the result of this one.
    pub fn forget(&self, command: CommandId) {
        let mut wants = self.lock();
        wants.awaited.remove(&command);
        if wants.awaited.is_empty() {
            wants.awaited.shrink_to(0);
        }
    }

    /// What it may read.
    pub fn readable(&self) -> &ReadableKinds {
        &self.readable
    }

    fn needs_facts(&self, resource: &Resource) -> bool {
        self.readable.may(resource.kind) && self.lock().filter.needs_job_facts(resource.kind, &resource.id)
    }

    fn deliver(&self, about: &UpdateSubject<'_>, push: &Push) {
        let wants = self.lock();
        let awaited = matches!(push, Push::Result { command, .. } if wants.awaited.contains(command));
        let resource = about.resource;
        let wanted = about.only_for.is_none()
            && self.readable.may(resource.kind)
            && wants.filter.matches(resource.kind, &resource.id, about.status, about.facts);
        if awaited || wanted {
            // Under the lock: an answer to `subscribe` must not come between.
            self.outbox.push(push.clone());
        }
    }

    fn lock(&self) -> MutexGuard<'_, SubscriberFilter> {
        self.wants.lock()
    }
}

/// What is known of one watched tenant.
pub(super) struct Feed {
    pub(super) tenant: TenantId,
    /// The subscription stands, since this time (Unix ms by Redis's clock).
    pub(super) opened: OnceCell<i64>,
    state: Mutex<FeedState>,
}

struct FeedState {
    subscribers: Vec<Arc<FeedSubscriber>>,
    given: RecentMap<CommandId, ()>,
    /// Highest number of each resource's stream so far.
    numbers: RecentMap<Resource, i64>,
    facts: RecentMap<ResourceId, JobFacts>,
    /// News come again: those who were told otherwise are told so when what was heard before has been handed out.
    resuming: bool,
    /// It may not be heard any more: nobody stays on it.
    closed: bool,
}

impl Feed {
    pub(super) fn new(tenant: TenantId) -> Self {
        let state = FeedState {
            subscribers: Vec::new(),
            given: RecentMap::new(CACHE_CAPACITY),
            numbers: RecentMap::new(CACHE_CAPACITY),
            facts: RecentMap::new(CACHE_CAPACITY),
            resuming: false,
            closed: false,
        };
        Self { tenant, opened: OnceCell::new(), state: Mutex::new(state) }
    }

    pub(super) fn add(&self, subscriber: Arc<FeedSubscriber>) {
        let mut state = self.lock();
        if state.closed {
            subscriber.outbox.close(Close::drain());
        }
        state.subscribers.push(subscriber);
    }

    /// Sends everyone away, now and later: the tenant may not be heard any more.
    pub(super) fn close_all(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.subscribers.iter().for_each(|subscriber| subscriber.outbox.close(Close::drain()));
    }

    pub(super) fn remove(&self, subscriber: &Arc<FeedSubscriber>) {
        let mut state = self.lock();
        if let Some(at) = state.subscribers.iter().position(|other| Arc::ptr_eq(other, subscriber)) {
            state.subscribers.swap_remove(at);
        }
    }

    /// Whether the command's result was handed out already.
    pub(super) fn was_delivered(&self, command: CommandId) -> bool {
        self.lock().given.contains(&command)
    }

    /// Whether some subscriber cannot be served without the facts of this job, which are not known yet.
    pub(super) fn lacks_facts(&self, resource: &Resource) -> bool {
        let mut state = self.lock();
        state.subscribers.iter().any(|subscriber| subscriber.needs_facts(resource))
            && state.facts.refresh(&resource.id).is_none()
    }

    pub(super) fn learn_facts(&self, id: ResourceId, facts: JobFacts) {
        self.lock().facts.put(id, facts);
    }

    /// The last number before an update that has a lower one: an old message again, or the numbers have begun anew.
    pub(super) fn backwards_from(&self, resource: &Resource, update: &Update) -> Option<i64> {
        let last = *self.lock().numbers.get(resource)?;
        update.seq.is_some_and(|seq| seq < last).then_some(last)
    }

    /// The numbers of a resource's stream have begun anew.
    pub(super) fn reset(&self, resource: &Resource) {
        self.lock().numbers.put(resource.clone(), i64::MIN);
    }

    /// Hands an update out, once.
    pub(super) fn update(&self, resource: &Resource, update: Update) {
        let mut state = self.lock();
        if let Some(seq) = update.seq {
            if state.numbers.refresh(resource).is_some_and(|last| seq <= *last) {
                return;
            }
            state.numbers.put(resource.clone(), seq);
        }
        let status = update.status.clone();
        let push = update.push(&Arc::new(resource.clone()));
        state.deliver_all(resource, status.as_deref(), None, &push);
    }

    /// Hands a result out as it is recorded, once. `now`: Unix ms by Redis's clock.
    pub(super) fn result(&self, resource: &Resource, ended: CommandResult, now: i64) {
        let mut state = self.lock();
        if state.given.contains(&ended.command) {
            return;
        }
        state.given.put(ended.command, ());
        let command = ended.command;
        let since = self.opened.get().map_or(i64::MAX, |opened| opened - CLOCK_TOLERANCE_MS);
        let is_news = ended.ended_at >= since.max(now - MAX_RESULT_AGE_MS);
        let push = Push::result(ended);
        state.deliver_all(resource, None, (!is_news).then_some(command), &push);
    }

    /// Tells everyone that messages were missed.
    pub(super) fn notify_resynchronize(&self, text: &Utf8Bytes) {
        for subscriber in &self.lock().subscribers {
            subscriber.outbox.push(Push::Missed(text.clone()));
        }
    }

    /// News may not come, which `text` says.
    pub(super) fn interrupt(&self, text: &Utf8Bytes) {
        let mut state = self.lock();
        state.resuming = false;
        state.subscribers.iter().for_each(|subscriber| subscriber.outbox.interrupt(text));
    }

    /// News come again. Whether there is somebody who was told otherwise.
    pub(super) fn begin_resuming(&self) -> bool {
        let mut state = self.lock();
        state.resuming = state.subscribers.iter().any(|subscriber| subscriber.outbox.is_interrupted());
        state.resuming
    }

    /// What was heard before has been handed out.
    pub(super) fn resume(&self) {
        let mut state = self.lock();
        if std::mem::take(&mut state.resuming) {
            let text: Utf8Bytes = feed_resumed(&self.tenant).into();
            state.subscribers.iter().for_each(|subscriber| subscriber.outbox.resume(&text));
        }
    }

    /// Tells those who could not be served because the facts of this job cannot be had.
    pub(super) fn notify_unserved(&self, resource: &Resource, text: &Utf8Bytes) {
        for subscriber in self.lock().subscribers.iter().filter(|subscriber| subscriber.needs_facts(resource)) {
            subscriber.outbox.push(Push::Missed(text.clone()));
        }
    }

    fn lock(&self) -> MutexGuard<'_, FeedState> {
        self.state.lock()
    }
}

impl FeedState {
    fn deliver_all(&mut self, resource: &Resource, status: Option<&str>, only_for: Option<CommandId>, push: &Push) {
        let about = UpdateSubject { resource, status, facts: self.facts.get(&resource.id), only_for };
        for subscriber in &self.subscribers {
            subscriber.deliver(&about, push);
        }
    }
}
