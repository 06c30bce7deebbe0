//! Whether Redis does what commands need, looked at all the time: a connection that answers PING may still refuse every
//! command, because Redis is full, lacks replicas, or does not permit this user what the scripts do.

//!
//! Each server is looked at by itself, and so is what it says: one of a cluster that is away, or refuses, concerns the
//! tenants of its partitions and nobody else's.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::scripts::write_check::{PROOF_SHARED_FOR, ProofExtent};
use super::{Broker, BrokerError, Partition};

/// Between two looks.
const CHECK_INTERVAL: Duration = Duration::from_millis(1_000);
/// A write by another script that is no older makes a look needless.
const WRITE_TTL: Duration = Duration::from_millis(1_200);
/// Shortest time between two looks, however many commands are refused.
const MIN_INTERVAL: Duration = Duration::from_millis(200);
/// Longest wait for an answer. Together with the interval it is how long a server may be gone unnoticed.
const CHECK_TIMEOUT: Duration = Duration::from_millis(700);
/// The same where the answer waits for a disk, which may be written once a second.
const DISK_CHECK_TIMEOUT: Duration = Duration::from_millis(2_300);
/// Every so many looks all is tried that scripts do, and not one write only, unless another program of the same user has tried it
/// within [`PROOF_SHARED_FOR`]. So a right that somebody takes away is noticed by every program within 15 s (what was tried before
/// it counts for 7 s, and each looks every 7 s), and a thousand programs do not try sixty commands each in that time.
const CHECKS_PER_FULL_CHECK: usize = 7;
/// Partitions that are looked at together at the start. There may be a thousand, on a few servers.
const BATCH_SIZE: usize = 64;

/// Partitions that one line of the log names. How many there are it says in any case.
const MAX_NAMED: usize = 16;

/// Why partitions are not served, for those that are not.
type Problems = BTreeMap<Partition, BrokerError>;

/// What was found; cheap to clone.
#[derive(Clone)]
pub struct WriteCheck(Arc<WriteCheckShared>);

struct WriteCheckShared {
    broker: Broker,
    problems: Mutex<Problems>,
    /// A command was refused: somebody should look.
    doubt: Notify,
    /// When something else than a look last wrote by a script.
    written_at: Mutex<Option<Instant>>,
}

impl WriteCheck {
    /// Why Redis does not do what commands need. `None`: it does, for the tenants of more than half of the partitions at
    /// least. With one server that is for all.
    pub fn problem(&self) -> Option<BrokerError> {
        let problems = self.lock();
        let is_served = self.0.broker.is_cluster() && problems.len() * 2 < self.partitions();
        problems.values().next().filter(|_| !is_served).cloned()
    }

    /// Why not a single partition is served.
    pub fn total_problem(&self) -> Option<BrokerError> {
        self.problem().filter(|_| !self.0.broker.is_cluster() || self.lock().len() == self.partitions())
    }

    fn partitions(&self) -> usize {
        self.0.broker.keys().partitions().count()
    }

    /// The partitions that are not served, each with the reason.
    pub fn problems(&self) -> Vec<(Partition, BrokerError)> {
        self.lock().iter().map(|(partition, error)| (*partition, error.clone())).collect()
    }

    /// A command was refused or not answered: it is looked at once whether others are, too.
    pub fn doubt(&self) {
        self.0.doubt.notify_one();
    }

    /// A script has written just now, and not for this purpose: that proves as much as the next look would, where there is but
    /// one server and no replica is waited for.
    pub fn note_write(&self) {
        *self.0.written_at.lock() = Some(Instant::now());
    }

    fn is_written_without_a_look(&self) -> bool {
        let is_recent = self.0.written_at.lock().is_some_and(|at| at.elapsed() < WRITE_TTL);
        is_recent && self.0.broker.is_one_server_alone() && self.lock().is_empty()
    }

