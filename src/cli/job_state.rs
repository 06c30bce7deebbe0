//! How a job or a campaign stands, in words: its status, and what that alone would hide.

use serde_json::Value;

/// `completed, 1 of 2 jobs failed`; `pending, waits for a worker for csv_import`; mostly the status alone.
pub(super) fn describe_state(row: &Value) -> String {
    let mut parts = vec![row["status"].as_str().unwrap_or_default().to_owned()];
    let jobs = &row["jobs_by_status"];
    let count = |status: &str| jobs[status].as_i64().unwrap_or(0);
    let total: i64 = jobs.as_object().into_iter().flat_map(|jobs| jobs.values()).filter_map(Value::as_i64).sum();
    for status in ["failed", "cancelled"] {
        // That jobs of a cancelled campaign are cancelled says nothing.
        if count(status) > 0 && row["status"] != status {
            parts.push(format!("{} of {total} jobs {status}", count(status)));
        }
    }
    if row["is_open"] == true && (row["status"] == "active" || row["status"] == "paused") {
        parts.push("open".to_owned());
    }
    if let Some(what) = row["waiting_for"].as_str() {
        parts.push(format!("waits for {what}"));
    }
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_the_status_alone_would_hide_is_said() {
        let jobs = |completed: i64, failed: i64, cancelled: i64| json!({"pending": 0, "running": 0, "paused": 0, "completed": completed, "failed": failed, "cancelled": cancelled});
        for (row, parts) in [
            (json!({"status": "completed", "jobs_by_status": jobs(1, 1, 0)}), "completed, 1 of 2 jobs failed"),
            (json!({"status": "completed", "jobs_by_status": jobs(2, 0, 0), "is_open": false}), "completed"),
            (
                json!({"status": "completed", "jobs_by_status": jobs(1, 1, 1)}),
                "completed, 1 of 3 jobs failed, 1 of 3 jobs cancelled",
            ),
            (json!({"status": "cancelled", "jobs_by_status": jobs(0, 0, 3)}), "cancelled"),
            (json!({"status": "active", "jobs_by_status": jobs(0, 0, 0), "is_open": true}), "active, open"),
            (json!({"status": "pending", "waiting_for": "a worker for x"}), "pending, waits for a worker for x"),
            (json!({"status": "failed"}), "failed"),
        ] {
            assert_eq!(describe_state(&row), parts, "{row}");
        }
    }
}
