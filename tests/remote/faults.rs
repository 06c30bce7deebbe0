//! Simulated foreign processes while workers are killed, asked to leave and started again, under commands: nothing moves
//! while it is said to stand, nothing is lost, and every command is answered.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::client::open;
use super::fixture::RemoteFixture;
use crate::support::socket::Socket;

const SESSIONS: usize = 3;
const JOBS_EACH: usize = 4;
/// Between two steps of a job.
const STEP: Duration = Duration::from_millis(10);
/// Between two tries to attach a job.
const RETRY: Duration = Duration::from_millis(500);
/// A client holds its work when it has heard nothing for two thirds of `worker.reattach_seconds`.
const REATTACH: Duration = Duration::from_secs(6);

/// The moments at which each job has made a step.
type Steps = Arc<Mutex<HashMap<String, Vec<Instant>>>>;

/// What one simulated process knows of its job.
struct Job {
    id: String,
    run: Option<i64>,
    attached: bool,
    held: bool,
    /// When it was asked for last, on this socket.
    asked: Option<Instant>,
    /// Its end was said on this socket.
    said: bool,
    over: bool,
}

impl Job {
    fn attach(&mut self, reference: u64) -> Value {
        self.asked = Some(Instant::now());
        let mut attach = json!({"type": "attach", "ref": reference, "tenant_id": "acme", "job_id": self.id});
        if let Some(run) = self.run {
            attach["run"] = json!(run);
        }
        attach
    }
}

/// One foreign process: it runs its jobs, obeys, and goes from worker to worker.
struct Process {
    token: String,
    session: String,
    addresses: Vec<String>,
    jobs: BTreeMap<u64, Job>,
    steps: Steps,
    /// The work is to complete.
    finish: CancellationToken,
}

impl Process {
    async fn run(mut self) {
        let mut heard = Instant::now();
        let mut next = 0;
        while self.jobs.values().any(|job| !job.over) {
            for job in self.jobs.values_mut() {
                (job.attached, job.said, job.asked) = (false, false, None);
            }
            next += 1;
            let address = self.addresses[next % self.addresses.len()].clone();
            let connected = tokio::net::TcpStream::connect(&address).await.is_ok();
            match if connected { open(&address, &self.token).await } else { Err((0, String::new())) } {
                Ok(socket) => self.talk(socket, &mut heard).await,
                Err(_) => {
                    // Work that was confirmed a moment ago goes on without a link for a while.
                    self.step(heard);
                    tokio::time::sleep(STEP).await;
                }
            }
        }
    }

    /// One step of each job that may make one.
    fn step(&self, heard: Instant) {
        if heard.elapsed() > REATTACH * 2 / 3 {
            return;
        }
        let mut steps = self.steps.lock().expect("steps");
        for job in self.jobs.values().filter(|job| job.run.is_some() && !job.held && !job.said && !job.over) {
            steps.entry(job.id.clone()).or_default().push(Instant::now());
        }
    }

    async fn talk(&mut self, mut socket: Socket, heard: &mut Instant) {
        let hello = json!({"type": "hello", "v": 1, "worker": "simulated", "session": self.session});
        let mut out = vec![hello];
        loop {
            for (reference, job) in self.jobs.iter_mut().filter(|(_, job)| !job.over) {
                if !job.attached && job.asked.is_none_or(|at| at.elapsed() > RETRY) {
                    out.push(job.attach(*reference));
                } else if job.attached && !job.held && !job.said && self.finish.is_cancelled() {
                    job.said = true;
                    out.push(json!({"type": "end", "ref": reference, "how": "completed"}));
                }
            }
            for message in out.drain(..) {
                let text = tokio_tungstenite::tungstenite::Message::text(message.to_string());
                if socket.try_send(text).await.is_err() {
                    return;
                }
            }
            self.step(*heard);
            if self.jobs.values().all(|job| job.over) {
                return;
            }
            let Some(message) = socket.next_within(STEP).await else { continue };
            if message.get("closed").is_some() {
                return;
            }
            *heard = Instant::now();
            out.extend(self.obey(&message));
        }
    }

