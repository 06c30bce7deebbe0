//! What happens when, all of it from one seed: nothing else in these tests is left to chance, except what the
//! machine and the processes themselves make of it.

use std::collections::BTreeMap;
use std::time::Duration;

use fastrand::Rng;
use wheelhouse::domain::Action;

use crate::faults;
use crate::history::{Nature, Subject};
pub use crate::support::proxy::Line;

pub const TENANT: &str = "acme";
/// Instead of a resource: the tenant-wide socket.
pub const WHOLE: &str = "tenant";
/// The user who holds [`COMES_AND_GOES`] at times.
pub const WAVERING: &str = "wavering";
pub const COMES_AND_GOES: &str = "jobs.*";
pub const GATEWAYS: usize = 2;
pub const WORKERS: usize = 3;
/// How many of the resources are jobs.
const JOBS: usize = 11;
/// The foreign jobs of each session. One job was delivered to both: whoever has it keeps the other waiting.
pub const SESSIONS: [&[&str]; 2] = [&["foreign0", "foreign1"], &["foreign1", "foreign2"]];
/// Cancels are rare before this share of the load, so that there is something to pause for most of the time.
const CANCELS_FROM: f64 = 0.7;

#[derive(Debug, Clone)]
pub struct Plan {
    pub seed: u64,
    /// How long clients issue commands and faults happen.
    pub load: Duration,
    pub database: Database,
    pub topology: Topology,
    /// `redis.replicas_to_wait`, where there are replicas, and `redis.fsyncs_to_wait`, where there is a disk that is lost.
    pub copies_to_wait: u32,
    /// `redis.published_channels` and `redis.heard_channels` are `sharded`.
    pub sharded_channels: bool,
    pub subjects: Vec<Subject>,
    pub rights: BTreeMap<String, Vec<String>>,
    pub clients: Vec<Client>,
    /// By time.
    pub faults: Vec<(Duration, Act)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Database {
    Sqlite,
    Postgres,
}

/// What kind of Redis there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topology {
    /// One server.
    Single,
    /// A master with two replicas, of which each command waits for one, and three sentinels.
    Sentinel,
    /// Three masters, each with a replica that each command waits for.
    Cluster,
    /// One server with a disk that is written once a second, of which each command waits for that. Its machine loses its power.
    Disk,
}

impl Topology {
    /// By its name in `CHAOS_TOPOLOGY`.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "single" => Some(Self::Single),
            "sentinel" => Some(Self::Sentinel),
            "cluster" => Some(Self::Cluster),
            "disk" => Some(Self::Disk),
            _ => None,
        }
    }
}

/// One client: a socket on one resource, opened again whenever it is lost.
#[derive(Debug, Clone)]
pub struct Client {
    pub name: String,
    pub user: String,
    /// `job:j1`, or [`WHOLE`]
    pub resource: String,
    pub gateway: usize,
    /// Whether its connection goes through the proxy, which cuts it now and then.
    pub through_proxy: bool,
    /// Ids of the jobs that its batches choose from.
    pub jobs: Vec<String>,
    pub steps: Vec<Step>,
}

#[derive(Debug, Clone)]
pub struct Step {
    /// Since the start; later if the step before has no answer yet.
    pub at: Duration,
    pub operation: Operation,
}

/// What a client does. A new kind of command is a new variant, and a line each in [`operation`] and in the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// A command. `insist`: also after `unavailable` the same request is sent again.
    Command { action: Action, insist: bool, way: Way },
    /// A command that is to run so many seconds later.
    Later { action: Action, seconds: u8, insist: bool },
    /// The command scheduled last is taken back.
    Withdraw { insist: bool },
    /// One action on several of the jobs: those whose bits are set.
    Batch { action: Action, jobs: u16, insist: bool, way: Way },
    /// The request before once more: answered with the first answer.
    Repeat,
    /// The `request_id` before with another command: a conflict, or refused as the first was.
    Conflict,
    /// A message that no gateway knows.
    Nonsense,
}

/// How a request gets to a gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Socket,
    Http,
    /// Over HTTP, and the answer may wait for the results.
    Waiting,
}

