//! The socket of one job or one campaign.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::channel::{Channel, RequestContext, RequestOutcome};
use super::output::OutputFollower;
use crate::auth::{Caller, Policy};
use crate::broker::scripts::submit::Grant;
use crate::domain::{CommandId, Permission, Resource};
use crate::gateway::commands::{AcceptedCommand, CommandSubmitter};
use crate::gateway::hub::Subscription;
use crate::gateway::memory::MemoryShare;
use crate::http::Refusal;
use crate::protocol::client::Rejection;
use crate::protocol::{ClientMessage, CommandRequest, parse};

/// Results given after an ack before the channel told of them, to be told once.
const GIVEN: usize = 32;

/// The socket of one resource.
pub struct ResourceSession {
    resource: Resource,
    /// The place in the fan-out.
    subscription: Subscription,
    given: Vec<CommandId>,
    commands: Arc<CommandSubmitter>,
    /// Of a job whose output the client wants.
    output: Option<OutputFollower>,
}

impl ResourceSession {
    /// For a resource that is subscribed to.
    pub fn new(resource: Resource, subscription: Subscription, commands: Arc<CommandSubmitter>) -> Self {
        Self { resource, subscription, given: Vec::new(), commands, output: None }
    }

    /// With what the job prints.
    pub fn with_output(self, output: Option<OutputFollower>) -> Self {
        Self { output, ..self }
    }
}

impl Channel for ResourceSession {
    type Done = (CommandRequest, Result<AcceptedCommand, Refusal>);

    fn label(&self) -> &'static str {
        self.resource.kind.as_str()
    }

    fn name(&self) -> String {
        self.resource.to_string()
    }

    fn resource(&self) -> Option<&Resource> {
        Some(&self.resource)
    }

    fn handle_request(
        &mut self,
        text: &str,
        context: &RequestContext<'_>,
    ) -> Result<RequestOutcome<Self::Done>, Rejection> {
        let request = match parse(text, self.resource.kind, &self.resource.id)? {
            ClientMessage::Common(common) => return Ok(RequestOutcome::Common(common)),
            ClientMessage::Command(request) => request,
        };
        let (commands, caller) = (self.commands.clone(), context.caller.clone());
        let (resource, address) = (self.resource.clone(), context.address.to_owned());
        Ok(RequestOutcome::Work(Box::pin(async move {
            let answer = commands.submit(&caller, &resource, &request, Some(&address)).await;
            (request, answer)
        })))
    }

    fn answer(&mut self, (request, outcome): Self::Done, out: &mut VecDeque<Utf8Bytes>) -> Option<MemoryShare> {
        let accepted = match outcome {
            Ok(accepted) => accepted,
            Err(refusal) => {
                out.push_back(refusal.to_message().into());
                return None;
            }
        };
        out.push_back(accepted.message(&self.resource, &request).into());
        let command = accepted.command;
        if let Some(result) = accepted.result
            && !self.subscription.was_delivered_here(command)
            && !self.given.contains(&command)
        {
            // It ended before this socket was there to hear of it, or the news is still on its way.
            out.push_back(result.message.into());
            if self.given.len() >= GIVEN {
                self.given.remove(0);
            }
            self.given.push(command);
        }
        None
    }

    fn delivers(&mut self, command: CommandId, _succeeded: bool, _out: &mut VecDeque<Utf8Bytes>) -> bool {
        !self.given.contains(&command)
    }

    fn poll(&mut self, cx: &mut Context<'_>, out: &mut VecDeque<Utf8Bytes>) -> Poll<()> {
        let Some(output) = &mut self.output else { return Poll::Pending };
        output.poll(cx).map(|message| out.push_back(message.into()))
    }

    fn next_poll(&self) -> Option<Instant> {
        self.output.as_ref().and_then(OutputFollower::next_poll)
    }

    fn still_permitted(&self, policy: &Policy, caller: &Caller) -> bool {
        policy.grant(caller, &Permission::read(self.resource.kind)) != Grant::Token(false)
    }
}
