//! What a worker hears: its own channel always, and the control channels of the tenants that it serves while there are few workers, or
//! while it is one of the few that hear for many.
//!
//! Redis hands each message to everybody who is subscribed, so that a thousand workers that all hear would cost it half a
//! millisecond for each command. Each heartbeat says whether a worker is to hear. In doubt it does: at its start, when heartbeats are
//! not answered, and where it may not hear its own channel.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::broker::keys::{DISPATCH_CHANNEL, control_channel, control_pattern, worker_channel};
use crate::broker::scripts::heartbeats::Seat;
use crate::broker::{BrokerError, Subscriber};
use crate::domain::{ResourceKind, TenantId};
use crate::worker::context::WorkerContext;

/// A worker without a seat goes on listening for so many heartbeats that ask: by then every other worker of its home has learned that the fleet is
/// large, and those that hear wake the others. The same number that is not answered means that it has to listen.
const HEARTBEATS_IN_DOUBT: u32 = 3;
/// Before a subscription that has failed is tried again, and between two looks whether one has to be.
const RETRY_DELAY: Duration = Duration::from_secs(1);
/// The same for one that Redis does not permit.
const DENIED_DELAY: Duration = Duration::from_secs(60);

pub(crate) struct Listening {
    ctx: Arc<WorkerContext>,
    subscriber: OnceLock<Subscriber>,
    state: Mutex<ListeningState>,
    /// Notified when something else is to be heard.
    due: Notify,
}

struct ListeningState {
    /// By tenant; one for all tenants together under `None`.
    channels: BTreeMap<Option<TenantId>, ControlChannels>,
    /// Redis does not permit its own channel, so that nobody can wake it.
    is_own_denied: bool,
}

/// The control channels of one tenant, or of all.
#[derive(Default)]
struct ControlChannels {
    /// What the last heartbeat that was answered said.
    seat: Option<Seat>,
    /// Heartbeats in a row that gave no seat, and that were not answered.
    without_seat: u32,
    unanswered: u32,
    /// They are subscribed.
    hears: bool,
    not_before: Option<Instant>,
}

impl ControlChannels {
    fn note(&mut self, seat: Option<Seat>) {
        match seat {
            Some(seat) => {
                self.without_seat = if seat == Seat::None { self.without_seat.saturating_add(1) } else { 0 };
                (self.seat, self.unanswered) = (Some(seat), 0);
            }
            None => self.unanswered = self.unanswered.saturating_add(1),
        }
    }

    fn is_wanted(&self) -> bool {
        self.seat != Some(Seat::None)
            || self.without_seat < HEARTBEATS_IN_DOUBT
            || self.unanswered >= HEARTBEATS_IN_DOUBT
    }
}

impl Listening {
    pub(crate) fn new(ctx: Arc<WorkerContext>) -> Self {
        let of: Vec<Option<TenantId>> = match &ctx.tenants {
            None => vec![None],
            Some(tenants) => tenants.iter().cloned().map(Some).collect(),
        };
        let channels = of.into_iter().map(|tenant| (tenant, ControlChannels::default())).collect();
        let state = Mutex::new(ListeningState { channels, is_own_denied: false });
        Self { ctx, subscriber: OnceLock::new(), state, due: Notify::new() }
    }

    /// Subscribes to everything that a worker hears; Redis has confirmed it when this returns.
    pub(crate) async fn begin(&self, subscriber: &Subscriber) -> Result<(), BrokerError> {
        subscriber.subscribe(vec![DISPATCH_CHANNEL.to_owned()]).await?;
        match subscriber.subscribe(vec![worker_channel(&self.ctx.id)]).await {
            Err(error) if error.code() == Some("NOPERM") => self.note_own_denied(),
            subscribed => subscribed?,
        }
        let all: Vec<Option<TenantId>> = self.state.lock().channels.keys().cloned().collect();
        for tenant in all {
            subscribe(subscriber, tenant.as_ref()).await?;
            self.set_hears(&tenant, true);
        }
        self.subscriber.get_or_init(|| subscriber.clone());
        Ok(())
    }

    /// What a heartbeat said of a tenant's control channels, or of those of all; `None`: it was not answered.
    pub(crate) fn note(&self, tenant: Option<&TenantId>, seat: Option<Seat>) {
        let mut state = self.state.lock();
        let is_own_denied = state.is_own_denied;
        let Some(channels) = state.channels.get_mut(&tenant.cloned()) else { return };
        channels.note(seat);
        if (is_own_denied || channels.is_wanted()) != channels.hears {
            self.due.notify_one();
        }
    }

    /// A heartbeat was answered that did not ask.
    pub(crate) fn note_answered(&self) {
        if let Some(channels) = self.state.lock().channels.get_mut(&None) {
            channels.unanswered = 0;
        }
    }

    /// Heartbeats are not answered.
    pub(crate) fn note_unanswered(&self) {
        let all: Vec<Option<TenantId>> = self.state.lock().channels.keys().cloned().collect();
        all.iter().for_each(|tenant| self.note(tenant.as_ref(), None));
    }

