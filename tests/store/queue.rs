//! Which of many waiting jobs a worker gets.

use super::*;

/// The clock of these tests stands still: what lies ahead stays there, however long they take.
const NOW: i64 = 1_800_000_000_000;

/// A waiting job as the test knows it: in the order of their making.
#[derive(Debug, Clone, PartialEq)]
struct Waiting {
    id: String,
    tenant: String,
    campaign: Option<String>,
    job_type: &'static str,
    due: bool,
}

/// Tenants with paused and active campaigns, more jobs in front than one look takes in, of several types, some of
/// them waiting for a retry.
async fn crowd(db: &Db, seed: u64) -> (Vec<Waiting>, Vec<String>) {
    let mut random = fastrand::Rng::with_seed(seed);
    let (mut campaigns, mut active, mut waiting) = (Vec::new(), Vec::new(), Vec::new());
    for tenant in ["a", "b", "c", "d"] {
        for n in 0..3 {
            let is_active = random.bool();
            campaigns
                .push(format!("('{n}', '{tenant}', {is_active}, '{}')", if is_active { "active" } else { "paused" }));
            if is_active {
                active.push(format!("{tenant}/{n}"));
            }
        }
    }
    let mut rows = Vec::new();
    while waiting.len() < 250 {
        let tenant = ["a", "b", "c", "d"][random.usize(0..4)];
        let campaign = random.bool().then(|| random.usize(0..3).to_string());
        let (job_type, due) = (["work", "more", "unknown"][random.usize(0..3)], random.u8(0..5) > 0);
        // Many alike in a row: what stands in front of others.
        for _ in 0..random.usize(1..50) {
            let id = format!("j{}", waiting.len());
            let after = if due { "NULL".to_owned() } else { (NOW + 60_000).to_string() };
            let of = campaign.as_ref().map_or("NULL".to_owned(), |c| format!("'{c}'"));
            rows.push(format!("('{id}', '{tenant}', {of}, '{job_type}', 'queued', {after})"));
            waiting.push(Waiting { id, tenant: tenant.into(), campaign: campaign.clone(), job_type, due });
        }
    }
    let (campaigns, rows) = (campaigns.join(", "), rows.join(", "));
    db.sql(&format!("INSERT INTO campaigns (id, tenant_id, is_active, status) VALUES {campaigns}"))
        .await
        .expect("insert");
    db.sql(&format!("INSERT INTO jobs (id, tenant_id, campaign_id, job_type, origin, run_after) VALUES {rows}"))
        .await
        .expect("insert");
    (waiting, active)
}

pub async fn the_job_that_is_claimed_is_the_one_that_a_look_at_all_of_them_would_choose(db: Db) {
    let seed = fastrand::u64(..);
    let (mut waiting, active) = crowd(&db, seed).await;
    let store = db.store.clone().by_clock(|| NOW);
    let mine = ["b", "c"].map(|t| t.parse::<wheelhouse::domain::TenantId>().expect("tenant"));
    let mut running: std::collections::HashMap<String, usize> = std::collections::HashMap::new();
    for turn in 0.. {
        let (tenants, types) =
            if turn % 3 == 0 { (Some(&mine[..]), vec!["more"]) } else { (None, vec!["work", "more"]) };
        let can_run = |job: &&Waiting| {
            job.due
                && types.contains(&job.job_type)
                && tenants.is_none_or(|tenants| tenants.iter().any(|t| t.as_str() == job.tenant))
                && job.campaign.as_ref().is_none_or(|c| active.contains(&format!("{}/{c}", job.tenant)))
        };
        // Of equally good ones the first: the oldest.
        let best =
            waiting.iter().filter(can_run).min_by_key(|job| running.get(&job.tenant).copied().unwrap_or(0)).cloned();
        let words: Vec<String> = types.iter().map(|t| (*t).to_owned()).collect();
        let found = store.claim_job(&worker("w"), tenants, &words).await.expect("claim");
        let found = found.map(|hosted| hosted.job.id.to_string());
        assert_eq!(found, best.as_ref().map(|job| job.id.clone()), "seed {seed}, turn {turn}");
        match best {
            Some(job) => {
                waiting.retain(|other| *other != job);
                *running.entry(job.tenant).or_default() += 1;
            }
            None if turn % 3 == 0 => {}
            None => break,
        }
    }
    assert!(!waiting.is_empty(), "some can never run");
}

