//! Which sharded channel is heard for a plain channel or a pattern, and of which partitions.

use super::keys::{
    Keys, Partition, RESOURCE_PROBE_PATTERN, WORKER_CHANNELS, is_control_pattern, is_everything_pattern,
    read_resource_probe_channel, tenant_of_channel,
};

/// Where something is heard.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum HeardOf {
    /// Of one tenant, and so in its partition.
    Partition(Partition),
    /// Of all tenants.
    AllPartitions,
    /// In all partitions: what is for this program alone, its own channel as a worker and its probe.
    Program,
    /// It is of no partition: it is heard on the plain channel in any case.
    None,
}

/// Plain channels and patterns that are heard of the same partitions.
pub(super) struct NamesHeard {
    pub(super) of: HeardOf,
    pub(super) names: Vec<String>,
}

/// Of which partitions a plain channel or pattern is heard.
pub(super) fn heard_of(keys: Keys, name: &str) -> HeardOf {
    match tenant_of_channel(name) {
        Some(tenant) => HeardOf::Partition(keys.partition(&tenant)),
        None if is_everything_pattern(name) || is_control_pattern(name) => HeardOf::AllPartitions,
        None if name.starts_with(WORKER_CHANNELS) || is_probe(name) => HeardOf::Program,
        None => HeardOf::None,
    }
}

/// Whether it wakes workers, of one tenant or of all.
pub(super) fn is_control_name(name: &str) -> bool {
    name.ends_with(":control") && name.matches(':').count() == 2
}

/// Whether a subscriber proves to itself on this channel that it hears what scripts publish.
pub(super) fn is_probe(name: &str) -> bool {
    name != RESOURCE_PROBE_PATTERN && read_resource_probe_channel(name).is_some()
}

/// The name of its sharded channel in a partition. For the patterns of a single tenant it is the one for all: what is of
/// other tenants is passed over.
pub(super) fn shard_name(name: &str) -> String {
    match name.split_once(':') {
        Some((_, rest)) if rest.ends_with(":*") => format!("*:{rest}"),
        _ => name.to_owned(),
    }
}

/// A message as the plain channel would have brought it: its channel, the payload, and whether it came by a pattern.
pub(super) fn read_message<'a>(name: &'a str, payload: &'a [u8]) -> Option<(&'a str, &'a [u8], bool)> {
    if !name.starts_with('*') {
        return Some((name, payload, false));
    }
    let end = payload.iter().position(|byte| *byte == b'\n')?;
    Some((std::str::from_utf8(&payload[..end]).ok()?, &payload[end + 1..], true))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::keys::{
        DISPATCH_CHANNEL, PERMISSIONS_CHANNEL, control_channel, control_pattern, everything_pattern,
        read_shard_channel, reply_channel, resource_probe_channel, shard_channel, tenant_pattern, updates_channel,
        worker_channel,
    };
    use crate::domain::{Resource, ResourceKind};

    #[test]
    fn what_is_heard_of_one_tenant_is_in_its_partition_and_what_is_heard_of_all_in_each() {
        let (keys, job) = (Keys::new(16), Resource::parse("acme:job:j1").expect("job"));
        let own = HeardOf::Partition(keys.partition(&job.tenant));
        let tenant = |name: &str| assert_eq!(heard_of(keys, name), own, "{name}");
        tenant(&updates_channel(&job));
        tenant(&reply_channel(&job));
        for kind in ResourceKind::ALL {
            tenant(&tenant_pattern(&job.tenant, kind));
            tenant(&control_channel(&job.tenant, kind));
            assert_eq!(heard_of(keys, &everything_pattern(kind)), HeardOf::AllPartitions);
            assert_eq!(heard_of(keys, &control_pattern(kind)), HeardOf::AllPartitions);
        }
        assert_eq!(heard_of(keys, &worker_channel(&"w1".parse().expect("worker"))), HeardOf::Program);
        assert_eq!(heard_of(keys, &resource_probe_channel("r2-1")), HeardOf::Program);
        for name in [DISPATCH_CHANNEL, PERMISSIONS_CHANNEL, RESOURCE_PROBE_PATTERN, "wh:probe:r2-1"] {
            assert_eq!(heard_of(keys, name), HeardOf::None, "{name}");
        }
    }

    #[test]
    fn a_tenants_pattern_is_heard_on_the_channel_of_all_and_everything_else_on_its_own() {
        assert_eq!(shard_name("acme:job:*"), "*:job:*");
        for name in ["*:job:*", "*:job:control", "acme:job:j1", "acme:campaign:c1:reply", "wh:worker:w1"] {
            assert_eq!(shard_name(name), name);
        }
        let partition = Keys::new(16).partition(&"acme".parse().expect("tenant"));
        let channel = shard_channel(partition, "*:job:*");
        assert_eq!(read_shard_channel(&channel), Some((partition, "*:job:*")));
        assert_eq!(read_shard_channel("acme:job:j1"), None);
    }

    #[test]
    fn a_message_for_all_says_of_which_channel_it_is() {
        assert_eq!(read_message("acme:job:j1", b"{}\n"), Some(("acme:job:j1", b"{}\n".as_slice(), false)));
        assert_eq!(read_message("*:job:*", b"acme:job:j1\n{\n}"), Some(("acme:job:j1", b"{\n}".as_slice(), true)));
        assert_eq!(read_message("*:job:*", b"{}"), None);
    }
}
