//! What goes into SQL and comes out of it, beyond the domain's own rows.

use crate::domain::{
    Action, AuditEntry, AuditEvent, CampaignStatus, ChainLink, CommandId, Control, FailedItem, Job, JobStatus,
    JsonText, Progress, Resource, ResourceId, ResourceKind, TenantId, UserId, WorkerId,
};

/// A job to be made.
#[derive(Debug, Clone)]
pub struct NewJob {
    /// Its id.
    pub id: ResourceId,
    /// The tenant to whom it belongs.
    pub tenant: TenantId,
    /// The campaign it belongs to.
    pub campaign: Option<ResourceId>,
    /// Which code runs it.
    pub job_type: String,
    /// For people.
    pub title: Option<String>,
    /// For that code.
    pub parameters: JsonText,
    /// How often it may be tried again after a failure.
    pub max_retries: u32,
    /// Longest running time of one try in seconds, over all workers that go on with it, without the time it stands paused;
    /// `None`: no limit.
    pub timeout_seconds: Option<u32>,
    /// Who makes it.
    pub created_by: Option<UserId>,
}

impl NewJob {
    /// A job without anything special: no campaign, no title, no parameters, no retries, no time limit.
    pub fn new(tenant: TenantId, id: ResourceId, job_type: impl Into<String>) -> Self {
        Self {
            id,
            tenant,
            campaign: None,
            job_type: job_type.into(),
            title: None,
            parameters: JsonText::default(),
            max_retries: 0,
            timeout_seconds: None,
            created_by: None,
        }
    }
}

/// A campaign to be made, with its jobs.
#[derive(Debug, Clone)]
pub struct NewCampaign {
    /// Its id.
    pub id: ResourceId,
    /// The tenant to whom it belongs.
    pub tenant: TenantId,
    /// For people.
    pub name: Option<String>,
    /// Who makes it.
    pub created_by: Option<UserId>,
    /// Its jobs.
    pub jobs: Vec<NewJob>,
}

/// What a list is sorted by; rows that are equal in that by the order of their making.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum JobSort {
    /// Those that have not ended before those that have, each as they were made.
    #[default]
    Unfinished,
    /// When they were made.
    Created,
    /// When they last changed.
    Updated,
    /// How long they ran; of those that run, so far.
    Duration,
}

/// Which jobs to list.
#[derive(Debug, Clone)]
pub struct JobFilter {
    /// The tenant whose jobs are listed.
    pub tenant: TenantId,
    /// Only in one of these; none given: in any.
    pub status: Vec<JobStatus>,
    /// Only that campaign's.
    pub campaign: Option<ResourceId>,
    /// Only that type's.
    pub job_type: Option<String>,
    /// Only those that this user made.
    pub created_by: Option<String>,
    /// Only those that a worker of this name, or with this id, hosts.
    pub worker: Option<String>,
    /// Made then or later, Unix ms.
    pub created_after: Option<i64>,
    /// Made before that.
    pub created_before: Option<i64>,
    /// Last changed then or later, Unix ms.
    pub updated_after: Option<i64>,
    /// Last changed before that.
    pub updated_before: Option<i64>,
    /// Only with this text in title, id, type, user or error, whatever the case of the letters A to Z.
    pub text: Option<String>,
    /// In which order.
    pub sort: JobSort,
    /// The other way round: the smallest first.
    pub ascending: bool,
    /// From the last page.
    pub after: Option<String>,
    /// At most so many (1 to 1,000).
    pub limit: u32,
}

impl JobFilter {
    /// Everything of a tenant, in the usual order.
    pub fn of(tenant: TenantId) -> Self {
        Self {
            tenant,
            status: Vec::new(),
            campaign: None,
            job_type: None,
            created_by: None,
            worker: None,
            created_after: None,
            created_before: None,
            updated_after: None,
            updated_before: None,
            text: None,
            sort: JobSort::default(),
            ascending: false,
            after: None,
            limit: 1_000,
        }
    }
}

/// Which campaigns to list: as [`JobFilter`], with what campaigns have.
#[derive(Debug, Clone)]
pub struct CampaignFilter {
    /// The tenant whose campaigns are listed.
    pub tenant: TenantId,
    /// Only in one of these; none given: in any.
    pub status: Vec<CampaignStatus>,
    /// Only those that this user made.
    pub created_by: Option<String>,
    /// Made then or later, Unix ms.
    pub created_after: Option<i64>,
    /// Made before that.
    pub created_before: Option<i64>,
    /// Last changed then or later, Unix ms.
    pub updated_after: Option<i64>,
    /// Last changed before that.
    pub updated_before: Option<i64>,
    /// Only with this text in name, id or user.
    pub text: Option<String>,
    /// In which order; not by duration.
    pub sort: JobSort,
    /// The other way round: the smallest first.
    pub ascending: bool,
    /// From the last page.
    pub after: Option<String>,
    /// At most so many (1 to 1,000).
    pub limit: u32,
}

