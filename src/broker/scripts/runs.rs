//! `lua/update_runs.lua`, `end_runs.lua`: which worker hosts a running job, how far it is, and that it has left it.

use futures_util::StreamExt;
use futures_util::stream;
use redis::Value;

use super::{bytes, lua, texts};
use crate::broker::keys::updates_channel;
use crate::broker::{Broker, BrokerError};
use crate::domain::{Progress, Resource, WorkerId};

/// Of those that are told one by one, how many are on their way at once.
const ONE_BY_ONE: usize = 16;

/// What a host says of one of its runs.
#[derive(Debug, Clone)]
pub struct RunUpdate {
    /// The job.
    pub job: Resource,
    /// The number of its run.
    pub run: i64,
    /// Redis is to keep what it knows of the job for another week: to be said at the start, and now and then.
    pub keep: bool,
    /// What is to be told of it, if anything.
    pub message: Option<RunMessage>,
}

/// What those who watch a job are told of its run.
#[derive(Debug, Clone)]
pub struct RunMessage {
    /// Without its end, from `protocol::server`; the script appends `,"seq":N}`.
    pub text: String,
    /// What it says of the progress, to be kept for snapshots; `None`: it is about the status, and no command is on its way to another.
    pub progress: Option<Progress>,
    /// As [`EndedRun::fence`], of a status.
    pub fence: Option<i64>,
}

/// A run that is over.
#[derive(Debug, Clone)]
pub struct EndedRun {
    /// The job.
    pub job: Resource,
    /// The number of its run.
    pub run: i64,
    /// What those who watch are told, without its end, from `protocol::server`: the status that the job has now. `None`: nothing.
    pub message: Option<String>,
    /// The fence of the row that says so. Where a command has been claimed since, nothing is told: it may have taken the job elsewhere. `None`:
    /// no command takes it anywhere any more.
    pub fence: Option<i64>,
}

/// What a host learns each second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunState {
    /// The job is still this worker's.
    Held {
        /// How many commands wait on it.
        waiting: i64,
    },
    /// The job is still this worker's, and its status was not told: a command has been claimed since its row was read, which may be further.
    Overtaken,
    /// Another run has begun, or the run was ended: stop the work, change nothing. An update was not published.
    Lost,
}

impl Broker {
    /// The job runs inside this worker as its `run`-th run. An older run is ended by it; a run that Redis forgot is taken
    /// up again.
    pub async fn renew_run(&self, job: &Resource, worker: &WorkerId, run: i64) -> Result<RunState, BrokerError> {
        let update = RunUpdate { job: job.clone(), run, keep: true, message: None };
        let mut answers = self.update_runs(worker, &[update]).await?;
        answers.pop().unwrap_or_else(|| Err(no_answer()))
    }

    /// As [`Self::renew_run`] for many runs, all of one partition, in one call. What runs say of their progress is numbered,
    /// kept and published with it. An answer for each, in their order; the outer error is all of theirs.
    ///
    /// While the slot of a partition is on its way to another server of a cluster, Redis takes no call that has keys on both, or one
    /// that does not exist (TRYAGAIN). Then each run is told of by itself, by its one key, and its commands are asked for after it.
    pub async fn update_runs(
        &self,
        worker: &WorkerId,
        updates: &[RunUpdate],
    ) -> Result<Vec<Result<RunState, BrokerError>>, BrokerError> {
        match self.update_runs_in_one_call(worker, updates, true).await {
            Err(error) if error.is_slot_on_its_way() => {
                let mut one_by_one = Vec::with_capacity(updates.len());
                for update in updates {
                    one_by_one.push(self.update_run_on_its_way(worker, update));
                }
                Ok(stream::iter(one_by_one).buffered(ONE_BY_ONE).collect().await)
            }
            answers => answers,
        }
    }

    async fn update_run_on_its_way(&self, worker: &WorkerId, update: &RunUpdate) -> Result<RunState, BrokerError> {
        let one = std::slice::from_ref(update);
        let mut answers = self.update_runs_in_one_call(worker, one, false).await?;
        match answers.pop().unwrap_or_else(|| Err(no_answer()))? {
            RunState::Held { .. } => {
                let waiting = self.client.query(redis::cmd("LLEN").arg(self.keys().queue(&update.job))).await?;
                Ok(RunState::Held { waiting })
            }
            other => Ok(other),
        }
    }

