//! A body that is read line by line, of any length.

use bytes::{Bytes, BytesMut};

use super::request::{Request, without_byte_order_mark};
use crate::http::Refusal;
use crate::protocol::ErrorCode;

/// Reads the lines of one body.
pub(super) struct LineReader {
    /// What has come of the body and is not read yet: one line and one part of the body at most.
    rest: BytesMut,
    /// In it there is no end of a line up to here.
    seen: usize,
    number: u64,
    max_line: usize,
    has_ended: bool,
}

impl LineReader {
    /// Of a body whose lines have so many bytes at most.
    pub(super) fn new(max_line: usize) -> Self {
        Self { rest: BytesMut::new(), seen: 0, number: 0, max_line, has_ended: false }
    }

    /// The number of the line that was read last, or that could not be read.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// The next line that is not empty.
    pub(super) async fn next(&mut self, request: &mut Request) -> Result<Option<Bytes>, Refusal> {
        loop {
            let end = self.rest[self.seen..].iter().position(|byte| *byte == b'\n').map(|at| self.seen + at + 1);
            let length = match end {
                Some(end) => end,
                None if self.has_ended && self.rest.is_empty() => return Ok(None),
                None if self.has_ended => self.rest.len(),
                None => {
                    self.seen = self.rest.len();
                    if self.seen > self.max_line {
                        self.number += 1;
                        return Err(self.too_long());
                    }
                    match request.next_part().await? {
                        Some(part) => self.rest.extend_from_slice(&part),
                        None => self.has_ended = true,
                    }
                    continue;
                }
            };
            let mut line = self.rest.split_to(length).freeze();
            self.seen = 0;
            self.number += 1;
            if self.number == 1 {
                line = without_byte_order_mark(line);
            }
            if line.len() > self.max_line {
                return Err(self.too_long());
            }
            if !line.trim_ascii().is_empty() {
                return Ok(Some(line));
            }
        }
    }

    fn too_long(&self) -> Refusal {
        Refusal::new(ErrorCode::TooLarge, format!("A line may have {} bytes at most", self.max_line))
    }
}
