//! The CSV file of the demo: orders of a shop that does not exist.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use super::rows::{RowPosition, Rows};
use crate::worker::JobError;

const FIRST: [&str; 12] =
    ["Ada", "Ben", "Chloe", "Dmitri", "Emre", "Fatima", "Grace", "Hiro", "Ines", "Jonas", "Kaya", "Lena"];
const LAST: [&str; 10] =
    ["Almeida", "Berg", "Costa", "Dubois", "Eriksen", "Fischer", "Gupta", "Haddad", "Ito", "Janssen"];
const CITIES: [&str; 8] = ["Lisbon", "Oslo", "Kyoto", "Accra", "Quito", "Leipzig", "Pune", "Winnipeg"];
const ITEMS: [&str; 7] = ["lamp, brass", "desk \"Nord\"", "chair", "kettle", "rope, 10 m", "compass", "logbook"];

/// Writes a file with a header and so many rows, the same each time. It appears under its name when it is whole.
pub fn generate_csv(path: &Path, rows: u64) -> std::io::Result<()> {
    let unfinished = path.with_extension("unfinished");
    let mut out = csv::Writer::from_writer(BufWriter::with_capacity(1 << 16, File::create(&unfinished)?));
    out.write_record(["order_id", "customer", "email", "city", "item", "quantity", "cents"])?;
    for row in 1..=rows {
        // Any fixed mixture will do; a random one would make two runs differ.
        let mixed = row.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31);
        let pick = |words: &[&'static str], shift: u32| words[(mixed >> shift) as usize % words.len()];
        let (first, last) = (pick(&FIRST, 3), pick(&LAST, 11));
        out.write_record([
            &format!("{row:07}"),
            &format!("{first} {last}"),
            &format!("{}.{}{row}@example.com", first.to_lowercase(), last.to_lowercase()),
            pick(&CITIES, 19),
            pick(&ITEMS, 23),
            &(1 + mixed % 9).to_string(),
            &(199 + (mixed >> 7) % 90_000).to_string(),
        ])?;
    }
    let mut file = out.into_inner().map_err(|e| std::io::Error::other(e.to_string()))?;
    file.flush()?;
    file.into_inner().map_err(|e| std::io::Error::other(e.to_string()))?.sync_all()?;
    std::fs::rename(unfinished, path)
}

/// Where in a CSV file with a header row 1 begins, and every `each`-th after it, in bytes from the file's start.
pub fn row_starts(path: &Path, each: usize) -> Result<Vec<u64>, JobError> {
    let file = File::open(path).map_err(JobError::failed)?;
    let mut rows = Rows::of(file, path, RowPosition::default())?;
    let mut starts = Vec::new();
    loop {
        let start = rows.place().byte;
        if rows.read(each.max(1))?.is_empty() {
            return Ok(starts);
        }
        starts.push(start);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_read_from_the_start_of_any_row_gives_that_row() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("orders.csv");
        generate_csv(&path, 25).expect("write");
        let starts = row_starts(&path, 10).expect("read");
        assert_eq!(starts.len(), 3);
        for (n, byte) in starts.into_iter().enumerate() {
            let row = n as u64 * 10;
            let file = File::open(&path).expect("open");
            let mut rows = Rows::of(file, &path, RowPosition { byte, line: row + 2, row }).expect("read");
            let batch = rows.read(1).expect("read");
            let (number, record) = batch.first().expect("a row");
            assert_eq!(*number, row + 1);
            assert_eq!(record.as_ref().expect("fields").get(0), Some(format!("{:07}", row + 1).as_bytes()));
        }
    }
}
