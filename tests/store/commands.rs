//! What commands change: every cell of the table, fences, repeats, company, races.

use sqlx::Executor;

use super::*;
use wheelhouse::domain::Control;

pub async fn every_command_moves_a_row_as_the_table_says(db: Db) {
    let mut fence = 0;
    for status in JobStatus::ALL {
        for action in Action::ALL {
            let id = format!("{}-{}", status.as_str(), action.as_str());
            db.sql(&format!("INSERT INTO jobs (id, tenant_id, status) VALUES ('{id}', 'acme', '{}')", status.as_str()))
                .await
                .expect("insert");
            fence += 1;
            let applied = db.store.apply(&change(job(&id), action, fence)).await.expect("apply");
            let now = db.store.job(&job(&id)).await.expect("read").expect("row").status;
            let expected = wheelhouse::domain::transition::job_transition(status, action, JobStatus::Pending);
            use wheelhouse::domain::transition::Decision;
            match expected {
                Decision::Move(to) => {
                    assert_eq!(
                        applied,
                        ApplyOutcome::Succeeded {
                            status: to.as_str().to_owned(),
                            changed: true,
                            control: Some(Control::Row)
                        }
                    );
                    assert_eq!(now, to);
                }
                Decision::Unchanged => {
                    assert_eq!(
                        applied,
                        ApplyOutcome::Succeeded {
                            status: status.as_str().to_owned(),
                            changed: false,
                            control: Some(Control::Row)
                        }
                    );
                    assert_eq!(now, status);
                }
                Decision::Refuse => {
                    assert_eq!(applied, ApplyOutcome::Refused);
                    assert_eq!(now, status);
                }
            }
            let other = Resource::parse(&format!("other:job:{id}")).expect("resource");
            assert_eq!(db.store.apply(&change(other, action, 1)).await.expect("apply"), ApplyOutcome::Refused);
        }
    }
    let running = job("running-pause");
    db.store.apply(&change(running.clone(), Action::Resume, 99)).await.expect("apply");
    assert_eq!(db.store.job(&running).await.expect("read").expect("row").status, JobStatus::Running);
    let cancelled = db.store.job(&job("running-cancel")).await.expect("read").expect("row");
    assert_eq!(cancelled.cancelled_by.as_deref(), Some("ann"));
    assert!(cancelled.cancelled_at.is_some_and(|at| at.ends_with('Z')));
}

pub async fn the_same_command_again_gives_the_first_outcome_and_an_older_fence_changes_nothing(db: Db) {
    db.sql("INSERT INTO jobs (id, tenant_id, status) VALUES ('j', 'acme', 'running')").await.expect("insert");
    let pause = change(job("j"), Action::Pause, 10);
    let first = db.store.apply(&pause).await.expect("apply");
    assert_eq!(first, ApplyOutcome::Succeeded { status: "paused".into(), changed: true, control: Some(Control::Row) });
    db.store.apply(&change(job("j"), Action::Resume, 11)).await.expect("apply");
    let again = db.store.apply(&pause).await.expect("apply");
    assert_eq!(again, ApplyOutcome::Succeeded { status: "paused".into(), changed: false, control: Some(Control::Row) });
    assert_eq!(db.store.apply(&change(job("j"), Action::Cancel, 9)).await.expect("apply"), ApplyOutcome::Stale);
    assert_eq!(db.store.job(&job("j")).await.expect("read").expect("row").status, JobStatus::Running);
}

pub async fn a_command_that_changes_nothing_still_makes_older_claims_void(db: Db) {
    db.sql("INSERT INTO jobs (id, tenant_id, status) VALUES ('j', 'acme', 'running')").await.expect("insert");
    db.store.apply(&change(job("j"), Action::Resume, 10)).await.expect("apply");
    assert_eq!(db.store.apply(&change(job("j"), Action::Pause, 9)).await.expect("apply"), ApplyOutcome::Stale);
    assert_eq!(status(&db, "j").await, JobStatus::Running);
    let resource = campaign_of(&db, "c", 0).await;
    db.store.apply(&change(resource.clone(), Action::Resume, 10)).await.expect("apply");
    assert_eq!(db.store.apply(&change(resource, Action::Pause, 9)).await.expect("apply"), ApplyOutcome::Stale);
}

