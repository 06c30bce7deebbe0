//! One seed from the first process to the verdict.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::check::{self, Violation};
use crate::client::{Client, Shared};
use crate::cluster::{Cluster, REATTACH};
use crate::history::{History, Log, What, Work};
use crate::http;
use crate::plan::{Act, GATEWAYS, Plan, SESSIONS, Topology, WAVERING};
use crate::reader::Reader;
use crate::report;
use crate::support::foreign::{Mark, Process, Trace};

/// Within this after the last fault everything has settled. Generous: this is no measurement.
const SETTLE: Duration = Duration::from_secs(90);
/// For so long nothing more may happen once everything looks settled.
const QUIET: Duration = Duration::from_secs(2);
/// Between two looks.
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// Between two looks at `/readyz`, and the longest wait for its answer.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
const LOOK_TIMEOUT: Duration = Duration::from_secs(1);
/// A run in which fewer commands were accepted has tested nothing.
const LEAST_ACCEPTED: usize = 20;

/// Plays the plan; panics with a timeline if a promise was broken.
pub async fn play(plan: &Plan) {
    let (seed, seconds) = (plan.seed, plan.load.as_secs());
    println!("chaos: seed {seed} on {:?} and {:?}, {seconds} s of load", plan.database, plan.topology);
    let begun = Instant::now();
    let mut cluster = Cluster::start(plan).await;
    let (shared, mut clients) = start_clients(plan, &cluster);
    let foreign = Foreign::start(plan, &cluster);
    let mut looks = JoinSet::new();
    for n in 0..GATEWAYS {
        looks.spawn(watch_readiness(n, cluster.gateway_port(n), cluster.partition(), shared.clone()));
    }
    // What would be mended later is mended together with everything else.
    for (at, act) in plan.faults.iter().take_while(|(at, _)| *at < plan.load) {
        supervised_until(&mut cluster, shared.log.moment(*at)).await;
        if let Act::Rights { held } = *act {
            if cluster.set_rights(held).await {
                shared.log.note(What::Rights { user: WAVERING.to_owned(), held });
            }
            continue;
        }
        shared.log.note(What::Fault { act: format!("{act:?}") });
        cluster.act(*act).await;
    }
    supervised_until(&mut cluster, shared.log.moment(plan.load)).await;
    cluster.mend().await;
    shared.log.note(What::Fault { act: "none from here on".to_owned() });
    let (history, mut violations) = settled(plan, &mut cluster, &shared, Some(&foreign), SETTLE).await;
    shared.over.cancel();
    while clients.join_next().await.is_some() {}
    looks.shutdown().await;
    let panics = cluster.panics().into_iter().map(|line| Violation::general("a process panicked", line));
    violations.extend(panics);
    let summary = report::summary(&history);
    println!("chaos: seed {} took {} s: {summary}", plan.seed, begun.elapsed().as_secs());
    let file = report::write(plan, &history, &violations);
    if !violations.is_empty() {
        cluster.keep_logs(&file.with_extension("logs"));
        let topology = format!("{:?}", plan.topology).to_lowercase();
        let again = format!("make chaos SEED={seed} SECONDS={seconds} TOPOLOGY={topology}");
        panic!("{}", report::failure(&history, &violations, &again, &file));
    }
    assert!(summary.accepted >= LEAST_ACCEPTED, "hardly any command was accepted: {summary}");
}

pub fn start_clients(plan: &Plan, cluster: &Cluster) -> (Arc<Shared>, JoinSet<()>) {
    let tokens: std::collections::HashMap<&String, String> =
        plan.rights.keys().map(|user| (user, cluster.token(user))).collect();
    let shared = Arc::new(Shared {
        log: Log::start(),
        over: CancellationToken::new(),
        sockets: AtomicUsize::new(0),
        unanswered: std::sync::Mutex::default(),
        busy: AtomicUsize::new(0),
    });
    let mut clients = JoinSet::new();
    for client in &plan.clients {
        let url = cluster.url(client.gateway, client.through_proxy, &client.resource, &tokens[&client.user]);
        clients.spawn(Client::new(client.clone(), url, shared.clone()).run());
    }
    (shared, clients)
}

