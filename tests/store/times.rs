//! How long a job runs and stands is counted by the database, whoever changes its status; and who hosts it.

use super::*;

/// Lets time pass for a job: its status began so many hours earlier. Beside hours, what the test itself takes is nothing.
async fn pass(db: &Db, id: &str, hours: i64) {
    let text = format!("UPDATE jobs SET status_since = status_since - {} WHERE id = '{id}'", hours * 3_600_000);
    assert_eq!(db.changed(&text).await, 1);
}

/// Whole hours of running and of standing paused.
async fn times(db: &Db, id: &str) -> Option<(u64, u64)> {
    let row = db.store.job(&job(id)).await.expect("read").expect("row");
    Some((row.running_seconds? as u64 / 3_600, row.paused_seconds? as u64 / 3_600))
}

async fn apply(db: &Db, run: &Run, action: Action, fence: i64) {
    let change = CommandChange { run: Some(run.clone()), ..change(run.job.clone(), action, fence) };
    let applied = db.store.apply(&change).await.expect("apply");
    assert!(matches!(applied, ApplyOutcome::Succeeded { .. }), "{applied:?}");
}

pub async fn the_time_of_a_pause_is_no_running_time(db: Db) {
    db.store.create_job(&NewJob { max_retries: 1, ..new_job("j", None) }).await.expect("create");
    assert_eq!(times(&db, "j").await, Some((0, 0)));
    let run = claim(&db, "w1").await.expect("a job").run;
    pass(&db, "j", 100).await;
    assert_eq!(times(&db, "j").await, Some((100, 0)), "so far");
    apply(&db, &run, Action::Pause, 1).await;
    pass(&db, "j", 50).await;
    assert_eq!(times(&db, "j").await, Some((100, 50)));
    apply(&db, &run, Action::Resume, 2).await;
    pass(&db, "j", 10).await;
    // Its worker dies; until somebody takes it again it does not run.
    db.store.release_dead_run(&run, "gone", 5).await.expect("release").expect("released");
    db.sql("UPDATE jobs SET updated_at = updated_at WHERE id = 'j'").await.expect("plain SQL");
    assert_eq!(times(&db, "j").await, Some((110, 50)));
    let run = claim(&db, "w2").await.expect("a job").run;
    pass(&db, "j", 5).await;
    // It fails, waits for its retry, and completes.
    db.store.finish(&run, &Progress::default(), &failed("no")).await.expect("finish");
    assert_eq!((status(&db, "j").await, times(&db, "j").await), (JobStatus::Pending, Some((115, 50))));
    db.sql("UPDATE jobs SET run_after = NULL").await.expect("its time has come");
    let run = claim(&db, "w2").await.expect("a job").run;
    pass(&db, "j", 7).await;
    let end = RunEnd::Completed(exact(json!(null)));
    db.store.finish(&run, &Progress::default(), &end).await.expect("finish");
    pass(&db, "j", 1_000).await;
    assert_eq!((status(&db, "j").await, times(&db, "j").await), (JobStatus::Completed, Some((122, 50))));
}

pub async fn the_time_of_other_systems_rows_is_counted_too(db: Db) {
    db.sql("INSERT INTO jobs (id, tenant_id, status) VALUES ('x', 'acme', 'running')").await.expect("insert");
    pass(&db, "x", 30).await;
    db.sql("UPDATE jobs SET status = 'paused' WHERE id = 'x'").await.expect("plain SQL");
    pass(&db, "x", 20).await;
    db.sql("UPDATE jobs SET status = 'completed' WHERE id = 'x'").await.expect("plain SQL");
    assert_eq!(times(&db, "x").await, Some((30, 20)));
    // A row from before this was counted says that it does not know.
    db.sql("UPDATE jobs SET running_ms = NULL, paused_ms = NULL").await.expect("plain SQL");
    assert_eq!(times(&db, "x").await, None);
}

fn info(id: &str, name: &str, client: Option<&str>) -> WorkerInfo {
    WorkerInfo {
        id: id.to_owned(),
        name: name.to_owned(),
        machine: format!("box of {name}"),
        pid: 7,
        version: "1".to_owned(),
        slots: 4,
        client: client.map(str::to_owned),
        started_at: None,
    }
}

pub async fn a_job_says_who_hosts_it_and_a_worker_what_it_has(db: Db) {
    db.store.register_worker(&info("w1", "left", None)).await.expect("register");
    db.store.register_worker(&info("w1", "right", None)).await.expect("again, with another name");
    db.store.register_worker(&info("token/s1", "celery@x", Some("python 3"))).await.expect("a session");
    for id in ["a", "b"] {
        db.store.create_job(&new_job(id, None)).await.expect("create");
    }
    let run = claim(&db, "w1").await.expect("a job").run;
    claim(&db, "w2").await.expect("another");
    apply(&db, &run, Action::Pause, 1).await;
    let mut wish = RemoteWish { session: "token/s1", reference: 1, run: None, tried: None };
    let remote = db.store.attach_remote(&new_job("r", None), &worker("w1"), &mut wish).await.expect("attach");
    assert!(matches!(remote, RemoteAttach::Attached(_)));
    let row = async |id: &str| db.store.job(&job(id)).await.expect("read").expect("row").worker.expect("a worker");
    let first = row("a").await;
    assert_eq!(
        (first.id.as_str(), first.name.as_deref(), first.host.as_deref()),
        ("w1", Some("right"), Some("box of right"))
    );
    assert!(first.since.is_some() && first.client.is_none());
    let other = row("b").await;
    assert_eq!((other.id.as_str(), other.name), ("w2", None), "one that has not said who it is");
    let foreign = row("r").await;
    assert_eq!(
        (foreign.client.as_deref(), foreign.client_host.as_deref()),
        (Some("python 3"), Some("box of celery@x"))
    );
    let loads = db.store.worker_loads(&[worker("w1"), worker("w3")]).await.expect("loads");
    assert_eq!(loads.get("w1"), Some(&WorkerLoad { running: 1, paused: 1, attached: 1 }));
    assert_eq!(loads.get("w3"), None);
    let sessions = db.store.worker_sessions(&[worker("w1")]).await.expect("sessions");
    assert_eq!((sessions.len(), sessions[0].info.name.as_str(), sessions[0].jobs), (1, "celery@x", 1));
    let found = |worker: &str| JobFilter { worker: Some(worker.to_owned()), ..JobFilter::of(job("j").tenant) };
    for (name, ids) in [("right", vec!["r", "a"]), ("w2", vec!["b"]), ("left", vec![])] {
        let page = db.store.jobs(&found(name)).await.expect("list");
        assert_eq!(page.items.iter().map(|job| job.id.as_str()).collect::<Vec<_>>(), ids, "{name}");
    }
    // One that has been gone for long is forgotten when another says who it is.
    db.sql("UPDATE workers SET seen_at = '2026-01-01T00:00:00Z' WHERE id = 'token/s1'").await.expect("plain SQL");
    db.store.register_worker(&info("w4", "new", None)).await.expect("register");
    assert_eq!(db.store.workers(&[worker("w1"), worker("w4")]).await.expect("read").len(), 2);
    assert_eq!(db.store.worker_sessions(&[worker("w1")]).await.expect("sessions").len(), 0);
}
