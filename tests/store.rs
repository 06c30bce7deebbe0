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
    a_pause_that_comes_first_lets_no_other_job_start
    a_command_that_changes_nothing_still_makes_older_claims_void
    a_worker_that_lets_go_of_a_job_of_a_cancelled_campaign_leaves_it_cancelled
    no_campaign_is_completed_with_a_job_that_waits
    the_same_command_twice_at_once_has_one_outcome
    many_commands_at_once_each_succeed_or_fail_alone
    cancelling_a_campaign_and_claiming_its_jobs_do_not_hinder_each_other
    what_cannot_run_does_not_hold_up_what_can
    any_number_of_programs_may_migrate_at_once
    odd_rows_are_read_or_left_out_and_hide_no_others
    the_character_nul_is_kept_out_of_the_way
    a_failure_is_tried_again_until_the_retries_are_used_up
    a_row_that_cannot_be_read_does_not_stop_the_queue
    a_resumed_job_without_a_host_waits_for_one
    an_attached_job_is_never_handed_to_another_worker
    a_campaign_is_completed_once_all_its_jobs_have_ended
    a_changed_audit_row_is_noticed
    ping_answers_and_says_what_is_missing
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
    assert!(rows.iter().all(|r| r.is_intact()));
    assert!(second.next.is_none(), "that was the end");
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

fn campaign(id: &str) -> Resource {
    Resource::parse(&format!("acme:campaign:{id}")).expect("resource")
}

/// A campaign with jobs `{id}-0`, `{id}-1`, …
async fn campaign_of(db: &Db, id: &str, jobs: usize) -> Resource {
    let jobs = (0..jobs).map(|n| new_job(&format!("{id}-{n}"), None)).collect();
    let resource = campaign(id);
    let made =
        NewCampaign { id: resource.id.clone(), tenant: resource.tenant.clone(), name: None, created_by: None, jobs };
    db.store.create_campaign(&made).await.expect("create");
    resource
}

async fn status(db: &Db, id: &str) -> JobStatus {
    db.store.job(&job(id)).await.expect("read").expect("row").status
}

fn failed(error: &str) -> RunEnd {
    RunEnd::Failed { error: error.to_owned(), permanent: false }
}

/// Claims and a pause race; whatever is claimed was claimed before the pause was answered.
async fn a_pause_that_comes_first_lets_no_other_job_start(db: Db) {
    let resource = campaign_of(&db, "c", 60).await;
    let paused = std::sync::atomic::AtomicBool::new(false);
    let claims = (0..4).map(|n| {
        let (store, paused) = (&db.store, &paused);
        async move {
            let mut late = 0;
            loop {
                let began_after = paused.load(std::sync::atomic::Ordering::SeqCst);
                // Away for a moment (a row that is locked): asked again.
                let Ok(found) = store.claim_job(&worker(&format!("w{n}")), None, &["work".into()]).await else {
                    continue;
                };
                match found {
                    Some(_) if began_after => late += 1,
                    None if began_after => return late,
                    _ => tokio::task::yield_now().await,
                }
            }
        }
    });
    let pause = async {
        while db.store.hosted_runs().await.expect("runs").len() < 5 {
            tokio::task::yield_now().await;
        }
        let pause = change(resource.clone(), Action::Pause, 1);
        while db.store.apply(&pause).await.is_err() {}
        paused.store(true, std::sync::atomic::Ordering::SeqCst);
        db.store.hosted_runs().await.expect("runs").len()
    };
    let (late, hosted) = tokio::join!(futures_util::future::join_all(claims), pause);
    assert_eq!(late.iter().sum::<usize>(), 0, "a claim that began after the pause found a job");
    assert_eq!(db.store.hosted_runs().await.expect("runs").len(), hosted, "a job started after the pause was answered");
}

