//! Campaigns: pause against claims, cancel against everything, completion.

use super::*;

/// Claims and a pause race; whatever is claimed was claimed before the pause was answered.
pub async fn a_pause_that_comes_first_lets_no_other_job_start(db: Db) {
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

pub async fn a_cancelled_campaign_ends_what_waits_and_names_what_runs(db: Db) {
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

pub async fn a_worker_that_lets_go_of_a_job_of_a_cancelled_campaign_leaves_it_cancelled(db: Db) {
    let resource = campaign_of(&db, "c", 3).await;
    db.sql("UPDATE jobs SET max_retries = 5").await.expect("update");
    let mut runs = Vec::new();
    for _ in 0..3 {
        runs.push(claim(&db, "w").await.expect("claimed").run);
    }
    db.store.apply(&change(resource, Action::Cancel, 1)).await.expect("apply");
    assert!(db.store.release_run(&runs[0]).await.expect("hand back"));
    let released = db.store.release_dead_run(&runs[1], "died", 5).await.expect("release").expect("it was its").job;
    let ended = db.store.finish(&runs[2], &Progress::default(), &failed("no luck")).await.expect("finish");
    let FinishOutcome::Done(retried) = ended else { panic!("lost") };
    for row in [released, *retried, db.store.job(&runs[0].job).await.expect("read").expect("row")] {
        assert_eq!((row.status, row.cancelled_by.as_deref()), (JobStatus::Cancelled, Some("ann")), "{}", row.id);
        assert!(row.cancelled_at.is_some());
    }
}

pub async fn no_campaign_is_completed_with_a_job_that_waits(db: Db) {
    for n in 0..25 {
        let resource = campaign_of(&db, &format!("c{n}"), 1).await;
        db.sql(&format!("UPDATE jobs SET status = 'completed' WHERE id = 'c{n}-0'")).await.expect("update");
        let late = new_job(&format!("late-{n}"), Some(resource.id.as_str()));
        let (made, done) = tokio::join!(db.store.create_job(&late), db.store.complete_campaign(&resource));
        assert!(made.is_err() || done.expect("complete").is_none(), "completed with a job that waits");
    }
}

pub async fn cancelling_a_campaign_and_claiming_its_jobs_do_not_hinder_each_other(db: Db) {
    for n in 0..15 {
        let id = format!("c{n}");
        let resource = campaign_of(&db, &id, 6).await;
        let cancel = change(resource.clone(), Action::Cancel, 1);
        let (cancelled, ..) = tokio::join!(db.store.apply(&cancel), claim(&db, "w1"), claim(&db, "w2"), async {
            if let Some(taken) = claim(&db, "w3").await {
                db.store.release_run(&taken.run).await.expect("hand back");
            }
        });
        assert!(matches!(cancelled.expect("no deadlock"), ApplyOutcome::Succeeded { changed: true, .. }));
        let hosted = db.store.hosted_jobs(&resource).await.expect("hosted").len();
        let row = db.store.campaign(&resource).await.expect("read").expect("row");
        assert_eq!(row.items_failed, 6 - hosted as i64, "what no worker hosts is cancelled");
    }
}

pub async fn a_campaign_is_completed_once_all_its_jobs_have_ended(db: Db) {
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
    assert_eq!(db.store.apply(&change(resource, Action::Cancel, 3)).await.expect("apply"), ApplyOutcome::Refused);
}

pub async fn an_open_campaign_is_completed_only_after_it_was_closed(db: Db) {
    let resource = campaign_of(&db, "open", 0).await;
    assert!(db.store.campaign(&resource).await.expect("read").expect("row").is_open);
    for n in 0..3 {
        db.store.create_job(&new_job(&format!("j{n}"), Some("open"))).await.expect("it takes jobs");
        db.sql(&format!("UPDATE jobs SET status = 'completed' WHERE id = 'j{n}'")).await.expect("update");
        assert!(db.store.complete_campaign(&resource).await.expect("complete").is_none(), "it is open");
        assert!(db.store.campaigns_to_complete(10).await.expect("read").is_empty());
    }
    let waits = [new_job("j3", Some("open")), new_job("j4", Some("open"))];
    db.store.create_jobs(&waits).await.expect("many at once");
    let clash = [new_job("j5", Some("open")), new_job("j3", Some("open"))];
    assert!(matches!(db.store.create_jobs(&clash).await, Err(StoreError::Conflict(_))));
    assert!(db.store.job(&job("j5")).await.expect("read").is_none(), "all or none");
    let closed = db.store.close_campaign(&resource).await.expect("close").expect("it is there");
    assert!(!closed.has_completed && !closed.campaign.is_open && closed.campaign.closed_at.is_some());
    assert_eq!(closed.campaign.jobs_by_status, JobCounts { completed: 3, pending: 2, ..JobCounts::default() });
    let late = db.store.create_job(&new_job("j5", Some("open"))).await;
    assert!(matches!(late, Err(StoreError::Conflict(words)) if words.contains("closed")));
    db.sql("UPDATE jobs SET status = 'completed' WHERE id IN ('j3', 'j4')").await.expect("update");
    let row = db.store.complete_campaign(&resource).await.expect("complete").expect("completed");
    assert_eq!((row.status, row.items_total), (CampaignStatus::Completed, 5));
    let again = db.store.close_campaign(&resource).await.expect("close").expect("it is there");
    assert_eq!((again.has_completed, again.campaign), (false, row));
    // One that never had any, and one whose jobs have ended before.
    let empty = campaign_of(&db, "empty", 0).await;
    let closed = db.store.close_campaign(&empty).await.expect("close").expect("it is there");
    assert_eq!((closed.has_completed, closed.campaign.status), (true, CampaignStatus::Completed));
    assert!(db.store.close_campaign(&campaign("none")).await.expect("close").is_none());
    // One that was made with its jobs takes more as long as it is active, as ever.
    let usual = campaign_of(&db, "usual", 1).await;
    db.store.create_job(&new_job("more", Some("usual"))).await.expect("it takes jobs");
    assert!(!db.store.campaign(&usual).await.expect("read").expect("row").is_open);
}

/// An end counts in its minute, whoever writes it, once, and for as long as somebody may ask.
pub async fn ends_are_counted_by_minute_whoever_writes_them(db: Db) {
    campaign_of(&db, "c", 40).await;
    let tenant = campaign("c").tenant;
    let ended = async |minutes| {
        let (_, ended) = db.store.ended_by_minute(&tenant, minutes).await.expect("read");
        let of = |status| ended.iter().filter(|(_, of, _)| *of == status).map(|(_, _, n)| n).sum::<i64>();
        (of(JobStatus::Completed), of(JobStatus::Failed), of(JobStatus::Cancelled))
    };
    assert_eq!(ended(60).await, (0, 0, 0));
    for text in [
        "UPDATE jobs SET status = 'running' WHERE id IN ('c-1', 'c-2', 'c-3', 'c-4', 'c-5')",
        "UPDATE jobs SET status = 'completed' WHERE id IN ('c-1', 'c-2')",
        "UPDATE jobs SET status = 'failed' WHERE id IN ('c-3', 'c-5')",
        // It counts as what it is then. Those that come here change nothing, came so, and are another tenant's.
        "UPDATE jobs SET status = 'completed' WHERE id = 'c-3'",
        "UPDATE jobs SET title = 'x', status = status",
        "INSERT INTO jobs (id, tenant_id, status) VALUES ('x', 'acme', 'completed')",
        "INSERT INTO jobs (id, tenant_id, status) VALUES ('y', 'globex', 'running')",
        "UPDATE jobs SET status = 'completed' WHERE id = 'y'",
    ] {
        db.sql(text).await.expect(text);
    }
    db.store.apply(&change(job("c-4"), Action::Cancel, 1)).await.expect("apply");
    let claimed = claim(&db, "w").await.expect("a job");
    let done = RunEnd::Completed(exact(json!(null)));
    db.store.finish(&claimed.run, &Progress::default(), &done).await.expect("finish");
    db.sql("DELETE FROM jobs WHERE id = 'c-1'").await.expect("delete");
    for tidy in [false, true] {
        assert_eq!(ended(60).await, (4, 1, 1));
        // Added up, also by several at once, it is the same.
        let both = tokio::join!(db.store.add_up_job_counts(tidy), db.store.add_up_job_counts(tidy));
        assert!(both.0.is_ok() && both.1.is_ok(), "{both:?}");
    }
    // Each in its minute; what is older than a day goes with the next end, or the next time that they are added up.
    db.sql("UPDATE job_ends SET minute = minute - 90 WHERE status = 'failed'").await.expect("age");
    db.sql("UPDATE job_ends SET minute = minute - 1600 WHERE status = 'completed'").await.expect("age");
    assert_eq!((ended(60).await, ended(100).await), ((0, 0, 1), (0, 1, 1)));
    let (newest, all) = db.store.ended_by_minute(&tenant, 100).await.expect("read");
    let failed = all.iter().find(|(_, status, _)| *status == JobStatus::Failed).expect("the failed one");
    assert!((90..=92).contains(&(newest - failed.0)), "{newest} {failed:?}");
    db.sql("UPDATE jobs SET status = 'completed' WHERE id = 'c-9'").await.expect("end");
    db.store.add_up_job_counts(false).await.expect("add up");
    assert_eq!(ended(100_000).await, (1, 1, 1));
}

/// The counts of a campaign are kept by whoever changes a row, and are what counting would give.
pub async fn the_counts_of_a_campaign_are_those_of_its_rows_whoever_changes_them(db: Db) {
    let resource = campaign_of(&db, "c", 40).await;
    campaign_of(&db, "d", 3).await;
    for text in [
        "UPDATE jobs SET status = 'completed' WHERE id IN ('c-1', 'c-2', 'd-1')",
        "UPDATE jobs SET status = 'failed' WHERE id = 'c-2'",
        "UPDATE jobs SET title = 'x', status = status",
        "INSERT INTO jobs (id, tenant_id, campaign_id, status) VALUES ('x', 'acme', 'c', 'paused'), ('y', 'acme', NULL, 'paused')",
        "INSERT INTO jobs (id, tenant_id, campaign_id) VALUES ('x', 'acme', 'c') ON CONFLICT (tenant_id, id) DO NOTHING",
        "UPDATE jobs SET campaign_id = 'c' WHERE id = 'd-2'",
        "DELETE FROM jobs WHERE id IN ('c-3', 'c-4')",
    ] {
        db.sql(text).await.expect(text);
    }
    db.store.apply(&change(campaign("d"), Action::Cancel, 1)).await.expect("apply");
    let claimed = claim(&db, "w").await.expect("a job");
    assert_eq!(claimed.job.campaign_id.as_ref().map(|id| id.as_str()), Some("c"));
    let of = async |id: &str| db.store.campaign(&campaign(id)).await.expect("read").expect("row").jobs_by_status;
    let c = JobCounts { pending: 36, running: 1, paused: 1, completed: 1, failed: 1, cancelled: 0 };
    let d = JobCounts { completed: 1, cancelled: 1, ..JobCounts::default() };
    for tidy in [false, true] {
        assert_eq!((of("c").await, of("d").await), (c, d));
        let total = db.store.job_totals(&resource.tenant, None).await.expect("totals");
        let all = JobCounts { pending: 36, running: 1, paused: 2, completed: 2, failed: 1, cancelled: 1 };
        assert_eq!(total, all, "with the one that has no campaign");
        // Added up, also by several at once, it is the same.
        let both = tokio::join!(db.store.add_up_job_counts(tidy), db.store.add_up_job_counts(tidy));
        assert!(both.0.is_ok() && both.1.is_ok(), "{both:?}");
    }
    db.sql("DELETE FROM jobs").await.expect("delete");
    assert_eq!(of("c").await, JobCounts::default());
    db.store.add_up_job_counts(true).await.expect("add up");
    assert_eq!(db.changed("UPDATE job_counts SET n = n").await, 0, "nothing is left of what is gone");
}