/// Many at once are those that one after the other would have been, and nobody gets one twice.
pub async fn jobs_that_are_claimed_together_are_those_that_would_come_one_by_one(db: Db) {
    let seed = fastrand::u64(..);
    let (_, _) = crowd(&db, seed).await;
    let store = db.store.clone().by_clock(|| NOW);
    let types = ["work".to_owned(), "more".to_owned()];
    let ids = |claimed: &[ClaimedJob]| {
        let id = |claimed: &ClaimedJob| format!("{}/{}", claimed.job.tenant_id, claimed.job.id);
        claimed.iter().map(id).collect::<std::collections::BTreeSet<_>>()
    };
    for limit in [1, 7, 32] {
        let mut singly = Vec::new();
        for _ in 0..limit {
            singly.extend(store.claim_job(&worker("w"), None, &types).await.expect("claim"));
        }
        db.sql("UPDATE jobs SET status = 'pending', host = NULL WHERE host = 'w'").await.expect("back again");
        let mut claimed = Vec::new();
        while claimed.len() < singly.len() {
            let room = limit - claimed.len();
            let some =
                store.claim_jobs(&worker("w"), None, &types, Company::None, &|_| true, room).await.expect("claim");
            assert!(!some.is_empty(), "seed {seed}, {limit} at once: more wait");
            claimed.extend(some);
        }
        assert_eq!(ids(&claimed), ids(&singly), "seed {seed}, {limit} at once");
        for ClaimedJob { job, run, .. } in &claimed {
            assert_eq!((job.status, run.number, &run.host), (JobStatus::Running, 2, &worker("w")), "{}", job.id);
            assert!(store.finish(run, &Progress::default(), &failed("no luck")).await.is_ok());
        }
    }
    // Where a look says that it left nothing, the next one finds nothing.
    let mut looks = 0;
    loop {
        let limit = fastrand::usize(2..40);
        let look =
            store.look_for_jobs(&worker("w"), None, &types, Company::None, &|_| true, limit).await.expect("look");
        looks += 1;
        if look.left != LeftInQueue::MayBeMore {
            assert_eq!(look.left, LeftInQueue::NothingWaits, "seed {seed}, look {looks}");
            break;
        }
        assert!(!look.jobs.is_empty(), "seed {seed}, look {looks}: nobody else takes any");
    }
    let more = store.claim_jobs(&worker("w"), None, &types, Company::None, &|_| true, 9).await.expect("claim");
    assert!(more.is_empty(), "seed {seed}, after {looks} looks: {more:?}");
    db.sql("UPDATE jobs SET status = 'pending', host = NULL WHERE host = 'w'").await.expect("back again");
    let several = ["a", "b", "c"].map(|name| {
        let (store, types) = (store.clone(), types.clone());
        async move {
            let mut all = Vec::new();
            loop {
                let some =
                    store.claim_jobs(&worker(name), None, &types, Company::None, &|_| true, 9).await.expect("claim");
                if some.is_empty() {
                    return all;
                }
                all.extend(some);
            }
        }
    });
    let all: Vec<ClaimedJob> = futures_util::future::join_all(several).await.into_iter().flatten().collect();
    assert_eq!(ids(&all).len(), all.len(), "seed {seed}: a job was claimed twice");
}

pub async fn a_tenant_with_very_many_jobs_does_not_hold_up_the_others(db: Db) {
    let rows: Vec<String> = (0..3_000).map(|n| format!("('h{n}', 'hot', 'work', 'queued')")).collect();
    let text = format!("INSERT INTO jobs (id, tenant_id, job_type, origin) VALUES {}", rows.join(", "));
    db.sql(&text).await.expect("insert");
    let mut held = Vec::new();
    for _ in 0..8 {
        held.push(claim(&db, "w").await.expect("claimed"));
    }
    for tenant in ["cold", "cool"] {
        for n in 0..4 {
            let job = NewJob { tenant: tenant.parse().expect("tenant"), ..new_job(&format!("{tenant}{n}"), None) };
            db.store.create_job(&job).await.expect("create");
        }
    }
    let mut taken = Vec::new();
    for _ in 0..9 {
        taken.push(claim(&db, "w").await.expect("claimed").job.id.to_string());
    }
    assert_eq!(taken, ["cold0", "cool0", "cold1", "cool1", "cold2", "cool2", "cold3", "cool3", "h8"]);
    // What has ended no longer counts.
    for hosted in &held {
        let done = RunEnd::Completed(exact(json!(null)));
        db.store.finish(&hosted.run, &Progress::default(), &done).await.expect("finish");
    }
    let late = NewJob { tenant: "cold".parse().expect("tenant"), ..new_job("late", None) };
    db.store.create_job(&late).await.expect("create");
    assert_eq!(claim(&db, "w").await.expect("claimed").job.id.as_str(), "h9", "cold has four running, hot one");
}

