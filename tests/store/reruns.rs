//! Jobs that are run again, and what jobs print.

use wheelhouse::domain::{OutputStream, ResourceId};

use super::*;

fn wish(of: &str, id: &str) -> RerunWish {
    RerunWish { of: of.parse().expect("id"), id: id.parse().expect("id") }
}

async fn rerun(db: &Db, of: &str, id: &str) -> Rerun {
    let (tenant, user) = (job("j").tenant, "bob".parse().expect("user"));
    db.store.rerun_jobs(&tenant, &[wish(of, id)], &user, Some("bob r1")).await.expect("rerun").remove(0)
}

async fn ended(db: &Db, id: &str, campaign: Option<&str>, end: RunEnd) {
    let made = NewJob {
        title: Some("Letters".to_owned()),
        parameters: exact(json!({"n": 1.50})),
        timeout_seconds: Some(60),
        max_retries: 3,
        ..new_job(id, campaign)
    };
    db.store.create_job(&made).await.expect("create");
    db.sql("UPDATE jobs SET retry_count = 3").await.expect("no retry is left");
    let run = claim(db, "w1").await.expect("a job").run;
    db.store.finish(&run, &Progress::default(), &end).await.expect("finish");
}

pub async fn a_rerun_is_a_new_job_with_the_same_parameters_linked_both_ways(db: Db) {
    ended(&db, "old", None, failed("no")).await;
    assert_eq!(rerun(&db, "old", "new").await, Rerun::Made);
    assert_eq!(rerun(&db, "old", "new").await, Rerun::Known, "the same wish again");
    let old = db.store.job(&job("old")).await.expect("read").expect("row");
    let new = db.store.job(&job("new")).await.expect("read").expect("row");
    assert_eq!((old.status, old.reruns.as_slice()), (JobStatus::Failed, ["new".parse().expect("id")].as_slice()));
    assert_eq!((new.status, new.rerun_of.as_ref().map(ResourceId::as_str)), (JobStatus::Pending, Some("old")));
    assert_eq!((&new.parameters, &new.title, new.timeout_seconds), (&old.parameters, &old.title, Some(60)));
    assert_eq!((new.max_retries, new.retry_count, new.created_by.as_deref()), (3, 0, Some("bob")));
    assert_eq!((new.error_message, new.started_at, new.running_seconds), (None, None, Some(0.0)));
    assert_eq!(claim(&db, "w1").await.expect("it runs").job.id.as_str(), "new");
    assert_eq!(rerun(&db, "none", "x").await, Rerun::Missing);
    let refused = |outcome: Rerun| match outcome {
        Rerun::Refused(why) => why,
        other => panic!("{other:?}"),
    };
    assert!(refused(rerun(&db, "new", "x").await).contains("new is running: it can be run again when it has ended"));
    assert!(refused(rerun(&db, "old", "old").await).contains("There is a job old already"));
    db.sql(
        "INSERT INTO jobs (id, tenant_id, status) VALUES ('x1', 'acme', 'failed');
         INSERT INTO jobs (id, tenant_id, status, origin) VALUES ('x2', 'acme', 'completed', 'attached');
         INSERT INTO jobs (id, tenant_id, status, remote_session) VALUES ('x3', 'acme', 'cancelled', 't/s')",
    )
    .await
    .expect("insert");
    for (id, words) in [("x1", "another system"), ("x2", "wheelhouse run"), ("x3", "foreign worker")] {
        let why = refused(rerun(&db, id, "y").await);
        assert!(why.contains(words) && why.contains(id), "{why}");
        assert!(db.store.job(&job("y")).await.expect("read").is_none());
    }
}

