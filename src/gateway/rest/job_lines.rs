//! Jobs as a stream of lines, a JSON object each, as many as there are.
//!
//! Up to [`MAX_CAMPAIGN_JOBS`] lines are made all or none. Of more, a batch is made while the next one arrives and is read, so that
//! neither memory nor a transaction grows with the stream; where a line is wrong, those before its batch are made, and the answer
//! says how many those are. Whoever gave a `request_id` sends the same lines again: what they made is not made twice.

use hyper::StatusCode;
use serde_json::{Value, json};
use tokio::time::Instant;
use uuid::Uuid;

use super::answer::Answer;
use super::callers::Callers;
use super::input::{self, JobOwner, MAX_CAMPAIGN_JOBS};
use super::job_writer::{CREATE_JOB, FEW_JOBS, JOB_BODY, JobWriter, LARGE_BODY, SMALL_BODY, made, with_store_error};
use super::line_ids::LineIds;
use super::lines::LineReader;
use super::request::Request;
use crate::auth::Caller;
use crate::broker::scripts::updates::JobWake;
use crate::domain::{Permission, RequestId, ResourceId, ResourceKind};
use crate::http::Refusal;
use crate::protocol::ErrorCode;
use crate::store::{BatchOutcome, SubmittedJob};

/// Jobs of one transaction: other writers get their turn after that.
const BATCH_JOBS: usize = 1_000;
/// Bytes of lines from which a batch is not waited for any longer.
const BATCH_BYTES: usize = 2 * 1024 * 1024;
/// A job in memory takes so many bytes beside its line, which is there twice for a moment.
const JOB_BYTES: usize = 512;

/// One request with a stream of lines.
struct JobStream<'a> {
    callers: &'a Callers,
    writer: &'a JobWriter,
    caller: &'a Caller,
    /// When it was checked last that they may.
    checked_at: Instant,
    campaign: Option<&'a ResourceId>,
    /// The client's own name for the request.
    request_id: Option<RequestId>,
    /// `USER REQUEST_ID`, with a name that is made up where the client gave none.
    name: String,
    /// What ids are made of.
    ids: LineIds,
    /// Of the lines up to this one every job is there.
    taken_to: u64,
    /// How many jobs that are, and how many of them are new.
    count: usize,
    new: usize,
}

/// Lines that have been read.
#[derive(Default)]
struct Lines {
    jobs: Vec<SubmittedJob>,
    /// The line of each of them.
    numbers: Vec<u64>,
    bytes: usize,
}

impl Lines {
    fn is_full(&self, (jobs, bytes): (usize, usize)) -> bool {
        self.jobs.len() >= jobs || self.bytes > bytes
    }

    /// The first of them, so many at most.
    fn take_batch(&mut self, jobs: usize) -> Self {
        let jobs = jobs.min(self.jobs.len());
        // Lines are about as long as each other, as far as it matters here.
        let bytes = self.bytes * jobs / self.jobs.len().max(1);
        self.bytes -= bytes;
        Self { jobs: self.jobs.drain(..jobs).collect(), numbers: self.numbers.drain(..jobs).collect(), bytes }
    }
}

/// See the head of this file.
pub(super) async fn create(
    callers: &Callers,
    writer: &JobWriter,
    request: &mut Request,
    caller: &Caller,
    campaign: Option<&ResourceId>,
    request_id: Option<RequestId>,
) -> Result<Answer, Refusal> {
    let made_up = Uuid::now_v7().to_string();
    let name = format!("{} {}", caller.user.as_str(), request_id.as_ref().map_or(made_up.as_str(), RequestId::as_str));
    let ids = LineIds::new(&format!("{} {name} {}", caller.tenant, campaign.map_or("", ResourceId::as_str)));
    let checked_at = Instant::now();
    let mut stream = JobStream {
        callers,
        writer,
        caller,
        checked_at,
        campaign,
        request_id,
        name,
        ids,
        taken_to: 0,
        count: 0,
        new: 0,
    };
    match stream.read(request).await {
        Ok(jobs) => Ok(stream.answer(jobs)),
        Err(refusal) => Err(stream.explain(refusal)),
    }
}