/// Something broken or mended. Each is safe at any time: what is broken already stays so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// SIGKILL.
    Kill(Process),
    /// Started again.
    Start(Process),
    /// SIGSTOP.
    Stop(Process),
    /// SIGCONT.
    Continue(Process),
    /// What lies between this process and Redis.
    ToRedis(Process, Line),
    /// What lies between this process and PostgreSQL; SQLite is a file.
    ToSql(Process, Line),
    /// What lies between clients and this gateway.
    ToGateway(usize, Line),
    /// What lies between foreign sessions and this worker.
    ToListener(usize, Line),
    /// SIGKILL to redis-server, the master where there are several.
    RedisDown(Whose),
    /// Started from its append-only file.
    RedisUp,
    /// SIGSTOP to redis-server.
    RedisHangs(Whose),
    /// SIGCONT to redis-server.
    RedisGoesOn,
    /// Sentinels, replicas and other nodes do not reach the master any more, and programs do.
    SplitBrain(Whose),
    /// They reach each other again.
    SplitEnds,
    /// The sentinels, or its replica, are told to make another server the master.
    Switch(Whose),
    /// SIGKILL to a master of a cluster and its replica.
    ShardDown(Whose),
    /// The slot of the tenant moves to another master of the cluster, while it is in use.
    MoveSlot,
    /// SIGKILL to redis-server, and its append-only file keeps what the disk has confirmed; where there is a disk.
    PowerLoss,
    /// The disk confirms nothing.
    DiskStalls,
    DiskGoesOn,
    /// Nobody can write to SQL.
    LockSql,
    UnlockSql,
    /// PostgreSQL ends all connections; SQLite has none to end.
    EndSqlConnections,
    /// [`WAVERING`] has its right, or has it no more.
    Rights {
        held: bool,
    },
}

/// Which master of a cluster. Where there is one, it is that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// The one that has the test's tenant.
    Tenants,
    /// Another.
    Others,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Process {
    Gateway(usize),
    Worker(usize),
    /// `wheelhouse run`, by its place among the attached jobs.
    Run(usize),
}

impl Plan {
    pub fn new(seed: u64, load: Duration, topology: Topology) -> Self {
        let mut rng = Rng::with_seed(seed);
        let (subjects, rights) = (subjects(), rights());
        let database = if seed.is_multiple_of(2) { Database::Sqlite } else { Database::Postgres };
        Self {
            seed,
            load,
            database,
            topology,
            copies_to_wait: 1,
            sharded_channels: false,
            clients: clients(&mut rng, load, &subjects, topology),
            faults: faults::draw(&mut rng, load, database, topology),
            subjects,
            rights,
        }
    }

    /// Names of the attached jobs: `wheelhouse run` is started for each.
    pub fn attached(&self) -> impl Iterator<Item = &str> {
        let attached = self.subjects.iter().filter(|subject| subject.nature == Nature::Attached);
        attached.filter_map(|subject| subject.name.strip_prefix("job:"))
    }
}

/// Few enough that commands collide.
fn subjects() -> Vec<Subject> {
    let subject = |name: &str, nature, campaign: Option<&str>, status: &str| Subject {
        name: name.to_owned(),
        nature,
        campaign: campaign.map(str::to_owned),
        status: status.to_owned(),
    };
    vec![
        subject("job:ext0", Nature::External, None, "running"),
        subject("job:ext1", Nature::External, None, "pending"),
        subject("job:ext2", Nature::External, Some("campaign:c1"), "running"),
        subject("job:queued0", Nature::Queued, None, "pending"),
        subject("job:queued1", Nature::Queued, None, "pending"),
        subject("job:queued2", Nature::Queued, Some("campaign:c0"), "pending"),
        subject("job:run0", Nature::Attached, None, "running"),
        subject("job:run1", Nature::Attached, None, "running"),
        subject("job:foreign0", Nature::Foreign, None, "pending"),
        subject("job:foreign1", Nature::Foreign, None, "pending"),
        subject("job:foreign2", Nature::Foreign, Some("campaign:c1"), "pending"),
        subject("campaign:c0", Nature::Campaign, None, "active"),
        subject("campaign:c1", Nature::Campaign, None, "active"),
    ]
}

const OPERATORS: usize = 12;

