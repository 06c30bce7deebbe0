//! The audit trail, touched by somebody with all rights on the database.

use wheelhouse::domain::ChainLink;
use wheelhouse::store::AuditBreakKind::{self, *};

use super::audit::{entry, hash_of, rows};
use super::*;

/// What the triggers refuse, nobody does by mistake. This is someone who means it.
pub async fn without_triggers(db: &Db) {
    let text = if db.url.starts_with("sqlite") {
        "DROP TRIGGER command_audit_i; DROP TRIGGER command_audit_u; DROP TRIGGER command_audit_d;
         DROP TRIGGER audit_horizon_i; DROP TRIGGER audit_horizon_u; DROP TRIGGER audit_horizon_d"
    } else {
        "DROP TRIGGER append_only ON command_audit; DROP TRIGGER kept ON command_audit;
         DROP TRIGGER forward_only ON audit_horizon; DROP TRIGGER one_row ON audit_horizon"
    };
    db.sql(text).await.expect("drop the triggers");
}

/// Kind of what is wrong, first and last row.
type Place = (AuditBreakKind, i64, i64);

/// Everything that is wrong: kind, first and last row, words.
pub async fn breaks(db: &Db, expected: Option<&ChainLink>) -> Vec<(AuditBreakKind, i64, i64, String)> {
    let mut found = Vec::new();
    let tell = |b: AuditBreak| found.push((b.kind, b.first, b.last, b.says));
    let verified = db.store.verify_audit(expected, tell).await.expect("verify");
    assert_eq!(verified.breaks as usize, found.len());
    found
}

async fn places(db: &Db) -> Vec<Place> {
    breaks(db, None).await.into_iter().map(|(kind, first, last, _)| (kind, first, last)).collect()
}

async fn written(db: &Db, range: std::ops::RangeInclusive<i64>) {
    let entries: Vec<_> = range.map(entry).collect();
    db.store.append_audit("s", &entries).await.expect("append");
}

async fn save(db: &Db) {
    for table in ["command_audit", "audit_head", "audit_horizon"] {
        db.sql(&format!("CREATE TABLE saved_{table} AS SELECT * FROM {table}")).await.expect("save");
    }
}

async fn restore(db: &Db) {
    for table in ["command_audit", "audit_head", "audit_horizon"] {
        let columns = match table {
            "command_audit" => {
                "id, at, tenant_id, user_id, resource_kind, resource_id, action, command_id, request_id, event, reason, outcome, worker_id, attempts, latency_ms, address, token_id, stream_id, previous_hash, hash, run_at, batch_id"
            }
            "audit_head" => "id, last_id, hash",
            _ => "id, last_id, hash, older_than",
        };
        let text = format!("DELETE FROM {table}; INSERT INTO {table} ({columns}) SELECT {columns} FROM saved_{table}");
        db.sql(&text).await.expect("restore");
    }
}

pub async fn an_untouched_trail_is_intact_however_long(db: Db) {
    let empty = db.store.verify_audit(None, |b| panic!("{b:?}")).await.expect("verify");
    assert_eq!((empty.rows, empty.breaks, empty.end.id), (0, 0, 0));
    // More than two pages of the walk.
    written(&db, 1..=2_100).await;
    let whole = db.store.verify_audit(None, |b| panic!("{b:?}")).await.expect("verify");
    assert_eq!((whole.rows, whole.breaks, whole.end.id, whole.pruned.clone()), (2_100, 0, 2_100, None));
    let all = rows(&db).await;
    assert_eq!(whole.end.hash, all[2_099].hash);
    for row in [&all[0], &all[999], &all[2_099]] {
        let kept = ChainLink { id: row.id, hash: row.hash.clone() };
        assert_eq!(breaks(&db, Some(&kept)).await, []);
    }
}

