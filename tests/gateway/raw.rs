//! A client by hand: what the usual ones hide, or do not let one do.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::support::socket::PATIENCE;

/// Connects with a receive buffer that holds almost nothing, so that the gateway soon feels how it is read.
pub async fn connect(address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("socket");
    socket.set_recv_buffer_size(4096).expect("buffer");
    socket.connect(address).await.expect("connect")
}

/// The request of a WebSocket.
pub fn upgrade(path_and_query: &str, headers: &str) -> String {
    format!(
        "GET {path_and_query} HTTP/1.1\r\nhost: gateway\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n{headers}\r\n"
    )
}

/// A plain request whose connection may stay open.
pub fn request(method: &str, path_and_query: &str, headers: &str) -> String {
    format!("{method} {path_and_query} HTTP/1.1\r\nhost: gateway\r\ncontent-length: 0\r\n{headers}\r\n")
}

/// Sends bytes and reads one answer with its body; gives the status and the whole text.
pub async fn exchange(stream: &mut TcpStream, bytes: &[u8]) -> (u16, String) {
    stream.write_all(bytes).await.expect("send");
    let reading = async {
        let mut answer = Vec::new();
        loop {
            let text = String::from_utf8_lossy(&answer).into_owned();
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let lower = head.to_ascii_lowercase();
                let length = lower.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
                if body.len() >= length.unwrap_or(0) {
                    return (text[9..12].parse().expect("a status"), text);
                }
            }
            if stream.read_buf(&mut answer).await.expect("read") == 0 {
                return (0, text);
            }
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.expect("an answer in time")
}

/// Opens a WebSocket and reads no further than its 101.
pub async fn open(stream: &mut TcpStream, path_and_query: &str) {
    stream.write_all(upgrade(path_and_query, "").as_bytes()).await.expect("send");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let byte = tokio::time::timeout(PATIENCE, stream.read_u8()).await.expect("an answer in time");
        head.push(byte.expect("read"));
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
}

/// One frame of a server: its opcode and payload. `None`: the connection has ended.
pub async fn frame(stream: &mut (impl AsyncReadExt + Unpin)) -> Option<(u8, Vec<u8>)> {
    let first = stream.read_u8().await.ok()?;
    let length = match stream.read_u8().await.ok()? {
        126 => u64::from(stream.read_u16().await.ok()?),
        127 => stream.read_u64().await.ok()?,
        short => u64::from(short),
    };
    let mut payload = vec![0; usize::try_from(length).ok()?];
    stream.read_exact(&mut payload).await.ok()?;
    Some((first & 0x0f, payload))
}

/// As [`frame`], after all text before it; gives the code of the close.
pub async fn close_code(stream: &mut (impl AsyncReadExt + Unpin)) -> Option<u16> {
    let reading = async {
        loop {
            match frame(stream).await? {
                (8, payload) => return Some(u16::from_be_bytes([*payload.first()?, *payload.get(1)?])),
                _ => continue,
            }
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.expect("an end in time")
}

/// A frame of a client, masked with nothing.
pub fn client_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).ok().filter(|length| *length < 126).expect("a short payload");
    [&[first, 0x80 | length, 0, 0, 0, 0], payload].concat()
}

/// Reads so many bytes at a time, with a pause before each: somebody on a slow line.
pub struct Slowly {
    pub stream: TcpStream,
    pub bytes: usize,
    pub pause: Duration,
}

impl Slowly {
    /// The first frame that is longer than a header of the protocol may be, whole.
    pub async fn long_frame(&mut self) -> Result<Vec<u8>, String> {
        let mut seen: Vec<u8> = Vec::new();
        loop {
            let mut rest = &seen[..];
            while let Some((code, payload)) = frame(&mut rest).await {
                match code {
                    1 if payload.len() > 1_000 => return Ok(payload),
                    8 => return Err(format!("closed: {payload:?}")),
                    _ => {}
                }
            }
            tokio::time::sleep(self.pause).await;
            let mut some = vec![0; self.bytes];
            match self.stream.read(&mut some).await {
                Ok(0) => return Err(format!("the end after {} bytes", seen.len())),
                Ok(read) => seen.extend_from_slice(&some[..read]),
                Err(error) => return Err(format!("{error} after {} bytes", seen.len())),
            }
        }
    }
}
