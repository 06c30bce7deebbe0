//! How long rows of the audit trail are kept, and that nothing else takes them away.

use std::time::{SystemTime, UNIX_EPOCH};

use wheelhouse::domain::ChainLink;
use wheelhouse::store::AuditBreakKind;

use super::audit::{entry, rows};
use super::audit_verify::{breaks, without_triggers};
use super::*;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// An entry of so many hours ago.
fn hours_ago(n: i64, hours: u64) -> AuditEntry {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("clock");
    let at = (now - Duration::from_secs(hours * 3_600)).as_millis() as i64;
    AuditEntry { at, resource_id: format!("j{n}"), ..entry(n) }
}

/// A worker whose clock and Redis's say what this machine's says.
pub fn todays_clocks() -> PruningClocks {
    by_clocks(0, 0)
}

/// Clocks that are so many hours ahead.
fn by_clocks(worker_hours: i64, redis_hours: i64) -> PruningClocks {
    let now = jiff::Timestamp::now().as_millisecond();
    let (worker_clock, redis_clock) = (now + worker_hours * 3_600_000, now + redis_hours * 3_600_000);
    PruningClocks { worker: "w1".parse().expect("id"), worker_clock, redis_clock }
}

async fn ids(db: &Db) -> Vec<i64> {
    rows(db).await.iter().map(|row| row.id).collect()
}

pub async fn old_rows_go_in_order_and_the_rest_can_still_be_verified(db: Db) {
    // The fifth reached SQL before older ones did: those after it wait for it.
    let ages = [72, 72, 60, 49, 30, 70, 20, 1];
    let entries: Vec<_> = ages.iter().zip(1..).map(|(hours, n)| hours_ago(n, *hours)).collect();
    db.store.append_audit("s", &entries).await.expect("append");
    let second = rows(&db).await[1].clone();
    assert_eq!(db.store.prune_audit(10 * DAY, &todays_clocks()).await.expect("prune"), AuditPruned::default());
    let pruned = db.store.prune_audit(2 * DAY, &todays_clocks()).await.expect("prune");
    assert_eq!((pruned.rows, pruned.more, pruned.broken), (4, false, None));
    assert_eq!(ids(&db).await, [5, 6, 7, 8]);
    let verified = db.store.verify_audit(None, |b| panic!("{b:?}")).await.expect("verify");
    assert_eq!((verified.rows, verified.pruned.map(|p| p.id)), (4, Some(4)));
    let kept = ChainLink { id: 2, hash: second.hash };
    let found = breaks(&db, Some(&kept)).await;
    assert_eq!(found[0].0, AuditBreakKind::NotAsExpected);
    assert!(found[0].3.contains("row 2 was removed because of its age"), "{found:?}");
    // The chain goes on from what is left, and from the horizon when nothing is.
    db.store.append_audit("s", &[hours_ago(9, 0)]).await.expect("append");
    assert_eq!(db.store.prune_audit(DAY, &todays_clocks()).await.expect("prune").rows, 2);
    assert_eq!(ids(&db).await, [7, 8, 9]);
    assert_eq!(breaks(&db, None).await, []);
    // Many: in batches.
    let many: Vec<_> = (10..1_110).map(|n| hours_ago(n, 100)).collect();
    let old = Db { store: db.store.clone(), url: db.url.clone(), _folder: None };
    old.store.append_audit("s", &many).await.expect("append");
    assert_eq!(
        db.store.prune_audit(DAY, &todays_clocks()).await.expect("prune").rows,
        0,
        "younger ones stand before them"
    );
}