async fn a_command_that_changes_nothing_still_makes_older_claims_void(db: Db) {
    db.sql("INSERT INTO jobs (id, tenant_id, status) VALUES ('j', 'acme', 'running')").await.expect("insert");
    db.store.apply(&change(job("j"), Action::Resume, 10)).await.expect("apply");
    assert_eq!(db.store.apply(&change(job("j"), Action::Pause, 9)).await.expect("apply"), Applied::Stale);
    assert_eq!(status(&db, "j").await, JobStatus::Running);
    let resource = campaign_of(&db, "c", 0).await;
    db.store.apply(&change(resource.clone(), Action::Resume, 10)).await.expect("apply");
    assert_eq!(db.store.apply(&change(resource, Action::Pause, 9)).await.expect("apply"), Applied::Stale);
}

async fn a_worker_that_lets_go_of_a_job_of_a_cancelled_campaign_leaves_it_cancelled(db: Db) {
    let resource = campaign_of(&db, "c", 3).await;
    db.sql("UPDATE jobs SET max_retries = 5").await.expect("update");
    let mut runs = Vec::new();
    for _ in 0..3 {
        runs.push(claim(&db, "w").await.expect("claimed").run);
    }
    db.store.apply(&change(resource, Action::Cancel, 1)).await.expect("apply");
    assert!(db.store.hand_back(&runs[0]).await.expect("hand back"));
    let released = db.store.release_dead(&runs[1], "died").await.expect("release").expect("it was its");
    let ended = db.store.finish(&runs[2], &Progress::default(), &failed("no luck")).await.expect("finish");
    let Finished::Done(retried) = ended else { panic!("lost") };
    for row in [released, *retried, db.store.job(&runs[0].job).await.expect("read").expect("row")] {
        assert_eq!((row.status, row.cancelled_by.as_deref()), (JobStatus::Cancelled, Some("ann")), "{}", row.id);
        assert!(row.cancelled_at.is_some());
    }
}

async fn no_campaign_is_completed_with_a_job_that_waits(db: Db) {
    for n in 0..25 {
        let resource = campaign_of(&db, &format!("c{n}"), 1).await;
        db.sql(&format!("UPDATE jobs SET status = 'completed' WHERE id = 'c{n}-0'")).await.expect("update");
        let late = new_job(&format!("late-{n}"), Some(resource.id.as_str()));
        let (made, done) = tokio::join!(db.store.create_job(&late), db.store.complete_campaign(&resource));
        assert!(made.is_err() || done.expect("complete").is_none(), "completed with a job that waits");
    }
}

async fn the_same_command_twice_at_once_has_one_outcome(db: Db) {
    for n in 0..20 {
        db.sql(&format!("INSERT INTO jobs (id, tenant_id, status) VALUES ('j{n}', 'acme', 'running')"))
            .await
            .expect("insert");
        let pause = change(job(&format!("j{n}")), Action::Pause, 10);
        let (a, b) = tokio::join!(db.store.apply(&pause), db.store.apply(&pause));
        let mut changed: Vec<bool> = [a, b]
            .into_iter()
            .map(|applied| match applied.expect("apply") {
                Applied::Succeeded { status, changed } if status == "paused" => changed,
                other => panic!("{other:?}"),
            })
            .collect();
        changed.sort_unstable();
        assert_eq!(changed, [false, true]);
    }
}

/// On SQLite these share transactions: what one of them meets is no other's business.
async fn many_commands_at_once_each_succeed_or_fail_alone(db: Db) {
    for n in 0..120 {
        // Every third row makes its command fail half way: the row moves, then its outcome cannot be written.
        db.sql(&format!("INSERT INTO jobs (id, tenant_id, status) VALUES ('j{n}', 'acme', 'running')"))
            .await
            .expect("insert");
    }
    let changes: Vec<Change> = (0..120).map(|n| change(job(&format!("j{n}")), Action::Pause, 5)).collect();
    let broken: Vec<String> = changes.iter().step_by(3).map(|c| format!("'{}'", c.command)).collect();
    let broken = broken.join(", ");
    if db.url.starts_with("sqlite") {
        db.sql(&format!(
            "CREATE TRIGGER break_some BEFORE INSERT ON applied_commands WHEN NEW.command_id IN ({broken})
             BEGIN SELECT RAISE(ABORT, 'broken on purpose'); END"
        ))
        .await
        .expect("trigger");
    } else {
        db.sql(&format!("ALTER TABLE applied_commands ADD CONSTRAINT break_some CHECK (command_id NOT IN ({broken}))"))
            .await
            .expect("constraint");
    }
    // One after the other where the pool is small: a command that finds no connection is asked again.
    let answers = futures_util::future::join_all(changes.iter().map(|c| async {
        loop {
            match db.store.apply(c).await {
                Err(error) if error.is_transient() => {}
                answer => return answer,
            }
        }
    }))
    .await;
    for (n, answer) in answers.into_iter().enumerate() {
        let now = status(&db, &format!("j{n}")).await;
        if n % 3 == 0 {
            assert!(matches!(answer, Err(StoreError::Refused(_))), "{n}: {answer:?}");
            assert_eq!(now, JobStatus::Running, "{n}: nothing of a failed command may stay");
        } else {
            assert_eq!(answer.expect("apply"), Applied::Succeeded { status: "paused".into(), changed: true });
            assert_eq!(now, JobStatus::Paused, "{n}");
        }
    }
}

