//! Jobs as a stream of lines, a JSON object each, as many as there are.
//!
//! Up to [`MAX_CAMPAIGN_JOBS`] lines are made all or none. Of more, a batch is made while the next one arrives, so that neither
//! memory nor a transaction grows with the stream; where a line is wrong, those before its batch are made, and the answer says
//! how many those are. Whoever gave a `request_id` sends the same lines again: what they made is not made twice.

use hyper::StatusCode;
use serde_json::{Value, json};
use uuid::Uuid;

use super::answer::Answer;
use super::input::{self, JobOwner, MAX_CAMPAIGN_JOBS};
use super::job_writer::{FEW_JOBS, JOB_BODY, JobWriter, LARGE_BODY, SMALL_BODY, made, with_store_error};
use super::lines::LineReader;
use super::request::Request;
use crate::auth::Caller;
use crate::broker::scripts::updates::JobWake;
use crate::domain::{RequestId, ResourceId};
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
    writer: &'a JobWriter,
    caller: &'a Caller,
    campaign: Option<&'a ResourceId>,
    /// The client's own name for the request.
    request_id: Option<RequestId>,
    /// `USER REQUEST_ID`, with a name that is made up where the client gave none.
    name: String,
    waiting: Vec<SubmittedJob>,
    /// The line of each of them.
    lines: Vec<u64>,
    bytes: usize,
    /// Of the lines up to this one every job is there.
    taken_to: u64,
    /// How many jobs that are, and how many of them are new.
    count: usize,
    new: usize,
}

/// See the head of this file.
pub(super) async fn create(
    writer: &JobWriter,
    request: &mut Request,
    caller: &Caller,
    campaign: Option<&ResourceId>,
    request_id: Option<RequestId>,
) -> Result<Answer, Refusal> {
    let made_up = Uuid::now_v7().to_string();
    let name = format!("{} {}", caller.user.as_str(), request_id.as_ref().map_or(made_up.as_str(), RequestId::as_str));
    let mut stream = JobStream {
        writer,
        caller,
        campaign,
        request_id,
        name,
        waiting: Vec::new(),
        lines: Vec::new(),
        bytes: 0,
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
        let mut is_long = false;
        loop {
            let line = reader.next(request).await;
            let number = reader.number();
            let Some(line) = line.map_err(|refusal| at_line(number, refusal))? else { break };
            is_long |= self.waiting.len() >= MAX_CAMPAIGN_JOBS || self.bytes + line.len() > LARGE_BODY;
            if is_long && (self.waiting.len() >= BATCH_JOBS || self.bytes + line.len() > BATCH_BYTES) {
                self.write_batches().await?;
            }
            let owner = JobOwner { tenant: &self.caller.tenant, user: &self.caller.user };
            let id = || self.id_of(number);
            let job = input::job_of_line(&line, self.campaign, &owner, id);
            let job = job.map_err(|refusal| at_line(number, refusal))?;
            self.waiting.push(SubmittedJob { job, submitted_as: format!("{} {number}", self.name) });
            self.lines.push(number);
            self.bytes += line.len();
            request.hold_at_least(2 * self.bytes + self.waiting.len() * JOB_BYTES)?;
        }
        if is_long {
            self.write_batches().await?;
            return Ok(None);
        }
        if self.waiting.is_empty() {
            return Err(Refusal::invalid("The body does not fit: it holds no job"));
        }
        let jobs = self.waiting.iter().map(|one| made(&one.job)).collect();
        let all = self.waiting.len();
        self.write(all).await?;
        Ok(Some(jobs))
    }

    /// The id of a job whose line names none: the same line of the same request has the same one.
    fn id_of(&self, line: u64) -> ResourceId {
        let Some(_) = &self.request_id else { return ResourceId::generate() };
        let campaign = self.campaign.map_or("", ResourceId::as_str);
        let name = format!("{} {} {campaign} {line}", self.caller.tenant, self.name);
        let id = Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes()).to_string();
        id.parse().unwrap_or_else(|_| ResourceId::generate())
    }

    async fn write_batches(&mut self) -> Result<(), Refusal> {
        while !self.waiting.is_empty() {
            self.write(BATCH_JOBS.min(self.waiting.len())).await?;
        }
        Ok(())
    }

    /// Makes the first of those that wait, in one transaction.
    async fn write(&mut self, jobs: usize) -> Result<(), Refusal> {
        let place = self.writer.place_if(self.bytes > SMALL_BODY || jobs > FEW_JOBS, self.caller).await?;
        let outcome = with_store_error(self.writer.store.submit_jobs(&self.waiting[..jobs]), "jobs").await?;
        drop(place);
        match outcome {
            BatchOutcome::Made(new) => {
                self.taken_to = self.lines.get(jobs - 1).copied().unwrap_or(self.taken_to);
                self.count += jobs;
                self.new += new;
                self.waiting.drain(..jobs);
                self.lines.drain(..jobs);
                if self.waiting.is_empty() {
                    self.bytes = 0;
                }
                // Workers begin with the first while the others arrive.
                self.writer.wake(JobWake::jobs(jobs)).await;
                Ok(())
            }
            BatchOutcome::Refused { place, why } => {
                let number = self.lines.get(place).copied().unwrap_or_default();
                Err(at_line(number, Refusal::new(ErrorCode::Conflict, why)))
            }
        }
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
