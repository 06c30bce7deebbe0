//! Every key and channel name, built here and nowhere else (`docs/redis.md` lists them for people).
//!
//! All keys of a tenant carry the hash tag of its partition, `wh:{07}:acme:…`, so that one script may
//! touch several of them on a Redis Cluster, and workers sweep a fixed number of partitions however
//! many tenants there are. The number of partitions must never change while data is kept.
//!
//! No id can be read as another part of a name. A name is a sequence of parts with `:` between them, and no part holds a
//! `:`: tenant, resource, worker and request ids cannot, and user ids are percent-encoded. So the number of parts and the
//! words at fixed places say what a key is, whatever the ids in it are. Where one of our own words stands in the place
//! of a tenant and something follows it, the word begins with `@`, which no tenant id does. `keys_tests.rs` shows that
//! each name can be read back to the one fact that it was built from.

use crate::domain::{CommandId, Resource, ResourceKind, TenantId, UserId, WorkerId, fnv1a, sha256};

/// Room for most names.
const INITIAL_CAPACITY: usize = 96;

/// Days of requests that take turns: this one, the one before, and one that has gone before it is used again.
const REQUEST_DAYS: usize = 3;
/// Hashes among which the version before spreads the requests of a day in a partition.
const FORMER_REQUEST_SHARES: u64 = 32;

/// Partitions in which workers begin to look for a home: few, because in a large fleet each home has listeners of its own.
const FIRST_HOMES: u16 = 8;
/// About how many workers of a large fleet hear the control channels of all tenants.
const LISTENERS: u16 = 8;

/// Builds names for a fixed number of partitions.
#[derive(Debug, Clone, Copy)]
pub struct Keys {
    partitions: u16,
}

/// One partition's hash tag, `{07}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Partition(u16);

impl std::fmt::Display for Partition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self(number) = *self;
        if number > 99 {
            return write!(f, "{{{number}}}");
        }
        // Every key has it: padding by the formatting machinery would take most of the time that a name takes.
        let [tens, ones] = [number / 10, number % 10].map(|digit| b'0' + digit as u8);
        f.write_str(std::str::from_utf8(&[b'{', tens, ones, b'}']).unwrap_or_default())
    }
}

/// Names are put together from parts without the formatting machinery: each command has nineteen of them.
macro_rules! name {
    ($keys:expr, $tenant:expr $(, $part:expr)*) => {{
        let mut name = $keys.tenant($tenant);
        $(name.push_str($part);)*
        name
    }};
}

/// Number: raised so that replicas can be waited for that have everything before it (`redis.replicas_to_wait`). On the server of
/// another key, which is one of [`Keys`].
pub fn replication_marker_beside(key: &str) -> String {
    let tag = key.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map_or("00", |(tag, _)| tag);
    format!("wh:{{{tag}}}:replicated")
}

impl Keys {
    /// Names for `redis.partitions` partitions (at least one).
    pub fn new(partitions: u16) -> Self {
        Self { partitions: partitions.max(1) }
    }

    /// Every partition.
    pub fn partitions(self) -> impl Iterator<Item = Partition> + Clone {
        (0..self.partitions).map(Partition)
    }

    /// Where a tenant's keys are: FNV-1a of its id, so that every program in any language finds them.
    pub fn partition(self, tenant: &TenantId) -> Partition {
        Partition((fnv1a(tenant.as_str()) % u64::from(self.partitions)) as u16)
    }

    fn tenant(self, tenant: &TenantId) -> String {
        let Partition(number) = self.partition(tenant);
        let mut name = String::with_capacity(INITIAL_CAPACITY);
        name.push_str("wh:{");
        if number < 10 {
            name.push('0');
        }
        name.push_str(&number.to_string());
        name.push_str("}:");
        name.push_str(tenant.as_str());
        name
    }

    fn user(self, tenant: &TenantId, user: &UserId) -> String {
        name!(self, tenant, ":user:", &user.encoded())
    }

    fn resource(self, r: &Resource) -> String {
        name!(self, &r.tenant, ":", r.kind.as_str(), ":", r.id.as_str())
    }

    fn user_key(self, tenant: &TenantId, user: &UserId, what: &str) -> String {
        let mut name = self.user(tenant, user);
        name.push_str(what);
        name
    }

