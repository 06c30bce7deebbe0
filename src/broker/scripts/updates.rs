//! `lua/publish_update.lua`: progress and status, numbered.

use super::{bytes, lua, texts};
use crate::broker::keys::{COMMANDS_WAIT, DISPATCH_CHANNEL, updates_channel};
use crate::broker::{Broker, BrokerError};
use crate::domain::{Progress, Resource};

/// One message for everyone who watches a resource.
#[derive(Debug, Clone)]
pub struct Update {
    /// The run it comes from; `None` where no host runs the job (a command changed the row).
    pub run: Option<i64>,
    /// The message without its end, from `protocol::server`; the script appends `,"seq":N}`.
    pub message: String,
    /// The progress to keep for snapshots.
    pub progress: Option<Progress>,
    /// What to keep as desired: `Some(None)` forgets it, `None` leaves it.
    pub desired: Option<Option<String>>,
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
    /// Numbers, keeps and publishes an update. `None`: it came from a run that is over; nothing was done.
    pub async fn publish_update(&self, resource: &Resource, update: &Update) -> Result<Option<i64>, BrokerError> {
        let progress = update.progress.as_ref().and_then(|p| serde_json::to_string(p).ok()).unwrap_or_default();
        let desired = match &update.desired {
            None => "",
            Some(None) => "-",
            Some(Some(word)) => word,
        };
        let args = [
            update.run.map(|run| run.to_string()).unwrap_or_default(),
            updates_channel(resource),
            update.message.clone(),
            progress,
            desired.to_owned(),
        ];
        let keys = [self.keys().state(resource)];
        let seq: i64 = self.client.script(&lua::PUBLISH_UPDATE, &texts(&keys), &bytes(&args)).await?;
        Ok((seq >= 0).then_some(seq))
    }

    /// What Redis knows. Read it before the row: then the row is at least as new as `seq`.
    pub async fn live(&self, resource: &Resource) -> Result<LiveProgress, BrokerError> {
        let mut command = redis::cmd("HMGET");
        command.arg(self.keys().state(resource)).arg(&["seq", "live", "desired"]);
        let (seq, live, desired): (Option<i64>, Option<String>, Option<String>) = self.client.query(&command).await?;
        let progress = live.and_then(|text| serde_json::from_str(&text).ok());
        Ok(LiveProgress { seq: seq.unwrap_or(0), progress, desired })
    }

    /// Tells workers that a job may be waiting in SQL.
    pub async fn wake_dispatch(&self) -> Result<(), BrokerError> {
        self.client.query(redis::cmd("PUBLISH").arg(DISPATCH_CHANNEL).arg("")).await
    }

    /// Tells workers that more commands wait than one of them can take.
    pub async fn wake_pollers(&self) -> Result<(), BrokerError> {
        self.client.query(redis::cmd("PUBLISH").arg(DISPATCH_CHANNEL).arg(COMMANDS_WAIT)).await
    }
}
