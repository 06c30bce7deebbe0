//! Pages of a long audit trail: found by what rows are about and by their times, without reading those in between.

use wheelhouse::domain::{Action, AuditEntry, AuditEvent};
use wheelhouse::store::{AuditFilter, AuditOrder};

use super::*;
use crate::audit::entry;

/// Rows that a statement may look at.
const MOST_ROWS: u64 = 5_000;

/// What is asked of a trail of `n` rows, one each second.
fn questions(n: i64) -> Vec<AuditFilter> {
    let all = || AuditFilter { tenant: Some(job("j").tenant), limit: 50, ..AuditFilter::default() };
    let (user, resource) = (|name: &str| name.parse().ok(), |id: &str| id.parse().ok());
    let filters = [
        all(),
        AuditFilter { action: Some(Action::Cancel), ..all() },
        AuditFilter { action: Some(Action::Pause), event: Some(AuditEvent::Denied), ..all() },
        AuditFilter { user: user("ann"), ..all() },
        AuditFilter { user: user("early"), ..all() },
        AuditFilter { user: user("ann"), action: Some(Action::Cancel), ..all() },
        AuditFilter { resource: resource("j7"), user: user("ann"), ..all() },
        AuditFilter { event: Some(AuditEvent::Denied), ..all() },
        AuditFilter { since: Some(n / 2 * 1_000), ..all() },
        AuditFilter { until: Some(n / 2 * 1_000), ..all() },
        AuditFilter { since: Some(n / 2 * 1_000), until: Some((n / 2 + 40) * 1_000), user: user("ann"), ..all() },
        AuditFilter { since: Some(n * 2_000), ..all() },
        AuditFilter { until: Some(n * 900), action: Some(Action::Cancel), tenant: None, ..all() },
    ];
    let ordered = |filter: &AuditFilter| {
        let filter = filter.clone();
        [AuditOrder::NewestFirst, AuditOrder::OldestFirst].map(move |order| AuditFilter { order, ..filter.clone() })
    };
    filters.iter().flat_map(ordered).collect()
}

/// The entry of a second: some come late, and those of "early" are all among the first.
fn of_second(n: i64) -> AuditEntry {
    let at = if n % 97 == 5 { (n - 30).max(1) } else { n };
    AuditEntry {
        at: at * 1_000,
        user_id: match n {
            ..=60 => "early",
            _ if n % 3 == 0 => "ann",
            _ => "bob",
        }
        .into(),
        action: if n % 11 == 0 { "cancel" } else { "pause" }.into(),
        event: if n % 50 == 0 { "denied" } else { "accepted" }.into(),
        resource_id: format!("j{}", n % 40),
        tenant_id: if n % 10 == 9 { "globex" } else { "acme" }.into(),
        ..entry(n * 1_000)
    }
}

fn fits(entry: &AuditEntry, filter: &AuditFilter) -> bool {
    filter.tenant.as_ref().is_none_or(|tenant| entry.tenant_id == tenant.as_str())
        && filter.resource.as_ref().is_none_or(|id| entry.resource_id == id.as_str())
        && filter.user.as_ref().is_none_or(|id| entry.user_id == id.as_str())
        && filter.action.is_none_or(|action| entry.action == action.as_str())
        && filter.event.is_none_or(|event| entry.event == event.as_str())
        && filter.since.is_none_or(|since| entry.at >= since)
        && filter.until.is_none_or(|until| entry.at < until)
}

async fn all_pages(db: &Db, mut filter: AuditFilter) -> Vec<i64> {
    let mut found = Vec::new();
    for _ in 0..10_000 {
        let page = db.store.audit(&filter).await.expect("read");
        found.extend(page.items.iter().map(|row| row.id));
        filter.after = page.next;
        if filter.after.is_none() {
            return found;
        }
    }
    panic!("a list without an end: {filter:?}");
}

async fn each_question_finds_what_fits(db: &Db, entries: &[AuditEntry]) {
    for filter in questions(entries.len() as i64) {
        let fit = (1..).zip(entries).filter(|(_, entry)| fits(entry, &filter)).map(|(id, _)| id);
        let mut expected: Vec<i64> = fit.collect();
        if filter.order == AuditOrder::NewestFirst {
            expected.reverse();
        }
        assert_eq!(all_pages(db, filter.clone()).await, expected, "{filter:?}");
    }
}

