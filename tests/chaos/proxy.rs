//! A line between two programs that can be held up, emptied and cut.

use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::plan::Line;

/// A listener that passes everything on to one address of this machine; gone with all its connections when dropped.
pub struct Proxy {
    port: u16,
    line: Arc<watch::Sender<Line>>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    /// To this port of 127.0.0.1.
    pub async fn to(target: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("bind a free port");
        let port = listener.local_addr().expect("address").port();
        let line = Arc::new(watch::Sender::new(Line::Pass));
        let mut tasks = JoinSet::new();
        tasks.spawn(listen(listener, target, line.clone()));
        Self { port, line, _tasks: tasks }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn set(&self, line: Line) {
        self.line.send_replace(line);
    }
}

async fn listen(listener: TcpListener, target: u16, line: Arc<watch::Sender<Line>>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((near, _)) = accepted else { continue };
                if *line.borrow() != Line::Cut {
                    connections.spawn(connection(near, target, line.subscribe()));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(near: TcpStream, target: u16, mut line: watch::Receiver<Line>) {
    let Ok(far) = TcpStream::connect(("127.0.0.1", target)).await else { return };
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
    let (there, back) = (pump(near_in, far_out, line.clone()), pump(far_in, near_out, line.clone()));
    let over = async {
        let mut swallowed = false;
        loop {
            match *line.borrow_and_update() {
                Line::Cut => return,
                Line::Swallow => swallowed = true,
                // Bytes are missing: what comes after them would make no sense.
                Line::Pass | Line::Hold if swallowed => return,
                Line::Pass | Line::Hold => {}
            }
            if line.changed().await.is_err() {
                return;
            }
        }
    };
    // Whichever side ends, both do.
    tokio::select! {
        () = there => {}
        () = back => {}
        () = over => {}
    }
}

async fn pump(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, mut line: watch::Receiver<Line>) {
    let mut buffer = vec![0_u8; 16 * 1024];
    loop {
        let Ok(read @ 1..) = from.read(&mut buffer).await else { return };
        let Ok(state) = line.wait_for(|line| *line != Line::Hold).await.map(|line| *line) else { return };
        if state == Line::Pass && to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

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
}
