//! Foreign sessions: each is one process, over any number of sockets, with the jobs that it has here.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Semaphore;

use super::link::{Link, LinkState};
use super::outbox::Outbox;
use super::run::RemoteRun;
use crate::domain::{JobStatus, ResourceId, TenantId};
use crate::protocol::worker::FromClient;
use crate::worker::run::active_run::ActiveRun;

/// Messages about a job that may come before its `attach` is answered.
const MAX_EARLY: usize = 64;
/// And the bytes of all that a session has sent so.
const MAX_EARLY_BYTES: usize = 4 * 1024 * 1024;
/// Questions to SQL about its jobs, at once: fewer than all sessions have together, so that some are left for others.
const MAX_ASKING: usize = 4;
/// Jobs of a session whose ends are remembered, so that an end that is said again is answered.
const MAX_ENDED: usize = 4_096;

/// One foreign process.
pub(crate) struct Session {
    /// The token's name and the client's own id: what the rows of its jobs say.
    pub(crate) key: String,
    /// Its name for people.
    pub(crate) name: String,
    pub(crate) link: Arc<Link>,
    /// Its turns among the questions to SQL.
    pub(crate) asking: Semaphore,
    jobs: Mutex<Jobs>,
    hashes: RandomState,
}

#[derive(Default)]
struct Jobs {
    entries: HashMap<u64, Slot>,
    /// Those that have ended, oldest first.
    ended: VecDeque<u64>,
    /// Bytes of the messages that are kept until their `attach` is answered.
    early_bytes: usize,
}

/// A job of a session, by the client's number.
struct Slot {
    /// Which job it is, as a hash: a number that comes again for another one is a fault of the client.
    job: u64,
    entry: Entry,
}

enum Entry {
    /// SQL is asked for it; what came for it meanwhile.
    Attaching(Early),
    Attached(Attached),
    Ended(JobStatus),
}

/// Messages about a job that came before its `attach` was answered.
#[derive(Default)]
struct Early {
    messages: Vec<FromClient>,
    bytes: usize,
}

/// A job that a session has.
#[derive(Clone)]
pub(crate) struct Attached {
    pub(crate) run: Arc<ActiveRun>,
    pub(crate) work: Arc<RemoteRun>,
}

/// What a message about a job meets.
pub(crate) enum Found {
    /// The session has the job.
    Attached(Attached, Box<FromClient>),
    /// It is kept until `attach` is answered.
    Kept,
    /// Too many are kept already.
    TooEarly,
    /// The job has ended so.
    Ended(JobStatus),
    /// There is no such number.
    Unknown,
}

/// What an `attach` meets.
pub(crate) enum Begun {
    /// SQL is to be asked.
    Ask,
    /// The session has it already.
    Attached(Attached),
    /// The session has had it at another worker since: the run that is here counts no more, and SQL is to be asked.
    MovedAway(Attached),
    /// That is just being found out.
    Attaching,
    /// Its run has ended here.
    Ended(JobStatus),
    /// The number is that of another job.
    AnotherJob,
    /// It has as many jobs as it may.
    TooMany,
}

impl Jobs {
    /// What is kept for a job whose `attach` is answered now.
    fn take_early(&mut self, reference: u64) -> Vec<FromClient> {
        let slot = self.entries.get_mut(&reference);
        let Some(Slot { entry: Entry::Attaching(early), .. }) = slot else { return Vec::new() };
        let early = std::mem::take(early);
        self.early_bytes -= early.bytes;
        early.messages
    }

    /// Gives what stood there before.
    fn change(&mut self, reference: u64, entry: Entry) -> Option<Entry> {
        match self.entries.get_mut(&reference) {
            Some(slot) => Some(std::mem::replace(&mut slot.entry, entry)),
            // Whatever is said of it, it began with an `attach`.
            None => None,
        }
    }

    fn refused(&mut self, reference: u64) {
        self.take_early(reference);
        self.entries.remove(&reference);
    }

    fn ended(&mut self, reference: u64, status: JobStatus) {
        self.take_early(reference);
        if matches!(self.change(reference, Entry::Ended(status)), None | Some(Entry::Ended(_))) {
            return;
        }
        self.ended.push_back(reference);
        if self.ended.len() > MAX_ENDED
            && let Some(oldest) = self.ended.pop_front()
        {
            self.entries.remove(&oldest);
        }
    }
}