async fn cancelling_a_campaign_and_claiming_its_jobs_do_not_hinder_each_other(db: Db) {
    for n in 0..15 {
        let id = format!("c{n}");
        let resource = campaign_of(&db, &id, 6).await;
        let cancel = change(resource.clone(), Action::Cancel, 1);
        let (cancelled, ..) = tokio::join!(db.store.apply(&cancel), claim(&db, "w1"), claim(&db, "w2"), async {
            if let Some(taken) = claim(&db, "w3").await {
                db.store.hand_back(&taken.run).await.expect("hand back");
            }
        });
        assert!(matches!(cancelled.expect("no deadlock"), Applied::Succeeded { changed: true, .. }));
        let hosted = db.store.hosted_jobs(&resource).await.expect("hosted").len();
        let row = db.store.campaign(&resource).await.expect("read").expect("row");
        assert_eq!(row.items_failed, 6 - hosted as i64, "what no worker hosts is cancelled");
    }
}

async fn what_cannot_run_does_not_hold_up_what_can(db: Db) {
    let paused = campaign_of(&db, "paused", 30).await;
    db.store.apply(&change(paused, Action::Pause, 1)).await.expect("apply");
    for n in 0..30 {
        let other = NewJob { job_type: "unknown".into(), ..new_job(&format!("u{n}"), None) };
        db.store.create_job(&other).await.expect("create");
    }
    let theirs = NewJob { tenant: "other".parse().expect("tenant"), ..new_job("theirs", None) };
    db.store.create_job(&theirs).await.expect("create");
    db.store.create_job(&new_job("alone", None)).await.expect("create");
    campaign_of(&db, "active", 2).await;
    let (mine, work) = (vec![job("x").tenant], vec!["work".to_owned(), "more".to_owned()]);
    let mut taken = Vec::new();
    while let Some(found) = db.store.claim_job(&worker("w"), Some(&mine), &work).await.expect("claim") {
        taken.push(found.job.id.to_string());
    }
    assert_eq!(taken, ["alone", "active-0", "active-1"], "the oldest first, of this tenant only");
    let found = claim(&db, "w").await.expect("claimed");
    assert_eq!(found.job.id.as_str(), "theirs", "for every tenant");
    assert!(db.store.claim_job(&worker("w"), None, &[]).await.expect("claim").is_none(), "no type is known");
    assert!(db.store.claim_job(&worker("w"), Some(&[]), &work).await.expect("claim").is_none(), "no tenant is served");
}

async fn any_number_of_programs_may_migrate_at_once(db: Db) {
    for round in 0..4 {
        let folder = tempfile::tempdir().expect("folder");
        let url = if db.url.starts_with("sqlite") {
            format!("sqlite://{}", folder.path().join("new.db").display())
        } else {
            support::postgres::database().await
        };
        let programs = (0..6).map(|_| {
            let settings = config::Database { url: url.clone().into(), connections: 2 };
            tokio::spawn(async move { Store::open(&settings).await?.migrate().await })
        });
        let applied: usize = futures_util::future::join_all(programs)
            .await
            .into_iter()
            .map(|done| done.expect("task").expect("migrate"))
            .sum();
        assert_eq!(applied, 1, "round {round}: each migration is applied once");
    }
}