impl CampaignFilter {
    /// Everything of a tenant, in the usual order.
    pub fn of(tenant: TenantId) -> Self {
        Self {
            tenant,
            status: Vec::new(),
            created_by: None,
            created_after: None,
            created_before: None,
            updated_after: None,
            updated_before: None,
            text: None,
            sort: JobSort::default(),
            ascending: false,
            after: None,
            limit: 1_000,
        }
    }
}

/// Which resources to take for a batch: those that have not ended, and fit.
#[derive(Debug, Clone)]
pub struct ResourceSelection {
    /// The tenant whose rows are looked for.
    pub tenant: TenantId,
    /// Jobs or campaigns.
    pub kind: ResourceKind,
    /// Only in one of these statuses; none given: in any that is not an end.
    pub status: Vec<&'static str>,
    /// Only that campaign's jobs.
    pub campaign: Option<ResourceId>,
    /// Only jobs of that type.
    pub job_type: Option<String>,
}

/// One run of one job inside one worker: the right to write about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Which job.
    pub job: Resource,
    /// The worker in which the job runs.
    pub host: WorkerId,
    /// Grows with every run of the job.
    pub number: i64,
}

/// A job that a worker has taken.
#[derive(Debug, Clone)]
pub struct ClaimedJob {
    /// The row.
    pub job: Job,
    /// The right to write about it.
    pub run: Run,
    /// Where an earlier run got to, as it stands in SQL: whether the job's code can read it, it finds out.
    pub resume_point: Option<String>,
    /// Workers that died in it since it last got further.
    pub deaths: i64,
    /// How much of its `timeout_seconds` earlier runs of this try have used, in ms.
    pub timeout_used_ms: i64,
}

/// What became of a `wheelhouse run`'s wish to have a job.
#[derive(Debug, Clone)]
pub enum AttachedStart {
    /// It has it.
    Hosted(Box<ClaimedJob>),
    /// It is paused: it does not begin until it is resumed.
    Paused,
    /// Another host has it.
    Elsewhere(Run),
    /// It has ended.
    Ended(JobStatus),
}

/// A foreign session that asks for a job.
#[derive(Debug, Clone)]
pub struct RemoteWish<'a> {
    /// The foreign process.
    pub session: &'a str,
    /// Its own number of the job (`ref`), which it gives to no other.
    pub reference: i64,
    /// The run of the job that it holds already.
    pub run: Option<i64>,
    /// The run that an earlier try of this very wish was to write, which may have happened although no answer came.
    pub tried: Option<i64>,
}

/// What became of a foreign session's wish to have a job.
#[derive(Debug, Clone)]
pub enum RemoteAttach {
    /// It has it.
    Attached(Box<ClaimedJob>),
    /// The job has ended.
    Ended {
        /// The status with which the job has ended.
        status: JobStatus,
        /// By the run that the session asks for. The job may then be `pending` again: its next run is another one.
        is_own: bool,
    },
    /// Somebody else has it.
    Elsewhere,
    /// Its campaign lets no job start just now.
    CampaignPaused,
}

/// A run of a job that has not ended, as the reaper sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hosting {
    /// Which run, and where.
    pub run: Run,
    /// Its work belongs to the program that hosts it: no other can go on with it.
    pub is_attached: bool,
    /// Its work is in a foreign process, which outlives its host and takes the run to another worker.
    pub is_remote: bool,
    /// The row says that the host has not been heard of.
    pub is_contact_lost: bool,
    /// How often the host has renewed its lease in SQL; `None`: never, as a version before did.
    pub renewals: Option<i64>,
}

/// Which of the jobs that wait a worker may take, by how many workers have died in them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Company {
    /// It runs nothing: any of them.
    None,
    /// It runs others: only jobs in which fewer workers than this have died.
    Others(i64),
    /// It runs nothing, and has made room for a job in which at least so many have died.
    Awaited(i64),
}

