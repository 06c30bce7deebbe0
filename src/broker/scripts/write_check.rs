//! `lua/prove_writes.lua`: whether Redis does what commands need.

use std::time::Duration;

use super::{lua, texts};
use crate::broker::{Broker, BrokerError, Partition};
use crate::domain::fnv1a;

/// How long a program goes without trying all by itself that scripts do, where another one of the same user of Redis has done it.
pub const PROOF_SHARED_FOR: Duration = Duration::from_secs(7);

/// How much is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProofExtent {
    /// Everything that any script does.
    All,
    /// The same, unless a program that has the same rights did it within [`PROOF_SHARED_FOR`]: then one write.
    Shared,
    /// One write.
    One,
}

impl Broker {
    /// Writes to a partition as the scripts of commands do, by a script with the same flags, and publishes on `channel`.
    /// Nothing of it remains but a word to others that all was tried.
    pub async fn prove_writes(
        &self,
        partition: Partition,
        channel: &str,
        extent: ProofExtent,
    ) -> Result<(), BrokerError> {
        let word: &[u8] = match extent {
            ProofExtent::All => b"all",
            ProofExtent::Shared => b"shared",
            ProofExtent::One => b"one",
        };
        let lasts = PROOF_SHARED_FOR.as_millis().to_string();
        let args = [channel.as_bytes(), word, lasts.as_bytes()];
        let mut keys = self.keys().proof(partition).to_vec();
        keys.push(self.proof_done(partition));
        // Held for replicas as commands are: where these miss, commands fail.
        self.client.script_replicated::<i64>(&lua::PROVE_WRITES, &texts(&keys), &args).await.map(drop)
    }

    /// Whether a program that has the same rights has tried everything within [`PROOF_SHARED_FOR`].
    pub async fn is_proof_shared(&self, partition: Partition) -> Result<bool, BrokerError> {
        let left: i64 = self.client.query(redis::cmd("PTTL").arg(self.proof_done(partition))).await?;
        // More is left only where the clock was set back.
        Ok(left > 0 && left <= PROOF_SHARED_FOR.as_millis() as i64)
    }

    /// Rights are those of a user, whatever the connection; a program of another version may try less.
    fn proof_done(&self, partition: Partition) -> String {
        let prover =
            fnv1a(&format!("{} {}", self.client.discovery().user(), lua::PROVE_WRITES.hash(self.client.published())));
        self.keys().proof_done(partition, prover)
    }
}
