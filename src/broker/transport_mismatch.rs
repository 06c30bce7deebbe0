//! Whether a server speaks TLS where none is asked for, or the other way round. A connection then fails with words that tell
//! nothing: a server with TLS drops what is no handshake ("connection reset"), and a Redis without TLS waits for the end of the
//! line that a handshake never ends ("timed out").

use std::time::Duration;

use redis::ConnectionAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::discovery::Discovery;

/// Longest time for the question to one server; whoever asks it has failed already.
const TIMEOUT: Duration = Duration::from_millis(1_000);

/// A whole ClientHello of TLS 1.2, without extensions: a server that speaks TLS answers with a handshake or an alert. There is no line
/// break in it, so that a Redis without TLS takes it for the beginning of a command, and carries nothing out.
const CLIENT_HELLO: &[u8] = b"\x16\x03\x01\x00\x39\x01\x00\x00\x35\x03\x03UUUUUUUUUUUUUUUUUUUUUUUUUUUUUUUU\x00\
    \x00\x0e\xc0\x2b\xc0\x2c\xc0\x2f\xc0\x30\x00\x9c\x00\x2f\x00\xff\x01\x00";
/// How the answer of a server that speaks TLS begins: with a handshake or an alert.
const TLS_RECORDS: [u8; 2] = [0x16, 0x15];
/// Redis answers it, whoever asks.
const PING: &[u8] = b"PING\r\n";
/// How its answer begins: with a status or an error.
const REDIS_ANSWERS: [u8; 2] = [b'+', b'-'];

/// What is wrong, and what mends it, where it is this. `None`: it is something else, or cannot be told.
pub(super) async fn explain(discovery: &Discovery) -> Option<String> {
    let asked = discovery.servers().iter().map(async |server| of_server(server.addr()).await);
    futures_util::future::join_all(asked).await.into_iter().flatten().next()
}

async fn of_server(server: &ConnectionAddr) -> Option<String> {
    match server {
        ConnectionAddr::Tcp(host, port) if TLS_RECORDS.contains(&first_byte(host, *port, CLIENT_HELLO).await?) => {
            Some(format!(
                ". {host}:{port} speaks TLS: write rediss:// in redis.url (or rediss+sentinel://, rediss+cluster://), or name the port without TLS"
            ))
        }
        ConnectionAddr::TcpTls { host, port, .. } if REDIS_ANSWERS.contains(&first_byte(host, *port, PING).await?) => {
            Some(format!(
                ". {host}:{port} is a Redis without TLS: name the port of its tls-port in redis.url, or write redis:// there (or redis+sentinel://, redis+cluster://), which is not encrypted"
            ))
        }
        _ => None,
    }
}

/// How the answer of the server begins.
async fn first_byte(host: &str, port: u16, question: &[u8]) -> Option<u8> {
    let asked = async {
        let mut stream = TcpStream::connect((host, port)).await.ok()?;
        stream.write_all(question).await.ok()?;
        let mut answer = [0];
        stream.read_exact(&mut answer).await.ok()?;
        Some(answer[0])
    };
    tokio::time::timeout(TIMEOUT, asked).await.ok().flatten()
}