    fn resource_key(self, r: &Resource, what: &str) -> String {
        let mut name = self.resource(r);
        name.push_str(what);
        name
    }

    /// The eleven keys that every script about a resource's commands gets, in the order of
    /// `lua/lib/command_keys.lua`: five of the resource, six of its tenant.
    pub fn command_keys(self, r: &Resource) -> Vec<String> {
        let mut keys = self.resource_command_keys(r).to_vec();
        keys.extend(self.tenant_command_keys(&r.tenant));
        keys
    }

    /// The first five of them: the resource's own.
    pub fn resource_command_keys(self, r: &Resource) -> [String; 5] {
        [self.state(r), self.queue(r), self.commands(r), self.results(r), self.finished(r)]
    }

    /// The last six: the tenant's and its partition's.
    pub fn tenant_command_keys(self, tenant: &TenantId) -> [String; 6] {
        let partition = self.partition(tenant);
        [
            self.ready(tenant),
            self.tenants_with_ready(partition),
            self.backlog(tenant),
            self.audit(partition),
            self.failed(tenant),
            self.failed_by_time(tenant),
        ]
    }

    /// Sorted set: member `tenant:kind:id`, score = Unix ms when its next command may be claimed.
    pub fn ready(self, tenant: &TenantId) -> String {
        name!(self, tenant, ":ready")
    }

    /// Set: the tenants of a partition that have something in [`Self::ready`], or had until a moment ago.
    pub fn tenants_with_ready(self, partition: Partition) -> String {
        format!("wh:{partition}:tenants")
    }

    /// Sorted set: member `tenant:kind:id|command`, score = Unix ms when it shall be submitted.
    pub fn schedule(self, partition: Partition) -> String {
        format!("wh:{partition}:schedule")
    }

    /// Hash: command id → what is to be submitted, for the tenant's commands in [`Self::schedule`].
    pub fn schedules(self, tenant: &TenantId) -> String {
        name!(self, tenant, ":schedules")
    }

    /// String: which withdrawal took a scheduled command back, for the repeat of one whose answer was lost; 10 s.
    pub fn withdrawn(self, tenant: &TenantId, command: CommandId) -> String {
        name!(self, tenant, ":withdrawn:", &command.to_string())
    }

    /// Hash: command id → how it failed and what it was, for the tenant's newest commands that failed for good.
    pub fn failed(self, tenant: &TenantId) -> String {
        name!(self, tenant, ":failed")
    }

    /// Sorted set: the ids in [`Self::failed`], score = Unix ms of their end.
    pub fn failed_by_time(self, tenant: &TenantId) -> String {
        name!(self, tenant, ":failed_at")
    }

    /// Sorted set: worker id → Unix ms until which it counts as alive; workers of all tenants.
    pub fn workers(self, partition: Partition) -> String {
        format!("wh:{partition}:workers")
    }

    /// Sorted set: as [`Self::workers`], for workers that serve only named tenants.
    pub fn tenant_workers(self, tenant: &TenantId) -> String {
        name!(self, tenant, ":workers")
    }

    /// String: the types of job that a worker knows, a JSON array; lives as long as the worker renews it.
    pub fn job_types(self, worker: &WorkerId) -> String {
        format!("wh:types:{worker}")
    }

    /// Sorted set: as [`Self::workers`], for every worker that serves only named tenants. One for all partitions, in the
    /// first.
    pub fn fleet(self) -> String {
        format!("wh:{}:@workers", Partition(0))
    }

    /// Sorted set: `published|heard`, the settings of programs of a cluster → Unix ms until which they count as used. One for all
    /// partitions, in the first, as [`Self::fleet`].
    pub fn channels_in_use(self) -> String {
        format!("wh:{}:@channels", Partition(0))
    }

    /// Sorted set: worker id → Unix ms until which its last heartbeat counts, for the workers of all tenants whose home this
    /// partition is.
    pub fn heartbeats(self, partition: Partition) -> String {
        format!("wh:{partition}:@workers:heartbeats")
    }

    /// String: the worker that leads this partition, as long as it renews it.
    pub fn leader(self, partition: Partition) -> String {
        format!("wh:{partition}:@workers:leader")
    }

