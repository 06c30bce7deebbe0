//! Reads a CSV file in batches, from any row on. Blocking: for threads that may.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use csv::{ByteRecord, Position, Reader, ReaderBuilder};
use serde::{Deserialize, Serialize};

use crate::worker::{JobContext, JobError};

/// Longest row, in bytes: what is no CSV at all must not fill the memory while its first line is looked for.
const ROW: u64 = 8 * 1024 * 1024;
/// A batch ends with the row that passes this many bytes, however many rows were asked for.
const BATCH: u64 = 8 * 1024 * 1024;

/// Where the next row begins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RowPosition {
    /// Bytes from the file's start; 0 is the header.
    pub byte: u64,
    /// Lines from the file's start, for messages.
    pub line: u64,
    /// Rows before it, the header not counted.
    pub row: u64,
}

/// One row as read: its number from 1 on, and its fields or what is wrong with it.
pub(super) type ReadRow = (u64, Result<ByteRecord, String>);

/// An open file.
pub(super) struct Rows {
    reader: Reader<Rationed>,
    ration: Arc<AtomicU64>,
    header: Vec<String>,
    place: RowPosition,
    bytes: u64,
}

impl Rows {
    /// Goes to a place in an open file with a header; `name` is what errors call it. Errors say where a file is wrong
    /// and never what it contains: whoever may read the job reads them.
    pub(super) fn of(file: File, name: &Path, place: RowPosition) -> Result<Self, JobError> {
        let name = name.display();
        let unreadable = |e: &dyn std::fmt::Display| JobError::failed(format!("Cannot read {name}: {e}"));
        let bytes = file.metadata().map_err(|e| unreadable(&e))?.len();
        let ration = Arc::new(AtomicU64::new(ROW));
        let mut reader = ReaderBuilder::new().from_reader(Rationed { file, left: ration.clone() });
        let header = reader.byte_headers().map_err(|e| match ration.load(Ordering::Relaxed) {
            0 => JobError::permanent(format!("The header of {name}: {e}")),
            _ => unreadable(&e),
        })?;
        let header = header.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect();
        if place.byte > bytes {
            return Err(JobError::permanent(format!("{name} has become shorter since the import began")));
        }
        if place.byte > 0 {
            let mut position = Position::new();
            position.set_byte(place.byte).set_line(place.line).set_record(place.row + 1);
            reader.seek(position).map_err(|e| unreadable(&e))?;
        }
        let mut rows = Self { reader, ration, header, place, bytes };
        rows.place = rows.here(place.row);
        Ok(rows)
    }

    fn here(&self, row: u64) -> RowPosition {
        let position = self.reader.position();
        RowPosition { byte: position.byte(), line: position.line(), row }
    }

    /// The names of the columns.
    pub(super) fn header(&self) -> &[String] {
        &self.header
    }

    /// Where the next row begins.
    pub(super) fn place(&self) -> RowPosition {
        self.place
    }

    /// The file's length.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// As [`Self::read`], for job code: on a thread that may block, to which the file goes and from which it comes back.
    pub(super) async fn next(mut self, ctx: &JobContext, most: usize) -> Result<(Self, Vec<ReadRow>), JobError> {
        ctx.blocking(move |_| {
            let batch = self.read(most)?;
            Ok((self, batch))
        })
        .await
    }

    /// The next rows, at most so many; none at the end. A row that is wrong does not end the reading.
    pub(super) fn read(&mut self, most: usize) -> Result<Vec<ReadRow>, JobError> {
        let mut batch = Vec::new();
        let begin = self.place.byte;
        while batch.len() < most && self.place.byte - begin < BATCH {
            let mut record = ByteRecord::new();
            self.ration.store(ROW, Ordering::Relaxed);
            let read = match self.reader.read_byte_record(&mut record) {
                Ok(false) => break,
                Ok(true) => Ok(record),
                Err(error) if self.ration.load(Ordering::Relaxed) == 0 => {
                    return Err(JobError::permanent(format!("Row {}: {error}", self.place.row + 1)));
                }
                Err(error) if error.is_io_error() => return Err(JobError::failed(format!("Cannot read on: {error}"))),
                Err(error) => Err(mistake(&error)),
            };
            let row = self.place.row + 1;
            self.place = self.here(row);
            batch.push((row, read));
        }
        Ok(batch)
    }
}

/// What is wrong with a row, in numbers alone.
fn mistake(error: &csv::Error) -> String {
    match error.kind() {
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("has {}, and the header has {expected_len}", counted(*len, "field"))
        }
        csv::ErrorKind::Utf8 { err, .. } => format!("column {} is not UTF-8", err.field() + 1),
        _ => "cannot be read".to_owned(),
    }
}

fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// A file of which only so many bytes can be read until more are allowed.
struct Rationed {
    file: File,
    left: Arc<AtomicU64>,
}

impl Read for Rationed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.left.load(Ordering::Relaxed);
        if left == 0 {
            return Err(io::Error::other(format!("it is longer than {} MiB; is this a CSV file?", ROW / 1024 / 1024)));
        }
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.file.read(&mut buffer[..most])?;
        self.left.store(left - read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

impl io::Seek for Rationed {
    fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}