async fn odd_rows_are_read_or_left_out_and_hide_no_others(db: Db) {
    db.sql(
        "INSERT INTO jobs (id, tenant_id, status, job_type, progress_percent, items_processed, parameters, max_retries, created_at)
           VALUES ('nulls', 'acme', 'running', NULL, NULL, NULL, NULL, NULL, NULL);
         INSERT INTO jobs (id, tenant_id, status, progress_percent) VALUES ('high', 'acme', 'running', 250);
         INSERT INTO jobs (id, tenant_id, status, progress_percent) VALUES ('low', 'acme', 'running', -3.5);
         INSERT INTO jobs (id, tenant_id, status) VALUES ('no:id', 'acme', 'running');
         INSERT INTO jobs (id, tenant_id, status, host) VALUES ('odd-host', 'acme', 'running', 'not a worker');
         INSERT INTO campaigns (id, tenant_id, is_active) VALUES ('off', 'acme', FALSE);
         INSERT INTO campaigns (id, tenant_id, name, is_active, status) VALUES ('on', 'acme', 'On', TRUE, 'paused');",
    )
    .await
    .expect("insert");
    if db.url.starts_with("sqlite") {
        db.sql("INSERT INTO jobs (id, tenant_id, parameters, result) VALUES ('text', 'acme', 'not json', '{')")
            .await
            .expect("insert");
        let row = db.store.job(&job("text")).await.expect("read").expect("row");
        assert_eq!((row.parameters, row.result), (json!("not json"), json!("{")));
    }
    let nulls = db.store.job(&job("nulls")).await.expect("read").expect("row");
    assert_eq!((nulls.progress.progress_percent, nulls.parameters, nulls.created_at), (0, json!(null), None));
    assert_eq!(db.store.job(&job("high")).await.expect("read").expect("row").progress.progress_percent, 100);
    assert_eq!(db.store.job(&job("low")).await.expect("read").expect("row").progress.progress_percent, 0);
    let filter = JobFilter {
        tenant: job("j").tenant,
        status: Some(JobStatus::Running),
        campaign: None,
        job_type: None,
        after: None,
        limit: 100,
    };
    let listed = db.store.jobs(&filter).await.expect("list").items;
    assert_eq!(listed.iter().map(|j| j.id.as_str()).collect::<Vec<_>>(), ["odd-host", "low", "high", "nulls"]);
    assert!(db.store.hosted_runs().await.expect("runs").is_empty(), "a host that is no worker is nobody's run");
    assert!(matches!(db.store.apply(&change(job("odd-host"), Action::Pause, 1)).await, Err(StoreError::Refused(_))));
    assert!(db.sql("INSERT INTO jobs (id, tenant_id, status) VALUES ('x', 'acme', 'resting')").await.is_err());
    // Campaigns whose two columns disagree are made one by the next command.
    for (id, action, active) in [("off", Action::Resume, true), ("on", Action::Pause, false)] {
        let applied = db.store.apply(&change(campaign(id), action, 1)).await.expect("apply");
        assert!(matches!(applied, Applied::Succeeded { changed: true, .. }), "{id}: {applied:?}");
        let row = db.store.campaign(&campaign(id)).await.expect("read").expect("row");
        assert_eq!((row.is_active, row.status == CampaignStatus::Active), (active, active), "{id}");
    }
    // External work that ran goes on running when it is resumed, however it was paused.
    db.sql(
        "INSERT INTO jobs (id, tenant_id, status, started_at) VALUES ('ran', 'acme', 'paused', '2026-01-01 00:00:00')",
    )
    .await
    .expect("insert");
    db.store.apply(&change(job("ran"), Action::Resume, 1)).await.expect("apply");
    assert_eq!(status(&db, "ran").await, JobStatus::Running);
}

