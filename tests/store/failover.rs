//! What SQL knows better than a Redis that a failover has put in place: which request was carried out, and which end a command
//! has.

use wheelhouse::store::UnauditedEnd;

use super::audit::{entry, rows};
use super::*;

fn requested(action: Action, fence: i64) -> CommandChange {
    CommandChange { request_id: Some("r1".to_owned()), ..change(job("j"), action, fence) }
}

fn status_of(outcome: &ApplyOutcome) -> (&str, bool) {
    match outcome {
        ApplyOutcome::Succeeded { status, changed, .. } => (status, *changed),
        other => panic!("{other:?}"),
    }
}

pub async fn one_request_is_carried_out_once_whatever_command_it_comes_as(db: Db) {
    db.sql("INSERT INTO jobs (id, tenant_id, status) VALUES ('j', 'acme', 'running')").await.expect("insert");
    let apply = async |change: &CommandChange| db.store.apply(change).await.expect("apply");
    assert_eq!(status_of(&apply(&requested(Action::Pause, 1)).await), ("paused", true));
    let mut resume = change(job("j"), Action::Resume, 2);
    assert_eq!(status_of(&apply(&resume).await), ("running", true));
    // A Redis that had lost the first command accepted the request again.
    let again = requested(Action::Pause, 3);
    assert!(db.store.is_repeated_request(&again).await.expect("ask"));
    assert_eq!(status_of(&apply(&again).await), ("paused", false), "the answer of the first");
    assert_eq!(status(&db, "j").await, JobStatus::Running, "and nothing was done");
    assert_eq!(status_of(&apply(&again).await), ("paused", false), "it is on record under its own id");
    // Many at once, of which one is such a repeat.
    db.sql("INSERT INTO jobs (id, tenant_id, status) VALUES ('k', 'acme', 'running')").await.expect("insert");
    let (repeat, other) = (requested(Action::Pause, 4), change(job("k"), Action::Pause, 4));
    let (repeat, other) = tokio::join!(apply(&repeat), apply(&other));
    assert_eq!((status_of(&repeat), status_of(&other)), (("paused", false), ("paused", true)));
    // Another user's, another action, and a day later are requests of their own.
    resume.fence = 5;
    for other in [
        CommandChange { user: "bob".parse().expect("user"), ..requested(Action::Pause, 6) },
        CommandChange { ..requested(Action::Resume, 7) },
    ] {
        assert!(!db.store.is_repeated_request(&other).await.expect("ask"));
        assert!(status_of(&apply(&other).await).1, "{other:?}");
    }
    db.sql("UPDATE applied_commands SET at = '2026-01-02T03:04:05.600Z'").await.expect("update");
    let later = requested(Action::Pause, 8);
    assert!(!db.store.is_repeated_request(&later).await.expect("ask"));
    assert_eq!(status_of(&apply(&later).await), ("paused", true));
    assert!(db.store.is_repeated_request(&requested(Action::Pause, 9)).await.expect("ask"), "it counts from now on");
}

/// An entry of the stream about this command.
fn of(change: &CommandChange, n: i64, event: &str) -> AuditEntry {
    let command_id = Some(change.command.to_string());
    AuditEntry { event: event.to_owned(), command_id, ..entry(n) }
}

async fn events(db: &Db, change: &CommandChange) -> Vec<String> {
    let id = Some(change.command.to_string());
    rows(db).await.into_iter().filter(|row| row.entry.command_id == id).map(|row| row.entry.event).collect()
}

