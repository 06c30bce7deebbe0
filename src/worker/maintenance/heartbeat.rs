//! Heartbeats: a worker says again and again that it is alive.
//!
//! One that serves all tenants says it in its home partition; there it is also told when it is not counted (any more), and is
//! then counted anew in every partition. One of named tenants says it for each of these.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::leadership::Leadership;
use super::listening::Listening;
use crate::broker::scripts::heartbeats::{COUNTED_FOR, HEARTBEAT_TTL, Seat, SeatWish};
use crate::broker::{BrokerError, Partition, WriteCheck};
use crate::domain::TenantId;
use crate::worker::context::WorkerContext;

/// Between two heartbeats: jitter, so that a fleet does not send them in step. Two may be lost.
const INTERVAL_MS: std::ops::Range<u64> = 1_100..1_400;
/// So many heartbeats say only that the worker lives, before one that also asks whether it is counted and is to listen. One that listens
/// for others asks each time: its seat lasts as long as a heartbeat.
const BEATS_BETWEEN_QUESTIONS: u32 = 2;
/// Between two times that a worker is counted anew though nothing is missing.
const COUNT_INTERVAL_MS: std::ops::Range<u64> = 36_000..42_000;
/// The same where a server did not answer when it was counted. It doubles each time: that server may be away for long, and to it
/// jobs that this worker hosts are nobody's until the worker is counted there.
const FIRST_RECOUNT: Duration = Duration::from_secs(1);
/// Every so many times it also sees to it that the sets last in which it is counted.
const COUNTS_PER_KEEPING: u32 = 3;

pub(crate) struct Heartbeat {
    ctx: Arc<WorkerContext>,
    leadership: Arc<Leadership>,
    listening: Arc<Listening>,
    state: Mutex<HeartbeatState>,
    /// A heartbeat proves that Redis can be written.
    pub(crate) write_check: OnceLock<WriteCheck>,
}

#[derive(Default)]
struct HeartbeatState {
    /// Where the last heartbeat was taken.
    home: Option<Partition>,
    count_at: Option<Instant>,
    /// How often it was counted.
    counts: u32,
    /// Counts in a row in which a server did not take part.
    incomplete: u32,
    /// Partitions that were not served at the last heartbeat.
    away: BTreeSet<Partition>,
    /// Heartbeats in a row that asked nothing.
    beats: u32,
    /// It is one of the few that listen for many.
    has_seat: bool,
}

impl HeartbeatState {
    /// Whether the next heartbeat asks, there.
    fn asks(&self, home: Partition) -> bool {
        self.home != Some(home) || self.has_seat || self.beats >= BEATS_BETWEEN_QUESTIONS
    }

    /// The next one asks, wherever it is sent.
    fn doubt(&mut self) {
        self.beats = BEATS_BETWEEN_QUESTIONS;
    }

    /// It is counted at the next heartbeat.
    fn count_soon(&mut self) {
        (self.count_at, self.incomplete) = (None, 0);
        self.doubt();
    }

    /// A server that was away may have lost what it had, or has counted nobody for too long.
    fn note_away(&mut self, away: BTreeSet<Partition>) {
        if !self.away.is_subset(&away) {
            self.count_soon();
        }
        self.away = away;
    }

    /// How long a count lasts.
    fn until_next_count(&mut self, is_complete: bool) -> Duration {
        let seldom = Duration::from_millis(fastrand::u64(COUNT_INTERVAL_MS));
        if is_complete {
            self.incomplete = 0;
            return seldom;
        }
        let soon = FIRST_RECOUNT * 2_u32.pow(self.incomplete.min(6));
        self.incomplete += 1;
        soon.min(seldom)
    }

    fn note(&mut self, home: Partition, seat: Option<Seat>) {
        self.home = Some(home);
        self.beats = if seat.is_some() { 0 } else { self.beats.saturating_add(1) };
        self.has_seat = seat.map_or(self.has_seat, |seat| seat == Seat::Taken);
    }
}

impl Heartbeat {
    pub(crate) fn new(ctx: Arc<WorkerContext>, leadership: Arc<Leadership>, listening: Arc<Listening>) -> Self {
        Self { ctx, leadership, listening, state: Mutex::default(), write_check: OnceLock::new() }
    }

    /// Sends heartbeats until everything ends.
    pub(crate) async fn run(&self) {
        loop {
            if let Err(error) = self.send().await {
                tracing::debug!(%error, "worker.heartbeat_delayed");
            }
            tokio::select! {
                () = self.leadership.count_again.notified() => self.state.lock().count_soon(),
                () = tokio::time::sleep(Duration::from_millis(fastrand::u64(INTERVAL_MS))) => {}
            }
        }
    }

