//! The checker can fail.
//!
//! A worker is stopped in the middle of a command, past its lease, and wakes when another has carried the command out. The
//! fence makes that harmless; without it (feature `test-faults`) the checker reports it.
//!
//! A command is accepted by a master that is cut off from its replicas and is replaced. With `redis.replicas_to_wait = 1` its
//! sender is told that the outcome is unknown, and asks again; without it the checker reports what was acknowledged and lost.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use wheelhouse::domain::Action;

use crate::check::{self, Violation};
use crate::cluster::Cluster;
use crate::history::{Nature, Subject, What};
use crate::plan::{Act, Client, Database, Operation, Plan, Process, Step, Topology, Way, Whose};
use crate::reader::Reader;
use crate::run;

/// Longest wait for anything but the verdict.
const PATIENCE: Duration = Duration::from_secs(60);
/// For the verdict, when all has happened that will.
const VERDICT: Duration = Duration::from_secs(15);

/// When the master is cut off, and when Ann sends her command.
const CUT: Duration = Duration::from_millis(2_800);
const AFTER_CUT_MS: u64 = 3_000;

const SLEEPER: Process = Process::Worker(0);
const HEIR: Process = Process::Worker(1);

/// One job; Ann pauses and resumes it after so many ms, and somebody watches.
fn plan(after_ms: u64) -> Plan {
    let subject =
        Subject { name: "job:j".to_owned(), nature: Nature::External, campaign: None, status: "running".to_owned() };
    let client = |user: &str, steps| Client {
        name: user.to_owned(),
        user: user.to_owned(),
        resource: subject.name.clone(),
        gateway: 0,
        through_proxy: false,
        jobs: Vec::new(),
        steps,
    };
    let step = |ms, action| {
        let operation = Operation::Command { action, insist: true, way: Way::Socket };
        Step { at: Duration::from_millis(ms), operation }
    };
    let steps = vec![step(after_ms, Action::Pause), step(after_ms, Action::Resume)];
    Plan {
        seed: 0,
        load: Duration::ZERO,
        database: Database::Sqlite,
        topology: Topology::Single,
        copies_to_wait: 0,
        sharded_channels: false,
        clients: vec![client("ann", steps), client("bob", Vec::new())],
        faults: Vec::new(),
        rights: BTreeMap::from(
            [("ann", "jobs.*"), ("bob", "jobs.read")].map(|(user, right)| (user.to_owned(), vec![right.to_owned()])),
        ),
        subjects: vec![subject],
    }
}

/// What the checker says of a worker that sleeps through its lease, and what the worker says of its claim.
async fn a_worker_sleeps_through_its_lease(switch: Option<&'static str>) -> (Vec<Violation>, String) {
    for _ in 0..10 {
        if let Some(seen) = a_worker_sleeps_in_its_first_try(switch).await {
            return seen;
        }
    }
    panic!("this machine is too slow");
}

/// `None` where it was stopped too late: between two tries it has no claim that it could lose.
async fn a_worker_sleeps_in_its_first_try(switch: Option<&'static str>) -> Option<(Vec<Violation>, String)> {
    let plan = plan(500);
    let mut cluster = Cluster::without_processes(&plan, switch).await;
    cluster.add(Process::Gateway(0), &["gateway"]).await;
    cluster.add_worker(SLEEPER).await;
    cluster.all_up().await;
    until("the first worker is there", async || cluster.log(SLEEPER).contains("worker.started")).await;
    // It claims the command and cannot write the row: that is where it falls asleep.
    cluster.act(Act::LockSql).await;
    let (shared, mut clients) = run::start_clients(&plan, &cluster);
    let begun = Instant::now();
    until("the first worker claims", async || cluster.log(SLEEPER).contains("worker.command_claimed")).await;
    shared.log.note(What::Fault { act: "the first worker sleeps".to_owned() });
    cluster.act(Act::Stop(SLEEPER)).await;
    // Less than SQLite waits for another writer.
    if begun.elapsed() > Duration::from_secs(4) {
        shared.over.cancel();
        while clients.join_next().await.is_some() {}
        return None;
    }
    cluster.add_worker(HEIR).await;
    until("the lease ends and another claims", async || cluster.log(HEIR).contains("worker.command_claimed")).await;
    cluster.act(Act::UnlockSql).await;
    let reader = Reader::new(&cluster.settings()).await;
    until("both commands have their results", async || {
        let record = reader.read(&plan.subjects, &cluster.sql).await;
        record.is_ok_and(|record| record.audit.iter().filter(|row| row.is_end()).count() == 2)
    })
    .await;
    shared.log.note(What::Fault { act: "the first worker wakes".to_owned() });
    cluster.act(Act::Continue(SLEEPER)).await;
    let said = ["worker.claim_lost", "worker.command_applied"];
    until("the first worker goes on", async || said.iter().any(|word| cluster.log(SLEEPER).contains(word))).await;
    let (_, violations) = run::settled(&plan, &mut cluster, &shared, None, VERDICT).await;
    shared.over.cancel();
    while clients.join_next().await.is_some() {}
    Some((violations, cluster.log(SLEEPER)))
}

