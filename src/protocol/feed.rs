//! Which messages a tenant-wide socket wants: the filter of `subscribe`.

use std::collections::HashSet;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::batch::{StatusList, deduplicate, job_type, known_statuses, object};
use crate::domain::{JobFacts, ResourceId, ResourceKind};

/// A filter, as understood. The default matches everything.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FeedFilter {
    /// Only these kinds.
    kinds: Option<Vec<ResourceKind>>,
    /// Of jobs, only these.
    job_ids: Option<HashSet<ResourceId>>,
    /// Of campaigns, only these.
    campaign_ids: Option<HashSet<ResourceId>>,
    /// Of jobs, only this campaign's.
    campaign_id: Option<ResourceId>,
    /// Of jobs, only those of this type.
    job_type: Option<String>,
    /// Of updates, only those with one of these statuses.
    status: Option<Vec<&'static str>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct RawFeedFilter {
    kinds: Option<StatusList>,
    job_ids: Option<Vec<ResourceId>>,
    campaign_ids: Option<Vec<ResourceId>>,
    campaign_id: Option<ResourceId>,
    job_type: Option<String>,
    status: Option<StatusList>,
}

impl FeedFilter {
    /// Reads a filter; an error says in words what does not fit.
    pub fn read(value: Option<&Value>) -> Result<Self, String> {
        let raw: RawFeedFilter = match value {
            None | Some(Value::Null) => RawFeedFilter::default(),
            Some(value) => {
                object(value)?;
                RawFeedFilter::deserialize(value).map_err(|error| format!("filter: {error}"))?
            }
        };
        let ids = |ids: Option<Vec<ResourceId>>, field| {
            ids.map(|ids| deduplicate(ids, field).map(HashSet::from_iter)).transpose()
        };
        let mut filter = Self {
            kinds: raw.kinds.map(kinds).transpose()?,
            job_ids: ids(raw.job_ids, "job_ids")?,
            campaign_ids: ids(raw.campaign_ids, "campaign_ids")?,
            campaign_id: raw.campaign_id,
            job_type: raw.job_type.map(job_type).transpose()?,
            status: raw.status.map(statuses).transpose()?,
        };
        if filter.kinds.is_none() {
            filter.kinds = filter.implied_kinds();
        }
        Ok(filter)
    }

    /// Whoever says which jobs, and nothing of campaigns, wants jobs.
    fn implied_kinds(&self) -> Option<Vec<ResourceKind>> {
        let jobs = self.job_ids.is_some() || self.campaign_id.is_some() || self.job_type.is_some();
        match (jobs, self.campaign_ids.is_some()) {
            (true, false) => Some(vec![ResourceKind::Job]),
            (false, true) => Some(vec![ResourceKind::Campaign]),
            (true, true) | (false, false) => None,
        }
    }

    /// The jobs and campaigns that the filter names one by one, in order.
    pub fn named_resources(&self) -> Vec<(ResourceKind, ResourceId)> {
        let named = |kind, ids: &Option<HashSet<ResourceId>>| {
            let mut ids: Vec<_> = ids.iter().flatten().map(|id| (kind, id.clone())).collect();
            ids.sort_unstable_by(|a, b| a.1.as_str().cmp(b.1.as_str()));
            ids
        };
        [named(ResourceKind::Job, &self.job_ids), named(ResourceKind::Campaign, &self.campaign_ids)].concat()
    }

    /// Whether a message can be judged only with the [`JobFacts`] of its job.
    pub fn needs_job_facts(&self, kind: ResourceKind, id: &ResourceId) -> bool {
        kind == ResourceKind::Job
            && (self.campaign_id.is_some() || self.job_type.is_some())
            && self.matches_resource(kind, id)
    }

    /// Whether a message about a resource is wanted. `status`: that of an update; a result has none here, because it
    /// tells of a command. Without the facts it needs, a job is not.
    pub fn matches(&self, kind: ResourceKind, id: &ResourceId, status: Option<&str>, facts: Option<&JobFacts>) -> bool {
        let of_status = match (&self.status, status) {
            (Some(wanted), Some(status)) => wanted.contains(&status),
            _ => true,
        };
        of_status
            && self.matches_resource(kind, id)
            && (!self.needs_job_facts(kind, id) || facts.is_some_and(|facts| self.matches_facts(facts)))
    }

    fn matches_resource(&self, kind: ResourceKind, id: &ResourceId) -> bool {
        let ids = match kind {
            ResourceKind::Job => &self.job_ids,
            ResourceKind::Campaign => &self.campaign_ids,
        };
        self.kinds.as_ref().is_none_or(|kinds| kinds.contains(&kind)) && ids.as_ref().is_none_or(|ids| ids.contains(id))
    }

    fn matches_facts(&self, facts: &JobFacts) -> bool {
        self.campaign_id.as_ref().is_none_or(|wanted| facts.campaign_id.as_ref() == Some(wanted))
            && self.job_type.as_ref().is_none_or(|wanted| facts.job_type == *wanted)
    }

