//! Revocations on both databases.

use wheelhouse::store::{NewRevocation, RevocationKind};

use super::Db;

fn user(name: &str) -> NewRevocation<'_> {
    NewRevocation {
        kind: RevocationKind::User,
        name,
        tenant: None,
        keep_until: None,
        revoked_by: Some("admin"),
        reason: None,
    }
}

pub async fn revocations_are_read_from_where_one_stopped_and_removals_are_noticed(db: Db) {
    let first = db.store.revocations_since(None).await.expect("read");
    assert!(first.is_complete && first.rows.is_empty());
    let recorded = db.store.revoke_tokens(&user("ann")).await.expect("revoke");
    let now = jiff::Timestamp::now().as_second();
    assert!((recorded.revoked_at - now).abs() < 60, "{recorded:?}");
    let second = db.store.revocations_since(Some(first.version)).await.expect("read");
    assert!(!second.is_complete);
    assert_eq!(second.rows, [recorded]);
    let nothing = db.store.revocations_since(Some(second.version)).await.expect("read");
    assert!(!nothing.is_complete && nothing.rows.is_empty() && nothing.version == second.version);

    // The same again, in one tenant, is another; renewed, it is the same and kept for as long as either asks for.
    let in_tenant = NewRevocation { tenant: Some("acme"), keep_until: Some(now + 500), ..user("ann") };
    db.store.revoke_tokens(&in_tenant).await.expect("revoke");
    db.store.revoke_tokens(&NewRevocation { keep_until: Some(now + 100), ..in_tenant }).await.expect("revoke");
    let all = db.store.revocations_since(Some(second.version)).await.expect("read");
    assert!(all.is_complete, "one row was changed twice");
    let mut kept: Vec<_> = all.rows.iter().map(|row| (row.tenant.as_deref(), row.keep_until)).collect();
    kept.sort();
    assert_eq!(kept, [(None, None), (Some("acme"), Some(now + 500))]);

    // What another program writes and removes by plain SQL is noticed too.
    db.sql("INSERT INTO revoked_tokens (kind, name, keep_until) VALUES ('token', 'j', 5)").await.expect("insert");
    let by_sql = db.store.revocations_since(Some(all.version)).await.expect("read");
    assert_eq!(by_sql.rows.iter().map(|row| row.name.as_str()).collect::<Vec<_>>(), ["j"]);
    db.sql("DELETE FROM revoked_tokens WHERE name = 'ann' AND tenant_id IS NULL").await.expect("delete");
    let rest = db.store.revocations_since(Some(by_sql.version)).await.expect("read");
    assert!(rest.is_complete && rest.rows.len() == 2, "{rest:?}");
    // A revocation takes those along whose time is over.
    db.store.revoke_tokens(&user("bob")).await.expect("revoke");
    let rest = db.store.revocations_since(None).await.expect("read");
    let mut names: Vec<_> = rest.rows.iter().map(|row| row.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["ann", "bob"]);
    // A database that was put back to an earlier state.
    let earlier = db.store.revocations_since(Some(rest.version + 100)).await.expect("read");
    assert!(earlier.is_complete && earlier.version == rest.version && earlier.rows.len() == 2);
}