pub async fn every_tenant_gets_its_turn_however_many_there_are(mut db: Db) {
    db.store = db.store.clone().by_clock(|| NOW);
    let rows: Vec<String> = (0..1_203).map(|n| format!("('j', 't{n:04}', 'work', 'queued')")).collect();
    let text = format!("INSERT INTO jobs (id, tenant_id, job_type, origin) VALUES {}", rows.join(", "));
    db.sql(&text).await.expect("insert");
    // The last one is found although more stand before it than one look takes in.
    let later = NOW + 60_000;
    db.sql(&format!("UPDATE jobs SET run_after = {later} WHERE tenant_id < 't1202'")).await.expect("update");
    let mut looks = 0;
    let found = loop {
        looks += 1;
        if let Some(found) = claim(&db, "w").await {
            break found;
        }
        assert!(looks < 5, "not found");
    };
    assert_eq!(found.job.tenant_id.as_str(), "t1202");
    assert!(looks > 1, "one look takes in all: this test shows nothing");
}

pub async fn a_job_behind_many_that_cannot_run_is_found_among_many_campaigns(db: Db) {
    let campaigns: Vec<String> = (0..300).map(|n| format!("('c{n}', 'acme', true, 'active')")).collect();
    let text = "INSERT INTO campaigns (id, tenant_id, is_active, status) VALUES ('paused', 'acme', false, 'paused')";
    db.sql(&format!("{text}, {}", campaigns.join(", "))).await.expect("insert");
    let blocked: Vec<String> = (0..100).map(|n| format!("('p{n}', 'acme', 'paused', 'work', 'queued')")).collect();
    let text = "INSERT INTO jobs (id, tenant_id, campaign_id, job_type, origin) VALUES";
    db.sql(&format!("{text} {}", blocked.join(", "))).await.expect("insert");
    assert!(claim(&db, "w").await.is_none());
    let free = "('one', 'acme', 'c7', 'work', 'queued'), ('alone', 'acme', NULL, 'work', 'queued'), ('two', 'acme', 'c299', 'work', 'queued')";
    db.sql(&format!("{text} {free}")).await.expect("insert");
    for expected in ["one", "alone", "two"] {
        assert_eq!(claim(&db, "w").await.expect("claimed").job.id.as_str(), expected);
    }
    assert!(claim(&db, "w").await.is_none());
}

pub async fn a_retry_that_a_clock_a_day_ahead_has_written_waits_no_longer_than_retries_do(db: Db) {
    const DAY: i64 = 24 * 3_600_000;
    let right = db.store.clone().by_clock(|| NOW);
    for (wrong, error) in [(NOW + DAY, "a day ahead"), (NOW - DAY, "a day behind")] {
        db.sql("DELETE FROM jobs").await.expect("delete");
        let wrong = db.store.clone().by_clock(move || wrong);
        wrong.create_job(&NewJob { max_retries: 9, ..new_job("j", None) }).await.expect("create");
        let taken = wrong.claim_job(&worker("w"), None, &["work".into()]).await.expect("claim").expect("it waits");
        wrong.finish(&taken.run, &Progress::default(), &failed(error)).await.expect("finish");
        let again = right.claim_job(&worker("w"), None, &["work".into()]).await.expect("claim");
        let again = again.unwrap_or_else(|| panic!("{error}: it waits for a day"));
        // By the right clock a retry waits until its time, and not longer.
        right.finish(&again.run, &Progress::default(), &failed("no luck")).await.expect("finish");
        db.sql(&format!("UPDATE jobs SET run_after = {}", NOW + 60_000)).await.expect("update");
        assert!(right.claim_job(&worker("w"), None, &["work".into()]).await.expect("claim").is_none());
        let later = db.store.clone().by_clock(|| NOW + 60_000);
        assert!(later.claim_job(&worker("w"), None, &["work".into()]).await.expect("claim").is_some());
    }
}

