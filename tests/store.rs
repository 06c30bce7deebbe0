//! SQL: the same tests on SQLite and on PostgreSQL.

mod support;

use std::time::Duration;

use serde_json::json;
use wheelhouse::broker::scripts::audit::AuditEntry;
use wheelhouse::config;
use wheelhouse::domain::{Action, CampaignStatus, CommandId, JobStatus, Progress, Resource, UserId, WorkerId};
use wheelhouse::store::*;

/// A store, and a way to speak plain SQL to it.
struct Db {
    store: Store,
    url: String,
    _folder: Option<tempfile::TempDir>,
}

impl Db {
    async fn sqlite() -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let url = format!("sqlite://{}", folder.path().join("test.db").display());
        Self::open(url, Some(folder)).await
    }

    async fn postgres() -> Self {
        Self::open(support::postgres::database().await, None).await
    }

    async fn open(url: String, folder: Option<tempfile::TempDir>) -> Self {
        let settings = config::Database { url: url.clone().into(), connections: 4 };
        let (one, two) = (Store::open(&settings).await.expect("open"), Store::open(&settings).await.expect("open"));
        assert!(!one.is_migrated().await.expect("read"));
        let (a, b) = tokio::join!(one.migrate(), two.migrate());
        a.expect("migrate");
        b.expect("migrate at the same time");
        assert!(one.is_migrated().await.expect("read"));
        Self { store: one, url, _folder: folder }
    }

    /// Plain SQL, as another program would send it.
    async fn sql(&self, text: &str) -> Result<(), sqlx::Error> {
        use sqlx::{AssertSqlSafe, Connection, Executor};
        let text = AssertSqlSafe(text.to_owned());
        if self.url.starts_with("sqlite") {
            sqlx::SqliteConnection::connect(&self.url).await?.execute(text).await?;
        } else {
            sqlx::PgConnection::connect(&self.url).await?.execute(text).await?;
        }
        Ok(())
    }
}

