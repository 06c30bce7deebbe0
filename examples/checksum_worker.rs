//! A worker with a kind of job of its own: `checksum` takes the SHA-256 of every file in a folder.
//!
//! Copy this file into a program of yours, and replace what is inside `run`. To see it work beside
//! `wheelhouse dev`, give it the settings that this `dev` keeps in its folder as long as it runs:
//!
//! ```text
//! WHEELHOUSE__WORKER__FILES_ROOT=/usr cargo run --example checksum_worker .wheelhouse/settings.toml
//! wheelhouse job submit checksum --title "What is in /usr/bin" --parameters '{"folder":"bin"}' --wait
//! ```
//!
//! Whoever may create jobs chooses the folder, so it is read beneath `worker.files_root` alone.

use std::io::Read;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use wheelhouse::domain::Progress;
use wheelhouse::worker::{Job, JobContext, JobError, WorkerBuilder};

/// The kind of job. It could hold what all its runs share: a client, a connection pool.
struct Checksum;

/// What a job of this kind is given.
#[derive(Deserialize)]
struct Parameters {
    folder: PathBuf,
}

/// How far it is. Another worker that takes the job over goes on from the last one saved.
#[derive(Default, Serialize, Deserialize)]
struct Cursor {
    done: usize,
    unreadable: i64,
    sums: Vec<(String, String)>,
}

impl Job for Checksum {
    const TYPE: &'static str = "checksum";

    async fn run(&self, ctx: JobContext) -> Result<Value, JobError> {
        // Wrong parameters fail the job for good: no retry can help.
        let parameters: Parameters = ctx.parameters_as()?;
        let mut cursor: Cursor = ctx.resume_point()?.unwrap_or_default();
        // Always in the same order: the cursor counts on it.
        let files = ctx.blocking(move |ctx| ctx.list_files(&parameters.folder)).await?;

        while let Some(file) = files.get(cursor.done).cloned() {
            // Here it waits while it is paused, and leaves when it is cancelled.
            ctx.checkpoint().await?;
            let name = file.display().to_string();
            // Reading blocks: it gets a thread of its own, which stops for a pause as well.
            match ctx.blocking(move |ctx| checksum(ctx, &file)).await {
                Ok(sum) => cursor.sums.push((name.clone(), sum)),
                // Not an error of the job: the next file may be readable.
                Err(JobError::Failed(_)) => cursor.unreadable += 1,
                Err(other) => return Err(other),
            }
            cursor.done += 1;
            ctx.save(&cursor)?;
            let (done, total) = (cursor.done as i64, files.len() as i64);
            ctx.progress(Progress {
                progress_percent: u8::try_from(done * 100 / total).unwrap_or(100),
                items_total: Some(total),
                items_processed: done,
                items_succeeded: done - cursor.unreadable,
                items_failed: cursor.unreadable,
                current_item: Some(name),
            });
        }
        Ok(json!({ "files": cursor.done, "unreadable": cursor.unreadable, "sums": cursor.sums }))
    }
}

fn checksum(ctx: &JobContext, path: &Path) -> Result<String, JobError> {
    let mut file = ctx.open_file(path)?;
    let mut digest = Sha256::new();
    let mut block = vec![0; 1 << 20];
    loop {
        // A large file takes a while: a pause must not wait for its end.
        ctx.checkpoint_blocking()?;
        let read = file.read(&mut block).map_err(JobError::failed)?;
        if read == 0 {
            return Ok(digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect());
        }
        digest.update(&block[..read]);
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // The defaults, then a file if one is named, then the environment: WHEELHOUSE__REDIS__URL, …
    let file = std::env::args_os().nth(1).map(PathBuf::from);
    let settings = wheelhouse::config::load(file.as_deref(), Vec::new())?;
    wheelhouse::telemetry::log::init(&settings.log);
    // Kinds that this worker does not know are left to others, which do. At SIGTERM or Ctrl-C its jobs are handed back at
    // their next checkpoint, other workers go on with them, and this returns.
    WorkerBuilder::new(settings).job(Checksum).build().run().await?;
    Ok(())
}
