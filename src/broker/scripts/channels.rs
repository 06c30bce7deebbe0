//! `lua/announce_channels.lua`: which channels the programs of a cluster use.

use std::collections::BTreeSet;
use std::time::Duration;

use super::lua;
use crate::broker::channels_in_use::ChannelsInUse;
use crate::broker::{Broker, BrokerError};

impl Broker {
    /// Says for so long which channels this program uses, and gives what others use beside it. What a later version says and
    /// this one cannot read is left out.
    pub async fn announce_channels(
        &self,
        own: ChannelsInUse,
        ttl: Duration,
    ) -> Result<BTreeSet<ChannelsInUse>, BrokerError> {
        let (key, args) = (self.keys().channels_in_use(), [own.to_string(), ttl.as_millis().to_string()]);
        let args = args.each_ref().map(String::as_bytes);
        let said: Vec<String> = self.client.script(&lua::ANNOUNCE_CHANNELS, &[&key], &args).await?;
        Ok(said.iter().filter_map(|said| said.parse().ok()).filter(|said| *said != own).collect())
    }
}
