//! The audit trail: written once, in one order, found by what it is about.

use sha2::{Digest, Sha256};
use wheelhouse::domain::AuditEvent;

use super::*;

/// An entry of the stream, `n` ms after the beginning of 1970.
pub fn entry(n: i64) -> AuditEntry {
    AuditEntry {
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
        run_at: None,
        batch_id: None,
        refusals: None,
        first_at: None,
        last_at: None,
    }
}

/// The hash of a row, computed as docs/operations.md says.
pub fn hash_of(previous: &str, entry: &AuditEntry) -> String {
    sha256(&format!("{previous}\n{}", serde_json::to_string(entry).expect("JSON")))
}

fn sha256(text: &str) -> String {
    hex::encode(Sha256::digest(text))
}

pub async fn rows(db: &Db) -> Vec<AuditRow> {
    let mut filter = AuditFilter { limit: 1_000, ..AuditFilter::default() };
    let mut rows = Vec::new();
    loop {
        let page = db.store.audit(&filter).await.expect("read");
        rows.extend(page.items);
        filter.after = page.next;
        if filter.after.is_none() {
            return rows;
        }
    }
}

pub async fn the_trail_is_written_once_chained_and_append_only(db: Db) {
    let store = &db.store;
    let entries = [entry(1), entry(2)];
    let (a, b) = tokio::join!(store.append_audit("s", &entries), store.append_audit("s", &entries));
    let (a, b) = (a.expect("append"), b.expect("append"));
    assert_eq!((a.min(b), a.max(b)), (0, 2), "exactly one of two writers writes");
    assert_eq!(store.append_audit("s", &[entry(2), entry(3)]).await.expect("append"), 1);
    assert_eq!(store.append_audit("s", &[]).await.expect("append"), 0);
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
    let copy = "INSERT INTO command_audit (id, at, tenant_id, user_id, resource_kind, resource_id, action, event, stream_id, previous_hash, hash)
      VALUES (1, '2026-01-01T00:00:00Z', 'acme', 'eve', 'job', 'j', 'cancel', 'accepted', '1-0', '', 'made up')";
    let mut refused = vec![
        "UPDATE command_audit SET user_id = 'bob'".to_owned(),
        "UPDATE command_audit SET user_id = 'bob' WHERE id = 2".to_owned(),
        "DELETE FROM command_audit".to_owned(),
        "DELETE FROM command_audit WHERE id = 3".to_owned(),
    ];
    if db.url.starts_with("sqlite") {
        refused.push(copy.replace("INSERT INTO", "INSERT OR REPLACE INTO"));
        refused.push(copy.replace("INSERT INTO", "REPLACE INTO"));
        refused.push("UPDATE OR REPLACE command_audit SET id = 1 WHERE id = 2".to_owned());
    } else {
        refused.push(format!("{copy} ON CONFLICT (id) DO UPDATE SET user_id = 'bob'"));
        refused.push("TRUNCATE command_audit".to_owned());
        refused.push("TRUNCATE command_audit, audit_head".to_owned());
        refused.push(
            "MERGE INTO command_audit a USING (SELECT 1 AS id) b ON a.id = b.id WHEN MATCHED THEN DELETE".to_owned(),
        );
        // A table of the same name that is looked at first must not stand in for the real one.
        refused.push(
            "CREATE TEMPORARY TABLE audit_horizon AS SELECT 1 AS id, 9 AS last_id, now() AS older_than; DELETE FROM command_audit"
                .to_owned(),
        );
    }
    for text in refused {
        assert!(db.sql(&text).await.is_err(), "{text}");
    }
    assert_eq!(super::audit::rows(&db).await.len(), 3);
    assert_eq!(store.verify_audit(None, |_| ()).await.expect("verify").breaks, 0);
}

/// On SQLite a time is a text, and plain SQL sorts it as one.
pub async fn plain_sql_sorts_the_trail_by_its_times(db: Db) {
    let entries = [entry(1_112), entry(1_100), entry(1_000), entry(1_090)];
    db.store.append_audit("s", &entries).await.expect("append");
    for (earlier, later) in [(1_000, 1_090), (1_090, 1_100), (1_100, 1_112)] {
        let text = format!(
            "INSERT INTO user_permissions (user_id, permission) SELECT 'u{later}', a.stream_id FROM command_audit a, command_audit b
             WHERE a.stream_id = '{earlier}-0' AND b.stream_id = '{later}-0' AND a.at < b.at"
        );
        assert_eq!(db.changed(&text).await, 1, "{earlier} ms before {later} ms");
    }
}

