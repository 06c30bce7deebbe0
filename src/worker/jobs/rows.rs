//! Reads a CSV file in batches, from any row on. Blocking: for threads that may.

use std::fs::File;
use std::path::Path;

use csv::{ByteRecord, Position, Reader, ReaderBuilder};
use serde::{Deserialize, Serialize};

use super::super::{JobContext, JobError};

/// Where the next row begins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
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
    reader: Reader<File>,
    header: Vec<String>,
    place: Place,
    bytes: u64,
}

impl Rows {
    /// Opens a file with a header, and goes to a place in it.
    pub(super) fn open(path: &Path, place: Place) -> Result<Self, JobError> {
        let unreadable = |e: &dyn std::fmt::Display| JobError::Failed(format!("Cannot read {}: {e}", path.display()));
        let file = File::open(path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => JobError::Permanent(format!("There is no file {}", path.display())),
            _ => unreadable(&e),
        })?;
        let bytes = file.metadata().map_err(|e| unreadable(&e))?.len();
        let mut reader = ReaderBuilder::new().from_reader(file);
        let header = reader.byte_headers().map_err(|e| unreadable(&e))?;
        let header = header.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect();
        if place.byte > bytes {
            return Err(JobError::Permanent(format!("{} has become shorter since the import began", path.display())));
        }
        if place.byte > 0 {
            let mut position = Position::new();
            position.set_byte(place.byte).set_line(place.line).set_record(place.row + 1);
            reader.seek(position).map_err(|e| unreadable(&e))?;
        }
        let mut rows = Self { reader, header, place, bytes };
        rows.place = rows.here(place.row);
        Ok(rows)
    }

    fn here(&self, row: u64) -> Place {
        let position = self.reader.position();
        Place { byte: position.byte(), line: position.line(), row }
    }

    /// The names of the columns.
    pub(super) fn header(&self) -> &[String] {
        &self.header
    }

    /// Where the next row begins.
    pub(super) fn place(&self) -> Place {
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
        while batch.len() < most {
            let mut record = ByteRecord::new();
            let read = match self.reader.read_byte_record(&mut record) {
                Ok(false) => break,
                Ok(true) => Ok(record),
                Err(error) if error.is_io_error() => return Err(JobError::failed(format!("Cannot read on: {error}"))),
                Err(error) => Err(error.to_string()),
            };
            let row = self.place.row + 1;
            self.place = self.here(row);
            batch.push((row, read));
        }
        Ok(batch)
    }
}
