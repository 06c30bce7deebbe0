//! What a gateway does most often, without Redis and without sockets, so many times: for `make bench-guard`, which
//! counts the instructions.
//!
//! `hot_paths command 1000`: a frame is parsed, becomes the words of `submit_command`, and is answered with an ack.
//! `hot_paths update 1000`: an update from Redis goes into the outboxes of a hundred sockets, and out again.

use std::hint::black_box;
use std::process::ExitCode;
use std::sync::Arc;

use wheelhouse::broker::Keys;
use wheelhouse::broker::scripts::submit::{ClientOrigin, Grant, Submission, SubmitLimits, words};
use wheelhouse::domain::{CommandId, Control, Resource, ResourceKind, UserId};
use wheelhouse::gateway::hub::channel::Channel;
use wheelhouse::gateway::outbox::Outbox;
use wheelhouse::protocol::{ClientMessage, parse, server};

const FRAME: &str = r#"{"type":"pause_job","request_id":"req-000017","reason":"wrong file, asked for by ops"}"#;
const SOCKETS: usize = 100;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next();
    let times = arguments.next().and_then(|n| n.parse().ok());
    match (path.as_deref(), times) {
        (Some("command"), Some(times)) => commands(times),
        (Some("update"), Some(times)) => updates(times),
        _ => {
            eprintln!("hot_paths command|update TIMES");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}

fn resource() -> Resource {
    Resource::parse("acme:job:0190f3c8-7a2b-7000-8000-00000000000a").unwrap_or_else(|| unreachable!("it is one"))
}

fn commands(times: usize) {
    let (names, resource) = (Keys::new(16), resource());
    let user: UserId = "ann@example.com".parse().unwrap_or_else(|_| unreachable!("it is one"));
    // The same for all: an id made anew takes as long as the clock and the random numbers take.
    let command = CommandId::generate();
    let limits = SubmitLimits { commands_per_minute: 30, backlog_per_tenant: 10_000, schedules_per_tenant: 1_000 };
    for _ in 0..times {
        let Ok(ClientMessage::Command(request)) = parse(black_box(FRAME), ResourceKind::Job, &resource.id) else {
            return;
        };
        let submission = Submission {
            command,
            resource: resource.clone(),
            action: request.action,
            user: user.clone(),
            request: request.request_id.clone(),
            reason: request.reason.clone(),
            origin: ClientOrigin { address: Some("10.0.0.7".to_owned()), token_id: Some("jti-1".to_owned()) },
            grant: Grant::Database,
            when: request.when,
            batch: None,
        };
        black_box(words(names, &submission, limits));
        let id = request.request_id.as_ref().map(|id| id.as_str());
        black_box(server::requested(request.action, &resource, command, 4, Some(Control::Row), id));
    }
}

fn updates(times: usize) {
    let resource = resource();
    let channel = Channel::new(resource.clone());
    let outboxes: Vec<Arc<Outbox>> = (0..SOCKETS).map(|_| Arc::new(Outbox::new(256))).collect();
    for outbox in &outboxes {
        channel.add(outbox.clone());
    }
    for seq in 0..times {
        let payload = format!(
            "{{\"type\":\"job_progress\",\"job_id\":\"{}\",\"tenant_id\":\"acme\",\"status\":\"running\",\
             \"progress_percent\":42,\"items_total\":200000,\"items_processed\":84000,\"current_item\":\"row 84000\",\
             \"seq\":{}}}",
            resource.id,
            seq + 1_000_000
        );
        channel.update(payload.into());
        for outbox in &outboxes {
            black_box(outbox.pop(false));
        }
    }
}
