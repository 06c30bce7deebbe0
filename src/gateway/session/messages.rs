//! What the client of a socket says, and what it is answered.

use std::collections::VecDeque;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use super::channel::{Channel, RequestContext, RequestOutcome};
use super::time::TokenExpiry;
use crate::auth::{AuthError, Caller, Policy, Verifier};
use crate::domain::{CommandId, RequestId};
use crate::gateway::clock::Clock;
use crate::gateway::memory::MemoryShare;
use crate::gateway::schedules::Schedules;
use crate::http::Refusal;
use crate::http::close::Close;
use crate::http::flood::Budget;
use crate::protocol::{CommonMessage, ErrorCode, server};
use crate::telemetry::metrics;

/// What was worked on for this socket.
pub(super) enum FinishedRequest<D> {
    /// What the channel asked for.
    RequestOutcome(D),
    /// The answer to a schedule that was to be taken back.
    Withdrawal(String),
    Refresh(Result<Caller, AuthError>),
}

/// How a session ends.
pub(super) enum SessionEnd {
    /// The connection is lost.
    Gone,
    /// The client closed it, with this code.
    Left(u16),
    /// The gateway closes it.
    Closed(Close),
}

/// What answers a client beside the channel of its socket.
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
pub(super) struct Conversation<'a, S: Channel> {
    services: &'a Services,
    caller: Arc<Caller>,
    pub(super) channel: S,
    address: Box<str>,
    /// Answers to this client alone, sent before anything of the outbox. Nothing is read, and the channel is not asked
    /// for more, while one waits: there are two or three at most, or those to one batch.
    pub(super) answers: VecDeque<Utf8Bytes>,
    /// Held for long ones among them, until all are on their way.
    pub(super) memory: Option<MemoryShare>,
    /// The command or the token that is being dealt with.
    pub(super) work: Option<BoxFuture<'static, FinishedRequest<S::Done>>>,
    budget: Budget,
    token: TokenExpiry,
}

impl<'a, S: Channel> Conversation<'a, S> {
    /// `greeting`: the first messages, and what is held for them. `per_second`: messages that the client may send.
    pub(super) fn new(
        services: &'a Services,
        caller: Arc<Caller>,
        channel: S,
        address: Box<str>,
        (answers, memory): (VecDeque<Utf8Bytes>, Option<MemoryShare>),
        per_second: u32,
    ) -> Self {
        let token = TokenExpiry::new(&caller, &services.clock);
        let budget = Budget::new(per_second);
        Self { services, caller, channel, address, answers, memory, work: None, budget, token }
    }
}

impl<S: Channel> Conversation<'_, S> {
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
        self.token.next_poll()
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

    pub(super) fn received(&mut self, message: Message) -> Result<(), SessionEnd> {
        let text = match message {
            Message::Close(frame) => return Err(SessionEnd::Left(frame.map_or(1005, |frame| frame.code.into()))),
            Message::Binary(_) => return Err(SessionEnd::Closed(Close::binary())),
            Message::Text(text) => Some(text),
            // Pings are answered by the library.
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => None,
        };
        if !self.budget.take(Instant::now()) {
            return Err(SessionEnd::Closed(Close::flood()));
        }
        let Some(text) = text else { return Ok(()) };
        metrics::message_received();
        let context = RequestContext { caller: &self.caller, address: &self.address };
        match self.channel.handle_request(&text, &context) {
            Ok(RequestOutcome::Work(work)) => self.work = Some(work.map(FinishedRequest::RequestOutcome).boxed()),
            Ok(RequestOutcome::Done) => {}
            Ok(RequestOutcome::Common(CommonMessage::CancelScheduled { schedule, request_id })) => {
                self.work = Some(self.withdraw(schedule, request_id));
            }
            Ok(RequestOutcome::Common(CommonMessage::Ping)) => {
                self.answers.push_back(Utf8Bytes::from_static(server::PONG))
            }
            Ok(RequestOutcome::Common(CommonMessage::RefreshToken(token))) => {
                let verifier = self.services.verifier.clone();
                self.work = Some(Box::pin(async move { FinishedRequest::Refresh(verifier.verify(&token).await) }));
            }
            Err(rejection) => self.answers.push_back(Refusal::from(rejection).to_message().into()),
        }
        Ok(())
    }

    fn withdraw(
        &self,
        schedule: CommandId,
        request_id: Option<RequestId>,
    ) -> BoxFuture<'static, FinishedRequest<S::Done>> {
        let (schedules, caller) = (self.services.schedules.clone(), self.caller.clone());
        let (only, address) = (self.channel.resource().cloned(), self.address.clone());
        Box::pin(async move {
            let taken = schedules.withdraw(&caller, schedule, only.as_ref(), Some(&address)).await;
            let request_id = request_id.as_ref().map(RequestId::as_str);
            FinishedRequest::Withdrawal(match taken {
                Ok(taken) => server::withdrawn(taken.action, &taken.resource, schedule, request_id),
                Err(refusal) => refusal.with_request_id(request_id).to_message(),
            })
        })
    }

    pub(super) fn finished(&mut self, finished: FinishedRequest<S::Done>) -> Option<Close> {
        match finished {
            FinishedRequest::RequestOutcome(done) => {
                let memory = self.channel.answer(done, &mut self.answers);
                self.memory = memory.or(self.memory.take());
                None
            }
            FinishedRequest::Withdrawal(message) => {
                self.answers.push_back(message.into());
                None
            }
            FinishedRequest::Refresh(Ok(new))
                if (&new.user, &new.tenant) == (&self.caller.user, &self.caller.tenant) =>
            {
                self.token = TokenExpiry::new(&new, &self.services.clock);
                self.answers.push_back(server::token_refreshed(new.expires_at).into());
                self.caller = Arc::new(new);
                (!self.channel.still_permitted(&self.services.policy, &self.caller)).then(Close::revoked)
            }
            FinishedRequest::Refresh(Ok(_)) => {
                let message = "The token is another user's or tenant's: this socket keeps the one it has";
                self.answers.push_back(server::error(ErrorCode::InvalidMessage, message, None).into());
                None
            }
            FinishedRequest::Refresh(Err(error)) => {
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
