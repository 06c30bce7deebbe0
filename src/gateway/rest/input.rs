//! The bodies that clients send over HTTP, checked. Whatever is not known is refused by name: a misspelt field that is
//! silently left out does something else than was asked.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::auth::{TOKEN_ID_FORM, is_token_id};
use crate::domain::Action;
use crate::domain::{JsonText, Resource, ResourceId, TenantId, UserId};
use crate::http::Refusal;
use crate::protocol::client::{ClientMessage, CommandRequest, MAX_REASON};
use crate::store::{NewCampaign, NewJob, RevocationKind};

/// Most jobs that are made all or none: of one JSON document, or of lines.
pub(super) const MAX_CAMPAIGN_JOBS: usize = 10_000;
/// Longest title or name, in characters.
const MAX_TITLE: usize = 500;
/// Most retries of a job.
const MAX_RETRIES: u32 = 1000;
/// Longest time limit of a job, in seconds: a year.
const MAX_TIMEOUT: u32 = 31_536_000;
/// One JSON object of the right form.
pub(super) fn object<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|error| Refusal::invalid(format!("The body does not fit: {error}")))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RevocationBody {
    jti: Option<String>,
    user_id: Option<UserId>,
    expires_at: Option<i64>,
    reason: Option<String>,
}

/// Which tokens are to be refused.
pub(super) struct RevocationRequest {
    kind: RevocationKind,
    name: String,
    /// From when on they are good for nothing anyway, in Unix seconds, where the client knows.
    pub(super) expires_at: Option<i64>,
    /// Why, for people.
    pub(super) reason: Option<String>,
}

impl RevocationRequest {
    /// What is refused, and its name.
    pub(super) fn subject(&self) -> (RevocationKind, &str) {
        (self.kind, &self.name)
    }
}

/// The body of a revocation: one token by its `jti`, or all of a user.
pub(super) fn revocation(body: &[u8]) -> Result<RevocationRequest, Refusal> {
    let body: RevocationBody = object(body)?;
    let (kind, name) = match (body.jti, body.user_id) {
        (Some(jti), None) if is_token_id(&jti) => (RevocationKind::Token, jti),
        (Some(_), None) => {
            return Err(Refusal::invalid(format!(
                "\"jti\" must have {TOKEN_ID_FORM}: it is the claim jti, not the token"
            )));
        }
        (None, Some(user)) => (RevocationKind::User, user.into()),
        _ => return Err(Refusal::invalid("Give either \"jti\", for one token, or \"user_id\", for all of a user")),
    };
    if body.reason.as_ref().is_some_and(|reason| reason.chars().count() > MAX_REASON) {
        return Err(Refusal::invalid(format!("\"reason\" may have {MAX_REASON} characters at most")));
    }
    if body.reason.as_ref().is_some_and(|reason| reason.contains('\0')) {
        return Err(Refusal::invalid("A text here may not contain a NUL: SQL cannot keep it"));
    }
    Ok(RevocationRequest { kind, name, expires_at: body.expires_at, reason: body.reason })
}

/// Whose a new thing is.
pub(super) struct JobOwner<'a> {
    pub(super) tenant: &'a TenantId,
    pub(super) user: &'a UserId,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JobBody {
    id: Option<ResourceId>,
    job_type: ResourceId,
    title: Option<String>,
    #[serde(default = "empty_object")]
    parameters: Box<RawValue>,
    campaign_id: Option<ResourceId>,
    #[serde(default)]
    max_retries: u32,
    timeout_seconds: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CampaignBody {
    id: Option<ResourceId>,
    name: Option<String>,
    #[serde(default)]
    jobs: Vec<JobBody>,
}

fn empty_object() -> Box<RawValue> {
    RawValue::from_string("{}".to_owned()).unwrap_or_default()
}

