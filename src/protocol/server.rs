//! What the server sends: every message of CONTRACT section 4, byte for byte.

use super::error::ErrorCode;
use super::frame::Frame;
use super::outcome::Outcome;
pub use super::outcome::permission_denied_message;
use crate::domain::{
    Action, Campaign, CommandId, Control, Job, JobStatus, OutputLine, Progress, Resource, ResourceKind,
};

/// The answer to `ping`.
pub const PONG: &str = "{\"type\":\"pong\"}";

/// First message on a socket.
pub fn subscribed(resource: &Resource) -> String {
    Frame::new("subscribed")
        .ascii("channel", &resource.to_string())
        .ascii("tenant_id", resource.tenant.as_str())
        .ascii(resource.kind.id_field(), resource.id.as_str())
        .end()
}

/// A snapshot as a message on a socket: its type, and the state.
fn message_head(resource: &Resource) -> Frame {
    Frame::of_parts(&[resource.kind.as_str(), "_snapshot"]).ascii(resource.kind.id_field(), resource.id.as_str())
}

/// A snapshot as an answer over HTTP: the state alone.
fn state_head(resource: &Resource) -> Frame {
    Frame::beginning_with(resource.kind.id_field(), resource.id.as_str())
}

/// The state of a resource at `seq`: what comes later on the stream has a higher one. `row` holds the
/// fields of the [`Job`] or [`Campaign`]; `desired` is where a command under way takes it.
fn snapshot(head: Frame, row: &str, desired: Option<&str>, seq: i64) -> String {
    let mut frame = head.open();
    frame.push(',');
    frame.push_str(row);
    if let Some(desired) = desired {
        frame.push_str(&format!(",\"desired\":\"{desired}\""));
    }
    frame.push_str(&format!(",\"seq\":{seq}}}"));
    frame
}

fn row<T: serde::Serialize>(value: &T) -> String {
    // Rows hold text, numbers and JSON values only: writing them cannot fail.
    serde_json::to_string(value).unwrap_or_else(|_| "{}".to_owned())
}

fn of_job(job: &Job) -> Resource {
    Resource::job(job.tenant_id.clone(), job.id.clone())
}

fn of_campaign(campaign: &Campaign) -> Resource {
    Resource::campaign(campaign.tenant_id.clone(), campaign.id.clone())
}

/// Second message on a job's socket.
pub fn job_snapshot(job: &Job, desired: Option<&str>, seq: i64) -> String {
    snapshot(message_head(&of_job(job)), strip_braces(&row(job)), desired, seq)
}

/// What [`job_snapshot`] says, without the type of a message.
pub fn job_state(job: &Job, desired: Option<&str>, seq: i64) -> String {
    snapshot(state_head(&of_job(job)), strip_braces(&row(job)), desired, seq)
}

/// Second message on a campaign's socket.
pub fn campaign_snapshot(campaign: &Campaign, desired: Option<&str>, seq: i64) -> String {
    snapshot(message_head(&of_campaign(campaign)), strip_braces(&row(campaign)), desired, seq)
}

/// What [`campaign_snapshot`] says, without the type of a message.
pub fn campaign_state(campaign: &Campaign, desired: Option<&str>, seq: i64) -> String {
    snapshot(state_head(&of_campaign(campaign)), strip_braces(&row(campaign)), desired, seq)
}

/// Exactly one brace at either end: a value inside may end in one too.
fn strip_braces(object: &str) -> &str {
    object.strip_prefix('{').and_then(|o| o.strip_suffix('}')).unwrap_or_default()
}

/// The command was accepted: recorded in Redis, on its way to a worker. `control`: of a job, what the command reaches.
pub fn requested(
    action: Action,
    resource: &Resource,
    command: CommandId,
    workers_online: i64,
    control: Option<Control>,
    request_id: Option<&str>,
) -> String {
    Frame::of_parts(&[action.as_str(), "_requested"])
        .resource(resource)
        .ascii("command_id", &command.to_string())
        .number("workers_online", workers_online)
        .control(control)
        .request(request_id)
        .end()
}

