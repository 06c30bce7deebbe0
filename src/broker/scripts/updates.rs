//! `lua/publish_update.lua`: progress and status, numbered.

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
pub struct Live {
    /// Number of the last update.
    pub seq: i64,
    /// Progress newer than the row's, perhaps, with its run.
    pub progress: Option<Progress>,
    /// `paused` or `cancelled`, while a command is being carried out.
    pub desired: Option<String>,
}

impl Broker {
    /// Numbers, keeps and publishes an update. `None`: it came from a run that is over; nothing was done.
    pub async fn publish_update(&self, _resource: &Resource, _update: &Update) -> Result<Option<i64>, BrokerError> {
        unimplemented!()
    }

    /// What Redis knows. Read it before the row: then the row is at least as new as `seq`.
    pub async fn live(&self, _resource: &Resource) -> Result<Live, BrokerError> {
        unimplemented!()
    }

    /// Tells workers that a job may be waiting in SQL.
    pub async fn wake_dispatch(&self) -> Result<(), BrokerError> {
        unimplemented!()
    }
}
