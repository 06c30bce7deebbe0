//! `schema/messages.schema.json` and the protocol are one: every message that the protocol can make is made here and
//! fits, and every message of the schema is among them. What the running tests see is compared in `support::socket`.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};
use wheelhouse::domain::{
    Action, Campaign, CommandId, Control, Job, JobStatus, OutputLine, OutputStream, Progress, Resource, ResourceId,
    ResourceKind, TenantId,
};
use wheelhouse::protocol::batch_messages::{self, BatchCounts, BatchHeader, BatchItem, ItemState};
use wheelhouse::protocol::{self, ErrorCode, FeedFilter, server, tenant};

use crate::support::schema::{MESSAGES, Others};

const GROUPS: [&str; 3] = ["tenant", "job", "campaign"];

fn tenant_id() -> TenantId {
    "acme".parse().expect("a tenant")
}

fn command() -> CommandId {
    "0190f3c8-0000-7000-8000-000000000001".parse().expect("a command id")
}

/// A row with a value in every field that may be left out.
fn job() -> Job {
    serde_json::from_value(json!({
        "id": "j1", "tenant_id": "acme", "campaign_id": "c1", "job_type": "import", "title": "A", "status": "running",
        "progress_percent": 1, "items_total": 3, "items_processed": 1, "items_succeeded": 1, "items_failed": 0,
        "current_item": "x", "parameters": {"a": {}}, "result": null, "error_message": "no", "max_retries": 1,
        "retry_count": 0, "run_after": "2026-01-01T00:00:00Z", "timeout_seconds": 5,
        "contact_lost_at": "2026-01-01T00:00:00Z", "created_by": "ann", "cancelled_by": "bob",
        "created_at": "2026-01-01T00:00:00Z", "control": "live", "waiting_for": "a worker for import",
        "running_seconds": 1.5, "paused_seconds": null, "rerun_of": "j0", "reruns": ["j2"],
        "worker": {"id": "w1", "name": "box-1", "host": "box", "since": "2026-01-01T00:00:00Z", "client": "c", "client_host": "h"}
    }))
    .expect("a job")
}

fn campaign() -> Campaign {
    serde_json::from_value(json!({
        "id": "c1", "tenant_id": "acme", "name": "A", "is_active": true, "is_open": true, "status": "active",
        "progress_percent": 1, "items_total": 3, "items_processed": 1, "items_succeeded": 1, "items_failed": 0,
        "created_by": "ann", "created_at": "2026-01-01T00:00:00Z"
    }))
    .expect("a campaign")
}

/// What a script closes when it publishes.
fn with_seq(open: String) -> String {
    format!("{open},\"seq\":7}}")
}

/// What is said about one resource, on its own socket and on the tenant's.
fn about(resource: &Resource) -> Vec<String> {
    let control = Control::of(resource.kind, true);
    let mut all = Vec::new();
    for request in [None, Some("r1")] {
        for action in Action::ALL {
            all.push(server::requested(action, resource, command(), 1, control, request));
            all.push(server::scheduled(action, resource, command(), 1_000, request));
            all.push(server::withdrawn(action, resource, command(), request));
            all.push(server::succeeded(action, resource, command(), "paused", control, request));
            all.push(server::failed(action, resource, command(), "Superseded by cancel", control, request));
            all.push(server::permission_denied(action, resource.kind, request));
        }
        all.push(server::rate_limited(30, 17, request));
        all.push(server::error(ErrorCode::Internal, "no", request));
    }
    let progress = Progress { items_total: Some(3), current_item: Some("x".to_owned()), ..Progress::default() };
    match resource.kind {
        ResourceKind::Job => {
            all.push(server::job_snapshot(&job(), Some("paused"), 7));
            all.push(with_seq(server::job_progress(resource, JobStatus::Running, &progress)));
            all.push(with_seq(server::job_status(resource, JobStatus::Running, Some("cancelled"))));
            all.push(with_seq(server::job_contact(resource, JobStatus::Running, None)));
        }
        ResourceKind::Campaign => {
            all.push(server::campaign_snapshot(&campaign(), None, 7));
            all.push(with_seq(server::campaign_progress(&campaign())));
            all.push(with_seq(server::campaign_status(&campaign(), Some("paused"))));
        }
    }
    all
}

/// What is said on every socket.
fn everywhere() -> Vec<String> {
    vec![
        tenant::workers_online(&tenant_id(), 0),
        tenant::feed_interrupted(&tenant_id(), "redis", 1_000),
        tenant::feed_resumed(&tenant_id()),
        server::token_expiring(1, 60),
        server::token_refreshed(1),
        server::PONG.to_owned(),
    ]
}