async fn the_character_nul_is_kept_out_of_the_way(db: Db) {
    let odd = json!({"a\u{0}": ["x\u{0}y", "C:\\u0000"]});
    db.store.create_job(&NewJob { parameters: odd.clone(), ..new_job("j", None) }).await.expect("create");
    let taken = claim(&db, "w").await.expect("claimed");
    let progress = Progress { current_item: Some("a\u{0}b".into()), ..Progress::default() };
    assert!(db.store.save_progress(&taken.run, &progress, Some(&odd)).await.expect("save"));
    let ended = db.store.finish(&taken.run, &progress, &RunEnd::Completed(odd)).await.expect("finish");
    let Finished::Done(row) = ended else { panic!("lost") };
    assert_eq!(row.result, json!({"a\u{fffd}": ["x\u{fffd}y", "C:\\u0000"]}));
}

async fn a_failure_is_tried_again_until_the_retries_are_used_up(db: Db) {
    db.store.create_job(&NewJob { max_retries: 2, ..new_job("j", None) }).await.expect("create");
    for tries in 0..3 {
        let taken = claim(&db, "w").await.expect("claimed");
        let before = jiff::Timestamp::now();
        let ended = db.store.finish(&taken.run, &Progress::default(), &failed("no luck")).await.expect("finish");
        let Finished::Done(row) = ended else { panic!("lost") };
        let (status, retries) = if tries < 2 { (JobStatus::Pending, tries + 1) } else { (JobStatus::Failed, 2) };
        assert_eq!((row.status, row.retry_count, row.error_message.as_deref()), (status, retries, Some("no luck")));
        assert_eq!(row.completed_at.is_some(), status == JobStatus::Failed);
        // Its time has not come while run_after lies ahead.
        let ahead = before.as_millisecond() + 60_000;
        db.sql(&format!("UPDATE jobs SET run_after = {ahead} WHERE status = 'pending'")).await.expect("update");
        assert!(claim(&db, "w").await.is_none());
        db.sql("UPDATE jobs SET run_after = 1 WHERE status = 'pending'").await.expect("update");
    }
    db.store.create_job(&NewJob { max_retries: 2, ..new_job("p", None) }).await.expect("create");
    let taken = claim(&db, "w").await.expect("claimed");
    let end = RunEnd::Failed { error: "never".into(), permanent: true };
    let Ok(Finished::Done(row)) = db.store.finish(&taken.run, &Progress::default(), &end).await else { panic!("lost") };
    assert_eq!((row.status, row.retry_count), (JobStatus::Failed, 0));
}

async fn a_row_that_cannot_be_read_does_not_stop_the_queue(db: Db) {
    db.sql("INSERT INTO jobs (id, tenant_id, job_type, origin) VALUES ('no:id', 'acme', 'work', 'queued')")
        .await
        .expect("insert");
    db.store.create_job(&new_job("fine", None)).await.expect("create");
    assert!(claim(&db, "w").await.is_none(), "the one that cannot be read is put aside");
    assert_eq!(claim(&db, "w").await.expect("claimed").job.id.as_str(), "fine");
}

async fn a_resumed_job_without_a_host_waits_for_one(db: Db) {
    db.store.create_job(&new_job("j", None)).await.expect("create");
    db.store.apply(&change(job("j"), Action::Pause, 1)).await.expect("apply");
    assert!(claim(&db, "w").await.is_none(), "a paused job is not started");
    db.store.apply(&change(job("j"), Action::Resume, 2)).await.expect("apply");
    for released in [false, true] {
        let taken = claim(&db, "w").await.expect("claimed");
        let mine = |action, fence| Change { run: Some(taken.run.clone()), ..change(job("j"), action, fence) };
        let fence = if released { 20 } else { 10 };
        db.store.apply(&mine(Action::Pause, fence)).await.expect("apply");
        if released {
            let row = db.store.release_dead(&taken.run, "died").await.expect("release").expect("it was its");
            assert_eq!((row.status, row.error_message), (JobStatus::Paused, None));
        } else {
            assert!(db.store.hand_back(&taken.run).await.expect("hand back"));
        }
        assert_eq!(status(&db, "j").await, JobStatus::Paused);
        let resumed = db.store.apply(&change(job("j"), Action::Resume, fence + 1)).await.expect("apply");
        assert_eq!(resumed, Applied::Succeeded { status: "pending".into(), changed: true });
    }
    let last = claim(&db, "w").await.expect("claimed");
    let cancel = Change { run: Some(last.run.clone()), ..change(job("j"), Action::Cancel, 30) };
    assert!(matches!(db.store.apply(&cancel).await, Ok(Applied::Succeeded { changed: true, .. })));
    assert!(db.store.hosted_runs().await.expect("runs").is_empty(), "a cancelled job has no host");
    let completed = RunEnd::Completed(json!(1));
    assert!(matches!(db.store.finish(&last.run, &Progress::default(), &completed).await, Ok(Finished::Lost)));
    assert!(!db.store.hand_back(&last.run).await.expect("hand back"));
    assert_eq!(status(&db, "j").await, JobStatus::Cancelled);
}