pub async fn nothing_is_deleted_by_hand_and_the_horizon_moves_only_over_old_rows(db: Db) {
    let entries: Vec<_> = (1..=1_200).map(|n| hours_ago(n, 72)).chain([hours_ago(1_201, 1)]).collect();
    db.store.append_audit("s", &entries).await.expect("append");
    let refused = async |text: &str| {
        assert!(db.sql(text).await.is_err(), "{text}");
    };
    let half_day_ago = if db.url.starts_with("sqlite") {
        "strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-13 hours')"
    } else {
        "now() - INTERVAL '13 hours'"
    };
    let now = half_day_ago.replace("-13 hours", "-1 seconds").replace("13 hours", "1 second");
    let move_to = |id: i64, hash: &str, older: &str| {
        format!("UPDATE audit_horizon SET last_id = {id}, hash = {hash}, older_than = {older}")
    };
    let hash = |id: i64| format!("(SELECT hash FROM command_audit WHERE id = {id})");
    // Old or not: by hand none goes.
    refused("DELETE FROM command_audit").await;
    refused("DELETE FROM command_audit WHERE id = 1").await;
    let pruned = db.store.prune_audit(2 * DAY, &todays_clocks()).await.expect("prune");
    assert_eq!((pruned.rows, pruned.more), (1_000, true));
    let pruned = db.store.prune_audit(2 * DAY, &todays_clocks()).await.expect("prune");
    assert_eq!((pruned.rows, pruned.more), (200, false));
    refused("DELETE FROM command_audit").await;
    refused(&move_to(1_201, &hash(1_201), half_day_ago)).await;
    refused(&move_to(1_201, &hash(1_201), &now)).await;
    refused(&move_to(1_201, "'made up'", &now)).await;
    refused(&move_to(5, "''", half_day_ago)).await;
    refused("UPDATE audit_horizon SET last_id = 0").await;
    refused("UPDATE audit_horizon SET older_than = '2999-01-01T00:00:00.000Z'").await;
    refused("DELETE FROM audit_horizon").await;
    let again = if db.url.starts_with("sqlite") { "INSERT OR REPLACE INTO" } else { "INSERT INTO" };
    refused(&format!(
        "{again} audit_horizon (id, last_id, hash, older_than) VALUES (1, 2000, '', '2999-01-01T00:00:00.000Z')"
    ))
    .await;
    if !db.url.starts_with("sqlite") {
        refused("TRUNCATE audit_horizon").await;
        refused("TRUNCATE command_audit").await;
    }
    assert_eq!(ids(&db).await, [1_201]);
    assert_eq!(breaks(&db, None).await, []);
}

pub async fn a_broken_row_stays_however_old_it_is(db: Db) {
    let entries: Vec<_> = (1..=6).map(|n| hours_ago(n, 72)).collect();
    db.store.append_audit("s", &entries).await.expect("append");
    without_triggers(&db).await;
    db.sql("UPDATE command_audit SET user_id = 'eve' WHERE id = 4").await.expect("update");
    let pruned = db.store.prune_audit(DAY, &todays_clocks()).await.expect("prune");
    assert_eq!((pruned.rows, pruned.broken), (3, Some(4)));
    let pruned = db.store.prune_audit(DAY, &todays_clocks()).await.expect("prune");
    assert_eq!((pruned.rows, pruned.broken), (0, Some(4)));
    assert_eq!(ids(&db).await, [4, 5, 6]);
    let found = breaks(&db, None).await;
    assert_eq!((found.len(), found[0].0, found[0].1), (1, AuditBreakKind::Changed, 4));
}

pub async fn rows_put_in_behind_the_horizon_are_found(db: Db) {
    let entries: Vec<_> = (1..=6).map(|n| hours_ago(n, 72)).chain([hours_ago(7, 0)]).collect();
    db.store.append_audit("s", &entries).await.expect("append");
    db.store.prune_audit(DAY, &todays_clocks()).await.expect("prune");
    db.sql(
        "INSERT INTO command_audit (id, at, tenant_id, user_id, resource_kind, resource_id, action, event, stream_id, previous_hash, hash)
         SELECT 3, at, tenant_id, 'eve', resource_kind, resource_id, action, event, stream_id, '', 'made up' FROM command_audit WHERE id = 7",
    )
    .await
    .expect("insert");
    let found = breaks(&db, None).await;
    assert_eq!((found.len(), found[0].0, found[0].1, found[0].2), (1, AuditBreakKind::Inserted, 3, 3), "{found:?}");
}

