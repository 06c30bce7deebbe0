//! `lua/prove_writes.lua`: whether Redis does what commands need.

use super::{lua, texts};
use crate::broker::{Broker, BrokerError, Partition};

impl Broker {
    /// Writes to a partition as the scripts of commands do, by a script with the same flags, and publishes on `channel`.
    /// `full`: tries everything that any script does, and not one write only. Nothing of it remains.
    pub async fn prove_writes(&self, partition: Partition, channel: &str, full: bool) -> Result<(), BrokerError> {
        let keys = self.keys().proof(partition);
        let what: &[u8] = if full { b"all" } else { b"one" };
        // Held for replicas as commands are: where these miss, commands fail.
        let args = [channel.as_bytes(), what];
        self.client.script_replicated::<i64>(&lua::PROVE_WRITES, &texts(&keys), &args).await.map(drop)
    }
}
