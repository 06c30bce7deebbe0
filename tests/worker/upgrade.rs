//! What version 0.1 has left in Redis reaches its end with workers of this version.

use std::time::Duration;

use wheelhouse::broker::scripts::submit::{Grant, SubmitLimits, SubmitOutcome};
use wheelhouse::domain::{CommandId, Resource};
use wheelhouse::store::{AuditFilter, NewCampaign, NewJob};

use crate::audit::until_moved;
use crate::fixture::{WorkerFixture, blank, tenant};
use crate::support::former;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_version_0_1_left_is_carried_out_and_its_audit_entries_are_shipped() {
    let fixture = WorkerFixture::new().await;
    // Jobs that nobody runs: a command changes their rows.
    for id in ["queued", "leased", "retried", "soon", "superseded", "b2"] {
        fixture.make(NewJob { job_type: "elsewhere".to_owned(), ..blank(id) }).await;
    }
    let id = "queued".parse().expect("id");
    let campaign = NewCampaign { id, tenant: tenant(), name: None, created_by: None, jobs: Vec::new() };
    fixture.store.create_campaign(&campaign).await.expect("create the campaign");
    former::load(&fixture.redis.url()).await;
    let partition = fixture.broker.keys().partition(&tenant());
    // A gateway brings in what has come due.
    let due = fixture.broker.due_schedules(partition, 10).await.expect("due").due;
    let scheduled = fixture.broker.scheduled(&tenant(), due[0].1).await.expect("read").expect("it waits");
    let limits = SubmitLimits { commands_per_minute: 30, backlog_per_tenant: 1_000, schedules_per_tenant: 100 };
    let outcome = fixture.broker.submit(&scheduled.submission(Grant::Token(true)), limits).await.expect("submit");
    assert!(matches!(outcome, SubmitOutcome::Accepted { .. }), "{outcome:?}");
    let mut waiting: Vec<(Resource, CommandId)> = Vec::new();
    for resource in fixture.broker.ready_resources(&tenant(), 100, Duration::ZERO).await.expect("ready") {
        let queue = ["LINDEX".to_owned(), fixture.broker.keys().queue(&resource), "0".to_owned()];
        let first = fixture.broker.query_any(&queue).await.expect("read").join("");
        waiting.push((resource, first.parse().expect("id")));
    }
    assert_eq!(waiting.len(), 7, "{waiting:?}");

    let worker = fixture.worker("w1", |builder| builder).await;
    for (resource, command) in &waiting {
        let result = fixture.result(resource, *command).await;
        let status = match resource.to_string().as_str() {
            "acme:job:retried" => "pending",
            "acme:job:soon" | "acme:job:superseded" => "cancelled",
            _ => "paused",
        };
        assert_eq!(result["status"], status, "{result}");
    }
    until_moved(&fixture).await;
    let filter = AuditFilter { limit: 1_000, ..AuditFilter::default() };
    let rows = fixture.store.audit(&filter).await.expect("audit").items;
    // Those of the dump, one of what came due, and one for each command that was carried out here.
    assert_eq!(rows.len(), former::audit_entries() + 1 + waiting.len(), "{rows:#?}");
    for (_, command) in &waiting {
        let id = Some(command.to_string());
        let of_command = rows.iter().filter(|row| row.entry.command_id == id);
        let mut events: Vec<&str> = of_command.map(|row| row.entry.event.as_str()).collect();
        events.retain(|event| *event != "scheduled");
        events.sort();
        assert_eq!(events, ["accepted", "succeeded"], "{rows:#?}");
    }
    assert!(rows.iter().all(|row| row.entry.tenant_id == "acme"), "one could not be read: {rows:#?}");
    let verified = fixture.store.verify_audit(None, |broken| panic!("{broken:?}")).await.expect("verify");
    assert_eq!(verified.rows, rows.len() as u64);
    worker.drain().await;
}
