//! Which job a worker gets, and what it may write about it.

use super::*;
use wheelhouse::domain::Control;

pub async fn each_waiting_job_is_claimed_once_and_none_of_a_paused_campaign(db: Db) {
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

pub async fn what_cannot_run_does_not_hold_up_what_can(db: Db) {
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

pub async fn a_row_that_cannot_be_read_does_not_stop_the_queue(db: Db) {
    db.sql("INSERT INTO jobs (id, tenant_id, job_type, origin) VALUES ('no:id', 'acme', 'work', 'queued')")
        .await
        .expect("insert");
    db.store.create_job(&new_job("fine", None)).await.expect("create");
    assert_eq!(claim(&db, "w").await.expect("claimed").job.id.as_str(), "fine");
}

pub async fn a_row_that_cannot_be_read_is_put_aside_with_its_claim_or_not_at_all(db: Db) {
    db.sql("INSERT INTO jobs (id, tenant_id, job_type, origin) VALUES ('no:id', 'acme', 'work', 'queued')")
        .await
        .expect("insert");
    db.store.create_job(&new_job("fine", None)).await.expect("create");
    // The worker is lost in the middle, as far as the database knows.
    db.refuses_to_fail_jobs().await;
    let types = ["work".to_owned()];
    let claimed = db.store.claim_jobs(&worker("w"), None, &types, Company::None, &|_| true, 10).await;
    assert!(claimed.is_err(), "{claimed:?}");
    let taken = db.changed("UPDATE jobs SET title = title WHERE status <> 'pending' OR host IS NOT NULL").await;
    assert_eq!(taken, 0, "nothing is kept of it");
}

#[tokio::test]
async fn the_end_of_a_run_whose_row_cannot_be_read_any_more_is_written_and_the_run_is_over() {
    let db = Db::sqlite().await;
    db.store.create_job(&new_job("j", None)).await.expect("create");
    let taken = claim(&db, "w").await.expect("claimed");
    db.sql("UPDATE jobs SET title = x'00ff' WHERE id = 'j'").await.expect("plain SQL");
    let done = RunEnd::Completed(JsonText::default());
    let ended = db.store.finish(&taken.run, &Progress::default(), &done).await;
    assert!(matches!(ended, Ok(FinishOutcome::Lost)), "{ended:?}");
    let written = db.changed("UPDATE jobs SET updated_at = updated_at WHERE id = 'j' AND status = 'completed'").await;
    assert_eq!(written, 1);
}

pub async fn a_run_that_is_over_changes_nothing(db: Db) {
    let made = NewJob { max_retries: 1, ..new_job("j", None) };
    db.store.create_job(&made).await.expect("create");
    assert!(matches!(db.store.create_job(&made).await, Err(StoreError::Conflict(_))));
    let first = claim(&db, "w1").await.expect("claimed");
    let hosted = db.store.apply(&change(job("j"), Action::Pause, 1)).await.expect("apply");
    assert_eq!(hosted, ApplyOutcome::Hosted(first.run.clone()));
    let failed = RunEnd::Failed { error: "no luck".into(), permanent: false };
    let FinishOutcome::Done(row) = db.store.finish(&first.run, &Progress::default(), &failed).await.expect("finish")
    else {
        panic!("lost")
    };
    assert_eq!((row.status, row.retry_count), (JobStatus::Pending, 1));
    let completed = RunEnd::Completed(exact(json!({"rows": 2})));
    // Whoever says an end again never heard that it is recorded: what was recorded first stands.
    for end in [&failed, &completed] {
        let again = db.store.finish(&first.run, &Progress::default(), end).await;
        let Ok(FinishOutcome::Done(row)) = again else { panic!("{again:?}") };
        assert_eq!((row.status, row.retry_count), (JobStatus::Pending, 1));
    }
    assert!(!db.store.save(&first.run, &SavedRun::default()).await.expect("save"));
    db.sql("UPDATE jobs SET run_after = NULL").await.expect("update");
    let second = claim(&db, "w2").await.expect("claimed");
    assert_eq!(second.run.number, 2);
    assert!(matches!(db.store.finish(&first.run, &Progress::default(), &completed).await, Ok(FinishOutcome::Lost)));
    let progress = Progress { progress_percent: 50, items_total: Some(4), ..Progress::default() };
    // A command that the first run's worker gave up, and that reaches SQL only now.
    let late = CommandChange { run: Some(first.run.clone()), ..change(job("j"), Action::Cancel, 9) };
    assert_eq!(db.store.apply(&late).await.expect("apply"), ApplyOutcome::Hosted(second.run.clone()));
    assert!(!db.store.release_run(&first.run).await.expect("hand back"));
    assert_eq!(db.store.hosted_runs().await.expect("runs"), vec![second.run.clone()]);
    assert!(
        db.store
            .save(&second.run, &SavedRun { progress: progress.clone(), ..SavedRun::default() })
            .await
            .expect("save")
    );
    let mine = CommandChange { run: Some(second.run.clone()), ..change(job("j"), Action::Pause, 2) };
    assert!(matches!(db.store.apply(&mine).await, Ok(ApplyOutcome::Succeeded { changed: true, .. })));
    assert!(
        matches!(db.store.finish(&second.run, &progress, &completed).await, Ok(FinishOutcome::Lost)),
        "it is paused"
    );
    let mine = CommandChange { run: Some(second.run.clone()), ..change(job("j"), Action::Resume, 3) };
    assert!(matches!(db.store.apply(&mine).await, Ok(ApplyOutcome::Succeeded { status, .. }) if status == "running"));
    // What was reached is noted with the command: whoever answers it later, for a worker that died, can no longer see it.
    let reached = |applied| match applied {
        Ok(ApplyOutcome::Succeeded { control, changed: false, .. }) => control,
        other => panic!("{other:?}"),
    };
    let Ok(FinishOutcome::Done(row)) = db.store.finish(&second.run, &progress, &completed).await else {
        panic!("lost")
    };
    assert_eq!(reached(db.store.apply(&CommandChange { run: None, ..mine }).await), Some(Control::Live));
    assert_eq!(row.control, Control::Row, "it has ended");
    assert_eq!(
        (row.status, row.result.to_string(), row.progress),
        (JobStatus::Completed, r#"{"rows":2}"#.to_owned(), progress)
    );
}

pub async fn a_job_handed_back_goes_on_where_it_was_and_a_dead_hosts_too(db: Db) {
    db.store.create_job(&new_job("j", None)).await.expect("create");
    let first = claim(&db, "w1").await.expect("claimed");
    db.store
        .save(&first.run, &SavedRun { resume_point: Some(exact(json!({"row": 7}))), ..SavedRun::default() })
        .await
        .expect("save");
    assert!(db.store.release_run(&first.run).await.expect("hand back"));
    let second = claim(&db, "w2").await.expect("claimed");
    assert_eq!(second.resume_point.as_deref(), Some(r#"{"row":7}"#));
    assert_eq!(db.store.hosted_runs().await.expect("runs"), vec![second.run.clone()]);
    assert!(db.store.release_dead_run(&first.run, "died", 5).await.expect("release").is_none());
    let released = db.store.release_dead_run(&second.run, "died", 5).await.expect("release").expect("it was its");
    assert_eq!(released.job.status, JobStatus::Pending);
    let attached = db.store.create_attached_job(&new_job("a", None), &worker("w3")).await.expect("create");
    assert_eq!(attached.job.status, JobStatus::Running);
    let released = db.store.release_dead_run(&attached.run, "died", 5).await.expect("release").expect("it was its");
    assert_eq!((released.job.status, released.job.error_message.as_deref()), (JobStatus::Failed, Some("died")));
}

pub async fn a_run_that_goes_on_elsewhere_has_what_is_left_of_its_time_and_a_retry_all_of_it(db: Db) {
    let limited = NewJob { timeout_seconds: Some(100), max_retries: 1, ..new_job("j", None) };
    db.store.create_job(&limited).await.expect("create");
    let uses = async |run: &Run, ms| {
        let account = SavedRun { timeout_used_ms: Some(ms), ..SavedRun::default() };
        assert!(db.store.save(run, &account).await.expect("save"));
    };
    let first = claim(&db, "w1").await.expect("claimed");
    assert_eq!(first.timeout_used_ms, 0);
    uses(&first.run, 3_000).await;
    // A report that does not know it changes nothing.
    assert!(db.store.save(&first.run, &SavedRun::default()).await.expect("save"));
    assert!(db.store.release_run(&first.run).await.expect("hand back"));
    let second = claim(&db, "w2").await.expect("claimed");
    assert_eq!(second.timeout_used_ms, 3_000, "its worker has left");
    uses(&second.run, 5_000).await;
    db.store.release_dead_run(&second.run, "died", 5).await.expect("release").expect("it was its");
    let third = claim(&db, "w3").await.expect("claimed");
    assert_eq!(third.timeout_used_ms, 5_000, "its worker has died");
    let failed = RunEnd::Failed { error: "no luck".to_owned(), permanent: false };
    db.store.finish(&third.run, &Progress::default(), &failed).await.expect("finish");
    db.sql("UPDATE jobs SET run_after = NULL").await.expect("update");
    let retry = claim(&db, "w3").await.expect("claimed");
    assert_eq!(retry.timeout_used_ms, 0, "it has failed, and is tried again");
}

pub async fn a_job_in_which_worker_after_worker_dies_has_failed_unless_it_gets_further(db: Db) {
    db.store.create_job(&new_job("j", None)).await.expect("create");
    let dies = async |point: Option<i64>| {
        let taken = claim(&db, "w").await.expect("claimed");
        if let Some(row) = point {
            let account = SavedRun { resume_point: Some(exact(json!({ "row": row }))), ..SavedRun::default() };
            assert!(db.store.save(&taken.run, &account).await.expect("save"));
        }
        db.store.release_dead_run(&taken.run, "died", 3).await.expect("release").expect("it was its").job
    };
    for point in [None, Some(7), Some(8), Some(8)] {
        assert_eq!(dies(point).await.status, JobStatus::Pending, "{point:?}");
    }
    // One that leaves in good order is none of them, nor is one in which the job stood paused.
    let taken = claim(&db, "w").await.expect("claimed");
    assert!(db.store.release_run(&taken.run).await.expect("hand back"));
    let taken = claim(&db, "w").await.expect("claimed");
    let pause = CommandChange { run: Some(taken.run.clone()), ..change(job("j"), Action::Pause, 1) };
    db.store.apply(&pause).await.expect("apply");
    let released = db.store.release_dead_run(&taken.run, "died", 3).await.expect("release").expect("it was its");
    assert_eq!(released.job.status, JobStatus::Paused);
    db.store.apply(&change(job("j"), Action::Resume, 2)).await.expect("apply");
    let row = dies(Some(8)).await;
    assert_eq!((row.status, row.retry_count), (JobStatus::Failed, 0));
    let words = row.error_message.expect("words");
    assert!(words.starts_with("3 workers died while running this job"), "{words}");
    assert!(row.completed_at.is_some() && claim(&db, "w").await.is_none());
}

pub async fn an_attached_job_is_never_handed_to_another_worker(db: Db) {
    let attached = db.store.create_attached_job(&new_job("a", None), &worker("w1")).await.expect("create");
    assert!(!db.store.release_run(&attached.run).await.expect("hand back"));
    assert!(claim(&db, "w2").await.is_none());
    let again = db.store.create_attached_job(&new_job("a", None), &worker("w2")).await;
    assert!(matches!(again, Err(StoreError::Conflict(_))), "{again:?}");
    assert_eq!(status(&db, "a").await, JobStatus::Running);
}

pub async fn a_failure_is_tried_again_until_the_retries_are_used_up(db: Db) {
    db.store.create_job(&NewJob { max_retries: 2, ..new_job("j", None) }).await.expect("create");
    for tries in 0..3 {
        let taken = claim(&db, "w").await.expect("claimed");
        let before = jiff::Timestamp::now();
        let ended = db.store.finish(&taken.run, &Progress::default(), &failed("no luck")).await.expect("finish");
        let FinishOutcome::Done(row) = ended else { panic!("lost") };
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
    let Ok(FinishOutcome::Done(row)) = db.store.finish(&taken.run, &Progress::default(), &end).await else {
        panic!("lost")
    };
    assert_eq!((row.status, row.retry_count), (JobStatus::Failed, 0));
}

pub async fn a_paused_attached_job_of_a_dead_host_is_resumed_and_has_failed(db: Db) {
    let attached = db.store.create_attached_job(&new_job("a", None), &worker("w1")).await.expect("create");
    let mine = CommandChange { run: Some(attached.run.clone()), ..change(job("a"), Action::Pause, 1) };
    assert!(matches!(db.store.apply(&mine).await, Ok(ApplyOutcome::Succeeded { status, .. }) if status == "paused"));
    // Every change of the row's status, as another system would see it.
    db.sql("CREATE TABLE steps (was TEXT, is_now TEXT)").await.expect("create");
    if db.url.starts_with("sqlite") {
        // Its own triggers note since when a row has its status, in an update of their own that leaves the status alone.
        let trigger = "CREATE TRIGGER step AFTER UPDATE ON jobs WHEN OLD.status <> NEW.status
             BEGIN INSERT INTO steps VALUES (OLD.status, NEW.status); END";
        db.sql(trigger).await
    } else {
        let function = "CREATE FUNCTION step() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN INSERT INTO steps VALUES (OLD.status, NEW.status); RETURN NULL; END $$";
        db.sql(function).await.expect("create");
        db.sql("CREATE TRIGGER step AFTER UPDATE ON jobs FOR EACH ROW EXECUTE FUNCTION step()").await
    }
    .expect("create");
    let released = db.store.release_dead_run(&attached.run, "died", 5).await.expect("release").expect("it was its");
    assert!(released.resumed);
    assert_eq!((released.job.status, released.job.error_message.as_deref()), (JobStatus::Failed, Some("died")));
    let odd = "INSERT INTO steps SELECT was, is_now FROM steps WHERE (was, is_now) NOT IN
               (VALUES ('paused', 'running'), ('running', 'failed'))";
    assert_eq!(db.changed(odd).await, 0, "a step that the contract does not have");
    assert_eq!(db.changed("DELETE FROM steps").await, 2);
}

pub async fn a_job_in_the_wait_for_its_retry_can_be_paused_resumed_and_cancelled(db: Db) {
    db.store.create_job(&NewJob { max_retries: 3, ..new_job("j", None) }).await.expect("create");
    let run = claim(&db, "w").await.expect("claimed").run;
    db.store.finish(&run, &Progress::default(), &failed("no luck")).await.expect("finish");
    // Within the longest wait: a time further ahead counts as one that a wrong clock has written.
    let ahead = jiff::Timestamp::now().as_millisecond() + 58_000;
    db.sql(&format!("UPDATE jobs SET run_after = {ahead}")).await.expect("update");
    let row = db.store.job(&job("j")).await.expect("read").expect("row");
    let until: jiff::Timestamp = row.run_after.expect("the wait shows").parse().expect("a time");
    assert_eq!(until.as_millisecond(), ahead);
    db.store.apply(&change(job("j"), Action::Pause, 1)).await.expect("apply");
    db.sql("UPDATE jobs SET run_after = 1").await.expect("update");
    assert!(claim(&db, "w").await.is_none(), "it is paused");
    db.store.apply(&change(job("j"), Action::Resume, 2)).await.expect("apply");
    db.sql(&format!("UPDATE jobs SET run_after = {ahead}")).await.expect("update");
    assert_eq!(status(&db, "j").await, JobStatus::Pending);
    assert!(claim(&db, "w").await.is_none(), "its time has not come");
    db.store.apply(&change(job("j"), Action::Cancel, 3)).await.expect("apply");
    let row = db.store.job(&job("j")).await.expect("read").expect("row");
    assert_eq!((row.status, row.run_after, row.retry_count), (JobStatus::Cancelled, None, 1));
    assert!(claim(&db, "w").await.is_none(), "cancelled is never tried again");
}

pub async fn a_long_error_is_cut_down_and_kept_whole_beside(db: Db) {
    let whole = format!("Traceback: {} ZeroDivisionError", "frame ".repeat(100_000));
    db.store.create_job(&NewJob { max_retries: 1, ..new_job("j", None) }).await.expect("create");
    for n in 1..=2 {
        let taken = claim(&db, "w").await.expect("claimed");
        assert_eq!(taken.job.error_message, None);
        let failed = RunEnd::Failed { error: whole.clone(), permanent: false };
        let ended = db.store.finish(&taken.run, &Progress::default(), &failed).await.expect("finish");
        let FinishOutcome::Done(row) = ended else { panic!("lost") };
        let shown = row.error_message.expect("an error");
        assert!(shown.starts_with("Traceback: frame") && shown.ends_with("frame  ZeroDivisionError"), "{shown}");
        assert!(shown.len() <= 4_100, "{}", shown.len());
        assert_eq!(db.store.job_error(&job("j")).await.expect("read"), Some(Some(whole.clone())), "try {n}");
        db.sql("UPDATE jobs SET run_after = NULL").await.expect("update");
    }
    // A short one has nothing beside it.
    db.store.create_job(&new_job("k", None)).await.expect("create");
    let taken = claim(&db, "w").await.expect("claimed");
    let failed = RunEnd::Failed { error: "no luck".into(), permanent: true };
    db.store.finish(&taken.run, &Progress::default(), &failed).await.expect("finish");
    let kept = db.changed("UPDATE jobs SET title = title WHERE error_detail IS NOT NULL").await;
    assert_eq!((kept, db.store.job_error(&job("k")).await.expect("read")), (1, Some(Some("no luck".to_owned()))));
}

pub async fn a_worker_that_said_that_it_leaves_has_not_died_in_its_jobs(db: Db) {
    db.store.create_job(&new_job("j", None)).await.expect("create");
    for _ in 0..5 {
        let taken = claim(&db, "leaving").await.expect("claimed");
        db.store.leave_runs(&worker("another")).await.expect("leave");
        db.store.leave_runs(&worker("leaving")).await.expect("leave");
        let released = db.store.release_dead_run(&taken.run, "died", 1).await.expect("release").expect("it was its");
        assert_eq!(released.job.status, JobStatus::Pending);
    }
    // It is the run that was left, not the job: the next worker may die in it.
    let taken = claim(&db, "leaving").await.expect("claimed");
    assert_eq!(taken.deaths, 0);
    let released = db.store.release_dead_run(&taken.run, "died", 1).await.expect("release").expect("it was its");
    assert_eq!(released.job.status, JobStatus::Failed);
}

pub async fn an_attached_job_says_since_when_its_host_has_not_been_heard_of(db: Db) {
    let hosted = db.store.create_attached_job(&new_job("a", None), &worker("run")).await.expect("create");
    let hosting = async || db.store.hostings().await.expect("read").remove(0);
    assert_eq!((hosting().await.is_attached, hosting().await.is_contact_lost), (true, false));
    assert!(db.store.is_attached(&hosted.run).await.expect("read"));
    assert!(db.store.regain_contact(&hosted.run).await.expect("write").is_none());
    let row = db.store.lose_contact(&hosted.run).await.expect("write").expect("changed");
    let since = row.contact_lost_at.expect("since when");
    assert!(since.parse::<jiff::Timestamp>().is_ok(), "{since}");
    assert!(hosting().await.is_contact_lost);
    assert!(db.store.lose_contact(&hosted.run).await.expect("write").is_none(), "the first look counts");
    let row = db.store.regain_contact(&hosted.run).await.expect("write").expect("changed");
    assert_eq!((row.contact_lost_at, row.status), (None, JobStatus::Running));
    // Only of this run, and never of a job that another worker can go on with.
    let other = Run { number: 2, ..hosted.run.clone() };
    assert!(db.store.lose_contact(&other).await.expect("write").is_none());
    db.store.create_job(&new_job("q", None)).await.expect("create");
    let queued = claim(&db, "w").await.expect("claimed");
    assert!(db.store.lose_contact(&queued.run).await.expect("write").is_none());
    assert!(!db.store.is_attached(&queued.run).await.expect("read"));
    // Its end is no loss of contact.
    db.store.lose_contact(&hosted.run).await.expect("write").expect("changed");
    let end = RunEnd::Completed(exact(json!(null)));
    let Ok(FinishOutcome::Done(row)) = db.store.finish(&hosted.run, &Progress::default(), &end).await else {
        panic!("lost")
    };
    assert_eq!(row.contact_lost_at, None);
}

/// Ends that come together are written together, and each says what became of its own run.
pub async fn ends_that_come_together_each_say_what_became_of_their_run(db: Db) {
    campaign_of(&db, "c", 12).await;
    let mut claimed = Vec::new();
    while let Some(one) = claim(&db, "w").await {
        claimed.push(one);
    }
    // One is no longer this worker's, one is paused, and one is retried.
    db.sql("UPDATE jobs SET run = run + 1 WHERE id = 'c-1'").await.expect("update");
    db.sql("UPDATE jobs SET status = 'paused', paused_from = 'running' WHERE id = 'c-2'").await.expect("update");
    db.sql("UPDATE jobs SET max_retries = 1 WHERE id = 'c-3'").await.expect("update");
    let ends = claimed.iter().map(|one| async {
        let end = match one.job.id.as_str() {
            "c-3" | "c-4" => failed("no luck"),
            _ => RunEnd::Completed(exact(json!({"id": one.job.id}))),
        };
        (one.job.id.to_string(), db.store.finish(&one.run, &Progress::default(), &end).await.expect("finish"))
    });
    for (id, outcome) in futures_util::future::join_all(ends).await {
        match (id.as_str(), outcome) {
            ("c-1" | "c-2", FinishOutcome::Lost) => {}
            ("c-3", FinishOutcome::Done(job)) => assert_eq!((job.status, job.retry_count), (JobStatus::Pending, 1)),
            ("c-4", FinishOutcome::Done(job)) => assert_eq!(job.status, JobStatus::Failed),
            (id, FinishOutcome::Done(job)) => {
                assert_eq!((job.id.as_str(), job.status), (id, JobStatus::Completed));
                assert_eq!(job.result, exact(json!({"id": id})));
            }
            (id, FinishOutcome::Lost) => panic!("{id} is lost"),
        }
    }
    assert_eq!(db.store.announcements(100).await.expect("read").len(), 10);
    let counts = db.store.campaign(&campaign("c")).await.expect("read").expect("row").jobs_by_status;
    let expected = JobCounts { pending: 1, running: 1, paused: 1, completed: 8, failed: 1, cancelled: 0 };
    assert_eq!(counts, expected);
}

/// A row that another program holds keeps its own end waiting and nobody else's.
pub async fn a_row_that_is_held_keeps_no_other_end_waiting(db: Db) {
    if !db.url.starts_with("postgres") {
        return; // SQLite has one writer: nobody holds a row.
    }
    campaign_of(&db, "c", 6).await;
    let mut claimed = Vec::new();
    while let Some(one) = claim(&db, "w").await {
        claimed.push(one);
    }
    let holder = db.holder("SELECT id FROM jobs WHERE id = 'c-0' FOR UPDATE").await;
    let end = RunEnd::Completed(exact(json!(null)));
    let (held, others) = claimed.split_first().expect("six");
    let waiting = async {
        loop {
            // Longer than PostgreSQL waits for a row: asked again, as workers do.
            match db.store.finish(&held.run, &Progress::default(), &end).await {
                Ok(outcome) => return outcome,
                Err(error) => assert!(error.is_transient(), "{error}"),
            }
        }
    };
    let free = async {
        let progress = Progress::default();
        let ends = others.iter().map(|one| db.store.finish(&one.run, &progress, &end));
        for outcome in futures_util::future::join_all(ends).await {
            assert!(matches!(outcome, Ok(FinishOutcome::Done(_))), "{outcome:?}");
        }
        drop(holder);
    };
    let (outcome, ()) = tokio::join!(waiting, free);
    assert!(matches!(outcome, FinishOutcome::Done(_)), "{outcome:?}");
}

pub async fn what_many_runs_say_is_written_together_and_of_each_only_what_is_its_own(db: Db) {
    use wheelhouse::domain::FailedItem;
    let mut runs = Vec::new();
    for id in ["a", "b", "c", "d"] {
        db.store.create_job(&new_job(id, None)).await.expect("create");
        runs.push(claim(&db, "w1").await.expect("claimed").run);
    }
    let [first, taken, paused, ended] = runs.as_slice() else { panic!("{runs:?}") };
    db.sql(&format!("UPDATE jobs SET host = 'w2', run = 2, deaths = 1 WHERE id = '{}'", taken.job.id))
        .await
        .expect("sql");
    db.sql(&format!("UPDATE jobs SET status = 'paused' WHERE id = '{}'", paused.job.id)).await.expect("sql");
    db.sql(&format!("UPDATE jobs SET deaths = 1 WHERE id = '{}'", first.job.id)).await.expect("sql");
    let end = RunEnd::Completed(exact(json!(1)));
    db.store.finish(ended, &Progress::default(), &end).await.expect("finish");
    let report = |run: &Run, items: i64| {
        let progress = Progress { items_processed: items, items_total: Some(9), ..Progress::default() };
        let failed_items = vec![FailedItem { item: format!("row {items}"), error: "bad".to_owned() }];
        let account = SavedRun { progress, failed_items, ..SavedRun::default() };
        (run.clone(), account)
    };
    let mut with_point = report(first, 1);
    with_point.1.resume_point = Some(exact(json!({"row": 1})));
    with_point.1.timeout_used_ms = Some(77);
    let newer = Run { host: worker("w2"), number: 2, ..taken.clone() };
    let reports = [with_point, report(taken, 2), report(&newer, 3), report(paused, 4), report(ended, 5)];
    let reports = reports.map(std::sync::Arc::new);
    let outcomes = db.store.save_many(&reports).await.expect("save");
    use SaveOutcome::{Lost, Saved};
    assert_eq!(outcomes, [Saved, Lost, Saved, Saved, Lost]);
    for (run, items) in [(first, 1), (taken, 3), (paused, 4), (ended, 0)] {
        let row = db.store.job(&run.job).await.expect("read").expect("row");
        assert_eq!((row.progress.items_processed, row.progress.items_total.is_some()), (items, items > 0), "{run:?}");
        let filter = FailedItemFilter { job: run.job.clone(), after: None, limit: 10 };
        let failed = db.store.failed_items(&filter).await.expect("read").items;
        let expected: Vec<String> = Some(format!("row {items}")).filter(|_| items > 0).into_iter().collect();
        assert_eq!(failed.into_iter().map(|row| row.failed.item).collect::<Vec<_>>(), expected, "{run:?}");
    }
    // Where it could go on and how much of its time is used stay as they are where a run says nothing of them.
    assert_eq!(db.store.save_many(&[std::sync::Arc::new(report(first, 6))]).await.expect("save"), [Saved]);
    assert!(db.store.release_run(first).await.expect("hand back"));
    let again = claim(&db, "w3").await.expect("claimed");
    assert_eq!((again.resume_point.as_deref(), again.timeout_used_ms), (Some("{\"row\":1}"), 77));
    assert_eq!((again.deaths, again.job.progress.items_processed), (0, 6), "a new point: those before it do not count");
    assert!(db.store.save_many(&[]).await.expect("nothing").is_empty());
}
