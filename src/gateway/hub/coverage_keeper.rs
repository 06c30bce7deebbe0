//! By which patterns the watched tenants are heard: two for each tenant while they are few, and two for all tenants together when they are
//! many. Redis compares every message with every pattern, so that a pair for each of ten thousand tenants would cost each PUBLISH
//! most of a millisecond.
//!
//! One task changes from one to the other, and never before the new patterns are confirmed: in between a message comes by both, and
//! is told once (`broker/hearing.rs`). Where Redis does not permit a gateway to hear all tenants, it stays with a pair for each.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;

use super::coverage::{Coverage, everything, patterns};
use super::feed::Feed;
use super::feeds::{FeedEntry, Feeds, OpenFeeds};
use crate::broker::{BrokerError, Subscriber};
use crate::domain::TenantId;

/// Watched tenants of a gateway that have patterns of their own. With one more, all are heard together.
const MAX_WITH_PATTERNS: usize = 16;
/// With so few they have patterns of their own again.
const FEW: usize = 8;
/// So long at least all are heard together: tenants come and go, and each change costs a subscription.
const MIN_TOGETHER: Duration = Duration::from_secs(5);
/// Before what Redis has refused is asked for again.
const DENIED_PAUSE: Duration = Duration::from_secs(300);
/// The same after another trouble, and between two looks whether the coverage fits.
const PAUSE: Duration = Duration::from_secs(1);
/// Longest wait of a new socket for the change that it is in the middle of.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(4);
/// Tenants whose patterns are asked for together.
const BATCH_SIZE: usize = 256;

fn is_over(pause: Option<Instant>) -> bool {
    pause.is_none_or(|until| until <= Instant::now())
}

fn is_denied(error: &BrokerError) -> bool {
    error.code() == Some("NOPERM")
}

impl Feeds {
    /// Whether this tenant is heard without patterns of its own. If not, the caller subscribes to them.
    pub(super) async fn is_covered(&self, tenant: &TenantId) -> bool {
        let mut changes = self.0.coverage.subscribe();
        let changed = changes.wait_for(|coverage| *coverage != Coverage::Widening);
        let _ = tokio::time::timeout(CHANGE_TIMEOUT, changed).await;
        // What holds under the lock: whoever changes it next finds the tenant, and whether it has patterns.
        let mut open = self.open();
        if *self.0.coverage.borrow() == Coverage::Everything {
            return true;
        }
        if let Some(entry) = open.by_tenant.get_mut(tenant) {
            entry.has_patterns = true;
        }
        false
    }

    /// Begins to change if too many tenants would have patterns of their own.
    pub(super) fn widen_if_due(&self, open: &OpenFeeds) {
        let is_due = open.by_tenant.len() > MAX_WITH_PATTERNS && is_over(open.coverage.widen_after);
        if is_due && *self.0.coverage.borrow() == Coverage::Each {
            self.0.coverage.send_replace(Coverage::Widening);
            self.0.coverage_due.notify_one();
        }
    }

    /// The right to hear all tenants together was taken away: each gets patterns of its own, at once, and everyone is told that
    /// messages were missed.
    pub(super) fn everything_denied(&self) {
        let mut open = self.open();
        let state = &mut open.coverage;
        state.denials += 1;
        state.is_deaf |= state.together;
        state.widen_after = Some(Instant::now() + DENIED_PAUSE);
        self.0.coverage.send_replace(Coverage::Each);
        self.0.coverage_due.notify_one();
    }

    /// Sees to it that the coverage fits, until dropped.
    pub(super) async fn keep_coverage(self, subscriber: Subscriber) {
        loop {
            tokio::select! {
                () = self.0.coverage_due.notified() => {}
                () = tokio::time::sleep(PAUSE) => self.widen_if_due(&self.open()),
            }
            let coverage = *self.0.coverage.borrow();
            match coverage {
                Coverage::Widening => self.widen(&subscriber).await,
                Coverage::Everything => self.narrow_if_due(),
                Coverage::Each => {}
            }
            let coverage = *self.0.coverage.borrow();
            match coverage {
                Coverage::Everything => self.give_up_patterns(&subscriber),
                Coverage::Each => self.give_patterns(&subscriber).await,
                Coverage::Widening => {}
            }
        }
    }