/// A worker that slept while its command was superseded must not leave a trace behind the cancel that was refused.
pub async fn a_refused_command_still_makes_older_claims_void(db: Db) {
    db.sql("INSERT INTO jobs (id, tenant_id, status) VALUES ('j', 'acme', 'completed')").await.expect("insert");
    let ended = campaign_of(&db, "c", 0).await;
    db.sql("UPDATE campaigns SET status = 'cancelled' WHERE id = 'c'").await.expect("end the campaign");
    for resource in [job("j"), ended] {
        let refused = db.store.apply(&change(resource.clone(), Action::Cancel, 10)).await.expect("apply");
        assert_eq!(refused, ApplyOutcome::Refused);
        assert_eq!(db.store.apply(&change(resource, Action::Pause, 9)).await.expect("apply"), ApplyOutcome::Stale);
    }
}

pub async fn a_command_that_was_given_up_is_applied_by_no_older_claim(db: Db) {
    db.sql("INSERT INTO jobs (id, tenant_id, status) VALUES ('j', 'acme', 'running')").await.expect("insert");
    for resource in [job("j"), campaign_of(&db, "c", 0).await] {
        let older = change(resource.clone(), Action::Pause, 10);
        let newer = CommandChange { fence: 11, ..older.clone() };
        assert!(!db.store.void_older_claims(&newer).await.expect("give up"));
        assert_eq!(db.store.apply(&older).await.expect("apply"), ApplyOutcome::Stale);
        // The next command on it is not held up, and what has been applied is not given up.
        let next = change(resource, Action::Cancel, 12);
        assert!(matches!(db.store.apply(&next).await.expect("apply"), ApplyOutcome::Succeeded { changed: true, .. }));
        assert!(db.store.void_older_claims(&CommandChange { fence: 13, ..next }).await.expect("give up"));
    }
    assert!(!db.store.void_older_claims(&change(job("gone"), Action::Pause, 1)).await.expect("no such row"));
}

pub async fn the_same_command_twice_at_once_has_one_outcome(db: Db) {
    for n in 0..20 {
        db.sql(&format!("INSERT INTO jobs (id, tenant_id, status) VALUES ('j{n}', 'acme', 'running')"))
            .await
            .expect("insert");
        let pause = change(job(&format!("j{n}")), Action::Pause, 10);
        let (a, b) = tokio::join!(db.store.apply(&pause), db.store.apply(&pause));
        let mut changed: Vec<bool> = [a, b]
            .into_iter()
            .map(|applied| match applied.expect("apply") {
                ApplyOutcome::Succeeded { status, changed, .. } if status == "paused" => changed,
                other => panic!("{other:?}"),
            })
            .collect();
        changed.sort_unstable();
        assert_eq!(changed, [false, true]);
    }
}

/// These share transactions: what one of them meets is no other's business.
pub async fn many_commands_at_once_each_succeed_or_fail_alone(db: Db) {
    for n in 0..120 {
        // Every third row makes its command fail half way: the row moves, then its outcome cannot be written.
        db.sql(&format!("INSERT INTO jobs (id, tenant_id, status) VALUES ('j{n}', 'acme', 'running')"))
            .await
            .expect("insert");
    }
    let changes: Vec<CommandChange> = (0..120).map(|n| change(job(&format!("j{n}")), Action::Pause, 5)).collect();
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
            assert_eq!(
                answer.expect("apply"),
                ApplyOutcome::Succeeded { status: "paused".into(), changed: true, control: Some(Control::Row) }
            );
            assert_eq!(now, JobStatus::Paused, "{n}");
        }
    }
}

pub async fn commands_on_one_job_at_once_each_see_what_the_one_before_has_done(db: Db) {
    for n in 0..10 {
        let id = format!("together-{n}");
        db.sql(&format!("INSERT INTO jobs (id, tenant_id, status) VALUES ('{id}', 'acme', 'running')"))
            .await
            .expect("insert");
        let (pause, resume) = (change(job(&id), Action::Pause, 1), change(job(&id), Action::Resume, 2));
        let (_, resumed) = tokio::join!(db.store.apply(&pause), db.store.apply(&resume));
        assert!(matches!(resumed, Ok(ApplyOutcome::Succeeded { status, .. }) if status == "running"));
        let row = db.store.job(&job(&id)).await.expect("read").expect("row");
        assert_eq!(row.status, JobStatus::Running, "the later command stands");
    }
}

