//! What everybody knows at one moment.

use std::collections::{BTreeMap, BTreeSet};

/// Which Redis: the master at the start, or its replica.
pub type Server = usize;
pub const FIRST: Server = 0;
pub const SECOND: Server = 1;

/// The one gateway, and the two workers, by their places in [`State::view`].
pub const GATEWAY: usize = 0;
pub const WORKERS: [usize; 2] = [1, 2];
/// The worker that runs a job.
pub const HOST: usize = 1;

/// Commands are numbered as they are accepted. All of them come by one request: a client that does not know what became
/// of it asks again under the same id.
pub type Command = u8;

/// What guards there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Design {
    /// SQL knows which requests were carried out and which commands have ended, and hosts live by a lease in SQL.
    /// Without it Redis alone knows, as before.
    pub sql_decides: bool,
    /// `redis.replicas_to_wait = 1`: a client is told that its command is accepted, and a worker begins with it, once the
    /// other server has that.
    pub waits_for_replica: bool,
    /// And a result is told, and a line of the trail brought to SQL, once the other server has it.
    pub results_wait: bool,
    /// How often the client asks under the same request id.
    pub tries: u8,
    /// How often a lease ends while its worker still works.
    pub lease_ends: u8,
    pub host: Host,
}

/// What is looked at of the worker that runs a job: apart from commands, since each multiplies the states of the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Host {
    /// Nothing: heartbeats are left out.
    Unwatched,
    /// Its heartbeats; it lives.
    Lives,
    /// It may die.
    MayDie,
}

/// How a command ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum End {
    /// A worker carried it out, or found that its request had been.
    Succeeded,
    /// No worker took it in time.
    Expired,
    /// A worker was told by SQL that it has ended without being carried out.
    Refused,
}

/// One line of the audit trail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Entry {
    Accepted(Command),
    Ended(Command, End),
}

impl Entry {
    pub fn command(self) -> Command {
        match self {
            Self::Accepted(command) | Self::Ended(command, _) => command,
        }
    }

    pub fn is_end(self) -> bool {
        matches!(self, Self::Ended(..))
    }
}

/// Proof that a command was given to one worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Claim {
    pub command: Command,
    pub worker: usize,
    pub fence: u8,
}

/// What one Redis has.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Redis {
    /// The command that the request is, where it knows the request.
    pub request: Option<Command>,
    pub queue: Vec<Command>,
    /// Of the first command in the queue.
    pub lease: Option<Claim>,
    /// The first in the queue was given to a worker at some time: it does not expire any more.
    pub claimed: bool,
    pub fence: u8,
    pub results: BTreeMap<Command, End>,
    /// Entries on their way to SQL.
    pub stream: Vec<Entry>,
    /// The host has been heard lately.
    pub heartbeat: bool,
}

/// What a worker has in its hands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Held {
    pub claim: Claim,
    pub at: Server,
    /// The other server has the claim as well.
    pub replicated: bool,
    /// What SQL said; `None`: it has not been asked.
    pub outcome: Option<End>,
}

/// What SQL has.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Sql {
    /// How often the row was changed by the request: once is right.
    pub effects: u8,
    pub fence: u8,
    /// What became of a command: `applied_commands`.
    pub outcomes: BTreeMap<Command, End>,
    pub trail: Vec<Entry>,
    /// The job that runs in the host was called failed, because its host is dead.
    pub job_failed: bool,
}

/// How far the failover is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Phase {
    /// The second server follows the first.
    Together,
    /// They do not reach each other any more; programs reach both.
    Cut,
    /// The second is the master. The first does not know, and programs that have not heard it stay there.
    Split,
    /// The first follows the second, and has lost what it knew.
    Joined,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct State {
    pub redis: [Redis; 2],
    pub sql: Sql,
    pub phase: Phase,
    /// Which server the gateway and each worker take for the master.
    pub view: [Server; 3],
    /// What each worker has in its hands.
    pub held: [Option<Held>; 3],
    pub host_lives: bool,
    /// How often the client has asked, and which commands it was told are accepted.
    pub asked: u8,
    pub acknowledged: BTreeSet<Command>,
    /// Accepted at a server; their client is told when the other server has them.
    pub unacknowledged: BTreeSet<(Server, Command)>,
    /// Number of the next command.
    pub next: Command,
    /// What sockets were told of a command.
    pub told: BTreeSet<(Command, End)>,
    /// Ended at a server; sockets are told when the other server has that.
    pub untold: BTreeSet<(Server, Command, End)>,
    pub lease_ends: u8,
}

impl State {
    pub fn first() -> Self {
        let redis = Redis { heartbeat: true, ..Redis::default() };
        Self {
            redis: [redis.clone(), redis],
            sql: Sql::default(),
            phase: Phase::Together,
            view: [FIRST; 3],
            held: [None; 3],
            host_lives: true,
            asked: 0,
            acknowledged: BTreeSet::new(),
            unacknowledged: BTreeSet::new(),
            next: 0,
            told: BTreeSet::new(),
            untold: BTreeSet::new(),
            lease_ends: 0,
        }
    }

    /// Whether a server takes writes: one that follows another refuses them.
    pub fn takes_writes(&self, server: Server) -> bool {
        match self.phase {
            Phase::Together | Phase::Cut => server == FIRST,
            Phase::Split => true,
            Phase::Joined => server == SECOND,
        }
    }

    /// Which server gives its data to the other just now.
    pub fn source(&self) -> Option<Server> {
        match self.phase {
            Phase::Together => Some(FIRST),
            Phase::Cut | Phase::Split => None,
            Phase::Joined => Some(SECOND),
        }
    }

    /// Whether the first entry that waits at this server is at the other as well.
    pub fn is_replicated(&self, server: Server) -> bool {
        let first = self.redis[server].stream.first();
        match self.phase {
            Phase::Together => first.is_some_and(|entry| self.redis[SECOND].stream.contains(entry)),
            Phase::Cut | Phase::Split => false,
            Phase::Joined => server == SECOND,
        }
    }

    /// Whether the other server lacks something that somebody waits for, or that it would need as the next master.
    pub fn lags(&self) -> bool {
        self.source().is_some_and(|source| {
            self.phase == Phase::Together && self.redis[FIRST] != self.redis[SECOND]
                || self.held.iter().flatten().any(|held| held.at == source && !held.replicated)
                || self.unacknowledged.iter().any(|(at, _)| *at == source)
                || self.untold.iter().any(|(at, ..)| *at == source)
        })
    }

    pub fn trail_of(&self, command: Command) -> impl Iterator<Item = Entry> + '_ {
        self.sql.trail.iter().copied().filter(move |entry| entry.command() == command)
    }
}
