//! What the proxies between processes do is what they say.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::proxy::{Line, Proxy};

/// A proxy to a server that sends everything back, and a connection through it.
async fn echo() -> (Proxy, TcpStream) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("bind");
    let proxy = Proxy::to(listener.local_addr().expect("address").port()).await;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (mut input, mut output) = stream.into_split();
            tokio::spawn(async move { tokio::io::copy(&mut input, &mut output).await });
        }
    });
    let mut client = TcpStream::connect(("127.0.0.1", proxy.port())).await.expect("connect");
    assert_eq!(ask(&mut client, b"1").await, Some(b'1'));
    (proxy, client)
}

/// What comes back; `None` where the connection has ended.
async fn ask(client: &mut TcpStream, byte: &[u8; 1]) -> Option<u8> {
    let _ = client.write_all(byte).await;
    client.read_u8().await.ok()
}

#[tokio::test]
async fn what_is_held_arrives_later_and_what_is_swallowed_never() {
    let (proxy, mut client) = echo().await;
    proxy.set(Line::Hold);
    client.write_all(b"2").await.expect("write");
    let early = tokio::time::timeout(Duration::from_millis(100), client.read_u8()).await;
    assert!(early.is_err(), "{early:?}");
    proxy.set(Line::Pass);
    assert_eq!(client.read_u8().await.ok(), Some(b'2'));
    proxy.set(Line::Swallow);
    client.write_all(b"3").await.expect("write");
    let early = tokio::time::timeout(Duration::from_millis(100), client.read_u8()).await;
    assert!(early.is_err(), "{early:?}");
    proxy.set(Line::Pass);
    assert!(client.read_u8().await.is_err(), "the connection goes with what it lost");
}

#[tokio::test]
async fn a_cut_ends_connections_and_makes_none_until_it_is_mended() {
    let (proxy, mut client) = echo().await;
    proxy.set(Line::Cut);
    assert_eq!(client.read_u8().await.ok(), None);
    let mut refused = TcpStream::connect(("127.0.0.1", proxy.port())).await.expect("the listener is there");
    assert_eq!(ask(&mut refused, b"4").await, None);
    proxy.set(Line::Pass);
    let mut client = TcpStream::connect(("127.0.0.1", proxy.port())).await.expect("connect");
    assert_eq!(ask(&mut client, b"5").await, Some(b'5'));
}
