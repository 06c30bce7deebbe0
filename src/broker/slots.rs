//! The 16,384 slots of a Redis Cluster: which one a key is in, and what a node says of who has which.

use std::ops::RangeInclusive;

use redis::{Arg, Cmd, ErrorKind, RedisError, RedisResult, Value};

use super::connection::Connection;

pub(super) const SLOTS: u16 = 16_384;

/// Where a node is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct SlotOwner {
    pub(super) host: String,
    pub(super) port: u16,
}

impl std::fmt::Display for SlotOwner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Slots side by side, and their master.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SlotRange {
    pub(super) slots: RangeInclusive<u16>,
    pub(super) master: SlotOwner,
}

/// The slot of a key: of what stands between its first `{` and the `}` after it, if anything does.
pub(super) fn slot_of_key(key: &[u8]) -> u16 {
    let tag = key.iter().position(|b| *b == b'{').and_then(|open| {
        let rest = &key[open + 1..];
        let close = rest.iter().position(|b| *b == b'}')?;
        (close > 0).then(|| &rest[..close])
    });
    crc16(tag.unwrap_or(key)) % SLOTS
}

/// The slot of a command's first key; `None` for one that has none. Knows the commands of this program, and those
/// whose key is their first argument.
pub(super) fn slot_of_command(command: &Cmd) -> Option<u16> {
    let mut words = command.args_iter().map(|word| match word {
        Arg::Simple(bytes) => bytes,
        _ => b"",
    });
    let key = match words.next()?.to_ascii_uppercase().as_slice() {
        b"PUBLISH" | b"PING" => None,
        // The script, the number of keys, the keys.
        b"EVAL" | b"EVALSHA" => words.nth(2),
        _ => words.next(),
    };
    key.map(slot_of_key)
}

/// CRC-16/XMODEM.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0_u16, |crc, byte| {
        (0..8).fold(
            crc ^ (u16::from(*byte) << 8),
            |crc, _| if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 },
        )
    })
}

/// CLUSTER INFO of a node.
pub(super) async fn info(node: &Connection) -> RedisResult<String> {
    Ok(redis::from_redis_value(node.send(redis::cmd("CLUSTER").arg("INFO"), false).await?)?)
}

/// Whether a node takes its cluster for up: one that is cut off from most others, or misses a master, does not.
pub(super) async fn cluster_is_up(node: &Connection) -> RedisResult<bool> {
    Ok(info(node).await?.lines().any(|line| line.trim() == "cluster_state:ok"))
}

/// Asks a node at `host` which master has which slots, each with the master's id: never none at all.
pub(super) async fn ask(node: &Connection, host: &str) -> RedisResult<Vec<(SlotRange, String)>> {
    let answer = node.send(redis::cmd("CLUSTER").arg("SLOTS"), false).await?;
    let Value::Array(rows) = answer else { return Err(odd("CLUSTER SLOTS has no rows")) };
    let ranges: Vec<(SlotRange, String)> = rows.iter().filter_map(|row| range(row, host)).collect();
    if ranges.is_empty() { Err(odd("no node of this cluster has any slots")) } else { Ok(ranges) }
}

/// `[first, last, [host, port, id, …], replicas…]`
fn range(row: &Value, asked: &str) -> Option<(SlotRange, String)> {
    let Value::Array(parts) = row else { return None };
    let [Value::Int(first), Value::Int(last), Value::Array(master), ..] = parts.as_slice() else { return None };
    let [host, Value::Int(port), id, ..] = master.as_slice() else { return None };
    let text = |value: &Value| match value {
        Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        _ => String::new(),
    };
    let slots = u16::try_from(*first).ok()?..=u16::try_from(*last).ok()?;
    let master = SlotOwner { host: host_or_default(&text(host), asked), port: u16::try_from(*port).ok()? };
    Some((SlotRange { slots, master }, text(id)))
}

/// A node that does not know its own name is where it was asked.
pub(super) fn host_or_default(named: &str, asked: &str) -> String {
    let named = named.trim_start_matches('[').trim_end_matches(']');
    if named.is_empty() || named == "?" { asked.to_owned() } else { named.to_owned() }
}

fn odd(what: &'static str) -> RedisError {
    RedisError::from((ErrorKind::Client, what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_in_the_slot_that_redis_says() {
        // By CLUSTER KEYSLOT.
        for (key, slot) in [("123456789", 12739), ("wh:{07}:ready", 801), ("{}x", 10595), ("a{b}{c}", 3300)] {
            assert_eq!(slot_of_key(key.as_bytes()), slot, "{key}");
        }
    }

    #[test]
    fn a_command_goes_where_its_first_key_is() {
        let slot = Some(slot_of_key(b"k"));
        assert_eq!(slot_of_command(redis::cmd("HGET").arg("k").arg("x")), slot);
        assert_eq!(slot_of_command(redis::cmd("evalsha").arg("hash").arg(2).arg("k").arg("y").arg("z")), slot);
        assert_eq!(slot_of_command(redis::cmd("PUBLISH").arg("k").arg("x")), None);
        assert_eq!(slot_of_command(&redis::cmd("PING")), None);
    }

    #[test]
    fn a_node_without_a_name_is_where_it_was_asked() {
        let row = |host: Value| {
            let master = Value::Array(vec![host, Value::Int(7000), Value::BulkString(b"id".to_vec())]);
            Value::Array(vec![Value::Int(0), Value::Int(5), master])
        };
        let place = |host: &str| {
            let master = SlotOwner { host: host.to_owned(), port: 7000 };
            Some((SlotRange { slots: 0..=5, master }, "id".to_owned()))
        };
        assert_eq!(range(&row(Value::BulkString(b"10.0.0.1".to_vec())), "seed"), place("10.0.0.1"));
        assert_eq!(range(&row(Value::Nil), "seed"), place("seed"));
        assert_eq!(range(&row(Value::BulkString(b"?".to_vec())), "seed"), place("seed"));
        assert_eq!(range(&Value::Nil, "seed"), None);
    }
}
