//! How much memory the requests of one user take of a gateway: a real process, measured by the system.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::support::fleet::{Fleet, Handle, http};
use crate::support::socket::PATIENCE;

/// The most that a gateway may have had in memory at any time, in KiB.
const PEAK_LIMIT: u64 = 256 * 1024;

/// The most that a process has had in memory, in KiB.
fn peak(fleet: &Fleet, gateway: Handle) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", fleet.process(gateway).id())).expect("status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Sends a request and reads no more of its answer than the status. `None`: the connection was closed without one.
async fn unread(address: &str, request: &str) -> Option<(u16, TcpStream)> {
    let socket = TcpSocket::new_v4().expect("socket");
    socket.set_recv_buffer_size(4096).expect("buffer");
    let mut stream = socket.connect(address.parse().expect("address")).await.expect("connect");
    stream.write_all(request.as_bytes()).await.expect("send");
    let mut status = [0; 12];
    let read = tokio::time::timeout(PATIENCE, stream.read_exact(&mut status)).await.expect("an answer in time");
    read.ok()?;
    Some((std::str::from_utf8(&status[9..]).expect("text").parse().expect("a status"), stream))
}

async fn large_jobs(fleet: &Fleet, count: usize) {
    let sql = fleet.sql().await;
    let mut tx = sql.begin().await.expect("begin");
    let contents = format!(r#"{{"rows":"{}"}}"#, "x".repeat(1024 * 1024 - 16));
    for n in 0..count {
        let text = "INSERT INTO jobs (id, tenant_id, job_type, title, status, parameters)
            VALUES ($1, 'acme', 'import', 'by another system', 'running', $2)";
        sqlx::query(text).bind(format!("large-{n}")).bind(&contents).execute(&mut *tx).await.expect("insert");
    }
    tx.commit().await.expect("commit");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_of_large_jobs_that_nobody_reads_take_neither_a_gateway_nor_another_tenant_along() {
    let mut fleet = Fleet::new();
    let gateway = fleet.gateway();
    let address = fleet.process(gateway).address.clone();
    large_jobs(&fleet, 150).await;
    for user in ["eve", "ann"] {
        fleet.permit(user, "jobs.*").await;
    }
    fleet.external_job("globex", "j1").await;
    let (eve, ann) = (fleet.token("eve", "acme"), fleet.token("ann", "globex"));
    let plain = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {eve}\r\n\r\n");
    let socket = |n: usize| {
        let handshake = "upgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\n\
                         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==";
        plain(&format!("/api/v1/realtime/ws/jobs/large-{n}")).replace("\r\n\r\n", &format!("\r\n{handshake}\r\n\r\n"))
    };
    // Somebody else's requests are answered while eve's wait, and while they hold what they have got.
    let bearer = format!("Bearer {ann}");
    let others = || {
        let (status, body) =
            http(&address, "GET", "/api/v1/jobs", &[("authorization", &bearer)], "").unwrap_or_default();
        assert_eq!(status, 200, "{body}; log:\n{}", fleet.log());
    };
    let sockets: Vec<String> = (0..100).map(socket).collect();
    let lists = (0..100).flat_map(|n| {
        [
            plain("/api/v1/jobs?limit=150&fields=parameters,result"),
            plain("/api/v1/jobs?limit=150"),
            plain(&format!("/api/v1/jobs/large-{n}")),
        ]
    });
    for requests in [sockets, lists.collect()] {
        let asked: Vec<_> = requests
            .into_iter()
            .map(|request| {
                let address = address.clone();
                tokio::spawn(async move { unread(&address, &request).await })
            })
            .collect();
        others();
        let mut held = Vec::new();
        for asked in asked {
            held.extend(asked.await.expect("no panic"));
        }
        // How many are answered and how many refused is up to the machine; what counts is the memory that they take.
        let count = |of: &[u16]| held.iter().filter(|(status, _)| of.contains(status)).count();
        let (answered, refused) = (count(&[200, 101]), count(&[429, 503]));
        let statuses: Vec<u16> = held.iter().map(|(status, _)| *status).collect();
        assert!(answered > 0 && answered + refused == held.len(), "{statuses:?}");
        others();
    }
    let peak = peak(&fleet, gateway);
    println!("at most {} MiB", peak / 1024);
    assert!(peak <= PEAK_LIMIT, "{peak} KiB; log:\n{}", fleet.log());
    // What nobody holds any more is there for the next.
    let path = "/api/v1/jobs?limit=1&fields=parameters";
    let bearer = format!("Bearer {eve}");
    for _ in 0..200 {
        if http(&address, "GET", path, &[("authorization", &bearer)], "").is_some_and(|(status, _)| status == 200) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the memory never came back");
}
