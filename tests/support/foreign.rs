//! Simulated foreign processes: each holds one session, goes from worker to worker, obeys its orders, and holds its work
//! while it has not heard a worker for two thirds of `worker.reattach_seconds`. What it does is written into a trace.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

use super::fleet::Fleet;
use super::socket::Socket;

/// Between two steps of a job.
const STEP: Duration = Duration::from_millis(10);
/// Between two tries to attach a job.
const RETRY: Duration = Duration::from_millis(500);
/// Longest wait for a socket; meanwhile work that was confirmed a moment ago goes on.
const CONNECT: Duration = Duration::from_secs(2);
/// Steps between two resume points.
const STEPS_PER_SAVE: u64 = 50;

/// A token for these tenants.
pub fn token(fleet: &Fleet, worker: &str, tenants: &str) -> String {
    let made =
        fleet.command(&["token", "--worker", worker, "--tenants", tenants]).output().expect("run wheelhouse token");
    assert!(made.status.success(), "token: {}", String::from_utf8_lossy(&made.stderr));
    String::from_utf8(made.stdout).expect("text").trim().to_owned()
}

/// Something that the work of a job did.
#[derive(Debug, Clone)]
pub struct Mark {
    pub at: Instant,
    pub job: String,
    /// One attempt of one process; grows with each that begins.
    pub attempt: u64,
    pub deed: Deed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(tag = "deed", rename_all = "snake_case")]
pub enum Deed {
    /// The attempt begins with this step.
    Began { from: u64 },
    /// This step is done.
    Step { number: u64 },
    /// The process has heard that its resume point is stored: whoever begins later goes on with this step.
    Saved { point: u64 },
}

/// What all processes did, in order.
#[derive(Clone, Default)]
pub struct Trace(Arc<Mutex<Vec<Mark>>>);

impl Trace {
    fn note(&self, at: Instant, job: &str, attempt: u64, deed: Deed) {
        let mark = Mark { at, job: job.to_owned(), attempt, deed };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(mark);
    }

    pub fn marks(&self) -> Vec<Mark> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether any step of the job is done.
    pub fn has_begun(&self, job: &str) -> bool {
        let marks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        marks.iter().any(|mark| mark.job == job && matches!(mark.deed, Deed::Step { .. }))
    }

    /// How many steps of the job were made between these moments.
    pub fn steps_between(&self, job: &str, from: Instant, to: Instant) -> usize {
        let marks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_meant =
            |mark: &&Mark| mark.job == job && matches!(mark.deed, Deed::Step { .. }) && (from..to).contains(&mark.at);
        marks.iter().filter(is_meant).count()
    }
}

/// What is wrong with the steps: one that was made again although a later resume point was stored, one that was left out,
/// one of an attempt whose job another attempt has gone on with. Each with its job.
pub fn faults_of(marks: &[(String, u64, Deed)]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    // Of each job: the newest attempt, the step that it does next, and the newest stored resume point.
    let mut known: HashMap<&str, (u64, u64, u64)> = HashMap::new();
    for (job, attempt, deed) in marks {
        let (newest, next, stored) = known.entry(job).or_default();
        let mut report = |what: String| found.push((job.clone(), what));
        match deed {
            Deed::Began { from } => {
                if from < stored {
                    report(format!("attempt {attempt} begins with step {from}, and {stored} was stored before"));
                }
                (*newest, *next) = (*attempt, *from);
            }
            Deed::Step { number } if attempt != newest => {
                report(format!("attempt {attempt} made step {number} after attempt {newest} had begun"));
            }
            Deed::Step { number } => {
                if number != next {
                    report(format!("attempt {attempt} made step {number} where {next} was due"));
                }
                *next = number + 1;
            }
            Deed::Saved { point } => *stored = (*stored).max(*point),
        }
    }
    found
}