/// How the work of a run ended (a cancel is not here: it is a command, see `Store::apply`).
#[derive(Debug, Clone)]
pub enum RunEnd {
    /// Well.
    Completed(JsonText),
    /// Badly.
    Failed {
        /// The reason of the failure, in words for the operator.
        error: String,
        /// Trying again cannot help.
        permanent: bool,
    },
    /// As cancelled, by its own choice.
    Cancelled {
        /// Who chose it.
        by: String,
    },
}

/// What a run has to say beside how it ended.
#[derive(Debug, Clone, Default)]
pub struct SavedRun {
    /// How far it is.
    pub progress: Progress,
    /// Where it could go on; `None`: as the row says.
    pub resume_point: Option<JsonText>,
    /// What failed since the last time it was asked.
    pub failed_items: Vec<FailedItem>,
    /// How much of its `timeout_seconds` this try has used, in ms; `None`: as the row says.
    pub timeout_used_ms: Option<i64>,
}

/// What became of one of many reports that were written together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SaveOutcome {
    /// It is written.
    Saved,
    /// The job is no longer this run's; nothing was written.
    Lost,
    /// Somebody else holds the row; nothing was written. By itself it waits for that.
    Passed,
}

/// How a run that is handed back is to go on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HandBack {
    /// Not before this time (Unix ms).
    pub run_after: Option<i64>,
    /// Why this try has failed, where the job's own queue tries again: that is a retry, and has its whole `timeout_seconds`.
    pub failed_with: Option<String>,
    /// The work itself has ended the run: it may say so again, and nobody comes back for it.
    pub by_the_work: bool,
}

/// A job whose host is dead, released.
#[derive(Debug, Clone)]
pub struct ReleasedRun {
    /// The row as it is now.
    pub job: Job,
    /// It was paused, and went through `running` to its end: nothing else leads there.
    pub resumed: bool,
}

/// Which failed items to list.
#[derive(Debug, Clone)]
pub struct FailedItemFilter {
    /// The job whose items failed.
    pub job: Resource,
    /// From the last page.
    pub after: Option<String>,
    /// At most so many (1 to 1,000).
    pub limit: u32,
}

/// One row of `failed_items`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct FailedItemRow {
    /// Which, and why.
    #[serde(flatten)]
    pub failed: FailedItem,
    /// In which run of the job it failed last.
    pub run: i64,
    /// When: RFC 3339.
    pub at: Option<String>,
}

/// What ending a run gave.
#[derive(Debug, Clone)]
pub enum FinishOutcome {
    /// The row as it is now: completed, failed, or pending for another try.
    Done(Box<Job>),
    /// The job was no longer this run's, or was not running; nothing changed.
    Lost,
}

/// A command's change to a row.
#[derive(Debug, Clone)]
pub struct CommandChange {
    /// Which command: applied once.
    pub command: CommandId,
    /// What it is about.
    pub resource: Resource,
    /// What to do.
    pub action: Action,
    /// Who asked.
    pub user: UserId,
    /// Nothing with an older fence than the row's is applied.
    pub fence: i64,
    /// The run of the job that the caller hosts and has brought to where the command wants it.
    pub run: Option<Run>,
    /// The client's name for it: the same from the same user, for the same thing, is applied once within a day, whatever
    /// command it comes as.
    pub request_id: Option<String>,
    /// What is known of the command, a JSON object: from it the audit trail gets what Redis loses.
    pub record: Option<String>,
}

/// What applying a command did.
#[derive(Debug, Clone, PartialEq)]
pub enum ApplyOutcome {
    /// The row moved, or was there already.
    Succeeded {
        /// The status now, as a word.
        status: String,
        /// Whether this changed it (a repeat of the same command says what the first time said).
        changed: bool,
        /// Of a job: what was reached when it was applied. `None` also where a version noted it that did not know.
        control: Option<Control>,
    },
    /// No such row in the tenant, or it has ended.
    Refused,
    /// Another worker hosts the job: only that one may apply, or the reaper must release it first.
    Hosted(Run),
    /// A newer claim has been applied already: this one is void.
    Stale,
}

/// Which audit rows to read.
#[derive(Debug, Clone, Default)]
pub struct AuditFilter {
    /// Only that tenant's.
    pub tenant: Option<TenantId>,
    /// Only that resource's id.
    pub resource: Option<ResourceId>,
    /// Only that user's.
    pub user: Option<UserId>,
    /// Only that action's.
    pub action: Option<Action>,
    /// Only that event.
    pub event: Option<AuditEvent>,
    /// Not before, Unix ms.
    pub since: Option<i64>,
    /// Before, Unix ms.
    pub until: Option<i64>,
    /// Which rows come first.
    pub order: AuditOrder,
    /// From the last page, or the id of a row.
    pub after: Option<String>,
    /// At most so many (1 to 1,000).
    pub limit: u32,
}

