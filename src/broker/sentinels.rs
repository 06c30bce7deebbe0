//! Who the master is, by its sentinels: each of them is asked every second and listened to in between, so that a switch is
//! known at once. A connection to a server that has been deposed still works and answers, and all that it answers is
//! lost: whoever is connected must leave, and nothing on the connection itself says so.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::StreamExt;
use parking_lot::Mutex;
use redis::aio::{MultiplexedConnection, PubSub};
use redis::{AsyncConnectionConfig, ConnectionAddr, ConnectionInfo, RedisResult};
use tokio::sync::watch;

/// Between two questions to the same sentinel.
const ASK_INTERVAL: Duration = Duration::from_secs(1);
/// Longest wait for a connection to a sentinel, or for its answer.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(1_000);
/// Before a sentinel that failed is tried again: half of it to one and a half.
const RETRY_DELAY: Duration = Duration::from_millis(300);
/// So long the answers of more than half of the sentinels are waited for. Then those that have come must do.
const SETTLE_TIMEOUT: Duration = Duration::from_millis(1_200);
/// What a sentinel says when it begins to replace the master, when it has made another server the master, when it has heard of
/// that from another sentinel, and when it gives up.
const SWITCH_CHANNELS: [&str; 6] = [
    "+try-failover",
    "+promoted-slave",
    "+switch-master",
    "-failover-abort-not-elected",
    "-failover-abort-no-good-slave",
    "-failover-abort-slave-timeout",
];
/// The states of a switch in which the old master is still the one that is named. One of the replicas may have been promoted
/// already: a sentinel names it only when it has seen that, up to a second later.
const SWITCHING_STATES: [&str; 4] = ["wait_start", "select_slave", "send_slaveof_noone", "wait_promotion"];

/// Why a master is left before another is named.
pub(super) const BEING_REPLACED: &str = "the sentinels are about to replace it";

/// A master as sentinels name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NamedMaster {
    pub(super) host: String,
    pub(super) port: u16,
    /// The configuration epoch: higher with each switch. A sentinel raises it with the votes of most sentinels, or because
    /// an operator told it to, so the highest one is right also where a single sentinel has said it yet.
    epoch: u64,
}

impl NamedMaster {
    /// Whether it listens at this address.
    pub(super) fn is_at(&self, address: &ConnectionAddr) -> bool {
        match address {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
                *host == self.host && *port == self.port
            }
            _ => false,
        }
    }
}

/// What the sentinels say, all of them together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Opinion {
    /// `None`: nobody has named one yet.
    pub(super) master: Option<NamedMaster>,
    /// More than half of the sentinels have answered. Otherwise a switch may have happened where this program cannot
    /// see it.
    pub(super) is_confirmed: bool,
    /// The master has replicas, so that one of them may take its place.
    pub(super) has_replicas: bool,
    /// A sentinel is about to replace this master: which replica takes its place may be decided already, and what the others
    /// are still given is lost.
    pub(super) is_switching: bool,
}

/// What one sentinel says.
#[derive(Clone)]
struct Answer {
    master: NamedMaster,
    replicas: u64,
    is_switching: bool,
}

/// The sentinels of one master; cheap to clone. They are asked from the first question on, until the last clone is gone.
#[derive(Clone)]
pub(super) struct Sentinels {
    shared: Arc<SentinelsShared>,
}

struct SentinelsShared {
    addresses: Vec<ConnectionInfo>,
    /// The name that the sentinels know the master by.
    name: String,
    /// What each of them said last; `None`: it does not answer.
    answers: Mutex<Vec<Option<Answer>>>,
    opinion: watch::Sender<Opinion>,
    /// Why the last one that failed did not answer.
    trouble: Mutex<Option<String>>,
    is_followed: AtomicBool,
}

impl Sentinels {
    pub(super) fn new(addresses: Vec<ConnectionInfo>, name: String) -> Self {
        let answers = Mutex::new(vec![None; addresses.len()]);
        let (opinion, trouble) = (watch::Sender::new(Opinion::default()), Mutex::default());
        let is_followed = AtomicBool::new(false);
        Self { shared: Arc::new(SentinelsShared { addresses, name, answers, opinion, trouble, is_followed }) }
    }