/// What a process knows of its job.
struct Job {
    id: String,
    /// Since it has the job: its attempt.
    attempt: Option<u64>,
    run: Option<i64>,
    next_step: u64,
    /// Attached on this socket.
    attached: bool,
    held: bool,
    /// The work may go on until then without another sign of a worker.
    lease: Instant,
    /// When it was asked for last, on this socket.
    asked: Option<Instant>,
    /// How the work has ended, as `end` says it.
    end: Option<&'static str>,
    /// That was said on this socket.
    said: bool,
    over: bool,
    /// The newest resume point that is known to be stored, and how many were made.
    stored: u64,
    saves: u64,
    /// The one that is being stored.
    saving: Option<Saving>,
}

struct Saving {
    number: u64,
    point: u64,
    /// It was sent on this socket.
    sent: bool,
}

impl Job {
    fn new(id: &str) -> Self {
        Self {
            id: id.to_owned(),
            attempt: None,
            run: None,
            next_step: 0,
            attached: false,
            held: false,
            lease: Instant::now(),
            asked: None,
            end: None,
            said: false,
            over: false,
            stored: 0,
            saves: 0,
            saving: None,
        }
    }

    fn attach(&mut self, reference: u64, now: Instant) -> Value {
        self.asked = Some(now);
        let mut attach = json!({"type": "attach", "ref": reference, "tenant_id": "acme", "job_id": self.id});
        if let Some(run) = self.run {
            attach["run"] = json!(run);
        }
        attach
    }

    /// The resume point that is to be sent now, if one is.
    fn save(&mut self) -> Option<(u64, u64)> {
        if self.saving.is_none() && self.next_step >= self.stored + STEPS_PER_SAVE {
            self.saves += 1;
            self.saving = Some(Saving { number: self.saves, point: self.next_step, sent: false });
        }
        let saving = self.saving.as_mut().filter(|saving| !saving.sent)?;
        saving.sent = true;
        Some((saving.number, saving.point))
    }

    /// The job is this process's, in this run. It goes on where it was if nobody else has had the job since, and where
    /// the row says otherwise.
    fn attached(&mut self, message: &Value, trace: &Trace) {
        static ATTEMPTS: AtomicU64 = AtomicU64::new(1);
        let (run, former) = (message["run"].as_i64(), self.run);
        let point = message["resume_point"].as_u64().unwrap_or(0);
        (self.run, self.attached, self.held) = (run, true, message["status"] == "paused");
        let is_known = point == self.stored || self.saving.as_ref().is_some_and(|saving| saving.point == point);
        let is_ours = former.is_some() && (run == former || (run == former.map(|former| former + 1) && is_known));
        if is_ours {
            return;
        }
        let attempt = ATTEMPTS.fetch_add(1, Ordering::Relaxed);
        (self.attempt, self.next_step, self.stored) = (Some(attempt), point, point);
        (self.saving, self.end) = (None, None);
        trace.note(Instant::now(), &self.id, attempt, Deed::Began { from: point });
    }
}

/// One foreign process.
pub struct Process {
    pub token: String,
    pub session: String,
    /// Where workers listen.
    pub addresses: Vec<String>,
    pub reattach: Duration,
    pub trace: Trace,
    /// The work is to complete.
    pub finish: CancellationToken,
    /// The process ends, without a word.
    pub leave: CancellationToken,
    jobs: BTreeMap<u64, Job>,
    next_reference: u64,
    /// When the socket's last sign of a worker was asked for: its leases count from there.
    asked_for_sign: Instant,
    zero: Instant,
}

impl Process {
    pub fn new(token: &str, session: &str, addresses: &[String], reattach: Duration, trace: &Trace) -> Self {
        let now = Instant::now();
        Self {
            token: token.to_owned(),
            session: session.to_owned(),
            addresses: addresses.to_vec(),
            reattach,
            trace: trace.clone(),
            finish: CancellationToken::new(),
            leave: CancellationToken::new(),
            jobs: BTreeMap::new(),
            next_reference: 1,
            asked_for_sign: now,
            zero: now,
        }
    }