/// SQLite lets a trigger take back the whole transaction, with what others have in it.
#[tokio::test]
async fn a_row_that_takes_the_transaction_back_fails_alone() {
    let db = Db::sqlite().await;
    let jobs: Vec<Resource> = (0..20).map(|n| job(&format!("j-{n}"))).collect();
    for resource in &jobs {
        let insert = format!("INSERT INTO jobs (id, tenant_id, status) VALUES ('{}', 'acme', 'running')", resource.id);
        db.sql(&insert).await.expect("insert");
    }
    let raises = "CREATE TRIGGER raises BEFORE UPDATE ON jobs WHEN OLD.id = 'j-7'
                  BEGIN SELECT RAISE(ROLLBACK, 'not this one'); END";
    db.sql(raises).await.expect("a trigger");
    let changes: Vec<CommandChange> = jobs.iter().map(|resource| change(resource.clone(), Action::Pause, 1)).collect();
    let answers = futures_util::future::join_all(changes.iter().map(|change| db.store.apply(change))).await;
    for (resource, answer) in jobs.iter().zip(answers) {
        if resource.id.as_str() == "j-7" {
            assert!(matches!(&answer, Err(StoreError::Refused(why)) if why.contains("not this one")), "{answer:?}");
            assert_eq!(status(&db, "j-7").await, JobStatus::Running);
        } else {
            assert!(matches!(&answer, Ok(ApplyOutcome::Succeeded { changed: true, .. })), "{resource}: {answer:?}");
            assert_eq!(status(&db, resource.id.as_str()).await, JobStatus::Paused);
        }
    }
}

/// Each program reads before it may write: what the other wrote in between must not be written over.
pub async fn commands_of_two_programs_on_the_same_jobs_leave_what_the_later_claims_want(db: Db) {
    let settings = config::Database { url: db.url.clone().into(), connections: 4 };
    let other = Store::open(&settings).await.expect("open");
    let jobs: Vec<Resource> = (0..60).map(|n| job(&format!("shared-{n}"))).collect();
    for resource in &jobs {
        let insert = format!("INSERT INTO jobs (id, tenant_id, status) VALUES ('{}', 'acme', 'running')", resource.id);
        db.sql(&insert).await.expect("insert");
    }
    for round in 0..15 {
        let ask = async |store: &Store, action, fence| {
            let changes: Vec<CommandChange> =
                jobs.iter().map(|resource| change(resource.clone(), action, fence)).collect();
            let asked = changes.iter().map(|change| async {
                loop {
                    match store.apply(change).await {
                        Err(error) if error.is_transient() => {}
                        answer => return answer.expect("apply"),
                    }
                }
            });
            futures_util::future::join_all(asked).await
        };
        let (pauses, resumes) =
            tokio::join!(ask(&other, Action::Pause, 2 * round + 1), ask(&db.store, Action::Resume, 2 * round + 2));
        for (resource, (paused, resumed)) in jobs.iter().zip(pauses.into_iter().zip(resumes)) {
            let is = |answer: &ApplyOutcome, word: &str| matches!(answer, ApplyOutcome::Succeeded { status, .. } if status == word);
            assert!(is(&resumed, "running"), "{resumed:?}");
            assert!(is(&paused, "paused") || paused == ApplyOutcome::Stale, "{paused:?}");
            assert_eq!(
                status(&db, resource.id.as_str()).await,
                JobStatus::Running,
                "{resource}: the later claim stands"
            );
        }
    }
}

