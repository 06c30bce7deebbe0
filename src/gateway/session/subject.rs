//! What a socket is about: the part of a session that differs between the sockets of one resource and of a tenant.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use crate::auth::{Caller, Policy};
use crate::domain::{CommandId, Resource};
use crate::protocol::CommonMessage;
use crate::protocol::client::Rejection;

/// What a message of the client asks for.
pub enum Asked<D> {
    /// What every socket takes: the session sees to it.
    Common(CommonMessage),
    /// Work. Nothing is read, and no result sent, until it is done and answered.
    Work(BoxFuture<'static, D>),
    /// It is done already, and the answer on its way through the outbox.
    Done,
}

/// Who asks, and where.
pub struct Asker<'a> {
    /// Who.
    pub caller: &'a Arc<Caller>,
    /// From where.
    pub address: &'a str,
}

/// What a socket is about.
pub trait Subject: Send + 'static {
    /// What the work for a message gives.
    type Done: Send + 'static;

    /// `job`, `campaign` or `tenant`, for metrics.
    fn label(&self) -> &'static str;

    /// For the log.
    fn name(&self) -> String;

    /// The one resource, where it is one.
    fn resource(&self) -> Option<&Resource>;

    /// Reads a message.
    fn ask(&mut self, text: &str, asker: &Asker<'_>) -> Result<Asked<Self::Done>, Rejection>;

    /// Answers a message whose work is done: adds to what is sent to this client alone.
    fn answer(&mut self, done: Self::Done, out: &mut VecDeque<Utf8Bytes>);

    /// Whether a result out of the outbox is told; what it adds to `out` comes right after it.
    fn tells(&mut self, command: CommandId, succeeded: bool, out: &mut VecDeque<Utf8Bytes>) -> bool;

    /// Whether the new token of the caller still allows to watch.
    fn may_stay(&self, policy: &Policy, caller: &Caller) -> bool;

    /// The client is told that messages were missed.
    fn missed(&mut self) {}

    /// What it does beside, whenever nothing waits to be sent; ready when it has added something to `out`.
    fn poll(&mut self, _cx: &mut Context<'_>, _out: &mut VecDeque<Utf8Bytes>) -> Poll<()> {
        Poll::Pending
    }

    /// When [`Self::poll`] wants to be called even if nothing happens.
    fn next_look(&self) -> Option<Instant> {
        None
    }
}