fn new_job(body: JobBody, owner: &JobOwner<'_>) -> Result<NewJob, Refusal> {
    check_short_text("title", body.title.as_deref())?;
    let parameters = JsonText::parse(body.parameters.get())
        .map_err(|error| Refusal::invalid(format!("The value of \"parameters\" {error}")))?;
    if parameters.has_nul() {
        return Err(Refusal::invalid("parameters may not contain a NUL: SQL cannot keep it"));
    }
    if body.max_retries > MAX_RETRIES {
        return Err(Refusal::invalid(format!("max_retries may be {MAX_RETRIES} at most")));
    }
    if body.timeout_seconds.is_some_and(|seconds| !(1..=MAX_TIMEOUT).contains(&seconds)) {
        return Err(Refusal::invalid(format!("timeout_seconds must be whole seconds from 1 to {MAX_TIMEOUT}")));
    }
    Ok(NewJob {
        id: body.id.unwrap_or_else(ResourceId::generate),
        tenant: owner.tenant.clone(),
        campaign: body.campaign_id,
        job_type: body.job_type.into(),
        title: body.title,
        parameters,
        max_retries: body.max_retries,
        timeout_seconds: body.timeout_seconds,
        created_by: Some(owner.user.clone()),
    })
}

/// What a body that makes jobs holds.
pub(super) enum JobList {
    /// One object: one job, which is answered with its row.
    One(Box<NewJob>),
    /// An array, or an object a line: all of them or none.
    Many(Vec<NewJob>),
}

/// One line of a stream of jobs; `id` makes one up where the line names none.
pub(super) fn job_of_line(
    line: &[u8],
    campaign: Option<&ResourceId>,
    owner: &JobOwner<'_>,
    id: impl FnOnce() -> ResourceId,
) -> Result<NewJob, Refusal> {
    let mut body: JobBody = serde_json::from_slice(line)
        .map_err(|error| Refusal::invalid(without_line(&format!("it does not fit: {error}"))))?;
    if let Some(campaign) = campaign
        && body.campaign_id.as_ref().is_some_and(|other| other != campaign)
    {
        return Err(Refusal::invalid("campaign_id names another campaign"));
    }
    body.id.get_or_insert_with(id);
    let mut job = new_job(body, owner)?;
    job.campaign = campaign.cloned().or(job.campaign);
    Ok(job)
}

/// Where in a line something is wrong is said without the number that JSON's reader gives the line, which is always 1.
fn without_line(words: &str) -> String {
    words.replace(" at line 1 column ", " at column ")
}

/// The body of `POST /jobs` and of `POST /campaigns/{id}/jobs`: one job, an array of them, or one after another.
pub(super) fn jobs(body: &[u8], campaign: Option<&ResourceId>, owner: &JobOwner<'_>) -> Result<JobList, Refusal> {
    let first = body.iter().find(|byte| !byte.is_ascii_whitespace());
    if first == Some(&b'[') {
        return many(object(body)?, campaign, owner);
    }
    if let Ok(one) = serde_json::from_slice::<JobBody>(body) {
        return new_jobs(vec![one], campaign, owner).map(|mut jobs| JobList::One(Box::new(jobs.remove(0))));
    }
    let mut bodies = Vec::new();
    for one in serde_json::Deserializer::from_slice(body).into_iter::<JobBody>() {
        // What is wrong with a single object is said without a number.
        let place = if bodies.is_empty() { String::new() } else { format!("jobs[{}]: ", bodies.len()) };
        bodies.push(one.map_err(|error| Refusal::invalid(format!("The body does not fit: {place}{error}")))?);
        if bodies.len() > MAX_CAMPAIGN_JOBS {
            break;
        }
    }
    if bodies.is_empty() {
        object::<JobBody>(body)?;
    }
    many(bodies, campaign, owner)
}

fn many(bodies: Vec<JobBody>, campaign: Option<&ResourceId>, owner: &JobOwner<'_>) -> Result<JobList, Refusal> {
    if bodies.is_empty() {
        return Err(Refusal::invalid("The body does not fit: it holds no job"));
    }
    new_jobs(bodies, campaign, owner).map(JobList::Many)
}

