//! Every frame between a foreign worker and its worker that these tests see, compared with `schema/worker.schema.json`.

use std::sync::LazyLock;

use serde_json::Value;

use crate::support::schema::{Others, Schema};

static WORKER: LazyLock<Schema> = LazyLock::new(|| Schema::load("worker"));

/// What a client may send.
pub fn is_from_client(message: &Value) -> Result<(), String> {
    WORKER.check("client", message, Others::AsWritten)
}

/// What a worker may send.
pub fn is_from_worker(message: &Value) -> Result<(), String> {
    WORKER.check("server", message, Others::Refused)
}

#[test]
fn the_schema_tells_good_messages_from_bad_ones() {
    use serde_json::json;
    let attach = json!({"type": "attach", "ref": 1, "tenant_id": "acme", "job_id": "j", "parameters": [1]});
    assert_eq!(is_from_client(&attach), Ok(()));
    for (name, value) in [("ref", json!(0)), ("tenant_id", json!("a:b")), ("color", json!(1)), ("run", json!("1"))] {
        let mut bad = attach.clone();
        bad[name] = value;
        assert!(is_from_client(&bad).is_err(), "{bad}");
    }
    assert!(is_from_worker(&attach).is_err());
    assert_eq!(is_from_worker(&json!({"type": "saved", "ref": 1, "n": 2})), Ok(()));
    assert!(is_from_worker(&json!({"type": "saved", "ref": 1, "n": 2, "color": 1})).is_err());
}
