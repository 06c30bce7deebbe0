//! The checker can fail: a worker is stopped in the middle of a command, past its lease, and wakes when another has
//! carried the command out. The fence makes that harmless; without it (feature `test-faults`) the checker reports it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use wheelhouse::domain::Action;

use crate::check::Violation;
use crate::cluster::Cluster;
use crate::history::{Nature, Subject, What};
use crate::plan::{Act, Client, Database, Operation, Plan, Process, Step, Topology, Way};
use crate::reader::Reader;
use crate::run;

/// Longest wait for anything but the verdict.
const PATIENCE: Duration = Duration::from_secs(60);
/// For the verdict, when all has happened that will.
const VERDICT: Duration = Duration::from_secs(15);

const SLEEPER: Process = Process::Worker(0);
const HEIR: Process = Process::Worker(1);

/// One job; Ann pauses and resumes it, and somebody watches.
fn plan() -> Plan {
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
    let steps = vec![step(500, Action::Pause), step(500, Action::Resume)];
    Plan {
        seed: 0,
        load: Duration::ZERO,
        database: Database::Sqlite,
        topology: Topology::Single,
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
    let plan = plan();
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
