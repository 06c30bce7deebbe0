//! Status messages to those who watch a resource. SQL has each status already, so a message that cannot be sent is logged
//! and left out: whoever asks for a snapshot is told the truth.

use crate::broker::Broker;
use crate::broker::scripts::updates::Update;
use crate::domain::{Campaign, Job, JobStatus, Resource};
use crate::protocol::server;
use crate::store::Store;
use crate::worker::error::WorkerError;

/// What a status message says about the status to which a command takes the resource.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Desired<'a> {
    /// No command is on its way to another status.
    Nothing,
    /// A command takes it to this status.
    Is(&'a str),
}

impl<'a> Desired<'a> {
    fn shown(self) -> Option<&'a str> {
        match self {
            Self::Nothing => None,
            Self::Is(status) => Some(status),
        }
    }
}

/// Publishes the status of a job, and returns whether that worked.
pub(crate) async fn publish_status(broker: &Broker, job: &Resource, status: JobStatus, desired: Desired<'_>) -> bool {
    let message = server::job_status(job, status, desired.shown());
    publish_desired(broker, job, message, desired).await
}

/// Publishes the status of a campaign, and returns whether that worked.
pub(crate) async fn publish_campaign_status(
    broker: &Broker,
    campaign: &Resource,
    row: &Campaign,
    desired: Desired<'_>,
) -> bool {
    publish_desired(broker, campaign, server::campaign_status(row, desired.shown()), desired).await
}

/// Publishes the status that the row of a job has, until it is the one that it has after that, and returns the row.
pub(crate) async fn publish_row(store: &Store, broker: &Broker, job: &Resource) -> Result<Option<Job>, WorkerError> {
    let mut published = None;
    loop {
        let row = store.job_without_contents(job).await?;
        let now = row.as_ref().map(|row| row.status);
        // A job that has not ended may have changed before the message was out: then another message follows.
        let Some(status) = now.filter(|_| now != published) else { return Ok(row) };
        // No command takes an ended job anywhere any more; about another one its host knows more than SQL.
        let desired = status.is_final().then_some(None);
        let message = server::job_status(job, status, None);
        broker.publish_update(job, &Update { message, desired }).await?;
        published = now;
    }
}

async fn publish_desired(broker: &Broker, resource: &Resource, message: String, desired: Desired<'_>) -> bool {
    let desired = Some(desired.shown().map(str::to_owned));
    publish(broker, resource, &Update { message, desired }).await
}

/// Publishes whether the host of a job is heard of.
pub(crate) async fn publish_contact(broker: &Broker, job: &Job) {
    let resource = Resource::job(job.tenant_id.clone(), job.id.clone());
    let message = server::job_contact(&resource, job.status, job.contact_lost_at.as_deref());
    publish(broker, &resource, &Update { message, desired: None }).await;
}

/// Publishes a message, and returns whether that worked.
pub(crate) async fn publish(broker: &Broker, resource: &Resource, update: &Update) -> bool {
    let published = broker.publish_update(resource, update).await;
    if let Err(error) = &published {
        tracing::warn!(%resource, %error, "worker.update_not_published");
    }
    published.is_ok()
}