pub async fn a_job_in_which_workers_died_is_for_a_worker_that_runs_nothing_else(db: Db) {
    for id in ["suspect", "innocent"] {
        db.store.create_job(&new_job(id, None)).await.expect("create");
    }
    db.sql("UPDATE jobs SET deaths = 2 WHERE id = 'suspect'").await.expect("update");
    let types = ["work".to_owned()];
    let (a, b, gone) = (worker("a"), worker("b"), worker("gone"));
    let suspects = async || db.store.suspects(None, &types, 2).await.expect("read");
    assert_eq!(suspects().await, [(job("suspect"), None)]);
    let none: &[wheelhouse::domain::TenantId] = &["globex".parse().expect("tenant")];
    assert!(db.store.suspects(Some(none), &types, 2).await.expect("read").is_empty());
    // One makes room for it; who comes second is told.
    assert!(db.store.make_room(&job("suspect"), &gone, None).await.expect("write"));
    assert!(!db.store.make_room(&job("suspect"), &b, None).await.expect("write"));
    assert_eq!(suspects().await, [(job("suspect"), Some(gone.clone()))]);
    assert!(db.store.make_room(&job("suspect"), &a, Some(&gone)).await.expect("write"));

    let take = async |company| {
        let taken = db.store.claim_job_beside(&a, None, &types, company, &|_| true).await.expect("claim");
        taken.map(|taken| (taken.job.id.to_string(), taken.deaths))
    };
    assert_eq!(take(Company::Others(2)).await, Some(("innocent".to_owned(), 0)), "it stands behind the other");
    assert_eq!(take(Company::Others(2)).await, None);
    assert_eq!(take(Company::Awaited(3)).await, None);
    assert_eq!(take(Company::Awaited(2)).await, Some(("suspect".to_owned(), 2)));
    assert!(suspects().await.is_empty());
    db.sql("UPDATE jobs SET host = NULL, status = 'pending'").await.expect("update");
    assert_eq!(suspects().await, [(job("suspect"), None)], "whoever took it makes no more room for it");
    assert_eq!(take(Company::None).await, Some(("suspect".to_owned(), 2)), "the oldest");
}

pub async fn a_look_that_takes_all_that_waits_says_so_and_no_other_does(db: Db) {
    use LeftInQueue::{MayBeMore, NothingFits, NothingWaits};
    let types = ["work".to_owned()];
    let (store, w) = (db.store.clone().by_clock(|| NOW), worker("w"));
    let look = async |company, served: &(dyn Fn(&str) -> bool + Sync), limit| {
        let look = store.look_for_jobs(&w, None, &types, company, served, limit).await.expect("look");
        (look.jobs.len(), look.left)
    };
    let all = |_: &str| true;
    let waits = async |values: &str| {
        let text = format!("INSERT INTO jobs (id, tenant_id, job_type, origin, run_after, deaths) VALUES {values}");
        db.sql(&text).await.expect("insert");
    };
    let alone = |n: std::ops::Range<u32>| {
        let row = |n| format!("('a{n}', 'acme', 'work', 'queued', NULL, 0)");
        n.map(row).collect::<Vec<_>>().join(", ")
    };
    for company in [Company::None, Company::Others(1)] {
        assert_eq!(look(company, &all, 8).await, (0, NothingWaits), "nothing is there");
    }
    waits(&alone(0..5)).await;
    assert_eq!(look(Company::None, &all, 1).await, (1, MayBeMore), "one of five");
    assert_eq!(look(Company::None, &all, 2).await, (2, MayBeMore), "two of four");
    assert_eq!(look(Company::None, &all, 8).await, (2, NothingWaits), "the last two");
    waits("('b', 'acme', 'work', 'queued', NULL, 0), ('c', 'globex', 'work', 'queued', NULL, 0)").await;
    assert_eq!(look(Company::Others(1), &|tenant| tenant != "globex", 8).await, (1, NothingFits), "one is not served");
    assert_eq!(look(Company::Others(1), &all, 8).await, (1, NothingWaits));
    // A retry that is not due yet, and a job that has to run alone.
    let later = NOW + 1_000;
    waits(&format!("('d', 'acme', 'work', 'queued', {later}, 0), ('e', 'acme', 'work', 'queued', NULL, 0)")).await;
    assert_eq!(look(Company::Others(1), &all, 8).await, (1, NothingWaits), "it is told when it is due");
    waits("('f', 'acme', 'work', 'queued', NULL, 1), ('g', 'acme', 'work', 'queued', NULL, 0)").await;
    assert_eq!(look(Company::Others(1), &all, 8).await, (1, NothingFits), "f waits for a worker that runs nothing");
    assert_eq!(look(Company::Others(1), &all, 8).await, (0, NothingFits));
    assert_eq!(look(Company::None, &all, 8).await, (1, NothingWaits));
    // More than are looked at.
    waits(&alone(5..45)).await;
    assert_eq!(look(Company::None, &all, 40).await, (31, MayBeMore), "the retry is one of the oldest");
    assert_eq!(look(Company::None, &all, 40).await, (9, NothingWaits));
    // Behind those of a campaign that is paused.
    db.sql("INSERT INTO campaigns (id, tenant_id, is_active, status) VALUES ('held', 'acme', FALSE, 'paused')")
        .await
        .expect("insert");
    waits(&(0..40).map(|n| format!("('held{n}', 'acme', 'work', 'queued', NULL, 0)")).collect::<Vec<_>>().join(", "))
        .await;
    db.sql("UPDATE jobs SET campaign_id = 'held' WHERE id LIKE 'held%'").await.expect("update");
    waits(&alone(45..48)).await;
    assert_eq!(look(Company::None, &all, 2).await, (2, MayBeMore));
    assert_eq!(look(Company::None, &all, 2).await, (1, NothingWaits));
    assert_eq!(
        look(Company::Others(1), &all, 2).await,
        (0, NothingFits),
        "of those it was only seen that they cannot run"
    );
}