/// The command was kept for later: at `run_at` (Unix ms) it will be submitted, under the id that it has as a schedule.
pub fn scheduled(
    action: Action,
    resource: &Resource,
    command: CommandId,
    run_at: i64,
    request_id: Option<&str>,
) -> String {
    Frame::of_parts(&[action.as_str(), "_scheduled"])
        .resource(resource)
        .ascii("command_id", &command.to_string())
        .ascii("schedule_id", &command.to_string())
        .ascii("run_at", &format_time(run_at))
        .request(request_id)
        .end()
}

/// A scheduled command was taken back.
pub fn withdrawn(action: Action, resource: &Resource, schedule: CommandId, request_id: Option<&str>) -> String {
    Frame::new("schedule_withdrawn")
        .resource(resource)
        .ascii("action", action.as_str())
        .ascii("schedule_id", &schedule.to_string())
        .request(request_id)
        .end()
}

/// Unix ms as RFC 3339 in UTC.
pub fn format_time(unix_ms: i64) -> String {
    jiff::Timestamp::from_millisecond(unix_ms).unwrap_or_default().to_string()
}

/// The command was applied; `control`: of a job, to its work or to its row alone.
pub fn succeeded(
    action: Action,
    resource: &Resource,
    command: CommandId,
    status: &str,
    control: Option<Control>,
    request_id: Option<&str>,
) -> String {
    Frame::of_parts(&[action.as_str(), "_succeeded"])
        .resource(resource)
        .ascii("command_id", &command.to_string())
        .ascii("status", status)
        .control(control)
        .request(request_id)
        .end()
}

/// The command was refused by a worker, or ended without one.
pub fn failed(
    action: Action,
    resource: &Resource,
    command: CommandId,
    error: &str,
    control: Option<Control>,
    request_id: Option<&str>,
) -> String {
    Frame::of_parts(&[action.as_str(), "_failed"])
        .resource(resource)
        .ascii("command_id", &command.to_string())
        .text("error", error)
        .control(control)
        .request(request_id)
        .end()
}

/// The result of a command: [`succeeded`] or [`failed`].
pub fn result(
    outcome: &Outcome,
    action: Action,
    resource: &Resource,
    command: CommandId,
    control: Option<Control>,
    request_id: Option<&str>,
) -> String {
    match outcome {
        Outcome::Succeeded(status) => succeeded(action, resource, command, status, control, request_id),
        Outcome::Failed(error) => {
            let message = error.message(action, resource.kind);
            failed(action, resource, command, &message, control, request_id)
        }
    }
}

/// [`failed`] with a mark, its name in `${}`, in place of each of its values: for scripts, which end commands that they
/// find on the way, and can say so in the same moment only if they write the message themselves. There is a template with
/// and one without a request id, since the message has no such field where the client gave none.
pub fn failed_template(kind: ResourceKind, has_request_id: bool) -> String {
    let frame =
        Frame::new("${action}_failed").ascii(kind.id_field(), "${resource_id}").ascii("tenant_id", "${tenant_id}");
    let frame = frame.ascii("command_id", "${command_id}").ascii("error", "${error}");
    let frame = match kind {
        ResourceKind::Job => frame.ascii("control", "${control}"),
        ResourceKind::Campaign => frame,
    };
    frame.request(has_request_id.then_some("${request_id}")).end()
}

/// A job's progress, open: the script that publishes it appends `,"seq":N}`.
pub fn job_progress(resource: &Resource, status: JobStatus, progress: &Progress) -> String {
    progress_frame(resource, status.as_str(), progress).open()
}

/// A campaign's progress, open.
pub fn campaign_progress(campaign: &Campaign) -> String {
    let progress = Progress {
        progress_percent: campaign.progress_percent,
        items_total: Some(campaign.items_total),
        items_processed: campaign.items_processed,
        items_succeeded: campaign.items_succeeded,
        items_failed: campaign.items_failed,
        current_item: None,
    };
    let resource = Resource::campaign(campaign.tenant_id.clone(), campaign.id.clone());
    progress_frame(&resource, campaign.status.as_str(), &progress).open()
}

