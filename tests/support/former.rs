//! What version 0.1 has left in Redis: a dump of what its gateways and workers wrote.
//!
//! Each line of `tests/broker/former/0.1.txt` is a command of Redis as a JSON array. Times stand as `@ms…@` and `@us…@`:
//! so many Unix ms or µs from the moment of the dump, and here of the moment at which it is loaded.
//!
//! Version 0.1 wrote it with these commands, each on a resource named after what became of it: `queued` (a job and a
//! campaign), `leased` (claimed, and the lease has ended), `retried` (given back twice), `soon` and `later` (scheduled),
//! `ended`, `dead` and `expired` (with their results), `superseded` (a pause, by a cancel that waits), `denied`, and a
//! batch on `b1`, which has ended, and `b2`.

use std::time::{SystemTime, UNIX_EPOCH};

const DUMP: &str = include_str!("../broker/former/0.1.txt");

/// A result that stands in the dump.
pub struct FormerResult {
    /// `acme:job:…`, as in the key.
    pub resource: String,
    pub command: String,
    /// As its client got it.
    pub message: String,
}

fn commands() -> impl Iterator<Item = Vec<String>> {
    DUMP.lines().map(|line| serde_json::from_str(line).expect("a command"))
}

/// Writes the dump into an empty Redis.
pub async fn load(url: &str) {
    let client = redis::Client::open(url).expect("address");
    let mut connection = client.get_multiplexed_async_connection().await.expect("connect");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    let now_us = i64::try_from(now.as_micros()).expect("a time");
    for words in commands() {
        let mut command = redis::Cmd::new();
        for word in words {
            command.arg(with_times(&word, now_us));
        }
        command.query_async::<redis::Value>(&mut connection).await.expect("write the dump");
    }
}

/// Every other part of a text between `@` may be a time; a user's id has an `@` of its own.
fn with_times(text: &str, now_us: i64) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('@') {
        out.push_str(before);
        let time = after.split_once('@').and_then(|(time, left)| Some((moment(time, now_us)?, left)));
        match time {
            Some((time, left)) => {
                out.push_str(&time.to_string());
                rest = left;
            }
            None => {
                out.push('@');
                rest = after;
            }
        }
    }
    out + rest
}

fn moment(time: &str, now_us: i64) -> Option<i64> {
    match (time.strip_prefix("ms"), time.strip_prefix("us")) {
        (Some(ms), _) => Some(now_us / 1_000 + ms.parse::<i64>().ok()?),
        (_, Some(us)) => Some(now_us + us.parse::<i64>().ok()?),
        _ => None,
    }
}

/// Every result in the dump.
pub fn results() -> Vec<FormerResult> {
    let results = commands().filter(|words| words[0] == "HSET" && words[1].ends_with(":results"));
    results
        .map(|words| FormerResult {
            resource: words[1].split(':').skip(2).take(3).collect::<Vec<_>>().join(":"),
            command: words[2].clone(),
            message: words[3].splitn(3, '|').nth(2).expect("a message").to_owned(),
        })
        .collect()
}

/// How many audit entries are in the dump.
pub fn audit_entries() -> usize {
    commands().filter(|words| words[0] == "XADD").count()
}
