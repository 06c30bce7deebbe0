//! Who is told that something has changed: those who watch a job or a campaign, and the other workers.

pub(crate) mod announcements;
pub(crate) mod announcer;
pub(crate) mod campaign_progress;
pub(crate) mod job_notifier;
pub(crate) mod job_wakes;
pub(crate) mod updates;