async fn an_attached_job_is_never_handed_to_another_worker(db: Db) {
    let attached = db.store.create_attached_job(&new_job("a", None), &worker("w1")).await.expect("create");
    assert!(!db.store.hand_back(&attached.run).await.expect("hand back"));
    assert!(claim(&db, "w2").await.is_none());
    let again = db.store.create_attached_job(&new_job("a", None), &worker("w2")).await;
    assert!(matches!(again, Err(StoreError::Conflict(_))), "{again:?}");
    assert_eq!(status(&db, "a").await, JobStatus::Running);
}

async fn a_campaign_is_completed_once_all_its_jobs_have_ended(db: Db) {
    let empty = campaign_of(&db, "empty", 0).await;
    assert!(db.store.complete_campaign(&empty).await.expect("complete").is_none(), "it has no job");
    let resource = campaign_of(&db, "c", 2).await;
    db.sql("UPDATE jobs SET status = 'completed' WHERE id = 'c-0'").await.expect("update");
    assert!(db.store.complete_campaign(&resource).await.expect("complete").is_none(), "one waits");
    db.sql("UPDATE jobs SET status = 'failed' WHERE id = 'c-1'").await.expect("update");
    db.store.apply(&change(resource.clone(), Action::Pause, 1)).await.expect("apply");
    assert!(db.store.complete_campaign(&resource).await.expect("complete").is_none(), "it is paused");
    db.store.apply(&change(resource.clone(), Action::Resume, 2)).await.expect("apply");
    let row = db.store.complete_campaign(&resource).await.expect("complete").expect("completed");
    assert_eq!((row.status, row.is_active, row.progress_percent), (CampaignStatus::Completed, false, 100));
    assert_eq!((row.items_total, row.items_succeeded, row.items_failed), (2, 1, 1));
    assert!(row.completed_at.is_some());
    assert!(db.store.complete_campaign(&resource).await.expect("complete").is_none(), "once");
    assert_eq!(db.store.apply(&change(resource, Action::Cancel, 3)).await.expect("apply"), Applied::Refused);
}

async fn a_changed_audit_row_is_noticed(db: Db) {
    let text = "INSERT INTO command_audit (id, at, tenant_id, user_id, resource_kind, resource_id, action, event, stream_id, previous_hash, hash)
      VALUES (1, '2026-01-01T00:00:00Z', 'acme', 'eve', 'job', 'j', 'cancel', 'accepted', '1-0', '', 'made up')";
    db.sql(text).await.expect("insert");
    let rows = db.store.audit(&AuditFilter { limit: 10, ..AuditFilter::default() }).await.expect("read").items;
    assert!(!rows[0].is_intact());
    let over = if db.url.starts_with("sqlite") {
        text.replace("INSERT INTO", "INSERT OR REPLACE INTO")
    } else {
        format!("{text} ON CONFLICT (id) DO UPDATE SET user_id = 'bob'")
    };
    assert!(db.sql(&over).await.is_err(), "a row may not be replaced either");
    if !db.url.starts_with("sqlite") {
        assert!(db.sql("TRUNCATE command_audit").await.is_err());
    }
}

async fn ping_answers_and_says_what_is_missing(db: Db) {
    let within = Duration::from_secs(10);
    db.store.ping(within).await.expect("ping");
    if let Some(file) = db.url.strip_prefix("sqlite://") {
        std::fs::remove_file(file).expect("remove");
        assert!(matches!(db.store.ping(within).await, Err(StoreError::Unavailable(_))));
    }
}
