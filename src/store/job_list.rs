//! Which index a list of jobs, or of campaigns, is read along.

use super::list_plan::{Bounds, Branch, IndexedFilter, ListPlan, SortKey};
use super::sql::{Value, time_text};
use super::{CampaignFilter, JobFilter, JobSort};
use crate::domain::{CampaignStatus, JobStatus};

const UNENDED: &str = "status IN ('pending', 'running', 'paused')";
pub(super) const ENDED: &str = "status IN ('completed', 'failed', 'cancelled')";

/// Collects conditions with their values.
struct Conditions {
    values: Vec<Value>,
    all: Vec<String>,
}

impl Conditions {
    fn of_tenant(tenant: &str) -> Self {
        Self { values: vec![tenant.into()], all: Vec::new() }
    }

    /// The place of a value.
    fn value(&mut self, value: impl Into<Value>) -> String {
        self.values.push(value.into());
        format!("${}", self.values.len())
    }

    fn equals(&mut self, column: &str, value: &str) -> String {
        format!("{column} = {}", self.value(value))
    }

    /// A condition on a time, by the words that its index has.
    fn since(&mut self, column: &str, sign: &str, ms: Option<i64>) -> Option<String> {
        let place = self.value(time_text(ms?));
        Some(format!("{{key:{column}}} {sign} {{time:{place}}}"))
    }

    /// Whether one of the columns has the text.
    fn search(&mut self, columns: &[&str], text: &str) {
        let escaped = text.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_");
        let place = self.value(format!("%{escaped}%"));
        let any: Vec<_> = columns.iter().map(|column| format!("{column} {{like}} {place} ESCAPE '\\'")).collect();
        self.all.push(format!("({})", any.join(" OR ")));
    }
}

fn one_of<'a>(statuses: impl Iterator<Item = &'a str>) -> String {
    let list = statuses.map(|status| format!("'{status}'")).collect::<Vec<_>>().join(", ");
    format!("status IN ({list})")
}