    /// Sorted set: worker id → Unix ms until which it is one of the few that hear the control channels of all tenants, of the
    /// workers whose home this partition is. Nobody is in it while the fleet is small.
    pub fn listeners(self, partition: Partition) -> String {
        format!("wh:{partition}:@workers:listeners")
    }

    /// Sorted set: as [`Self::listeners`], for the control channels of this tenant, of the workers of named tenants.
    pub fn tenant_listeners(self, tenant: &TenantId) -> String {
        name!(self, tenant, ":listeners")
    }

    /// How many there may be in each of [`Self::listeners`].
    pub fn listeners_of_home(self) -> u16 {
        LISTENERS.div_ceil(self.partitions.min(FIRST_HOMES))
    }

    /// How many there may be in each of [`Self::tenant_listeners`].
    pub fn listeners_of_tenant(self) -> u16 {
        LISTENERS
    }

    /// The partitions that are homes where every server answers.
    pub fn first_homes(self) -> impl Iterator<Item = Partition> + Clone {
        (0..self.partitions.min(FIRST_HOMES)).map(Partition)
    }

    /// The partitions in the order in which a worker takes them for its home: the first whose server answers. Workers share
    /// the [first homes](Self::first_homes) evenly.
    pub fn homes(self, worker: &WorkerId) -> impl Iterator<Item = Partition> + use<> {
        let first = fnv1a(worker.as_str()) % u64::from(self.partitions.min(FIRST_HOMES));
        (0..u64::from(self.partitions)).map(move |n| Partition(((first + n) % u64::from(self.partitions)) as u16))
    }

    /// Stream: audit entries on their way to SQL.
    pub fn audit(self, partition: Partition) -> String {
        format!("wh:{partition}:audit")
    }

    /// Hash: `event:tenant:user` → how often that user was refused for that reason lately, and what of it has no audit
    /// entry yet.
    pub fn refusals(self, partition: Partition) -> String {
        format!("wh:{partition}:refusals")
    }

    /// Sorted set: the members of [`Self::refusals`], score = Unix ms when they have to be looked at.
    pub fn refusals_due(self, partition: Partition) -> String {
        format!("wh:{partition}:refusals_due")
    }

    /// Number: the tenant's commands that have no result yet.
    pub fn backlog(self, tenant: &TenantId) -> String {
        name!(self, tenant, ":backlog")
    }

    /// Hash: a resource's fence, lease, host, seq and live progress.
    pub fn state(self, r: &Resource) -> String {
        self.resource_key(r, ":state")
    }

    /// List: ids of the resource's commands without a result, oldest first.
    pub fn queue(self, r: &Resource) -> String {
        self.resource_key(r, ":queue")
    }

    /// Hash: command id → record, for the ids in the queue.
    pub fn commands(self, r: &Resource) -> String {
        self.resource_key(r, ":commands")
    }

    /// Hash: command id → result message, for recent commands.
    pub fn results(self, r: &Resource) -> String {
        self.resource_key(r, ":results")
    }

    /// List: the ids in [`Self::results`], newest first, so that the hash stays small.
    pub fn finished(self, r: &Resource) -> String {
        self.resource_key(r, ":finished")
    }

    /// Hashes: [`RequestPlace::field`] → the first answer to a `request_id`, kept 24 h. A partition's requests are spread over 2,048
    /// hashes for each day, and the days take turns: of each three the one that has this name. Redis keeps a hash of some hundred
    /// short fields as one piece of memory, which it moves to another server at once.
    pub fn requests(self, partition: Partition, place: &RequestPlace) -> [String; REQUEST_DAYS] {
        of_days(&format!("wh:{partition}:@request_ids:"), &place.share().to_string())
    }

    /// The same as the version before keeps them, by [`request_name`].
    pub fn former_requests(self, partition: Partition, name: &str) -> [String; REQUEST_DAYS] {
        of_days(&format!("wh:{partition}:@requests:"), &(fnv1a(name) % FORMER_REQUEST_SHARES).to_string())
    }

    /// String: the first answer to a `request_id` that is kept for longer, because the command was scheduled; and what a
    /// version before has kept for 24 h.
    pub fn request(self, r: &Resource, user: &UserId, request: &str) -> String {
        let mut name = self.resource_key(r, ":request:");
        name.push_str(&user.encoded());
        name.push(':');
        name.push_str(request);
        name
    }