pub async fn a_resumed_job_without_a_host_waits_for_one(db: Db) {
    db.store.create_job(&new_job("j", None)).await.expect("create");
    db.store.apply(&change(job("j"), Action::Pause, 1)).await.expect("apply");
    assert!(claim(&db, "w").await.is_none(), "a paused job is not started");
    db.store.apply(&change(job("j"), Action::Resume, 2)).await.expect("apply");
    for released in [false, true] {
        let taken = claim(&db, "w").await.expect("claimed");
        let mine = |action, fence| CommandChange { run: Some(taken.run.clone()), ..change(job("j"), action, fence) };
        let fence = if released { 20 } else { 10 };
        db.store.apply(&mine(Action::Pause, fence)).await.expect("apply");
        if released {
            let row = db.store.release_dead_run(&taken.run, "died", 5).await.expect("release").expect("it was its").job;
            assert_eq!((row.status, row.error_message), (JobStatus::Paused, None));
        } else {
            assert!(db.store.release_run(&taken.run).await.expect("hand back"));
        }
        assert_eq!(status(&db, "j").await, JobStatus::Paused);
        let resumed = db.store.apply(&change(job("j"), Action::Resume, fence + 1)).await.expect("apply");
        assert_eq!(
            resumed,
            ApplyOutcome::Succeeded { status: "pending".into(), changed: true, control: Some(Control::Row) }
        );
    }
    let last = claim(&db, "w").await.expect("claimed");
    let cancel = CommandChange { run: Some(last.run.clone()), ..change(job("j"), Action::Cancel, 30) };
    assert!(matches!(db.store.apply(&cancel).await, Ok(ApplyOutcome::Succeeded { changed: true, .. })));
    assert!(db.store.hosted_runs().await.expect("runs").is_empty(), "a cancelled job has no host");
    let completed = RunEnd::Completed(exact(json!(1)));
    assert!(matches!(db.store.finish(&last.run, &Progress::default(), &completed).await, Ok(FinishOutcome::Lost)));
    assert!(!db.store.release_run(&last.run).await.expect("hand back"));
    assert_eq!(status(&db, "j").await, JobStatus::Cancelled);
}

/// PostgreSQL alone: SQLite locks no single rows.
#[tokio::test]
async fn a_row_that_another_program_holds_keeps_no_other_command_waiting() {
    let db = Db::postgres().await;
    for n in 0..40 {
        db.sql(&format!("INSERT INTO jobs (id, tenant_id, status) VALUES ('j{n}', 'acme', 'running')"))
            .await
            .expect("insert");
    }
    let mut holder = db.holder("UPDATE jobs SET title = 'mine' WHERE id = 'j0'").await;

    let changes: Vec<CommandChange> = (0..40).map(|n| change(job(&format!("j{n}")), Action::Pause, 5)).collect();
    let first = db.store.apply(&changes[0]);
    let others = futures_util::future::join_all(changes[1..].iter().map(|c| db.store.apply(c)));
    // The held one waits at the database until it is let go, or until the database has waited long enough.
    let (first, ()) = tokio::join!(first, async {
        for answer in others.await {
            assert_eq!(
                answer.expect("apply"),
                ApplyOutcome::Succeeded { status: "paused".into(), changed: true, control: Some(Control::Row) }
            );
        }
        holder.execute("ROLLBACK").await.expect("let go");
    });
    match first {
        Ok(answer) => assert_eq!(
            answer,
            ApplyOutcome::Succeeded { status: "paused".into(), changed: true, control: Some(Control::Row) }
        ),
        Err(error) => assert!(error.is_transient(), "{error}"),
    }
}

/// PostgreSQL alone, as above. The store has four connections: held rows must not take them all.
#[tokio::test]
async fn many_rows_that_another_program_holds_leave_connections_to_everyone_else() {
    let db = Db::postgres().await;
    db.sql("INSERT INTO jobs (id, tenant_id, status) SELECT 'j' || n, 'acme', 'running' FROM generate_series(0, 39) n")
        .await
        .expect("insert");
    let mut holder = db.holder("UPDATE jobs SET title = 'mine' WHERE id <> 'j39'").await;

    let changes: Vec<CommandChange> = (0..40).map(|n| change(job(&format!("j{n}")), Action::Pause, 5)).collect();
    let mut waiting = std::pin::pin!(futures_util::future::join_all(
        changes[..39].iter().map(async |c| { tokio::join!(db.store.apply(c), db.store.void_older_claims(c)) })
    ));
    let sees = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()";
    let (mut most, mut free) = (0, None);
    let answers = loop {
        tokio::select! {
            answers = &mut waiting => break answers,
            waits = db.changed(sees) => most = most.max(waits),
        }
        // While they wait, what nobody holds is done.
        if most > 0 && free.is_none() {
            let (store, change) = (db.store.clone(), changes[39].clone());
            free = Some(tokio::spawn(async move { store.apply(&change).await }));
        }
    };
    assert!((1..=2).contains(&most), "{most} of four connections waited for held rows");
    let free = free.expect("they waited").await.expect("task").expect("the row that nobody holds");
    assert_eq!(free, ApplyOutcome::Succeeded { status: "paused".into(), changed: true, control: Some(Control::Row) });
    for (applied, given_up) in answers {
        assert!(applied.expect_err("a held row").is_transient() && given_up.expect_err("a held row").is_transient());
    }
    holder.execute("ROLLBACK").await.expect("let go");
}
