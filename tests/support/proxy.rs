//! A line between two programs that can be held up, emptied and cut.

use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What a proxy does with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    Pass,
    /// Bytes wait, and arrive late.
    Hold,
    /// Bytes vanish, and nobody is told; the connection ends with this state.
    Swallow,
    /// Connections end, and none is made.
    Cut,
}

/// Where servers come from, when they connect to each other (`bind-source-addr`): so a proxy knows them from programs.
pub const SERVERS: &str = "127.0.0.2";

/// A listener that passes everything on to one address of this machine; gone with all its connections when dropped.
pub struct Proxy {
    port: u16,
    line: Arc<watch::Sender<Line>>,
    /// For those who come from [`SERVERS`].
    line_of_servers: Arc<watch::Sender<Line>>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    /// To this port of 127.0.0.1.
    pub async fn to(target: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("bind a free port");
        let port = listener.local_addr().expect("address").port();
        let line = Arc::new(watch::Sender::new(Line::Pass));
        let line_of_servers = Arc::new(watch::Sender::new(Line::Pass));
        let mut tasks = JoinSet::new();
        tasks.spawn(listen(listener, target, line.clone(), line_of_servers.clone()));
        Self { port, line, line_of_servers, _tasks: tasks }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn set(&self, line: Line) {
        self.line.send_replace(line);
    }

    /// For those who come from [`SERVERS`] alone.
    pub fn set_for_servers(&self, line: Line) {
        self.line_of_servers.send_replace(line);
    }
}

async fn listen(
    listener: TcpListener,
    target: u16,
    programs: Arc<watch::Sender<Line>>,
    servers: Arc<watch::Sender<Line>>,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((near, from)) = accepted else { continue };
                let line = if from.ip().to_string() == SERVERS { &servers } else { &programs };
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
