//! A client's socket, as light as it can be: the load generator shares the machine with what it measures.
//!
//! Frames are written with a mask of zeros, which leaves the bytes as they are, so one frame can be made ahead and
//! sent by any number of sockets.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// First size of a socket's read buffer; it grows with what comes.
const BUFFER: usize = 512;
/// Longest message that is read.
const MAX_MESSAGE: usize = 1024 * 1024;

const OPCODE_TEXT: u8 = 1;
const OPCODE_CLOSE: u8 = 8;
const OPCODE_PING: u8 = 9;

/// One open socket.
pub struct Client {
    stream: Arc<TcpStream>,
    buffer: Vec<u8>,
    /// Bytes of the buffer that have been read from the connection.
    filled: usize,
    /// Bytes of the buffer that have been understood.
    used: usize,
}

/// What a server message is about.
#[derive(Debug, PartialEq, Eq)]
pub enum ServerMessage<'a> {
    /// `…_requested`.
    Ack { command: &'a str },
    /// `…_succeeded` or `…_failed`.
    Result { command: &'a str, succeeded: bool },
    /// Progress or a change of state.
    Update,
    /// The first message after `subscribed`.
    Snapshot,
    /// The answer to a ping.
    Pong,
    /// Nothing was done, for this reason.
    Error { code: &'a str },
    /// Anything else.
    Other,
}

impl Client {
    /// Opens a socket on a job and waits until the server has let it in.
    pub async fn open(address: SocketAddr, job: &str, token: &str) -> io::Result<Self> {
        let mut stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let request = format!(
            "GET /api/v1/realtime/ws/jobs/{job} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\n\
             connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
             sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        let mut client = Self { stream: Arc::new(stream), buffer: vec![0; BUFFER], filled: 0, used: 0 };
        let head = loop {
            if let Some(end) = client.buffer[..client.filled].windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            client.fill().await?;
        };
        let answer = &client.buffer[..head];
        if !answer.starts_with(b"HTTP/1.1 101") {
            let line = answer.split(|byte| *byte == b'\r').next().unwrap_or_default();
            return Err(io::Error::other(format!("the gateway answered {}", String::from_utf8_lossy(line))));
        }
        client.used = head;
        Ok(client)
    }

    /// The connection, for whoever sends at its own times.
    pub fn sender(&self) -> Arc<TcpStream> {
        self.stream.clone()
    }

    /// Sends frames made by [`frame`].
    pub async fn send(&self, bytes: &[u8]) -> io::Result<()> {
        let mut sent = 0;
        while sent < bytes.len() {
            match self.stream.try_write(&bytes[sent..]) {
                Ok(n) => sent += n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.stream.writable().await?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The next text message: its place, for [`Self::text`]. Pings are answered. Can be given up at any point.
    pub async fn next(&mut self) -> io::Result<Range<usize>> {
        loop {
            match self.take()? {
                Some((OPCODE_TEXT, range)) => return Ok(range),
                Some((OPCODE_PING, range)) => {
                    let mut pong = vec![0x8a, 0x80 | range.len() as u8, 0, 0, 0, 0];
                    pong.extend_from_slice(&self.buffer[range]);
                    self.send(&pong).await?;
                }
                Some((OPCODE_CLOSE, range)) => {
                    let code = self.buffer[range].first_chunk().map_or(1005, |code| u16::from_be_bytes(*code));
                    return Err(io::Error::new(ErrorKind::ConnectionAborted, format!("closed with {code}")));
                }
                Some(_) => {}
                None => self.fill().await?,
            }
        }
    }

    /// The message at this place; good until the next one is read.
    pub fn text(&self, range: Range<usize>) -> &str {
        std::str::from_utf8(&self.buffer[range]).unwrap_or_default()
    }

    /// Takes one whole frame out of the buffer, if one is there: its kind and the place of its payload.
    fn take(&mut self) -> io::Result<Option<(u8, Range<usize>)>> {
        let bytes = &self.buffer[self.used..self.filled];
        let [first, second, rest @ ..] = bytes else { return Ok(None) };
        let (head, length) = match (second & 0x7f, rest) {
            (126, [a, b, ..]) => (4, usize::from(u16::from_be_bytes([*a, *b]))),
            (127, _) => match rest.first_chunk() {
                Some(length) => (10, usize::try_from(u64::from_be_bytes(*length)).unwrap_or(usize::MAX)),
                None => return Ok(None),
            },
            (126, _) => return Ok(None),
            (length, _) => (2, usize::from(length)),
        };
        if length > MAX_MESSAGE {
            return Err(io::Error::other("a message that is too long"));
        }
        let range = self.used + head..self.used + head + length;
        if range.end > self.filled {
            return Ok(None);
        }
        let kind = first & 0x0f;
        self.used = range.end;
        Ok(Some((kind, range)))
    }

    /// Reads more from the connection.
    async fn fill(&mut self) -> io::Result<()> {
        if self.used > 0 {
            self.buffer.copy_within(self.used..self.filled, 0);
            self.filled -= self.used;
            self.used = 0;
        }
        if self.filled == self.buffer.len() {
            self.buffer.resize(self.buffer.len() * 2, 0);
        }
        loop {
            match self.stream.try_read(&mut self.buffer[self.filled..]) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(n) => {
                    self.filled += n;
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.stream.readable().await?,
                Err(error) => return Err(error),
            }
        }
    }
}

/// A text frame as a client sends it.
pub fn frame(text: &str) -> Vec<u8> {
    let mut bytes = vec![0x80 | OPCODE_TEXT];
    match u8::try_from(text.len()) {
        Ok(length) if length < 126 => bytes.push(0x80 | length),
        _ => {
            bytes.push(0x80 | 126);
            bytes.extend(u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes());
        }
    }
    bytes.extend([0; 4]);
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

/// Reads just enough of a message: its type stands first.
pub fn parse_message(text: &str) -> ServerMessage<'_> {
    let Some(kind) = field(text, "type") else { return ServerMessage::Other };
    let command = || field(text, "command_id").unwrap_or_default();
    match kind {
        "job_progress" | "job_status" => ServerMessage::Update,
        "job_snapshot" => ServerMessage::Snapshot,
        "pong" => ServerMessage::Pong,
        "error" => ServerMessage::Error { code: field(text, "error").unwrap_or_default() },
        _ if kind.ends_with("_requested") => ServerMessage::Ack { command: command() },
        _ if kind.ends_with("_succeeded") => ServerMessage::Result { command: command(), succeeded: true },
        _ if kind.ends_with("_failed") => ServerMessage::Result { command: command(), succeeded: false },
        _ => ServerMessage::Other,
    }
}

/// A text field that needs no unescaping.
pub fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let mut rest = text;
    loop {
        let at = rest.find(name)?;
        rest = &rest[at + name.len()..];
        if let Some(value) = rest.strip_prefix("\":\"") {
            return value.split('"').next();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_told_apart_by_their_type() {
        let ack = r#"{"type":"pause_requested","job_id":"j","tenant_id":"t","command_id":"c-1","workers_online":2}"#;
        assert_eq!(parse_message(ack), ServerMessage::Ack { command: "c-1" });
        let failed = r#"{"type":"pause_failed","command_id":"c","error":"x"}"#;
        assert_eq!(parse_message(failed), ServerMessage::Result { command: "c", succeeded: false });
        let error = r#"{"type":"error","error":"queue_full","message":"m"}"#;
        assert_eq!(parse_message(error), ServerMessage::Error { code: "queue_full" });
        assert_eq!(parse_message(r#"{"type":"job_status","seq":3}"#), ServerMessage::Update);
    }

    #[test]
    fn a_frame_has_its_length_and_an_empty_mask() {
        assert_eq!(frame("ab"), [0x81, 0x82, 0, 0, 0, 0, b'a', b'b']);
        assert_eq!(frame(&"x".repeat(300))[..4], [0x81, 0xfe, 1, 44]);
    }
}
