//! One action on many resources: what a client may ask for, on the tenant-wide socket and over HTTP alike.

use std::collections::HashSet;

use serde::Deserialize;

use super::client::{ParsedObject, Rejection, short_reason};
use crate::domain::{Action, CampaignStatus, JobStatus, RequestId, ResourceId, ResourceKind};

/// Most resources of one batch.
pub const MAX_BATCH: usize = 1_000;
/// Longest job type that is looked for, in characters.
const MAX_JOB_TYPE: usize = 500;

/// A batch as the client asked for it.
#[derive(Debug, Clone, PartialEq)]
pub struct BatchRequest {
    /// What to do.
    pub action: Action,
    /// With jobs or with campaigns.
    pub kind: ResourceKind,
    /// With which of them.
    pub target: Target,
    /// The client's name for it.
    pub request_id: Option<RequestId>,
    /// Why, for the audit trail.
    pub reason: Option<String>,
    /// Only say what it would hit.
    pub dry_run: bool,
}

/// Which resources.
#[derive(Debug, Clone, PartialEq)]
pub enum Target {
    /// These, each once: 1 to [`MAX_BATCH`].
    Ids(Vec<ResourceId>),
    /// The first [`MAX_BATCH`] that fit and have not ended.
    Filter(Selection),
}

/// What resources must be to be taken by a filter; what is not given does not matter.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Selection {
    /// One of these statuses, of which none is an end.
    pub status: Vec<&'static str>,
    /// Jobs of this campaign.
    pub campaign_id: Option<ResourceId>,
    /// Jobs of this type.
    pub job_type: Option<String>,
}

/// One text or several.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum StatusList {
    One(String),
    Several(Vec<String>),
}

impl StatusList {
    pub(super) fn into_vec(self) -> Vec<String> {
        match self {
            Self::One(text) => vec![text],
            Self::Several(texts) => texts,
        }
    }
}