fn rights() -> BTreeMap<String, Vec<String>> {
    let all = ["jobs.*", "campaigns.*"];
    let mut rights = BTreeMap::new();
    let mut user = |name: &str, held: &[&str]| {
        rights.insert(name.to_owned(), held.iter().map(|right| (*right).to_owned()).collect());
    };
    for n in 0..OPERATORS {
        user(&format!("operator{n}"), &all);
    }
    user("hasty", &all);
    user("reader", &["jobs.read", "campaigns.read"]);
    user("pauser", &["jobs.read", "campaigns.read", "jobs.pause", "campaigns.pause"]);
    user("watcher", &["jobs.read", "campaigns.read"]);
    user("whole0", &all);
    user("whole1", &all);
    user(WAVERING, &["jobs.read", "campaigns.read", COMES_AND_GOES]);
    rights
}

fn clients(rng: &mut Rng, load: Duration, subjects: &[Subject], topology: Topology) -> Vec<Client> {
    // A command waits for the disk twice, a second each time, and the next one of its resource behind it.
    let slower = if topology == Topology::Disk { 2 } else { 1 };
    let mut clients = Vec::new();
    let ids: Vec<String> =
        subjects.iter().filter_map(|subject| subject.name.strip_prefix("job:")).map(str::to_owned).collect();
    let mut add = |rng: &mut Rng, user: &str, resource: &str, through_proxy: bool, every_ms: Option<(u64, u64)>| {
        let steps =
            every_ms.map_or_else(Vec::new, |(least, most)| steps(rng, load, resource, (slower * least, slower * most)));
        let (name, user, resource) = (format!("{user}-{}", clients.len()), user.to_owned(), resource.to_owned());
        let gateway = rng.usize(..GATEWAYS);
        let jobs = ids.clone();
        clients.push(Client { name, user, resource, gateway, through_proxy, jobs, steps });
    };
    for (n, subject) in subjects.iter().enumerate() {
        // Somebody commands each of them, and somebody watches on a connection that nobody cuts.
        add(rng, &format!("operator{}", n % OPERATORS), &subject.name, true, Some((1_500, 6_000)));
        add(rng, "watcher", &subject.name, false, None);
    }
    let any = |rng: &mut Rng| subjects[rng.usize(..subjects.len())].name.clone();
    for n in subjects.len()..2 * OPERATORS {
        let resource = any(rng);
        add(rng, &format!("operator{}", n % OPERATORS), &resource, true, Some((1_500, 6_000)));
    }
    for (user, every) in [("hasty", (300, 900)), ("reader", (2_000, 6_000)), ("pauser", (1_500, 5_000))] {
        for _ in 0..2 {
            let resource = any(rng);
            add(rng, user, &resource, true, Some(every));
        }
    }
    let jobs: Vec<&Subject> = subjects.iter().filter(|subject| subject.nature != Nature::Campaign).collect();
    for _ in 0..2 {
        let job = jobs[rng.usize(..jobs.len())].name.clone();
        add(rng, WAVERING, &job, true, Some((1_000, 3_000)));
    }
    for user in ["whole0", "whole1"] {
        add(rng, user, WHOLE, true, Some((2_500, 6_000)));
    }
    add(rng, "watcher", WHOLE, false, None);
    clients
}

fn steps(rng: &mut Rng, load: Duration, resource: &str, (least, most): (u64, u64)) -> Vec<Step> {
    let mut at = Duration::from_millis(rng.u64(500..2_000));
    let mut steps = Vec::new();
    while at < load {
        let late = at.as_secs_f64() / load.as_secs_f64() > CANCELS_FROM;
        // A campaign takes its jobs along.
        let cancels = if late { 10 } else { u8::from(resource.starts_with("job:")) };
        let operation = if resource == WHOLE { batch(rng, cancels) } else { operation(rng, cancels) };
        steps.push(Step { at, operation });
        if let Operation::Later { seconds, .. } = operation
            && rng.bool()
        {
            // Some of them just when its time has come.
            let due = u64::from(seconds) * 1_000;
            let after = if rng.bool() { rng.u64(100..due) } else { rng.u64(due - 100..due + 200) };
            at += Duration::from_millis(after);
            steps.push(Step { at, operation: Operation::Withdraw { insist: rng.bool() } });
        }
        // Now and then several in a row, so that commands wait behind each other.
        let pause = if rng.u8(..100) < 25 { rng.u64(0..100) } else { rng.u64(least..most) };
        at += Duration::from_millis(pause);
    }
    steps
}