pub async fn every_change_by_hand_is_found_and_named(db: Db) {
    written(&db, 1..=10).await;
    without_triggers(&db).await;
    save(&db).await;
    let copy = |id: i64, of: i64, hash: &str| {
        format!(
            "INSERT INTO command_audit (id, at, tenant_id, user_id, resource_kind, resource_id, action, event, stream_id, previous_hash, hash)
             SELECT {id}, at, tenant_id, 'eve', resource_kind, resource_id, action, event, stream_id, {hash}, 'made up' FROM command_audit WHERE id = {of}"
        )
    };
    // Makes room for one row after the fourth, as somebody would who wants the ids to look right.
    let room = "UPDATE command_audit SET id = -(id + 1) WHERE id > 4; UPDATE command_audit SET id = -id WHERE id < 0;
                UPDATE audit_head SET last_id = 11";
    let odd_time = if db.url.starts_with("sqlite") {
        "UPDATE command_audit SET at = '1970-01-01T00:00:00.0040001Z' WHERE id = 4"
    } else {
        "UPDATE command_audit SET at = at + INTERVAL '1 microsecond' WHERE id = 4"
    };
    let cases: Vec<(String, Vec<Place>, &str)> = vec![
        // Changed.
        ("UPDATE command_audit SET user_id = 'eve' WHERE id = 4".into(), vec![(Changed, 4, 4)], "by \"eve\""),
        ("UPDATE command_audit SET user_id = 'eve' WHERE id = 1".into(), vec![(Changed, 1, 1)], "row 1 is not as it was"),
        ("UPDATE command_audit SET reason = NULL WHERE id = 10".into(), vec![(Changed, 10, 10)], "row 10"),
        ("UPDATE command_audit SET command_id = '' WHERE id = 4".into(), vec![(Changed, 4, 4)], "row 4"),
        ("UPDATE command_audit SET run_at = 1 WHERE id = 4".into(), vec![(Changed, 4, 4)], "row 4"),
        ("UPDATE command_audit SET at = '2020-01-01T00:00:00Z' WHERE id = 4".into(), vec![(Changed, 4, 4)], "2020-01-01"),
        (odd_time.into(), vec![(Changed, 4, 4)], "row 4"),
        ("UPDATE command_audit SET event = 'denied' WHERE id IN (2, 4, 9)".into(), vec![(Changed, 2, 2), (Changed, 4, 4), (Changed, 9, 9)], "\"denied\""),
        // Missing.
        ("DELETE FROM command_audit WHERE id = 4".into(), vec![(Missing, 4, 4)], "row 4 is missing"),
        ("DELETE FROM command_audit WHERE id IN (4, 5, 6, 8)".into(), vec![(Missing, 4, 6), (Missing, 8, 8)], "rows 4 to 6 are missing"),
        ("DELETE FROM command_audit WHERE id = 1".into(), vec![(Missing, 1, 1)], "row 1 is missing"),
        ("DELETE FROM command_audit WHERE id = 4; UPDATE command_audit SET id = -(id - 1) WHERE id > 4; UPDATE command_audit SET id = -id WHERE id < 0".into(),
         vec![(Replaced, 3, 4), (CutOff, 10, 10)], "row 4 was written after another row than row 3"),
        // The end cut off.
        ("DELETE FROM command_audit WHERE id >= 8".into(), vec![(CutOff, 8, 10)], "rows 8 to 10 are missing at the end"),
        ("DELETE FROM command_audit".into(), vec![(CutOff, 1, 10)], "rows 1 to 10 are missing"),
        // Inserted.
        (format!("{room}; {}", copy(5, 4, "'made up too'")), vec![(Inserted, 5, 5)], "row 5 does not belong to the chain"),
        (format!("{room}; {}", copy(5, 4, "hash")), vec![(Changed, 5, 5), (Inserted, 5, 5)], "row 5"),
        (copy(11, 10, "hash"), vec![(Inserted, 11, 11)], "row 11 stands after row 10"),
        (copy(99, 10, "hash"), vec![(Inserted, 99, 99)], "row 99 stands after row 10"),
        (copy(0, 1, "''"), vec![(Inserted, 0, 0)], "row 0 stands at or below row 0"),
        ("UPDATE command_audit SET id = id + 5 WHERE id = 10; UPDATE audit_head SET last_id = 15".into(), vec![(Renumbered, 10, 15)], "renumbered"),
        // The head.
        ("UPDATE audit_head SET hash = 'made up'".into(), vec![(HeadChanged, 10, 10)], "audit_head names row 10"),
        ("UPDATE audit_head SET last_id = 12".into(), vec![(CutOff, 11, 12)], "rows 11 to 12 are missing at the end"),
        ("UPDATE audit_head SET last_id = 8, hash = (SELECT hash FROM command_audit WHERE id = 8)".into(), vec![(Inserted, 9, 10)], "rows 9 to 10 stand after row 8"),
        ("DELETE FROM audit_head".into(), vec![(HeadChanged, 10, 10)], "audit_head has no row"),
        // The horizon.
        ("UPDATE audit_horizon SET last_id = 3, hash = (SELECT hash FROM command_audit WHERE id = 3)".into(), vec![(Inserted, 1, 3)], "rows 1 to 3 stand at or below row 3"),
        ("UPDATE audit_horizon SET last_id = 3, hash = 'made up'; DELETE FROM command_audit WHERE id <= 3".into(), vec![(Replaced, 3, 4)], "row 4 was written after another row than row 3"),
        ("DELETE FROM audit_horizon".into(), vec![(HorizonChanged, 0, 0)], "audit_horizon has no row"),
    ];
    for (text, expected, words) in cases {
        db.sql(&text).await.unwrap_or_else(|error| panic!("{text}: {error}"));
        let found = breaks(&db, None).await;
        let places: Vec<_> = found.iter().map(|(kind, first, last, _)| (*kind, *first, *last)).collect();
        assert_eq!(places, expected, "{text}: {found:#?}");
        assert!(found[0].3.contains(words), "{text}: {found:#?}");
        restore(&db).await;
        assert_eq!(breaks(&db, None).await, [], "restored after {text}");
    }
    if db.url.starts_with("sqlite") {
        // A text in a column of numbers, which reads as the same number.
        db.sql("UPDATE command_audit SET latency_ms = '4 or so' WHERE id = 4").await.expect("update");
        assert_eq!(places(&db).await, [(Changed, 4, 4)]);
        db.sql("UPDATE command_audit SET user_id = X'ff' WHERE id = 5").await.expect("update");
        assert_eq!(places(&db).await, [(Changed, 4, 4), (Changed, 5, 5)], "what cannot be read is no reason to stop");
    }
}

