//! Rows that plain SQL has written and no program of this project would: they hold up nobody else, and whoever looks sees what
//! has become of them.

use sqlx::{Connection, Row as _};
use wheelhouse::domain::TenantId;

use super::*;

const MAX: &str = "9223372036854775807";
/// PostgreSQL reads the number without its sign first.
const MIN: &str = "(-9223372036854775807 - 1)";

/// A table of the numbers from 1 to `most`, as `n`.
fn numbers(db: &Db, most: u32) -> String {
    match db.url.starts_with("sqlite") {
        true => format!(
            "(WITH RECURSIVE s (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < {most}) SELECT n FROM s) s"
        ),
        false => format!("generate_series(1, {most}) n"),
    }
}

/// What rows of this id say: their status and error. Also of those that no program of this project can name.
async fn says(db: &Db, of: &str) -> Vec<(String, Option<String>)> {
    let text = sqlx::AssertSqlSafe(format!("SELECT status, error_message FROM jobs WHERE {of} ORDER BY id"));
    if db.url.starts_with("sqlite") {
        let mut other = sqlx::SqliteConnection::connect(&db.url).await.expect("connect");
        let rows = sqlx::query(text).fetch_all(&mut other).await.expect("rows");
        return rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    }
    let mut other = sqlx::PgConnection::connect(&db.url).await.expect("connect");
    let rows = sqlx::query(text).fetch_all(&mut other).await.expect("rows");
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// How many rows have failed because they cannot be read.
async fn quarantined(db: &Db) -> u64 {
    db.changed(
        "UPDATE jobs SET title = title WHERE status = 'failed' AND error_message LIKE 'The row cannot be read: %'",
    )
    .await
}

async fn healthy(db: &Db, tenant: &str, id: &str) {
    let tenant: TenantId = tenant.parse().expect("tenant");
    db.store.create_job(&NewJob { tenant, ..new_job(id, None) }).await.expect("create");
}

pub async fn ten_thousand_rows_that_cannot_be_read_cost_others_no_look(db: Db) {
    const ROWS: u32 = 10_000;
    let text = "INSERT INTO jobs (id, tenant_id, job_type, origin, campaign_id) SELECT";
    db.sql("INSERT INTO campaigns (id, tenant_id) VALUES ('c', 'acme')").await.expect("insert");
    for (what, rows) in
        [("'no:' || n, 'acme', 'work', 'queued', NULL", ROWS), ("'not:' || n, 'acme', 'work', 'queued', 'c'", 60)]
    {
        db.sql(&format!("{text} {what} FROM {}", numbers(&db, rows))).await.expect("insert");
    }
    // One tenant with very many, and very many with one: they come before any other by their names.
    for (what, rows) in
        [("'j' || n, '!', 'work', 'queued', NULL", 2_500), ("'j', '! ' || n, 'work', 'queued', NULL", 1_500)]
    {
        db.sql(&format!("{text} {what} FROM {}", numbers(&db, rows))).await.expect("insert");
    }
    healthy(&db, "acme", "behind").await;
    healthy(&db, "globex", "other").await;
    let mut taken = vec![claim(&db, "w").await.expect("at the first look").job.id.to_string()];
    taken.push(claim(&db, "w").await.expect("at the second").job.id.to_string());
    taken.sort();
    assert_eq!(taken, ["behind", "other"]);
    assert!(claim(&db, "w").await.is_none());
    assert_eq!(quarantined(&db).await, u64::from(ROWS) + 60 + 2_500 + 1_500);
    let ended = says(&db, "id = 'no:7'").await;
    let [(status, Some(error))] = &ended[..] else { panic!("{ended:?}") };
    assert!(status == "failed" && error.contains("no:7") && error.contains("an id that is none"), "{error}");
}

pub async fn rows_that_cannot_be_read_are_met_by_many_workers_at_once(db: Db) {
    let text = "INSERT INTO jobs (id, tenant_id, job_type, origin) SELECT";
    db.sql(&format!("{text} 'no:' || n, 'acme', 'work', 'queued' FROM {}", numbers(&db, 500))).await.expect("insert");
    db.sql(&format!("{text} 'j' || n, 'acme', 'work', 'queued' FROM {}", numbers(&db, 40))).await.expect("insert");
    let types = ["work".to_owned()];
    let workers = (0..4).map(|n| {
        let (store, types) = (db.store.clone(), types.clone());
        async move {
            let mut all = Vec::new();
            for _ in 0..200 {
                let host = worker(&format!("w{n}"));
                let some = store.claim_jobs(&host, None, &types, Company::None, &|_| true, 5).await.expect("claim");
                all.extend(some.into_iter().map(|claimed| claimed.job.id.to_string()));
            }
            all
        }
    });
    let mut all: Vec<String> = futures_util::future::join_all(workers).await.into_iter().flatten().collect();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 40, "each once");
    assert_eq!(quarantined(&db).await, 500);
}

