//! What pages of the audit trail cost, and appending to it beside so many rows.

use std::time::Instant;

use wheelhouse::domain::{Action, AuditEntry, AuditEvent, TenantId};
use wheelhouse::store::{AuditFilter, AuditOrder, Store};

/// Entries that are appended together, as a shipper does.
const TOGETHER: u64 = 100;

/// The questions, by their query.
fn questions(tenant: &TenantId) -> Vec<(&'static str, AuditFilter)> {
    let all = || AuditFilter { tenant: Some(tenant.clone()), limit: 100, ..AuditFilter::default() };
    let user = || "user-3".parse().ok();
    // A day and more for a million rows, ten a second.
    let time = |row: i64| Some(1_767_225_600_000 + row * 100);
    vec![
        ("", all()),
        ("action=cancel", AuditFilter { action: Some(Action::Cancel), ..all() }),
        ("user=…", AuditFilter { user: user(), ..all() }),
        ("user=…&action=cancel", AuditFilter { user: user(), action: Some(Action::Cancel), ..all() }),
        ("resource=…", AuditFilter { resource: "job-77".parse().ok(), ..all() }),
        ("event=denied", AuditFilter { event: Some(AuditEvent::Denied), ..all() }),
        (
            "event=denied&action=cancel",
            AuditFilter { event: Some(AuditEvent::Denied), action: Some(Action::Cancel), ..all() },
        ),
        ("since=…", AuditFilter { since: time(500_000), ..all() }),
        ("until=…", AuditFilter { until: time(500_000), ..all() }),
        (
            "since=…&until=…&action=pause",
            AuditFilter { since: time(500_000), until: time(510_000), action: Some(Action::Pause), ..all() },
        ),
        ("since=…&until=…&user=…", AuditFilter { since: time(500_000), until: time(520_000), user: user(), ..all() }),
    ]
}

/// Measures all of them, in both orders.
pub async fn measure(store: &Store, rows: u64, pages: usize) -> anyhow::Result<()> {
    let tenant: TenantId = "bench-audit".parse()?;
    let is_new = store.audit(&AuditFilter { limit: 1, ..AuditFilter::default() }).await?.items.is_empty();
    if is_new {
        append(store, "append 100 (empty)").await?;
        store.insert_audit_rows(&tenant, rows).await?;
    }
    for order in [AuditOrder::NewestFirst, AuditOrder::OldestFirst] {
        let word = if order == AuditOrder::NewestFirst { "newest" } else { "oldest" };
        for (name, first) in questions(&tenant) {
            let first = AuditFilter { order, ..first };
            let (mut times, mut filter, mut empty) = (Vec::new(), first.clone(), 0);
            for _ in 0..pages {
                let begun = Instant::now();
                let page = store.audit(&filter).await?;
                times.push(begun.elapsed());
                empty += usize::from(page.items.is_empty());
                filter = AuditFilter { after: page.next, ..first.clone() };
            }
            let note = if empty > 0 { format!(" {empty} pages without a row") } else { String::new() };
            super::report(&format!("audit?order={word}&{name}"), times, &note);
        }
    }
    append(store, "append 100 (beside the rows)").await
}

async fn append(store: &Store, name: &str) -> anyhow::Result<()> {
    let mut times = Vec::new();
    let now = jiff::Timestamp::now().as_millisecond();
    for batch in 0..100 {
        let entries = (0..TOGETHER).map(|n| {
            let number = batch * TOGETHER + n;
            serde_json::from_value::<AuditEntry>(serde_json::json!({
                "id": format!("{now}-{number}"), "at": now, "event": "accepted", "tenant_id": "bench-append",
                "user_id": format!("user-{}", number % 50), "resource_kind": "job", "resource_id": format!("job-{number}"),
                "action": "pause", "command_id": format!("{now}-{number}"),
            }))
        });
        let entries = entries.collect::<Result<Vec<_>, _>>()?;
        let begun = Instant::now();
        store.append_audit(&format!("bench-{now}"), &entries).await?;
        times.push(begun.elapsed());
    }
    super::report(name, times, "");
    Ok(())
}
