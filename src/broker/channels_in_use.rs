//! Which channels the programs of a cluster publish on and hear. Programs whose settings lie more than one step of a change apart hear
//! nothing of each other, and all seems well: commands are found, only late, and sockets are silent. So each program says what it
//! uses, looks at what the others have said, and warns.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::Broker;
use crate::config::{self, HeardChannels, PublishedChannels};

/// Between two looks.
const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(15);
/// For so long counts what a program has said: two looks may fail.
pub const ANNOUNCEMENT_TTL: Duration = Duration::from_secs(40);

/// What a program publishes on, and what it hears. As text: the names of both settings, `both|sharded`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChannelsInUse {
    /// `redis.published_channels`.
    pub published: PublishedChannels,
    /// `redis.heard_channels`.
    pub heard: HeardChannels,
}

impl ChannelsInUse {
    /// What a program with these settings uses.
    pub fn of(settings: &config::Redis) -> Self {
        Self { published: settings.published_channels, heard: settings.heard_channels }
    }

    /// Whether it hears what a program publishes that uses those.
    fn hears(self, other: Self) -> bool {
        match other.published {
            PublishedChannels::Plain => self.heard == HeardChannels::Plain,
            PublishedChannels::Both => true,
            PublishedChannels::Sharded => self.heard == HeardChannels::Sharded,
        }
    }

    /// What is wrong between a program that uses these and others that use those. `None`: they hear each other.
    pub fn problem_with(self, other: Self) -> Option<String> {
        let lost = match (self.hears(other), other.hears(self)) {
            (true, true) => return None,
            (true, false) => "they hear nothing of what this one publishes",
            (false, true) => "this one hears nothing of what they publish",
            (false, false) => "neither hears what the other publishes",
        };
        let settings = |of: Self| {
            let (published, heard) = of.names();
            format!("redis.published_channels = \"{published}\" and redis.heard_channels = \"{heard}\"")
        };
        let seconds = ANNOUNCEMENT_TTL.as_secs();
        Some(format!(
            "programs with {} use this cluster, or did {seconds} s ago, and this one has {}: {lost}",
            settings(other),
            settings(self)
        ))
    }

    fn names(self) -> (&'static str, &'static str) {
        (name_of(&PublishedChannels::ALL, self.published), name_of(&HeardChannels::ALL, self.heard))
    }
}

/// What mends it.
pub const CHANNELS_MEND: &str = "give all programs the settings of one step of docs/operations.md, \"Sharded channels\", or of two neighbouring ones";

impl fmt::Display for ChannelsInUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (published, heard) = self.names();
        write!(f, "{published}|{heard}")
    }
}

impl FromStr for ChannelsInUse {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (published, heard) = text.split_once('|').ok_or(())?;
        let (published, heard) = (named(&PublishedChannels::ALL, published), named(&HeardChannels::ALL, heard));
        Ok(Self { published: published.ok_or(())?, heard: heard.ok_or(())? })
    }
}

fn name_of<T: PartialEq>(all: &[(&'static str, T)], wanted: T) -> &'static str {
    all.iter().find(|(_, one)| *one == wanted).map_or("", |(name, _)| name)
}

fn named<T: Copy>(all: &[(&str, T)], wanted: &str) -> Option<T> {
    all.iter().find(|(name, _)| *name == wanted).map(|(_, one)| *one)
}

impl Broker {
    /// Says again and again which channels this program uses, and warns of others that this program does not hear, or that do not hear it: once, as long as they are there.
    pub(super) async fn keep_announcing_channels(self) {
        let own = ChannelsInUse { published: self.client.published(), heard: self.heard };
        let mut told = BTreeSet::new();
        loop {
            match self.announce_channels(own, ANNOUNCEMENT_TTL).await {
                Ok(others) => {
                    for other in others.difference(&told) {
                        if let Some(problem) = own.problem_with(*other) {
                            tracing::warn!("redis.channels_apart: {problem}. What to do: {CHANNELS_MEND}");
                        }
                    }
                    told = others;
                }
                Err(error) => tracing::debug!(%error, "redis.channels_unknown"),
            }
            tokio::time::sleep(ANNOUNCE_INTERVAL).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The steps of docs/operations.md, in their order.
    const STEPS: [&str; 4] = ["plain|plain", "both|plain", "both|sharded", "sharded|sharded"];

    #[test]
    fn programs_of_neighbouring_steps_hear_each_other_and_all_others_do_not() {
        let steps = STEPS.map(|step| step.parse::<ChannelsInUse>().expect(step));
        for (n, one) in steps.iter().enumerate() {
            assert_eq!(one.to_string(), STEPS[n]);
            for (m, other) in steps.iter().enumerate() {
                let problem = one.problem_with(*other);
                assert_eq!(problem.is_some(), n.abs_diff(m) > 1, "{} and {}: {problem:?}", STEPS[n], STEPS[m]);
            }
        }
        for unknown in ["", "plain", "plain|both", "all|plain", "plain|plain|plain"] {
            assert!(unknown.parse::<ChannelsInUse>().is_err(), "{unknown}");
        }
    }

    #[test]
    fn it_is_said_who_hears_nothing_of_whom() {
        let [plain, both_plain, both_sharded, sharded] = STEPS.map(|step| step.parse::<ChannelsInUse>().expect(step));
        for (one, other, words) in [
            (both_sharded, plain, "this one hears nothing of what they publish"),
            (plain, both_sharded, "they hear nothing of what this one publishes"),
            (sharded, both_plain, "they hear nothing of what this one publishes"),
            (sharded, plain, "neither hears what the other publishes"),
        ] {
            let problem = one.problem_with(other).unwrap_or_default();
            assert!(problem.ends_with(words), "{one} and {other}: {problem}");
        }
    }
}