    /// What they say now, and from now on. More than half of them have been heard, and none is about to replace the master; or
    /// they have had the time for it.
    pub(super) async fn ask(&self) -> watch::Receiver<Opinion> {
        if !self.shared.is_followed.swap(true, Ordering::SeqCst) {
            for index in 0..self.shared.addresses.len() {
                // Not in a TaskTracker: it ends by itself soon after the last clone is gone.
                tokio::spawn(follow(Arc::downgrade(&self.shared), index));
            }
        }
        let mut opinion = self.shared.opinion.subscribe();
        let heard =
            opinion.wait_for(|opinion| opinion.is_confirmed && opinion.master.is_some() && !opinion.is_switching);
        let _ = tokio::time::timeout(SETTLE_TIMEOUT, heard).await.map(|heard| heard.map(drop));
        opinion
    }

    /// What they say from now on.
    pub(super) fn subscribe(&self) -> watch::Receiver<Opinion> {
        self.shared.opinion.subscribe()
    }

    /// What they say now, without waiting.
    pub(super) fn opinion(&self) -> Opinion {
        self.shared.opinion.borrow().clone()
    }

    /// Why none of them has named a master.
    pub(super) fn trouble(&self) -> String {
        let trouble = self.shared.trouble.lock().clone();
        trouble.unwrap_or_else(|| "the sentinels did not answer in time".to_owned())
    }

    pub(super) fn name(&self) -> &str {
        &self.shared.name
    }

    pub(super) fn addresses(&self) -> &[ConnectionInfo] {
        &self.shared.addresses
    }
}

impl SentinelsShared {
    fn note(&self, index: usize, answer: Option<Answer>) {
        let mut answers = self.answers.lock();
        answers[index] = answer;
        // Under the lock, so that no older opinion comes after a newer one.
        self.opinion.send_if_modified(|opinion| {
            let new = opinion_of(&answers, opinion);
            let is_new = new != *opinion;
            if is_new && opinion.master != new.master {
                tracing::info!(name = self.name, master = ?new.master, "redis.master_named");
            }
            *opinion = new;
            is_new
        });
    }
}

/// What these answers mean after what was known before.
fn opinion_of(answers: &[Option<Answer>], before: &Opinion) -> Opinion {
    let heard: Vec<&Answer> = answers.iter().flatten().collect();
    let is_confirmed = heard.len() * 2 > answers.len();
    let votes = |answer: &Answer| heard.iter().filter(|other| other.master == answer.master).count();
    let is_current = |answer: &Answer| before.master.as_ref() == Some(&answer.master);
    let best = heard.iter().max_by_key(|answer| (answer.master.epoch, votes(answer), is_current(answer)));
    let known_epoch = before.master.as_ref().map_or(0, |master| master.epoch);
    // A few sentinels that lag behind do not take back what was known. Most of them do: somebody has set them up anew.
    let master = match best {
        Some(answer) if is_confirmed || answer.master.epoch >= known_epoch => Some(answer.master.clone()),
        _ => before.master.clone(),
    };
    let has_replicas = if heard.is_empty() { before.has_replicas } else { heard.iter().any(|a| a.replicas > 0) };
    let is_switching = heard.iter().any(|answer| answer.is_switching && Some(&answer.master) == master.as_ref());
    Opinion { master, is_confirmed, has_replicas, is_switching }
}

/// Asks and hears one sentinel for as long as anybody wants to know.
async fn follow(shared: Weak<SentinelsShared>, index: usize) {
    loop {
        let ended = listen(&shared, index).await;
        let Some(shared) = shared.upgrade() else { return };
        if let Err(error) = ended {
            let words = format!("{}: {error}", shared.addresses[index].addr());
            tracing::debug!(error = words, "redis.sentinel_not_asked");
            *shared.trouble.lock() = Some(words);
        }
        shared.note(index, None);
        drop(shared);
        tokio::time::sleep(RETRY_DELAY.mul_f64(0.5 + fastrand::f64())).await;
    }
}

/// Until the sentinel does not answer any more, or nobody wants to know.
async fn listen(shared: &Weak<SentinelsShared>, index: usize) -> RedisResult<()> {
    let Some(held) = shared.upgrade() else { return Ok(()) };
    let (address, name) = (held.addresses[index].clone(), held.name.clone());
    drop(held);
    let (mut asked, heard) = timely(connect(address)).await?;
    let mut heard = heard.into_on_message();
    loop {
        let answer = timely(ask(&mut asked, &name)).await?;
        let Some(held) = shared.upgrade() else { return Ok(()) };
        held.note(index, Some(answer));
        drop(held);
        tokio::select! {
            // Whatever it says (of whichever master): it is asked at once.
            said = heard.next() => if said.is_none() { return Err(lost()) },
            () = tokio::time::sleep(ASK_INTERVAL) => {}
        }
    }
}

