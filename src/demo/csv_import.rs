//! `csv_import`: reads a CSV file into the table `imported_rows`, each row exactly once, however often
//! it is paused, interrupted or moved to another worker.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::pace::Pace;
use super::rows::{ReadRow, RowPosition, Rows};
use crate::domain::Progress;
use crate::store::Store;
use crate::worker::{Job, JobContext, JobError};

/// Rows of one transaction, where the parameters say nothing.
const BATCH_ROWS: usize = 500;
/// The most that they may say: a transaction keeps other writers waiting.
const MAX_BATCH_ROWS: usize = 10_000;
/// Tries of one batch while SQL is busy.
const BATCH_TRIES: u32 = 6;

/// The kind of job `csv_import`. Parameters: `path` (a CSV file with a header, beneath `worker.files_root`),
/// `batch_rows` (500), `rows_per_second` (no limit). Rows that cannot be read are counted and kept as failed items
/// (`row 17`, and which kind of mistake it is, without a word of the row), and the import goes on.
pub struct CsvImport {
    store: Store,
}

impl CsvImport {
    /// Imports into the table `imported_rows` of this database.
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    /// Writes a batch; again while SQL is busy: rows that are there already stay as they are.
    async fn write(&self, ctx: &JobContext, rows: &[(i64, String)]) -> Result<(), JobError> {
        let mut tries = 1;
        loop {
            match self.store.import_rows(ctx.resource(), rows).await {
                Ok(()) => return Ok(()),
                Err(error) if error.is_transient() && tries < BATCH_TRIES => {
                    tokio::time::sleep(std::time::Duration::from_millis(100 << tries)).await;
                    tries += 1;
                }
                Err(error) if error.is_transient() => return Err(JobError::failed(error)),
                Err(error) => return Err(JobError::permanent(error)),
            }
        }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Parameters {
    path: PathBuf,
    #[serde(default = "batch_rows")]
    batch_rows: usize,
    rows_per_second: Option<u32>,
}

fn batch_rows() -> usize {
    BATCH_ROWS
}

/// How far the import is. Saved after each batch is in the table, never before.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Cursor {
    place: RowPosition,
    total: u64,
    failed: u64,
}

impl Job for CsvImport {
    const TYPE: &'static str = "csv_import";

    async fn run(&self, ctx: JobContext) -> Result<Value, JobError> {
        let parameters: Parameters = ctx.parameters_as()?;
        let most = parameters.batch_rows.clamp(1, MAX_BATCH_ROWS);
        let mut cursor = match ctx.resume_point::<Cursor>()? {
            Some(cursor) => cursor,
            None => Cursor { total: count(&ctx, &parameters).await?, ..Cursor::default() },
        };
        let (path, place) = (parameters.path.clone(), cursor.place);
        let mut rows = ctx.blocking(move |ctx| Rows::of(ctx.open_file(&path)?, &path, place)).await?;
        let mut pace = Pace::new(parameters.rows_per_second);
        loop {
            ctx.checkpoint().await?;
            let batch;
            (rows, batch) = rows.next(&ctx, most).await?;
            if batch.is_empty() {
                break;
            }
            let read = batch.len() as u64;
            let Sorted { good, bad } = sort(rows.header(), batch);
            // The rows and the memory that they are there belong together.
            ctx.critical(async {
                self.write(&ctx, &good).await?;
                for (number, problem) in &bad {
                    ctx.failed_item(format!("row {number}"), problem);
                }
                cursor.place = rows.place();
                cursor.failed += bad.len() as u64;
                ctx.save(&cursor)
            })
            .await?;
            ctx.progress(progress(&cursor, rows.bytes(), most));
            pace.keep(&ctx, read).await?;
        }
        let imported = cursor.place.row - cursor.failed;
        Ok(json!({ "rows": cursor.place.row, "imported": imported, "failed": cursor.failed }))
    }
}

/// How many rows there are, for the progress.
async fn count(ctx: &JobContext, parameters: &Parameters) -> Result<u64, JobError> {
    let path = parameters.path.clone();
    ctx.blocking(move |ctx| {
        let mut rows = Rows::of(ctx.open_file(&path)?, &path, RowPosition::default())?;
        loop {
            ctx.checkpoint_blocking()?;
            if rows.read(MAX_BATCH_ROWS)?.is_empty() {
                return Ok(rows.place().row);
            }
        }
    })
    .await
}

/// A batch, sorted; each row with its number.
struct Sorted {
    /// JSON objects with the header's names.
    good: Vec<(i64, String)>,
    /// What is wrong with the others.
    bad: Vec<(u64, String)>,
}

fn sort(header: &[String], batch: Vec<ReadRow>) -> Sorted {
    let (mut good, mut bad) = (Vec::with_capacity(batch.len()), Vec::new());
    for (number, record) in batch {
        match record.and_then(|record| object(header, &record)) {
            Ok(text) => good.push((i64::try_from(number).unwrap_or(i64::MAX), text)),
            Err(problem) => bad.push((number, problem)),
        }
    }
    Sorted { good, bad }
}

fn object(header: &[String], record: &csv::ByteRecord) -> Result<String, String> {
    let mut fields = Map::with_capacity(header.len());
    // A column is named by its number: the header is a part of the file's contents too.
    for (number, (name, field)) in (1..).zip(header.iter().zip(record)) {
        let text = std::str::from_utf8(field).map_err(|_| format!("column {number} is not UTF-8"))?;
        // PostgreSQL cannot store it.
        if text.contains('\0') {
            return Err(format!("column {number} contains a zero byte"));
        }
        fields.insert(name.clone(), text.into());
    }
    Ok(Value::Object(fields).to_string())
}

fn progress(cursor: &Cursor, bytes: u64, most: usize) -> Progress {
    let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let percent = (cursor.place.byte * 100).checked_div(bytes).unwrap_or(100).min(100);
    Progress {
        progress_percent: u8::try_from(percent).unwrap_or(100),
        items_total: Some(number(cursor.total)),
        items_processed: number(cursor.place.row),
        items_succeeded: number(cursor.place.row - cursor.failed),
        items_failed: number(cursor.failed),
        current_item: Some(format!(
            "rows {} to {}",
            cursor.place.row.saturating_sub(most as u64) + 1,
            cursor.place.row
        )),
    }
}