pub async fn rows_that_came_late_are_found_by_their_times(db: Db) {
    let mut entries: Vec<AuditEntry> = (1..=1_500).map(of_second).collect();
    for some in entries.chunks(300) {
        db.store.append_audit("s", some).await.expect("append");
    }
    each_question_finds_what_fits(&db, &entries).await;
    // A clock that was an hour ahead, and then a program of the version before, which writes what an outage has held up for longer.
    let ahead = AuditEntry { at: 5_100_000, ..entry(1_501_000) };
    let behind = AuditEntry { at: 20_000, ..entry(1_502_000) };
    for (odd, is_of_before) in [(ahead, false), (behind, true)] {
        db.store.append_audit("s", std::slice::from_ref(&odd)).await.expect("append");
        if is_of_before {
            db.sql("UPDATE audit_head SET times_to = 1501, latest_at = 5100000, most_late = 29000")
                .await
                .expect("update");
        }
        entries.push(odd);
        each_question_finds_what_fits(&db, &entries).await;
    }
    let next = of_second(1_503);
    db.store.append_audit("s", std::slice::from_ref(&next)).await.expect("append");
    entries.push(next);
    each_question_finds_what_fits(&db, &entries).await;
}

pub async fn no_page_of_the_trail_reads_the_rows_in_between(db: Db) {
    const ROWS: i64 = 40_000;
    let is_sqlite = db.url.starts_with("sqlite");
    let (numbers, time) = match is_sqlite {
        true => (
            format!("WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {ROWS})"),
            "strftime('%Y-%m-%dT%H:%M:%fZ', n, 'unixepoch')",
        ),
        false => (format!("WITH n (n) AS (SELECT generate_series(1, {ROWS})::BIGINT)"), "to_timestamp(n)"),
    };
    // The last of "ann" and the first "denied" lie far from the beginning of the list that asks for them.
    db.sql(&format!(
        "{numbers} INSERT INTO command_audit (id, at, tenant_id, user_id, resource_kind, resource_id, action, event, stream_id,
           previous_hash, hash)
         SELECT n, {time}, 'acme', CASE WHEN n < {ROWS} / 2 THEN 'ann' WHEN n = 7 THEN 'early' ELSE 'bob' END, 'job', 'j' || (n % 1000),
           CASE WHEN n % 10 = 0 THEN 'cancel' ELSE 'pause' END, CASE WHEN n > {ROWS} / 2 THEN 'denied' ELSE 'accepted' END, 's', '', '' FROM n"
    ))
    .await
    .expect("insert");
    db.sql(&format!(
        "UPDATE audit_head SET last_id = {ROWS}, times_to = {ROWS}, latest_at = {ROWS} * 1000, most_late = 0"
    ))
    .await
    .expect("update");
    for has_statistics in [false, true] {
        if has_statistics {
            db.sql("ANALYZE").await.expect("statistics");
        }
        for filter in questions(ROWS) {
            for plan in db.store.explain_audit(&filter).await.expect("plan") {
                assert_eq!(faults(&plan, is_sqlite), [""; 0], "{plan}");
            }
        }
    }
}

/// Lines of a plan that read more than they should.
fn faults(plan: &str, is_sqlite: bool) -> Vec<String> {
    let number = |line: &str, before: &str| -> Option<u64> {
        line.split(before).nth(1)?.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    };
    let is_fault = |line: &&str| match is_sqlite {
        true => line.contains("SCAN command_audit") || line.contains("TEMP B-TREE"),
        false => {
            line.contains("Seq Scan on command_audit")
                || number(line.rsplit("actual").next().unwrap_or(""), "rows=").is_some_and(|rows| rows > MOST_ROWS)
                || number(line, "Rows Removed by Filter: ").is_some_and(|rows| rows > MOST_ROWS)
        }
    };
    plan.lines().filter(|line| line.starts_with("=> ")).filter(is_fault).map(str::to_owned).collect()
}
