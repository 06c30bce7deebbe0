//! How PostgreSQL finds rows by statements that it planned when there were few, or had not counted them.

use std::time::Duration;

use sqlx::{Connection, PgConnection};
use wheelhouse::domain::{ResourceId, ResourceKind};

use super::*;

/// Rows that were read by indexes of `jobs` with such a name (LIKE), as far as connections have ended: all but so many.
async fn rows_read_by(index: &str, url: &str, open: i64) -> i64 {
    let mut other = PgConnection::connect(url).await.expect("connect");
    // A connection tells what it has read when it ends.
    let others =
        "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend'";
    while sqlx::query_scalar::<_, i64>(others).fetch_one(&mut other).await.expect("others") > 1 + open {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let read = "SELECT COALESCE(SUM(idx_tup_read), 0)::BIGINT FROM pg_stat_user_indexes
                WHERE relname = 'jobs' AND indexrelname LIKE $1";
    sqlx::query_scalar(read).bind(index).fetch_one(&mut other).await.expect("statistics")
}

/// A store with one connection, which has the plans of all that follows.
async fn store_of_one_connection(url: &str) -> Store {
    Store::open(&config::Database { url: url.into(), connections: 1 }).await.expect("open")
}

/// Plain SQL, and how many rows it changed.
async fn plain(url: &str, text: &'static str) -> i64 {
    let mut other = PgConnection::connect(url).await.expect("connect");
    let changed = sqlx::query(text).execute(&mut other).await.expect("plain SQL").rows_affected();
    i64::try_from(changed).expect("a number")
}

const JOBS_OF_ANOTHER_WORKER: &str = "INSERT INTO jobs (id, tenant_id, status, origin, job_type, host, run)
    SELECT 'other' || n, 'acme', 'running', 'queued', 'work', 'another', 1 FROM generate_series(1, 2000) n";

#[tokio::test]
async fn a_plan_from_when_the_table_was_empty_reads_the_rows_of_its_runs_alone_when_there_are_many() {
    let Db { store, url, .. } = Db::postgres().await;
    drop(store);
    let store = store_of_one_connection(&url).await;
    let (progress, done) = (Progress::default(), RunEnd::Completed(JsonText::default()));
    let work = async |store: &Store, claimed: &[ClaimedJob]| {
        for taken in claimed {
            let report = (taken.run.clone(), SavedRun { progress: progress.clone(), ..SavedRun::default() });
            assert!(matches!(store.save(&taken.run, &report.1).await, Ok(true)));
            let saved = store.save_many(&[std::sync::Arc::new(report)]).await;
            assert_eq!(saved.expect("save"), [SaveOutcome::Saved]);
            assert!(matches!(store.finish(&taken.run, &progress, &done).await, Ok(FinishOutcome::Done(_))));
        }
    };
    let claim = async |store: &Store| {
        let types = ["work".to_owned()];
        store.claim_jobs(&worker("w"), None, &types, Company::None, &|_| true, 40).await.expect("claim")
    };
    store.create_job(&new_job("first", None)).await.expect("create");
    work(&store, &claim(&store).await).await;

    for n in 0..40 {
        store.create_job(&new_job(&format!("j{n}"), None)).await.expect("create");
    }
    let claimed = claim(&store).await;
    assert_eq!(claimed.len(), 32, "as many as one look takes");
    let others = plain(&url, JOBS_OF_ANOTHER_WORKER).await;
    work(&store, &claimed).await;
    drop(store);
    let read = rows_read_by("jobs_hosted", &url, 0).await;
    assert!(read < others, "{read} rows were read by the index of hosts, beside {others} jobs that others host");
}

#[tokio::test]
async fn a_page_reads_its_own_rows_alone_also_where_it_was_planned_when_there_were_few() {
    let Db { store, url, .. } = Db::postgres().await;
    for n in 0..60 {
        store.create_job(&new_job(&format!("j{n}"), None)).await.expect("create");
    }
    drop(store);
    plain(&url, "ANALYZE jobs").await;
    let store = store_of_one_connection(&url).await;
    let filter = JobFilter { limit: 50, ..JobFilter::of(job("j").tenant) };
    assert_eq!(store.jobs(&filter).await.expect("list").items.len(), 50);
    let many = plain(&url, JOBS_OF_ANOTHER_WORKER).await;
    for _ in 0..3 {
        assert_eq!(store.jobs(&filter).await.expect("list").items.len(), 50);
    }
    drop(store);
    let read = rows_read_by("jobs_pkey", &url, 0).await;
    assert!(read < many, "{read} rows were read by their key, for four pages of 50 among {many}");
}

#[tokio::test]
async fn rows_named_by_their_ids_are_read_alone_where_postgresql_has_not_counted_the_rows_of_the_tenant() {
    let Db { store, url, .. } = Db::postgres().await;
    plain(&url, "ALTER TABLE jobs SET (autovacuum_enabled = off)").await;
    drop(store);
    let store = store_of_one_connection(&url).await;
    let tenant = job("j").tenant;
    let ids: Vec<ResourceId> = (0..100).map(|n| format!("j{n}").parse().expect("an id")).collect();
    let submitted =
        |id: &ResourceId| SubmittedJob { job: new_job(id.as_str(), None), submitted_as: format!("ann r1 {id}") };
    let batch: Vec<_> = ids.iter().map(submitted).collect();
    assert_eq!(store.submit_jobs(&batch).await.expect("submit"), BatchOutcome::Made(100));
    let many = plain(&url, JOBS_OF_ANOTHER_WORKER).await;
    assert_eq!(store.submit_jobs(&batch).await.expect("submit"), BatchOutcome::Made(0), "the same lines again");
    assert_eq!(store.existing(&tenant, ResourceKind::Job, &ids).await.expect("existing").len(), 100);
    assert_eq!(store.job_facts(&tenant, &ids).await.expect("facts").len(), 100);
    let names = store.names(&tenant, ResourceKind::Job, &ids).await.expect("names");
    assert!(names.is_empty(), "none of them has a title: {names:?}");
    drop(store);
    let read = rows_read_by("jobs_pkey", &url, 0).await;
    assert!(read < many, "{read} rows were read by their key, for 100 rows four times among {many}");
}

#[tokio::test]
async fn whether_campaigns_are_over_is_asked_of_their_own_jobs_alone() {
    let Db { store, url, .. } = Db::postgres().await;
    let campaigns = "INSERT INTO campaigns (id, tenant_id, status, is_active)
         SELECT 'c' || n, 'acme', 'active', true FROM generate_series(1, 200) n";
    plain(&url, campaigns).await;
    let ended = "INSERT INTO jobs (id, tenant_id, status, origin, job_type, completed_at, campaign_id)
         SELECT 'j' || n, 'acme', 'completed', 'queued', 'work', now(), CASE WHEN n % 2 = 0 THEN 'c' || (1 + n / 2 % 50) END
         FROM generate_series(1, 20000) n";
    plain(&url, ended).await;
    let over = store.campaigns_to_complete(100).await.expect("campaigns");
    assert_eq!(over.len(), 50, "those whose jobs have ended");
    drop(store);
    assert_eq!(rows_read_by("jobs_ended_of_tenant", &url, 0).await, 0);
}

#[tokio::test]
async fn a_look_into_the_queue_reads_no_running_jobs_of_other_systems_and_counts_no_more_of_a_tenants_own_than_matter()
{
    let Db { store, url, .. } = Db::postgres().await;
    drop(store);
    plain(&url, "ALTER TABLE jobs SET (autovacuum_enabled = off)").await;
    let store = store_of_one_connection(&url).await;
    store.create_job(&new_job("first", None)).await.expect("create");
    let look = async |store: &Store| store.claim_job(&worker("w"), None, &["work".to_owned()]).await.expect("claim");
    assert!(look(&store).await.is_some());
    let others = "INSERT INTO jobs (id, tenant_id, status, origin, job_type)
        SELECT 'other' || n, 'acme', 'running', 'external', 'work' FROM generate_series(1, 20000) n";
    plain(&url, others).await;
    store.create_job(&new_job("second", None)).await.expect("create");
    let before = rows_read_by("%", &url, 1).await;
    assert!(look(&store).await.is_some());
    drop(store);
    let read = rows_read_by("%", &url, 0).await - before;
    assert!(read < 1_000, "{read} rows were read beside 20,000 that run in another system");

    // A connection that knows nothing of the table finds the same index.
    let store = store_of_one_connection(&url).await;
    store.create_job(&new_job("third", None)).await.expect("create");
    assert!(look(&store).await.is_some());
    drop(store);
    let own = "UPDATE jobs SET origin = 'queued' WHERE origin = 'external'";
    let read_new = rows_read_by("%", &url, 0).await - read - before;
    assert!(read_new < 1_000, "{read_new} rows were read by a new connection");
    plain(&url, own).await;
    let before = rows_read_by("%", &url, 0).await;
    let store = store_of_one_connection(&url).await;
    store.create_job(&new_job("fourth", None)).await.expect("create");
    assert!(look(&store).await.is_some());
    drop(store);
    let read = rows_read_by("%", &url, 0).await - before;
    assert!((5_000..12_000).contains(&read), "{read} rows were read of 20,000 of the tenant that run");
}

#[tokio::test]
async fn rows_that_could_not_be_read_are_looked_for_among_the_jobs_that_ended_lately_alone() {
    for is_counted in [false, true] {
        let Db { store, url, .. } = Db::postgres().await;
        plain(&url, "ALTER TABLE jobs SET (autovacuum_enabled = off)").await;
        drop(store);
        let store = store_of_one_connection(&url).await;
        let now = jiff::Timestamp::now().as_millisecond();
        let look = async || store.quarantined_since(now - 24 * 3_600_000).await.expect("look").count;
        assert_eq!(look().await, 0);
        let running = plain(&url, JOBS_OF_ANOTHER_WORKER).await;
        let long_ago = "INSERT INTO jobs (id, tenant_id, status, completed_at)
            SELECT 'old' || n, 'acme', 'failed', now() - interval '2 days' FROM generate_series(1, 2000) n";
        let old = plain(&url, long_ago).await;
        let lately = "INSERT INTO jobs (id, tenant_id, status, completed_at, error_message)
            SELECT 'new' || n, 'acme', 'failed', now(), 'The row cannot be read: no' FROM generate_series(1, 9) n";
        plain(&url, lately).await;
        if is_counted {
            plain(&url, "ANALYZE jobs").await;
        }
        let scanned = async || {
            let text = "SELECT COALESCE(seq_tup_read, 0)::BIGINT FROM pg_stat_user_tables WHERE relname = 'jobs'";
            let mut other = PgConnection::connect(&url).await.expect("connect");
            sqlx::query_scalar::<_, i64>(text).fetch_one(&mut other).await.expect("statistics")
        };
        // What ANALYZE and the inserts have read is not the look's.
        assert_eq!(rows_read_by("no such index", &url, 1).await, 0);
        let before = scanned().await;
        // More often than PostgreSQL plans for the values that are given.
        for _ in 0..8 {
            assert_eq!(look().await, 9);
        }
        drop(store);
        let read = rows_read_by("jobs%", &url, 0).await;
        let scanned = scanned().await - before;
        assert!(
            read < old && scanned < running,
            "{read} rows by indexes, {scanned} without, of 9; counted: {is_counted}"
        );
    }
}