    async fn widen(&self, subscriber: &Subscriber) {
        let (denials, was_together) = {
            let state = &mut self.open().coverage;
            (state.denials, std::mem::replace(&mut state.together, true))
        };
        let asked = subscriber.psubscribe(everything()).await;
        let mut open = self.open();
        let now = Instant::now();
        let tenants = open.by_tenant.len();
        let state = &mut open.coverage;
        match asked {
            Ok(()) if state.denials == denials => {
                state.since = Some(now);
                self.0.coverage.send_replace(Coverage::Everything);
                tracing::info!(tenants, "gateway.tenants_heard_together");
                return;
            }
            Err(error) if is_denied(&error) => {
                state.widen_after = Some(now + DENIED_PAUSE);
                state.is_deaf |= was_together;
                if !std::mem::replace(&mut state.is_told, true) {
                    tracing::warn!(
                        tenants,
                        %error,
                        "gateway.tenants_heard_singly: this Redis does not permit the gateway to hear all tenants at once, so each \
                         tenant that is watched as a whole costs every PUBLISH two comparisons; with many, give its user &*"
                    );
                }
            }
            Ok(()) | Err(_) => state.widen_after = Some(now + PAUSE),
        }
        // One of the two may stand: given up with what follows.
        self.0.coverage.send_replace(Coverage::Each);
    }

    fn narrow_if_due(&self) {
        let open = self.open();
        let state = &open.coverage;
        let has_stayed = state.since.is_none_or(|since| since.elapsed() >= MIN_TOGETHER);
        if open.by_tenant.len() <= FEW && has_stayed && is_over(state.narrow_after) {
            self.0.coverage.send_replace(Coverage::Each);
        }
    }

    /// All are heard together: nobody needs patterns of its own.
    fn give_up_patterns(&self, subscriber: &Subscriber) {
        let mut open = self.open();
        // Not those whose first reader is about to subscribe: after that.
        let with_patterns = |entry: &FeedEntry| entry.has_patterns && entry.feed.opened.initialized();
        let tenants = open.by_tenant.iter().filter(|(_, entry)| with_patterns(entry));
        let names: Vec<String> = tenants.flat_map(|(tenant, _)| patterns(tenant)).collect();
        if names.is_empty() || !subscriber.punsubscribe(names) {
            return; // Without room to ask, it is done the next time.
        }
        open.by_tenant.values_mut().filter(|entry| with_patterns(entry)).for_each(|entry| entry.has_patterns = false);
    }

    /// Each is heard by itself: gives patterns to those that have none. When all have theirs, those of all tenants are given up.
    async fn give_patterns(&self, subscriber: &Subscriber) {
        let without: Vec<Arc<Feed>> = {
            let open = self.open();
            let opened = open.by_tenant.values().filter(|entry| !entry.has_patterns && entry.feed.opened.initialized());
            opened.map(|entry| Arc::clone(&entry.feed)).collect()
        };
        let mut is_whole = true;
        for some in without.chunks(BATCH_SIZE) {
            let asked = join_all(some.iter().map(|feed| subscriber.psubscribe(patterns(&feed.tenant)))).await;
            for (feed, asked) in some.iter().zip(asked) {
                match asked {
                    Ok(()) => self.note_patterns(feed, subscriber),
                    Err(error) if is_denied(&error) => is_whole &= self.patterns_denied(feed),
                    Err(_) => is_whole = false,
                }
            }
        }
        let mut open = self.open();
        if !is_whole || *self.0.coverage.borrow() != Coverage::Each {
            return;
        }
        let state = &mut open.coverage;
        if state.together && subscriber.punsubscribe(everything()) {
            state.together = false;
        }
        let was_deaf = std::mem::take(&mut state.is_deaf);
        drop(open);
        if was_deaf {
            self.missed(None);
        }
    }

    fn note_patterns(&self, feed: &Arc<Feed>, subscriber: &Subscriber) {
        match self.open().by_tenant.get_mut(&feed.tenant) {
            Some(entry) if Arc::ptr_eq(&entry.feed, feed) => entry.has_patterns = true,
            // Another one has taken its place, and whoever opens that sees to its patterns.
            Some(_) => {}
            // Nobody watches it any more. Without room to ask, what comes of it is passed over.
            None => drop(subscriber.punsubscribe(patterns(&feed.tenant))),
        }
    }

    /// A tenant may not be heard by patterns of its own. `false`: it is still heard together with all others, and that goes on;
    /// otherwise it is not heard at all, and its sockets are closed.
    fn patterns_denied(&self, feed: &Feed) -> bool {
        let mut open = self.open();
        let state = &mut open.coverage;
        if state.together && !state.is_deaf {
            state.narrow_after = Some(Instant::now() + DENIED_PAUSE);
            self.0.coverage.send_replace(Coverage::Everything);
            return false;
        }
        drop(open);
        patterns(&feed.tenant).iter().for_each(|pattern| self.close_denied(pattern));
        true
    }
}