impl JobStream<'_> {
    /// Makes them. Of a stream that is not longer than that, what it takes to find each of them.
    async fn read(&mut self, request: &mut Request) -> Result<Option<Vec<Value>>, Refusal> {
        let mut reader = LineReader::new(JOB_BODY);
        let mut ahead = Lines::default();
        let is_long = self.gather(&mut reader, request, &mut ahead, 0, (MAX_CAMPAIGN_JOBS, LARGE_BODY)).await?;
        if ahead.jobs.is_empty() {
            return Err(Refusal::invalid("The body does not fit: it holds no job"));
        }
        self.keep_former_ids(&mut ahead).await?;
        if !is_long {
            self.check_again().await?;
            let new = self.write(&ahead).await?;
            self.note(&ahead, new);
            return Ok(Some(ahead.jobs.iter().map(|one| made(&one.job)).collect()));
        }
        while !ahead.jobs.is_empty() {
            // A stream may go on for hours: whoever may not any more makes no further batch.
            self.check_again().await?;
            let batch = ahead.take_batch(BATCH_JOBS);
            let gathered = self.gather(&mut reader, request, &mut ahead, batch.bytes, (BATCH_JOBS, BATCH_BYTES));
            let (new, gathered) = tokio::join!(self.write(&batch), gathered);
            // What was written counts, whatever is wrong with what comes behind it.
            self.note(&batch, new?);
            gathered?;
        }
        Ok(None)
    }

    async fn check_again(&mut self) -> Result<(), Refusal> {
        let permission = Permission::create(ResourceKind::Job);
        self.checked_at = self.callers.check_again(self.caller, &permission, CREATE_JOB, self.checked_at).await?;
        Ok(())
    }

    /// Reads lines until there are so many, or so many bytes; `true`: and one more. `beside`: bytes of lines that are being written.
    async fn gather(
        &self,
        reader: &mut LineReader,
        request: &mut Request,
        ahead: &mut Lines,
        beside: usize,
        most: (usize, usize),
    ) -> Result<bool, Refusal> {
        if ahead.is_full(most) {
            return Ok(true);
        }
        loop {
            let line = reader.next(request).await;
            let number = reader.number();
            let Some(line) = line.map_err(|refusal| at_line(number, refusal))? else { return Ok(false) };
            let is_over = ahead.jobs.len() >= most.0 || ahead.bytes + line.len() > most.1;
            let owner = JobOwner { tenant: &self.caller.tenant, user: &self.caller.user };
            let id = || self.id_of(number);
            let job = input::job_of_line(&line, self.campaign, &owner, id);
            let job = job.map_err(|refusal| at_line(number, refusal))?;
            ahead.jobs.push(SubmittedJob { job, submitted_as: self.submitted_as(number) });
            ahead.numbers.push(number);
            ahead.bytes += line.len();
            request.hold_at_least(2 * (ahead.bytes + beside) + (ahead.jobs.len() + BATCH_JOBS) * JOB_BYTES)?;
            if is_over {
                return Ok(true);
            }
        }
    }

    fn submitted_as(&self, line: u64) -> String {
        format!("{} {line}", self.name)
    }

    /// The id of a job whose line names none: the same line of the same request has the same one.
    fn id_of(&self, line: u64) -> ResourceId {
        let id = self.request_id.as_ref().and_then(|_| self.ids.of(line).parse().ok());
        id.unwrap_or_else(ResourceId::generate)
    }

    /// A request whose first lines were made by a version that gave other ids goes on with those.
    async fn keep_former_ids(&mut self, ahead: &mut Lines) -> Result<(), Refusal> {
        if self.request_id.is_none() {
            return Ok(());
        }
        let is_derived = |&at: &usize| ahead.jobs[at].job.id == self.id_of(ahead.numbers[at]);
        let Some(first) = (0..ahead.jobs.len()).find(is_derived) else { return Ok(()) };
        let (line, store) = (ahead.numbers[first], &self.writer.store);
        let (former, submitted_as) = (self.ids.former(line), self.submitted_as(line));
        let known = store.is_submitted(&self.caller.tenant, &former, &submitted_as);
        if with_store_error(known, "jobs").await? {
            let derived: Vec<usize> = (0..ahead.jobs.len()).filter(is_derived).collect();
            self.ids.go_on_with_former();
            for at in derived {
                ahead.jobs[at].job.id = self.id_of(ahead.numbers[at]);
            }
        }
        Ok(())
    }

    /// Makes them in one transaction; how many are new.
    async fn write(&self, lines: &Lines) -> Result<usize, Refusal> {
        let jobs = lines.jobs.len();
        let place = self.writer.place_if(lines.bytes > SMALL_BODY || jobs > FEW_JOBS, self.caller).await?;
        let outcome = with_store_error(self.writer.store.submit_jobs(&lines.jobs), "jobs").await?;
        drop(place);
        match outcome {
            BatchOutcome::Made(new) => {
                // Workers begin with the first while the others arrive.
                self.writer.wake(JobWake::jobs(jobs)).await;
                Ok(new)
            }
            BatchOutcome::Refused { place, why } => {
                let number = lines.numbers.get(place).copied().unwrap_or_default();
                Err(at_line(number, Refusal::new(ErrorCode::Conflict, why)))
            }
        }
    }

    /// They are there.
    fn note(&mut self, lines: &Lines, new: usize) {
        self.taken_to = lines.numbers.last().copied().unwrap_or(self.taken_to);
        self.count += lines.jobs.len();
        self.new += new;
    }

    fn answer(&self, jobs: Option<Vec<Value>>) -> Answer {
        let status = if self.new > 0 { StatusCode::CREATED } else { StatusCode::OK };
        let mut answer = json!({"count": self.count, "new": self.new});
        if let Some(jobs) = jobs {
            answer["jobs"] = jobs.into();
        }
        Answer::json(status, &answer)
    }

    /// Says beside what was wrong what has been made, and how to go on.
    fn explain(&self, mut refusal: Refusal) -> Refusal {
        let message = refusal.message.trim_end_matches('.').to_owned();
        let (to, next) = (self.taken_to, self.taken_to + 1);
        refusal.message = match (&self.request_id, to) {
            (_, 0) if refusal.code == ErrorCode::OutcomeUnknown => message,
            (_, 0) => format!("{message}. No job was made"),
            (Some(_), _) => format!(
                "{message}. The jobs of lines 1 to {to} are made: send all lines again with the same request_id, which makes \
                 nothing twice"
            ),
            (None, _) => {
                format!("{message}. The jobs of lines 1 to {to} are made: send the lines from {next} on again")
            }
        };
        refusal.with_request_id(self.request_id.as_ref()).with_lines_taken(to)
    }
}

fn at_line(number: u64, refusal: Refusal) -> Refusal {
    if number == 0 { refusal } else { refusal.with_prefix(&format!("line {number}: ")) }
}