/// Rows written before there was a column `run_at` must stay intact: what they were hashed as stands here.
pub async fn a_hash_is_made_of_what_it_always_was(db: Db) {
    let first = AuditEntry { command_id: Some("c".into()), attempts: Some(2), ..entry(7) };
    let scheduled = AuditEntry { event: "scheduled".into(), run_at: Some(1_767_225_660_000), ..entry(8) };
    db.store.append_audit("s", &[first, scheduled.clone()]).await.expect("append");
    let rows = rows(&db).await;
    let text = "\n{\"id\":\"7-0\",\"at\":7,\"event\":\"accepted\",\"tenant_id\":\"acme\",\"user_id\":\"ann\",\"resource_kind\":\"job\",\"resource_id\":\"j\",\"action\":\"pause\",\"command_id\":\"c\",\"request_id\":null,\"reason\":\"why \\\"not\\\"\",\"address\":null,\"token_id\":null,\"outcome\":null,\"worker_id\":null,\"attempts\":2,\"latency_ms\":7}";
    assert_eq!(rows[0].hash, sha256(text));
    assert_eq!(rows[1].hash, hash_of(&rows[0].hash, &scheduled));
    assert_eq!(rows[1].entry, scheduled, "the time for which it was scheduled is kept");
    assert!(rows.iter().all(AuditRow::is_intact));
}

/// What a failover to a replica with a slower clock, or with older data, leaves in the stream.
pub async fn an_entry_that_comes_again_is_written_once_and_a_new_one_with_an_older_number_is_written(db: Db) {
    let store = &db.store;
    store.append_audit("s", &[entry(100), entry(200), entry(300)]).await.expect("append");
    let slow = AuditEntry { user_id: "bob".into(), ..entry(150) };
    // The same number as another, and yet another event.
    let same = AuditEntry { user_id: "bob".into(), ..entry(200) };
    let again = [entry(100), slow.clone(), same.clone(), entry(300)];
    assert_eq!(store.append_audit("s", &again).await.expect("append"), 2);
    assert_eq!(store.append_audit("s", &again).await.expect("append"), 0);
    // The position did not move back: the newest are still known.
    assert_eq!(store.append_audit("s", &[entry(300), entry(400)]).await.expect("append"), 1);
    let written: Vec<_> = rows(&db).await.into_iter().map(|row| row.entry).collect();
    assert_eq!(written, [entry(100), entry(200), entry(300), slow, same, entry(400)]);
}

/// Each writer is as a worker of its own; two at a time bring the same entries, and a reader follows all the while.
pub async fn whoever_reads_on_from_the_last_row_misses_none_of_several_writers(db: Db) {
    const STREAMS: i64 = 3;
    const EACH: i64 = 120;
    let open = async || {
        let settings = config::Database { url: db.url.clone().into(), connections: 2 };
        Store::open(&settings).await.expect("open")
    };
    let mut writers = Vec::new();
    for writer in 0..STREAMS * 2 {
        let (store, stream) = (open().await, writer % STREAMS);
        writers.push(async move {
            let mut next = 1;
            while next <= EACH {
                let until = (next + fastrand::i64(1..8)).min(EACH + 1);
                let some: Vec<_> =
                    (next..until).map(|n| AuditEntry { resource_id: format!("j{stream}"), ..entry(n) }).collect();
                match store.append_audit(&format!("s{stream}"), &some).await {
                    Ok(_) => next = until,
                    Err(error) => assert!(error.is_transient(), "{error}"),
                }
            }
        });
    }
    let reader = open().await;
    let follower = async {
        let mut filter = AuditFilter { limit: 7, ..AuditFilter::default() };
        let mut seen = Vec::new();
        while seen.len() < (STREAMS * EACH) as usize {
            let page = reader.audit(&filter).await.expect("read");
            seen.extend(page.items.into_iter().map(|row| row.id));
            filter.after = seen.last().map(ToString::to_string);
            tokio::task::yield_now().await;
        }
        seen
    };
    let followed = async { tokio::time::timeout(Duration::from_secs(120), follower).await };
    let (_, seen) = tokio::join!(futures_util::future::join_all(writers), followed);
    assert_eq!(seen.expect("all rows in time"), (1..=STREAMS * EACH).collect::<Vec<_>>());
    assert_eq!(rows(&db).await.len() as i64, STREAMS * EACH, "each entry once");
    assert_eq!(db.store.verify_audit(None, |_| ()).await.expect("verify").breaks, 0);
}