    /// String: the same for a command without a `request_id` that was denied, kept 10 s. Apart from the requests: a
    /// client may choose any id for its request, also that of somebody's command.
    pub fn denial(self, r: &Resource, command: CommandId) -> String {
        let mut name = self.resource_key(r, ":denied:");
        name.push_str(&command.to_string());
        name
    }

    /// String: what is known of a batch that was asked for under a `request_id`, kept 24 h.
    pub fn batch(self, tenant: &TenantId, user: &UserId, request: &str) -> String {
        format!("{}:batch:{request}", self.user(tenant, user))
    }

    /// String: the same for a batch without a `request_id`, by the batch's own id, kept 10 s.
    pub fn batch_by_id(self, tenant: &TenantId, user: &UserId, batch: CommandId) -> String {
        format!("{}:unnamed_batch:{batch}", self.user(tenant, user))
    }

    /// List: Unix µs of the user's last commands, newest first.
    pub fn rate(self, tenant: &TenantId, user: &UserId) -> String {
        self.user_key(tenant, user, ":rate")
    }

    /// Hash: the user's permissions as last read from SQL, with their version; lives a few seconds.
    pub fn permissions(self, tenant: &TenantId, user: &UserId) -> String {
        self.user_key(tenant, user, ":permissions")
    }

    /// String: the lowest version of the user's permissions that may still be believed.
    /// In every partition, because a user's rights do not belong to one tenant.
    pub fn min_permission_version(self, partition: Partition, user: &UserId) -> String {
        format!("wh:{partition}:@floor:{}", user.encoded())
    }

    /// Where version 0.1 looks for [`Self::min_permission_version`]. It is raised too, so that gateways of that version which
    /// still run during a rolling upgrade believe no right that has been revoked. `None` for a user whose id is one
    /// of the words below: there this name is a key of the tenant `floor`, and writing to it would spoil that.
    pub fn former_min_permission_version(self, partition: Partition, user: &UserId) -> Option<String> {
        const TENANT_KEY_MARK: [&str; 8] =
            ["ready", "schedules", "failed", "failed_at", "workers", "listeners", "backlog", "connections"];
        let user = user.encoded();
        (!TENANT_KEY_MARK.contains(&user.as_str())).then(|| format!("wh:{partition}:floor:{user}"))
    }

    /// One of each type, on which [`Broker::prove_writes`](crate::broker::Broker::prove_writes) does what all scripts do;
    /// nothing of them remains.
    pub fn proof(self, partition: Partition) -> [String; 6] {
        ["hash", "list", "sorted", "set", "stream", "string"].map(|kind| format!("wh:{partition}:@proof:{kind}"))
    }

    /// String: a program has lately done all of that here. `prover`: the same for all programs of one user of Redis that try the
    /// same.
    pub fn proof_done(self, partition: Partition, prover: u64) -> String {
        format!("wh:{partition}:@proof:done:{prover:016x}")
    }

    /// Sorted set: open sockets of a tenant, member = lease id, score = Unix ms of its end.
    pub fn connections(self, tenant: &TenantId) -> String {
        name!(self, tenant, ":connections")
    }

    /// Sorted set: open sockets of one user.
    pub fn user_connections(self, tenant: &TenantId, user: &UserId) -> String {
        self.user_key(tenant, user, ":connections")
    }
}

/// A member of [`Keys::schedule`]: `tenant:kind:id|command`.
pub fn schedule_member(r: &Resource, command: CommandId) -> String {
    format!("{r}|{command}")
}

/// The inverse of [`schedule_member`].
pub fn read_schedule_member(member: &str) -> Option<(Resource, CommandId)> {
    let (resource, command) = member.split_once('|')?;
    Some((Resource::parse(resource)?, command.parse().ok()?))
}

fn of_days(head: &str, share: &str) -> [String; REQUEST_DAYS] {
    ["0:", "1:", "2:"].map(|day| [head, day, share].concat())
}

/// Where the first answer to a request is, among [`Keys::requests`]: by the SHA-256 of its [name](request_name), so that nobody can
/// make one request that is taken for another one's repeat. As `sha256sum` writes it: the first three digits, halved, are the
/// hash, and the next 24 the field.
#[derive(Debug, Clone)]
pub struct RequestPlace {
    share: u16,
    field: String,
}

