//! Every key and every channel can be read back to the one fact that it was built from, whatever the ids are.

use proptest::prelude::*;

use super::*;

/// Words that mean something at some place of a name, and ids that look like parts of one. Ids of every kind are drawn
/// from them, so that each stands where another is expected.
const WORDS: [&str; 40] = [
    "refusals",
    "refusals_due",
    "job",
    "campaign",
    "user",
    "control",
    "reply",
    "state",
    "queue",
    "commands",
    "results",
    "finished",
    "request",
    "denied",
    "batch",
    "unnamed_batch",
    "rate",
    "permissions",
    "connections",
    "ready",
    "schedule",
    "schedules",
    "withdrawn",
    "failed",
    "failed_at",
    "workers",
    "tenants",
    "audit",
    "floor",
    "backlog",
    "probe",
    "dispatch",
    "wh",
    "00",
    "07",
    "a",
    "A",
    "a.b",
    "a-b",
    "a_b",
];
const PARTITIONS: u16 = 16;

/// What a key is about.
#[derive(Debug, Clone, PartialEq)]
enum NamePart {
    /// Of a partition: one of [`OF_PARTITION`].
    OfPartition(Partition, &'static str),
    Fleet,
    ChannelsInUse,
    JobTypes(WorkerId),
    Floor(Partition, UserId),
    /// Of the workers of a partition: one of [`OF_WORKERS`].
    OfWorkers(Partition, &'static str),
    /// Which of the six.
    Proof(Partition, usize),
    ProofDone(Partition, u64),
    /// Of a tenant: one of [`OF_TENANT`].
    OfTenant(TenantId, &'static str),
    Withdrawn(TenantId, CommandId),
    /// Of a user within a tenant: one of [`OF_USER`].
    OfUser(TenantId, UserId, &'static str),
    Batch(TenantId, UserId, String),
    UnnamedBatch(TenantId, UserId, CommandId),
    /// Of a resource: one of [`OF_RESOURCE`].
    OfResource(Resource, &'static str),
    Request(Resource, UserId, String),
    /// Which of the days, and which share.
    Requests(Partition, u8, u16),
    FormerRequests(Partition, u8, u8),
    Denied(Resource, CommandId),
}

const OF_PARTITION: [&str; 6] = ["tenants", "schedule", "workers", "audit", "refusals", "refusals_due"];
const OF_WORKERS: [&str; 3] = ["heartbeats", "leader", "listeners"];
const OF_TENANT: [&str; 8] =
    ["ready", "schedules", "failed", "failed_at", "workers", "listeners", "backlog", "connections"];
const OF_USER: [&str; 3] = ["rate", "permissions", "connections"];
const OF_RESOURCE: [&str; 5] = ["state", "queue", "commands", "results", "finished"];

fn key(fact: &NamePart) -> String {
    let keys = Keys::new(PARTITIONS);
    match fact {
        NamePart::OfPartition(partition, "tenants") => keys.tenants_with_ready(*partition),
        NamePart::OfPartition(partition, "schedule") => keys.schedule(*partition),
        NamePart::OfPartition(partition, "workers") => keys.workers(*partition),
        NamePart::OfPartition(partition, "refusals") => keys.refusals(*partition),
        NamePart::OfPartition(partition, "refusals_due") => keys.refusals_due(*partition),
        NamePart::OfPartition(partition, _) => keys.audit(*partition),
        NamePart::Fleet => keys.fleet(),
        NamePart::ChannelsInUse => keys.channels_in_use(),
        NamePart::OfWorkers(partition, "leader") => keys.leader(*partition),
        NamePart::OfWorkers(partition, "listeners") => keys.listeners(*partition),
        NamePart::OfWorkers(partition, _) => keys.heartbeats(*partition),
        NamePart::JobTypes(worker) => keys.job_types(worker),
        NamePart::Floor(partition, user) => keys.min_permission_version(*partition, user),
        NamePart::Proof(partition, which) => keys.proof(*partition)[*which].clone(),
        NamePart::ProofDone(partition, prover) => keys.proof_done(*partition, *prover),
        NamePart::OfTenant(tenant, "ready") => keys.ready(tenant),
        NamePart::OfTenant(tenant, "schedules") => keys.schedules(tenant),
        NamePart::OfTenant(tenant, "failed") => keys.failed(tenant),
        NamePart::OfTenant(tenant, "failed_at") => keys.failed_by_time(tenant),
        NamePart::OfTenant(tenant, "workers") => keys.tenant_workers(tenant),
        NamePart::OfTenant(tenant, "listeners") => keys.tenant_listeners(tenant),
        NamePart::OfTenant(tenant, "backlog") => keys.backlog(tenant),
        NamePart::OfTenant(tenant, _) => keys.connections(tenant),
        NamePart::Withdrawn(tenant, command) => keys.withdrawn(tenant, *command),
        NamePart::OfUser(tenant, user, "rate") => keys.rate(tenant, user),
        NamePart::OfUser(tenant, user, "permissions") => keys.permissions(tenant, user),
        NamePart::OfUser(tenant, user, _) => keys.user_connections(tenant, user),
        NamePart::Batch(tenant, user, request) => keys.batch(tenant, user, request),
        NamePart::UnnamedBatch(tenant, user, batch) => keys.batch_by_id(tenant, user, *batch),
        NamePart::OfResource(r, "state") => keys.state(r),
        NamePart::OfResource(r, "queue") => keys.queue(r),
        NamePart::OfResource(r, "commands") => keys.commands(r),
        NamePart::OfResource(r, "results") => keys.results(r),
        NamePart::OfResource(r, _) => keys.finished(r),
        NamePart::Request(r, user, request) => keys.request(r, user, request),
        NamePart::Requests(partition, day, share) => {
            let place = RequestPlace { share: *share, field: String::new() };
            keys.requests(*partition, &place)[usize::from(*day)].clone()
        }
        NamePart::FormerRequests(partition, day, share) => {
            let names = (0..).map(|n| keys.former_requests(*partition, &n.to_string()));
            let mut of_share = names.filter(|names| names[0].ends_with(&format!(":{share}")));
            of_share.next().map(|names| names[usize::from(*day)].clone()).unwrap_or_default()
        }
        NamePart::Denied(r, command) => keys.denial(r, *command),
    }
}

/// What a key is about, by its text alone.
fn read(key: &str) -> Option<NamePart> {
    let parts: Vec<&str> = key.split(':').collect();
    if let ["wh", "types", worker] = parts.as_slice() {
        return Some(NamePart::JobTypes(worker.parse().ok()?));
    }
    let ["wh", tag, rest @ ..] = parts.as_slice() else { return None };
    let partition = Partition(tag.strip_prefix('{')?.strip_suffix('}')?.parse().ok()?);
    let user =
        |text: &str| -> Option<UserId> { percent_encoding::percent_decode_str(text).decode_utf8().ok()?.parse().ok() };
    let one_of = |words: &[&'static str], word: &str| words.iter().copied().find(|known| *known == word);
    let fact = match rest {
        ["@workers"] => NamePart::Fleet,
        ["@channels"] => NamePart::ChannelsInUse,
        ["@workers", word] => NamePart::OfWorkers(partition, one_of(&OF_WORKERS, word)?),
        [word] => NamePart::OfPartition(partition, one_of(&OF_PARTITION, word)?),
        ["@proof", kind] => {
            let kinds = ["hash", "list", "sorted", "set", "stream", "string"];
            NamePart::Proof(partition, kinds.iter().position(|known| known == kind)?)
        }
        ["@proof", "done", prover] => NamePart::ProofDone(partition, u64::from_str_radix(prover, 16).ok()?),
        ["@request_ids", day, share] => NamePart::Requests(partition, day.parse().ok()?, share.parse().ok()?),
        ["@requests", day, share] => NamePart::FormerRequests(partition, day.parse().ok()?, share.parse().ok()?),
        ["@floor", name] => NamePart::Floor(partition, user(name)?),
        [tenant, word] => NamePart::OfTenant(tenant.parse().ok()?, one_of(&OF_TENANT, word)?),
        [tenant, "withdrawn", command] => NamePart::Withdrawn(tenant.parse().ok()?, command.parse().ok()?),
        [tenant, "user", name, word] => NamePart::OfUser(tenant.parse().ok()?, user(name)?, one_of(&OF_USER, word)?),
        [tenant, "user", name, "batch", id] => NamePart::Batch(tenant.parse().ok()?, user(name)?, (*id).to_owned()),
        [tenant, "user", name, "unnamed_batch", id] => {
            NamePart::UnnamedBatch(tenant.parse().ok()?, user(name)?, id.parse().ok()?)
        }
        [tenant, kind, id, rest @ ..] => {
            let r = Resource::parse(&format!("{tenant}:{kind}:{id}"))?;
            match rest {
                [word] => NamePart::OfResource(r, one_of(&OF_RESOURCE, word)?),
                ["request", name, request] => NamePart::Request(r, user(name)?, (*request).to_owned()),
                ["denied", command] => NamePart::Denied(r, command.parse().ok()?),
                _ => return None,
            }
        }
        [] => return None,
    };
    let keys = Keys::new(PARTITIONS);
    let of = match &fact {
        NamePart::Fleet | NamePart::ChannelsInUse => Partition(0),
        NamePart::JobTypes(_) => partition,
        NamePart::OfPartition(..)
        | NamePart::OfWorkers(..)
        | NamePart::Requests(..)
        | NamePart::FormerRequests(..)
        | NamePart::Floor(..)
        | NamePart::Proof(..)
        | NamePart::ProofDone(..) => partition,
        NamePart::OfTenant(tenant, _)
        | NamePart::Withdrawn(tenant, _)
        | NamePart::OfUser(tenant, ..)
        | NamePart::Batch(tenant, ..)
        | NamePart::UnnamedBatch(tenant, ..) => keys.partition(tenant),
        NamePart::OfResource(r, _) | NamePart::Request(r, ..) | NamePart::Denied(r, _) => keys.partition(&r.tenant),
    };
    (of == partition).then_some(fact)
}

fn command() -> impl Strategy<Value = CommandId> {
    any::<u128>().prop_map(|n| uuid::Uuid::from_u128(n).to_string().parse().expect("a command id"))
}

/// A word, a command's id, or anything else that an id may be.
fn id() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => prop::sample::select(WORDS.as_slice()).prop_map(str::to_owned),
        1 => command().prop_map(|id| id.to_string()),
        1 => "[A-Za-z0-9][A-Za-z0-9._-]{0,12}",
    ]
}

fn tenant() -> impl Strategy<Value = TenantId> {
    id().prop_map(|id| id.parse().expect("a tenant"))
}

/// Also what only users may have in their ids: our own separators, and what encoding makes of them.
fn user() -> impl Strategy<Value = UserId> {
    const HOSTILE_IDS: [&str; 10] =
        ["@floor", "a:b", "%3A", "%253A", "x:{00}:y*", "auth0|5f7c", "job:control", "é", ":", "."];
    prop_oneof![
        3 => id(),
        2 => prop::sample::select(HOSTILE_IDS.as_slice()).prop_map(str::to_owned),
        1 => "[!-~]{1,8}",
    ]
    .prop_map(|id| id.parse().expect("a user"))
}

fn resource() -> impl Strategy<Value = Resource> {
    (tenant(), prop::sample::select(ResourceKind::ALL.as_slice()), id()).prop_map(|(tenant, kind, id)| Resource {
        tenant,
        kind,
        id: id.parse().expect("an id"),
    })
}

fn fact() -> impl Strategy<Value = NamePart> {
    let partition = || (0..PARTITIONS).prop_map(Partition);
    let word = |words: &'static [&'static str]| prop::sample::select(words);
    prop_oneof![
        Just(NamePart::Fleet),
        Just(NamePart::ChannelsInUse),
        id().prop_map(|id| NamePart::JobTypes(id.parse().expect("a worker"))),
        (partition(), word(&OF_PARTITION)).prop_map(|(p, word)| NamePart::OfPartition(p, word)),
        (partition(), word(&OF_WORKERS)).prop_map(|(p, word)| NamePart::OfWorkers(p, word)),
        (partition(), user()).prop_map(|(p, user)| NamePart::Floor(p, user)),
        (partition(), 0..6_usize).prop_map(|(p, which)| NamePart::Proof(p, which)),
        (partition(), any::<u64>()).prop_map(|(p, prover)| NamePart::ProofDone(p, prover)),
        (tenant(), word(&OF_TENANT)).prop_map(|(tenant, word)| NamePart::OfTenant(tenant, word)),
        (tenant(), command()).prop_map(|(tenant, command)| NamePart::Withdrawn(tenant, command)),
        (tenant(), user(), word(&OF_USER)).prop_map(|(tenant, user, word)| NamePart::OfUser(tenant, user, word)),
        (tenant(), user(), id()).prop_map(|(tenant, user, id)| NamePart::Batch(tenant, user, id)),
        (tenant(), user(), command()).prop_map(|(tenant, user, id)| NamePart::UnnamedBatch(tenant, user, id)),
        (resource(), word(&OF_RESOURCE)).prop_map(|(r, word)| NamePart::OfResource(r, word)),
        (resource(), user(), id()).prop_map(|(r, user, id)| NamePart::Request(r, user, id)),
        (resource(), command()).prop_map(|(r, command)| NamePart::Denied(r, command)),
        (partition(), 0..3_u8, 0..2048_u16).prop_map(|(p, day, share)| NamePart::Requests(p, day, share)),
        (partition(), 0..3_u8, 0..32_u8).prop_map(|(p, day, share)| NamePart::FormerRequests(p, day, share)),
    ]
}

/// What a channel is for.
#[derive(Debug, Clone, PartialEq)]
enum ChannelUse {
    Wakes(TenantId, ResourceKind),
    Updates(Resource),
    Replies(Resource),
    Permissions,
    Dispatch,
    Probe(String),
    ResourceProbe(String),
    Worker(WorkerId),
}

fn channel(of: &ChannelUse) -> String {
    match of {
        ChannelUse::Wakes(tenant, kind) => control_channel(tenant, *kind),
        ChannelUse::Updates(r) => updates_channel(r),
        ChannelUse::Replies(r) => reply_channel(r),
        ChannelUse::Permissions => PERMISSIONS_CHANNEL.to_owned(),
        ChannelUse::Dispatch => DISPATCH_CHANNEL.to_owned(),
        ChannelUse::Probe(subscriber) => probe_channel(subscriber),
        ChannelUse::ResourceProbe(subscriber) => resource_probe_channel(subscriber),
        ChannelUse::Worker(worker) => worker_channel(worker),
    }
}

fn channel_use() -> impl Strategy<Value = ChannelUse> {
    prop_oneof![
        2 => (tenant(), prop::sample::select(ResourceKind::ALL.as_slice())).prop_map(|(t, kind)| ChannelUse::Wakes(t, kind)),
        4 => resource().prop_map(ChannelUse::Updates),
        4 => resource().prop_map(ChannelUse::Replies),
        1 => Just(ChannelUse::Permissions),
        1 => Just(ChannelUse::Dispatch),
        1 => id().prop_map(ChannelUse::Probe),
        1 => id().prop_map(ChannelUse::ResourceProbe),
        1 => id().prop_map(|id| ChannelUse::Worker(id.parse().expect("a worker"))),
    ]
}

/// The one name that has two uses, by the contract. Their messages tell them apart.
fn share_a_name(one: &ChannelUse, other: &ChannelUse) -> bool {
    match (one, other) {
        (ChannelUse::Wakes(tenant, kind), ChannelUse::Updates(r))
        | (ChannelUse::Updates(r), ChannelUse::Wakes(tenant, kind)) => {
            r.tenant == *tenant && r.kind == *kind && r.id.as_str() == "control"
        }
        _ => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, failure_persistence: None, ..ProptestConfig::default() })]

    /// What can be read back cannot be two things.
    #[test]
    fn each_key_is_read_back_to_the_fact_that_it_was_built_from(fact in fact()) {
        prop_assert_eq!(read(&key(&fact)), Some(fact));
    }

    #[test]
    fn where_the_former_floor_is_raised_it_is_no_other_key(user in user(), fact in fact()) {
        let keys = Keys::new(PARTITIONS);
        for partition in keys.partitions() {
            if let Some(former) = keys.former_min_permission_version(partition, &user) {
                prop_assert_ne!(&former, &key(&fact));
                prop_assert_eq!(read(&former), None);
            }
        }
    }

    #[test]
    fn no_two_uses_share_a_channel_but_those_that_the_contract_gives_one_name(one in channel_use(), other in channel_use()) {
        let same = channel(&one) == channel(&other);
        prop_assert_eq!(same, one == other || share_a_name(&one, &other), "{}", channel(&one));
    }

    #[test]
    fn a_channel_of_a_resource_is_read_back(r in resource()) {
        prop_assert_eq!(read_resource_channel(&updates_channel(&r)), Some((r.clone(), ChannelContent::Updates)));
        prop_assert_eq!(read_resource_channel(&reply_channel(&r)), Some((r.clone(), ChannelContent::Replies)));
    }

    /// `resource|command` and the like, which scripts and wrappers put together and take apart.
    #[test]
    fn a_member_is_read_back(r in resource(), command in command()) {
        let member = schedule_member(&r, command);
        prop_assert_eq!(read_schedule_member(&member), Some((r.clone(), command)));
        prop_assert_eq!(Resource::parse(&r.to_string()), Some(r));
    }

    /// Nobody's request is answered with the answer to another one.
    #[test]
    fn no_two_requests_share_a_name(
        one in (resource(), user(), id()), other in (resource(), user(), id())
    ) {
        let name = |of: &(Resource, UserId, String)| request_name(&of.0, &of.1, &of.2);
        prop_assert_eq!(name(&one) == name(&other), one == other);
    }

    /// Nobody's refusals are counted as somebody else's.
    #[test]
    fn no_two_users_share_a_member_of_refusals(one in (tenant(), user()), other in (tenant(), user())) {
        let member = |of: &(TenantId, UserId)| refusals_member(&of.0, &of.1);
        prop_assert_eq!(member(&one) == member(&other), one == other);
    }
}

#[test]
fn a_name_of_no_resource_is_not_read_as_one() {
    for name in
        ["", "T", "T:job", "T:job:a:b", "T:job:a:reply:reply", "T:jobs:a", "wh:permissions", "wh:probe:x", "T:job:"]
    {
        assert_eq!(read_resource_channel(name), None, "{name}");
    }
}

#[test]
fn all_keys_of_a_tenant_share_one_hash_tag_and_no_user_id_can_forge_another_key() {
    let keys = Keys::new(16);
    let job = Resource::parse("acme:job:j1").expect("resource");
    let user: UserId = "x:{00}:y*".parse().expect("user");
    let tag = keys.partition(&job.tenant).to_string();
    for key in [keys.state(&job), keys.queue(&job), keys.rate(&job.tenant, &user), keys.request(&job, &user, "r")] {
        assert!(key.starts_with(&format!("wh:{tag}:acme:")), "{key}");
        assert_eq!(key.matches('{').count(), 1, "{key}");
        assert!(!key.contains('*'), "{key}");
    }
    assert_eq!(keys.partitions().count(), 16);
}
