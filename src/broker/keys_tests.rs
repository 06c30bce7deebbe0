//! Every key and every channel can be read back to the one fact that it was built from, whatever the ids are.

use proptest::prelude::*;

use super::*;

/// Words that mean something at some place of a name, and ids that look like parts of one. Ids of every kind are drawn
/// from them, so that each stands where another is expected.
const WORDS: [&str; 38] = [
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
enum Fact {
    /// Of a partition: `tenants`, `schedule`, `workers`, `audit`.
    OfPartition(Partition, &'static str),
    Fleet,
    JobTypes(WorkerId),
    Floor(Partition, UserId),
    /// Which of the six.
    Proof(Partition, usize),
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
    Denied(Resource, CommandId),
}

const OF_PARTITION: [&str; 4] = ["tenants", "schedule", "workers", "audit"];
const OF_TENANT: [&str; 7] = ["ready", "schedules", "failed", "failed_at", "workers", "backlog", "connections"];
const OF_USER: [&str; 3] = ["rate", "permissions", "connections"];
const OF_RESOURCE: [&str; 5] = ["state", "queue", "commands", "results", "finished"];

fn key(fact: &Fact) -> String {
    let keys = Keys::new(PARTITIONS);
    match fact {
        Fact::OfPartition(partition, "tenants") => keys.waiting_tenants(*partition),
        Fact::OfPartition(partition, "schedule") => keys.schedule(*partition),
        Fact::OfPartition(partition, "workers") => keys.workers(*partition),
        Fact::OfPartition(partition, _) => keys.audit(*partition),
        Fact::Fleet => keys.fleet(),
        Fact::JobTypes(worker) => keys.job_types(worker),
        Fact::Floor(partition, user) => keys.permission_floor(*partition, user),
        Fact::Proof(partition, which) => keys.proof(*partition)[*which].clone(),
        Fact::OfTenant(tenant, "ready") => keys.ready(tenant),
        Fact::OfTenant(tenant, "schedules") => keys.schedules(tenant),
        Fact::OfTenant(tenant, "failed") => keys.failed(tenant),
        Fact::OfTenant(tenant, "failed_at") => keys.failed_at(tenant),
        Fact::OfTenant(tenant, "workers") => keys.tenant_workers(tenant),
        Fact::OfTenant(tenant, "backlog") => keys.backlog(tenant),
        Fact::OfTenant(tenant, _) => keys.connections(tenant),
        Fact::Withdrawn(tenant, command) => keys.withdrawn(tenant, *command),
        Fact::OfUser(tenant, user, "rate") => keys.rate(tenant, user),
        Fact::OfUser(tenant, user, "permissions") => keys.permissions(tenant, user),
        Fact::OfUser(tenant, user, _) => keys.user_connections(tenant, user),
        Fact::Batch(tenant, user, request) => keys.batch(tenant, user, request),
        Fact::UnnamedBatch(tenant, user, batch) => keys.unnamed_batch(tenant, user, *batch),
        Fact::OfResource(r, "state") => keys.state(r),
        Fact::OfResource(r, "queue") => keys.queue(r),
        Fact::OfResource(r, "commands") => keys.commands(r),
        Fact::OfResource(r, "results") => keys.results(r),
        Fact::OfResource(r, _) => keys.finished(r),
        Fact::Request(r, user, request) => keys.request(r, user, request),
        Fact::Denied(r, command) => keys.denied(r, *command),
    }
}

/// What a key is about, by its text alone.
fn read(key: &str) -> Option<Fact> {
    let parts: Vec<&str> = key.split(':').collect();
    if let ["wh", "types", worker] = parts.as_slice() {
        return Some(Fact::JobTypes(worker.parse().ok()?));
    }
    let ["wh", tag, rest @ ..] = parts.as_slice() else { return None };
    let partition = Partition(tag.strip_prefix('{')?.strip_suffix('}')?.parse().ok()?);
    let user =
        |text: &str| -> Option<UserId> { percent_encoding::percent_decode_str(text).decode_utf8().ok()?.parse().ok() };
    let one_of = |words: &[&'static str], word: &str| words.iter().copied().find(|known| *known == word);
    let fact = match rest {
        ["@workers"] => Fact::Fleet,
        [word] => Fact::OfPartition(partition, one_of(&OF_PARTITION, word)?),
        ["@proof", kind] => {
            let kinds = ["hash", "list", "sorted", "set", "stream", "string"];
            Fact::Proof(partition, kinds.iter().position(|known| known == kind)?)
        }
        ["@floor", name] => Fact::Floor(partition, user(name)?),
        [tenant, word] => Fact::OfTenant(tenant.parse().ok()?, one_of(&OF_TENANT, word)?),
        [tenant, "withdrawn", command] => Fact::Withdrawn(tenant.parse().ok()?, command.parse().ok()?),
        [tenant, "user", name, word] => Fact::OfUser(tenant.parse().ok()?, user(name)?, one_of(&OF_USER, word)?),
        [tenant, "user", name, "batch", id] => Fact::Batch(tenant.parse().ok()?, user(name)?, (*id).to_owned()),
        [tenant, "user", name, "unnamed_batch", id] => {
            Fact::UnnamedBatch(tenant.parse().ok()?, user(name)?, id.parse().ok()?)
        }
        [tenant, kind, id, rest @ ..] => {
            let r = Resource::parse(&format!("{tenant}:{kind}:{id}"))?;
            match rest {
                [word] => Fact::OfResource(r, one_of(&OF_RESOURCE, word)?),
                ["request", name, request] => Fact::Request(r, user(name)?, (*request).to_owned()),
                ["denied", command] => Fact::Denied(r, command.parse().ok()?),
                _ => return None,
            }
        }
        [] => return None,
    };
    let keys = Keys::new(PARTITIONS);
    let of = match &fact {
        Fact::Fleet => Partition(0),
        Fact::JobTypes(_) => partition,
        Fact::OfPartition(..) | Fact::Floor(..) | Fact::Proof(..) => partition,
        Fact::OfTenant(tenant, _)
        | Fact::Withdrawn(tenant, _)
        | Fact::OfUser(tenant, ..)
        | Fact::Batch(tenant, ..)
        | Fact::UnnamedBatch(tenant, ..) => keys.partition(tenant),
        Fact::OfResource(r, _) | Fact::Request(r, ..) | Fact::Denied(r, _) => keys.partition(&r.tenant),
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
    const ODD: [&str; 10] = ["@floor", "a:b", "%3A", "%253A", "x:{00}:y*", "auth0|5f7c", "job:control", "é", ":", "."];
    prop_oneof![
        3 => id(),
        2 => prop::sample::select(ODD.as_slice()).prop_map(str::to_owned),
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

fn fact() -> impl Strategy<Value = Fact> {
    let partition = || (0..PARTITIONS).prop_map(Partition);
    let word = |words: &'static [&'static str]| prop::sample::select(words);
    prop_oneof![
        Just(Fact::Fleet),
        id().prop_map(|id| Fact::JobTypes(id.parse().expect("a worker"))),
        (partition(), word(&OF_PARTITION)).prop_map(|(p, word)| Fact::OfPartition(p, word)),
        (partition(), user()).prop_map(|(p, user)| Fact::Floor(p, user)),
        (partition(), 0..6_usize).prop_map(|(p, which)| Fact::Proof(p, which)),
        (tenant(), word(&OF_TENANT)).prop_map(|(tenant, word)| Fact::OfTenant(tenant, word)),
        (tenant(), command()).prop_map(|(tenant, command)| Fact::Withdrawn(tenant, command)),
        (tenant(), user(), word(&OF_USER)).prop_map(|(tenant, user, word)| Fact::OfUser(tenant, user, word)),
        (tenant(), user(), id()).prop_map(|(tenant, user, id)| Fact::Batch(tenant, user, id)),
        (tenant(), user(), command()).prop_map(|(tenant, user, id)| Fact::UnnamedBatch(tenant, user, id)),
        (resource(), word(&OF_RESOURCE)).prop_map(|(r, word)| Fact::OfResource(r, word)),
        (resource(), user(), id()).prop_map(|(r, user, id)| Fact::Request(r, user, id)),
        (resource(), command()).prop_map(|(r, command)| Fact::Denied(r, command)),
    ]
}

/// What a channel is for.
#[derive(Debug, Clone, PartialEq)]
enum Use {
    Wakes(TenantId, ResourceKind),
    Updates(Resource),
    Replies(Resource),
    Permissions,
    Dispatch,
    Probe(String),
    ResourceProbe(String),
}

fn channel(of: &Use) -> String {
    match of {
        Use::Wakes(tenant, kind) => control_channel(tenant, *kind),
        Use::Updates(r) => updates_channel(r),
        Use::Replies(r) => reply_channel(r),
        Use::Permissions => PERMISSIONS_CHANNEL.to_owned(),
        Use::Dispatch => DISPATCH_CHANNEL.to_owned(),
        Use::Probe(subscriber) => probe_channel(subscriber),
        Use::ResourceProbe(subscriber) => resource_probe_channel(subscriber),
    }
}

fn channel_use() -> impl Strategy<Value = Use> {
    prop_oneof![
        2 => (tenant(), prop::sample::select(ResourceKind::ALL.as_slice())).prop_map(|(t, kind)| Use::Wakes(t, kind)),
        4 => resource().prop_map(Use::Updates),
        4 => resource().prop_map(Use::Replies),
        1 => Just(Use::Permissions),
        1 => Just(Use::Dispatch),
        1 => id().prop_map(Use::Probe),
        1 => id().prop_map(Use::ResourceProbe),
    ]
}

/// The one name that has two uses, by the contract. Their messages tell them apart.
fn share_a_name(one: &Use, other: &Use) -> bool {
    match (one, other) {
        (Use::Wakes(tenant, kind), Use::Updates(r)) | (Use::Updates(r), Use::Wakes(tenant, kind)) => {
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
            if let Some(former) = keys.former_permission_floor(partition, &user) {
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
        prop_assert_eq!(read_resource_channel(&updates_channel(&r)), Some((r.clone(), Carries::Updates)));
        prop_assert_eq!(read_resource_channel(&reply_channel(&r)), Some((r.clone(), Carries::Replies)));
    }

    /// `resource|command` and the like, which scripts and wrappers put together and take apart.
    #[test]
    fn a_member_is_read_back(r in resource(), command in command()) {
        let member = schedule_member(&r, command);
        prop_assert_eq!(read_schedule_member(&member), Some((r.clone(), command)));
        prop_assert_eq!(Resource::parse(&r.to_string()), Some(r));
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
