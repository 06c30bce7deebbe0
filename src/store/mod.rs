//! Everything that talks to SQL: SQLite (WAL, one writer) and PostgreSQL behind one type.
//!
//! One file for each concern: `jobs` and `campaigns` (rows and lists), `new_rows` (how a job's row is made), `lists`, `list_plan`, `job_list`, `job_indexes` and `list_cursor` (how a page is
//! read, by which statements, along which index, which jobs an index has, and where the next page begins), `selection` (which of many are there, or fit),
//! `commands` and `command_rows` (what a command changes) and `group_commit` (many of them to a transaction), `queue` and `claim_rows` (which
//! jobs a worker gets), `runs` (what a worker that hosts a job writes), `run_saves` (how far its runs are, many to a transaction) and `run_ends` (how its work ended, many to a transaction; `batches` gathers them; `run_rows` has what both need), `remote` (jobs of foreign processes), `reruns` (jobs that are run again), `bulk` (very many new jobs), `job_output` (what they print), `attached` (the
//! job of a `wheelhouse run`), `announcements` (status messages that are owed), `failed_items`, `maintenance` (what one worker
//! does for all), `prune` (old jobs), `workers` (who they are), `permissions`, `revocations` (tokens that are refused), `audit`, `imports`, `migrations`,
//! `bench_rows` (rows for `wheelhouse bench`). `handle` is what they are operations of, `database` connects, `writer_lock`
//! orders SQLite's writers, and `sql` hides which database it is.

mod announcement_rows;
pub mod announcements;
mod applied;
mod attached;
pub mod audit;
mod batches;
mod bulk;
mod by_id;
mod campaigns;
mod claim_rows;
mod command_rows;
mod commands;
mod database;
pub mod diagnosis;
mod error;
mod external;
mod failed_items;
mod files;
mod group_commit;
mod handle;
mod job_indexes;
mod job_list;
mod job_output;
mod jobs;
mod leases;
mod list_cursor;
mod list_plan;
mod lists;
mod maintenance;
mod migrations;
mod new_rows;
mod page;
mod permissions;
mod prune;
mod quarantine;
mod queue;
#[cfg(feature = "server")]
mod rehearsal;
mod remote;
mod reruns;
mod revocations;
mod rows;
mod run_ends;
mod run_rows;
mod run_saves;
mod runs;
mod selection;
mod sql;
mod suspects;
mod tenant_cursor;
mod tls_files;
pub mod types;
mod workers;
mod writer_lock;

pub use announcement_rows::AnnouncementKind;
pub use announcements::Announcement;
pub use audit::{APPLIED_STREAM, UnauditedEnd};
pub use bulk::{BatchOutcome, SubmittedJob};
pub use campaigns::CloseOutcome;
pub use error::StoreError;
pub use failed_items::MAX_FAILED_ITEMS;
pub use handle::Store;
pub use job_output::NewOutputLine;
pub use maintenance::MaintenanceTask;
pub use page::Page;
pub use permissions::PermissionGrant;
pub use prune::PrunedJobs;
pub use quarantine::{QuarantinedRow, QuarantinedRows};
pub use queue::{LeftInQueue, QueueLook};
pub use reruns::{Rerun, RerunFilter, RerunWish};
pub use revocations::{NewRevocation, Revocation, RevocationChanges, RevocationKind};
pub use types::*;
pub use workers::{WORKER_SAYS_AGAIN, WorkerInfo, WorkerLoad, WorkerSession};