pub async fn a_row_put_in_or_changed_with_hashes_that_fit_is_found_too(db: Db) {
    written(&db, 1..=10).await;
    without_triggers(&db).await;
    save(&db).await;
    let all = rows(&db).await;
    // Changed, and given the hash of what it says now.
    let forged = AuditEntry { user_id: "eve".into(), ..all[3].entry.clone() };
    let hash = hash_of(&all[3].previous_hash, &forged);
    db.sql(&format!("UPDATE command_audit SET user_id = 'eve', hash = '{hash}' WHERE id = 4")).await.expect("update");
    let found = breaks(&db, None).await;
    assert_eq!((found.len(), found[0].0, found[0].1, found[0].2), (1, Replaced, 4, 5), "{found:#?}");
    restore(&db).await;
    // The last one: only the head knows.
    let forged = AuditEntry { user_id: "eve".into(), ..all[9].entry.clone() };
    let hash = hash_of(&all[9].previous_hash, &forged);
    db.sql(&format!("UPDATE command_audit SET user_id = 'eve', hash = '{hash}' WHERE id = 10")).await.expect("update");
    assert_eq!(places(&db).await, [(HeadChanged, 10, 10)]);
    restore(&db).await;
    // Put in after the fourth, following it as it should; the later ones are renumbered, and the head with them.
    let made = AuditEntry { user_id: "eve".into(), ..entry(4) };
    let hash = hash_of(&all[3].hash, &made);
    db.sql(&format!(
        "UPDATE command_audit SET id = -(id + 1) WHERE id > 4; UPDATE command_audit SET id = -id WHERE id < 0;
         UPDATE audit_head SET last_id = 11;
         INSERT INTO command_audit (id, at, tenant_id, user_id, resource_kind, resource_id, action, event, reason, latency_ms, stream_id, previous_hash, hash)
         SELECT 5, at, tenant_id, 'eve', resource_kind, resource_id, action, event, reason, latency_ms, stream_id, hash, '{hash}' FROM command_audit WHERE id = 4"
    ))
    .await
    .expect("insert");
    let found = breaks(&db, None).await;
    assert_eq!((found.len(), found[0].0, found[0].1, found[0].2), (1, Inserted, 5, 5), "{found:#?}");
    restore(&db).await;
    // Two rows exchanged.
    db.sql("UPDATE command_audit SET id = -4 WHERE id = 4; UPDATE command_audit SET id = 4 WHERE id = 5; UPDATE command_audit SET id = 5 WHERE id = -4")
        .await
        .expect("exchange");
    let found = places(&db).await;
    assert!(!found.is_empty() && found.iter().all(|(_, first, last)| *first >= 3 && *last <= 6), "{found:?}");
}