pub async fn a_command_has_one_end_whichever_redis_brings_another(db: Db) {
    db.sql("INSERT INTO jobs (id, tenant_id, status) VALUES ('j', 'acme', 'running')").await.expect("insert");
    let recorded = |action, fence| {
        let change = change(job("j"), action, fence);
        let record = serde_json::json!({
            "v": 1, "tenant_id": "acme", "user_id": "ann", "resource_kind": "job", "resource_id": "j",
            "action": action.as_str(), "command_id": change.command.to_string(), "request_id": null, "reason": "why",
            "address": null, "token_id": null, "accepted_at": 1, "worker_id": "w1", "attempts": 1,
        });
        CommandChange { record: Some(record.to_string()), ..change }
    };
    let append = async |entries: &[AuditEntry]| db.store.append_audit("s", entries).await.expect("append");
    let (applied, refused) = (recorded(Action::Pause, 1), recorded(Action::Resume, 2));
    db.store.apply(&applied).await.expect("apply");
    append(&[of(&applied, 1, "accepted"), of(&applied, 2, "succeeded")]).await;
    // The replica that took over did not know that it had ended.
    assert_eq!(append(&[of(&applied, 30, "succeeded")]).await, 0);
    assert_eq!(append(&[of(&applied, 31, "expired"), of(&refused, 32, "accepted")]).await, 1);
    assert_eq!(events(&db, &applied).await, ["accepted", "succeeded"]);
    // The other way round: it had failed without being applied, and comes again.
    append(&[of(&refused, 33, "failed")]).await;
    assert_eq!(db.store.apply(&refused).await.expect("apply"), ApplyOutcome::Refused);
    assert_eq!(status(&db, "j").await, JobStatus::Paused, "what is said to have failed is not carried out");
    append(&[of(&refused, 34, "failed"), of(&refused, 35, "succeeded")]).await;
    assert_eq!(events(&db, &refused).await, ["accepted", "failed"]);
    // Applied, and then Redis lost all that it knew of it.
    let lost = recorded(Action::Resume, 3);
    db.store.apply(&lost).await.expect("apply");
    let now = db.store.clock().await.expect("clock");
    let found = db.store.unaudited_ends(now + 60_000, 10).await.expect("read");
    let [UnauditedEnd { command, base: Some(base), outcome, is_accepted, is_ended, .. }] = &found[..] else {
        panic!("{found:?}")
    };
    assert_eq!((command, outcome.as_str()), (&lost.command.to_string(), "running"));
    assert_eq!((base.reason.as_deref(), base.worker_id.as_deref(), base.attempts), (Some("why"), Some("w1"), Some(1)));
    assert!(!is_accepted && !is_ended);
    let recovered = [of(&lost, 40, "accepted"), of(&lost, 40, "succeeded")];
    assert_eq!(db.store.append_audit(APPLIED_STREAM, &recovered).await.expect("append"), 2);
    // The Redis that was cut off is back, and a worker ships what it holds.
    assert_eq!(append(&[of(&lost, 41, "accepted"), of(&lost, 42, "succeeded")]).await, 0);
    assert!(db.store.unaudited_ends(now + 60_000, 10).await.expect("read").is_empty());
    // Redis brings that it was accepted after SQL was looked through, and before what is lacking is put there.
    let late = recorded(Action::Pause, 4);
    db.store.apply(&late).await.expect("apply");
    append(&[of(&late, 50, "accepted")]).await;
    let recovered = [of(&late, 51, "accepted"), of(&late, 51, "succeeded")];
    assert_eq!(db.store.append_audit(APPLIED_STREAM, &recovered).await.expect("append"), 1);
    assert_eq!(events(&db, &late).await, ["accepted", "succeeded"]);
    let verified = db.store.verify_audit(None, |broken| panic!("{broken:?}")).await.expect("verify");
    assert_eq!(verified.rows, 8);
}