/// What plain SQL can write into a row that waits.
fn odd_values(db: &Db) -> Vec<(&'static str, String)> {
    let mut values = Vec::new();
    for column in [
        "run",
        "fence",
        "deaths",
        "retry_count",
        "max_retries",
        "timeout_used_ms",
        "running_ms",
        "paused_ms",
        "status_since",
        "run_after",
        "items_total",
        "items_processed",
        "items_succeeded",
        "items_failed",
        "left_run",
        "ended_run",
        "remote_ref",
    ] {
        values.extend([MAX, MIN, "-1"].map(|value| (column, value.to_owned())));
    }
    values.push(("timeout_seconds", MAX.to_owned()));
    for column in [
        "retry_count",
        "max_retries",
        "running_ms",
        "paused_ms",
        "items_processed",
        "progress_percent",
        "parameters",
        "title",
    ] {
        values.push((column, "NULL".to_owned()));
    }
    for column in
        ["title", "current_item", "created_by", "resume_point", "alone_in", "paused_from", "rerun_of", "error_message"]
    {
        values.push((column, "''".to_owned()));
    }
    let times: &[&str] = match db.url.starts_with("sqlite") {
        true => &["''", "'yesterday'", "'9999-12-31T23:59:59.999Z'", "'-4713-11-24T12:00:00Z'", "12", "NULL"],
        false => &["'infinity'", "'-infinity'", "'294276-12-31 00:00:00+00'", "'4713-01-01 00:00:00+00 BC'", "NULL"],
    };
    for column in
        ["created_at", "started_at", "completed_at", "cancelled_at", "updated_at", "hosted_at", "contact_lost_at"]
    {
        values.extend(times.iter().map(|value| (column, (*value).to_owned())));
    }
    let of_one: &[(&str, &str)] = match db.url.starts_with("sqlite") {
        true => &[
            ("run", "'many'"),
            ("run", "1.5"),
            ("run", "1e300"),
            ("run", "x'ff'"),
            ("fence", "'new'"),
            ("deaths", "'none'"),
            ("progress_percent", "9e999"),
            ("progress_percent", "'half'"),
            ("parameters", "'{'"),
            ("parameters", "x'ff00'"),
            ("title", "x'ff'"),
            ("current_item", "CAST(x'c328' AS TEXT)"),
            ("resume_point", "x'ff'"),
            ("error_message", "x'ff'"),
            ("created_by", "x'ff'"),
            ("campaign_id", "x'ff'"),
            ("running_ms", "'long'"),
            ("status_since", "x'00'"),
            ("run_after", "'soon'"),
        ],
        false => {
            &[("progress_percent", "'NaN'"), ("progress_percent", "'Infinity'"), ("progress_percent", "'-Infinity'")]
        }
    };
    values.extend(of_one.iter().map(|(column, value)| (*column, (*value).to_owned())));
    values
}