    /// Looks once at every partition, and goes on looking until told to stop. `channel`: where the script publishes.
    /// A right that is missing is an error, for only an operator can mend it. What passes (a full memory, too few
    /// replicas, a server that is away) is not: the program starts, says so, and is not ready.
    pub(super) async fn start(
        broker: Broker,
        channel: String,
        tracker: &TaskTracker,
        stop: CancellationToken,
    ) -> Result<Self, BrokerError> {
        let shared =
            WriteCheckShared { broker, problems: Mutex::default(), doubt: Notify::new(), written_at: Mutex::default() };
        let check = Self(Arc::new(shared));
        let all: Vec<Partition> = check.0.broker.keys().partitions().collect();
        for some in all.chunks(BATCH_SIZE) {
            for (partition, found) in check.look(some, &channel, ProofExtent::All).await {
                check.note(&[partition], &found);
            }
        }
        check.log_changes(&all, &Problems::new());
        // One node of a cluster that lacks a right is no reason not to serve the tenants of the others.
        if let Some(error) = check.total_problem().filter(BrokerError::is_denied) {
            return Err(error);
        }
        let task = check.clone().keep(channel);
        tracker.spawn(stop.run_until_cancelled_owned(task));
        Ok(check)
    }

    async fn keep(self, channel: String) {
        for look_number in 1_usize.. {
            tokio::time::sleep(MIN_INTERVAL).await;
            let doubt = self.0.doubt.notified();
            let is_doubted = tokio::time::timeout(CHECK_INTERVAL.saturating_sub(MIN_INTERVAL), doubt).await.is_ok();
            if !is_doubted && !look_number.is_multiple_of(CHECKS_PER_FULL_CHECK) && self.is_written_without_a_look() {
                continue;
            }
            let mut by_server: BTreeMap<Option<String>, Vec<Partition>> = BTreeMap::new();
            for (partition, server) in self.0.broker.servers_of_partitions() {
                by_server.entry(server).or_default().push(partition);
            }
            join_all(by_server.values().map(|of| self.look_at_server(of, look_number, &channel))).await;
        }
    }

    /// What a server does for one of its partitions it does for all, but for rights on keys: each partition has its turn,
    /// and where a right was missing all that it may concern are looked at.
    async fn look_at_server(&self, of: &[Partition], look_number: usize, channel: &str) {
        let is_full = look_number.is_multiple_of(CHECKS_PER_FULL_CHECK);
        // That of all programs at once where all is tried, so that they try it together.
        let together = self.0.broker.now_ms() / PROOF_SHARED_FOR.as_millis() as i64;
        let turn = if is_full { together.unsigned_abs() as usize } else { look_number };
        let turn = of[turn % of.len()];
        let (doubtful, is_well): (Vec<Partition>, bool) = {
            let problems = self.lock();
            let is_denied = |one: &&Partition| problems.get(one).is_some_and(BrokerError::is_denied);
            let denied = of.iter().filter(|one| **one != turn).filter(is_denied).copied();
            (std::iter::once(turn).chain(denied.take(BATCH_SIZE)).collect(), problems.is_empty())
        };
        // While something is amiss all is tried, so that a right that is still missing is not taken for mended.
        let extent = match is_full {
            _ if !is_well => ProofExtent::All,
            true => ProofExtent::Shared,
            false => ProofExtent::One,
        };
        let found_now = self.look(&doubtful, channel, extent).await;
        let before = self.lock().clone();
        for (partition, found) in found_now {
            let concerned: Vec<Partition> = {
                let problems = self.lock();
                let is_denied = |one: &Partition| problems.get(one).is_some_and(BrokerError::is_denied);
                match &found {
                    Err(error) if error.is_denied() && is_denied(&partition) => vec![partition],
                    Ok(()) => of.iter().copied().filter(|one| *one == partition || !is_denied(one)).collect(),
                    Err(_) => of.to_vec(),
                }
            };
            self.note(&concerned, &found);
        }
        self.log_changes(of, &before);
    }

    /// Remembers what was found of these partitions.
    fn note(&self, partitions: &[Partition], found: &Result<(), BrokerError>) {
        let mut problems = self.lock();
        for partition in partitions {
            match found {
                Ok(()) => problems.remove(partition),
                Err(error) => problems.insert(*partition, error.clone()),
            };
        }
    }

    /// Says what is new of these partitions: in one line all that have the same problem, in one those that are served again.
    fn log_changes(&self, of: &[Partition], before: &Problems) {
        let changes = Changes::between(before, &self.lock(), of);
        for (error, partitions) in &changes.not_served {
            tracing::warn!(count = partitions.len(), partitions = %named(partitions), %error, "redis.not_serving");
        }
        if !changes.served.is_empty() {
            let partitions = named(&changes.served);
            tracing::info!(count = changes.served.len(), %partitions, "redis.serving_again");
        }
    }

