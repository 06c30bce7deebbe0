//! The PROXY protocol (versions 1 and 2): the header with which a proxy that passes bytes on begins a connection, to
//! say who is at its other end.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use proxy_header::{Error as HeaderError, ParseConfig, ProxyHeader};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Longest header: 16 bytes, and as many as their two bytes of length can say.
const LONGEST: usize = 16 + u16::MAX as usize;
/// Longest wait for it. A proxy sends it as the first thing on a connection.
const WITHIN: Duration = Duration::from_secs(10);

/// Why a connection has no such header.
#[derive(Debug, thiserror::Error)]
pub enum ProxyProtocolError {
    /// It begins otherwise.
    #[error("the connection of a trusted proxy does not begin with a PROXY protocol header")]
    Missing,
    /// It did not come.
    #[error("no PROXY protocol header came within 10 s")]
    Late,
    /// The connection ended.
    #[error("the connection ended before its PROXY protocol header: {0}")]
    Ended(#[from] std::io::Error),
}

/// Reads the header. Gives whom it names, which is nobody where the proxy speaks for itself (a health check), and what
/// came after it.
pub async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<(Option<SocketAddr>, Bytes), ProxyProtocolError> {
    tokio::time::timeout(WITHIN, header(stream)).await.map_err(|_| ProxyProtocolError::Late)?
}

async fn header(stream: &mut (impl AsyncRead + Unpin)) -> Result<(Option<SocketAddr>, Bytes), ProxyProtocolError> {
    let mut bytes = BytesMut::with_capacity(256);
    loop {
        let parsed = ProxyHeader::parse(&bytes, ParseConfig::default())
            .map(|(header, length)| (header.proxied_address().map(|address| address.source), length));
        match parsed {
            Ok((source, length)) => return Ok((source, bytes.split_off(length).freeze())),
            Err(HeaderError::BufferTooShort) if bytes.len() < LONGEST && may_begin(&bytes) => {}
            Err(_) => return Err(ProxyProtocolError::Missing),
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
        }
    }
}

/// Whether a header may begin like this: a request that begins with the same letter (`POST`) is not waited for.
fn may_begin(bytes: &[u8]) -> bool {
    const BEGINNINGS: [&[u8]; 2] = [b"PROXY ", b"\r\n\r\n\0\r\nQUIT\n"];
    BEGINNINGS.iter().any(|whole| {
        let length = whole.len().min(bytes.len());
        bytes[..length] == whole[..length]
    })
}

#[cfg(test)]
mod tests {
    use proxy_header::ProxiedAddress;

    use super::*;

    async fn of(bytes: &[u8]) -> Result<(Option<SocketAddr>, Vec<u8>), ProxyProtocolError> {
        let mut rest = bytes;
        let (source, after) = read(&mut rest).await?;
        let after = [&after[..], rest].concat();
        Ok((source, after))
    }

    #[tokio::test]
    async fn both_versions_name_the_client_and_leave_what_follows() {
        let first = b"PROXY TCP4 192.0.2.43 10.0.0.1 4711 80\r\nGET / HTTP/1.1\r\n";
        let (source, rest) = of(first).await.expect("a header");
        assert_eq!((source.expect("a client").to_string().as_str(), &rest[..]), ("192.0.2.43:4711", &first[40..]));
        let (source, rest) = of(b"PROXY UNKNOWN\r\nGET").await.expect("a header");
        assert_eq!((source, &rest[..]), (None, &b"GET"[..]));
        for (client, here) in [("192.0.2.43:4711", "10.0.0.1:80"), ("[2001:db8::7]:4711", "[fd00::1]:80")] {
            let client: SocketAddr = client.parse().expect("address");
            let proxied = ProxiedAddress::stream(client, here.parse().expect("address"));
            let mut bytes = Vec::new();
            ProxyHeader::with_address(proxied).encode_v2(&mut bytes).expect("encode");
            bytes.extend_from_slice(b"GET");
            assert_eq!(of(&bytes).await.expect("a header"), (Some(client), b"GET".to_vec()));
        }
        let mut local = Vec::new();
        ProxyHeader::with_local().encode_v2(&mut local).expect("encode");
        assert_eq!(of(&local).await.expect("a header"), (None, Vec::new()));
    }

    #[tokio::test]
    async fn what_is_no_header_is_refused_at_once() {
        let long = format!("PROXY TCP4 {}", "1".repeat(200));
        for bytes in ["GET / HTTP/1.1\r\n", "POST /", "PROXY TCP5 a b c d\r\n", "\r\n\r\nGET", long.as_str()] {
            assert!(matches!(of(bytes.as_bytes()).await, Err(ProxyProtocolError::Missing)), "{bytes:?}");
        }
        assert!(matches!(of(b"PROXY TCP4 192.0").await, Err(ProxyProtocolError::Ended(_))));
    }

    proptest::proptest! {
        /// Any bytes, in pieces of any size: an answer and no panic.
        #[test]
        fn any_bytes_are_a_header_or_none(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..120), version in 0..3) {
            let begin: &[u8] = match version { 0 => b"PROXY TCP4 ", 1 => b"\r\n\r\n\0\r\nQUIT\n\x21\x11", _ => b"" };
            let whole = [begin, &bytes[..]].concat();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("runtime");
            let _ = runtime.block_on(of(&whole));
        }
    }
}