/// Asks a gateway again and again whether it serves the tenant of the test.
async fn watch_readiness(gateway: usize, port: u16, partition: String, shared: Arc<Shared>) {
    loop {
        let answer = tokio::time::timeout(LOOK_TIMEOUT, http::get(port, "/readyz")).await.ok().flatten();
        let serves = answer
            .is_some_and(|(status, body)| status == 200 && body["partitions_not_served"].get(&partition).is_none());
        shared.log.note(What::Ready { gateway, serves });
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// The foreign processes of a plan; gone when dropped.
pub struct Foreign {
    trace: Trace,
    _processes: JoinSet<()>,
}

impl Foreign {
    fn start(plan: &Plan, cluster: &Cluster) -> Self {
        let (trace, token) = (Trace::default(), cluster.worker_token());
        let mut processes = JoinSet::new();
        for (n, jobs) in SESSIONS.iter().enumerate() {
            let session = format!("seed{}-{n}", plan.seed);
            let mut process = Process::new(&token, &session, &cluster.listeners(n), REATTACH, &trace);
            jobs.iter().for_each(|job| process.takes(job));
            processes.spawn(process.run());
        }
        Self { trace, _processes: processes }
    }

    fn work(&self, log: &Log) -> Vec<Work> {
        let work = |mark: Mark| Work {
            at: log.since_start(mark.at),
            resource: format!("job:{}", mark.job),
            attempt: mark.attempt,
            deed: mark.deed,
        };
        self.trace.marks().into_iter().map(work).collect()
    }
}

/// Waits, and meanwhile starts again what ends by itself.
async fn supervised_until(cluster: &mut Cluster, moment: tokio::time::Instant) {
    while tokio::time::Instant::now() < moment {
        cluster.supervise();
        tokio::time::sleep_until(moment.min(tokio::time::Instant::now() + Duration::from_millis(300))).await;
    }
}

/// Waits until nothing is under way and no promise is broken, and looks once more after a quiet while; at the latest
/// when the time is up. Gives what it saw last.
pub async fn settled(
    plan: &Plan,
    cluster: &mut Cluster,
    shared: &Shared,
    foreign: Option<&Foreign>,
    within: Duration,
) -> (History, Vec<Violation>) {
    let reader = Reader::new(&cluster.settings()).await;
    let deadline = Instant::now() + within;
    let mut clean_before = false;
    loop {
        tokio::time::sleep(if clean_before { QUIET } else { POLL_INTERVAL }).await;
        cluster.supervise();
        let late = Instant::now() > deadline;
        let unanswered: Vec<String> = shared.unanswered.lock().expect("requests").values().cloned().collect();
        let busy = shared.busy.load(Ordering::SeqCst);
        if !late && (busy > 0 || !unanswered.is_empty()) {
            clean_before = false;
            continue;
        }
        let record = match reader.read(&plan.subjects, &cluster.sql).await {
            Ok(record) => record,
            Err(error) if late => panic!("seed {}: the record cannot be read: {error}", plan.seed),
            Err(_) => continue,
        };
        let history = History {
            work: foreign.map(|foreign| foreign.work(&shared.log)).unwrap_or_default(),
            // After the record: what a socket has seen only now is in it.
            events: shared.log.events(),
            record,
            subjects: plan.subjects.clone(),
            rights: plan.rights.clone(),
            began: shared.log.began_unix(),
            unanswered,
            waits_for_disk: plan.topology == Topology::Disk,
        };
        let violations = check::all(&history);
        if late || (violations.is_empty() && clean_before) {
            return (history, violations);
        }
        clean_before = violations.is_empty();
    }
}
