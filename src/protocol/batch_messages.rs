//! What a batch is answered with: what became of each resource, and the summary at the end.

use super::error::ErrorCode;
use super::frame::Frame;
use super::outcome::Outcome;
use crate::domain::{Action, CommandId, Control, ResourceId, ResourceKind, TenantId};

/// What every answer to a batch says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchHeader {
    /// Its id.
    pub batch: CommandId,
    /// The tenant whose jobs the batch is about.
    pub tenant: TenantId,
    /// Jobs or campaigns.
    pub kind: ResourceKind,
    /// What to do.
    pub action: Action,
    /// Resources named, or found by the filter.
    pub total: usize,
    /// Those of which no command was made.
    pub refused: usize,
    /// The client's name for it.
    pub request_id: Option<String>,
}

/// One resource of a batch, as the answers show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchItem {
    /// Which one.
    pub id: ResourceId,
    /// What became of it.
    pub state: ItemState,
}

/// What became of one resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ItemState {
    /// A dry run: it would be hit.
    Hit,
    /// Its command was accepted; what it reaches, of a job.
    Accepted(CommandId, Option<Control>),
    /// Its command was carried out; the status it has reached, and what was reached, of a job.
    Succeeded(CommandId, String, Option<Control>),
    /// Its command failed, for this reason.
    Failed(CommandId, String, Option<Control>),
    /// No command was made.
    Refused(ErrorCode, String),
}

impl ItemState {
    /// What became of a resource whose command has its result.
    pub fn ended(
        command: CommandId,
        outcome: &Outcome,
        control: Option<Control>,
        action: Action,
        kind: ResourceKind,
    ) -> Self {
        match outcome {
            Outcome::Succeeded(status) => Self::Succeeded(command, status.clone(), control),
            Outcome::Failed(error) => Self::Failed(command, error.message(action, kind).into_owned(), control),
        }
    }
}

/// How a batch ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BatchCounts {
    /// Commands carried out.
    pub succeeded: usize,
    /// Commands that failed.
    pub failed: usize,
    /// Commands whose result could not be found.
    pub unknown: usize,
}

fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// What a batch is about, and how many of its items are taken.
fn counted(frame: Frame, header: &BatchHeader) -> Frame {
    frame
        .ascii("action", header.action.as_str())
        .ascii("kind", header.kind.as_str())
        .ascii("tenant_id", header.tenant.as_str())
        .number("total", count(header.total))
        .number("accepted", count(header.total - header.refused))
        .number("refused", count(header.refused))
}

/// Accepted: the first answer. Results and the summary follow.
pub fn requested(header: &BatchHeader, workers_online: i64, items: &[BatchItem], more: bool) -> String {
    counted(Frame::new("batch_requested").ascii("batch_id", &header.batch.to_string()), header)
        .number("workers_online", workers_online)
        .raw("items", &to_json(items, header.kind))
        .json("more", &more)
        .request(header.request_id.as_deref())
        .end()
}

/// The answer to a dry run; `cost`: commands of the budget that the real one would use.
pub fn preview(header: &BatchHeader, cost: usize, items: &[BatchItem], more: bool) -> String {
    counted(Frame::new("batch_preview"), header)
        .number("cost", count(cost))
        .raw("items", &to_json(items, header.kind))
        .json("more", &more)
        .request(header.request_id.as_deref())
        .end()
}

/// The last word on a batch. `items`, and whether there were more: over HTTP, where nothing came before it.
pub fn completed(header: &BatchHeader, counts: BatchCounts, items: Option<(&[BatchItem], bool)>) -> String {
    let frame = Frame::new("batch_completed")
        .ascii("batch_id", &header.batch.to_string())
        .ascii("tenant_id", header.tenant.as_str())
        .ascii("action", header.action.as_str())
        .number("total", count(header.total))
        .number("succeeded", count(counts.succeeded))
        .number("failed", count(counts.failed))
        .number("refused", count(header.refused));
    let frame = if counts.unknown > 0 { frame.number("unknown", count(counts.unknown)) } else { frame };
    let frame = match items {
        Some((items, more)) => frame.raw("items", &to_json(items, header.kind)).json("more", &more),
        None => frame,
    };
    frame.request(header.request_id.as_deref()).end()
}