impl Session {
    pub(crate) fn new(key: String, name: String) -> Self {
        let asking = Semaphore::new(MAX_ASKING);
        Self { key, name, link: Arc::new(Link::new()), asking, jobs: Mutex::default(), hashes: RandomState::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Jobs> {
        self.jobs.lock()
    }

    /// Notes that an `attach` for this job has come, which names the run that the client has.
    pub(crate) fn begin(
        &self,
        reference: u64,
        job: (&TenantId, &ResourceId),
        client_run: Option<i64>,
        most: usize,
    ) -> Begun {
        let job = self.hashes.hash_one(job);
        let mut jobs = self.lock();
        match jobs.entries.get(&reference).map(|slot| (slot.job, &slot.entry)) {
            Some((known, _)) if known != job => return Begun::AnotherJob,
            Some((_, Entry::Attached(attached))) if client_run > Some(attached.run.run().number) => {
                let former = attached.clone();
                jobs.change(reference, Entry::Attaching(Early::default()));
                return Begun::MovedAway(former);
            }
            Some((_, Entry::Attached(attached))) => return Begun::Attached(attached.clone()),
            Some((_, Entry::Attaching(_))) => return Begun::Attaching,
            Some((_, Entry::Ended(status))) => return Begun::Ended(*status),
            None => {}
        }
        if jobs.entries.len() - jobs.ended.len() >= most {
            return Begun::TooMany;
        }
        jobs.entries.insert(reference, Slot { job, entry: Entry::Attaching(Early::default()) });
        Begun::Ask
    }

    /// The session has the job. Gives what came for it meanwhile.
    pub(crate) fn attached(&self, reference: u64, attached: Attached) -> Vec<FromClient> {
        let mut jobs = self.lock();
        let early = jobs.take_early(reference);
        jobs.change(reference, Entry::Attached(attached));
        early
    }

    /// The session does not get the job.
    pub(crate) fn refused(&self, reference: u64) {
        self.lock().refused(reference);
    }

    /// The job has ended; this is remembered for a while.
    pub(crate) fn ended(&self, reference: u64, status: JobStatus) {
        self.lock().ended(reference, status);
    }

    /// A run that was here is over, with the job's end or without. Of a job that the session has come back with since, in a
    /// later run, that says nothing.
    pub(crate) fn left(&self, reference: u64, run: &Arc<ActiveRun>, ended: Option<JobStatus>) {
        let mut jobs = self.lock();
        let entry = jobs.entries.get(&reference).map(|slot| &slot.entry);
        if !matches!(entry, Some(Entry::Attached(attached)) if Arc::ptr_eq(&attached.run, run)) {
            return;
        }
        match ended {
            Some(status) => jobs.ended(reference, status),
            None => jobs.refused(reference),
        }
    }

    /// What a message about a job meets.
    pub(crate) fn find(&self, reference: u64, message: FromClient, bytes: usize) -> Found {
        let jobs = &mut *self.lock();
        let has_room = jobs.early_bytes + bytes <= MAX_EARLY_BYTES;
        match jobs.entries.get_mut(&reference).map(|slot| &mut slot.entry) {
            Some(Entry::Attached(attached)) => Found::Attached(attached.clone(), Box::new(message)),
            Some(Entry::Attaching(early)) if early.messages.len() < MAX_EARLY && has_room => {
                early.messages.push(message);
                early.bytes += bytes;
                jobs.early_bytes += bytes;
                Found::Kept
            }
            Some(Entry::Attaching(_)) => Found::TooEarly,
            Some(Entry::Ended(status)) => Found::Ended(*status),
            None => Found::Unknown,
        }
    }

    /// The runs that it has here.
    pub(crate) fn runs(&self) -> Vec<Attached> {
        let attached = |slot: &Slot| match &slot.entry {
            Entry::Attached(attached) => Some(attached.clone()),
            _ => None,
        };
        self.lock().entries.values().filter_map(attached).collect()
    }
}

/// All sessions of this worker.
#[derive(Default)]
pub(crate) struct Sessions(Mutex<HashMap<String, Arc<Session>>>);

impl Sessions {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Session>>> {
        self.0.lock()
    }

    /// The session has a socket: a new one, or one that is known and comes back. Gives the socket's number.
    pub(crate) fn connect(&self, key: &str, name: &str, outbox: &Arc<Outbox>) -> (Arc<Session>, u64) {
        let mut sessions = self.lock();
        if let Some(known) = sessions.get(key)
            && let Some(socket) = known.link.connect(outbox.clone())
        {
            return (known.clone(), socket);
        }
        let session = Arc::new(Session::new(key.to_owned(), name.to_owned()));
        let socket = session.link.connect(outbox.clone()).unwrap_or_default();
        sessions.insert(key.to_owned(), session.clone());
        (session, socket)
    }

    /// A session that is over is forgotten, unless it has come back meanwhile.
    pub(crate) fn forget(&self, session: &Arc<Session>) {
        let mut sessions = self.lock();
        let is_over = matches!(session.link.state(), LinkState::Over { .. });
        if is_over && sessions.get(&session.key).is_some_and(|known| Arc::ptr_eq(known, session)) {
            sessions.remove(&session.key);
        }
    }

    pub(crate) fn all(&self) -> Vec<Arc<Session>> {
        self.lock().values().cloned().collect()
    }
}
