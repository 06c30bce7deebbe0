//! What the client of a socket says, and what it is answered.

use std::collections::VecDeque;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use super::subject::{Asked, Asker, Subject};
use super::time::TokenTime;
use crate::auth::{AuthError, Caller, Policy, Verifier};
use crate::domain::{CommandId, RequestId};
use crate::gateway::clock::Clock;
use crate::gateway::schedules::Schedules;
use crate::http::Refusal;
use crate::http::close::Close;
use crate::http::flood::Budget;
use crate::protocol::{CommonMessage, ErrorCode, server};
use crate::telemetry::metrics;

/// What was worked on for this socket.
pub(super) enum Finished<D> {
    /// What the subject asked for.
    Asked(D),
    /// The answer to a schedule that was to be taken back.
    Withdrawal(String),
    Refresh(Result<Caller, AuthError>),
}

/// How a session ends.
pub(super) enum End {
    /// The connection is lost.
    Gone,
    /// The client closed it, with this code.
    Left(u16),
    /// The gateway closes it.
    Closed(Close),
}

/// What answers a client beside the subject of its socket.
pub struct Services {
    /// Checks the new token of a `refresh_token`.
    pub verifier: Verifier,
    /// Says whether the new token still allows to watch.
    pub policy: Policy,
    /// Takes scheduled commands back.
    pub schedules: Arc<Schedules>,
    /// By which tokens end.
    pub clock: Arc<Clock>,
}

/// What one client and this gateway say to each other.
pub(super) struct Conversation<'a, S: Subject> {
    services: &'a Services,
    caller: Arc<Caller>,
    pub(super) subject: S,
    address: Box<str>,
    /// Answers to this client alone, sent before anything of the outbox. Nothing is read, and the subject is not asked
    /// for more, while one waits: there are two or three at most, or those to one batch.
    pub(super) answers: VecDeque<Utf8Bytes>,
    /// The command or the token that is being dealt with.
    pub(super) work: Option<BoxFuture<'static, Finished<S::Done>>>,
    budget: Budget,
    token: TokenTime,
}

impl<'a, S: Subject> Conversation<'a, S> {
    /// `greeting`: the first messages. `per_second`: messages that the client may send.
    pub(super) fn new(
        services: &'a Services,
        caller: Arc<Caller>,
        subject: S,
        address: Box<str>,
        greeting: VecDeque<Utf8Bytes>,
        per_second: u32,
    ) -> Self {
        let token = TokenTime::new(&caller, &services.clock);
        let budget = Budget::new(per_second);
        Self { services, caller, subject, address, answers: greeting, work: None, budget, token }
    }
}

impl<S: Subject> Conversation<'_, S> {
    /// Takes one message out of the rate that a client may send; `false`: it sends more.
    pub(super) fn take_budget(&mut self, now: Instant) -> bool {
        self.budget.take(now)
    }

    /// Whose socket it is, by the newest token.
    pub(super) fn caller(&self) -> &Arc<Caller> {
        &self.caller
    }

    /// When the end of the token has to be looked at.
    pub(super) fn token_look(&self) -> Instant {
        self.token.next_look()
    }

    /// Tells the client where its token ends soon.
    pub(super) fn warn_of_expiry(&mut self, now: Instant) {
        let wall_ms = self.services.clock.now_ms();
        if self.token.take_warning(wall_ms, now) {
            let expires_at = self.caller.expires_at;
            let left = expires_at.saturating_sub(wall_ms.div_euclid(1_000)).max(0);
            self.answers.push_back(server::token_expiring(expires_at, left).into());
        }
    }

    /// Whether the token's time is over.
    pub(super) fn is_expired(&self, now: Instant) -> bool {
        self.token.is_over(self.services.clock.now_ms(), now)
    }

    pub(super) fn received(&mut self, message: Message) -> Result<(), End> {
        let text = match message {
            Message::Close(frame) => return Err(End::Left(frame.map_or(1005, |frame| frame.code.into()))),
            Message::Binary(_) => return Err(End::Closed(Close::binary())),
            Message::Text(text) => Some(text),
            // Pings are answered by the library.
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => None,
        };
        if !self.budget.take(Instant::now()) {
            return Err(End::Closed(Close::flood()));
        }
        let Some(text) = text else { return Ok(()) };
        metrics::message_received();
        let asker = Asker { caller: &self.caller, address: &self.address };
        match self.subject.ask(&text, &asker) {
            Ok(Asked::Work(work)) => self.work = Some(work.map(Finished::Asked).boxed()),
            Ok(Asked::Done) => {}
            Ok(Asked::Common(CommonMessage::CancelScheduled { schedule, request_id })) => {
                self.work = Some(self.withdraw(schedule, request_id));
            }
            Ok(Asked::Common(CommonMessage::Ping)) => self.answers.push_back(Utf8Bytes::from_static(server::PONG)),
            Ok(Asked::Common(CommonMessage::RefreshToken(token))) => {
                let verifier = self.services.verifier.clone();
                self.work = Some(Box::pin(async move { Finished::Refresh(verifier.verify(&token).await) }));
            }
            Err(rejection) => self.answers.push_back(Refusal::from(rejection).to_message().into()),
        }
        Ok(())
    }

    fn withdraw(&self, schedule: CommandId, request_id: Option<RequestId>) -> BoxFuture<'static, Finished<S::Done>> {
        let (schedules, caller) = (self.services.schedules.clone(), self.caller.clone());
        let (only, address) = (self.subject.resource().cloned(), self.address.clone());
        Box::pin(async move {
            let taken = schedules.withdraw(&caller, schedule, only.as_ref(), Some(&address)).await;
            let request_id = request_id.as_ref().map(RequestId::as_str);
            Finished::Withdrawal(match taken {
                Ok(taken) => server::withdrawn(taken.action, &taken.resource, schedule, request_id),
                Err(refusal) => refusal.with_request_id(request_id).to_message(),
            })
        })
    }

    pub(super) fn finished(&mut self, finished: Finished<S::Done>) -> Option<Close> {
        match finished {
            Finished::Asked(done) => {
                self.subject.answer(done, &mut self.answers);
                None
            }
            Finished::Withdrawal(message) => {
                self.answers.push_back(message.into());
                None
            }
            Finished::Refresh(Ok(new)) if (&new.user, &new.tenant) == (&self.caller.user, &self.caller.tenant) => {
                self.token = TokenTime::new(&new, &self.services.clock);
                self.answers.push_back(server::token_refreshed(new.expires_at).into());
                self.caller = Arc::new(new);
                (!self.subject.may_stay(&self.services.policy, &self.caller)).then(Close::revoked)
            }
            Finished::Refresh(Ok(_)) => {
                let message = "The token is another user's or tenant's: this socket keeps the one it has";
                self.answers.push_back(server::error(ErrorCode::InvalidMessage, message, None).into());
                None
            }
            Finished::Refresh(Err(error)) => {
                let code = match error {
                    AuthError::Unavailable => ErrorCode::Unavailable,
                    _ => ErrorCode::InvalidMessage,
                };
                self.answers.push_back(server::error(code, &error.to_string(), None).into());
                None
            }
        }
    }
}
