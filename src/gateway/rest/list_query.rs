//! What the lists of jobs and campaigns take: filters, search, order.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer};

use super::query::{default_limit, limit, optional, parsed};
use crate::domain::{CampaignStatus, JobStatus, ResourceId, TenantId};
use crate::http::Refusal;
use crate::store::{CampaignFilter, JobFilter, JobSort, Store};

/// Longest text to search for, in characters.
const MAX_SEARCH: usize = 200;

/// What `GET /api/v1/jobs` takes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct JobListQuery {
    #[serde(default, deserialize_with = "job_statuses")]
    status: Vec<JobStatus>,
    #[serde(default, deserialize_with = "parsed")]
    campaign_id: Option<ResourceId>,
    #[serde(default, deserialize_with = "parsed")]
    job_type: Option<String>,
    #[serde(default, deserialize_with = "parsed")]
    created_by: Option<String>,
    #[serde(default, deserialize_with = "parsed")]
    worker: Option<String>,
    #[serde(default, deserialize_with = "created_after")]
    created_after: Option<i64>,
    #[serde(default, deserialize_with = "created_before")]
    created_before: Option<i64>,
    #[serde(default, deserialize_with = "updated_after")]
    updated_after: Option<i64>,
    #[serde(default, deserialize_with = "updated_before")]
    updated_before: Option<i64>,
    #[serde(default, deserialize_with = "search")]
    q: Option<String>,
    #[serde(default, deserialize_with = "job_sort")]
    sort: JobSort,
    #[serde(default, deserialize_with = "order")]
    order: Order,
    #[serde(default, deserialize_with = "totals")]
    totals: bool,
    #[serde(default, deserialize_with = "parsed")]
    fields: Option<String>,
    #[serde(default = "default_limit", deserialize_with = "limit")]
    limit: u32,
    #[serde(default, deserialize_with = "parsed")]
    after: Option<String>,
}

/// What `GET /api/v1/campaigns` takes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CampaignListQuery {
    #[serde(default, deserialize_with = "campaign_statuses")]
    status: Vec<CampaignStatus>,
    #[serde(default, deserialize_with = "parsed")]
    created_by: Option<String>,
    #[serde(default, deserialize_with = "created_after")]
    created_after: Option<i64>,
    #[serde(default, deserialize_with = "created_before")]
    created_before: Option<i64>,
    #[serde(default, deserialize_with = "updated_after")]
    updated_after: Option<i64>,
    #[serde(default, deserialize_with = "updated_before")]
    updated_before: Option<i64>,
    #[serde(default, deserialize_with = "search")]
    q: Option<String>,
    #[serde(default, deserialize_with = "campaign_sort")]
    sort: JobSort,
    #[serde(default, deserialize_with = "order")]
    order: Order,
    #[serde(default = "default_limit", deserialize_with = "limit")]
    limit: u32,
    #[serde(default, deserialize_with = "parsed")]
    after: Option<String>,
}

/// Which way round.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Order {
    #[default]
    Descending,
    Ascending,
}

/// What a list of jobs shows beside the jobs that fit.
pub(super) struct JobListView {
    /// Which fields of each.
    pub(super) fields: Option<String>,
    /// How many jobs are in each status.
    pub(super) totals: bool,
}

impl JobListQuery {
    /// What the store is asked for.
    pub(super) fn into_filter(self, tenant: TenantId) -> Result<(JobFilter, JobListView), Refusal> {
        let has_other_filters = !self.status.is_empty()
            || self.job_type.is_some()
            || self.created_by.is_some()
            || self.worker.is_some()
            || self.q.is_some()
            || [self.created_after, self.created_before, self.updated_after, self.updated_before]
                .iter()
                .any(Option::is_some);
        if self.totals && has_other_filters {
            return Err(Refusal::invalid(
                "\"totals\" counts all jobs of the tenant, or with \"campaign_id\" those of a campaign: ask without other filters",
            ));
        }
        let filter = JobFilter {
            tenant,
            status: self.status,
            campaign: self.campaign_id,
            job_type: self.job_type,
            created_by: self.created_by,
            worker: self.worker,
            created_after: self.created_after,
            created_before: self.created_before,
            updated_after: self.updated_after,
            updated_before: self.updated_before,
            text: self.q,
            sort: self.sort,
            ascending: self.order == Order::Ascending,
            after: self.after,
            limit: self.limit,
        };
        Store::check_job_cursor(&filter).map_err(Refusal::invalid)?;
        Ok((filter, JobListView { fields: self.fields, totals: self.totals }))
    }
}