    /// This job is delivered to the process, too.
    pub fn takes(&mut self, id: &str) {
        self.jobs.insert(self.next_reference, Job::new(id));
        self.next_reference += 1;
    }

    /// Runs its jobs until all have ended.
    pub async fn run(mut self) {
        let mut next = self.next_reference as usize;
        while self.jobs.values().any(|job| !job.over) && !self.leave.is_cancelled() {
            for job in self.jobs.values_mut() {
                (job.attached, job.said, job.asked) = (false, false, None);
                job.saving.iter_mut().for_each(|saving| saving.sent = false);
            }
            next += 1;
            let url = format!("ws://{}/api/v1/worker/ws", self.addresses[next % self.addresses.len()]);
            let protocols = format!("wheelhouse-worker.1, bearer.{}", self.token);
            let headers = [("sec-websocket-protocol", protocols.as_str())];
            let connecting = tokio::time::timeout(CONNECT, Socket::connect_with(&url, &headers));
            let mut connecting = std::pin::pin!(connecting);
            let connected = loop {
                tokio::select! {
                    connected = &mut connecting => break connected,
                    () = tokio::time::sleep(STEP) => self.step(),
                }
            };
            if let Ok(Ok(socket)) = connected {
                self.talk(socket).await;
            } else {
                self.step();
                tokio::time::sleep(STEP).await;
            }
        }
    }

    fn lease(&self) -> Instant {
        self.asked_for_sign + self.reattach * 2 / 3
    }

    /// One step of each job that may make one.
    fn step(&mut self) {
        // The moment before the look: a process that is not scheduled in between has made its step then.
        let now = Instant::now();
        for job in self.jobs.values_mut() {
            let Some(attempt) = job.attempt else { continue };
            if job.held || job.over || job.end.is_some() || now >= job.lease {
                continue;
            }
            self.trace.note(now, &job.id, attempt, Deed::Step { number: job.next_step });
            job.next_step += 1;
        }
    }

    /// What is to be sent about jobs: wishes to attach, resume points and ends.
    fn due(&mut self) -> Vec<Value> {
        let now = Instant::now();
        let mut out = Vec::new();
        for (reference, job) in self.jobs.iter_mut().filter(|(_, job)| !job.over) {
            if !job.attached {
                if job.asked.is_none_or(|at| now.duration_since(at) > RETRY) {
                    out.push(job.attach(*reference, now));
                }
                continue;
            }
            if self.finish.is_cancelled() && !job.held && job.end.is_none() {
                job.end = Some("completed");
            }
            if let (Some(end), false) = (job.end, job.said) {
                job.said = true;
                out.push(json!({"type": "end", "ref": reference, "how": end}));
            } else if job.end.is_none() {
                out.extend(
                    job.save().map(|(n, point)| json!({"type": "save", "ref": reference, "n": n, "point": point})),
                );
            }
        }
        out
    }

    async fn talk(&mut self, mut socket: Socket) {
        self.asked_for_sign = Instant::now();
        let hello = json!({"type": "hello", "v": 1, "worker": "simulated", "session": self.session});
        let mut out = vec![Message::text(hello.to_string())];
        let (mut heard, mut next_ping) = (Instant::now(), Instant::now());
        while !self.leave.is_cancelled() && self.jobs.values().any(|job| !job.over) {
            out.extend(self.due().iter().map(|message| Message::text(message.to_string())));
            if Instant::now() >= next_ping {
                let sent = u64::try_from(self.zero.elapsed().as_millis()).unwrap_or(u64::MAX);
                out.push(Message::Ping(sent.to_be_bytes().to_vec().into()));
                next_ping = Instant::now() + self.reattach / 6;
            }
            for message in out.drain(..) {
                if !matches!(tokio::time::timeout(CONNECT, socket.try_send(message)).await, Ok(Ok(()))) {
                    return;
                }
            }
            self.step();
            if heard.elapsed() > self.reattach {
                return; // Silence: another worker is looked for.
            }
            let Ok(message) = tokio::time::timeout(STEP, socket.next_frame()).await else { continue };
            heard = Instant::now();
            match message {
                Some(Message::Text(text)) => {
                    let message = serde_json::from_str(&text).expect("a JSON message");
                    out.extend(self.obey(&message).map(|answer| Message::text(answer.to_string())));
                }
                Some(Message::Pong(sent)) => self.sign(&sent),
                Some(Message::Close(_)) | None => return,
                Some(_) => {}
            }
        }
    }