macro_rules! on_both {
    ($($name:ident)*) => {
        mod sqlite { $( #[tokio::test] async fn $name() { super::$name(super::Db::sqlite().await).await } )* }
        mod postgres { $( #[tokio::test] async fn $name() { super::$name(super::Db::postgres().await).await } )* }
    };
}

on_both! {
    every_command_moves_a_row_as_the_table_says
    the_same_command_again_gives_the_first_outcome_and_an_older_fence_changes_nothing
    rows_of_other_systems_are_read_and_never_started
    each_waiting_job_is_claimed_once_and_none_of_a_paused_campaign
    a_run_that_is_over_changes_nothing
    a_job_handed_back_goes_on_where_it_was_and_a_dead_hosts_too
    a_cancelled_campaign_ends_what_waits_and_names_what_runs
    permissions_come_directly_and_by_role_with_a_version_that_plain_sql_raises
    the_audit_trail_is_written_once_chained_and_append_only
    lists_are_paged_and_keep_to_the_tenant
}

fn job(id: &str) -> Resource {
    Resource::parse(&format!("acme:job:{id}")).expect("resource")
}

fn worker(name: &str) -> WorkerId {
    name.parse().expect("worker")
}

fn change(resource: Resource, action: Action, fence: i64) -> Change {
    let user: UserId = "ann".parse().expect("user");
    Change { command: CommandId::generate(), resource, action, user, fence, run: None }
}

fn new_job(id: &str, campaign: Option<&str>) -> NewJob {
    NewJob {
        id: id.parse().expect("id"),
        tenant: job(id).tenant,
        campaign: campaign.map(|c| c.parse().expect("id")),
        job_type: "work".to_owned(),
        title: None,
        parameters: json!({"n": 1}),
        max_retries: 0,
        created_by: None,
    }
}

async fn claim(db: &Db, by: &str) -> Option<HostedJob> {
    db.store.claim_job(&worker(by), None, &["work".to_owned()]).await.expect("claim")
}

async fn every_command_moves_a_row_as_the_table_says(db: Db) {
    let mut fence = 0;
    for status in JobStatus::ALL {
        for action in Action::ALL {
            let id = format!("{}-{}", status.word(), action.word());
            db.sql(&format!("INSERT INTO jobs (id, tenant_id, status) VALUES ('{id}', 'acme', '{}')", status.word()))
                .await
                .expect("insert");
            fence += 1;
            let applied = db.store.apply(&change(job(&id), action, fence)).await.expect("apply");
            let now = db.store.job(&job(&id)).await.expect("read").expect("row").status;
            let expected = wheelhouse::domain::transition::job(status, action, JobStatus::Pending);
            use wheelhouse::domain::transition::Decision;
            match expected {
                Decision::Move(to) => {
                    assert_eq!(applied, Applied::Succeeded { status: to.word().to_owned(), changed: true });
                    assert_eq!(now, to);
                }
                Decision::Unchanged => {
                    assert_eq!(applied, Applied::Succeeded { status: status.word().to_owned(), changed: false });
                    assert_eq!(now, status);
                }
                Decision::Refuse => {
                    assert_eq!(applied, Applied::Refused);
                    assert_eq!(now, status);
                }
            }
            let other = Resource::parse(&format!("other:job:{id}")).expect("resource");
            assert_eq!(db.store.apply(&change(other, action, 1)).await.expect("apply"), Applied::Refused);
        }
    }
    let running = job("running-pause");
    db.store.apply(&change(running.clone(), Action::Resume, 99)).await.expect("apply");
    assert_eq!(db.store.job(&running).await.expect("read").expect("row").status, JobStatus::Running);
    let cancelled = db.store.job(&job("running-cancel")).await.expect("read").expect("row");
    assert_eq!(cancelled.cancelled_by.as_deref(), Some("ann"));
    assert!(cancelled.cancelled_at.is_some_and(|at| at.ends_with('Z')));
}

async fn the_same_command_again_gives_the_first_outcome_and_an_older_fence_changes_nothing(db: Db) {
    db.sql("INSERT INTO jobs (id, tenant_id, status) VALUES ('j', 'acme', 'running')").await.expect("insert");
    let pause = change(job("j"), Action::Pause, 10);
    let first = db.store.apply(&pause).await.expect("apply");
    assert_eq!(first, Applied::Succeeded { status: "paused".into(), changed: true });
    db.store.apply(&change(job("j"), Action::Resume, 11)).await.expect("apply");
    let again = db.store.apply(&pause).await.expect("apply");
    assert_eq!(again, Applied::Succeeded { status: "paused".into(), changed: false });
    assert_eq!(db.store.apply(&change(job("j"), Action::Cancel, 9)).await.expect("apply"), Applied::Stale);
    assert_eq!(db.store.job(&job("j")).await.expect("read").expect("row").status, JobStatus::Running);
}

async fn rows_of_other_systems_are_read_and_never_started(db: Db) {
    db.sql(
        "INSERT INTO jobs (id, tenant_id, job_type, title, status, progress_percent, parameters, created_at) \
            VALUES ('old', 'acme', 'work', 'A title', 'pending', 42.7, '{\"a\":[1]}', '2026-01-02 03:04:05')",
    )
    .await
    .expect("insert");
    let row = db.store.job(&job("old")).await.expect("read").expect("row");
    assert_eq!(row.progress.progress_percent, 42);
    assert_eq!(row.parameters, json!({"a": [1]}));
    assert_eq!(row.created_at.as_deref(), Some("2026-01-02T03:04:05Z"));
    assert!(claim(&db, "w").await.is_none(), "a job put there by another system must not be started");
    db.sql("INSERT INTO campaigns (id, tenant_id, name, status) VALUES ('c', 'acme', 'A campaign', 'active')")
        .await
        .expect("insert");
    let campaign = Resource::parse("acme:campaign:c").expect("resource");
    db.store.apply(&change(campaign.clone(), Action::Pause, 1)).await.expect("apply");
    let row = db.store.campaign(&campaign).await.expect("read").expect("row");
    assert_eq!((row.is_active, row.status), (false, CampaignStatus::Paused));
}

async fn each_waiting_job_is_claimed_once_and_none_of_a_paused_campaign(db: Db) {
    let jobs = (0..12).map(|n| new_job(&format!("j{n}"), Some("c"))).collect();
    let campaign =
        NewCampaign { id: "c".parse().expect("id"), tenant: job("j").tenant, name: None, created_by: None, jobs };
    assert_eq!(db.store.create_campaign(&campaign).await.expect("create").items_total, 12);
    let claims = (0..8).map(|n| {
        let store = db.store.clone();
        async move {
            let mut taken = Vec::new();
            for _ in 0..20 {
                if let Some(job) =
                    store.claim_job(&worker(&format!("w{n}")), None, &["work".into()]).await.expect("claim")
                {
                    taken.push(job.job.id.to_string());
                }
            }
            taken
        }
    });
    let mut taken: Vec<String> = futures_util::future::join_all(claims).await.concat();
    taken.sort();
    taken.dedup();
    assert_eq!(taken.len(), 12);
    db.store.create_job(&new_job("late", Some("c"))).await.expect("create");
    let resource = Resource::parse("acme:campaign:c").expect("resource");
    db.store.apply(&change(resource.clone(), Action::Pause, 1)).await.expect("apply");
    assert!(claim(&db, "w").await.is_none());
    db.store.apply(&change(resource, Action::Resume, 2)).await.expect("apply");
    assert_eq!(claim(&db, "w").await.expect("claimed").job.id.as_str(), "late");
}

async fn a_run_that_is_over_changes_nothing(db: Db) {
    let made = NewJob { max_retries: 1, ..new_job("j", None) };
    db.store.create_job(&made).await.expect("create");
    assert!(matches!(db.store.create_job(&made).await, Err(StoreError::Conflict(_))));
    let first = claim(&db, "w1").await.expect("claimed");
    let hosted = db.store.apply(&change(job("j"), Action::Pause, 1)).await.expect("apply");
    assert_eq!(hosted, Applied::Hosted(first.run.clone()));
    let failed = RunEnd::Failed { error: "no luck".into(), permanent: false };
    let Finished::Done(row) = db.store.finish(&first.run, &Progress::default(), &failed).await.expect("finish") else {
        panic!("lost")
    };
    assert_eq!((row.status, row.retry_count), (JobStatus::Pending, 1));
    let completed = RunEnd::Completed(json!({"rows": 2}));
    assert!(matches!(db.store.finish(&first.run, &Progress::default(), &completed).await, Ok(Finished::Lost)));
    assert!(!db.store.save_progress(&first.run, &Progress::default(), None).await.expect("save"));
    db.sql("UPDATE jobs SET run_after = NULL").await.expect("update");
    let second = claim(&db, "w2").await.expect("claimed");
    assert_eq!(second.run.number, 2);
    let progress = Progress { progress_percent: 50, items_total: Some(4), ..Progress::default() };
    assert!(db.store.save_progress(&second.run, &progress, None).await.expect("save"));
    let mine = Change { run: Some(second.run.clone()), ..change(job("j"), Action::Pause, 2) };
    assert!(matches!(db.store.apply(&mine).await, Ok(Applied::Succeeded { changed: true, .. })));
    assert!(matches!(db.store.finish(&second.run, &progress, &completed).await, Ok(Finished::Lost)), "it is paused");
    let mine = Change { run: Some(second.run.clone()), ..change(job("j"), Action::Resume, 3) };
    assert!(matches!(db.store.apply(&mine).await, Ok(Applied::Succeeded { status, .. }) if status == "running"));
    let Ok(Finished::Done(row)) = db.store.finish(&second.run, &progress, &completed).await else { panic!("lost") };
    assert_eq!((row.status, row.result, row.progress), (JobStatus::Completed, json!({"rows": 2}), progress));
}

async fn a_job_handed_back_goes_on_where_it_was_and_a_dead_hosts_too(db: Db) {
    db.store.create_job(&new_job("j", None)).await.expect("create");
    let first = claim(&db, "w1").await.expect("claimed");
    db.store.save_progress(&first.run, &Progress::default(), Some(&json!({"row": 7}))).await.expect("save");
    assert!(db.store.hand_back(&first.run).await.expect("hand back"));
    let second = claim(&db, "w2").await.expect("claimed");
    assert_eq!(second.resume_point, Some(json!({"row": 7})));
    assert_eq!(db.store.hosted_runs().await.expect("runs"), vec![second.run.clone()]);
    assert!(db.store.release_dead(&first.run, "died").await.expect("release").is_none());
    let released = db.store.release_dead(&second.run, "died").await.expect("release").expect("it was its");
    assert_eq!(released.status, JobStatus::Pending);
    let attached = db.store.create_attached_job(&new_job("a", None), &worker("w3")).await.expect("create");
    assert_eq!(attached.job.status, JobStatus::Running);
    let released = db.store.release_dead(&attached.run, "died").await.expect("release").expect("it was its");
    assert_eq!((released.status, released.error_message.as_deref()), (JobStatus::Failed, Some("died")));
}

async fn a_cancelled_campaign_ends_what_waits_and_names_what_runs(db: Db) {
    let jobs = (0..3).map(|n| new_job(&format!("j{n}"), Some("c"))).collect();
    let campaign =
        NewCampaign { id: "c".parse().expect("id"), tenant: job("j").tenant, name: None, created_by: None, jobs };
    db.store.create_campaign(&campaign).await.expect("create");
    let running = claim(&db, "w").await.expect("claimed");
    let resource = Resource::parse("acme:campaign:c").expect("resource");
    db.store.apply(&change(resource.clone(), Action::Cancel, 1)).await.expect("apply");
    assert_eq!(db.store.hosted_jobs(&resource).await.expect("hosted"), vec![running.run.job.clone()]);
    assert_eq!(db.store.campaign(&resource).await.expect("read").expect("row").items_failed, 2);
    assert!(claim(&db, "w").await.is_none());
    assert!(matches!(db.store.create_job(&new_job("late", Some("c"))).await, Err(StoreError::Conflict(_))));
    assert!(db.store.complete_campaign(&resource).await.expect("complete").is_none());
}

async fn permissions_come_directly_and_by_role_with_a_version_that_plain_sql_raises(db: Db) {
    let user: UserId = "user-456".parse().expect("user");
    let before = db.store.permissions_of(&user).await.expect("read");
    assert!(before.held.is_empty());
    db.sql("INSERT INTO user_permissions (user_id, permission) VALUES ('user-456', 'jobs.cancel')")
        .await
        .expect("insert");
    db.sql("INSERT INTO roles (id, name) VALUES ('op', 'Operator')").await.expect("insert");
    db.sql("INSERT INTO role_permissions (role_id, permission) VALUES ('op', 'campaigns.*')").await.expect("insert");
    db.sql("INSERT INTO user_roles (user_id, role_id) VALUES ('user-456', 'op')").await.expect("insert");
    let mut after = db.store.permissions_of(&user).await.expect("read");
    after.held.sort();
    assert_eq!(after.held, ["campaigns.*", "jobs.cancel"]);
    assert!(after.version >= before.version + 3);
    assert_eq!(db.store.permission_version().await.expect("read"), after.version);
    let granted = db.store.grant(&user, &["jobs.read".to_owned(), "jobs.cancel".to_owned()]).await.expect("grant");
    assert!(granted > after.version);
    let revoked = db.store.revoke(&user, &["jobs.cancel".to_owned()]).await.expect("revoke");
    assert!(revoked > granted);
    db.sql("DELETE FROM user_roles").await.expect("delete");
    assert_eq!(db.store.permissions_of(&user).await.expect("read").held, ["jobs.read"]);
}

async fn the_audit_trail_is_written_once_chained_and_append_only(db: Db) {
    let entry = |n: i64| AuditEntry {
        id: format!("{n}-0"),
        at: n,
        event: "accepted".into(),
        tenant_id: "acme".into(),
        user_id: "ann".into(),
        resource_kind: "job".into(),
        resource_id: "j".into(),
        action: "pause".into(),
        command_id: None,
        request_id: None,
        reason: Some("why \"not\"".into()),
        address: None,
        token_id: None,
        outcome: None,
        worker_id: None,
        attempts: None,
        latency_ms: Some(n),
    };
    let store = &db.store;
    assert_eq!(store.audit_position("s").await.expect("position"), "0");
    let entries = [entry(1), entry(2)];
    let (a, b) = tokio::join!(store.append_audit("s", "0", &entries), store.append_audit("s", "0", &entries));
    assert!(a.expect("append") ^ b.expect("append"), "exactly one of two writers may write");
    assert_eq!(store.audit_position("s").await.expect("position"), "2-0");
    assert!(store.append_audit("s", "2-0", &[entry(3)]).await.expect("append"));
    let filter = AuditFilter { limit: 2, ..AuditFilter::default() };
    let first = store.audit(&filter).await.expect("read");
    let second = store.audit(&AuditFilter { after: first.next.clone(), ..filter }).await.expect("read");
    let rows: Vec<_> = first.items.iter().chain(&second.items).collect();
    assert_eq!(rows.iter().map(|r| r.entry.clone()).collect::<Vec<_>>(), [entry(1), entry(2), entry(3)]);
    for pair in rows.windows(2) {
        assert_eq!(pair[1].previous_hash, pair[0].hash);
    }
    assert!(db.sql("UPDATE command_audit SET user_id = 'bob'").await.is_err());
    assert!(db.sql("DELETE FROM command_audit").await.is_err());
}

async fn lists_are_paged_and_keep_to_the_tenant(db: Db) {
    for n in 0..5 {
        db.store.create_job(&new_job(&format!("j{n}"), None)).await.expect("create");
    }
    db.sql("INSERT INTO jobs (id, tenant_id) VALUES ('theirs', 'other')").await.expect("insert");
    let mut filter =
        JobFilter { tenant: job("j").tenant, status: None, campaign: None, job_type: None, after: None, limit: 2 };
    let mut seen = Vec::new();
    loop {
        let page = db.store.jobs(&filter).await.expect("list");
        seen.extend(page.items.iter().map(|j| j.id.to_string()));
        filter.after = page.next;
        if filter.after.is_none() {
            break;
        }
    }
    assert_eq!(seen, ["j4", "j3", "j2", "j1", "j0"]);
    filter.status = Some(JobStatus::Paused);
    assert!(db.store.jobs(&filter).await.expect("list").items.is_empty());
    let other = Resource::parse("other:job:j0").expect("resource");
    assert!(db.store.job(&other).await.expect("read").is_none());
}

#[tokio::test]
async fn a_database_that_is_away_is_said_to_be_so_in_time() {
    let url = format!("postgres://postgres@127.0.0.1:{}/none", support::free_port());
    let settings = config::Database { url: url.into(), connections: 2 };
    let opened = tokio::time::timeout(Duration::from_secs(20), Store::open(&settings)).await.expect("an answer");
    assert!(matches!(opened, Err(StoreError::Unavailable(_))));
}
