//! What a socket is about: the part of a session that differs between the sockets of one resource and those of a tenant.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use crate::auth::{Caller, Policy};
use crate::domain::{CommandId, Resource};
use crate::gateway::memory::MemoryShare;
use crate::protocol::CommonMessage;
use crate::protocol::client::Rejection;

/// What comes of a message of the client.
pub enum RequestOutcome<D> {
    /// It is one that every socket takes: the session sees to it.
    Common(CommonMessage),
    /// There is work to do. Nothing is read, and no result is sent, until it is done and answered.
    Work(BoxFuture<'static, D>),
    /// It is done already, and the answer is on its way through the outbox.
    Done,
}

/// On whose behalf a message is handled.
pub struct RequestContext<'a> {
    /// The user, and what the token says of them.
    pub caller: &'a Arc<Caller>,
    /// The address of the client, for the audit trail.
    pub address: &'a str,
}

/// What a socket is about.
pub trait Channel: Send + 'static {
    /// What the work for a message gives.
    type Done: Send + 'static;

    /// `job`, `campaign` or `tenant`, for metrics.
    fn label(&self) -> &'static str;

    /// Its name in the log.
    fn name(&self) -> String;

    /// The one resource that it is about, or `None` for a tenant.
    fn resource(&self) -> Option<&Resource>;

    /// Reads a message of the client.
    fn handle_request(
        &mut self,
        text: &str,
        context: &RequestContext<'_>,
    ) -> Result<RequestOutcome<Self::Done>, Rejection>;

    /// Answers a message whose work is done: adds to what is sent to this client alone. Gives the memory that is held until
    /// that is on its way.
    fn answer(&mut self, done: Self::Done, out: &mut VecDeque<Utf8Bytes>) -> Option<MemoryShare>;

    /// Whether a result out of the outbox is sent to the client; what this adds to `out` comes right after it.
    fn delivers(&mut self, command: CommandId, succeeded: bool, out: &mut VecDeque<Utf8Bytes>) -> bool;

    /// Whether the new token of the caller still allows to watch.
    fn still_permitted(&self, policy: &Policy, caller: &Caller) -> bool;

    /// The client is told that messages were missed.
    fn on_gap(&mut self) {}

    /// Does what is to be done whenever nothing waits to be sent; ready when it has added something to `out`.
    fn poll(&mut self, _cx: &mut Context<'_>, _out: &mut VecDeque<Utf8Bytes>) -> Poll<()> {
        Poll::Pending
    }

    /// When [`Self::poll`] has to be called even if nothing happens.
    fn next_poll(&self) -> Option<Instant> {
        None
    }
}