    /// Whether there are so many workers that others may not hear what this one hears about a tenant.
    pub(crate) fn hears_for_others(&self, tenant: &TenantId) -> bool {
        let state = self.state.lock();
        let of = state.channels.get(&None).or_else(|| state.channels.get(&Some(tenant.clone())));
        of.is_some_and(|channels| matches!(channels.seat, Some(Seat::Taken | Seat::None)))
    }

    /// The right to hear these was taken away.
    pub(crate) fn note_denied(&self, names: &[String]) {
        if names.contains(&worker_channel(&self.ctx.id)) {
            self.note_own_denied();
        }
        let mut state = self.state.lock();
        for (tenant, channels) in &mut state.channels {
            if tenant.as_ref().is_some_and(|tenant| names_of(Some(tenant)).iter().any(|name| names.contains(name))) {
                (channels.hears, channels.not_before) = (false, Some(Instant::now() + DENIED_DELAY));
            }
        }
    }

    /// Sees to it that what is heard is what is to be heard, until everything ends.
    pub(crate) async fn run(&self) {
        let Some(subscriber) = self.subscriber.get() else { return };
        loop {
            tokio::select! {
                () = self.due.notified() => {}
                () = tokio::time::sleep(RETRY_DELAY) => {}
            }
            let changes: Vec<(Option<TenantId>, bool)> = {
                let state = self.state.lock();
                let is_due = |channels: &ControlChannels| channels.not_before.is_none_or(|at| at <= Instant::now());
                let wanted = |channels: &ControlChannels| state.is_own_denied || channels.is_wanted();
                let differ = state.channels.iter().filter(|(_, of)| wanted(of) != of.hears && is_due(of));
                differ.map(|(tenant, of)| (tenant.clone(), wanted(of))).collect()
            };
            for (tenant, hears) in changes {
                if !hears {
                    // Without room to ask, it is done the next time.
                    if unsubscribe(subscriber, tenant.as_ref()) {
                        self.set_hears(&tenant, false);
                    }
                    continue;
                }
                match subscribe(subscriber, tenant.as_ref()).await {
                    Ok(()) => self.set_hears(&tenant, true),
                    Err(error) => {
                        tracing::debug!(%error, "worker.not_listening");
                        let delay = if error.code() == Some("NOPERM") { DENIED_DELAY } else { RETRY_DELAY };
                        if let Some(channels) = self.state.lock().channels.get_mut(&tenant) {
                            channels.not_before = Some(Instant::now() + delay);
                        }
                    }
                }
            }
        }
    }

    fn set_hears(&self, tenant: &Option<TenantId>, hears: bool) {
        if let Some(channels) = self.state.lock().channels.get_mut(tenant) {
            (channels.hears, channels.not_before) = (hears, None);
        }
    }

    fn note_own_denied(&self) {
        tracing::warn!(
            channel = worker_channel(&self.ctx.id),
            "worker.own_channel_denied: this Redis does not permit the worker to hear its own channel, so it hears those of all commands \
             however many workers there are; give its user &wh:worker:* (deploy/redis/users.acl) and start the worker again"
        );
        self.state.lock().is_own_denied = true;
        self.due.notify_one();
    }
}

/// The channels of one tenant, or the patterns for all.
fn names_of(tenant: Option<&TenantId>) -> Vec<String> {
    let name = |kind| tenant.map_or_else(|| control_pattern(kind), |tenant| control_channel(tenant, kind));
    ResourceKind::ALL.map(name).to_vec()
}

async fn subscribe(subscriber: &Subscriber, tenant: Option<&TenantId>) -> Result<(), BrokerError> {
    match tenant {
        None => subscriber.psubscribe(names_of(None)).await,
        Some(_) => subscriber.subscribe(names_of(tenant)).await,
    }
}

fn unsubscribe(subscriber: &Subscriber, tenant: Option<&TenantId>) -> bool {
    match tenant {
        None => subscriber.punsubscribe(names_of(None)),
        Some(_) => subscriber.unsubscribe(names_of(tenant)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_listens_until_it_has_been_told_several_times_that_others_do_and_again_when_nobody_answers() {
        let mut channels = ControlChannels::default();
        assert!(channels.is_wanted(), "nothing is known");
        channels.note(Some(Seat::Everyone));
        for _ in 1..HEARTBEATS_IN_DOUBT {
            channels.note(Some(Seat::None));
            assert!(channels.is_wanted());
        }
        channels.note(Some(Seat::None));
        assert!(!channels.is_wanted());
        for _ in 1..HEARTBEATS_IN_DOUBT {
            channels.note(None);
            assert!(!channels.is_wanted(), "one that is lost says little");
        }
        channels.note(None);
        assert!(channels.is_wanted());
        channels.note(Some(Seat::None));
        assert!(!channels.is_wanted());
        channels.note(Some(Seat::Taken));
        assert!(channels.is_wanted());
    }
}