fn batches() -> Vec<String> {
    let mut all = Vec::new();
    for (kind, control) in [(ResourceKind::Job, Some(Control::Row)), (ResourceKind::Campaign, None)] {
        let header = BatchHeader {
            batch: command(),
            tenant: tenant_id(),
            kind,
            action: Action::Pause,
            total: 5,
            refused: 1,
            request_id: Some("r1".to_owned()),
        };
        let states = [
            ItemState::Hit,
            ItemState::Accepted(command(), control),
            ItemState::Succeeded(command(), "paused".to_owned(), control),
            ItemState::Failed(command(), "no".to_owned(), control),
            ItemState::Refused(ErrorCode::NotFound, "There is no such job".to_owned()),
        ];
        let items = states.map(|state| BatchItem { id: "x".parse().expect("an id"), state });
        all.push(batch_messages::requested(&header, 1, &items, true));
        all.push(batch_messages::preview(&header, 1, &items, false));
        let counts = BatchCounts { succeeded: 1, failed: 1, unknown: 1 };
        all.push(batch_messages::completed(&header, counts, None));
        all.push(batch_messages::completed(&header, counts, Some((&items, false))));
    }
    all
}

#[test]
fn every_message_of_the_service_stands_in_the_schema_and_every_schema_is_of_one() {
    let one = |kind: &str, id: &str| Resource::parse(&format!("acme:{kind}:{id}")).expect("a resource");
    let (job, campaign) = (one("job", "j1"), one("campaign", "c1"));
    let filter = json!({"kinds": ["job", "campaign"], "job_ids": ["j1"], "campaign_ids": ["c1"], "campaign_id": "c1",
        "job_type": "import", "status": ["running"]});
    let filter = FeedFilter::read(Some(&filter)).expect("a filter");
    let made = |group: &str| {
        let mut all = everywhere();
        match group {
            "job" => {
                all.extend(about(&job).into_iter().chain([server::subscribed(&job)]));
                let line = |open| OutputLine {
                    line: 7,
                    run: 1,
                    at: "2026-01-01T00:00:00Z".to_owned(),
                    stream: OutputStream::Stderr,
                    text: "x".to_owned(),
                    open,
                };
                all.push(server::job_output(&job, &[line(false), line(true)], 3));
            }
            "campaign" => all.extend(about(&campaign).into_iter().chain([server::subscribed(&campaign)])),
            _ => {
                all.extend(about(&job).into_iter().chain(about(&campaign)).chain(batches()));
                all.push(tenant::subscribed(&tenant_id(), Some(1)));
                all.push(tenant::subscription(&filter, Some("r1")));
                all.push(tenant::no_snapshot(&job));
                all.push(tenant::resynchronize(&tenant_id()));
            }
        }
        all
    };
    for group in GROUPS {
        let name = format!("{group}_server");
        let mut seen = BTreeSet::new();
        for text in made(group) {
            let value: Value = serde_json::from_str(&text).expect("JSON");
            MESSAGES.check(&name, &value, Others::Refused).unwrap_or_else(|why| panic!("{why}"));
            seen.extend(MESSAGES.member(&name, &value));
            // A rule that nothing breaks is none: without its type, or with a field of another form, it is no message.
            let mut bad = value.clone();
            bad["tenant_id"] = json!(7);
            let is_taken = MESSAGES.check(&name, &bad, Others::Refused).is_ok();
            assert!(!is_taken, "{bad} passes");
        }
        let all: BTreeSet<&str> = MESSAGES.members(&name).map(|(member, _)| member).collect();
        assert_eq!(seen, all, "messages of {name} that nothing makes");
    }
}

/// A message of each kind with everything that it may carry, and with nothing.
fn client_messages(group: &str) -> Vec<Value> {
    let carries = json!({"request_id": "r1", "reason": "why", "delay_seconds": 60});
    let plus = |mut value: Value, more: &Value| {
        value.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        value
    };
    let mut all = vec![
        json!({"type": "ping"}),
        json!({"type": "refresh_token", "token": "a.b.c"}),
        json!({"type": "cancel_scheduled", "schedule_id": command().to_string(), "request_id": "r1"}),
    ];
    for action in ["cancel", "pause", "resume"] {
        for kind in ["job", "campaign"] {
            let single = json!({"type": format!("{action}_{kind}"), format!("{kind}_id"): "x1"});
            if group == kind {
                all.push(json!({"type": format!("{action}_{kind}")}));
            }
            if group == kind || group == "tenant" {
                all.push(plus(single.clone(), &carries));
                all.push(plus(single.clone(), &json!({"run_at": "2026-01-31T22:00:00+01:00"})));
                all.push(plus(single, &json!({"request_id": null, "reason": null, "run_at": null})));
            }
            if group == "tenant" {
                let batch = json!({"type": format!("{action}_{kind}s"), "request_id": "r1", "reason": "why"});
                all.push(plus(batch.clone(), &json!({format!("{kind}_ids"): ["x1", "x2"], "dry_run": true})));
                let status = if kind == "job" { "running" } else { "active" };
                all.push(plus(batch.clone(), &json!({"filter": {"status": status}})));
                all.push(plus(batch, &json!({"filter": {"status": ["paused"]}})));
            }
        }
    }
    if group == "tenant" {
        all.push(json!({"type": "pause_jobs", "filter": {"campaign_id": "c1", "job_type": "import"}}));
        all.push(json!({"type": "subscribe"}));
        all.push(json!({"type": "subscribe", "filter": {"kinds": "job", "status": ["running", "active"]}}));
        let named = json!({"job_ids": ["j1"], "campaign_ids": ["c1"]});
        all.push(json!({"type": "subscribe", "filter": named, "snapshot": true, "request_id": "r1"}));
    }
    all
}