fn progress_frame(resource: &Resource, status: &str, progress: &Progress) -> Frame {
    Frame::new(&format!("{}_progress", resource.kind.as_str()))
        .resource(resource)
        .ascii("status", status)
        .number("progress_percent", progress.progress_percent.into())
        .json("items_total", &progress.items_total)
        .number("items_processed", progress.items_processed)
        .number("items_succeeded", progress.items_succeeded)
        .number("items_failed", progress.items_failed)
        .json("current_item", &progress.current_item)
}

/// A change of a job's state, open. `desired`: where a command under way takes it.
pub fn job_status(resource: &Resource, status: JobStatus, desired: Option<&str>) -> String {
    let frame = Frame::new("job_status").resource(resource).ascii("status", status.as_str());
    match desired {
        Some(desired) => frame.ascii("desired", desired),
        None => frame,
    }
    .open()
}

/// The program that hosts a job has not been heard of since then, or is heard of again (`None`). Open.
pub fn job_contact(resource: &Resource, status: JobStatus, lost_at: Option<&str>) -> String {
    let frame = Frame::new("job_status").resource(resource).ascii("status", status.as_str());
    frame.json("contact_lost_at", &lost_at).open()
}

/// A change of a campaign's state, open.
pub fn campaign_status(campaign: &Campaign, desired: Option<&str>) -> String {
    let resource = Resource::campaign(campaign.tenant_id.clone(), campaign.id.clone());
    let frame = Frame::new("campaign_status")
        .resource(&resource)
        .ascii("status", campaign.status.as_str())
        .json("is_active", &campaign.is_active);
    match desired {
        Some(desired) => frame.ascii("desired", desired),
        None => frame,
    }
    .open()
}

/// Any error on a socket.
pub fn error(code: ErrorCode, message: &str, request_id: Option<&str>) -> String {
    Frame::new("error").ascii("error", code.as_str()).text("message", message).request(request_id).end()
}

/// The user may not do this: `Insufficient permissions to cancel job`.
pub fn permission_denied(action: Action, kind: ResourceKind, request_id: Option<&str>) -> String {
    error(ErrorCode::PermissionDenied, &permission_denied_message(action, kind), request_id)
}

/// Over the budget; `retry_after` in whole seconds.
pub fn rate_limited(limit: u32, retry_after: i64, request_id: Option<&str>) -> String {
    Frame::new("error")
        .ascii("error", ErrorCode::RateLimitExceeded.as_str())
        .ascii("message", &rate_limited_message(limit))
        .number("retry_after", retry_after)
        .request(request_id)
        .end()
}

/// The text of [`rate_limited`].
pub fn rate_limited_message(limit: u32) -> String {
    format!("Rate limit exceeded: {limit}/{limit} commands per minute")
}

/// The answer to `refresh_token`; `expires_at` in Unix seconds.
pub fn token_refreshed(expires_at: i64) -> String {
    Frame::new("token_refreshed").number("expires_at", expires_at).end()
}

/// The token of the socket ends soon; `expires_at` in Unix seconds, `expires_in` in seconds from now.
pub fn token_expiring(expires_at: i64, expires_in: i64) -> String {
    Frame::new("token_expiring").number("expires_at", expires_at).number("expires_in", expires_in).end()
}

