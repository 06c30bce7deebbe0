//! Audit entries on their way from Redis to SQL, and how long they stay there.

use wheelhouse::domain::{Action, CommandId, Resource};
use wheelhouse::store::{AuditFilter, AuditRow};
use wheelhouse::worker::JobContext;

use crate::code::Outcome;
use crate::fixture::{Code, WorkerFixture, eventually, tenant};

async fn rows(fixture: &WorkerFixture) -> Vec<AuditRow> {
    let filter = AuditFilter { limit: 1_000, ..AuditFilter::default() };
    fixture.store.audit(&filter).await.expect("audit").items
}

pub async fn until_moved(fixture: &WorkerFixture) {
    eventually("no entry is left in Redis", || async {
        fixture.broker.audit_backlog().await.is_ok_and(|all| all.iter().all(|(_, entries)| *entries == 0))
    })
    .await;
}

fn idle(_: JobContext) -> Outcome {
    Box::pin(async { Ok(serde_json::Value::Null) })
}

fn times(rows: &[AuditRow], command: CommandId, event: &str) -> usize {
    let id = Some(command.to_string());
    rows.iter().filter(|row| row.entry.command_id == id && row.entry.event == event).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_whose_writer_died_before_it_could_forget_them_are_not_written_again() {
    let fixture = WorkerFixture::new().await;
    let job = Resource::parse("acme:job:j").expect("resource");
    let partition = fixture.broker.keys().partition(&tenant());
    let (first, second) = (fixture.submit(Action::Pause, &job).await, fixture.submit(Action::Resume, &job).await);
    let entries = fixture.broker.audit_after(partition, "0", 10).await.expect("entries");
    assert_eq!(entries.len(), 2);
    // What that writer had done when it died.
    fixture.store.append_audit(&format!("audit:{partition}"), &entries).await.expect("append");
    let third = fixture.submit(Action::Pause, &job).await;
    let worker = fixture.worker("w1", |builder| builder).await;
    for command in [first, second, third] {
        fixture.result(&job, command).await;
    }
    until_moved(&fixture).await;
    let rows = rows(&fixture).await;
    for command in [first, second, third] {
        assert_eq!((times(&rows, command, "accepted"), times(&rows, command, "failed")), (1, 1), "{rows:#?}");
    }
    assert_eq!(fixture.store.verify_audit(None, |b| panic!("{b:?}")).await.expect("verify").rows, 6);
    worker.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_numbers_its_entries_from_an_earlier_time_loses_none() {
    let fixture = WorkerFixture::new().await;
    let job = Resource::parse("acme:job:j").expect("resource");
    let stream = fixture.broker.keys().audit(fixture.broker.keys().partition(&tenant()));
    let worker = fixture.worker("w1", |builder| builder).await;
    fixture.command(Action::Pause, &job).await;
    until_moved(&fixture).await;
    let before = rows(&fixture).await.len();
    // A replica with a slower clock has taken over: its numbers are below those that SQL has seen.
    fixture.redis.inline(&format!("DEL {stream}"));
    for n in 0..3 {
        let entry = format!(
            r#"{{"tenant_id":"acme","user_id":"ann","resource_kind":"job","resource_id":"j","action":"pause","command_id":"c{n}"}}"#
        );
        assert!(fixture.redis.inline(&format!("XADD {stream} 5-{n} event accepted entry '{entry}'")).starts_with('$'));
    }
    until_moved(&fixture).await;
    let rows = rows(&fixture).await;
    assert_eq!(rows.iter().filter(|row| row.entry.at == 5).count(), 3, "{rows:#?}");
    assert_eq!(rows.len(), before + 3);
    worker.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_removes_rows_that_are_older_than_they_are_to_be_kept() {
    let fixture = WorkerFixture::with(&[("audit.keep_days", "1")]).await;
    let job = Resource::parse("acme:job:j").expect("resource");
    let old: Vec<_> = (1..=3)
        .map(|n| {
            let text = format!(
                r#"{{"id":"{n}-0","at":{n},"event":"denied","tenant_id":"acme","user_id":"ann","resource_kind":"job","resource_id":"j","action":"pause"}}"#
            );
            serde_json::from_str(&text).expect("an entry")
        })
        .collect();
    fixture.store.append_audit("audit:{00}", &old).await.expect("append");
    let worker = fixture.worker("w1", |builder| builder).await;
    fixture.command(Action::Pause, &job).await;
    until_moved(&fixture).await;
    eventually("the old rows are gone", || async { rows(&fixture).await.iter().all(|row| row.id > 3) }).await;
    assert_eq!(rows(&fixture).await.len(), 2, "what was done today is there");
    let verified = fixture.store.verify_audit(None, |b| panic!("{b:?}")).await.expect("verify");
    assert_eq!((verified.rows, verified.pruned.map(|p| p.id)), (2, Some(3)));
    worker.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_has_as_a_share_is_moved_all_the_same() {
    // Shares are those of workers for all tenants; here is none.
    let fixture = WorkerFixture::with(&[("worker.tenants", "acme")]).await;
    let job = Resource::parse("acme:job:j").expect("resource");
    let worker = fixture.worker_of_tenants("w1", Code(idle), "acme").await;
    fixture.command(Action::Pause, &job).await;
    until_moved(&fixture).await;
    assert_eq!(rows(&fixture).await.len(), 2);
    worker.drain().await;
}