pub async fn the_trail_has_each_event_of_a_command_once_whoever_brings_it_again(db: Db) {
    let append =
        async |stream: &str, entries: &[AuditEntry]| db.store.append_audit(stream, entries).await.expect("append");
    // One command for each way in which it comes twice, with each kind of event in the order in which they may be.
    let lives: [&[&str]; 6] = [
        &["accepted", "succeeded"],
        &["accepted", "failed"],
        &["accepted", "expired"],
        &["scheduled", "accepted", "succeeded"],
        &["scheduled", "withdrawn"],
        &["scheduled", "denied"],
    ];
    let mut at = 0;
    for life in lives {
        let mut life_of = |change: &CommandChange, from: i64| -> Vec<AuditEntry> {
            at += 100;
            life.iter().zip(from..).map(|(event, n)| of(change, at + n, event)).collect()
        };
        let command = || change(job("j"), Action::Pause, 1);
        // Later, from another stream: that of the master that took over, whose numbers and times are others.
        let one = command();
        assert_eq!(append("s", &life_of(&one, 1)).await, life.len());
        assert_eq!(append("s", &life_of(&one, 20)).await, 0, "{life:?}");
        assert_eq!(append("t", &life_of(&one, 1)).await, 0, "{life:?}");
        assert_eq!(events(&db, &one).await, life);
        // Its first event alone, and then all of them, of which the first comes for the second time.
        let one = command();
        append("s", &life_of(&one, 1)[..1]).await;
        assert_eq!(append("t", &life_of(&one, 20)).await, life.len() - 1, "{life:?}");
        assert_eq!(events(&db, &one).await, life);
        // Both in one batch.
        let one = command();
        let both = [life_of(&one, 1), life_of(&one, 20)].concat();
        assert_eq!(append("s", &both).await, life.len(), "{life:?}");
        assert_eq!(events(&db, &one).await, life);
        // Two workers at once, each with what another Redis holds. One that comes when a row has just changed comes again.
        let one = command();
        let ship = async |stream: &str, entries: Vec<AuditEntry>| {
            while db.store.append_audit(stream, &entries).await.is_err_and(|error| error.is_transient()) {}
        };
        tokio::join!(ship("s", life_of(&one, 1)), ship("t", life_of(&one, 20)), ship("u", life_of(&one, 40)));
        assert_eq!(events(&db, &one).await, life);
    }
    // What is no command is counted each time.
    let denied = |n| AuditEntry { event: "denied".to_owned(), command_id: None, ..entry(n) };
    assert_eq!(append("s", &[denied(9_000), denied(9_001)]).await, 2);
    let verified = db.store.verify_audit(None, |broken| panic!("{broken:?}")).await.expect("verify");
    let written = 4 * lives.iter().map(|life| life.len()).sum::<usize>() + 2;
    assert_eq!(verified.rows, written as u64);
}

pub async fn what_is_withdrawn_or_denied_at_its_time_is_not_carried_out_by_a_redis_that_has_lost_that(db: Db) {
    db.sql("INSERT INTO jobs (id, tenant_id, status) VALUES ('j', 'acme', 'running')").await.expect("insert");
    for (n, last) in [(1, "withdrawn"), (2, "denied")] {
        let command = change(job("j"), Action::Pause, n);
        db.store
            .append_audit("s", &[of(&command, n * 10, "scheduled"), of(&command, n * 10 + 1, last)])
            .await
            .expect("append");
        assert_eq!(db.store.apply(&command).await.expect("apply"), ApplyOutcome::Refused);
        let again = [of(&command, n * 10 + 5, "accepted"), of(&command, n * 10 + 6, "failed")];
        assert_eq!(db.store.append_audit("s", &again).await.expect("append"), 0);
        assert_eq!(events(&db, &command).await, ["scheduled", last]);
    }
    assert_eq!(status(&db, "j").await, JobStatus::Running);
    // Carried out before that Redis was there: it did happen, and then somebody was told that it is withdrawn.
    let command = change(job("j"), Action::Pause, 3);
    db.store.apply(&command).await.expect("apply");
    let all = ["scheduled", "accepted", "withdrawn", "succeeded"];
    let entries: Vec<AuditEntry> = all.iter().zip(50..).map(|(event, n)| of(&command, n, event)).collect();
    db.store.append_audit("s", &entries).await.expect("append");
    assert_eq!(events(&db, &command).await, all);
    // Carried out, and a Redis that does not know who was given it says that nobody took it: it was, and SQL says so.
    let command = CommandChange { record: Some("{}".to_owned()), ..change(job("j"), Action::Resume, 4) };
    db.store.apply(&command).await.expect("apply");
    let entries = [of(&command, 60, "accepted"), of(&command, 61, "expired")];
    assert_eq!(db.store.append_audit("s", &entries).await.expect("append"), 1);
    assert_eq!(db.store.append_audit(APPLIED_STREAM, &[of(&command, 62, "succeeded")]).await.expect("append"), 1);
    assert_eq!(events(&db, &command).await, ["accepted", "succeeded"]);
}