impl CampaignListQuery {
    /// What the store is asked for.
    pub(super) fn into_filter(self, tenant: TenantId) -> Result<CampaignFilter, Refusal> {
        let filter = CampaignFilter {
            tenant,
            status: self.status,
            created_by: self.created_by,
            created_after: self.created_after,
            created_before: self.created_before,
            updated_after: self.updated_after,
            updated_before: self.updated_before,
            text: self.q,
            sort: self.sort,
            ascending: self.order == Order::Ascending,
            after: self.after,
            limit: self.limit,
        };
        Store::check_campaign_cursor(&filter).map_err(Refusal::invalid)?;
        Ok(filter)
    }
}

/// Words with commas between them, each one of a few.
fn several<'de, D: Deserializer<'de>, T: Copy + PartialEq>(
    deserializer: D,
    parse: impl Fn(&str) -> Option<T>,
    all: &[&str],
) -> Result<Vec<T>, D::Error> {
    let form = format!("\"status\" must be one of {}, or several of them with commas between", all.join(", "));
    let read = |text: &str| text.split(',').map(|word| parse(word.trim())).collect::<Option<Vec<T>>>();
    let mut given = optional(deserializer, read, &form)?.unwrap_or_default();
    let mut seen = Vec::new();
    given.retain(|one| {
        !seen.contains(one) && {
            seen.push(*one);
            true
        }
    });
    Ok(given)
}

fn job_statuses<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<JobStatus>, D::Error> {
    several(deserializer, JobStatus::parse, &JobStatus::ALL.map(JobStatus::as_str))
}

fn campaign_statuses<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<CampaignStatus>, D::Error> {
    several(deserializer, CampaignStatus::parse, &CampaignStatus::ALL.map(CampaignStatus::as_str))
}

fn job_sort<'de, D: Deserializer<'de>>(deserializer: D) -> Result<JobSort, D::Error> {
    let read = |text: &str| match text {
        "unfinished" => Some(JobSort::Unfinished),
        "created" => Some(JobSort::Created),
        "updated" => Some(JobSort::Updated),
        "duration" => Some(JobSort::Duration),
        _ => None,
    };
    let form = "\"sort\" must be one of unfinished, created, updated, duration";
    Ok(optional(deserializer, read, form)?.unwrap_or_default())
}

fn campaign_sort<'de, D: Deserializer<'de>>(deserializer: D) -> Result<JobSort, D::Error> {
    let read = |text: &str| match text {
        "unfinished" => Some(JobSort::Unfinished),
        "created" => Some(JobSort::Created),
        "updated" => Some(JobSort::Updated),
        _ => None,
    };
    Ok(optional(deserializer, read, "\"sort\" must be one of unfinished, created, updated")?.unwrap_or_default())
}

fn order<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Order, D::Error> {
    let read = |text: &str| match text {
        "desc" => Some(Order::Descending),
        "asc" => Some(Order::Ascending),
        _ => None,
    };
    Ok(optional(deserializer, read, "\"order\" must be desc or asc")?.unwrap_or_default())
}

fn totals<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Ok(optional(deserializer, |text| text.parse().ok(), "\"totals\" must be true or false")?.unwrap_or_default())
}

fn search<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let fits = |text: &str| (text.chars().count() <= MAX_SEARCH && !text.contains('\0')).then(|| text.to_owned());
    let form = format!("\"q\" must be a text of {MAX_SEARCH} characters at most, without NUL");
    optional(deserializer, |text| fits(text), &form)
}

/// A time as RFC 3339; in Unix ms. A plus sign that a query has turned into a space is taken for what it was.
fn moment<'de, D: Deserializer<'de>>(deserializer: D, name: &str) -> Result<Option<i64>, D::Error> {
    let read = |text: &str| {
        let text: Cow<'_, str> = if text.contains(' ') { text.replace(' ', "+").into() } else { text.into() };
        text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_millisecond)
    };
    let form = format!("\"{name}\" must be a time as RFC 3339 has it, such as 2026-01-02T03:04:05Z");
    optional(deserializer, read, &form)
}

fn created_after<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    moment(deserializer, "created_after")
}

fn created_before<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    moment(deserializer, "created_before")
}

fn updated_after<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    moment(deserializer, "updated_after")
}

fn updated_before<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    moment(deserializer, "updated_before")
}
