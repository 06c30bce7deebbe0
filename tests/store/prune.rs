//! Jobs that ended long ago.

use super::*;

const DAY: i64 = 24 * 3_600 * 1_000;

async fn cutoff(db: &Db, days: u64) -> i64 {
    let now = jiff::Timestamp::now().as_millisecond();
    let before = db.store.ended_before(now, Duration::from_secs(days * 24 * 3_600)).await.expect("a time");
    // A clock that runs ahead does not count where another one shows less.
    let ahead = db.store.ended_before(now + 400 * DAY, Duration::from_secs(days * 24 * 3_600)).await.expect("a time");
    if !db.url.starts_with("sqlite") || days == 0 {
        assert!((ahead - before).abs() < DAY, "{ahead} {before}");
    }
    before
}

async fn ids(db: &Db) -> Vec<String> {
    let filter = JobFilter::of(job("j").tenant);
    let mut ids: Vec<String> =
        db.store.jobs(&filter).await.expect("list").items.into_iter().map(|job| job.id.to_string()).collect();
    ids.sort();
    ids
}

pub async fn old_jobs_go_with_what_belongs_to_them_and_others_stay(db: Db) {
    let old = "'2026-01-02T03:04:05.600Z'";
    campaign_of(&db, "over", 3).await;
    campaign_of(&db, "half", 2).await;
    campaign_of(&db, "live", 2).await;
    for id in ["old", "new", "waits"] {
        db.store.create_job(&new_job(id, None)).await.expect("create");
    }
    for text in [
        format!("UPDATE jobs SET status = 'completed', completed_at = {old} WHERE id NOT IN ('waits', 'new', 'live-1')"),
        "UPDATE jobs SET status = 'failed', completed_at = created_at WHERE id IN ('new', 'half-1')".to_owned(),
        format!("UPDATE jobs SET updated_at = {old}, created_at = {old}"),
        "UPDATE jobs SET completed_at = '2999-01-01T00:00:00.000Z' WHERE id IN ('new', 'half-1')".to_owned(),
        format!("UPDATE campaigns SET status = 'completed', completed_at = {old} WHERE id IN ('over', 'half')"),
        "INSERT INTO imported_rows (tenant_id, job_id, row_number, fields) VALUES ('acme', 'old', 1, '[]'), ('acme', 'new', 1, '[]')".to_owned(),
        "INSERT INTO failed_items (tenant_id, job_id, item, error, run) VALUES ('acme', 'old', 'i', 'e', 1), ('acme', 'new', 'i', 'e', 1)".to_owned(),
    ] {
        db.sql(&text).await.expect("plain SQL");
    }
    let items = (0..2_500).map(|n| format!("('acme', 'over-0', {n}, '[]')")).collect::<Vec<_>>().join(", ");
    db.sql(&format!("INSERT INTO imported_rows (tenant_id, job_id, row_number, fields) VALUES {items}"))
        .await
        .expect("rows");
    let before = cutoff(&db, 30).await;
    let would = db.store.prunable_jobs(before).await.expect("count");
    assert_eq!((would.jobs, would.campaigns), (5, 1));
    assert_eq!(ids(&db).await.len(), 10, "nothing is gone yet");
    assert_eq!(db.store.prune_jobs(before, || true).await.expect("stopped"), PrunedJobs::default());
    assert_eq!(db.store.prune_jobs(before, || false).await.expect("prune"), would);
    // A job of a campaign that has not ended stays, and a campaign as long as it has a job.
    assert_eq!(ids(&db).await, ["half-1", "live-0", "live-1", "new", "waits"]);
    let there = async |id: &str| db.store.campaign(&campaign(id)).await.expect("read").is_some();
    assert_eq!((there("over").await, there("half").await, there("live").await), (false, true, true));
    assert_eq!(db.changed("UPDATE imported_rows SET fields = '[1]'").await, 1);
    assert_eq!(db.changed("UPDATE failed_items SET error = 'f'").await, 1);
    assert_eq!(db.store.prune_jobs(before, || false).await.expect("prune"), PrunedJobs::default());
}

pub async fn many_old_jobs_of_one_moment_are_looked_at_step_by_step(db: Db) {
    campaign_of(&db, "live", 250).await;
    campaign_of(&db, "over", 250).await;
    db.sql("UPDATE jobs SET status = 'cancelled', cancelled_at = '2026-01-02T03:04:05.600Z'").await.expect("update");
    db.sql("UPDATE campaigns SET status = 'cancelled', cancelled_at = '2026-01-02T03:04:05.600Z' WHERE id = 'over'")
        .await
        .expect("update");
    let before = cutoff(&db, 1).await;
    let pruned = db.store.prune_jobs(before, || false).await.expect("prune");
    assert_eq!(pruned, PrunedJobs { jobs: 250, campaigns: 1 });
    assert_eq!(ids(&db).await.len(), 250, "the campaign that is active has all its jobs");
}