/// Checks many bodies. `campaign`: whose jobs they are, whatever they say themselves or leave out.
fn new_jobs(bodies: Vec<JobBody>, campaign: Option<&ResourceId>, owner: &JobOwner<'_>) -> Result<Vec<NewJob>, Refusal> {
    if bodies.len() > MAX_CAMPAIGN_JOBS {
        return Err(Refusal::invalid(format!(
            "One JSON document may make {MAX_CAMPAIGN_JOBS} jobs at most: send more of them as lines, with the Content-Type \
             application/x-ndjson"
        )));
    }
    let only = bodies.len() == 1;
    let mut ids = std::collections::HashSet::new();
    let mut jobs = Vec::with_capacity(bodies.len());
    for (number, body) in bodies.into_iter().enumerate() {
        if let Some(campaign) = campaign
            && body.campaign_id.as_ref().is_some_and(|other| other != campaign)
        {
            return Err(Refusal::invalid(format!("jobs[{number}].campaign_id names another campaign")));
        }
        let mut job = new_job(body, owner).map_err(|failure| match only {
            true => failure,
            false => failure.with_prefix(&format!("jobs[{number}]: ")),
        })?;
        if !ids.insert(job.id.clone()) {
            return Err(Refusal::invalid(format!("jobs[{number}].id is there twice")));
        }
        job.campaign = campaign.cloned().or(job.campaign);
        jobs.push(job);
    }
    Ok(jobs)
}

/// The body of `POST /campaigns`.
pub(super) fn campaign(body: &[u8], owner: &JobOwner<'_>) -> Result<NewCampaign, Refusal> {
    let body: CampaignBody = object(body)?;
    check_short_text("name", body.name.as_deref())?;
    let id = body.id.unwrap_or_else(ResourceId::generate);
    let jobs = new_jobs(body.jobs, Some(&id), owner)?;
    Ok(NewCampaign { id, tenant: owner.tenant.clone(), name: body.name, created_by: Some(owner.user.clone()), jobs })
}

fn check_short_text(name: &str, text: Option<&str>) -> Result<(), Refusal> {
    match text {
        Some(text) if text.chars().count() > MAX_TITLE => {
            Err(Refusal::invalid(format!("{name} may have {MAX_TITLE} characters at most")))
        }
        Some(text) if text.contains('\0') => Err(Refusal::invalid(format!("{name} may not contain a NUL"))),
        _ => Ok(()),
    }
}