/// A misspelt field that is left out does something else than was asked: `dry-run`, for one, the real thing.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawBatchRequest {
    #[serde(rename = "type")]
    _type: String,
    job_ids: Option<Vec<ResourceId>>,
    campaign_ids: Option<Vec<ResourceId>>,
    filter: Option<serde_json::Value>,
    #[serde(rename = "request_id")]
    _request_id: Option<String>,
    reason: Option<String>,
    #[serde(default)]
    dry_run: Option<bool>,
    run_at: Option<serde_json::Value>,
    delay_seconds: Option<serde_json::Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JobFilter {
    status: Option<StatusList>,
    campaign_id: Option<ResourceId>,
    job_type: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CampaignFilter {
    status: Option<StatusList>,
}

/// `cancel_jobs`, `pause_campaigns`, …
pub(super) fn batch_message_type(text: &str) -> Option<(Action, ResourceKind)> {
    let (action, plural) = text.split_once('_')?;
    let kind = ResourceKind::ALL.into_iter().find(|kind| kind.plural() == plural)?;
    Some((Action::parse(action)?, kind))
}

/// Reads the rest of a message whose type is one of a batch.
pub(super) fn read(
    parsed: &ParsedObject,
    text: &str,
    action: Action,
    kind: ResourceKind,
) -> Result<BatchRequest, Rejection> {
    let raw: RawBatchRequest =
        serde_json::from_str(text).map_err(|error| parsed.invalid(format!("{}: {error}", parsed.message_type)))?;
    if raw.run_at.is_some() || raw.delay_seconds.is_some() {
        return Err(parsed.invalid(
            "A batch runs at once: leave run_at and delay_seconds out, or schedule a command for each resource",
        ));
    }
    short_reason(raw.reason.as_deref()).map_err(|message| parsed.invalid(message))?;
    let (ids, others) = match kind {
        ResourceKind::Job => (raw.job_ids, raw.campaign_ids),
        ResourceKind::Campaign => (raw.campaign_ids, raw.job_ids),
    };
    let field = format!("{}s", kind.id_field());
    if others.is_some() {
        return Err(parsed.invalid(format!("{} takes {field}", parsed.message_type)));
    }
    let target = match (ids, raw.filter) {
        (Some(_), Some(_)) => return Err(parsed.invalid(format!("Give {field} or a filter, not both"))),
        (None, None) => return Err(parsed.invalid(format!("{} needs {field} or a filter", parsed.message_type))),
        (Some(ids), None) => Target::Ids(deduplicate(ids, &field).map_err(|message| parsed.invalid(message))?),
        (None, Some(filter)) => Target::Filter(selection(filter, kind).map_err(|message| parsed.invalid(message))?),
    };
    Ok(BatchRequest {
        action,
        kind,
        target,
        request_id: parsed.request_id.clone(),
        reason: raw.reason,
        dry_run: raw.dry_run.unwrap_or(false),
    })
}

/// A list of ids without its repetitions; neither empty nor too long.
pub(super) fn deduplicate(ids: Vec<ResourceId>, field: &str) -> Result<Vec<ResourceId>, String> {
    let mut seen = HashSet::with_capacity(ids.len());
    let once: Vec<ResourceId> = ids.into_iter().filter(|id| seen.insert(id.clone())).collect();
    match once.len() {
        0 => Err(format!("{field} is empty: name at least one")),
        n if n > MAX_BATCH => Err(format!("{field} may name {MAX_BATCH} at most, and names {n}: send several")),
        _ => Ok(once),
    }
}

/// A list would be read as well, field after field, and `[null,null,null]` is everything.
pub(super) fn object(filter: &serde_json::Value) -> Result<(), String> {
    if filter.is_object() { Ok(()) } else { Err(r#"filter must be an object, as in {"status":"running"}"#.to_owned()) }
}

fn selection(filter: serde_json::Value, kind: ResourceKind) -> Result<Selection, String> {
    object(&filter)?;
    let odd = |error: serde_json::Error| format!("filter: {error}");
    Ok(match kind {
        ResourceKind::Job => {
            let filter: JobFilter = serde_json::from_value(filter).map_err(odd)?;
            Selection {
                status: statuses(filter.status, kind, true)?,
                campaign_id: filter.campaign_id,
                job_type: filter.job_type.map(job_type).transpose()?,
            }
        }
        ResourceKind::Campaign => {
            let filter: CampaignFilter = serde_json::from_value(filter).map_err(odd)?;
            Selection { status: statuses(filter.status, kind, true)?, ..Selection::default() }
        }
    })
}

/// A job type that may be looked for.
pub(super) fn job_type(text: String) -> Result<String, String> {
    if text.is_empty() || text.chars().count() > MAX_JOB_TYPE || text.contains('\0') {
        return Err(format!("job_type must be 1 to {MAX_JOB_TYPE} characters, and no NUL"));
    }
    Ok(text)
}

fn statuses(list: Option<StatusList>, kind: ResourceKind, only_open: bool) -> Result<Vec<&'static str>, String> {
    let Some(list) = list else { return Ok(Vec::new()) };
    let statuses = list.into_vec();
    if statuses.is_empty() {
        return Err("status is empty: leave it out, or name one".to_owned());
    }
    statuses.iter().map(|text| status(text, kind, only_open)).collect()
}

fn status(text: &str, kind: ResourceKind, only_open: bool) -> Result<&'static str, String> {
    let all = known_statuses(kind);
    let Some((known, is_final)) = all.iter().find(|(known, _)| *known == text) else {
        let names: Vec<&str> = all.iter().map(|(known, _)| *known).collect();
        return Err(format!("status {text:?} is not one of {}", names.join(", ")));
    };
    if only_open && *is_final {
        return Err(format!("a {} that is {known} has ended: nothing can be done with it", kind.as_str()));
    }
    Ok(known)
}

/// Every status of a kind, and whether it is an end.
pub(super) fn known_statuses(kind: ResourceKind) -> Vec<(&'static str, bool)> {
    match kind {
        ResourceKind::Job => JobStatus::ALL.into_iter().map(|s| (s.as_str(), s.is_final())).collect(),
        ResourceKind::Campaign => CampaignStatus::ALL.into_iter().map(|s| (s.as_str(), s.is_final())).collect(),
    }
}

impl BatchRequest {
    /// What makes a repeat of a `request_id` the same request.
    pub fn body(&self) -> String {
        let target = match &self.target {
            Target::Ids(ids) => serde_json::json!(ids),
            Target::Filter(filter) => serde_json::json!([filter.status, filter.campaign_id, filter.job_type, {}]),
        };
        serde_json::json!([self.action.as_str(), self.kind.as_str(), target, self.reason]).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::tenant::{TenantMessage, parse_tenant};

    fn batch(text: &str) -> BatchRequest {
        match parse_tenant(text) {
            Ok(TenantMessage::Batch(batch)) => batch,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn ids_count_once_each_and_a_filter_is_read_field_by_field() {
        let asked = batch(r#"{"type":"pause_jobs","job_ids":["a","b","a"],"request_id":"r","reason":"x"}"#);
        assert_eq!((asked.action, asked.kind, asked.dry_run), (Action::Pause, ResourceKind::Job, false));
        assert_eq!(asked.target, Target::Ids(vec!["a".parse().expect("id"), "b".parse().expect("id")]));
        assert_eq!((asked.request_id.expect("some").as_str(), asked.reason.as_deref()), ("r", Some("x")));
        let asked = batch(
            r#"{"type":"cancel_jobs","filter":{"status":"running","campaign_id":"c","job_type":"t"},"dry_run":true}"#,
        );
        let filter = Selection {
            status: vec!["running"],
            campaign_id: Some("c".parse().expect("id")),
            job_type: Some("t".into()),
        };
        assert_eq!((asked.target, asked.dry_run), (Target::Filter(filter), true));
        let asked = batch(r#"{"type":"resume_campaigns","filter":{"status":["paused","active"]}}"#);
        let filter = Selection { status: vec!["paused", "active"], ..Selection::default() };
        assert_eq!((asked.kind, asked.target), (ResourceKind::Campaign, Target::Filter(filter)));
    }

    #[test]
    fn a_thousand_ids_of_the_greatest_length_fit_and_one_more_is_refused_by_its_number() {
        let ids = |count: usize| (0..count).map(|n| format!("\"{n:0>128}\"")).collect::<Vec<_>>().join(",");
        let text = format!(r#"{{"type":"cancel_jobs","reason":"{}","job_ids":[{}]}}"#, "ä".repeat(500), ids(1_000));
        assert!(text.len() <= super::super::MAX_BATCH_FRAME, "{}", text.len());
        assert!(matches!(batch(&text).target, Target::Ids(ids) if ids.len() == 1_000));
        let more = parse_tenant(&format!(r#"{{"type":"cancel_jobs","job_ids":[{}]}}"#, ids(1_001)));
        let message = more.expect_err("refused").message;
        assert!(message.contains("1000 at most") && message.contains("1001"), "{message}");
    }

    #[test]
    fn what_does_not_fit_is_refused_with_a_message_that_names_it() {
        for (text, part) in [
            (r#"{"type":"cancel_jobs"}"#, "needs job_ids or a filter"),
            (r#"{"type":"cancel_campaigns"}"#, "needs campaign_ids or a filter"),
            (r#"{"type":"cancel_jobs","job_ids":[]}"#, "job_ids is empty"),
            (r#"{"type":"cancel_jobs","job_ids":["a"],"filter":{}}"#, "not both"),
            (r#"{"type":"cancel_jobs","campaign_ids":["a"]}"#, "takes job_ids"),
            (r#"{"type":"cancel_jobs","job_ids":["a:b"]}"#, "an id must be"),
            (r#"{"type":"cancel_jobs","job_ids":"a"}"#, "a sequence"),
            (r#"{"type":"cancel_jobs","job_ids":["a"],"dry-run":true}"#, "unknown field `dry-run`"),
            (r#"{"type":"cancel_jobs","filter":[null,null,null]}"#, "must be an object"),
            (r#"{"type":"cancel_campaigns","filter":"active"}"#, "must be an object"),
            (r#"{"type":"cancel_jobs","filter":{"stat":"running"}}"#, "unknown field `stat`"),
            (r#"{"type":"cancel_campaigns","filter":{"campaign_id":"c"}}"#, "unknown field `campaign_id`"),
            (r#"{"type":"cancel_jobs","filter":{"status":"walking"}}"#, "pending, running, paused"),
            (r#"{"type":"cancel_jobs","filter":{"status":[]}}"#, "status is empty"),
            (r#"{"type":"cancel_jobs","filter":{"status":"failed"}}"#, "has ended"),
            (r#"{"type":"cancel_jobs","filter":{"job_type":""}}"#, "job_type must be"),
            (r#"{"type":"cancel_jobs","job_ids":["a"],"delay_seconds":5}"#, "runs at once"),
            (r#"{"type":"cancel_jobs","job_ids":["a"],"reason":7}"#, "a string"),
        ] {
            let rejection = parse_tenant(text).expect_err(text);
            assert_eq!(rejection.code, super::super::ErrorCode::InvalidMessage, "{text}");
            assert!(rejection.message.contains(part), "{text}: {}", rejection.message);
        }
        let rejection = parse_tenant(r#"{"type":"cancel_jobs","request_id":"r1"}"#).expect_err("refused");
        assert_eq!(rejection.request_id.expect("echoed").as_str(), "r1");
    }

    #[test]
    fn a_repeat_is_the_same_if_everything_but_the_dry_run_is() {
        let body = |rest: &str| batch(&format!(r#"{{"type":"cancel_jobs",{rest}}}"#)).body();
        assert_eq!(body(r#""job_ids":["a"]"#), body(r#""job_ids":["a","a"],"dry_run":true,"request_id":"r""#));
        let bodies = [
            body(r#""job_ids":["a"]"#),
            body(r#""job_ids":["b"]"#),
            body(r#""job_ids":["a"],"reason":"x""#),
            body(r#""filter":{}"#),
            body(r#""filter":{"status":"running"}"#),
            body(r#""filter":{"campaign_id":"running"}"#),
            body(r#""filter":{"job_type":"running"}"#),
        ];
        let different: HashSet<&String> = bodies.iter().collect();
        assert_eq!(different.len(), bodies.len());
    }
}