/// What docs/operations.md says for a row that is broken: the horizon is moved over it by hand.
pub async fn the_horizon_can_be_moved_over_old_rows_by_hand(db: Db) {
    let entries: Vec<_> = (1..=5).map(|n| hours_ago(n, 72)).collect();
    db.store.append_audit("s", &entries).await.expect("append");
    let older = hours_ago(0, 60).at;
    let older = if db.url.starts_with("sqlite") {
        format!("strftime('%Y-%m-%dT%H:%M:%fZ', {older} / 1000, 'unixepoch')")
    } else {
        format!("to_timestamp({older} / 1000)")
    };
    let text = format!(
        "UPDATE audit_horizon SET older_than = {older}, last_id = 3, hash = (SELECT hash FROM command_audit WHERE id = 3);
         DELETE FROM command_audit WHERE id <= 3"
    );
    db.sql(&text).await.expect("move the horizon");
    assert!(db.sql("DELETE FROM command_audit WHERE id = 4").await.is_err());
    assert_eq!((ids(&db).await, breaks(&db, None).await), (vec![4, 5], vec![]));
}

pub async fn what_was_removed_is_on_record_with_who_when_and_by_which_clocks(db: Db) {
    let entries: Vec<_> = (1..=1_100).map(|n| hours_ago(n, 72)).chain([hours_ago(1_101, 1)]).collect();
    db.store.append_audit("s", &entries).await.expect("append");
    let whole = db.store.verify_audit(None, |b| panic!("{b:?}")).await.expect("verify");
    assert_eq!((whole.pruned_rows, whole.recorded_rows, whole.last_pruning), (0, 0, None));
    for _ in 0..2 {
        db.store.prune_audit(2 * DAY, &todays_clocks()).await.expect("prune");
    }
    let verified = db.store.verify_audit(None, |b| panic!("{b:?}")).await.expect("verify");
    assert_eq!((verified.rows, verified.pruned_rows, verified.recorded_rows), (1, 1_100, 1_100));
    let last = verified.last_pruning.expect("on record");
    assert_eq!((last.first_id, last.last_id, last.worker_id.as_str()), (1_001, 1_100, "w1"));
    let time = |text: &str| text.parse::<jiff::Timestamp>().expect("a time").as_millisecond();
    let ages = [&last.worker_clock, &last.redis_clock, &last.older_than, &last.newest].map(|at| {
        let hours = (jiff::Timestamp::now().as_millisecond() - time(at)) / 3_600_000;
        usize::try_from(hours).expect("not ahead")
    });
    assert_eq!(ages, [0, 0, 48, 72]);
    assert_eq!(verified.oldest.map(|(id, _)| id), Some(1_101));
    for text in [
        "DELETE FROM audit_prunings",
        "UPDATE audit_prunings SET worker_id = 'eve'",
        "INSERT INTO audit_prunings SELECT last_id + 1, first_id, oldest, newest, older_than, worker_id, worker_clock, redis_clock FROM audit_prunings WHERE last_id = 1000",
    ] {
        assert!(db.sql(text).await.is_err(), "{text}");
    }
}

pub async fn of_two_clocks_the_one_that_is_behind_says_what_is_old(db: Db) {
    let entries: Vec<_> = (1..=4).map(|n| hours_ago(n, 72)).chain([hours_ago(5, 1)]).collect();
    db.store.append_audit("s", &entries).await.expect("append");
    for by in [by_clocks(400 * 24, 0), by_clocks(0, 400 * 24)] {
        assert_eq!(db.store.prune_audit(10 * DAY, &by).await.expect("prune").rows, 0, "{by:?}");
    }
    assert_eq!(ids(&db).await.len(), 5);
}

/// Nobody can tell while all clocks are wrong together; afterwards it shows.
pub async fn what_was_removed_by_clocks_that_were_ahead_is_found(db: Db) {
    let entries: Vec<_> = (1..=4).map(|n| hours_ago(n, 72)).chain([hours_ago(5, 1)]).collect();
    db.store.append_audit("s", &entries).await.expect("append");
    let pruned = db.store.prune_audit(3 * DAY + DAY / 2, &by_clocks(24, 24)).await.expect("prune");
    assert_eq!(pruned.rows, 4);
    let found = breaks(&db, None).await;
    assert_eq!(
        (found.len(), found[0].0, found[0].1, found[0].2),
        (1, AuditBreakKind::PrunedTooEarly, 1, 4),
        "{found:?}"
    );
    assert!(found[0].3.contains("lies ahead of this machine's clock"), "{found:?}");
}
