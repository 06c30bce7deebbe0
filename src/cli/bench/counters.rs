//! What Redis says of itself.

use std::collections::HashMap;

use crate::broker::Broker;

/// Counters of Redis at one moment.
pub struct Counters {
    /// Seconds of CPU.
    pub cpu: f64,
    /// Calls and µs of each command.
    calls: HashMap<String, (f64, f64)>,
}

impl Counters {
    pub async fn read(broker: &Broker) -> anyhow::Result<Self> {
        let text = |section: &str| {
            let arguments = ["INFO".to_owned(), section.to_owned()];
            async move { Ok::<_, anyhow::Error>(broker.query_any(&arguments).await?.join("\n")) }
        };
        let cpu = text("cpu").await?;
        let field = |name: &str| cpu.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok());
        let seconds = field("used_cpu_sys:").unwrap_or_default() + field("used_cpu_user:").unwrap_or_default();
        let mut calls = HashMap::new();
        for line in text("commandstats").await?.lines() {
            let Some((name, fields)) = line.strip_prefix("cmdstat_").and_then(|rest| rest.split_once(':')) else {
                continue;
            };
            let number = |key: &str| {
                fields.split(',').find_map(|f| f.strip_prefix(key)?.trim().parse::<f64>().ok()).unwrap_or_default()
            };
            calls.insert(name.to_owned(), (number("calls="), number("usec=")));
        }
        Ok(Self { cpu: seconds, calls })
    }

    /// Calls of a command since `before`.
    pub fn calls_since(&self, before: &Self, command: &str) -> f64 {
        let calls = |counters: &Self| counters.calls.get(command).map_or(0.0, |(calls, _)| *calls);
        calls(self) - calls(before)
    }

    /// µs inside a command since `before`.
    pub fn micros_since(&self, before: &Self, command: &str) -> f64 {
        let micros = |counters: &Self| counters.calls.get(command).map_or(0.0, |(_, micros)| *micros);
        micros(self) - micros(before)
    }
}