    fn obey(&mut self, message: &Value) -> Option<Value> {
        let reference = message["ref"].as_u64()?;
        let job = self.jobs.get_mut(&reference)?;
        match message["type"].as_str()? {
            "attached" => {
                (job.run, job.attached) = (message["run"].as_i64(), true);
                job.held = message["status"] == "paused";
            }
            "refused" if message["error"] == "elsewhere" => {
                // Nobody else has these jobs: its own run is being handed back, and is asked for again.
                job.run = None;
            }
            "refused" | "ended" | "lost" => job.over = true,
            "order" => {
                let state = match message["do"].as_str()? {
                    "pause" => {
                        job.held = true;
                        "still"
                    }
                    "resume" => {
                        job.held = false;
                        return None;
                    }
                    _ => {
                        // Nothing of it is left: it makes no more steps.
                        job.held = true;
                        "ended"
                    }
                };
                return Some(json!({"type": "reached", "ref": reference, "order": message["order"], "state": state}));
            }
            _ => {}
        }
        None
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_workers_die_and_leave_what_stands_stands_and_nothing_is_lost() {
    let mut fixture =
        RemoteFixture::start(&[("WORKER__REATTACH_SECONDS", "6"), ("LIMITS__COMMANDS_PER_MINUTE", "10000")]).await;
    let mut random = fastrand::Rng::with_seed(7);
    let mut workers = [fixture.worker(), fixture.worker()];
    let addresses: Vec<String> = workers.iter().map(|worker| worker.address.clone()).collect();
    let steps = Steps::default();
    let finish = CancellationToken::new();
    let mut processes = tokio::task::JoinSet::new();
    for n in 0..SESSIONS {
        let jobs = (1..=JOBS_EACH as u64).map(|reference| {
            let id = format!("j{n}-{reference}");
            (reference, Job { id, run: None, attached: false, held: false, asked: None, said: false, over: false })
        });
        let process = Process {
            token: fixture.token.clone(),
            session: format!("s{n}"),
            addresses: addresses.clone(),
            jobs: jobs.collect(),
            steps: steps.clone(),
            finish: finish.clone(),
        };
        processes.spawn(process.run());
    }
    let ids: Vec<String> = (0..SESSIONS).flat_map(|n| (1..=JOBS_EACH).map(move |m| format!("j{n}-{m}"))).collect();
    for id in &ids {
        let begun = Instant::now();
        while steps.lock().expect("steps").get(id).is_none() {
            assert!(begun.elapsed() < Duration::from_secs(30), "{id} never began; log:\n{}", fixture.fleet.log());
            tokio::time::sleep(STEP).await;
        }
    }

    // Each job stands or runs as it was told last; what is in between is nobody's business.
    let mut stands: HashMap<String, Instant> = HashMap::new();
    let mut cancelled = Vec::new();
    for round in 0..6 {
        let victim = random.usize(..workers.len());
        let mut asked: Vec<(String, &str, String)> = Vec::new();
        for n in 0..3 {
            let id = ids[(round * 3 + n) % ids.len()].clone();
            if cancelled.contains(&id) {
                continue;
            }
            let since = stands.get(&id).copied();
            let action = match since {
                _ if random.u8(..5) == 0 => "cancel",
                Some(_) => "resume",
                None => "pause",
            };
            if let (Some(since), "resume") = (since, action) {
                check(&steps, &id, since, Instant::now());
                stands.remove(&id);
            }
            let command = fixture.command(action, &id);
            asked.push((id, action, command));
        }
        match round % 3 {
            0 => fixture.fleet.kill(workers[victim].handle),
            1 => {
                fixture.fleet.signal(workers[victim].handle, Signal::TERM);
                fixture.fleet.wait(workers[victim].handle);
            }
            _ => {}
        }
        for (id, action, command) in asked {
            let result = fixture.result_of(&id, &command).await;
            let answered = Instant::now();
            assert_eq!(result["type"], format!("{action}_succeeded"), "{id}: {result}");
            match action {
                "pause" => drop(stands.insert(id, answered)),
                "cancel" => {
                    stands.insert(id.clone(), answered);
                    cancelled.push(id);
                }
                _ => {}
            }
        }
        if round % 3 != 2 {
            let address = workers[victim].address.clone();
            workers[victim] = fixture.worker_at(&address);
        }
    }
    for (id, since) in &stands {
        check(&steps, id, *since, Instant::now());
    }
    for id in stands.keys().filter(|id| !cancelled.contains(id)) {
        let resume = fixture.command("resume", id);
        assert_eq!(fixture.result_of(id, &resume).await["type"], "resume_succeeded");
    }
    finish.cancel();
    for id in &ids {
        fixture.until_status(id, if cancelled.contains(id) { "cancelled" } else { "completed" }).await;
    }
    for id in &cancelled {
        check(&steps, id, stands[id], Instant::now());
    }
    let all = tokio::time::timeout(Duration::from_secs(30), async { while processes.join_next().await.is_some() {} });
    all.await.expect("every process hears how its jobs ended");
}

/// No step between these moments.
fn check(steps: &Steps, id: &str, from: Instant, to: Instant) {
    let steps = steps.lock().expect("steps");
    let moved = steps[id].iter().filter(|at| (from..to).contains(at)).count();
    assert_eq!(moved, 0, "{id} moved {moved} times while it was said to stand");
}