pub async fn the_failed_jobs_of_a_campaign_are_run_again_once(db: Db) {
    let open = NewCampaign {
        id: "c1".parse().expect("id"),
        tenant: job("j").tenant,
        name: None,
        created_by: None,
        jobs: Vec::new(),
    };
    db.store.create_campaign(&open).await.expect("create");
    for id in ["a", "b"] {
        ended(&db, id, Some("c1"), failed("no")).await;
    }
    ended(&db, "good", Some("c1"), RunEnd::Completed(exact(json!(1)))).await;
    let filter = RerunFilter {
        tenant: job("j").tenant,
        status: vec![JobStatus::Failed],
        campaign: Some("c1".parse().expect("id")),
        job_type: Some("work".to_owned()),
    };
    let found = async |request: Option<&str>, limit| {
        let ids = db.store.ended_jobs(&filter, request, limit).await.expect("read");
        ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(found(None, 10).await, "b a");
    assert_eq!(found(None, 1).await, "b");
    assert_eq!(rerun(&db, "b", "b2").await, Rerun::Made);
    assert_eq!((found(None, 10).await, found(Some("bob r1"), 10).await), ("a".to_owned(), "b a".to_owned()));
    let row = db.store.job(&job("b2")).await.expect("read").expect("row");
    assert_eq!(row.campaign_id.map(|id| id.to_string()), Some("c1".to_owned()), "the campaign still takes jobs");
    db.store.close_campaign(&campaign("c1")).await.expect("close");
    assert_eq!(rerun(&db, "a", "a2").await, Rerun::Made);
    assert_eq!(db.store.job(&job("a2")).await.expect("read").expect("row").campaign_id, None);
}

fn line(text: &str, open: bool) -> NewOutputLine {
    NewOutputLine { at: 1_767_225_600_000, stream: OutputStream::Stdout, text: text.to_owned(), open }
}

pub async fn the_newest_thousand_lines_of_a_job_are_kept_in_order(db: Db) {
    db.store.create_job(&new_job("j", None)).await.expect("create");
    let run = claim(&db, "w1").await.expect("a job").run;
    let texts = async |after: i64, limit: u32| -> Vec<(i64, String, bool)> {
        let lines = db.store.job_output(&job("j"), after, limit).await.expect("read");
        lines.into_iter().map(|line| (line.line, line.text, line.open)).collect()
    };
    let own = |line: i64, text: &str, open: bool| (line, text.to_owned(), open);
    assert!(db.store.add_output(&run, &[line("a", false), line("10%", true)]).await.expect("write"));
    assert_eq!(texts(0, 10).await, [own(1, "a", false), own(2, "10%", true)]);
    assert!(db.store.add_output(&run, &[line("b", false), line("20%", true)]).await.expect("write"));
    assert_eq!(texts(1, 10).await, [own(2, "b", false), own(3, "20%", true)]);
    // A worker that died leaves its bar as it was; the next run's lines follow it.
    db.store.release_dead_run(&run, "gone", 5).await.expect("release");
    let next = claim(&db, "w2").await.expect("a job").run;
    assert!(db.store.add_output(&next, &[line("c", false)]).await.expect("write"));
    assert_eq!(texts(2, 10).await, [own(3, "20%", false), own(4, "c", false)]);
    assert!(
        !db.store.add_output(&run, &[line("late", false)]).await.expect("write"),
        "a run that is over says nothing"
    );
    let many: Vec<_> = (0..1_500).map(|n| line(&format!("line {n}"), false)).collect();
    for some in many.chunks(700) {
        assert!(db.store.add_output(&next, some).await.expect("write"));
    }
    let all = texts(0, 2_000).await;
    assert_eq!((all.len(), all[0].clone(), all[999].1.as_str()), (1_000, own(505, "line 500", false), "line 1499"));
    assert_eq!(db.store.output_tail(&job("j"), 10).await.expect("read"), 1_494);
    assert_eq!(db.store.job_output(&job("j"), 1_503, 10).await.expect("read")[0].run, 2);
    // They go with their job.
    let end = RunEnd::Completed(exact(json!(null)));
    db.store.finish(&next, &Progress::default(), &end).await.expect("finish");
    let tomorrow = jiff::Timestamp::now().as_millisecond() + 86_400_000;
    db.store.prune_jobs(tomorrow, || false).await.expect("prune");
    assert!(texts(0, 10).await.is_empty());
}