impl RequestPlace {
    /// Of a request with this [name](request_name).
    pub fn of(name: &str) -> Self {
        let sum = sha256(name);
        let mut field = hex::encode(&sum[1..14]);
        field.remove(0);
        field.pop();
        Self { share: u16::from_be_bytes([sum[0], sum[1]]) >> 5, field }
    }

    /// Which of a day's 2,048 hashes has it.
    pub fn share(&self) -> u16 {
        self.share
    }

    /// Under which name it is there.
    pub fn field(&self) -> &str {
        &self.field
    }
}

/// What a request is called, `tenant:kind:id:user:request`: a field of [`Keys::former_requests`].
pub fn request_name(r: &Resource, user: &UserId, request: &str) -> String {
    let mut name = String::with_capacity(INITIAL_CAPACITY);
    for part in [r.tenant.as_str(), r.kind.as_str(), r.id.as_str(), &user.encoded()] {
        name.push_str(part);
        name.push(':');
    }
    name.push_str(request);
    name
}

/// Whose refusals [`Keys::refusals`] counts together.
pub fn refusals_member(tenant: &TenantId, user: &UserId) -> String {
    [tenant.as_str(), ":", &user.encoded()].concat()
}

/// What a message on a channel of a resource may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChannelContent {
    /// Progress and status.
    Updates,
    /// Results.
    Replies,
}

/// Reads the name of a channel of one resource, [`updates_channel`] or [`reply_channel`].
///
/// One name means two things, and the contract fixes both: `{tenant}:job:control` wakes workers, and is also where the
/// updates of a job with the id `control` go. Their messages tell them apart: what wakes has an `action`, an update has a
/// `type`; `protocol::control` and the gateway's hub each take only their own kind.
pub fn read_resource_channel(name: &str) -> Option<(Resource, ChannelContent)> {
    // By the number of parts. The last word alone would not do: a job may have the id `reply`.
    let mut colons = name.match_indices(':').skip(2).map(|(at, _)| at);
    match (colons.next(), colons.next()) {
        (None, _) => Some((Resource::parse(name)?, ChannelContent::Updates)),
        (Some(at), None) if &name[at..] == ":reply" => Some((Resource::parse(&name[..at])?, ChannelContent::Replies)),
        _ => None,
    }
}

/// `{tenant}:job:control`: wakes workers. Also the updates of a job with the id `control`: [`read_resource_channel`].
pub fn control_channel(tenant: &TenantId, kind: ResourceKind) -> String {
    format!("{tenant}:{}:control", kind.as_str())
}

/// `*:job:control`: what workers PSUBSCRIBE that serve all tenants; in a large fleet a few of them.
pub fn control_pattern(kind: ResourceKind) -> String {
    format!("*:{}:control", kind.as_str())
}

/// `{tenant}:job:{id}`: progress and status.
pub fn updates_channel(r: &Resource) -> String {
    r.to_string()
}

/// `{tenant}:job:*`: updates and results of every job of a tenant (and what wakes workers).
pub fn tenant_pattern(tenant: &TenantId, kind: ResourceKind) -> String {
    format!("{tenant}:{}:*", kind.as_str())
}

/// `*:job:*`: the same of every tenant, for a gateway on which many are watched as a whole.
pub fn everything_pattern(kind: ResourceKind) -> String {
    format!("*:{}:*", kind.as_str())
}

/// Whether this is a [`control_pattern`].
pub(super) fn is_control_pattern(name: &str) -> bool {
    ResourceKind::ALL.into_iter().any(|kind| name == control_pattern(kind))
}

/// Whether this is an [`everything_pattern`].
pub fn is_everything_pattern(name: &str) -> bool {
    let kind = name.strip_prefix("*:").and_then(|rest| rest.strip_suffix(":*"));
    kind.is_some_and(|kind| ResourceKind::parse(kind).is_some())
}

/// `{tenant}:job:{id}:reply`: results.
pub fn reply_channel(r: &Resource) -> String {
    format!("{r}:reply")
}

