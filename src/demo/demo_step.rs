//! `demo_step`: one of the many small jobs of a campaign. Takes its share of a CSV file and gives back
//! what it found there: rows, words, and a fingerprint of the content.

use std::path::PathBuf;

use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::pace::Pace;
use super::rows::{RowPosition, Rows};
use crate::domain::Progress;
use crate::worker::{Job, JobContext, JobError};

/// Most rows between two checkpoints.
const CHUNK: usize = 100;

/// The kind of job `demo_step`. Parameters: `path` (beneath `worker.files_root`), `first_row` (1 is the first), `rows`, `first_byte` (where that
/// row begins: without it the file is read up to there), `rows_per_second` (no limit). It starts anew when it is interrupted: its share is small.
pub struct DemoStep;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Parameters {
    path: PathBuf,
    first_row: u64,
    rows: u64,
    first_byte: Option<u64>,
    rows_per_second: Option<u32>,
}

impl Job for DemoStep {
    const TYPE: &'static str = "demo_step";

    async fn run(&self, ctx: JobContext) -> Result<Value, JobError> {
        let parameters: Parameters = ctx.parameters_as()?;
        let (path, before) = (parameters.path.clone(), parameters.first_row.saturating_sub(1));
        // A step reads nothing of the file but its share, where it is told where that begins.
        let place = parameters.first_byte.map_or_else(RowPosition::default, |byte| RowPosition {
            byte,
            line: before + 2,
            row: before,
        });
        let open = move |ctx: &JobContext| Rows::of(ctx.open_file(&path)?, &path, place);
        let mut pace = Pace::new(parameters.rows_per_second);
        // A slow one shows twice a second how far it is.
        let chunk = parameters.rows_per_second.map_or(CHUNK, |rows| CHUNK.min(rows.div_ceil(2).max(1) as usize));
        let (mut done, mut words, mut fingerprint) = (0_u64, 0_u64, Sha256::new());
        let next = |done| chunk.min(usize::try_from(parameters.rows - done).unwrap_or(chunk));
        let most = next(0);
        // What is opened is read at once: a small share takes one trip to a thread that may block.
        let (mut rows, mut batch) = ctx
            .blocking(move |ctx| {
                let mut rows = skip(ctx, open(ctx)?, before)?;
                let batch = rows.read(most)?;
                Ok((rows, batch))
            })
            .await?;
        while !batch.is_empty() {
            for field in batch.iter().filter_map(|(_, record)| record.as_ref().ok()).flat_map(|record| record.iter()) {
                words += field.split(|byte| byte.is_ascii_whitespace()).filter(|word| !word.is_empty()).count() as u64;
                fingerprint.update(field);
            }
            done += batch.len() as u64;
            let counted = i64::try_from(done).unwrap_or(i64::MAX);
            ctx.progress(Progress {
                progress_percent: u8::try_from(done * 100 / parameters.rows.max(1)).unwrap_or(100),
                items_total: i64::try_from(parameters.rows).ok(),
                items_processed: counted,
                items_succeeded: counted,
                items_failed: 0,
                current_item: None,
            });
            pace.keep(&ctx, batch.len() as u64).await?;
            if done >= parameters.rows {
                break;
            }
            ctx.checkpoint().await?;
            (rows, batch) = rows.next(&ctx, next(done)).await?;
        }
        let fingerprint = hex::encode(fingerprint.finalize());
        Ok(json!({ "rows": done, "words": words, "sha256": fingerprint }))
    }
}

fn skip(ctx: &JobContext, mut rows: Rows, before: u64) -> Result<Rows, JobError> {
    while rows.place().row < before {
        ctx.checkpoint_blocking()?;
        let most = usize::try_from(before - rows.place().row).unwrap_or(usize::MAX).min(10_000);
        if rows.read(most)?.is_empty() {
            return Err(JobError::permanent(format!("The file has fewer than {before} rows")));
        }
    }
    Ok(rows)
}