/// The body of `POST …/cancel`: what a message on a socket may hold beside its type. None at all will do.
pub(super) fn command(body: &[u8], action: Action, resource: &Resource) -> Result<CommandRequest, Refusal> {
    let (kind, id) = (resource.kind, &resource.id);
    let fields_known = ["request_id", "reason", "run_at", "delay_seconds", kind.id_field()];
    let mut fields: serde_json::Map<String, serde_json::Value> =
        if body.is_empty() { serde_json::Map::new() } else { object(body)? };
    if let Some(unknown) = fields.keys().find(|key| !fields_known.contains(&key.as_str())) {
        let message = format!("Unknown field {unknown:?}; this takes: {}", fields_known.join(", "));
        return Err(Refusal::invalid(message));
    }
    // Read by the very rules of the sockets, so that the two never drift apart.
    fields.insert("type".to_owned(), format!("{}_{}", action.as_str(), kind.as_str()).into());
    let text = serde_json::Value::Object(fields).to_string();
    match crate::protocol::parse(&text, kind, id) {
        Ok(ClientMessage::Command(request)) => Ok(request),
        Ok(_) => Err(Refusal::invalid("This is not a command")),
        Err(rejection) => Err(rejection.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words<T>(result: Result<T, Refusal>) -> String {
        match result {
            Ok(_) => panic!("it was taken"),
            Err(failure) => format!("{failure:?}"),
        }
    }

    fn job(body: &[u8], owner: &JobOwner<'_>) -> Result<NewJob, Refusal> {
        jobs(body, None, owner).map(|jobs| match jobs {
            JobList::One(job) => *job,
            JobList::Many(_) => panic!("many jobs"),
        })
    }

    fn owned<T>(read: impl Fn(&JobOwner<'_>) -> T) -> T {
        read(&JobOwner { tenant: &"acme".parse().expect("tenant"), user: &"ann".parse().expect("user") })
    }

    #[test]
    fn a_job_is_made_from_its_type_alone_or_from_all_its_fields() {
        let least = owned(|o| job(br#"{"job_type":"demo"}"#, o)).expect("job");
        assert_eq!((least.job_type.as_str(), least.parameters.as_str(), least.max_retries), ("demo", "{}", 0));
        let text = br#"{"job_type":"csv","id":"j1","title":"T","parameters":[1],"campaign_id":"c1","max_retries":3,"timeout_seconds":60}"#;
        let all = owned(|o| job(text, o)).expect("job");
        assert_eq!((all.id.as_str(), all.campaign.expect("some").as_str(), all.max_retries), ("j1", "c1", 3));
        assert_eq!((least.timeout_seconds, all.timeout_seconds), (None, Some(60)));
        assert_eq!(all.created_by.expect("some").as_str(), "ann");
        assert_eq!(all.tenant.as_str(), "acme");
    }

    #[test]
    fn what_does_not_fit_is_refused_with_its_name() {
        for (text, part) in [
            (r#"{"job_type":"x","titel":"T"}"#, "unknown field `titel`"),
            (r#"{}"#, "missing field `job_type`"),
            (r#"{"job_type":"a b"}"#, "1 to 128 letters"),
            (r#"{"job_type":""}"#, "1 to 128 letters"),
            (r#"{"job_type":"x","id":"a:b"}"#, "1 to 128 letters"),
            (r#"{"job_type":"x","parameters":[{"a":"\u0000"}]}"#, "NUL"),
            (r#"{"job_type":"x","title":"\u0000"}"#, "NUL"),
            (r#"{"job_type":"x","max_retries":-1}"#, "invalid value"),
            (r#"{"job_type":"x","max_retries":1001}"#, "max_retries"),
            (r#"{"job_type":"x","timeout_seconds":0}"#, "timeout_seconds must be"),
            (r#"{"job_type":"x","timeout_seconds":31536001}"#, "timeout_seconds must be"),
            (r#"{"job_type":"x","timeout_seconds":1.5}"#, "invalid type"),
            (r#"{"job_type":"x","tenant_id":"globex"}"#, "unknown field `tenant_id`"),
            (r#"{"job_type":"x""#, "EOF"),
            ("", "EOF"),
        ] {
            let words = words(owned(|o| job(text.as_bytes(), o)));
            assert!(words.contains(part), "{text}: {words}");
        }
        let long = format!(r#"{{"job_type":"x","title":"{}"}}"#, "x".repeat(501));
        assert!(words(owned(|o| job(long.as_bytes(), o))).contains("title may have 500"));
    }

    #[test]
    fn a_campaign_owns_its_jobs() {
        let made = owned(|o| campaign(br#"{"name":"N","jobs":[{"job_type":"a"},{"job_type":"b"}]}"#, o)).expect("made");
        assert_eq!(made.jobs.len(), 2);
        assert!(made.jobs.iter().all(|job| job.campaign.as_ref() == Some(&made.id)));
        let twice = br#"{"jobs":[{"job_type":"a","id":"j"},{"job_type":"a","id":"j"}]}"#;
        assert!(words(owned(|o| campaign(twice, o))).contains("jobs[1].id"));
        let other = br#"{"id":"c","jobs":[{"job_type":"a","campaign_id":"d"}]}"#;
        assert!(words(owned(|o| campaign(other, o))).contains("jobs[0].campaign_id"));
        let many = format!(r#"{{"jobs":[{}]}}"#, vec![r#"{"job_type":"a"}"#; MAX_CAMPAIGN_JOBS + 1].join(","));
        assert!(words(owned(|o| campaign(many.as_bytes(), o))).contains("10000 jobs at most"));
    }

    #[test]
    fn many_jobs_come_as_an_array_or_a_line_each() {
        let campaign: ResourceId = "c".parse().expect("id");
        let made = |text: &str| {
            owned(|o| jobs(text.as_bytes(), Some(&campaign), o)).map(|jobs| match jobs {
                JobList::Many(jobs) => jobs.into_iter().map(|job| (job.job_type, job.campaign)).collect(),
                JobList::One(_) => Vec::new(),
            })
        };
        let of =
            |kinds: &[&str]| -> Vec<_> { kinds.iter().map(|k| ((*k).to_owned(), Some(campaign.clone()))).collect() };
        assert_eq!(made(r#" [{"job_type":"a"},{"job_type":"b"}]"#).expect("jobs"), of(&["a", "b"]));
        assert_eq!(made("{\"job_type\":\"a\"}\n{\"job_type\":\"b\"}\n").expect("jobs"), of(&["a", "b"]));
        for (text, part) in [
            ("[]", "it holds no job"),
            (r#"[{"job_type":"a"},{"job_type":"b","titel":1}]"#, "unknown field `titel`"),
            (r#"[{"job_type":"a"},{"job_type":"b","max_retries":9999}]"#, "jobs[1]: max_retries"),
            (r#"[{"job_type":"a","id":"j"},{"job_type":"a","id":"j"}]"#, "jobs[1].id is there twice"),
            (r#"[{"job_type":"a","campaign_id":"other"}]"#, "jobs[0].campaign_id"),
            ("{\"job_type\":\"a\"}\n{\"job_type\":", "jobs[1]: EOF"),
        ] {
            let words = words(made(text));
            assert!(words.contains(part), "{text}: {words}");
        }
    }

    #[test]
    fn a_line_is_a_job_with_an_id_of_its_own_or_the_one_that_is_made_up() {
        let campaign: ResourceId = "c".parse().expect("id");
        let made = |text: &str| {
            owned(|o| job_of_line(text.as_bytes(), Some(&campaign), o, || "made-up".parse().expect("id")))
                .map(|job| (job.id.to_string(), job.campaign.map(|campaign| campaign.to_string())))
        };
        let in_c = |id: &str| (id.to_owned(), Some("c".to_owned()));
        assert_eq!(made("{\"job_type\":\"a\"}\r\n").expect("job"), in_c("made-up"));
        assert_eq!(made(r#"{"job_type":"a","id":"own","campaign_id":"c"}"#).expect("job"), in_c("own"));
        for (text, part) in [
            (r#"{"job_type":"a"} {"job_type":"b"}"#, "trailing characters at column 18"),
            (r#"{"job_type":"a","campaign_id":"d"}"#, "campaign_id names another"),
            (r#"{"job_type":"a""#, "EOF while parsing an object at column 15"),
        ] {
            let words = words(made(text));
            assert!(words.contains(part), "{text}: {words}");
        }
    }

    #[test]
    fn a_command_takes_what_a_message_on_a_socket_takes() {
        let resource = Resource::parse("acme:job:j1").expect("resource");
        let read = |text: &str| command(text.as_bytes(), Action::Pause, &resource);
        assert_eq!(read("").expect("command").action, Action::Pause);
        let full = read(r#"{"request_id":"r1","reason":"because"}"#).expect("command");
        assert_eq!((full.request_id.expect("some").as_str(), full.reason.as_deref()), ("r1", Some("because")));
        assert!(read(r#"{"job_id":"j1"}"#).is_ok(), "the resource of the path may be named again");
        for (text, part) in [
            (r#"{"job_id":"j2"}"#, "job_id is not the one of this"),
            (r#"{"campaign_id":"j1"}"#, "Unknown field"),
            (r#"{"type":"cancel_job"}"#, "Unknown field"),
            (r#"{"request_id":"a b"}"#, "a request_id must be"),
            (r#"{"request_id":"r1","reason":7}"#, "request_id: Some(\"r1\")"),
            (r#"{"delay_seconds":-5}"#, "delay_seconds must be"),
            (r#"{"run_at":"tomorrow"}"#, "run_at must be"),
            ("[]", "does not fit"),
        ] {
            let words = words(read(text));
            assert!(words.contains(part), "{text}: {words}");
        }
    }
}