async fn connect(address: ConnectionInfo) -> RedisResult<(MultiplexedConnection, PubSub)> {
    let client = redis::Client::open(address)?;
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(ANSWER_TIMEOUT))
        .set_response_timeout(Some(ANSWER_TIMEOUT));
    let asked = client.get_multiplexed_async_connection_with_config(&config).await?;
    let mut heard = client.get_async_pubsub().await?;
    heard.subscribe(&SWITCH_CHANNELS).await?;
    Ok((asked, heard))
}

/// Address and epoch are asked for in one go: they belong together, also in the middle of a switch, when the address is
/// already that of the server that has been promoted.
async fn ask(sentinel: &mut MultiplexedConnection, name: &str) -> RedisResult<Answer> {
    let mut questions = redis::pipe();
    questions.cmd("SENTINEL").arg("MASTER").arg(name).cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(name);
    let asked = questions.query_async::<(HashMap<String, String>, Option<(String, u16)>)>(sentinel).await;
    let (facts, address) = asked.map_err(|error| match error.to_string().contains("unknown command") {
        true => (
            redis::ErrorKind::Client,
            "this is no sentinel: name sentinels in redis.url, or write redis:// for a Redis",
        )
            .into(),
        false => error,
    })?;
    let number = |field: &str| facts.get(field).and_then(|text| text.parse().ok()).unwrap_or(0);
    let (host, port) = address.ok_or((redis::ErrorKind::Client, "the sentinel knows no master of that name"))?;
    let master = NamedMaster { host, port, epoch: number("config-epoch") };
    let is_switching = facts.get("failover-state").is_some_and(|state| SWITCHING_STATES.contains(&state.as_str()));
    Ok(Answer { master, replicas: number("num-slaves"), is_switching })
}

async fn timely<T>(work: impl Future<Output = RedisResult<T>>) -> RedisResult<T> {
    tokio::time::timeout(ANSWER_TIMEOUT, work).await.unwrap_or_else(|_| Err(late()))
}

fn late() -> redis::RedisError {
    (redis::ErrorKind::Io, "the sentinel did not answer in time").into()
}

fn lost() -> redis::RedisError {
    (redis::ErrorKind::Io, "the sentinel is gone").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(port: u16, epoch: u64) -> Option<Answer> {
        Some(Answer { master: NamedMaster { host: "h".to_owned(), port, epoch }, replicas: 2, is_switching: false })
    }

    fn switching(port: u16, epoch: u64) -> Option<Answer> {
        answer(port, epoch).map(|answer| Answer { is_switching: true, ..answer })
    }

    fn port(opinion: &Opinion) -> Option<u16> {
        opinion.master.as_ref().map(|master| master.port)
    }

    #[test]
    fn the_master_of_the_highest_epoch_counts_and_a_few_that_lag_behind_take_nothing_back() {
        let begun = opinion_of(&[answer(1, 4), None, answer(1, 4)], &Opinion::default());
        assert_eq!((port(&begun), begun.is_confirmed, begun.has_replicas), (Some(1), true, true));
        let switched = opinion_of(&[answer(1, 4), answer(2, 5), answer(1, 4)], &begun);
        assert_eq!(port(&switched), Some(2), "one of them is enough: it has the votes of most");
        let cut_off = opinion_of(&[answer(1, 4), None, None], &switched);
        assert_eq!((port(&cut_off), cut_off.is_confirmed), (Some(2), false));
        let silent = opinion_of(&[None, None, None], &cut_off);
        assert_eq!((port(&silent), silent.is_confirmed, silent.has_replicas), (Some(2), false, true));
        let set_up_anew = opinion_of(&[answer(3, 0), answer(3, 0), None], &silent);
        assert_eq!(port(&set_up_anew), Some(3), "most of them say so");
    }

    #[test]
    fn one_sentinel_that_replaces_the_master_is_believed_unless_it_lags_behind() {
        let begun = opinion_of(&[answer(1, 4), switching(1, 4), answer(1, 4)], &Opinion::default());
        assert!(begun.is_switching);
        let over = opinion_of(&[answer(1, 4), answer(2, 5), switching(1, 4)], &begun);
        assert_eq!((port(&over), over.is_switching), (Some(2), false));
        assert!(!opinion_of(&[answer(1, 4), answer(1, 4), None], &begun).is_switching, "it gave up");
    }
}
