//! A line between two programs that can be held up, emptied and cut.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

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

/// What happens to connections from one address.
type Lines = Arc<Mutex<HashMap<IpAddr, watch::Sender<Line>>>>;

/// A listener that passes everything on to one address of this machine; gone with all its connections when dropped.
pub struct Proxy {
    port: u16,
    lines: Lines,
    _tasks: JoinSet<()>,
}

impl Proxy {
    /// To this port of 127.0.0.1.
    pub async fn to(target: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("bind a free port");
        let port = listener.local_addr().expect("address").port();
        let lines = Lines::default();
        let mut tasks = JoinSet::new();
        tasks.spawn(listen(listener, target, lines.clone()));
        Self { port, lines, _tasks: tasks }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// For programs, which come from 127.0.0.1.
    pub fn set(&self, line: Line) {
        self.set_for("127.0.0.1", line);
    }

    /// For those who come from [`SERVERS`] alone.
    pub fn set_for_servers(&self, line: Line) {
        self.set_for(SERVERS, line);
    }

    /// For those who come from this address alone.
    pub fn set_for(&self, from: &str, line: Line) {
        line_from(&self.lines, from.parse().expect("an address")).send_replace(line);
    }
}

fn line_from(lines: &Lines, from: IpAddr) -> watch::Sender<Line> {
    let mut lines = lines.lock().expect("lines");
    lines.entry(from).or_insert_with(|| watch::Sender::new(Line::Pass)).clone()
}

async fn listen(listener: TcpListener, target: u16, lines: Lines) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((near, from)) = accepted else { continue };
                let line = line_from(&lines, from.ip());
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
