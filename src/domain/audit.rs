//! What the audit trail records.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// What happened to a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuditEvent {
    /// Recorded, waiting for a worker.
    Accepted,
    /// Not permitted.
    Denied,
    /// Over the budget of commands a minute.
    RateLimited,
    /// Recorded, to be carried out at a set time.
    Scheduled,
    /// Taken back before that time.
    Withdrawn,
    /// Carried out.
    Succeeded,
    /// A worker refused it.
    Failed,
    /// No worker took it in time.
    Expired,
}

impl AuditEvent {
    /// All eight.
    pub const ALL: [Self; 8] = [
        Self::Accepted,
        Self::Denied,
        Self::RateLimited,
        Self::Scheduled,
        Self::Withdrawn,
        Self::Succeeded,
        Self::Failed,
        Self::Expired,
    ];

    /// The word in `command_audit.event`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Denied => "denied",
            Self::RateLimited => "rate_limited",
            Self::Scheduled => "scheduled",
            Self::Withdrawn => "withdrawn",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Expired => "expired",
        }
    }
}

impl FromStr for AuditEvent {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|event| event.as_str() == text);
        found.ok_or_else(|| format!("an event is one of {}", Self::ALL.map(Self::as_str).join(", ")))
    }
}

/// One event, as the scripts recorded it. The hash of its row is made over these fields, in this order.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct AuditEntry {
    /// The stream's id, `ms-n`: sorts by time within the partition. It, the time and the event stand beside the entry
    /// in the stream, not inside.
    #[serde(default)]
    pub id: String,
    /// Unix ms by Redis's clock.
    #[serde(default)]
    pub at: i64,
    /// One of [`AuditEvent`]'s words. A text, so that a row of another version can be read and checked all the same.
    #[serde(default)]
    pub event: String,
    /// The tenant whose resource the command is about.
    pub tenant_id: String,
    /// The user who sent the command.
    pub user_id: String,
    /// `job` or `campaign`.
    pub resource_kind: String,
    /// The job's or the campaign's id.
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
    /// When a scheduled command is to run, Unix ms. Not written where there is none: rows from before there
    /// was such a field keep their hash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_at: Option<i64>,
    /// The batch that the command was a part of: one unit of the user's budget pays for 100 of them. As above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch_id: Option<String>,
    /// How many refusals of one user, for one reason, this entry tells of: the resource, the action and the request are those
    /// of the first. Not there where it tells of one. As above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusals: Option<i64>,
    /// When the first of them was, Unix ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_at: Option<i64>,
    /// When the last of them was, Unix ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_at: Option<i64>,
}

/// A place in the chain, written `ID:HASH`: the row, and the hash that stands for it and all before it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ChainLink {
    /// The row's id; 0 before the first.
    pub id: i64,
    /// Hex; empty before the first.
    pub hash: String,
}

impl fmt::Display for ChainLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.id, self.hash)
    }
}

impl FromStr for ChainLink {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let read = text.split_once(':').and_then(|(id, hash)| Some((id.parse::<i64>().ok()?, hash)));
        match read {
            Some((id, hash)) if id > 0 && hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_hexdigit()) => {
                Ok(Self { id, hash: hash.to_ascii_lowercase() })
            }
            _ => Err("write it as ID:HASH, as `wheelhouse audit verify` printed it".to_owned()),
        }
    }
}

/// A moment as people name it, as Unix ms: RFC 3339, or how long ago: `90s`, `15m`, `24h`, `7d`.
pub fn parse_time_or_age(text: &str, now_ms: i64) -> Result<i64, String> {
    let help = || "write a time as 2026-01-31T12:00:00Z, or how long ago it was: 90s, 15m, 24h, 7d".to_owned();
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Ok(time.as_millisecond());
    }
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(help)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(help()),
    };
    let ago = number.parse::<u32>().map_err(|_| help())?;
    let ago = Duration::from_secs(u64::from(ago) * seconds);
    // At most 4 billion days, far from the end of i64; what lies before every time SQL can hold is the first of them.
    let ago_ms = i64::try_from(ago.as_millis()).map_err(|_| help())?;
    Ok(now_ms.saturating_sub(ago_ms).max(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_times_or_how_long_ago() {
        let now = 1_767_225_600_000;
        for (text, expected) in [
            ("2026-01-01T00:00:00Z", now),
            ("2026-01-01T01:00:00.5+01:00", now + 500),
            ("90s", now - 90_000),
            ("15m", now - 900_000),
            ("24h", now - 86_400_000),
            ("7d", now - 604_800_000),
            ("4294967295d", 0),
        ] {
            assert_eq!(parse_time_or_age(text, now), Ok(expected), "{text}");
        }
        for bad in ["", "h", "-1h", "1w", "yesterday", "2026-01-01", "1.5h", "99999999999d", "1é"] {
            assert!(parse_time_or_age(bad, now).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_place_in_the_chain_is_read_as_it_is_written() {
        let link = ChainLink { id: 7, hash: "0a".repeat(32) };
        assert_eq!(link.to_string().parse(), Ok(link));
        for bad in ["", "7", "7:", "0:00", ":aa", "7:zz"] {
            assert!(bad.parse::<ChainLink>().is_err(), "{bad}");
        }
    }
}