    async fn update_runs_in_one_call(
        &self,
        worker: &WorkerId,
        updates: &[RunUpdate],
        with_queues: bool,
    ) -> Result<Vec<Result<RunState, BrokerError>>, BrokerError> {
        let mut keys: Vec<String> = updates.iter().map(|update| self.keys().state(&update.job)).collect();
        if with_queues {
            keys.extend(updates.iter().map(|update| self.keys().queue(&update.job)));
        }
        let mut args = Vec::with_capacity(updates.len() * 6 + 1);
        args.push(worker.to_string());
        for RunUpdate { job, run, keep, message } in updates {
            args.extend([run.to_string(), u8::from(*keep).to_string()]);
            args.extend(match message {
                Some(RunMessage { text, progress, fence }) => {
                    let kept = progress.as_ref().and_then(|progress| serde_json::to_string(progress).ok());
                    [updates_channel(job), text.clone(), kept.unwrap_or_default(), fence_text(*fence)]
                }
                None => [const { String::new() }; 4],
            });
        }
        let answers: Vec<Value> = self.client.script_at_once(&lua::UPDATE_RUNS, &texts(&keys), &bytes(&args)).await?;
        Ok(answers_of(&answers, updates.len())?.iter().map(read_state).collect())
    }

    /// The job has left this worker; does nothing if a newer run has begun. Waiting commands become anyone's.
    pub async fn end_run(&self, job: &Resource, run: i64) -> Result<(), BrokerError> {
        self.end_run_by_itself(&EndedRun { job: job.clone(), run, message: None, fence: None }).await.map(drop)
    }

    /// As [`Self::end_run`] for many runs, all of one partition, in one call, with what those who watch are told. An answer for each, in
    /// their order: `false` where what they are to be told may be over, so that somebody has to look at the row. The outer error is all of theirs. While the slot of a partition is on its way to another server, each is ended by itself.
    pub async fn end_runs(&self, ended: &[EndedRun]) -> Result<Vec<Result<bool, BrokerError>>, BrokerError> {
        match self.end_runs_in_one_call(ended, true).await {
            Err(error) if error.is_slot_on_its_way() => {
                let mut one_by_one = Vec::with_capacity(ended.len());
                for one in ended {
                    one_by_one.push(self.end_run_by_itself(one));
                }
                Ok(stream::iter(one_by_one).buffered(ONE_BY_ONE).collect().await)
            }
            answers => answers,
        }
    }

    async fn end_run_by_itself(&self, ended: &EndedRun) -> Result<bool, BrokerError> {
        let mut answers = self.end_runs_in_one_call(std::slice::from_ref(ended), false).await?;
        answers.pop().unwrap_or_else(|| Err(no_answer()))
    }

    /// `at_once`: that the slot is on its way is an error, and not waited for.
    async fn end_runs_in_one_call(
        &self,
        ended: &[EndedRun],
        at_once: bool,
    ) -> Result<Vec<Result<bool, BrokerError>>, BrokerError> {
        let Some(first) = ended.first() else { return Ok(Vec::new()) };
        let names = self.keys();
        let mut keys = vec![names.tenants_with_ready(names.partition(&first.job.tenant))];
        let mut args = Vec::with_capacity(ended.len() * 5);
        for EndedRun { job, run, message, fence } in ended {
            keys.extend([names.state(job), names.queue(job), names.ready(&job.tenant)]);
            args.extend([run.to_string(), job.to_string()]);
            args.extend(match message {
                Some(message) => [updates_channel(job), message.clone()],
                None => [const { String::new() }; 2],
            });
            args.push(fence_text(*fence));
        }
        let (keys, args) = (texts(&keys), bytes(&args));
        let answers: Vec<Value> = match at_once {
            true => self.client.script_at_once(&lua::END_RUNS, &keys, &args).await?,
            false => self.client.script(&lua::END_RUNS, &keys, &args).await?,
        };
        Ok(answers_of(&answers, ended.len())?.iter().map(|answer| Ok(read_number(answer)? != NOT_TOLD)).collect())
    }
}

/// The answers about so many runs.
fn answers_of(answers: &[Value], runs: usize) -> Result<&[Value], BrokerError> {
    if answers.len() == runs {
        Ok(answers)
    } else {
        Err(BrokerError::Refused(format!("{} answers about {runs} runs", answers.len())))
    }
}

fn no_answer() -> BrokerError {
    BrokerError::Refused("no answer about a run".to_owned())
}

/// An end that was not told, and the start of a run of which the same holds.
const NOT_TOLD: i64 = 2;
const OVERTAKEN: i64 = -2;

fn fence_text(fence: Option<i64>) -> String {
    fence.map(|fence| fence.to_string()).unwrap_or_default()
}

fn read_state(answer: &Value) -> Result<RunState, BrokerError> {
    Ok(match read_number(answer)? {
        OVERTAKEN => RunState::Overtaken,
        waiting if waiting < 0 => RunState::Lost,
        waiting => RunState::Held { waiting },
    })
}

fn read_number(answer: &Value) -> Result<i64, BrokerError> {
    match answer {
        Value::Int(number) => Ok(*number),
        Value::BulkString(words) => Err(BrokerError::Refused(String::from_utf8_lossy(words).into_owned())),
        other => Err(BrokerError::Refused(format!("{other:?} is no answer about a run"))),
    }
}
