//! Makes the CSV file of the demo: orders of a shop that does not exist.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

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