pub async fn no_value_that_plain_sql_can_write_stops_other_rows(db: Db) {
    let types = ["work".to_owned()];
    for (column, value) in odd_values(&db) {
        let what = format!("{column} = {value}");
        db.sql("DELETE FROM jobs").await.expect("delete");
        let at_once = format!(
            "INSERT INTO jobs (id, tenant_id, job_type, origin, {column}) VALUES ('odd', 'acme', 'work', 'queued', {value})"
        );
        db.sql(&at_once).await.expect(&what);
        // And one that is changed while it waits.
        healthy(&db, "acme", "changed").await;
        db.sql(&format!("UPDATE jobs SET {what} WHERE id = 'changed'")).await.expect(&what);
        healthy(&db, "acme", "same-tenant").await;
        healthy(&db, "globex", "other-tenant").await;
        let claimed = db.store.claim_jobs(&worker("w"), None, &types, Company::None, &|_| true, 9).await;
        let mut claimed = claimed.unwrap_or_else(|error| panic!("{what}: {error}"));
        claimed
            .extend(db.store.claim_jobs(&worker("w"), None, &types, Company::None, &|_| true, 9).await.expect(&what));
        for id in ["same-tenant", "other-tenant"] {
            assert!(claimed.iter().any(|claimed| claimed.job.id.as_str() == id), "{what}: {id} waits");
        }
        for id in ["odd", "changed"] {
            let Some(taken) = claimed.iter().find(|claimed| claimed.job.id.as_str() == id) else {
                // It has failed, and says why; or it waits for a campaign that is not there.
                let ended = says(&db, &format!("id = '{id}'")).await;
                let is_said = matches!(&ended[..], [(status, Some(error))] if status == "failed" && error.starts_with("The row cannot"));
                assert!(is_said || column == "campaign_id", "{what}: {ended:?}");
                continue;
            };
            ends_in_every_way(&db, taken, &what).await;
        }
        for sort in [JobSort::Unfinished, JobSort::Created, JobSort::Updated, JobSort::Duration] {
            let filter = JobFilter { sort, limit: 1, ..JobFilter::of(job("j").tenant) };
            let page = db.store.jobs(&filter).await.unwrap_or_else(|error| panic!("{what}: {error}"));
            let after = JobFilter { after: page.next, ..filter };
            db.store.jobs(&after).await.unwrap_or_else(|error| panic!("{what}: {error}"));
        }
    }
}

/// A job that could be begun goes through the hands of several workers.
async fn ends_in_every_way(db: &Db, taken: &ClaimedJob, what: &str) {
    let (store, said) = (&db.store, SavedRun::default());
    assert!(store.save(&taken.run, &said).await.expect(what), "{what}");
    let again = HandBack { failed_with: Some("no luck".to_owned()), ..HandBack::default() };
    assert!(store.hand_back(&taken.run, &again).await.expect(what), "{what}");
    let next = async || {
        db.sql("UPDATE jobs SET run_after = NULL").await.expect("update");
        claim(db, "w").await.unwrap_or_else(|| panic!("{what}: it waits"))
    };
    let second = next().await;
    let released = store.release_dead_run(&second.run, "gone", u32::MAX).await.expect(what);
    assert!(released.is_some(), "{what}");
    let third = next().await;
    let paused = CommandChange { run: Some(third.run.clone()), ..change(third.run.job.clone(), Action::Pause, 7) };
    assert!(matches!(store.apply(&paused).await, Ok(ApplyOutcome::Succeeded { changed: true, .. })), "{what}");
    let resumed = CommandChange { run: Some(third.run.clone()), ..change(third.run.job.clone(), Action::Resume, 8) };
    assert!(matches!(store.apply(&resumed).await, Ok(ApplyOutcome::Succeeded { changed: true, .. })), "{what}");
    let ended = store.finish(&third.run, &Progress::default(), &failed("no luck")).await.expect(what);
    assert!(matches!(ended, FinishOutcome::Done(_)), "{what}");
    // It may wait to be tried again, and is not to be taken for the next one.
    db.sql(&format!("DELETE FROM jobs WHERE id = '{}'", third.run.job.id)).await.expect("delete");
}

