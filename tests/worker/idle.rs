//! What a fleet asks of Redis while nothing is to be done, and that nothing is missed for it.

use std::time::Duration;

use wheelhouse::broker::scripts::claim::ClaimOutcome;
use wheelhouse::domain::{Action, WorkerId};
use wheelhouse::store::NewJob;

use crate::fixture::{WorkerFixture, blank, eventually, tenant};

const WORKERS: usize = 12;
const PARTITIONS: usize = 64;

fn ids() -> impl Iterator<Item = WorkerId> {
    (0..WORKERS).map(|n| format!("w{n}").parse().expect("id"))
}

/// How often Redis was asked for this, by scripts or directly.
async fn calls(fixture: &WorkerFixture, of: &str) -> usize {
    let stats =
        fixture.broker.query_any(&["INFO".to_owned(), "commandstats".to_owned()]).await.expect("INFO").join("\n");
    let line = stats.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{of}:calls=")));
    line.and_then(|line| line.split(',').next()?.parse().ok()).unwrap_or(0)
}

/// Waits for so many heartbeats of one worker.
async fn heartbeats(fixture: &WorkerFixture, count: usize) {
    let last = async || {
        let known = fixture.broker.last_heartbeats(&tenant()).await.unwrap_or_default();
        known.get("w0").copied()
    };
    for _ in 0..count {
        let before = last().await;
        eventually("a worker sends a heartbeat", || async { last().await > before }).await;
    }
}

/// The workers that lead, by their partitions.
async fn leaders(fixture: &WorkerFixture) -> Vec<String> {
    let mut leaders = Vec::new();
    for partition in fixture.broker.keys().partitions() {
        let read = ["GET".to_owned(), fixture.broker.keys().leader(partition)];
        leaders.push(fixture.broker.query_any(&read).await.expect("read").join(""));
    }
    leaders
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_heartbeats_of_a_fleet_are_not_multiplied_by_its_partitions_and_each_partition_is_polled_by_one_worker() {
    let fixture = WorkerFixture::with(&[("redis.partitions", &PARTITIONS.to_string())]).await;
    let mut workers = Vec::new();
    for id in ids() {
        workers.push(fixture.worker(id.as_str(), |builder| builder).await);
    }
    eventually("each partition has a leader", || async { !leaders(&fixture).await.contains(&String::new()) }).await;
    let live: Vec<WorkerId> = fixture.broker.live_workers(&tenant()).await.expect("live");
    assert_eq!(live.len(), WORKERS, "{live:?}");
    heartbeats(&fixture, 1).await;
    let counts = async || {
        let of = ["zadd", "set", "mget", "zscore"].map(|name| calls(&fixture, name));
        futures_util::future::join_all(of).await
    };
    let before = counts().await;
    heartbeats(&fixture, 4).await;
    let [heartbeats, renewals, looks, questions] =
        counts().await.iter().zip(before).map(|(now, before)| now - before).collect::<Vec<_>>()[..]
    else {
        panic!("four counts")
    };
    // Each worker sent about four, and some were counted anew in every partition, which each is once in 17 s. With one for
    // each partition and second there would be thousands; and so with leases, of which each partition has two a second.
    assert!((WORKERS..WORKERS * PARTITIONS).contains(&heartbeats), "{heartbeats} heartbeats");
    assert!((PARTITIONS..PARTITIONS * 20).contains(&renewals), "{renewals} leases renewed");
    // Whoever leads many partitions looks at all of them in one call.
    assert!(looks < renewals / 4, "{looks} looks for {renewals} renewals");
    // Two of three heartbeats do not ask whether the worker is counted.
    assert!(questions <= WORKERS * 3, "{questions} questions");
    for worker in workers {
        worker.drain().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_of_which_nobody_is_told_is_found_by_the_next_leader_when_the_first_has_died() {
    let fixture = WorkerFixture::new().await;
    let job = fixture.make(NewJob { job_type: "elsewhere".to_owned(), ..blank("j1") }).await;
    let command = fixture.submit(Action::Pause, &job).await;
    let elsewhere = "elsewhere".parse().expect("id");
    let Ok(ClaimOutcome::Command(held)) = fixture.broker.claim(&job, &elsewhere, Duration::from_secs(600)).await else {
        panic!("not claimed")
    };
    let first = fixture.worker("w1", |builder| builder).await;
    eventually("it leads", || async { leaders(&fixture).await.iter().all(|leader| leader == "w1") }).await;
    let second = fixture.worker("w2", |builder| builder).await;
    first.crash().await;
    eventually("the second leads", || async { leaders(&fixture).await.iter().all(|leader| leader == "w2") }).await;
    // Given back without a word: only who polls finds it.
    assert!(fixture.broker.retry_later(&held, Duration::ZERO).await.expect("give back"));
    assert_eq!(fixture.result(&job, command).await["status"], "paused");
    let second_alone = ["w2".parse::<WorkerId>().expect("id")];
    eventually("the first is not counted any more", || async {
        fixture.broker.live_workers(&tenant()).await.is_ok_and(|live| live == second_alone)
    })
    .await;
    second.drain().await;
    eventually("who leaves gives up what it leads", || async { leaders(&fixture).await.iter().all(String::is_empty) })
        .await;
}

/// How many workers there are is counted now and then: of a thousand that have died the last one does not know of that yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_of_a_large_fleet_leads_soon_after_all_others_have_died() {
    let fixture = WorkerFixture::new().await;
    for partition in fixture.broker.keys().partitions() {
        let lead = ["SET", &fixture.broker.keys().leader(partition), "dead", "PX", "3000"].map(str::to_owned);
        fixture.broker.query_any(&lead).await.expect("lead");
        let mut count = vec!["ZADD".to_owned(), fixture.broker.keys().workers(partition)];
        let until = (fixture.broker.now_ms() + 60_000).to_string();
        count.extend((0..500).flat_map(|n| [until.clone(), format!("dead-{n}")]));
        fixture.broker.query_any(&count).await.expect("count");
    }
    let last = fixture.worker("last", |builder| builder).await;
    eventually("the last one leads all", || async { leaders(&fixture).await.iter().all(|leader| leader == "last") })
        .await;
    last.drain().await;
}