#[test]
fn what_a_client_may_send_by_the_schema_is_what_a_gateway_takes() {
    let id: ResourceId = "x1".parse().expect("an id");
    for group in GROUPS {
        let name = format!("{group}_client");
        let is_taken = |value: &Value| match ResourceKind::parse(group) {
            Some(kind) => protocol::parse(&value.to_string(), kind, &id).is_ok(),
            None => protocol::parse_tenant(&value.to_string()).is_ok(),
        };
        let fits = |value: &Value| MESSAGES.check(&name, value, Others::AsWritten);
        let mut seen = BTreeSet::new();
        for message in client_messages(group) {
            assert_eq!(fits(&message), Ok(()));
            assert!(is_taken(&message), "{message}");
            seen.extend(MESSAGES.member(&name, &message));
            for (field, value) in [
                ("request_id", json!("a b")),
                ("request_id", json!(7)),
                ("reason", json!("x".repeat(501))),
                ("delay_seconds", json!(1.5)),
                ("delay_seconds", json!(40_000_000)),
                ("filter", json!([])),
                ("filter", json!({"status": "gone"})),
                ("job_ids", json!([])),
                ("campaign_ids", json!(["a:b"])),
                ("dry_run", json!("yes")),
                ("snapshot", json!("yes")),
                ("schedule_id", json!("x")),
                ("token", json!(1)),
                ("dry-run", json!(true)),
            ] {
                let mut other = message.clone();
                other[field] = value;
                // A gateway judges no more than this: what fits otherwise may still be too much, or twice.
                assert!(!is_taken(&other) || fits(&other).is_ok(), "a gateway takes {other}");
                assert!(fits(&other).is_err() || is_taken(&other), "the schema allows {other}");
            }
        }
        let all: BTreeSet<&str> = MESSAGES.members(&name).map(|(member, _)| member).collect();
        assert_eq!(seen, all, "messages of {name} that were not tried");
    }
}

/// The texts between these marks in the source of the protocol.
fn in_source(file: &str, before: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(file);
    let text = std::fs::read_to_string(path).expect("a source file");
    let text = text.split("#[cfg(test)]").next().unwrap_or_default();
    text.split(before).skip(1).filter_map(|rest| rest.split('"').next()).map(str::to_owned).collect()
}

#[test]
fn every_type_and_code_that_the_source_writes_stands_in_the_schema() {
    let known: BTreeSet<&str> = GROUPS
        .iter()
        .flat_map(|group| {
            MESSAGES.members(match *group {
                "job" => "job_server",
                "campaign" => "campaign_server",
                _ => "tenant_server",
            })
        })
        .filter_map(|(_, member)| member["properties"]["type"]["const"].as_str())
        .collect();
    let mut written = 0;
    for file in ["protocol/server.rs", "protocol/tenant.rs", "protocol/batch_messages.rs"] {
        for name in in_source(file, "Frame::new(\"") {
            assert!(known.contains(name.as_str()) || name.contains('{'), "{file} makes {name}");
            written += 1;
        }
    }
    assert!(written > 10, "only {written} found: are messages still made so?");
    let codes = in_source("protocol/error.rs", " => \"");
    assert!(codes.len() > 10, "{codes:?}");
    assert_eq!(MESSAGES.definition("error_code")["enum"], json!(codes));
}

#[test]
fn snapshots_have_the_fields_that_the_rest_api_gives() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/gateway/rest/openapi.json");
    let api: Value = serde_json::from_str(&std::fs::read_to_string(path).expect("the document")).expect("JSON");
    for (name, row) in [("job", "Job"), ("campaign", "Campaign")] {
        let fields = |value: &Value| -> BTreeSet<String> {
            value["properties"].as_object().expect("properties").keys().cloned().collect()
        };
        let now = &api["components"]["schemas"][format!("{row}Now")]["allOf"][1];
        let mut rest = fields(&api["components"]["schemas"][row]);
        rest.extend(fields(now));
        rest.extend(["type", "workers_online"].map(str::to_owned));
        assert_eq!(fields(MESSAGES.definition(&format!("{name}_snapshot"))), rest, "{name}");
    }
}