pub async fn a_run_after_which_there_can_be_no_other_is_said_to_be_the_last(db: Db) {
    healthy(&db, "acme", "worn-out").await;
    db.sql(&format!("UPDATE jobs SET run = {MAX}")).await.expect("update");
    assert!(claim(&db, "w").await.is_none());
    let ended = says(&db, "id = 'worn-out'").await;
    assert!(
        matches!(&ended[..], [(_, Some(error))] if error.contains("after which there can be no other")),
        "{ended:?}"
    );
    // Nor can a program adopt such a row.
    for origin in ["external", "attached"] {
        db.sql(&format!("UPDATE jobs SET status = 'pending', origin = '{origin}', run = {MAX}")).await.expect("update");
        let attached = db.store.start_attached_job(&new_job("worn-out", None), &worker("w"), None).await;
        assert!(matches!(&attached, Err(StoreError::Refused(why)) if why.contains("no other")), "{attached:?}");
        let mut wish = RemoteWish { session: "s", reference: 1, run: None, tried: None };
        let attached = db.store.attach_remote(&new_job("worn-out", None), &worker("w"), &mut wish).await;
        assert!(matches!(&attached, Err(StoreError::Refused(why)) if why.contains("no other")), "{attached:?}");
    }
}

pub async fn a_row_that_names_nobody_who_could_have_it_is_nobodys_and_says_so(db: Db) {
    let text = "INSERT INTO jobs (id, tenant_id, job_type, origin, status, host) VALUES";
    db.sql(&format!("{text} ('waits', 'acme', 'work', 'queued', 'pending', 'not a worker')")).await.expect("insert");
    db.sql(&format!("{text} ('held', 'acme', 'work', 'queued', 'pending', 'w-1')")).await.expect("insert");
    db.sql(&format!("{text} ('runs', 'acme', 'work', 'queued', 'running', '')")).await.expect("insert");
    db.sql(&format!("{text} ('theirs', 'acme', 'work', 'external', 'running', 'not a worker')")).await.expect("insert");
    healthy(&db, "acme", "fine").await;
    assert_eq!(claim(&db, "w").await.expect("claimed").job.id.as_str(), "fine");
    assert!(claim(&db, "w").await.is_none(), "what somebody else has is not taken from them");
    let hosted = db.store.hosted_runs().await.expect("runs");
    let hosts: std::collections::BTreeSet<&str> = hosted.iter().map(|run| run.host.as_str()).collect();
    assert_eq!(hosts.into_iter().collect::<Vec<_>>(), ["w", "w-1"]);
    assert_eq!(quarantined(&db).await, 2);
    for id in ["waits", "runs"] {
        let ended = says(&db, &format!("id = '{id}'")).await;
        assert!(matches!(&ended[..], [(_, Some(error))] if error.contains("is no worker id")), "{ended:?}");
    }
    assert_eq!(says(&db, "id = 'theirs'").await[0].0, "running", "another system knows who has its jobs");
    // The one that a worker seems to have waits for that worker's end.
    let held = hosted.iter().find(|run| run.host.as_str() == "w-1").expect("held");
    db.store.release_dead_run(held, "gone", 3).await.expect("release").expect("released");
    assert_eq!(claim(&db, "w").await.expect("claimed").job.id.as_str(), "held");
}

