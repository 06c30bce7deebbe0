//! One run whose work is in a foreign process: what it was ordered, and what it has confirmed.
//!
//! A command becomes an order, and its success waits for the client's word. Everything that is sent about a run is sent
//! under one lock, so that the client sees it in the order in which it was decided.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use super::link::{Link, LinkState};
use super::saves::{Saves, Taken};
use crate::domain::Progress;
use crate::protocol::worker::{End, EndedHow, Figures, OrderKind, Reached, ReachedState, ToClient, sentence};
use crate::worker::run::active_run::Phase;
use crate::worker::run::control::{ControlOutcome, Controlled};

/// Who orders where no user does.
pub(crate) const WHEELHOUSE: &str = "wheelhouse";
/// Orders of one run have numbers of their own: those of a later run are higher, as the client must ignore older ones.
const ORDERS_PER_RUN: i64 = 1 << 20;
const NO_ANSWER_TO_PAUSE: &str =
    "A pause is answered by `still` or `refused`; of work that has ended by itself, say `end`";
const NO_ANSWER_TO_END: &str =
    "An order to end the work is answered by `ended` when nothing of it is left, or by `refused`";
const REFUSED: &str = "The work could not do this, and did not say why";

/// A run in a foreign process.
pub(crate) struct RemoteRun {
    reference: u64,
    run: i64,
    link: Arc<Link>,
    grace: Duration,
    state: watch::Sender<WorkState>,
    /// The figures as the client has given them.
    figures: Mutex<Progress>,
    saves: Saves,
    phase: OnceLock<watch::Receiver<Phase>>,
}

/// What is known of the work.
#[derive(Debug, Default)]
struct WorkState {
    /// The client has been told that it may begin.
    begun: bool,
    /// On which socket it was told last that the run is its own.
    told_on: Option<u64>,
    /// A cancel came before that: it never begins.
    withdrawn: bool,
    /// The client holds the work, or is to hold it.
    held: bool,
    order: Option<Order>,
    answer: Option<(ReachedState, Option<String>)>,
    end: Option<End>,
    /// Nothing more of this run is sent.
    silent: bool,
}

/// The newest order: it replaces all older ones.
#[derive(Debug)]
struct Order {
    number: i64,
    kind: OrderKind,
    by: String,
    reason: Option<String>,
    issued: Instant,
    kill: bool,
    /// The socket on which the client was told to kill.
    killed_on: Option<u64>,
}

/// What became of an order at once.
enum Issued {
    /// The client has it, or gets it when it is back.
    Waiting,
    /// The work has ended by itself.
    Ended,
    /// The work has not begun, and obeys.
    NotBegun,
}

fn ends(kind: OrderKind) -> bool {
    matches!(kind, OrderKind::Cancel | OrderKind::TimeOut)
}

impl RemoteRun {
    /// `begun`: the client runs it already, in a run that has moved here. `held`: its row is paused.
    pub(crate) fn new(
        reference: u64,
        run: i64,
        link: Arc<Link>,
        grace: Duration,
        figures: Progress,
        begun: bool,
        held: bool,
    ) -> Self {
        let state = WorkState { begun, held, ..WorkState::default() };
        let (state, figures) = (watch::Sender::new(state), Mutex::new(figures));
        Self { reference, run, link, grace, state, figures, saves: Saves::default(), phase: OnceLock::new() }
    }

    /// Once the run is registered: whether it is over.
    pub(crate) fn watch_phase(&self, phase: watch::Receiver<Phase>) {
        let _ = self.phase.set(phase);
    }

    pub(crate) fn reference(&self) -> u64 {
        self.reference
    }

    pub(crate) fn link(&self) -> &Arc<Link> {
        &self.link
    }

    /// Hears of everything that changes.
    pub(crate) fn changes(&self) -> watch::Receiver<impl Sized + use<>> {
        self.state.subscribe()
    }

    fn has_exited(&self) -> bool {
        self.phase.get().is_some_and(|phase| matches!(*phase.borrow(), Phase::Exited(_)))
    }