    /// Sends one heartbeat.
    pub(crate) async fn send(&self) -> Result<(), BrokerError> {
        let WorkerContext { tenants, broker, .. } = &*self.ctx;
        // Beside each other: the server whose clock is asked may be the one that is away.
        let clock = async {
            if tenants.is_none() && !broker.is_cluster() {
                return Ok(()); // The answer to the heartbeat has it.
            }
            broker.learn_now().await
        };
        let beat = async {
            match tenants {
                Some(tenants) => self.send_to(tenants).await,
                None => self.send_home().await,
            }
        };
        let (clock, sent) = tokio::join!(clock, beat);
        if let Err(error) = clock {
            tracing::debug!(%error, "worker.clock_not_read");
        }
        if sent.is_err() {
            self.listening.note_unanswered();
            self.state.lock().doubt();
        }
        match (&sent, self.write_check.get()) {
            (Ok(()), Some(check)) => check.note_write(),
            (Err(_), Some(check)) => check.doubt(),
            (_, None) => {}
        }
        sent
    }

    async fn send_to(&self, tenants: &[TenantId]) -> Result<(), BrokerError> {
        let WorkerContext { id, broker, .. } = &*self.ctx;
        let seats = broker.heartbeat_of_tenants(id, tenants, HEARTBEAT_TTL).await?;
        for tenant in tenants {
            let seat = seats.iter().find(|(of, _)| of == tenant).map(|(_, seat)| *seat);
            self.listening.note(Some(tenant), seat);
        }
        Ok(())
    }

    async fn send_home(&self) -> Result<(), BrokerError> {
        let WorkerContext { id, broker, .. } = &*self.ctx;
        if let Some(check) = self.write_check.get() {
            let away = check.problems().into_iter().map(|(partition, _)| partition).collect();
            self.state.lock().note_away(away);
        }
        let (home, is_counted) = self.send_to_first_that_answers().await?;
        let count_at = self.state.lock().count_at;
        let counted = match count_at {
            Some(at) if is_counted && at > Instant::now() => return Ok(()),
            Some(_) if is_counted => {
                let keeps_sets = self.state.lock().counts.is_multiple_of(COUNTS_PER_KEEPING);
                broker.count_on(home, id, keeps_sets).await?
            }
            // At the start, or where a server may have forgotten it: by the script, which also puts right what a clock has spoilt.
            _ => broker.heartbeat(id, None, COUNTED_FOR).await?,
        };
        self.leadership.set_workers(counted.workers);
        let mut state = self.state.lock();
        state.count_at = Some(Instant::now() + state.until_next_count(counted.is_complete));
        state.counts += 1;
        Ok(())
    }

    /// Its home, the partition of before or the first one whose server answers, and whether it is counted there.
    async fn send_to_first_that_answers(&self) -> Result<(Partition, bool), BrokerError> {
        let WorkerContext { id, broker, .. } = &*self.ctx;
        let before = self.state.lock().home;
        let mut last = BrokerError::Unavailable("there is no partition".to_owned());
        for home in before.into_iter().chain(broker.keys().homes(id).filter(|home| Some(*home) != before)) {
            let wish = match self.state.lock().asks(home) {
                false => SeatWish::NotAsked,
                true if self.leadership.leads_any() => SeatWish::IfNobodyHasOne,
                true => SeatWish::Keep,
            };
            match broker.heartbeat_at(home, id, wish).await {
                Ok(answer) => {
                    self.state.lock().note(home, answer.seat);
                    match answer.seat {
                        Some(seat) => self.listening.note(None, Some(seat)),
                        None => self.listening.note_answered(),
                    }
                    return Ok((home, answer.is_counted && before == Some(home)));
                }
                Err(error) => last = error,
            }
            if !broker.is_cluster() {
                break; // The server is the same for all.
            }
        }
        Err(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::Keys;

    #[test]
    fn a_worker_that_was_not_counted_everywhere_is_counted_again_soon_and_less_and_less_often() {
        let mut state = HeartbeatState::default();
        let seldom = Duration::from_millis(COUNT_INTERVAL_MS.start);
        assert!(state.until_next_count(true) >= seldom);
        let soon: Vec<u64> = (0..6).map(|_| state.until_next_count(false).as_secs()).collect();
        assert_eq!(soon, [1, 2, 4, 8, 16, 32]);
        for _ in 0..100 {
            assert!(state.until_next_count(false) >= seldom, "no more often than where all is well");
        }
        assert!(state.until_next_count(true) >= seldom);
        assert_eq!(state.until_next_count(false), FIRST_RECOUNT);
    }

    #[test]
    fn a_worker_is_counted_when_a_partition_is_served_again_and_not_when_another_one_goes() {
        let [one, two] = Keys::new(2).partitions().collect::<Vec<_>>()[..] else { panic!("two partitions") };
        let mut state = HeartbeatState::default();
        let mut is_counted_after = |away: &[Partition]| {
            state.count_at = Some(Instant::now());
            state.note_away(away.iter().copied().collect());
            state.count_at.is_none()
        };
        assert!(!is_counted_after(&[]));
        assert!(!is_counted_after(&[one]));
        assert!(!is_counted_after(&[one, two]));
        assert!(is_counted_after(&[two]));
        assert!(!is_counted_after(&[two]));
        assert!(is_counted_after(&[one]));
        assert!(is_counted_after(&[]));
    }
}
