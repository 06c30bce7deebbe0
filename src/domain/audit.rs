//! What the audit trail records.

/// One event, as the scripts recorded it.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct AuditEntry {
    /// The stream's id, `ms-n`: sorts by time within the partition.
    pub id: String,
    /// Unix ms by Redis's clock.
    pub at: i64,
    /// `accepted`, `denied`, `rate_limited`, `succeeded`, `failed`, `expired` (CONTRACT section 7).
    pub event: String,
    /// Whose.
    pub tenant_id: String,
    /// Who.
    pub user_id: String,
    /// `job` or `campaign`.
    pub resource_kind: String,
    /// Which.
    pub resource_id: String,
    /// `cancel`, `pause`, `resume`.
    pub action: String,
    /// Empty where nothing was accepted.
    pub command_id: Option<String>,
    /// The client's name for it.
    pub request_id: Option<String>,
    /// Why, in the operator's words.
    pub reason: Option<String>,
    /// The client's address.
    pub address: Option<String>,
    /// The token's `jti`.
    pub token_id: Option<String>,
    /// The status reached, or the error's words.
    pub outcome: Option<String>,
    /// Who carried it out.
    pub worker_id: Option<String>,
    /// Tries it took.
    pub attempts: Option<i64>,
    /// Accepted to ended, ms.
    pub latency_ms: Option<i64>,
}