/// `wh:{07}:@channel:{name}`: the sharded channel for what is published of a partition on the plain channel of this name, or is heard by
/// the pattern of this name.
pub fn shard_channel(partition: Partition, name: &str) -> String {
    format!("wh:{partition}:{SHARD_CHANNEL_MARK}{name}")
}

/// The inverse of [`shard_channel`].
pub fn read_shard_channel(channel: &str) -> Option<(Partition, &str)> {
    let (number, name) = channel.strip_prefix("wh:{")?.split_once("}:")?;
    Some((Partition(number.parse().ok()?), name.strip_prefix(SHARD_CHANNEL_MARK)?))
}

const SHARD_CHANNEL_MARK: &str = "@channel:";

/// Whether a channel or a pattern is about one tenant alone: without the right to hear it, that tenant is not served, and
/// all others are. Names of the program's own begin with `wh:`, `@` or `*`.
pub fn is_of_one_tenant(name: &str) -> bool {
    tenant_of_channel(name).is_some()
}

/// Whether a program goes on without this, where Redis does not permit it (any more): it serves one tenant alone, or there is
/// another way to hear the same.
pub fn is_dispensable(name: &str) -> bool {
    is_of_one_tenant(name) || is_everything_pattern(name) || name.starts_with(WORKER_CHANNELS)
}

/// The tenant of a channel of one resource, or of a pattern for a whole tenant.
pub fn tenant_of_channel(name: &str) -> Option<TenantId> {
    let mut parts = name.split(':');
    let (tenant, kind) = (parts.next()?.parse().ok()?, parts.next()?);
    ResourceKind::ALL.into_iter().any(|known| known.as_str() == kind).then_some(tenant)
}

/// A user id is published here when that user's permissions changed (`wheelhouse grant|revoke`).
pub const PERMISSIONS_CHANNEL: &str = "wh:permissions";

/// Anything published here says that jobs may be waiting in SQL for a worker, but for [`COMMANDS_WAIT`], and for a word that nothing is
/// left ([`JobWake`](super::scripts::updates::JobWake)).
pub const DISPATCH_CHANNEL: &str = "wh:dispatch";

/// On [`DISPATCH_CHANNEL`]: more commands wait than the worker that has found them can take.
pub const COMMANDS_WAIT: &str = "commands";

/// What the name of a worker's own channel begins with, here and in scripts.
pub(super) const WORKER_CHANNELS: &str = "wh:worker:";

/// A resource (`tenant:kind:id`) is published here that has a command for this worker.
pub fn worker_channel(worker: &WorkerId) -> String {
    [WORKER_CHANNELS, worker.as_str()].concat()
}

/// What the names of subscribers of this version begin with: so that whoever hears the [probes](resource_probe_channel) of others
/// knows whether programs of the version before run.
const SUBSCRIBER_MARK: &str = "r2-";

/// A new name for a subscriber, which nobody else has.
pub fn subscriber_name() -> String {
    [SUBSCRIBER_MARK, &uuid::Uuid::now_v7().simple().to_string()].concat()
}

/// Whether a subscriber proves to itself on this channel that it hears patterns; if so, whether it is of the version before.
pub fn read_resource_probe_channel(channel: &str) -> Option<IsFormer> {
    let name = channel.strip_prefix(RESOURCE_PROBE_PATTERN.trim_end_matches('*'))?;
    Some(IsFormer(!name.starts_with(SUBSCRIBER_MARK)))
}

/// Whether a program is of the version before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IsFormer(pub bool);

/// Each subscriber publishes to itself here, to know that delivery works.
pub fn probe_channel(subscriber: &str) -> String {
    format!("wh:probe:{subscriber}")
}

/// And here, by a script: a channel of the form of a job's, so that a right that is missing for those is missing for this.
/// No tenant's id begins with `@`.
pub fn resource_probe_channel(subscriber: &str) -> String {
    format!("@probe:job:{subscriber}")
}

/// By which a gateway's subscriber hears [`resource_probe_channel`], as it hears a whole tenant by [`tenant_pattern`]. The
/// same for all: Redis compares a pattern letter by letter with those that an ACL names, so that one with a subscriber's
/// own name in it could be permitted only together with every other channel.
pub const RESOURCE_PROBE_PATTERN: &str = "@probe:job:*";

#[cfg(test)]
#[path = "keys_tests.rs"]
mod tests;