pub async fn campaigns_and_announcements_that_cannot_be_read_take_no_places_of_others(db: Db) {
    for (id, of) in [("no:1", 1), ("no:2", 2), ("fine", 3)] {
        db.sql(&format!("INSERT INTO campaigns (id, tenant_id) VALUES ('{id}', 'acme')")).await.expect("insert");
        db.sql(&format!(
            "INSERT INTO jobs (id, tenant_id, campaign_id, origin, status) VALUES ('j{of}', 'acme', '{id}', 'queued', 'completed')"
        ))
        .await
        .expect("insert");
        db.sql(&format!("INSERT INTO announcements (tenant_id, resource_kind, resource_id, about) VALUES ('acme', 'campaign', '{id}', 'status')"))
            .await
            .expect("insert");
    }
    assert_eq!(db.store.campaigns_to_complete(1).await.expect("campaigns"), [campaign("fine")]);
    let owed = db.store.announcements(1).await.expect("announcements");
    assert_eq!(owed.into_iter().map(|(owed, _)| owed.resource).collect::<Vec<_>>(), [campaign("fine")]);
}

pub async fn rows_that_could_not_be_read_lately_are_counted_and_the_newest_is_named(db: Db) {
    let day = 24 * 3_600_000;
    let since = jiff::Timestamp::now().as_millisecond() - day;
    let found = async || db.store.quarantined_since(since).await.expect("quarantined");
    assert_eq!(found().await, QuarantinedRows { count: 0, is_partial: false, newest: None, ..found().await });
    let text = "INSERT INTO jobs (id, tenant_id, job_type, origin) SELECT";
    db.sql(&format!("{text} 'no:' || n, 'acme', 'work', 'queued' FROM {}", numbers(&db, 3))).await.expect("insert");
    assert!(claim(&db, "w").await.is_none());
    // One that is older than a day, some that have failed otherwise, or are not failed, and one that failed later.
    let of = "UPDATE jobs SET completed_at =";
    let ago = |hours: i64| {
        let time = jiff::Timestamp::from_millisecond(since + day - hours * 3_600_000).expect("time");
        format!("'{time:.3}'")
    };
    db.sql(&format!("{of} {} WHERE id = 'no:1'", ago(30))).await.expect("older");
    db.sql(&format!("{of} {} WHERE id = 'no:2'", ago(20))).await.expect("earlier");
    let text = "INSERT INTO jobs (id, tenant_id, status, error_message) VALUES";
    db.sql(&format!("{text} ('a', 'acme', 'failed', 'no luck'), ('b', 'acme', 'completed', NULL)"))
        .await
        .expect("insert");
    db.sql(&format!("{text} ('c', 'acme', 'pending', 'The row cannot be read: no')")).await.expect("insert");
    let now = found().await;
    let newest = now.newest.as_ref().expect("the newest");
    assert_eq!((now.count, now.is_partial, newest.tenant.as_str(), newest.id.as_str()), (2, false, "acme", "no:3"));
    assert!(newest.why.contains("an id that is none"), "{newest:?}");
    // What a person is told to ask finds the same.
    let only = now.select.split_once(" WHERE ").expect("a condition").1;
    assert_eq!(db.changed(&format!("UPDATE jobs SET title = title WHERE {only}")).await, 2);
    // However many end, no more are looked at than the limit.
    let many = format!(
        "INSERT INTO jobs (id, tenant_id, status, completed_at) SELECT 'm' || n, 'acme', 'completed', {} FROM",
        ago(0)
    );
    db.sql(&format!("{many} {}", numbers(&db, 20_000))).await.expect("insert");
    let now = found().await;
    assert!(now.is_partial && now.count < 2, "{now:?}");
}

/// Whether there is such a row.
async fn is_so(db: &Db, table: &str, only: &str) -> bool {
    let column = match table {
        "worker_leases" => "renewals",
        "permission_version" | "revocation_version" => "version",
        _ => "n",
    };
    db.changed(&format!("UPDATE {table} SET {column} = {column} WHERE {only}")).await == 1
}