    /// Tells the client that the job is its own, and on a new socket what it was ordered last. `false`: a cancel came
    /// before the work began.
    pub(crate) fn attached(&self, resume_point: &crate::domain::JsonText) -> bool {
        let mut may_begin = true;
        self.state.send_if_modified(|state| {
            may_begin = !state.withdrawn;
            if !may_begin || state.silent {
                return false;
            }
            state.begun = true;
            let status = if state.held { "paused" } else { "running" };
            let (reference, run) = (self.reference, self.run);
            state.told_on = self.link.send(ToClient::Attached { reference, run, status, resume_point }.text());
            if state.answer.is_none()
                && let Some(order) = &mut state.order
            {
                self.send(order);
            }
            true
        });
        may_begin
    }

    /// The session's socket, where the client has not asked for this run on it: it may not know that it has it.
    pub(crate) fn socket_without_it(&self) -> Option<u64> {
        let LinkState::Connected(socket) = self.link.state() else { return None };
        (self.state.borrow().told_on != Some(socket)).then_some(socket)
    }

    fn send(&self, order: &mut Order) {
        let Order { number, kind, by, reason, kill, .. } = order;
        let (reference, order_number) = (self.reference, *number);
        let text =
            ToClient::Order { reference, order: order_number, kind: *kind, by, reason: reason.as_deref(), kill: *kill }
                .text();
        let sent_on = self.link.send(text);
        if *kill {
            order.killed_on = order.killed_on.or(sent_on);
        }
    }

    /// Says something about this run, if anything may still be said.
    pub(crate) fn say(&self, text: String) {
        self.state.send_if_modified(|state| {
            if !state.silent {
                self.link.send(text);
            }
            false
        });
    }

    /// From now on nothing of this run is sent.
    pub(crate) fn silence(&self) {
        self.state.send_modify(|state| state.silent = true);
    }