pub async fn rows_are_found_by_each_filter_and_by_all_together(db: Db) {
    let second = |n: i64| n * 1_000;
    let mut entries = Vec::new();
    for (n, (event, user, action, job)) in [
        ("accepted", "ann", "pause", "j1"),
        ("succeeded", "ann", "pause", "j1"),
        ("denied", "bob", "cancel", "j1"),
        ("scheduled", "ann", "resume", "j2"),
        ("withdrawn", "ann", "resume", "j2"),
    ]
    .into_iter()
    .enumerate()
    {
        // Half seconds: as texts, "…:01Z" sorts after "…:01.5Z".
        let at = second(n as i64) + if n % 2 == 0 { 0 } else { 500 };
        entries.push(AuditEntry {
            event: event.into(),
            user_id: user.into(),
            action: action.into(),
            resource_id: job.into(),
            ..entry(at)
        });
    }
    entries.push(AuditEntry { tenant_id: "globex".into(), ..entry(second(9)) });
    // It reached SQL late: rows are not in the order of their times.
    entries.push(AuditEntry { user_id: "late".into(), ..entry(second(9) + 1) });
    db.store.append_audit("s", &entries).await.expect("append");
    db.store.append_audit("t", &[AuditEntry { user_id: "late".into(), ..entry(second(2)) }]).await.expect("append");
    let found = async |filter: AuditFilter| -> Vec<i64> {
        let page = db.store.audit(&AuditFilter { limit: 100, ..filter }).await.expect("read");
        page.items.iter().map(|row| row.id).collect()
    };
    let all = AuditFilter { tenant: Some(job("j").tenant), ..AuditFilter::default() };
    let user = |name: &str| Some(name.parse::<UserId>().expect("user"));
    assert_eq!(found(all.clone()).await, [1, 2, 3, 4, 5, 7, 8]);
    assert_eq!(found(AuditFilter { tenant: None, ..all.clone() }).await.len(), 8);
    assert_eq!(found(AuditFilter { resource: Some(job("j2").id), ..all.clone() }).await, [4, 5]);
    assert_eq!(found(AuditFilter { user: user("bob"), ..all.clone() }).await, [3]);
    assert_eq!(found(AuditFilter { action: Some(Action::Resume), ..all.clone() }).await, [4, 5]);
    assert_eq!(found(AuditFilter { event: Some(AuditEvent::Withdrawn), ..all.clone() }).await, [5]);
    assert_eq!(found(AuditFilter { since: Some(2_000), ..all.clone() }).await, [3, 4, 5, 7, 8]);
    assert_eq!(found(AuditFilter { since: Some(2_001), ..all.clone() }).await, [4, 5, 7]);
    assert_eq!(found(AuditFilter { since: Some(3_500), ..all.clone() }).await, [4, 5, 7]);
    assert_eq!(found(AuditFilter { since: Some(99_000), ..all.clone() }).await, [0_i64; 0]);
    assert_eq!(found(AuditFilter { until: Some(2_000), ..all.clone() }).await, [1, 2]);
    assert_eq!(found(AuditFilter { until: Some(1_500), ..all.clone() }).await, [1]);
    assert_eq!(found(AuditFilter { since: Some(1_500), until: Some(2_001), ..all.clone() }).await, [2, 3, 8]);
    let together = AuditFilter {
        resource: Some(job("j1").id),
        user: user("ann"),
        action: Some(Action::Pause),
        event: Some(AuditEvent::Succeeded),
        since: Some(0),
        until: Some(9_000),
        ..all.clone()
    };
    assert_eq!(found(together).await, [2]);
    // The cursor and the filters go together.
    let pages = async |mut filter: AuditFilter| -> Vec<Vec<i64>> {
        let mut pages = Vec::new();
        loop {
            let page = db.store.audit(&filter).await.expect("read");
            pages.push(page.items.iter().map(|row| row.id).collect::<Vec<_>>());
            filter.after = page.next;
            if filter.after.is_none() {
                return pages;
            }
        }
    };
    let since = AuditFilter { since: Some(2_000), limit: 2, ..all.clone() };
    assert_eq!(pages(since.clone()).await, [vec![3, 4], vec![5, 7], vec![8]]);

    // The newest first, with the same filters; what has come since is asked for in the other order, from the newest one shown.
    let newest = AuditFilter { order: AuditOrder::NewestFirst, ..all };
    assert_eq!(found(newest.clone()).await, [8, 7, 5, 4, 3, 2, 1]);
    assert_eq!(found(AuditFilter { event: Some(AuditEvent::Withdrawn), ..newest.clone() }).await, [5]);
    assert_eq!(found(AuditFilter { since: Some(1_500), until: Some(2_001), ..newest.clone() }).await, [8, 3, 2]);
    assert_eq!(found(AuditFilter { since: Some(99_000), ..newest.clone() }).await, [0_i64; 0]);
    assert_eq!(pages(AuditFilter { limit: 3, ..newest.clone() }).await, [vec![8, 7, 5], vec![4, 3, 2], vec![1]]);
    assert_eq!(pages(AuditFilter { order: AuditOrder::NewestFirst, ..since }).await, [vec![8, 7], vec![5, 4], vec![3]]);
    let after = |id: i64| Some(id.to_string());
    assert_eq!(found(AuditFilter { after: after(5), ..newest.clone() }).await, [4, 3, 2, 1]);
    assert_eq!(found(AuditFilter { after: after(5), order: AuditOrder::OldestFirst, ..newest.clone() }).await, [7, 8]);
    assert_eq!(found(AuditFilter { after: after(1), ..newest }).await, [0_i64; 0]);
}

pub async fn texts_that_a_database_cannot_hold_do_not_stop_the_trail(db: Db) {
    let odd = AuditEntry {
        reason: Some("a\0b".into()),
        user_id: "é".repeat(5_000),
        tenant_id: "t".repeat(5_000),
        at: i64::MAX,
        ..entry(1)
    };
    assert_eq!(db.store.append_audit("s", &[odd, entry(2)]).await.expect("append"), 2);
    let rows = rows(&db).await;
    assert_eq!((rows[0].entry.reason.as_deref(), rows[0].entry.at), (Some("a\u{fffd}b"), 0));
    assert!(rows[0].entry.user_id.chars().count() < 500 && rows.iter().all(AuditRow::is_intact));
}
