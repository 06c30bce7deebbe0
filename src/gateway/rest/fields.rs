//! Which fields of jobs a list has.

use std::collections::HashMap;

use serde_json::value::RawValue;

use crate::domain::Job;
use crate::http::Refusal;

/// Of every job in a list where nothing else is asked for: all of the row but its contents.
const DEFAULT_FIELDS: [&str; 30] = [
    "id",
    "tenant_id",
    "campaign_id",
    "job_type",
    "title",
    "status",
    "waiting_for",
    "progress_percent",
    "items_total",
    "items_processed",
    "items_succeeded",
    "items_failed",
    "current_item",
    "error_message",
    "max_retries",
    "retry_count",
    "run_after",
    "timeout_seconds",
    "created_by",
    "cancelled_by",
    "created_at",
    "started_at",
    "completed_at",
    "cancelled_at",
    "updated_at",
    "running_seconds",
    "paused_seconds",
    "worker",
    "rerun_of",
    "control",
];
/// What a job was given and what it produced: megabytes each, perhaps, so a list has them only where they are asked for.
const CONTENT_FIELDS: [&str; 2] = ["parameters", "result"];

/// The fields of one list.
pub(super) struct Fields(Vec<&'static str>);

impl Fields {
    /// By the query parameter `fields`: names with commas between them. The id is always there.
    pub(super) fn requested(text: Option<&str>) -> Result<Self, Refusal> {
        let Some(text) = text else { return Ok(Self(DEFAULT_FIELDS.to_vec())) };
        let known = || DEFAULT_FIELDS.into_iter().chain(CONTENT_FIELDS);
        let names: Vec<&str> = text.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
        if let Some(odd) = names.iter().find(|name| !known().any(|known| known == **name)) {
            let all = known().collect::<Vec<_>>().join(", ");
            return Err(Refusal::invalid(format!("\"fields\" names {odd:?}; a job in a list can have: {all}")));
        }
        Ok(Self(known().filter(|known| *known == "id" || names.contains(known)).collect()))
    }

    /// Whether parameters or results have to be read.
    pub(super) fn with_contents(&self) -> bool {
        self.0.iter().any(|name| CONTENT_FIELDS.contains(name))
    }

    /// A JSON array of the jobs with these fields, in the order of the table.
    pub(super) fn rows(&self, jobs: &[Job]) -> String {
        let rows = jobs.iter().map(|job| {
            // Rows hold text, numbers and JSON values only: writing them cannot fail.
            let row = serde_json::to_string(job).unwrap_or_default();
            // Each value stays the text that it is: no digit of a number is changed.
            let row: HashMap<&str, &RawValue> = serde_json::from_str(&row).unwrap_or_default();
            let field = |name: &&str| row.get(*name).map(|value| format!("\"{name}\":{value}"));
            format!("{{{}}}", self.0.iter().filter_map(field).collect::<Vec<_>>().join(","))
        });
        format!("[{}]", rows.collect::<Vec<_>>().join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job() -> Job {
        serde_json::from_value(serde_json::json!({
            "id":"ID","tenant_id":"T","campaign_id":null,"job_type":"x","title":null,"status":"pending","progress_percent":1,
            "items_total":null,"items_processed":0,"items_succeeded":0,"items_failed":0,"current_item":null,"parameters":{"a":1},
            "result":null,"error_message":null,"max_retries":0,"retry_count":0,"created_by":null,"cancelled_by":null,
            "created_at":null,"started_at":null,"completed_at":null,"cancelled_at":null,"updated_at":null
        }))
        .expect("job")
    }

    #[test]
    fn every_field_of_a_row_can_be_had_and_the_contents_only_when_asked_for() {
        let worker = serde_json::from_value(serde_json::json!({"id": "w", "name": "n", "host": "h", "since": null}));
        let worker = Some(worker.expect("worker"));
        let rerun_of = Some("j0".parse().expect("id"));
        let row = Job { waiting_for: Some("a worker".into()), worker, rerun_of, ..job() };
        let row = serde_json::to_value(row).expect("row");
        for name in row.as_object().expect("an object").keys() {
            assert!(DEFAULT_FIELDS.contains(&name.as_str()) || CONTENT_FIELDS.contains(&name.as_str()), "{name}");
        }
        let rows = |text: Option<&str>| Fields::requested(text).map(|fields| fields.rows(&[job()]));
        let usual = rows(None).expect("rows");
        assert!(
            usual.starts_with(r#"[{"id":"ID","tenant_id":"T","campaign_id":null,"#) && !usual.contains("parameters")
        );
        assert_eq!(
            rows(Some("status,parameters")).expect("rows"),
            r#"[{"id":"ID","status":"pending","parameters":{"a":1}}]"#
        );
        assert!(rows(Some("status,prameters")).is_err());
    }
}
