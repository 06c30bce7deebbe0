//! Lists are filtered, searched, sorted and paged by the database, and never read the whole table.

use wheelhouse::domain::{CampaignStatus, TenantId};

use super::*;

const STATUSES: [&str; 6] = ["pending", "running", "paused", "completed", "failed", "cancelled"];

/// A row as the test knows it; its place in the list is its `rowid`.
#[derive(Clone, Debug)]
struct Known {
    id: String,
    status: &'static str,
    campaign: Option<&'static str>,
    job_type: &'static str,
    user: Option<&'static str>,
    title: String,
    error: Option<String>,
    /// Seconds after 2026-01-01.
    created: u32,
    updated: u32,
    ran: i64,
}

fn acme() -> TenantId {
    "acme".parse().expect("tenant")
}

fn moment(seconds: u32) -> String {
    format!("2026-01-01T{:02}:{:02}:{:02}Z", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

fn ms(seconds: u32) -> i64 {
    moment(seconds).parse::<jiff::Timestamp>().expect("time").as_millisecond()
}

/// Rows of every kind, put there as another system would.
async fn rows_of(db: &Db, count: usize) -> Vec<Known> {
    fastrand::seed(7);
    let mut known = Vec::new();
    for n in 0..count {
        let pick = |of: usize| fastrand::usize(0..of);
        let status = STATUSES[pick(6)];
        known.push(Known {
            id: format!("j{n}"),
            status,
            campaign: [None, Some("c1"), Some("c2")][pick(3)],
            job_type: ["import", "mail", "report"][pick(3)],
            user: [None, Some("ann"), Some("bob")][pick(3)],
            title: format!("Orders {}%_of {}", pick(7), ["North", "South"][pick(2)]),
            error: (status == "failed").then(|| format!("disk {} is full", pick(3))),
            created: fastrand::u32(0..400),
            updated: fastrand::u32(0..400),
            ran: fastrand::i64(0..50) * 1_000,
        });
    }
    let text = |value: Option<&str>| value.map_or("NULL".to_owned(), |value| format!("'{value}'"));
    for some in known.chunks(200) {
        let rows: Vec<String> = some
            .iter()
            .map(|row| {
                format!(
                    "('{}', 'acme', '{}', {}, '{}', {}, '{}', {}, '{}', '{}', {}, 1)",
                    row.id,
                    row.status,
                    text(row.campaign),
                    row.job_type,
                    text(row.user),
                    row.title,
                    text(row.error.as_deref()),
                    moment(row.created),
                    moment(row.updated),
                    row.ran
                )
            })
            .collect();
        db.sql(&format!(
            "INSERT INTO jobs (id, tenant_id, status, campaign_id, job_type, created_by, title, error_message, created_at,
               updated_at, running_ms, status_since) VALUES {}",
            rows.join(", ")
        ))
        .await
        .expect("insert");
    }
    db.sql("INSERT INTO jobs (id, tenant_id, status, job_type, title) VALUES ('theirs', 'globex', 'failed', 'mail', 'North')")
        .await
        .expect("insert");
    known
}

fn unfinished(row: &Known) -> bool {
    STATUSES[..3].contains(&row.status)
}

/// What a list has to give: the rows that fit, in its order.
fn expected(known: &[Known], filter: &JobFilter) -> Vec<String> {
    let mut fit: Vec<(usize, &Known)> = known.iter().enumerate().filter(|(_, row)| fits(row, filter)).collect();
    let now = jiff::Timestamp::now().as_millisecond();
    fit.sort_by_key(|(n, row)| {
        let key = match filter.sort {
            JobSort::Unfinished => 0,
            JobSort::Created => i64::from(row.created),
            JobSort::Updated => i64::from(row.updated),
            // Those that run have run since the beginning of time.
            JobSort::Duration if row.status == "running" => now + row.ran,
            JobSort::Duration => row.ran,
        };
        (key, *n)
    });
    if !filter.ascending {
        fit.reverse();
    }
    if filter.sort == JobSort::Unfinished {
        fit.sort_by_key(|(_, row)| !unfinished(row));
    }
    fit.iter().map(|(_, row)| row.id.clone()).collect()
}

fn fits(row: &Known, filter: &JobFilter) -> bool {
    let text = filter.text.as_ref().map(|text| text.to_lowercase());
    let has = |field: Option<&str>| text.as_ref().is_none_or(|text| field.unwrap_or("").to_lowercase().contains(text));
    (filter.status.is_empty() || filter.status.iter().any(|status| status.as_str() == row.status))
        && filter.campaign.as_ref().is_none_or(|campaign| row.campaign == Some(campaign.as_str()))
        && filter.job_type.as_ref().is_none_or(|job_type| row.job_type == job_type)
        && filter.created_by.as_ref().is_none_or(|user| row.user == Some(user))
        && filter.worker.is_none()
        && filter.created_after.is_none_or(|time| ms(row.created) >= time)
        && filter.created_before.is_none_or(|time| ms(row.created) < time)
        && filter.updated_after.is_none_or(|time| ms(row.updated) >= time)
        && filter.updated_before.is_none_or(|time| ms(row.updated) < time)
        && (has(Some(&row.title))
            || has(Some(&row.id))
            || has(Some(row.job_type))
            || has(row.user)
            || has(row.error.as_deref()))
}

async fn all_pages(db: &Db, mut filter: JobFilter) -> Vec<String> {
    let mut found = Vec::new();
    for _ in 0..10_000 {
        let page = db.store.jobs(&filter).await.expect("list");
        assert!(page.items.len() <= filter.limit as usize);
        found.extend(page.items.iter().map(|job| job.id.to_string()));
        filter.after = page.next;
        if filter.after.is_none() {
            return found;
        }
    }
    panic!("a list without an end: {filter:?}");
}

const SORTS: [JobSort; 4] = [JobSort::Unfinished, JobSort::Created, JobSort::Updated, JobSort::Duration];

/// Some filters, each in every order.
fn questions() -> Vec<JobFilter> {
    let all = || JobFilter { limit: 97, ..JobFilter::of(acme()) };
    let text = |text: &str| JobFilter { text: Some(text.to_owned()), ..all() };
    let filters = [
        all(),
        JobFilter { status: vec![JobStatus::Failed], ..all() },
        JobFilter { status: vec![JobStatus::Failed, JobStatus::Running, JobStatus::Cancelled], ..all() },
        JobFilter { campaign: Some("c1".parse().expect("id")), ..all() },
        JobFilter { job_type: Some("mail".to_owned()), status: vec![JobStatus::Completed], ..all() },
        JobFilter { job_type: Some("mail".to_owned()), created_by: Some("ann".to_owned()), ..all() },
        JobFilter { worker: Some("nobody".to_owned()), ..all() },
        JobFilter { created_after: Some(ms(100)), created_before: Some(ms(140)), ..all() },
        JobFilter { updated_after: Some(ms(390)), created_before: Some(ms(200)), ..all() },
        JobFilter {
            updated_after: Some(ms(20)),
            updated_before: Some(ms(200)),
            status: vec![JobStatus::Failed],
            ..all()
        },
        text("3%_OF NORTH"),
        text("disk 2"),
        text("j17"),
        JobFilter { status: vec![JobStatus::Pending], campaign: Some("c2".parse().expect("id")), ..text("bob") },
        text("nothing like that"),
    ];
    let ordered = |filter: &JobFilter| {
        let filter = filter.clone();
        SORTS
            .into_iter()
            .flat_map(move |sort| [false, true].map(|ascending| JobFilter { sort, ascending, ..filter.clone() }))
    };
    filters.iter().flat_map(ordered).collect()
}

pub async fn every_filter_and_order_gives_the_rows_that_fit_in_pages(db: Db) {
    // More than what is looked at together, and more than what counts as few.
    let known = rows_of(&db, 5_000).await;
    for filter in questions() {
        assert_eq!(all_pages(&db, filter.clone()).await, expected(&known, &filter), "{filter:?}");
    }
    let counts = db.store.job_totals(&acme(), None).await.expect("totals");
    let of = |status: &str| known.iter().filter(|row| row.status == status).count() as i64;
    assert_eq!((counts.pending, counts.failed, counts.total()), (of("pending"), of("failed"), 5_000));
    let counts = db.store.job_totals(&acme(), Some(&"c1".parse().expect("id"))).await.expect("totals");
    assert_eq!(counts.total(), known.iter().filter(|row| row.campaign == Some("c1")).count() as i64);
}

pub async fn a_page_goes_on_where_the_last_one_ended_while_rows_change(db: Db) {
    let known = rows_of(&db, 600).await;
    for sort in SORTS {
        let mut filter = JobFilter { sort, limit: 50, ..JobFilter::of(acme()) };
        let (mut seen, mut n) = (Vec::new(), 0);
        loop {
            let page = db.store.jobs(&filter).await.expect("list");
            seen.extend(page.items.iter().map(|job| job.id.to_string()));
            // Rows come and go, before the place that was reached and behind it.
            let new = format!("new-{}-{n}", sort as usize);
            db.sql(&format!(
                "INSERT INTO jobs (id, tenant_id, status, created_at, updated_at) VALUES ('{new}', 'acme', 'pending', '{}', '{}')",
                moment(399 - n % 400),
                moment(399 - n % 400)
            ))
            .await
            .expect("insert");
            db.sql(&format!("DELETE FROM jobs WHERE tenant_id = 'acme' AND id = 'new-{}-{}'", sort as usize, n / 2))
                .await
                .expect("delete");
            n += 1;
            filter.after = page.next;
            if filter.after.is_none() {
                break;
            }
        }
        let old: Vec<String> = seen.iter().filter(|id| id.starts_with('j')).cloned().collect();
        let all = JobFilter { after: None, ..filter.clone() };
        assert_eq!(old, expected(&known, &all), "{sort:?}: each row that stayed as it was is there once");
        db.sql("DELETE FROM jobs WHERE tenant_id = 'acme' AND id LIKE 'new-%'").await.expect("delete");
        // A cursor is good for its own question.
        let page = db.store.jobs(&JobFilter { after: None, ..filter.clone() }).await.expect("list");
        for other in [
            JobFilter { after: page.next.clone(), ascending: true, ..filter.clone() },
            JobFilter { after: page.next.clone(), status: vec![JobStatus::Failed], ..filter.clone() },
            JobFilter { after: page.next.clone(), tenant: "globex".parse().expect("tenant"), ..filter.clone() },
        ] {
            assert!(Store::check_job_cursor(&other).expect_err("another list").contains("another list"));
            assert!(matches!(db.store.jobs(&other).await, Err(StoreError::Conflict(_))));
        }
        let longer = JobFilter { after: page.next, limit: 7, ..filter.clone() };
        assert_eq!(Store::check_job_cursor(&longer), Ok(()), "another length of page is no other list");
    }
}

/// Sixty thousand rows of two tenants, made by the database itself: 150 of each second, and the last that was made changed first.
async fn crowd(db: &Db) {
    let (numbers, time) = match db.url.starts_with("sqlite") {
        true => (
            "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 60000)",
            ["strftime('%Y-%m-%dT%H:%M:%SZ', 1767225600 + ", ", 'unixepoch')"],
        ),
        false => ("WITH n (n) AS (SELECT generate_series(1, 60000)::BIGINT)", ["to_timestamp(1767225600 + ", ")"]),
    };
    let [created, updated] = ["n / 150", "400 - n / 150"].map(|seconds| time.join(seconds));
    db.sql(&format!(
        "{numbers} INSERT INTO jobs (id, tenant_id, status, campaign_id, job_type, created_by, title, created_at, updated_at)
         SELECT 'j' || n, CASE WHEN n % 10 = 0 THEN 'globex' ELSE 'acme' END,
           CASE WHEN n % 100 = 1 THEN 'failed' WHEN n % 50 = 2 THEN 'running' WHEN n > 55000 THEN 'pending' ELSE 'completed' END,
           'c' || (n % 40), CASE WHEN n % 3 = 0 THEN 'mail' ELSE 'import' END, 'user' || (n % 7), 'Title ' || n, {created}, {updated}
           FROM n"
    ))
    .await
    .expect("insert");
}

/// Words of a plan that reads or sorts what it should not.
fn faults(plan: &str, is_sqlite: bool, is_later: bool) -> Vec<String> {
    let lines = plan.lines().filter(|line| line.starts_with("=> "));
    if is_sqlite {
        // Subqueries that were limited are merged and sorted, once; a table is not scanned, and no branch of it is sorted. A
        // later page looks its beginning up.
        let (mut found, mut sorted) = (Vec::new(), 0);
        for line in lines.map(|line| line.trim_start_matches("=> ")) {
            let is_scan = line == "SCAN jobs" || line == "SCAN campaigns" || line.starts_with("SCAN jobs USING");
            let from_the_start = is_later && line.contains("_by_") && line.ends_with("(tenant_id=?)");
            sorted += usize::from(line == "USE TEMP B-TREE FOR ORDER BY");
            if is_scan || from_the_start || sorted > 1 {
                found.push(line.to_owned());
            }
        }
        return found;
    }
    let number = |line: &str, before: &str| -> Option<u64> {
        line.split(before).nth(1)?.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    };
    // Whatever it does, it does it to some thousand rows at most.
    let is_fault = |line: &&str| {
        line.contains("Seq Scan on jobs")
            || line.contains("Seq Scan on campaigns")
            || number(line.rsplit("actual").next().unwrap_or(""), "rows=").is_some_and(|rows| rows > MOST_ROWS)
            || number(line, "Rows Removed by Filter: ").is_some_and(|rows| rows > MOST_ROWS)
    };
    lines.filter(is_fault).map(str::to_owned).collect()
}

/// What a statement of a list looks at, at most: a step of its walk for each branch.
const MOST_ROWS: u64 = 6_000;

/// SQLite is told which index to take. PostgreSQL chooses by statistics, which its autovacuum keeps; without any it guesses.
pub async fn no_list_reads_or_sorts_the_whole_table(db: Db) {
    crowd(&db).await;
    let is_sqlite = db.url.starts_with("sqlite");
    if !is_sqlite {
        db.sql("ANALYZE").await.expect("statistics");
    }
    for mut filter in questions() {
        filter.limit = 50;
        // The first page, and the one after it, in the middle of rows that are all of the same time.
        for is_later in [false, true] {
            if is_later {
                filter.after = db.store.jobs(&filter).await.expect("list").next;
            }
            for plan in db.store.explain_jobs(&filter).await.expect("plan") {
                assert_eq!(faults(&plan, is_sqlite, filter.after.is_some()), [""; 0], "{plan}");
            }
        }
    }
    let campaigns = CampaignFilter { sort: JobSort::Created, ..CampaignFilter::of(acme()) };
    for filter in [campaigns.clone(), CampaignFilter { text: Some("x".to_owned()), ..campaigns }] {
        for plan in db.store.explain_campaigns(&filter).await.expect("plan") {
            assert_eq!(faults(&plan, is_sqlite, false), [""; 0], "{plan}");
        }
    }
}

pub async fn campaigns_are_filtered_and_sorted_too(db: Db) {
    db.sql(
        "INSERT INTO campaigns (id, tenant_id, name, status, created_by, created_at, updated_at) VALUES
           ('c1', 'acme', 'Spring', 'completed', 'ann', '2026-01-01T00:00:05Z', '2026-01-01T00:00:09Z'),
           ('c2', 'acme', 'Summer', 'active', 'bob', '2026-01-01T00:00:04Z', '2026-01-01T00:00:08Z'),
           ('c3', 'acme', NULL, 'cancelled', 'ann', '2026-01-01T00:00:06Z', '2026-01-01T00:00:07Z'),
           ('c4', 'acme', 'Autumn', 'paused', NULL, '2026-01-01T00:00:03Z', '2026-01-01T00:00:06Z'),
           ('c1', 'globex', 'Spring', 'active', 'ann', '2026-01-01T00:00:05Z', '2026-01-01T00:00:09Z')",
    )
    .await
    .expect("insert");
    let all = CampaignFilter { limit: 2, ..CampaignFilter::of(acme()) };
    let list = async |mut filter: CampaignFilter| {
        let mut ids = Vec::new();
        loop {
            let page = db.store.campaigns(&filter).await.expect("list");
            ids.extend(page.items.iter().map(|campaign| campaign.id.to_string()));
            filter.after = page.next;
            if filter.after.is_none() {
                return ids.join(" ");
            }
        }
    };
    assert_eq!(list(all.clone()).await, "c4 c2 c3 c1");
    assert_eq!(list(CampaignFilter { sort: JobSort::Created, ..all.clone() }).await, "c3 c1 c2 c4");
    let oldest = CampaignFilter { sort: JobSort::Updated, ascending: true, ..all.clone() };
    assert_eq!(list(oldest).await, "c4 c3 c2 c1");
    let some = CampaignFilter { status: vec![CampaignStatus::Paused, CampaignStatus::Completed], ..all.clone() };
    assert_eq!(list(some).await, "c4 c1");
    assert_eq!(list(CampaignFilter { text: Some("SUM".to_owned()), ..all.clone() }).await, "c2");
    assert_eq!(list(CampaignFilter { created_by: Some("ann".to_owned()), ..all.clone() }).await, "c3 c1");
    assert_eq!(list(CampaignFilter { created_before: Some(ms(5)), ..all }).await, "c4 c2");
}