/// The limit of a chain without a secret, and what helps.
pub async fn a_trail_written_anew_from_end_to_end_is_found_by_a_hash_kept_elsewhere(db: Db) {
    written(&db, 1..=5).await;
    let kept = db.store.verify_audit(None, |_| ()).await.expect("verify").end;
    written(&db, 6..=8).await;
    assert_eq!(breaks(&db, Some(&kept)).await, []);
    without_triggers(&db).await;
    db.sql("DELETE FROM command_audit; UPDATE audit_head SET last_id = 0, hash = ''; DELETE FROM audit_position")
        .await
        .expect("delete");
    let forged: Vec<_> = (1..=8).map(|n| AuditEntry { user_id: "eve".into(), ..entry(n) }).collect();
    db.store.append_audit("s", &forged).await.expect("append");
    assert_eq!(breaks(&db, None).await, [], "every hash fits");
    let found = breaks(&db, Some(&kept)).await;
    assert_eq!((found.len(), found[0].0, found[0].1), (1, NotAsExpected, 5), "{found:#?}");
    let later = ChainLink { id: 9, ..kept.clone() };
    assert!(breaks(&db, Some(&later)).await[0].3.contains("row 9 is not there"));
    // Cut off, with a head that fits.
    db.sql("DELETE FROM command_audit WHERE id > 4; UPDATE audit_head SET last_id = 4, hash = (SELECT hash FROM command_audit WHERE id = 4)")
        .await
        .expect("cut");
    assert_eq!(breaks(&db, None).await, []);
    assert!(breaks(&db, Some(&kept)).await[0].3.contains("row 5 is not there"));
}

pub async fn a_row_put_in_behind_the_last_one_stops_the_trail_and_nothing_is_lost(db: Db) {
    written(&db, 1..=3).await;
    db.sql(
        "INSERT INTO command_audit (id, at, tenant_id, user_id, resource_kind, resource_id, action, event, stream_id, previous_hash, hash)
         SELECT 5, at, tenant_id, 'eve', resource_kind, resource_id, action, event, stream_id, hash, 'made up' FROM command_audit WHERE id = 3",
    )
    .await
    .expect("insert");
    let refused = db.store.append_audit("s", &[entry(4), entry(5)]).await.expect_err("the id is taken");
    assert!(!refused.is_transient(), "it does not pass by itself");
    let words = refused.to_string();
    assert!(words.contains("it exists already") || words.contains("command_audit is append-only"), "{words}");
    assert_eq!(places(&db).await, [(Inserted, 5, 5)]);
    without_triggers(&db).await;
    db.sql("DELETE FROM command_audit WHERE id = 5").await.expect("delete");
    assert_eq!(db.store.append_audit("s", &[entry(4), entry(5)]).await.expect("append"), 2);
    assert_eq!(breaks(&db, None).await, []);
}

pub async fn it_is_intact_while_rows_are_added_and_old_ones_removed(db: Db) {
    let settings = config::Database { url: db.url.clone().into(), connections: 2 };
    let (writer, pruner) = (Store::open(&settings).await.expect("open"), Store::open(&settings).await.expect("open"));
    written(&db, 1..=1_500).await;
    let done = std::sync::atomic::AtomicBool::new(false);
    let done = &done;
    let write = async {
        for n in 0..25 {
            let some: Vec<_> = (0..60).map(|m| entry(1_501 + n * 60 + m)).collect();
            while writer.append_audit("s", &some).await.is_err() {}
            if n % 8 == 4 {
                // Everything there is, is of 1970.
                let _ = pruner.prune_audit(Duration::from_secs(86_400), &super::audit_retention::todays_clocks()).await;
            }
        }
        done.store(true, std::sync::atomic::Ordering::SeqCst);
    };
    let verify = async {
        let mut times = 0;
        while !done.load(std::sync::atomic::Ordering::SeqCst) {
            assert_eq!(breaks(&db, None).await, []);
            times += 1;
        }
        times
    };
    let ((), times) = tokio::join!(write, verify);
    assert!(times > 0);
    let end = db.store.verify_audit(None, |_| ()).await.expect("verify");
    assert_eq!((end.breaks, end.end.id), (0, 3_000));
    assert!(end.pruned.is_some_and(|pruned| pruned.id >= 1_000) && end.rows < 3_000);
}
