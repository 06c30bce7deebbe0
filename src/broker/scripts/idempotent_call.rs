//! Getting a submission to Redis once, although the answer may get lost on the way.
//!
//! The very same bytes are sent again after a lost answer: the ids in them make that safe. A deadline by Redis's
//! clock travels along, so that what was reported as not done never runs later.

use std::time::{Duration, Instant};

use super::lua::LuaScript;
use crate::broker::{Broker, BrokerError};
use crate::config::PublishedChannels;

/// Longest time that a submission may take, all tries together.
const TOTAL_TIMEOUT: Duration = Duration::from_millis(1_800);
/// After this, by Redis's clock, it is not accepted any more.
const DEADLINE_US: i64 = 1_500_000;

/// It reached Redis after its deadline; nothing was done.
pub(super) struct DeadlinePassed;

/// Everything that travels, made once: a repeat must be the same to the byte. The first key says which Redis it goes
/// to; the first argument is the deadline by that one's clock, in µs, as is the last text of each answer.
pub(super) struct IdempotentCall {
    script: &'static LuaScript,
    keys: Vec<String>,
    args: Vec<String>,
}

impl IdempotentCall {
    pub(super) fn new(script: &'static LuaScript, keys: Vec<String>, args: Vec<String>) -> Self {
        Self { script, keys, args }
    }

    /// `EVALSHA …`, without a deadline, as sent where plain channels are published. The script must have been run before.
    pub(super) fn words(mut self) -> Vec<String> {
        let hash = self.script.hash(PublishedChannels::Plain).to_owned();
        self.args[0] = "0".to_owned();
        let mut words = vec!["EVALSHA".to_owned(), hash, self.keys.len().to_string()];
        words.append(&mut self.keys);
        words.append(&mut self.args);
        words
    }

    fn set_deadline(&mut self, broker: &Broker, since_begun: Duration) {
        let spent = i64::try_from(since_begun.as_micros()).unwrap_or(DEADLINE_US);
        self.args[0] = (broker.client.now_us(&self.keys[0]) + DEADLINE_US - spent).to_string();
    }

    async fn send(&self, broker: &Broker) -> Result<Vec<String>, BrokerError> {
        broker.client.script_replicated(self.script, &super::texts(&self.keys), &super::bytes(&self.args)).await
    }
}

impl Broker {
    /// Delivers it and reads the answer. Takes about 1.8 s at the longest.
    pub(super) async fn call_idempotent<T>(
        &self,
        mut delivery: IdempotentCall,
        read: impl Fn(&[String]) -> Result<Result<T, DeadlinePassed>, BrokerError>,
    ) -> Result<Result<T, DeadlinePassed>, BrokerError> {
        let begun = Instant::now();
        delivery.set_deadline(self, Duration::ZERO);
        let (mut sent, mut clock_corrected) = (false, false);
        // Which servers it may have reached, without an answer.
        let mut reached = Vec::new();
        loop {
            let left = TOTAL_TIMEOUT.saturating_sub(begun.elapsed());
            let outcome = match tokio::time::timeout(left, delivery.send(self)).await {
                Ok(Ok(answer)) => {
                    if let Some(now) = answer.last().and_then(|now| now.parse().ok()) {
                        self.client.learn_clock(&delivery.keys[0], now);
                    }
                    match read(&answer)? {
                        // Our idea of Redis's clock was wrong, and the answer brought the right one.
                        Err(DeadlinePassed) if !sent && !clock_corrected => {
                            clock_corrected = true;
                            delivery.set_deadline(self, begun.elapsed());
                            continue;
                        }
                        // This one never accepted it. Another one may have, which has been replaced since.
                        Err(DeadlinePassed)
                            if reached.iter().any(|it| *it != self.client.server(&delivery.keys[0])) =>
                        {
                            let words = "another Redis, which has taken over, does not know of it";
                            return Err(BrokerError::Unknown(words.to_owned()));
                        }
                        outcome => return Ok(outcome),
                    }
                }
                Ok(Err(error @ BrokerError::Refused(_))) if !sent => return Err(error),
                Ok(Err(error)) => error,
                Err(_) => BrokerError::Unknown("no answer in time".to_owned()),
            };
            if matches!(outcome, BrokerError::Unknown(_)) {
                sent = true;
                reached.push(self.client.server(&delivery.keys[0]));
            }
            // Nothing was ever sent: the caller may know at once. Else asking again finds out what became of it.
            let left = TOTAL_TIMEOUT.saturating_sub(begun.elapsed());
            if !sent || left.is_zero() || !self.client.wait_up(&delivery.keys[0], left).await {
                return Err(if sent { BrokerError::Unknown(outcome.to_string()) } else { outcome });
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
