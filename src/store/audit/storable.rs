//! Entries of the audit trail as both databases can hold them.

use crate::domain::AuditEntry;
use crate::store::sql::without_nul;

/// Longest word of an entry that an index holds, in characters: PostgreSQL refuses a row with more than 2,704
/// bytes in one. No id that comes in through a gateway is as long.
const MAX_INDEXED_LENGTH: usize = 300;

/// An entry as both databases can hold it, so that what is read back gives the same hash.
pub(super) struct StorableEntry {
    pub(super) entry: AuditEntry,
    /// What the hash is made over; made before anybody has to wait for the head of the chain.
    pub(super) text: String,
}

impl StorableEntry {
    pub(super) fn of(given: &AuditEntry) -> Self {
        let mut entry = given.clone();
        let text = text_of(&entry);
        if text.contains("\\u0000")
            && let Ok(value) = serde_json::to_value(&entry)
            && let Ok(clean) = serde_json::from_value(without_nul(&value))
        {
            entry = clean;
        }
        if jiff::Timestamp::from_millisecond(entry.at).is_err() {
            entry.at = 0;
        }
        let indexed =
            [&mut entry.tenant_id, &mut entry.user_id, &mut entry.resource_id, &mut entry.event, &mut entry.action];
        for indexed in indexed {
            if indexed.len() > MAX_INDEXED_LENGTH
                && let Some((end, _)) = indexed.char_indices().nth(MAX_INDEXED_LENGTH)
            {
                indexed.truncate(end);
            }
        }
        let text = if entry == *given { text } else { text_of(&entry) };
        Self { entry, text }
    }
}

/// The entry as its hash sees it.
pub(super) fn text_of(entry: &AuditEntry) -> String {
    serde_json::to_string(entry).unwrap_or_default()
}