/// Each an object, its fields in this order: the resource, its command, what became of it.
fn to_json(items: &[BatchItem], kind: ResourceKind) -> String {
    let mut text = String::with_capacity(items.len() * 96 + 2);
    for item in items {
        text.push(if text.is_empty() { '[' } else { ',' });
        let frame = Frame::beginning_with(kind.id_field(), item.id.as_str());
        let frame = match &item.state {
            ItemState::Hit => frame,
            ItemState::Accepted(command, control) => frame.ascii("command_id", &command.to_string()).control(*control),
            ItemState::Succeeded(command, status, control) => {
                frame.ascii("command_id", &command.to_string()).text("status", status).control(*control)
            }
            ItemState::Failed(command, error, control) => {
                frame.ascii("command_id", &command.to_string()).text("error", error).control(*control)
            }
            ItemState::Refused(code, message) => frame.ascii("error", code.as_str()).text("message", message),
        };
        text.push_str(&frame.end());
    }
    if text.is_empty() {
        text.push('[');
    }
    text.push(']');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::CommandError;

    fn header() -> BatchHeader {
        BatchHeader {
            batch: "0190f3c8-0000-7000-8000-000000000001".parse().expect("id"),
            tenant: "T".parse().expect("tenant"),
            kind: ResourceKind::Job,
            action: Action::Cancel,
            total: 2,
            refused: 1,
            request_id: Some("r1".to_owned()),
        }
    }

    fn items(first: ItemState) -> Vec<BatchItem> {
        let refused = ItemState::Refused(ErrorCode::NotFound, "No \"b\"".to_owned());
        vec![
            BatchItem { id: "a".parse().expect("id"), state: first },
            BatchItem { id: "b".parse().expect("id"), state: refused },
        ]
    }

    #[test]
    fn the_answers_stand_byte_for_byte_as_documented() {
        let command = header().batch;
        assert_eq!(
            requested(&header(), 3, &items(ItemState::Accepted(command, Some(Control::Live))), false),
            r#"{"type":"batch_requested","batch_id":"0190f3c8-0000-7000-8000-000000000001","action":"cancel","kind":"job","tenant_id":"T","total":2,"accepted":1,"refused":1,"workers_online":3,"items":[{"job_id":"a","command_id":"0190f3c8-0000-7000-8000-000000000001","control":"live"},{"job_id":"b","error":"not_found","message":"No \"b\""}],"more":false,"request_id":"r1"}"#
        );
        assert_eq!(
            preview(&BatchHeader { request_id: None, ..header() }, 1, &items(ItemState::Hit), true),
            r#"{"type":"batch_preview","action":"cancel","kind":"job","tenant_id":"T","total":2,"accepted":1,"refused":1,"cost":1,"items":[{"job_id":"a"},{"job_id":"b","error":"not_found","message":"No \"b\""}],"more":true}"#
        );
        let counts = BatchCounts { succeeded: 1, failed: 0, unknown: 0 };
        assert_eq!(
            completed(&header(), counts, None),
            r#"{"type":"batch_completed","batch_id":"0190f3c8-0000-7000-8000-000000000001","tenant_id":"T","action":"cancel","total":2,"succeeded":1,"failed":0,"refused":1,"request_id":"r1"}"#
        );
        let text = completed(&header(), BatchCounts { unknown: 1, ..BatchCounts::default() }, Some((&[], true)));
        assert!(text.contains(r#""refused":1,"unknown":1,"items":[],"more":true,"#), "{text}");
    }

    #[test]
    fn a_result_says_what_became_of_its_resource() {
        let (command, row) = (header().batch, Some(Control::Row));
        let ended = |outcome| ItemState::ended(command, &outcome, row, Action::Cancel, ResourceKind::Job);
        let done = ended(Outcome::Succeeded("cancelled".to_owned()));
        assert_eq!(done, ItemState::Succeeded(command, "cancelled".to_owned(), row));
        let failed = ended(Outcome::Failed(CommandError::AlreadyEnded));
        assert_eq!(failed, ItemState::Failed(command, "Job not found or already completed".to_owned(), row));
    }
}