/// What the checker says of a master that takes commands while it is cut off and another is named, and whether one was
/// acknowledged before that: else nothing was tried.
async fn a_master_is_cut_off(copies_to_wait: u32) -> (Vec<Violation>, bool) {
    let _alone = crate::ALONE.lock().await;
    let plan = Plan { topology: Topology::Sentinel, copies_to_wait, ..plan(AFTER_CUT_MS) };
    let mut cluster = Cluster::without_processes(&plan, None).await;
    cluster.add(Process::Gateway(0), &["gateway"]).await;
    cluster.add_worker(SLEEPER).await;
    cluster.all_up().await;
    until("the worker is there", async || cluster.log(SLEEPER).contains("worker.started")).await;
    // Nobody carries anything out until the old master is gone.
    cluster.act(Act::Stop(SLEEPER)).await;
    let (shared, mut clients) = run::start_clients(&plan, &cluster);
    // Her socket is open by then, and the second before another master is named is hers.
    tokio::time::sleep_until(shared.log.moment(CUT)).await;
    cluster.act(Act::SplitBrain(Whose::Tenants)).await;
    shared.log.note(What::Fault { act: "the master is cut off".to_owned() });
    cluster.until_switched().await;
    shared.log.note(What::Fault { act: "another is named".to_owned() });
    let is_acknowledged = |what: &What| matches!(what, What::Saw { message, .. } if check::is_ack(message));
    let tried = shared.log.events().iter().any(|event| is_acknowledged(&event.what));
    cluster.act(Act::SplitEnds).await;
    cluster.act(Act::Continue(SLEEPER)).await;
    let (_, violations) = run::settled(&plan, &mut cluster, &shared, None, VERDICT).await;
    shared.over.cancel();
    while clients.join_next().await.is_some() {}
    (violations, tried)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_a_replica_is_not_lost_with_a_master_that_is_cut_off() {
    let (violations, _) = a_master_is_cut_off(1).await;
    assert_eq!(violations, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_checker_reports_what_is_lost_where_no_replica_is_waited_for() {
    for _ in 0..10 {
        let (violations, tried) = a_master_is_cut_off(0).await;
        if tried {
            let rules: Vec<&str> = violations.iter().map(|violation| violation.rule).collect();
            assert!(rules.contains(&"acknowledged, never accepted"), "{violations:#?}");
            return;
        }
    }
    panic!("this machine is too slow");
}

async fn until(what: &str, mut so: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !so().await {
        assert!(begun.elapsed() < PATIENCE, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_sleeps_through_its_lease_changes_nothing_when_it_wakes() {
    let (violations, log) = a_worker_sleeps_through_its_lease(None).await;
    assert_eq!(violations, []);
    assert!(log.contains("worker.claim_lost"), "{log}");
}

#[cfg(feature = "test-faults")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_fence_the_checker_reports_what_such_a_worker_does() {
    let (violations, log) = a_worker_sleeps_through_its_lease(Some("no-fence")).await;
    assert!(violations.iter().any(|violation| violation.rule == "doubled result"), "{violations:#?}\n{log}");
}