/// Lines that a job has printed, for those who have asked for them. `left_out`: lines before them that are not kept any more.
pub fn job_output(job: &Resource, lines: &[OutputLine], left_out: i64) -> String {
    let frame = Frame::new("job_output").resource(job).json("lines", &lines);
    if left_out > 0 { frame.json("left_out", &left_out).end() } else { frame.end() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job() -> Resource {
        Resource::parse("T:job:ID").expect("resource")
    }

    fn command() -> CommandId {
        "0190f3c8-0000-7000-8000-000000000001".parse().expect("uuid")
    }

    #[test]
    fn messages_stand_byte_for_byte_as_in_the_contract() {
        assert_eq!(subscribed(&job()), r#"{"type":"subscribed","channel":"T:job:ID","tenant_id":"T","job_id":"ID"}"#);
        assert_eq!(
            requested(Action::Cancel, &job(), command(), 3, Some(Control::Live), None),
            r#"{"type":"cancel_requested","job_id":"ID","tenant_id":"T","command_id":"0190f3c8-0000-7000-8000-000000000001","workers_online":3,"control":"live"}"#
        );
        assert_eq!(
            succeeded(Action::Cancel, &job(), command(), "cancelled", Some(Control::Row), Some("r1")),
            r#"{"type":"cancel_succeeded","job_id":"ID","tenant_id":"T","command_id":"0190f3c8-0000-7000-8000-000000000001","status":"cancelled","control":"row","request_id":"r1"}"#
        );
        assert_eq!(
            failed(Action::Cancel, &job(), command(), "Job not found or already completed", Some(Control::Row), None),
            r#"{"type":"cancel_failed","job_id":"ID","tenant_id":"T","command_id":"0190f3c8-0000-7000-8000-000000000001","error":"Job not found or already completed","control":"row"}"#
        );
        assert_eq!(
            scheduled(Action::Cancel, &job(), command(), 1_000, Some("r1")),
            r#"{"type":"cancel_scheduled","job_id":"ID","tenant_id":"T","command_id":"0190f3c8-0000-7000-8000-000000000001","schedule_id":"0190f3c8-0000-7000-8000-000000000001","run_at":"1970-01-01T00:00:01Z","request_id":"r1"}"#
        );
        assert_eq!(
            withdrawn(Action::Cancel, &job(), command(), None),
            r#"{"type":"schedule_withdrawn","job_id":"ID","tenant_id":"T","action":"cancel","schedule_id":"0190f3c8-0000-7000-8000-000000000001"}"#
        );
        assert_eq!(
            permission_denied(Action::Resume, ResourceKind::Campaign, None),
            r#"{"type":"error","error":"permission_denied","message":"Insufficient permissions to resume campaign"}"#
        );
        assert_eq!(
            rate_limited(30, 17, None),
            r#"{"type":"error","error":"rate_limit_exceeded","message":"Rate limit exceeded: 30/30 commands per minute","retry_after":17}"#
        );
        assert_eq!(
            job_progress(&job(), JobStatus::Running, &Progress { progress_percent: 42, ..Progress::default() }),
            r#"{"type":"job_progress","job_id":"ID","tenant_id":"T","status":"running","progress_percent":42,"items_total":null,"items_processed":0,"items_succeeded":0,"items_failed":0,"current_item":null"#
        );
        assert_eq!(
            job_status(&job(), JobStatus::Running, Some("paused")),
            r#"{"type":"job_status","job_id":"ID","tenant_id":"T","status":"running","desired":"paused""#
        );
    }

    #[test]
    fn a_snapshot_is_the_row_with_its_seq_whatever_the_row_ends_with() {
        let job: Job = serde_json::from_value(serde_json::json!({
            "id":"ID","tenant_id":"T","campaign_id":null,"job_type":"x","title":null,"status":"running","progress_percent":1,
            "items_total":null,"items_processed":0,"items_succeeded":0,"items_failed":0,"current_item":null,"parameters":{"a":{}},
            "result":null,"error_message":null,"max_retries":0,"retry_count":0,"created_by":null,"cancelled_by":null,
            "created_at":null,"started_at":null,"completed_at":null,"cancelled_at":null,"updated_at":null
        })).expect("job");
        let text = job_snapshot(&job, Some("paused"), 7);
        let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(value["type"], "job_snapshot");
        assert_eq!(value["job_id"], "ID");
        assert_eq!(value["id"], "ID");
        assert_eq!(value["parameters"], serde_json::json!({"a":{}}));
        assert_eq!(value["desired"], "paused");
        assert_eq!(value["seq"], 7);
    }
}