/// Adds to every number to which statements add, and sees that it has grown.
async fn everything_counts_on(db: &Db, what: &str) {
    let (store, w) = (&db.store, worker("w"));
    for table in ["permission_version", "revocation_version"] {
        db.sql(&format!("CREATE TABLE IF NOT EXISTS before_{table} (version BIGINT)")).await.expect("table");
        db.sql(&format!("INSERT INTO before_{table} (version) SELECT version FROM {table}")).await.expect(what);
    }
    db.sql("DELETE FROM user_permissions").await.expect(what);
    db.sql("INSERT INTO user_permissions (user_id, permission) VALUES ('ann', 'jobs.read')").await.expect(what);
    db.sql("INSERT INTO revoked_tokens (kind, name) VALUES ('token', 't')").await.expect(what);
    db.sql("DELETE FROM revoked_tokens").await.expect(what);
    for table in ["permission_version", "revocation_version"] {
        let grew = format!("version > (SELECT MAX(version) FROM before_{table}) AND version < 9007199254740991");
        assert!(is_so(db, table, &grew).await, "{what}: {table}");
        db.sql(&format!("DROP TABLE before_{table}")).await.expect("drop");
    }
    store.renew_worker_lease(&w).await.expect(what);
    store.renew_worker_lease(&w).await.expect(what);
    assert!(is_so(db, "worker_leases", "renewals BETWEEN 2 AND 9007199254740991").await, "{what}");
    let pending = async || store.job_totals(&job("j").tenant, None).await.expect(what).pending;
    store.add_up_job_counts(false).await.expect(what);
    let before = pending().await;
    healthy(db, "acme", "one-more").await;
    store.add_up_job_counts(false).await.expect(what);
    assert_eq!(pending().await, before + 1, "{what}");
    // It ends, comes back and ends once more.
    for status in ["failed", "pending", "cancelled"] {
        db.sql(&format!("UPDATE jobs SET status = '{status}' WHERE id = 'one-more'")).await.expect(what);
        store.add_up_job_counts(false).await.expect(what);
    }
    store.ended_by_minute(&job("j").tenant, 60).await.expect(what);
    db.sql("DELETE FROM jobs WHERE id = 'one-more'").await.expect("delete");
}

/// What plain SQL may write into them: beyond all, before all, and nothing that can be counted.
fn odd_counters(db: &Db) -> Vec<String> {
    let mut values = [MAX, MIN].map(str::to_owned).to_vec();
    if db.url.starts_with("sqlite") {
        values.extend(["'many'", "1e300", "1.5", "x'ff'"].map(str::to_owned));
    }
    values
}

const COUNTERS: [(&str, &str); 5] = [
    ("worker_leases", "renewals"),
    ("permission_version", "version"),
    ("revocation_version", "version"),
    ("job_counts", "n"),
    ("job_ends", "n"),
];

pub async fn no_counter_that_plain_sql_can_write_stops_those_who_add_to_it(db: Db) {
    healthy(&db, "acme", "stays").await;
    everything_counts_on(&db, "as it is").await;
    for value in odd_counters(&db) {
        for (table, column) in COUNTERS {
            let what = format!("{table}: {column} = {value}");
            assert!(db.changed(&format!("UPDATE {table} SET {column} = {value}")).await > 0, "{what}");
            everything_counts_on(&db, &what).await;
            db.sql(&format!("DELETE FROM {table}")).await.expect(&what);
            let inserted = match table {
                "worker_leases" => format!("(worker_id, renewals) VALUES ('w', {value})"),
                "job_counts" => format!("(tenant_id, campaign_id, status, n) VALUES ('acme', '', 'pending', {value})"),
                "job_ends" => format!("(tenant_id, minute, status, n) VALUES ('acme', 99999999, 'failed', {value})"),
                _ => format!("(id, version) VALUES (1, {value})"),
            };
            db.sql(&format!("INSERT INTO {table} {inserted}")).await.expect(&what);
            everything_counts_on(&db, &what).await;
        }
        if !db.url.starts_with("sqlite") {
            let text = format!(
                "INSERT INTO job_count_changes (tenant_id, campaign_id, status, n, ended_minute) VALUES ('acme', '', 'pending', {value}, 99999999)"
            );
            db.sql(&text).await.expect(&text);
            everything_counts_on(&db, &text).await;
        }
    }
}

