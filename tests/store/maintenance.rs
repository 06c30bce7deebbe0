//! What one worker does for all.

use super::*;
use wheelhouse::domain::Control;

pub async fn a_turn_is_taken_by_one_and_comes_again(db: Db) {
    let turns = || (0..8).map(|_| db.store.try_acquire_lease(MaintenanceTask::Campaigns, Duration::from_secs(3_600)));
    let took = futures_util::future::join_all(turns()).await;
    assert_eq!(took.into_iter().filter(|took| *took.as_ref().expect("asked")).count(), 1);
    assert!(
        db.store.try_acquire_lease(MaintenanceTask::Commands, Duration::from_secs(1)).await.expect("asked"),
        "another task's turn"
    );
    // Someone's clock was years ahead.
    db.sql("UPDATE upkeep SET due = 9000000000000000").await.expect("update");
    assert!(db.store.try_acquire_lease(MaintenanceTask::Campaigns, Duration::from_secs(3_600)).await.expect("asked"));
}

pub async fn campaigns_that_were_left_with_nothing_to_do_are_found(db: Db) {
    for id in ["done", "busy", "paused", "external"] {
        campaign_of(&db, id, 2).await;
    }
    let none = NewCampaign {
        id: "none".parse().expect("id"),
        tenant: job("x").tenant,
        name: None,
        created_by: None,
        jobs: vec![],
    };
    db.store.create_campaign(&none).await.expect("create");
    db.sql("UPDATE jobs SET status = 'completed'").await.expect("update");
    db.sql("UPDATE jobs SET status = 'paused' WHERE id = 'busy-1'").await.expect("update");
    db.sql("UPDATE jobs SET status = 'cancelled' WHERE id = 'done-1'").await.expect("update");
    db.sql("UPDATE jobs SET origin = 'external' WHERE campaign_id = 'external'").await.expect("update");
    db.store.apply(&change(campaign("paused"), Action::Pause, 1)).await.expect("apply");
    assert_eq!(db.store.campaigns_to_complete(10).await.expect("read"), [campaign("done")]);
    assert!(db.store.complete_campaign(&campaign("done")).await.expect("complete").is_some());
    assert!(db.store.campaigns_to_complete(10).await.expect("read").is_empty());
}

pub async fn what_commands_did_long_ago_is_forgotten_in_batches(db: Db) {
    let ids = |from: usize, to: usize| (from..to).map(|n| format!("('c{n}', 'paused')")).collect::<Vec<_>>().join(", ");
    db.sql(&format!("INSERT INTO applied_commands (command_id, outcome) VALUES {}", ids(0, 1_500)))
        .await
        .expect("insert");
    db.sql("UPDATE applied_commands SET at = '2026-01-02T03:04:05.600Z'").await.expect("update");
    db.store.create_job(&new_job("j", None)).await.expect("create");
    let new = change(job("j"), Action::Pause, 1);
    db.store.apply(&new).await.expect("apply");
    let now = jiff::Timestamp::now().as_millisecond();
    let week = Duration::from_secs(7 * 24 * 3_600);
    assert_eq!(db.store.prune_applied_commands(week, now).await.expect("forget"), 1_000);
    assert_eq!(db.store.prune_applied_commands(week, now).await.expect("forget"), 500);
    assert_eq!(db.store.prune_applied_commands(week, now).await.expect("forget"), 0);
    assert!(db.store.void_older_claims(&new).await.expect("read"));
    let again = db.store.apply(&new).await.expect("apply");
    assert_eq!(again, ApplyOutcome::Succeeded { status: "paused".into(), changed: false, control: Some(Control::Row) });
}