    /// A ping is answered: the worker has lived since it was sent.
    fn sign(&mut self, sent: &[u8]) {
        let Ok(sent) = sent.try_into().map(u64::from_be_bytes) else { return };
        self.asked_for_sign = self.asked_for_sign.max(self.zero + Duration::from_millis(sent));
        let lease = self.lease();
        for job in self.jobs.values_mut().filter(|job| job.attached) {
            job.lease = lease;
        }
    }

    fn obey(&mut self, message: &Value) -> Option<Value> {
        let reference = message["ref"].as_u64()?;
        let lease = self.lease();
        let job = self.jobs.get_mut(&reference)?;
        match message["type"].as_str()? {
            "attached" => {
                job.lease = lease;
                job.attached(message, &self.trace);
            }
            "saved" => {
                let saved = message["n"].as_u64()?;
                if let Some(saving) = job.saving.take_if(|saving| saving.number <= saved) {
                    job.stored = saving.point;
                    self.trace.note(Instant::now(), &job.id, job.attempt?, Deed::Saved { point: saving.point });
                }
            }
            // Another has the job, or had it: this attempt is over, and its queue delivers the job again.
            "refused" if message["error"] == "elsewhere" && job.attempt.is_none() => {}
            "lost" => self.begin_anew(reference),
            "refused" if message["error"] == "elsewhere" => self.begin_anew(reference),
            "refused" | "ended" => job.over = true,
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
                        // Nothing of it is left: it makes no more steps. On another socket it has ended by itself.
                        (job.end, job.said) = (Some("cancelled"), true);
                        "ended"
                    }
                };
                return Some(json!({"type": "reached", "ref": reference, "order": message["order"], "state": state}));
            }
            _ => {}
        }
        None
    }

    fn begin_anew(&mut self, reference: u64) {
        if let Some(job) = self.jobs.remove(&reference) {
            let mut again = Job::new(&job.id);
            again.asked = Some(Instant::now());
            self.jobs.insert(self.next_reference, again);
            self.next_reference += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(marks: &[(u64, Deed)]) -> usize {
        let marks: Vec<_> = marks.iter().map(|(attempt, deed)| ("j".to_owned(), *attempt, *deed)).collect();
        faults_of(&marks).len()
    }

    #[test]
    fn steps_that_are_doubled_left_out_or_of_two_attempts_at_once_are_found() {
        use Deed::{Began, Saved, Step};
        let (began, step) = (Began { from: 0 }, |number| Step { number });
        assert_eq!(faults(&[(1, began), (1, step(0)), (1, step(1)), (2, began), (2, step(0))]), 0);
        let saved = [(1, began), (1, step(0)), (1, Saved { point: 1 }), (2, Began { from: 1 }), (2, step(1))];
        assert_eq!(faults(&saved), 0);
        assert_eq!(faults(&[(1, began), (1, step(0)), (1, Saved { point: 1 }), (2, began)]), 1, "again after a save");
        assert_eq!(faults(&[(1, began), (1, step(0)), (1, step(0))]), 1, "twice");
        assert_eq!(faults(&[(1, began), (1, step(1))]), 1, "left out");
        assert_eq!(faults(&[(1, began), (1, step(0)), (2, began), (1, step(1))]), 1, "two at once");
    }
}