pub async fn counters_that_were_odd_before_the_migration_are_put_right_by_it(db: Db) {
    healthy(&db, "acme", "stays").await;
    everything_counts_on(&db, "as it is").await;
    for value in odd_counters(&db) {
        let taken_away = match db.url.starts_with("sqlite") {
            true => COUNTERS.map(|(table, _)| format!("DROP TRIGGER {table}_in_range_i; DROP TRIGGER {table}_in_range_u")).join("; "),
            false => "DROP FUNCTION keep_renewals, keep_new_version, keep_next_version, keep_new_count, keep_former_count CASCADE".to_owned(),
        };
        db.sql(&taken_away).await.expect("as before the migration");
        db.sql("DELETE FROM _sqlx_migrations WHERE version = 39").await.expect("forget the migration");
        // What of it is not yet added up is counted too.
        healthy(&db, "acme", "newer").await;
        for (table, column) in COUNTERS {
            db.sql(&format!("UPDATE {table} SET {column} = {value}")).await.expect(&value);
        }
        assert_eq!(db.store.migrate().await.expect("migrate"), 1);
        let pending = db.store.job_totals(&job("j").tenant, None).await.expect(&value).pending;
        assert_eq!(pending, 2, "{value}");
        everything_counts_on(&db, &value).await;
        db.sql("DELETE FROM jobs WHERE id = 'newer'").await.expect("delete");
    }
}

/// SQLite keeps in a column of texts what is no text.
#[tokio::test]
async fn keys_that_are_no_texts_hold_up_nobody() {
    let db = Db::sqlite().await;
    let text = "INSERT INTO jobs (id, tenant_id, job_type, origin) SELECT";
    db.sql(&format!("{text} CAST('j' || n AS BLOB), 'acme', 'work', 'queued' FROM {}", numbers(&db, 300)))
        .await
        .expect("insert");
    db.sql(&format!("{text} 'j' || n, x'ff', 'work', 'queued' FROM {}", numbers(&db, 300))).await.expect("insert");
    db.sql(&format!("{text} 'j' || n, CAST(x'ff' AS TEXT), 'work', 'queued' FROM {}", numbers(&db, 300)))
        .await
        .expect("insert");
    db.sql(
        &format!("{text} CAST(x'ff0' || n AS TEXT), 'acme', 'work', 'queued' FROM {}", numbers(&db, 300))
            .replace("x'ff0'", "CAST(x'ff' AS TEXT)"),
    )
    .await
    .expect("insert");
    // A campaign of such a name, which even is there.
    db.sql("INSERT INTO campaigns (id, tenant_id) VALUES (x'fe', 'acme')").await.expect("insert");
    db.sql("INSERT INTO jobs (id, tenant_id, job_type, origin, campaign_id) VALUES ('of-it', 'acme', 'work', 'queued', x'fe')")
        .await
        .expect("insert");
    healthy(&db, "acme", "fine").await;
    healthy(&db, "globex", "other").await;
    let mut taken = Vec::new();
    while let Some(claimed) = claim(&db, "w").await {
        taken.push(claimed.job.id.to_string());
    }
    taken.sort();
    assert_eq!(taken.iter().filter(|id| ["fine", "other"].contains(&id.as_str())).count(), 2, "{taken:?}");
    let left = db.changed("UPDATE jobs SET title = title WHERE status = 'pending'").await;
    assert_eq!(left, 0, "each has been taken, or has failed");
    let filter = JobFilter::of(job("j").tenant);
    assert!(db.store.jobs(&filter).await.expect("list").items.iter().any(|job| job.id.as_str() == "fine"));
}
