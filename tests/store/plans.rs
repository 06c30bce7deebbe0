//! How PostgreSQL finds rows by statements that it planned when there were few.

use std::time::Duration;

use sqlx::{Connection, PgConnection};

use super::*;

/// Rows that were read by this index, as far as connections have ended.
async fn rows_read_by(index: &str, url: &str) -> i64 {
    let mut other = PgConnection::connect(url).await.expect("connect");
    // A connection tells what it has read when it ends.
    let others =
        "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend'";
    while sqlx::query_scalar::<_, i64>(others).fetch_one(&mut other).await.expect("others") > 1 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let read = "SELECT COALESCE(SUM(idx_tup_read), 0)::BIGINT FROM pg_stat_user_indexes WHERE indexrelname = $1";
    sqlx::query_scalar(read).bind(index).fetch_one(&mut other).await.expect("statistics")
}

#[tokio::test]
async fn a_plan_from_when_the_table_was_empty_reads_the_rows_of_its_runs_alone_when_there_are_many() {
    let Db { store, url, .. } = Db::postgres().await;
    drop(store);
    let settings = config::Database { url: url.clone().into(), connections: 1 };
    // One connection has the plans of all that follows.
    let store = Store::open(&settings).await.expect("open");
    let (progress, done) = (Progress::default(), RunEnd::Completed(JsonText::default()));
    let nobodys = Run { job: job("nowhere"), host: worker("w"), number: 1 };
    let report =
        |run: &Run| std::sync::Arc::new((run.clone(), SavedRun { progress: progress.clone(), ..SavedRun::default() }));
    assert!(matches!(store.finish(&nobodys, &progress, &done).await, Ok(FinishOutcome::Lost)));
    store.save_many(&[report(&nobodys)]).await.expect("save");
    store.save(&nobodys, &SavedRun::default()).await.expect("save");

    let ids: Vec<String> = (0..40).map(|n| format!("j{n}")).collect();
    for id in &ids {
        store.create_job(&new_job(id, None)).await.expect("create");
    }
    let claimed =
        store.claim_jobs(&worker("w"), None, &["work".into()], Company::None, &|_| true, 40).await.expect("claim");
    assert_eq!(claimed.len(), 32, "as many as one look takes");
    let before = rows_of_others(&url).await;
    for taken in &claimed {
        store.save(&taken.run, &SavedRun::default()).await.expect("save");
        assert_eq!(store.save_many(&[report(&taken.run)]).await.expect("save"), [SaveOutcome::Saved]);
        assert!(matches!(store.finish(&taken.run, &progress, &done).await, Ok(FinishOutcome::Done(_))));
    }
    drop(store);
    let read = rows_read_by("jobs_hosted", &url).await;
    assert!(read < before, "{read} rows were read by the index of hosts, beside {before} jobs that others host");
}

#[tokio::test]
async fn a_page_reads_its_own_rows_alone_also_where_it_was_planned_when_there_were_few() {
    let Db { store, url, .. } = Db::postgres().await;
    for n in 0..60 {
        store.create_job(&new_job(&format!("j{n}"), None)).await.expect("create");
    }
    drop(store);
    let mut other = PgConnection::connect(&url).await.expect("connect");
    sqlx::query("ANALYZE jobs").execute(&mut other).await.expect("analyze");
    let store = Store::open(&config::Database { url: url.clone().into(), connections: 1 }).await.expect("open");
    let filter = JobFilter { limit: 50, ..JobFilter::of(job("j").tenant) };
    assert_eq!(store.jobs(&filter).await.expect("list").items.len(), 50);
    let many = rows_of_others(&url).await;
    for _ in 0..3 {
        assert_eq!(store.jobs(&filter).await.expect("list").items.len(), 50);
    }
    drop((store, other));
    let read = rows_read_by("jobs_pkey", &url).await;
    assert!(read < many, "{read} rows were read by their key, for four pages of 50 among {many}");
}

#[tokio::test]
async fn whether_campaigns_are_over_is_asked_of_their_own_jobs_alone() {
    let Db { store, url, .. } = Db::postgres().await;
    for n in 0..20 {
        let id = format!("c{n}").parse().expect("id");
        let jobs = vec![new_job(&format!("j{n}"), Some(&format!("c{n}")))];
        let campaign = NewCampaign { id, tenant: job("j").tenant, name: None, created_by: None, jobs };
        store.create_campaign(&campaign).await.expect("create");
    }
    let mut other = PgConnection::connect(&url).await.expect("connect");
    for text in [
        "INSERT INTO jobs (id, tenant_id, status, origin, job_type, completed_at)
         SELECT 'ended' || n, 'acme', 'completed', 'queued', 'work', now() FROM generate_series(1, 5000) n",
        "UPDATE jobs SET status = 'completed', completed_at = now() WHERE campaign_id >= 'c15' AND campaign_id <= 'c19'",
    ] {
        sqlx::query(text).execute(&mut other).await.expect("plain SQL");
    }
    let over = store.campaigns_to_complete(100).await.expect("campaigns");
    assert_eq!(over.len(), 5, "those whose jobs have ended: {over:?}");
    drop((store, other));
    assert_eq!(rows_read_by("jobs_ended_of_tenant", &url).await, 0);
}

/// Puts jobs there that other workers host, and says how many.
async fn rows_of_others(url: &str) -> i64 {
    let text = "INSERT INTO jobs (id, tenant_id, status, origin, job_type, host, run)
                SELECT 'other' || n, 'acme', 'running', 'queued', 'work', 'another', 1 FROM generate_series(1, 2000) n";
    let mut other = PgConnection::connect(url).await.expect("connect");
    let made = sqlx::query(text).execute(&mut other).await.expect("insert").rows_affected();
    i64::try_from(made).expect("a number")
}