    /// Whether the servers of these partitions do what commands need, each asked by itself.
    async fn look(
        &self,
        some: &[Partition],
        channel: &str,
        extent: ProofExtent,
    ) -> Vec<(Partition, Result<(), BrokerError>)> {
        let within = if self.0.broker.waits.fsyncs > 0 { DISK_CHECK_TIMEOUT } else { CHECK_TIMEOUT };
        let looks = some.iter().map(async |partition| {
            let late = |_| Err(BrokerError::Unknown("no answer to a write".to_owned()));
            let broker = &self.0.broker;
            let proof = async {
                // Whoever has just written all the same has nothing to add.
                if extent == ProofExtent::Shared
                    && self.is_written_without_a_look()
                    && broker.is_proof_shared(*partition).await?
                {
                    return Ok(());
                }
                broker.prove_writes(*partition, channel, extent).await
            };
            (*partition, tokio::time::timeout(within, proof).await.unwrap_or_else(late))
        });
        join_all(looks).await
    }

    fn lock(&self) -> parking_lot::MutexGuard<'_, Problems> {
        self.0.problems.lock()
    }
}

/// What is otherwise than it was.
#[derive(Debug, Default)]
struct Changes {
    /// Partitions that have a new problem, by the problem.
    not_served: Vec<(BrokerError, Vec<Partition>)>,
    /// Those that have none any more.
    served: Vec<Partition>,
}

impl Changes {
    fn between(before: &Problems, after: &Problems, of: &[Partition]) -> Self {
        let mut changes = Self::default();
        for partition in of {
            match (before.get(partition), after.get(partition)) {
                (Some(_), None) => changes.served.push(*partition),
                (None, None) => {}
                (Some(before), Some(error)) if is_same(before, error) => {}
                (_, Some(error)) => match changes.not_served.iter_mut().find(|(one, _)| is_same(one, error)) {
                    Some((_, partitions)) => partitions.push(*partition),
                    None => changes.not_served.push((error.clone(), vec![*partition])),
                },
            }
        }
        changes
    }
}

/// The names of some partitions: of the first ones, where there are many.
fn named(partitions: &[Partition]) -> String {
    let names: Vec<String> = partitions.iter().take(MAX_NAMED).map(Partition::to_string).collect();
    let others = if partitions.len() > MAX_NAMED { " …" } else { "" };
    names.join(" ") + others
}

/// Not by the whole text: it may hold numbers that differ each time.
fn is_same(one: &BrokerError, other: &BrokerError) -> bool {
    std::mem::discriminant(one) == std::mem::discriminant(other) && one.code() == other.code()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::Keys;

    #[test]
    fn partitions_with_the_same_problem_are_said_together_and_those_that_have_it_still_are_not() {
        let all: Vec<Partition> = Keys::new(40).partitions().collect();
        let problem = |text: &str| BrokerError::Unknown(text.to_owned());
        let of = |partitions: &[Partition], text: &str| {
            partitions.iter().map(|partition| (*partition, problem(text))).collect::<Problems>()
        };
        let none = Problems::new();
        let away = of(&all, "no answer");
        let at_start = Changes::between(&none, &away, &all);
        let [(_, partitions)] = &at_start.not_served[..] else { panic!("{at_start:?}") };
        assert_eq!((partitions, at_start.served.len()), (&all, 0));
        assert_eq!(
            named(partitions),
            "{00} {01} {02} {03} {04} {05} {06} {07} {08} {09} {10} {11} {12} {13} {14} {15} …"
        );
        assert_eq!(named(&all[..2]), "{00} {01}");

        let later = Changes::between(&away, &of(&all[3..], "no answer after 5 s"), &all);
        assert!(later.not_served.is_empty(), "the same problem in other words: {later:?}");
        assert_eq!(later.served, all[..3]);

        let mut two = of(&all[..2], "no answer");
        two.insert(all[2], BrokerError::Unavailable("connection refused".to_owned()));
        let two = Changes::between(&none, &two, &all[1..]);
        let sizes: Vec<usize> = two.not_served.iter().map(|(_, partitions)| partitions.len()).collect();
        assert_eq!(sizes, [1, 1], "each problem by itself, and nothing of partitions that were not looked at: {two:?}");
    }
}