/// `cancels`: in a hundred.
fn operation(rng: &mut Rng, cancels: u8) -> Operation {
    match rng.u8(..100) {
        n if n < cancels => {
            let later = Operation::Later { action: Action::Cancel, seconds: rng.u8(1..=5), insist: true };
            let now = Operation::Command { action: Action::Cancel, insist: true, way: Way::Socket };
            if rng.u8(..4) == 0 { later } else { now }
        }
        n if n < 68 => {
            let way = if rng.u8(..6) == 0 { Way::Http } else { Way::Socket };
            Operation::Command { action: pause_or_resume(rng), insist: rng.bool(), way }
        }
        n if n < 80 => Operation::Later { action: pause_or_resume(rng), seconds: rng.u8(1..=5), insist: rng.bool() },
        n if n < 90 => Operation::Repeat,
        n if n < 96 => Operation::Conflict,
        _ => Operation::Nonsense,
    }
}

fn pause_or_resume(rng: &mut Rng) -> Action {
    if rng.bool() { Action::Pause } else { Action::Resume }
}

/// What a client on the tenant-wide socket does.
fn batch(rng: &mut Rng, cancels: u8) -> Operation {
    match rng.u8(..100) {
        n if n < 80 => {
            let mut jobs = 0_u16;
            while jobs.count_ones() < 2 {
                jobs = rng.u16(..) & ((1 << JOBS) - 1);
            }
            // One cancels several jobs at once, for good.
            let action = if n < cancels / 2 { Action::Cancel } else { pause_or_resume(rng) };
            let way = [Way::Socket, Way::Socket, Way::Http, Way::Waiting][rng.usize(..4)];
            Operation::Batch { action, jobs, insist: rng.bool(), way }
        }
        n if n < 93 => Operation::Repeat,
        _ => Operation::Conflict,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_is_one_plan_and_another_seed_another() {
        let plan = |seed| format!("{:?}", Plan::new(seed, Duration::from_secs(40), Topology::Single));
        assert_eq!(plan(7), plan(7));
        assert_ne!(plan(7), plan(9));
    }

    #[test]
    fn batches_may_choose_every_job() {
        let jobs = subjects().iter().filter(|subject| subject.nature != Nature::Campaign).count();
        assert_eq!(jobs, JOBS);
    }

    #[test]
    fn every_kind_of_fault_is_in_a_plan_of_a_minute_and_what_breaks_is_mended() {
        for seed in 0..20 {
            let plan = Plan::new(seed, Duration::from_secs(40), Topology::Single);
            let has = |is: fn(&Act) -> bool| plan.faults.iter().any(|(_, act)| is(act));
            assert!(has(|act| matches!(act, Act::Kill(Process::Worker(_)))), "{:?}", plan.faults);
            assert!(has(|act| matches!(act, Act::Kill(Process::Gateway(_)))), "{:?}", plan.faults);
            assert!(has(|act| matches!(act, Act::Stop(Process::Worker(_)))), "{:?}", plan.faults);
            assert!(has(|act| matches!(act, Act::ToRedis(..))), "{:?}", plan.faults);
            assert!(has(|act| matches!(act, Act::ToGateway(..))), "{:?}", plan.faults);
            assert!(has(|act| matches!(act, Act::ToListener(..))), "{:?}", plan.faults);
            assert!(
                has(|act| matches!(act, Act::RedisDown(_))) && has(|act| *act == Act::LockSql),
                "{:?}",
                plan.faults
            );
            let count = |is: fn(&Act) -> bool| plan.faults.iter().filter(|(_, act)| is(act)).count();
            assert_eq!(count(|act| matches!(act, Act::Kill(_))), count(|act| matches!(act, Act::Start(_))));
            assert_eq!(count(|act| matches!(act, Act::Stop(_))), count(|act| matches!(act, Act::Continue(_))));
            assert!(plan.faults.is_sorted_by_key(|(at, _)| *at));
        }
    }
}
