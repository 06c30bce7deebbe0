//! `lua/publish_update.lua`: what a resource is by now, numbered. How far a run is, is told by `update_runs.lua`.

use super::{bytes, lua, texts};
use crate::broker::keys::{COMMANDS_WAIT, DISPATCH_CHANNEL, updates_channel};
use crate::broker::{Broker, BrokerError};
use crate::domain::{Progress, Resource};

/// One message for everyone who watches a resource.
#[derive(Debug, Clone)]
pub struct Update {
    /// The message without its end, from `protocol::server`; the script appends `,"seq":N}`.
    pub message: String,
    /// What to keep as desired: `Some(None)` forgets it, `None` leaves it.
    pub desired: Option<Option<String>>,
}

/// What workers tell each other and are told on [`DISPATCH_CHANNEL`] about jobs that wait in SQL. It is shown as it is published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobWake {
    /// Jobs may wait.
    Any,
    /// The same.
    Jobs {
        /// How many, at most.
        count: u64,
        /// Another one for each wake-up.
        name: String,
    },
    /// A worker has looked after it had heard of this wake-up and of no later one, and nothing is left that it could take.
    NothingLeft {
        /// The wake-up's.
        name: String,
        /// The same for all workers that may take the same jobs.
        kind: u64,
    },
}

impl JobWake {
    /// One for so many jobs.
    pub fn jobs(count: usize) -> Self {
        Self::Jobs { count: count as u64, name: format!("{:016x}", fastrand::u64(..)) }
    }

    /// Reads what was published. Whatever is not known says that jobs may wait.
    pub fn read(payload: &[u8]) -> Self {
        let text = std::str::from_utf8(payload).unwrap_or_default();
        let known = || {
            let [what, number, name] = text.split(':').collect::<Vec<_>>()[..] else { return None };
            let name = name.to_owned();
            match what {
                "jobs" => Some(Self::Jobs { count: number.parse().ok()?, name }),
                "none" => Some(Self::NothingLeft { kind: u64::from_str_radix(number, 16).ok()?, name }),
                _ => None,
            }
        };
        known().unwrap_or(Self::Any)
    }
}

impl std::fmt::Display for JobWake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Any => Ok(()),
            Self::Jobs { count, name } => write!(f, "jobs:{count}:{name}"),
            Self::NothingLeft { name, kind } => write!(f, "none:{kind:x}:{name}"),
        }
    }
}

/// What Redis knows of a resource beyond SQL.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LiveProgress {
    /// Number of the last update.
    pub seq: i64,
    /// Progress newer than the row's, perhaps, with its run.
    pub progress: Option<Progress>,
    /// `paused` or `cancelled`, while a command is being carried out.
    pub desired: Option<String>,
}

impl Broker {
    /// Numbers and publishes an update, and returns its number.
    pub async fn publish_update(&self, resource: &Resource, update: &Update) -> Result<i64, BrokerError> {
        let desired = match &update.desired {
            None => "",
            Some(None) => "-",
            Some(Some(word)) => word,
        };
        let args = [updates_channel(resource), update.message.clone(), desired.to_owned()];
        let keys = [self.keys().state(resource)];
        self.client.script(&lua::PUBLISH_UPDATE, &texts(&keys), &bytes(&args)).await
    }

    /// What Redis knows. Read it before the row: then the row is at least as new as `seq`.
    pub async fn live(&self, resource: &Resource) -> Result<LiveProgress, BrokerError> {
        let mut command = redis::cmd("HMGET");
        command.arg(self.keys().state(resource)).arg(&["seq", "live", "desired"]);
        let (seq, live, desired): (Option<i64>, Option<String>, Option<String>) = self.client.query(&command).await?;
        let progress = live.and_then(|text| serde_json::from_str(&text).ok());
        Ok(LiveProgress { seq: seq.unwrap_or(0), progress, desired })
    }

    /// Tells workers that jobs may be waiting in SQL.
    pub async fn wake_dispatch(&self, wake: &JobWake) -> Result<(), BrokerError> {
        self.client.query(redis::cmd("PUBLISH").arg(DISPATCH_CHANNEL).arg(wake.to_string())).await
    }

    /// Tells workers that more commands wait than one of them can take.
    pub async fn wake_pollers(&self) -> Result<(), BrokerError> {
        self.client.query(redis::cmd("PUBLISH").arg(DISPATCH_CHANNEL).arg(COMMANDS_WAIT)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wake_up_is_read_as_it_was_written_and_what_is_not_known_wakes_everybody() {
        let nothing_left = JobWake::NothingLeft { name: "0a".to_owned(), kind: u64::MAX };
        for wake in [JobWake::Any, JobWake::jobs(7), JobWake::jobs(0), nothing_left] {
            assert_eq!(JobWake::read(wake.to_string().as_bytes()), wake);
        }
        assert_ne!(JobWake::jobs(1), JobWake::jobs(1), "each has a name of its own");
        for payload in ["jobs", "jobs:x:a", "jobs:1:a:b", "none:xyz:a", "none::a", "hello", "jobs:-1:a"] {
            assert_eq!(JobWake::read(payload.as_bytes()), JobWake::Any, "{payload}");
        }
        assert_eq!(JobWake::read(&[0xff, 0xfe]), JobWake::Any);
    }
}
