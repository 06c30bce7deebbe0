//! Workers that see different Redis servers, and a Redis that loses what it knew: SQL is the same for all of them.

use std::time::Duration;

use wheelhouse::domain::{Action, JobStatus, Resource};
use wheelhouse::store::AuditFilter;
use wheelhouse::worker::{JobContext, WorkerBuilder};

use crate::code::Outcome;
use crate::fixture::{Code, WorkerFixture, eventually, tenant};
use crate::support::redis::RedisServer;

fn endless(ctx: JobContext) -> Outcome {
    Box::pin(async move {
        loop {
            ctx.checkpoint().await?;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_whose_heartbeats_are_in_another_redis_keeps_its_job_until_it_dies() {
    let fixture = WorkerFixture::new().await;
    let other = RedisServer::start();
    let mut settings = fixture.settings.clone();
    settings.redis.url = other.url().into();
    let cut_off = WorkerBuilder::new(settings).id("cut-off".parse().expect("id")).job(Code(endless)).build();
    let stop = tokio_util::sync::CancellationToken::new();
    let cut_off = tokio::spawn(cut_off.run_until(stop));
    let job = fixture.job("j").await;
    fixture.until_status(&job, JobStatus::Running).await;
    let host = async || fixture.store.hosted_runs().await.expect("runs").first().map(|run| run.host.to_string());
    assert_eq!(host().await.as_deref(), Some("cut-off"));
    // This one sees a job whose host no Redis that it can ask has ever heard of.
    let worker = fixture.coder("w2", Code(endless)).await;
    tokio::time::sleep(Duration::from_secs(9)).await;
    assert_eq!((host().await.as_deref(), fixture.row(&job).await.status), (Some("cut-off"), JobStatus::Running));
    cut_off.abort();
    eventually("the job of the dead worker is taken over", || async { host().await.as_deref() == Some("w2") }).await;
    worker.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_applied_is_in_the_trail_also_where_redis_loses_its_entries() {
    let fixture = WorkerFixture::new().await;
    fixture.sql("INSERT INTO jobs (id, tenant_id, status) VALUES ('j', 'acme', 'running')").await;
    let job = Resource::parse("acme:job:j").expect("resource");
    let stream = fixture.broker.keys().audit(fixture.broker.keys().partition(&tenant()));
    // Nothing gets from Redis into the trail before Redis has lost it.
    fixture
        .sql("CREATE TRIGGER no_audit BEFORE INSERT ON command_audit BEGIN SELECT RAISE(ABORT, 'not now'); END")
        .await;
    let worker = fixture.worker("w1", |builder| builder).await;
    let command = fixture.submit(Action::Pause, &job).await;
    assert_eq!(fixture.result(&job, command).await["type"], "pause_succeeded");
    assert_eq!(fixture.redis.inline(&format!("DEL {stream}")), ":1");
    fixture.sql("DROP TRIGGER no_audit").await;
    let rows = async || {
        let filter = AuditFilter { limit: 100, ..AuditFilter::default() };
        fixture.store.audit(&filter).await.expect("audit").items
    };
    eventually("the trail has it", || async { rows().await.len() == 2 }).await;
    let rows = rows().await;
    let said: Vec<_> = rows.iter().map(|row| (row.entry.event.as_str(), row.entry.outcome.as_deref())).collect();
    assert_eq!(said, [("accepted", None), ("succeeded", Some("paused"))]);
    let ended = &rows[1].entry;
    assert_eq!((ended.user_id.as_str(), ended.reason.as_deref()), ("ann", Some("because")));
    assert_eq!((ended.command_id.as_deref(), ended.worker_id.as_deref()), (Some(&*command.to_string()), Some("w1")));
    assert_eq!(fixture.store.verify_audit(None, |b| panic!("{b:?}")).await.expect("verify").rows, 2);
    worker.drain().await;
}