/// By the key of each row alone: the databases' statistics are as old as they were when the table was empty.
pub async fn a_job_is_taken_renewed_and_ended_without_reading_the_others_that_wait(db: Db) {
    const WAITING: u32 = 20_000;
    const TAKEN: u64 = 20;
    if !db.url.starts_with("postgres") {
        return a_job_among_many_is_taken_by_its_key(&db).await;
    }
    db.sql("ANALYZE jobs").await.expect("while it is empty");
    db.sql("ALTER TABLE jobs SET (autovacuum_enabled = off)").await.expect("so it stays");
    db.sql(&format!(
        "INSERT INTO jobs (id, tenant_id, job_type, origin) SELECT 'j' || n, 'acme', 'work', 'queued' FROM generate_series(1, {WAITING}) n"
    ))
    .await
    .expect("many that wait");
    let settings = config::Database { url: db.url.clone().into(), connections: 1 };
    let read_before = rows_read(&db).await;
    let own = Store::open(&settings).await.expect("open");
    for n in 0..TAKEN {
        let taken = own.claim_job(&worker("w"), None, &["work".into()]).await.expect("claim").expect("it waits");
        let saved =
            SavedRun { progress: Progress { items_processed: 1, ..Progress::default() }, ..SavedRun::default() };
        assert!(own.save(&taken.run, &saved).await.expect("save"));
        match n % 2 {
            0 => drop(own.finish(&taken.run, &Progress::default(), &failed("no luck")).await.expect("finish")),
            _ => drop(own.hand_back(&taken.run, &HandBack::default()).await.expect("hand back")),
        }
    }
    // What a connection has counted is there once it ends.
    drop(own);
    let mut read = 0;
    for _ in 0..600 {
        read = rows_read(&db).await - read_before;
        if read > 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let most = TAKEN * 1_000;
    assert!((1..most).contains(&read), "{read} rows were read for {TAKEN} jobs of {WAITING}");
}

async fn rows_read(db: &Db) -> u64 {
    use sqlx::Connection;
    let mut connection = sqlx::PgConnection::connect(&db.url).await.expect("connect");
    let text = "SELECT CAST(COALESCE(idx_tup_fetch, 0) + seq_tup_read AS BIGINT) FROM pg_stat_user_tables WHERE relname = 'jobs'";
    let read: i64 = sqlx::query_scalar(text).fetch_one(&mut connection).await.expect("statistics");
    read.unsigned_abs()
}

/// SQLite does not count what it reads: it says what it would read.
async fn a_job_among_many_is_taken_by_its_key(db: &Db) {
    use sqlx::{Connection, Row as _};
    let mut connection = sqlx::SqliteConnection::connect(&db.url).await.expect("connect");
    let text = "EXPLAIN QUERY PLAN UPDATE jobs SET host = 'w' WHERE tenant_id = 'a' AND id = 'j' AND (host || '') = 'v' AND run = 1
                  AND (status || '') = 'running'";
    let plan = sqlx::query(text).fetch_all(&mut connection).await.expect("a plan");
    let plan: Vec<String> = plan.iter().map(|row| row.get("detail")).collect();
    assert!(plan[0].contains("tenant_id=? AND id=?"), "{plan:?}");
}
