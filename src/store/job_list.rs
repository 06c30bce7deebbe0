//! Which index a list of jobs, or of campaigns, is read along.

use super::job_indexes::{self, IndexPiece};
use super::list_plan::{Bounds, Branch, IndexedFilter, ListPlan, SortKey};
use super::sql::{Value, time_text};
use super::{CampaignFilter, JobFilter, JobSort};
use crate::domain::{CampaignStatus, JobStatus};

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
        indexed.push((job_indexes::OF_TYPE, given.equals("job_type", job_type)));
    }
    let mut others: Vec<IndexedFilter> = Vec::new();
    if filter.worker.is_some() {
        let places: Vec<String> = hosts.iter().map(|host| given.value(host.as_str())).collect();
        let only = format!("host IS NOT NULL AND host IN ({})", places.join(", "));
        let pieces = vec![IndexPiece::new("jobs_hosted", only.clone())];
        others.push(IndexedFilter { only, pieces, time: None });
    }
    for (column, after, before) in [
        ("created_at", filter.created_after, filter.created_before),
        ("updated_at", filter.updated_after, filter.updated_before),
    ] {
        others.extend(in_time(&mut given, &job_indexes::of_time(column), column, after, before));
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
            let branches = |status: &JobStatus| {
                let is = format!("status = '{}'", status.as_str());
                match &own {
                    Some((index, only)) => job_indexes::of_filter(index, only, &is, &[*status]),
                    None => job_indexes::of_status(*status),
                }
            };
            let branch =
                |IndexPiece { index, only, .. }| Branch { index, only, bounds: Bounds::default(), key: SortKey::Row };
            let (ended, unended): (Vec<_>, Vec<_>) = statuses.iter().partition(|status| status.is_final());
            let phases =
                [unended, ended].map(|some| some.into_iter().flat_map(branches).map(branch).collect::<Vec<_>>());
            (phases.to_vec(), rest.iter().map(|(_, only)| only.clone()).chain(beside).collect())
        }
        JobSort::Created => by_time(job_indexes::of_time("created_at"), "created_at", &others, &all_filters),
        JobSort::Updated => by_time(job_indexes::of_time("updated_at"), "updated_at", &others, &all_filters),
        JobSort::Duration => {
            let ran = Branch {
                index: "jobs_begun_by_running_time",
                only: job_indexes::RAN_OR_ENDED.to_owned(),
                bounds: Bounds::default(),
                key: SortKey::Number { expression: RAN, plus: 0 },
            };
            let not_run = Branch {
                index: job_indexes::OF_NOT_RUN,
                only: job_indexes::NOT_RUN.to_owned(),
                bounds: Bounds::default(),
                key: SortKey::Zero,
            };
            let running = Branch {
                index: "jobs_by_start",
                only: "status = 'running'".to_owned(),
                bounds: Bounds::default(),
                key: SortKey::Number { expression: STARTED, plus: begun },
            };
            (vec![vec![ran, running, not_run]], all_filters.clone())
        }
    };
    let order = match filter.sort {
        JobSort::Unfinished => [format!("CASE WHEN {} THEN 0 ELSE 1 END", job_indexes::UNENDED), "0".to_owned()],
        JobSort::Created => ["0".to_owned(), "{key:created_at}".to_owned()],
        JobSort::Updated => ["0".to_owned(), "{key:updated_at}".to_owned()],
        JobSort::Duration => {
            ["0".to_owned(), format!("CASE WHEN status = 'running' THEN ({STARTED}) + {begun} ELSE {RAN} END")]
        }
    };
    // A filter on the status narrows those whose index has it.
    let narrowed = |(index, only): (&'static str, String)| IndexedFilter {
        pieces: job_indexes::of_filter(index, &only, &of_status, &statuses),
        only,
        time: None,
    };
    let (of_worker, of_time): (Vec<_>, Vec<_>) = others.into_iter().partition(|other| other.time.is_none());
    let mut lookups: Vec<IndexedFilter> = indexed.into_iter().map(narrowed).collect();
    lookups.extend(of_worker.into_iter().chain(of_time));
    if !filter.status.is_empty() {
        let is_mixed = statuses.iter().any(|status| status.is_final()) && !statuses.iter().all(|s| s.is_final());
        if !is_mixed {
            let pieces = statuses.iter().flat_map(|status| job_indexes::of_status(*status)).collect();
            lookups.push(IndexedFilter { only: of_status, pieces, time: None });
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

/// The filter of a time, where there is one.
fn in_time(
    given: &mut Conditions,
    pieces: &[IndexPiece],
    column: &'static str,
    after: Option<i64>,
    before: Option<i64>,
) -> Option<IndexedFilter> {
    let bounds = Bounds { lower: given.since(column, ">=", after), upper: given.since(column, "<", before) };
    if after.is_none() && before.is_none() {
        return None;
    }
    let within = |piece: &IndexPiece| {
        let bounds = bounds.on(column, piece.time.unwrap_or(column)).both();
        let only = if piece.only.is_empty() { bounds } else { format!("{} AND {bounds}", piece.only) };
        IndexPiece { only, ..piece.clone() }
    };
    let pieces = pieces.iter().map(within).collect();
    Some(IndexedFilter { only: bounds.both(), pieces, time: Some((column, bounds)) })
}

/// A walk along the indexes of a time, and what it does not see to; a range of the same time is a part of it.
fn by_time(
    pieces: Vec<IndexPiece>,
    column: &'static str,
    ranges: &[IndexedFilter],
    filters: &[String],
) -> (Vec<Vec<Branch>>, Vec<String>) {
    let range = ranges.iter().find(|range| range.time.as_ref().is_some_and(|(of, _)| *of == column));
    let rest = filters.iter().filter(|filter| range.is_none_or(|range| **filter != range.only)).cloned().collect();
    let bounds = range.and_then(|range| range.time.clone()).map(|(_, bounds)| bounds).unwrap_or_default();
    let branch = |IndexPiece { index, only, time }| {
        let time = time.unwrap_or(column);
        Branch { index, only, bounds: bounds.on(column, time), key: SortKey::Time(time) }
    };
    (vec![pieces.into_iter().map(branch).collect()], rest)
}

/// The index of campaigns by a time.
fn campaigns_by(index: &'static str, column: &'static str) -> Vec<IndexPiece> {
    vec![IndexPiece { index, only: String::new(), time: Some(column) }]
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
        others.extend(in_time(&mut given, &campaigns_by(index, column), column, after, before));
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
        let pieces = vec![IndexPiece::new("campaigns_of_tenant", of_status.clone())];
        others.push(IndexedFilter { only: of_status, pieces, time: None });
    }
    let ((phases, filters), order) = match filter.sort {
        JobSort::Created => (
            by_time(campaigns_by("campaigns_by_creation", "created_at"), "created_at", &others, &all_filters),
            ["0".to_owned(), "{key:created_at}".to_owned()],
        ),
        JobSort::Updated => (
            by_time(campaigns_by("campaigns_by_update", "updated_at"), "updated_at", &others, &all_filters),
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