    /// As the answer to `subscribe` shows it: what narrows, and nothing else.
    pub fn to_json(&self) -> Value {
        let mut shown = Map::new();
        let sorted = |ids: &HashSet<ResourceId>| {
            let mut ids: Vec<&str> = ids.iter().map(ResourceId::as_str).collect();
            ids.sort_unstable();
            Value::from(ids)
        };
        let mut show = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                shown.insert(name.to_owned(), value);
            }
        };
        let kinds = |kinds: &Vec<ResourceKind>| kinds.iter().map(|kind| kind.as_str()).collect::<Vec<_>>().into();
        show("kinds", self.kinds.as_ref().map(kinds));
        show("job_ids", self.job_ids.as_ref().map(sorted));
        show("campaign_ids", self.campaign_ids.as_ref().map(sorted));
        show("campaign_id", self.campaign_id.as_ref().map(|id| id.as_str().into()));
        show("job_type", self.job_type.as_deref().map(Value::from));
        show("status", self.status.clone().map(Value::from));
        Value::Object(shown)
    }
}

fn kinds(list: StatusList) -> Result<Vec<ResourceKind>, String> {
    let texts = list.into_vec();
    if texts.is_empty() {
        return Err("kinds is empty: leave it out, or name job, campaign or both".to_owned());
    }
    let mut kinds = Vec::new();
    for text in texts {
        let kind =
            ResourceKind::parse(&text).ok_or_else(|| format!("kinds may name job and campaign, not {text:?}"))?;
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    Ok(kinds)
}

/// Of either kind: a feed has both.
fn statuses(list: StatusList) -> Result<Vec<&'static str>, String> {
    let mut known: Vec<&'static str> =
        ResourceKind::ALL.into_iter().flat_map(known_statuses).map(|(status, _)| status).collect();
    known.sort_unstable();
    known.dedup();
    let texts = list.into_vec();
    if texts.is_empty() {
        return Err("status is empty: leave it out, or name one".to_owned());
    }
    let mut wanted = Vec::new();
    for text in texts {
        let found = known.iter().find(|known| **known == text);
        let found = found.ok_or_else(|| format!("status {text:?} is not one of {}", known.join(", ")))?;
        if !wanted.contains(found) {
            wanted.push(*found);
        }
    }
    Ok(wanted)
}

#[cfg(test)]
mod tests {
    use ResourceKind::{Campaign, Job};
    use serde_json::json;

    use super::*;

    fn filter(value: Value) -> FeedFilter {
        FeedFilter::read(Some(&value)).expect("a filter")
    }

    fn id(text: &str) -> ResourceId {
        text.parse().expect("id")
    }

    #[test]
    fn an_empty_filter_wants_everything() {
        for everything in [FeedFilter::default(), filter(json!({})), filter(Value::Null)] {
            assert!(everything.matches(Job, &id("a"), Some("running"), None));
            assert!(everything.matches(Campaign, &id("a"), None, None));
            assert!(!everything.needs_job_facts(Job, &id("a")));
            assert_eq!(everything.to_json(), json!({}));
        }
    }

    #[test]
    fn each_field_narrows_and_whoever_names_jobs_alone_wants_no_campaigns() {
        let jobs = filter(json!({"job_ids": ["b", "a", "a"]}));
        assert_eq!(jobs.to_json(), json!({"kinds": ["job"], "job_ids": ["a", "b"]}));
        assert!(jobs.matches(Job, &id("a"), Some("running"), None));
        assert!(!jobs.matches(Job, &id("c"), Some("running"), None));
        assert!(!jobs.matches(Campaign, &id("a"), Some("active"), None));
        let both = filter(json!({"kinds": ["campaign", "job"], "job_ids": ["a"]}));
        assert!(both.matches(Campaign, &id("x"), Some("active"), None) && !both.matches(Job, &id("x"), None, None));
        let campaigns = filter(json!({"kinds": "campaign", "status": "paused"}));
        assert!(campaigns.matches(Campaign, &id("x"), Some("paused"), None));
        assert!(!campaigns.matches(Campaign, &id("x"), Some("active"), None));
        assert!(campaigns.matches(Campaign, &id("x"), None, None), "a result has no status");
    }

    #[test]
    fn what_a_message_does_not_say_is_judged_by_the_facts() {
        let narrow = filter(json!({"campaign_id": "c", "job_type": "t"}));
        assert!(narrow.needs_job_facts(Job, &id("a")) && !narrow.needs_job_facts(Campaign, &id("a")));
        let facts = |campaign: Option<&str>, job_type: &str| JobFacts {
            campaign_id: campaign.map(id),
            job_type: job_type.to_owned(),
        };
        assert!(narrow.matches(Job, &id("a"), None, Some(&facts(Some("c"), "t"))));
        for other in [facts(Some("d"), "t"), facts(None, "t"), facts(Some("c"), "u")] {
            assert!(!narrow.matches(Job, &id("a"), None, Some(&other)));
        }
        assert!(!narrow.matches(Job, &id("a"), None, None));
    }

    #[test]
    fn what_does_not_fit_is_named() {
        for (value, part) in [
            (json!({"kind": "job"}), "unknown field `kind`"),
            (json!({"kinds": ["jobs"]}), "job and campaign"),
            (json!({"kinds": []}), "kinds is empty"),
            (json!({"job_ids": []}), "job_ids is empty"),
            (json!({"job_ids": ["a b"]}), "an id must be"),
            (json!([null, null]), "must be an object"),
            (json!({"status": ["walking"]}), "active, cancelled"),
            (json!([]), "filter"),
            (json!("x"), "filter"),
        ] {
            let message = FeedFilter::read(Some(&value)).expect_err("refused");
            assert!(message.contains(part), "{value}: {message}");
        }
    }
}