    /// The client has answered an order. Answers to older ones do not count any more. `Err`: that is no answer to this one.
    pub(crate) fn reached(&self, reached: Reached) -> Result<(), &'static str> {
        let mut answered = Ok(());
        self.state.send_if_modified(|state| {
            let Some(order) = state.order.as_ref().filter(|order| order.number == reached.order) else { return false };
            answered = match (order.kind, reached.state) {
                (OrderKind::Pause, ReachedState::Ended) => Err(NO_ANSWER_TO_PAUSE),
                (OrderKind::Cancel | OrderKind::TimeOut, ReachedState::Held) => Err(NO_ANSWER_TO_END),
                _ => Ok(()),
            };
            if answered.is_err() {
                return false;
            }
            if reached.state == ReachedState::Refused && order.kind == OrderKind::Pause {
                state.held = false;
            }
            state.answer = Some((reached.state, reached.error));
            true
        });
        answered
    }

    /// The work has ended by itself; the first word counts.
    pub(crate) fn end(&self, end: End) {
        self.state.send_if_modified(|state| {
            let is_first = state.end.is_none();
            if is_first {
                state.end = Some(end);
            }
            is_first
        });
    }

    /// How the work has ended by itself, if it has.
    pub(crate) fn ended(&self) -> Option<End> {
        self.state.borrow().end.clone()
    }

    /// Whether the client has answered that nothing is left of work whose time is up.
    pub(crate) fn has_timed_out(&self) -> Option<Result<(), String>> {
        let state = self.state.borrow();
        state.order.as_ref().filter(|order| order.kind == OrderKind::TimeOut)?;
        if self.is_killed(&state) {
            return Some(Ok(()));
        }
        match state.answer.as_ref()? {
            (ReachedState::Ended, _) => Some(Ok(())),
            (ReachedState::Refused, error) => Some(Err(sentence(error.as_deref(), REFUSED))),
            (ReachedState::Held, _) => None,
        }
    }

    /// The whole of the figures after this message.
    pub(crate) fn figures(&self, new: Figures) -> Progress {
        let mut figures = self.figures.lock();
        // At most 2^53 each: they were checked.
        let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        if let Some(percent) = new.progress_percent {
            figures.progress_percent = percent as u8; // From 0 to 100: the cast only drops the fraction.
        }
        figures.items_total = new.items_total.map(number).or(figures.items_total);
        figures.items_processed = new.items_processed.map_or(figures.items_processed, number);
        figures.items_succeeded = new.items_succeeded.map_or(figures.items_succeeded, number);
        figures.items_failed = new.items_failed.map_or(figures.items_failed, number);
        if let Some(item) = new.current_item {
            figures.current_item = item;
        }
        figures.clone()
    }

    /// Work that has completed and never said how far it is, is through.
    pub(crate) fn completed_figures(&self) -> Progress {
        let mut figures = self.figures.lock();
        figures.progress_percent = 100;
        figures.clone()
    }

    /// A resume point has come, which is kept unless a later one is known. `true`: a task has to be started that stores it.
    pub(crate) fn saves(&self, n: u64, keep: impl FnOnce()) -> bool {
        match self.saves.take(n, keep) {
            Taken::ToBeStored => return true,
            Taken::BeingStored => {}
            // The client has not heard that it is stored.
            Taken::Stored { n } => self.say_saved(n),
        }
        false
    }

    /// The newest resume point that is still to be stored.
    pub(crate) fn next_save(&self) -> Option<u64> {
        self.saves.next()
    }

    /// Every resume point up to this one is stored.
    pub(crate) fn saved(&self, n: u64) {
        self.saves.stored(n);
        self.say_saved(n);
    }

    fn say_saved(&self, n: u64) {
        self.say(ToClient::Saved { reference: self.reference, n }.text());
    }

    /// Gives an order, unless it stands already or one to end does.
    pub(crate) fn order(&self, kind: OrderKind, by: &str, reason: Option<&str>) {
        let _ = self.issue(kind, by, reason);
    }

    fn issue(&self, kind: OrderKind, by: &str, reason: Option<&str>) -> Issued {
        let mut issued = Issued::Waiting;
        self.state.send_if_modified(|state| {
            if state.end.is_some() || state.silent {
                issued = Issued::Ended;
                return false;
            }
            if !state.begun {
                issued = Issued::NotBegun;
                match kind {
                    OrderKind::Pause => state.held = true,
                    OrderKind::Resume => state.held = false,
                    OrderKind::Cancel | OrderKind::TimeOut | OrderKind::Leave => state.withdrawn = true,
                }
                return true;
            }
            if let Some(order) = &state.order {
                let is_refused = matches!(state.answer, Some((ReachedState::Refused, _)));
                let stands = !is_refused && order.kind == kind;
                // Nothing but a cancel replaces an order to end, unless the client could not obey that.
                let outranked = !is_refused && ends(order.kind) && kind != OrderKind::Cancel;
                if stands || outranked {
                    return false;
                }
            }
            if kind == OrderKind::Resume && !state.held {
                return false;
            }
            match kind {
                OrderKind::Pause => state.held = true,
                OrderKind::Resume => state.held = false,
                _ => {}
            }
            let first = (self.run - 1).saturating_mul(ORDERS_PER_RUN).saturating_add(1);
            let mut order = Order {
                number: state.order.as_ref().map_or(first, |order| order.number + 1),
                kind,
                by: by.to_owned(),
                reason: reason.map(str::to_owned),
                issued: Instant::now(),
                kill: false,
                killed_on: None,
            };
            self.send(&mut order);
            (state.order, state.answer) = (Some(order), None);
            true
        });
        issued
    }

    /// When the client is to be told to kill the work, if an order to end it stands unanswered.
    pub(crate) fn kill_at(&self) -> Option<Instant> {
        let state = self.state.borrow();
        let order = state.order.as_ref().filter(|order| ends(order.kind) && !order.kill)?;
        let is_open = !matches!(state.answer, Some((ReachedState::Ended | ReachedState::Refused, _)));
        is_open.then_some(order.issued + self.grace)
    }

    /// Tells the client to kill the work, if that is due.
    pub(crate) fn kill_if_due(&self) {
        if self.kill_at().is_none_or(|at| at > Instant::now()) {
            return;
        }
        self.state.send_modify(|state| {
            if let Some(order) = state.order.as_mut().filter(|order| ends(order.kind) && !order.kill) {
                order.kill = true;
                self.send(order);
            }
        });
    }

    /// The client was told to kill its process, and then its socket closed.
    fn is_killed(&self, state: &WorkState) -> bool {
        let killed_on = state.order.as_ref().and_then(|order| order.killed_on);
        match self.link.state() {
            LinkState::Lost { socket, by_client } | LinkState::Over { socket, by_client } => {
                by_client && killed_on == Some(socket)
            }
            LinkState::Connected(_) => false,
        }
    }

    /// What the order of this kind has led to so far.
    fn outcome(&self, kind: OrderKind) -> Option<ControlOutcome> {
        let state = self.state.borrow();
        if let Some(end) = &state.end {
            let obeyed = kind == OrderKind::Cancel && end.how == EndedHow::Cancelled;
            return Some(if obeyed { ControlOutcome::Done } else { ControlOutcome::EndedItself });
        }
        let order = state.order.as_ref()?;
        if kind == OrderKind::Cancel && self.is_killed(&state) {
            return Some(ControlOutcome::Done);
        }
        if let Some((reached, error)) = state.answer.as_ref().filter(|_| order.kind == kind) {
            match (kind, reached) {
                (_, ReachedState::Refused) => {
                    return Some(ControlOutcome::Refused(sentence(error.as_deref(), REFUSED)));
                }
                (OrderKind::Pause, ReachedState::Held) | (OrderKind::Cancel, ReachedState::Ended) => {
                    return Some(ControlOutcome::Done);
                }
                _ => {}
            }
        }
        // Its run is handed back, and the command is then applied to a row that nobody hosts.
        let is_over = matches!(self.link.state(), LinkState::Over { .. });
        (kind == OrderKind::Cancel && is_over).then_some(ControlOutcome::EndedItself)
    }

    async fn obey(&self, kind: OrderKind, by: &str, reason: Option<&str>) -> ControlOutcome {
        match self.issue(kind, by, reason) {
            Issued::NotBegun => return ControlOutcome::Done,
            Issued::Ended | Issued::Waiting => {}
        }
        let (mut state, mut link) = (self.state.subscribe(), self.link.watch());
        loop {
            state.mark_unchanged();
            link.mark_unchanged();
            if let Some(outcome) = self.outcome(kind) {
                return outcome;
            }
            if self.has_exited() {
                return ControlOutcome::EndedItself;
            }
            let kill_at = self.kill_at();
            let kill = async {
                match kill_at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = state.changed() => {}
                _ = link.changed() => {}
                () = kill => self.kill_if_due(),
            }
        }
    }
}

impl Controlled for RemoteRun {
    fn pause(&self) -> BoxFuture<'_, ControlOutcome> {
        self.pause_by(WHEELHOUSE, None)
    }

    fn resume(&self) -> BoxFuture<'_, ()> {
        self.resume_by(WHEELHOUSE, None)
    }

    fn cancel<'a>(&'a self, by: &'a str, reason: Option<&'a str>) -> BoxFuture<'a, ControlOutcome> {
        Box::pin(async move {
            // The job is another run's: the client is told that, and given no order.
            if self.has_exited() {
                return ControlOutcome::Done;
            }
            self.obey(OrderKind::Cancel, by, reason).await
        })
    }

    fn pause_by<'a>(&'a self, by: &'a str, reason: Option<&'a str>) -> BoxFuture<'a, ControlOutcome> {
        Box::pin(self.obey(OrderKind::Pause, by, reason))
    }

    fn resume_by<'a>(&'a self, by: &'a str, reason: Option<&'a str>) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let _ = self.issue(OrderKind::Resume, by, reason);
        })
    }
}
