//! What `job ls` and `campaign ls` may be asked: filters, search, order.

use clap::Args;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::api::ApiArgs;
use super::usage::usage;
use crate::domain::audit::parse_time_or_age;
use crate::domain::{CampaignStatus, JobStatus, ResourceId};

/// Which jobs.
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Only jobs in this status, or in several: failed,cancelled
    #[arg(long)]
    status: Option<String>,
    /// Only this campaign's jobs.
    #[arg(long, value_name = "ID")]
    campaign: Option<ResourceId>,
    /// Only jobs of this type.
    #[arg(long = "type", value_name = "TYPE")]
    job_type: Option<String>,
    /// Only jobs that a worker of this name, or with this id, has.
    #[arg(long, value_name = "NAME")]
    worker: Option<String>,
    #[command(flatten)]
    any: AnyListArgs,
    /// By what they are sorted: unfinished (those first, then the newest), created, updated, duration.
    #[arg(long, value_parser = ["unfinished", "created", "updated", "duration"])]
    sort: Option<String>,
    #[command(flatten)]
    pub(super) api: ApiArgs,
}

/// Which campaigns.
#[derive(Debug, Args)]
pub(super) struct ListCampaignsArgs {
    /// Only campaigns in this status, or in several: active,paused
    #[arg(long)]
    status: Option<String>,
    #[command(flatten)]
    any: AnyListArgs,
    /// By what they are sorted: unfinished (those first, then the newest), created, updated.
    #[arg(long, value_parser = ["unfinished", "created", "updated"])]
    sort: Option<String>,
    #[command(flatten)]
    pub(super) api: ApiArgs,
}

/// What both lists have.
#[derive(Debug, Args)]
struct AnyListArgs {
    /// Only with this text in title, id, type, user or error.
    #[arg(short, long = "search", value_name = "TEXT")]
    q: Option<String>,
    /// Only those that this user made.
    #[arg(long, value_name = "USER")]
    created_by: Option<String>,
    /// Only those made then or later: 2026-01-02T03:04:05Z, or 2h for two hours ago.
    #[arg(long, value_name = "TIME")]
    created_after: Option<String>,
    /// Only those made before.
    #[arg(long, value_name = "TIME")]
    created_before: Option<String>,
    /// Only those that changed then or later.
    #[arg(long, value_name = "TIME")]
    updated_after: Option<String>,
    /// Only those that last changed before.
    #[arg(long, value_name = "TIME")]
    updated_before: Option<String>,
    /// The other way round: the oldest, or the shortest, first.
    #[arg(long)]
    reverse: bool,
    /// At most so many; all where none is given, but with --json the first 50 (`next` in it leads to the others).
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
}

/// A query as the API takes it.
#[derive(Default)]
struct Query(Vec<String>);

impl Query {
    fn add(&mut self, name: &str, value: Option<&str>) {
        let value = value.filter(|value| !value.is_empty());
        self.0.extend(value.map(|value| format!("{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC))));
    }

    /// A time, or how long ago.
    fn add_time(&mut self, name: &str, value: Option<&str>) -> anyhow::Result<()> {
        let Some(value) = value else { return Ok(()) };
        let flag = name.replace('_', "-");
        let now = jiff::Timestamp::now().as_millisecond();
        let ms = parse_time_or_age(value, now).map_err(|problem| usage(format!("--{flag}: {problem}")))?;
        let time = jiff::Timestamp::from_millisecond(ms).map_err(|_| usage(format!("--{flag}: no such time")))?;
        self.add(name, Some(&time.to_string()));
        Ok(())
    }

    fn add_status(&mut self, given: Option<&str>, known: &[&str]) -> anyhow::Result<()> {
        if let Some(odd) =
            given.into_iter().flat_map(|given| given.split(',')).find(|word| !known.contains(&word.trim()))
        {
            return Err(usage(format!("--status {odd}: one of {}, or several with commas between", known.join(", "))));
        }
        self.add("status", given);
        Ok(())
    }

    fn add_any(&mut self, any: &AnyListArgs) -> anyhow::Result<()> {
        self.add("q", any.q.as_deref());
        self.add("created_by", any.created_by.as_deref());
        self.add_time("created_after", any.created_after.as_deref())?;
        self.add_time("created_before", any.created_before.as_deref())?;
        self.add_time("updated_after", any.updated_after.as_deref())?;
        self.add_time("updated_before", any.updated_before.as_deref())?;
        self.add("order", any.reverse.then_some("asc"));
        Ok(())
    }

    fn text(self) -> String {
        if self.0.is_empty() { String::new() } else { format!("?{}", self.0.join("&")) }
    }
}

impl ListArgs {
    /// What the API is asked for, and how many rows.
    pub(super) fn query(&self) -> anyhow::Result<(String, Option<u32>)> {
        let mut query = Query::default();
        query.add_status(self.status.as_deref(), &JobStatus::ALL.map(JobStatus::as_str))?;
        query.add("campaign_id", self.campaign.as_ref().map(ResourceId::as_str));
        query.add("job_type", self.job_type.as_deref());
        query.add("worker", self.worker.as_deref());
        query.add_any(&self.any)?;
        query.add("sort", self.sort.as_deref());
        Ok((query.text(), self.any.limit))
    }
}

impl ListCampaignsArgs {
    /// What the API is asked for, and how many rows.
    pub(super) fn query(&self) -> anyhow::Result<(String, Option<u32>)> {
        let mut query = Query::default();
        query.add_status(self.status.as_deref(), &CampaignStatus::ALL.map(CampaignStatus::as_str))?;
        query.add_any(&self.any)?;
        query.add("sort", self.sort.as_deref());
        Ok((query.text(), self.any.limit))
    }
}