/// Which rows of the audit trail come first: they have the order in which they were written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AuditOrder {
    /// Each page, read later, goes on with what has come since: for those who follow and those who keep all of it.
    #[default]
    OldestFirst,
    /// For those who look at what has just happened.
    NewestFirst,
}

impl AuditOrder {
    /// As it is written in a query.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "oldest" => Some(Self::OldestFirst),
            "newest" => Some(Self::NewestFirst),
            _ => None,
        }
    }
}

/// One row of `command_audit`. It is written (as JSON, as CSV) with the names of the columns.
#[derive(Debug, Clone)]
pub struct AuditRow {
    /// Grows by one.
    pub id: i64,
    /// RFC 3339.
    pub time: String,
    /// The event.
    pub entry: AuditEntry,
    /// Of the row before, hex.
    pub previous_hash: String,
    /// Of this row, hex.
    pub hash: String,
    /// Every value has the form in which the store writes it. Columns can hold more than the fields above show:
    /// microseconds, or in SQLite a text in place of a number.
    pub(super) exact: bool,
}

/// What a walk over the whole audit trail found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditVerified {
    /// Rows looked at.
    pub rows: u64,
    /// The last of them.
    pub end: ChainLink,
    /// The last row that is gone because it was older than the time for which rows are kept.
    pub pruned: Option<ChainLink>,
    /// How many rows are gone for that reason: ids have no gaps.
    pub pruned_rows: u64,
    /// How many of them are on record in `audit_prunings`. The others were removed by hand, or by a version before that
    /// table.
    pub recorded_rows: u64,
    /// The newest such removal on record.
    pub last_pruning: Option<Pruning>,
    /// The oldest row that is kept: its id and its time.
    pub oldest: Option<(i64, String)>,
    /// How many things are wrong: none, if nobody has touched it.
    pub breaks: u64,
}

/// One thing that is wrong with the audit trail.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct AuditBreak {
    /// What kind of thing.
    pub kind: AuditBreakKind,
    /// The first row it is about.
    pub first: i64,
    /// The last row it is about.
    pub last: i64,
    /// In words.
    pub says: String,
}

/// What can be wrong with the audit trail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AuditBreakKind {
    /// A row does not say what was written.
    Changed,
    /// Rows are not there.
    Missing,
    /// Rows are there that do not belong to the chain.
    Inserted,
    /// A row follows another one than the row that stands before it.
    Replaced,
    /// The ids jump, and the hashes do not.
    Renumbered,
    /// `audit_head` knows of more rows.
    CutOff,
    /// `audit_head` is missing, or says something else than the last row.
    HeadChanged,
    /// `audit_horizon` is missing.
    HorizonChanged,
    /// Rows were removed because of their age by a clock that was wrong.
    PrunedTooEarly,
    /// The row that was asked for is not the one that was kept elsewhere.
    NotAsExpected,
}

/// One removal of old rows of the audit trail, as `audit_prunings` has it. Times are RFC 3339.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Pruning {
    /// The first row removed.
    pub first_id: i64,
    /// The last row removed.
    pub last_id: i64,
    /// The time of the first row.
    pub oldest: String,
    /// The time of the last row.
    pub newest: String,
    /// All of them were older than this.
    pub older_than: String,
    /// The worker that removed them.
    pub worker_id: String,
    /// What the worker's clock said.
    pub worker_clock: String,
    /// What Redis's clock said.
    pub redis_clock: String,
}

/// Who removes old rows, and what the clocks say: two that agree, for one alone may be wrong.
#[derive(Debug, Clone)]
pub struct PruningClocks {
    /// The worker.
    pub worker: WorkerId,
    /// Its clock, Unix ms.
    pub worker_clock: i64,
    /// Redis's clock, Unix ms.
    pub redis_clock: i64,
}

impl PruningClocks {
    /// This moment by the clock that is behind: what is old by it is old by the other too.
    pub fn now(&self) -> i64 {
        self.worker_clock.min(self.redis_clock)
    }
}

/// What removing old audit rows did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AuditPruned {
    /// Rows removed.
    pub rows: u64,
    /// There may be more.
    pub more: bool,
    /// This row breaks the chain: nothing from it on is removed, however old.
    pub broken: Option<i64>,
}
