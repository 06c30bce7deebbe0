//! Rows for other programs: JSON and CSV, with the names of the columns, so that whoever has a copy can compute the
//! hashes again.

use serde::ser::{Serialize, Serializer};

use crate::store::AuditRow;

/// One value of a row.
enum ColumnValue<'a> {
    Text(Option<&'a str>),
    Number(Option<i64>),
}

impl Serialize for ColumnValue<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => text.serialize(serializer),
            Self::Number(number) => number.serialize(serializer),
        }
    }
}

impl AuditRow {
    /// Every column, in the order in which people ask: when, what, who, to what, why, what came of it, from where.
    fn fields(&self) -> [(&'static str, ColumnValue<'_>); 25] {
        use ColumnValue::{Number, Text};
        let e = &self.entry;
        [
            ("id", Number(Some(self.id))),
            ("at", Text(Some(&self.time))),
            ("event", Text(Some(&e.event))),
            ("tenant_id", Text(Some(&e.tenant_id))),
            ("user_id", Text(Some(&e.user_id))),
            ("action", Text(Some(&e.action))),
            ("resource_kind", Text(Some(&e.resource_kind))),
            ("resource_id", Text(Some(&e.resource_id))),
            ("command_id", Text(e.command_id.as_deref())),
            ("request_id", Text(e.request_id.as_deref())),
            ("reason", Text(e.reason.as_deref())),
            ("outcome", Text(e.outcome.as_deref())),
            ("worker_id", Text(e.worker_id.as_deref())),
            ("attempts", Number(e.attempts)),
            ("latency_ms", Number(e.latency_ms)),
            ("run_at", Number(e.run_at)),
            ("batch_id", Text(e.batch_id.as_deref())),
            ("refusals", Number(e.refusals)),
            ("first_at", Number(e.first_at)),
            ("last_at", Number(e.last_at)),
            ("address", Text(e.address.as_deref())),
            ("token_id", Text(e.token_id.as_deref())),
            ("stream_id", Text(Some(&e.id))),
            ("previous_hash", Text(Some(&self.previous_hash))),
            ("hash", Text(Some(&self.hash))),
        ]
    }
}

impl Serialize for AuditRow {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.fields())
    }
}

/// One JSON object a line.
pub fn jsonl(rows: &[AuditRow]) -> String {
    rows.iter().map(|row| serde_json::to_string(row).unwrap_or_default() + "\n").collect()
}

/// The names of the columns, as the first line of a CSV file.
pub fn csv_header() -> String {
    let names = "id,at,event,tenant_id,user_id,action,resource_kind,resource_id,command_id,request_id,reason,outcome,worker_id,attempts,latency_ms,run_at,batch_id,refusals,first_at,last_at,address,token_id,stream_id,previous_hash,hash";
    format!("{names}\n")
}

/// Rows as CSV, without the header. A text that a spreadsheet would take for a formula gets a `'` in front, which
/// makes it a text there; JSON has it as it is.
pub fn csv(rows: &[AuditRow]) -> String {
    let mut writer = csv::WriterBuilder::new().from_writer(Vec::new());
    for row in rows {
        let cells = row.fields().map(|(_, field)| match field {
            ColumnValue::Text(text) => escape_formula(text.unwrap_or_default()),
            ColumnValue::Number(number) => number.map(|n| n.to_string()).unwrap_or_default(),
        });
        // Fails only where its sink does, and memory does not.
        let _ = writer.write_record(cells);
    }
    String::from_utf8(writer.into_inner().unwrap_or_default()).unwrap_or_default()
}

/// Spreadsheets begin a formula with one of these (some also behind a tab or at the start of a line).
fn escape_formula(text: &str) -> String {
    if text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']) { format!("'{text}") } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::AuditEntry;

    fn row(reason: &str) -> AuditRow {
        let entry: AuditEntry = serde_json::from_value(serde_json::json!({
            "id": "5-0", "at": 5, "event": "failed", "tenant_id": "acme", "user_id": "=ann", "resource_kind": "job",
            "resource_id": "j", "action": "pause", "reason": reason, "attempts": 2, "latency_ms": -7
        }))
        .expect("an entry");
        let time = "1970-01-01T00:00:00.005Z".to_owned();
        AuditRow { id: 1, time, entry, previous_hash: String::new(), hash: "aa".to_owned(), exact: true }
    }

    #[test]
    fn no_cell_of_a_csv_file_is_a_formula_and_json_has_the_text_itself() {
        for text in ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1"] {
            let written = csv(&[row(text)]);
            let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(written.as_bytes());
            let cells = reader.records().next().expect("a record").expect("readable");
            assert_eq!((&cells[10], &cells[4]), (format!("'{text}").as_str(), "'=ann"));
            assert_eq!(&cells[14], "-7", "a number is one");
            let json: serde_json::Value = serde_json::from_str(&jsonl(&[row(text)])).expect("JSON");
            assert_eq!((&json["reason"], &json["user_id"]), (&text.into(), &"=ann".into()));
        }
        assert!(csv(&[row("a, \"b\"\nc")]).contains("\"a, \"\"b\"\"\nc\""));
    }

    #[test]
    fn the_header_names_the_cells() {
        let names: Vec<&str> = row("").fields().iter().map(|(name, _)| *name).collect();
        assert_eq!(csv_header(), names.join(",") + "\n");
    }
}
