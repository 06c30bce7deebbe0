//! `checksum` takes the SHA-256 of every file in a folder. Whoever may create jobs chooses the folder, so it is read
//! beneath the setting `worker.files_root` alone.

use std::io::Read;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use wheelhouse_worker::{Job, JobContext, JobError, Progress};

/// The kind of job. It could hold what all its runs share: a client, a connection pool.
pub struct Checksum;

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
                Err(JobError::Failed(error)) => {
                    cursor.unreadable += 1;
                    ctx.failed_item(&name, error);
                }
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tempfile::TempDir;
    use wheelhouse_worker::{ControlOutcome, JobEnd, JobHarness};

    use super::*;

    const FILES: usize = 40;

    /// A folder with files in it, and a job that is to take their sums.
    fn job_on_files() -> (TempDir, JobHarness<Checksum>) {
        let root = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(root.path().join("in")).expect("a folder");
        for n in 0..FILES {
            std::fs::write(root.path().join(format!("in/{n:02}")), vec![b'x'; n * 1000]).expect("a file");
        }
        let harness = JobHarness::new(Checksum).parameters(json!({ "folder": "in" })).files_root(root.path());
        (root, harness)
    }

    /// The result of a run that completed.
    fn completed(end: JobEnd) -> Value {
        match end {
            JobEnd::Completed(result) => result,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn every_file_has_its_sum_and_progress_counts_them() {
        let (_root, harness) = job_on_files();
        let result = completed(harness.start().end().await);
        assert_eq!((&result["files"], &result["unreadable"]), (&json!(FILES), &json!(0)));
        // Of the empty file.
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(result["sums"][0], json!(["in/00", empty]));
        assert_eq!(harness.progress().items_processed, FILES as i64);
        assert_eq!(harness.progress().progress_percent, 100);
    }

    #[tokio::test]
    async fn while_it_is_paused_nothing_is_read_and_then_it_goes_on() {
        let (_root, harness) = job_on_files();
        let run = harness.start();
        assert_eq!(run.pause().await, ControlOutcome::Done);
        let stands_at = harness.saved_points().len();
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(harness.saved_points().len(), stands_at);
        run.resume().await;
        assert_eq!(completed(run.end().await)["files"], json!(FILES));
    }

    #[tokio::test]
    async fn a_worker_that_is_killed_costs_nothing_but_the_file_it_was_at() {
        let (_root, harness) = job_on_files();
        let run = harness.start();
        run.until(|progress| progress.items_processed >= 5).await;
        run.kill().await;
        let kept = harness.saved_points().len();
        assert!(kept >= 5 && harness.resume_point().is_some());
        let whole = completed(harness.start().end().await);
        assert_eq!(harness.saved_points().len(), FILES, "no file was read twice");

        // What was saved last may be lost with the worker: the same comes out.
        harness.resume_from(&harness.saved_points()[2]);
        assert_eq!(completed(harness.start().end().await), whole);
    }

    #[tokio::test]
    async fn it_is_handed_on_at_a_checkpoint_and_cancelled_at_one() {
        let (_root, harness) = job_on_files();
        let run = harness.start();
        run.until(|progress| progress.items_processed >= 2).await;
        run.hand_on();
        assert!(matches!(run.end().await, JobEnd::HandedOn));
        let run = harness.start();
        assert_eq!(run.cancel().await, ControlOutcome::Done);
        assert!(matches!(run.end().await, JobEnd::Cancelled));
    }

    #[tokio::test]
    async fn a_folder_that_leads_out_of_the_root_fails_the_job_for_good() {
        let (_root, harness) = job_on_files();
        let harness = harness.parameters(json!({ "folder": "../" }));
        let JobEnd::Failed(error) = harness.start().end().await else { panic!("it did not fail") };
        assert!(matches!(error, JobError::Permanent(_)), "{error}");
    }
}