/// How a list of jobs is read; `begun` is when its first page was (Unix ms), `hosts` are the workers that are asked for.
pub(super) fn jobs(filter: &JobFilter, begun: i64, hosts: &[String]) -> ListPlan {
    let mut given = Conditions::of_tenant(filter.tenant.as_str());
    // The filters that have an index with the status behind it: the one that probably finds the fewest first.
    let mut indexed: Vec<(&'static str, String)> = Vec::new();
    if let Some(campaign) = &filter.campaign {
        indexed.push(("jobs_of_campaign", given.equals("campaign_id", campaign.as_str())));
    }
    if let Some(user) = &filter.created_by {
        indexed.push(("jobs_of_creator", given.equals("created_by", user)));
    }
    if let Some(job_type) = &filter.job_type {
        indexed.push(("jobs_of_type", given.equals("job_type", job_type)));
    }
    let mut others: Vec<IndexedFilter> = Vec::new();
    if filter.worker.is_some() {
        let places: Vec<String> = hosts.iter().map(|host| given.value(host.as_str())).collect();
        let only = format!("host IS NOT NULL AND host IN ({})", places.join(", "));
        others.push(IndexedFilter { index: "jobs_hosted", only, time: None });
    }
    for (index, column, after, before) in [
        ("jobs_by_creation", "created_at", filter.created_after, filter.created_before),
        ("jobs_by_update", "updated_at", filter.updated_after, filter.updated_before),
    ] {
        let bounds = Bounds { lower: given.since(column, ">=", after), upper: given.since(column, "<", before) };
        if after.is_some() || before.is_some() {
            others.push(IndexedFilter { index, only: bounds.both(), time: Some((column, bounds)) });
        }
    }
    if let Some(text) = &filter.text {
        given.search(&["title", "id", "job_type", "created_by", "error_message"], text);
    }
    let asked = |status: &JobStatus| filter.status.is_empty() || filter.status.contains(status);
    let statuses: Vec<JobStatus> = JobStatus::ALL.into_iter().filter(asked).collect();
    let of_status = one_of(statuses.iter().map(|status| status.as_str()));
    let beside: Vec<String> = others.iter().map(|other| other.only.clone()).chain(given.all.iter().cloned()).collect();

    // Whatever is asked for, whichever of the filters finds it.
    let mut all_filters: Vec<String> = indexed.iter().map(|(_, only)| only.clone()).chain(beside.clone()).collect();
    if !filter.status.is_empty() {
        all_filters.push(of_status.clone());
    }
    let (phases, filters) = match filter.sort {
        JobSort::Unfinished => {
            let (own, rest) = match indexed.split_first() {
                Some(((index, only), rest)) => (Some((*index, only.clone())), rest),
                None => (None, &[][..]),
            };
            let branch = |status: &JobStatus| {
                let is = format!("status = '{}'", status.as_str());
                let (index, only) = match (&own, status.is_final()) {
                    (Some((index, only)), _) => (*index, format!("{only} AND {is}")),
                    (None, false) => ("jobs_unended", format!("{is} AND {UNENDED}")),
                    (None, true) => ("jobs_ended_of_tenant", format!("{is} AND {ENDED}")),
                };
                Branch { index, only, bounds: Bounds::default(), key: SortKey::Row }
            };
            let (ended, unended): (Vec<_>, Vec<_>) = statuses.iter().partition(|status| status.is_final());
            let phases = [unended, ended].map(|some| some.into_iter().map(branch).collect::<Vec<_>>());
            (phases.to_vec(), rest.iter().map(|(_, only)| only.clone()).chain(beside).collect())
        }
        JobSort::Created => by_time("jobs_by_creation", "created_at", &others, &all_filters),
        JobSort::Updated => by_time("jobs_by_update", "updated_at", &others, &all_filters),
        JobSort::Duration => {
            let over = Branch {
                index: "jobs_by_running_time",
                only: "status <> 'running'".to_owned(),
                bounds: Bounds::default(),
                key: SortKey::Number { expression: RAN, plus: 0 },
            };
            let running = Branch {
                index: "jobs_by_start",
                only: "status = 'running'".to_owned(),
                bounds: Bounds::default(),
                key: SortKey::Number { expression: STARTED, plus: begun },
            };
            (vec![vec![over, running]], all_filters.clone())
        }
    };
    let order = match filter.sort {
        JobSort::Unfinished => [format!("CASE WHEN {UNENDED} THEN 0 ELSE 1 END"), "0".to_owned()],
        JobSort::Created => ["0".to_owned(), "{key:created_at}".to_owned()],
        JobSort::Updated => ["0".to_owned(), "{key:updated_at}".to_owned()],
        JobSort::Duration => {
            ["0".to_owned(), format!("CASE WHEN status = 'running' THEN ({STARTED}) + {begun} ELSE {RAN} END")]
        }
    };
    let mut lookups: Vec<IndexedFilter> = others;
    lookups.sort_by_key(|lookup| lookup.index != "jobs_hosted");
    // A filter on the status narrows those whose index has it.
    let narrowed = |(index, only): (&'static str, String)| IndexedFilter {
        index,
        only: format!("{only} AND {of_status}"),
        time: None,
    };
    lookups.splice(0..0, indexed.into_iter().map(narrowed));
    if !filter.status.is_empty() {
        let is_mixed = statuses.iter().any(|status| status.is_final()) && !statuses.iter().all(|s| s.is_final());
        let (index, whole) = match statuses[0].is_final() {
            true => ("jobs_ended_of_tenant", ENDED),
            false => ("jobs_unended", UNENDED),
        };
        if !is_mixed {
            lookups.push(IndexedFilter { index, only: format!("{of_status} AND {whole}"), time: None });
        }
    }
    ListPlan {
        table: "jobs",
        values: given.values,
        phases,
        filters,
        indexed: lookups,
        all_filters,
        order,
        ascending: filter.ascending,
        is_search: filter.text.is_some(),
    }
}

/// How long a job ran that does not run, and minus the moment at which one that runs would have begun had it never stood:
/// the words of the indexes.
const RAN: &str = "COALESCE(running_ms, 0)";
const STARTED: &str = "COALESCE(running_ms, 0) - COALESCE(status_since, 9007199254740991)";

/// A walk along the index of a time, and what it does not see to; a range of the same time is a part of it.
fn by_time(
    index: &'static str,
    column: &'static str,
    ranges: &[IndexedFilter],
    filters: &[String],
) -> (Vec<Vec<Branch>>, Vec<String>) {
    let range = ranges.iter().find(|range| range.index == index);
    let rest = filters.iter().filter(|filter| range.is_none_or(|range| **filter != range.only)).cloned().collect();
    let bounds = range.and_then(|range| range.time.clone()).map(|(_, bounds)| bounds).unwrap_or_default();
    (vec![vec![Branch { index, only: String::new(), bounds, key: SortKey::Time(column) }]], rest)
}

/// How a list of campaigns is read.
pub(super) fn campaigns(filter: &CampaignFilter) -> ListPlan {
    let mut given = Conditions::of_tenant(filter.tenant.as_str());
    let mut others: Vec<IndexedFilter> = Vec::new();
    if let Some(user) = &filter.created_by {
        let only = given.equals("created_by", user);
        given.all.push(only);
    }
    for (index, column, after, before) in [
        ("campaigns_by_creation", "created_at", filter.created_after, filter.created_before),
        ("campaigns_by_update", "updated_at", filter.updated_after, filter.updated_before),
    ] {
        let bounds = Bounds { lower: given.since(column, ">=", after), upper: given.since(column, "<", before) };
        if after.is_some() || before.is_some() {
            others.push(IndexedFilter { index, only: bounds.both(), time: Some((column, bounds)) });
        }
    }
    if let Some(text) = &filter.text {
        given.search(&["name", "id", "created_by"], text);
    }
    let asked = |status: &CampaignStatus| filter.status.is_empty() || filter.status.contains(status);
    let statuses: Vec<CampaignStatus> = CampaignStatus::ALL.into_iter().filter(asked).collect();
    let beside: Vec<String> = others.iter().map(|other| other.only.clone()).chain(given.all.iter().cloned()).collect();
    let of_status = one_of(statuses.iter().map(|status| status.as_str()));
    let mut all_filters = beside.clone();
    if !filter.status.is_empty() {
        all_filters.push(of_status.clone());
        others.push(IndexedFilter { index: "campaigns_of_tenant", only: of_status, time: None });
    }
    let ((phases, filters), order) = match filter.sort {
        JobSort::Created => (
            by_time("campaigns_by_creation", "created_at", &others, &all_filters),
            ["0".to_owned(), "{key:created_at}".to_owned()],
        ),
        JobSort::Updated => (
            by_time("campaigns_by_update", "updated_at", &others, &all_filters),
            ["0".to_owned(), "{key:updated_at}".to_owned()],
        ),
        JobSort::Unfinished | JobSort::Duration => {
            let branch = |status: &CampaignStatus| Branch {
                index: "campaigns_of_tenant",
                only: format!("status = '{}'", status.as_str()),
                bounds: Bounds::default(),
                key: SortKey::Row,
            };
            let (ended, unended): (Vec<_>, Vec<_>) = statuses.iter().partition(|status| status.is_final());
            let phases = [unended, ended].map(|some| some.into_iter().map(branch).collect::<Vec<_>>());
            let order = ["CASE WHEN status IN ('active', 'paused') THEN 0 ELSE 1 END".to_owned(), "0".to_owned()];
            ((phases.to_vec(), beside), order)
        }
    };
    ListPlan {
        table: "campaigns",
        values: given.values,
        phases,
        filters,
        indexed: others,
        all_filters,
        order,
        ascending: filter.ascending,
        is_search: filter.text.is_some(),
    }
}
