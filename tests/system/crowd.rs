//! A gateway with more clients than it has file descriptors.

use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::support::fleet::{Fleet, Handle, http, http_get};
use crate::support::socket::PATIENCE;

/// Holds as many connections open as the gateway takes, and opens a new one for each that it closes, until told to stop.
struct Crowd {
    stop: std::sync::Arc<std::sync::atomic::AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Crowd {
    fn at(address: &str, count: usize) -> Self {
        let address: SocketAddr = address.parse().expect("address");
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let told = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut open: Vec<Option<TcpStream>> = (0..count).map(|_| None).collect();
            while !told.load(std::sync::atomic::Ordering::Relaxed) {
                for place in &mut open {
                    let is_open = place.as_ref().is_some_and(|stream| {
                        stream.peek(&mut [0]).err().is_some_and(|e| e.kind() == std::io::ErrorKind::WouldBlock)
                    });
                    if !is_open {
                        *place = TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok();
                        if let Some(stream) = place {
                            stream.set_nonblocking(true).expect("a socket");
                        }
                    }
                }
                std::thread::sleep(Duration::from_millis(200));
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.stop.store(true, std::sync::atomic::Ordering::Relaxed);
        let _ = self.thread.take().map(std::thread::JoinHandle::join);
    }
}

fn until(what: &str, fleet: &Fleet, mut so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !so() {
        assert!(begun.elapsed() < PATIENCE * 2, "never: {what}; log:\n{}", fleet.log());
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn readiness(fleet: &Fleet, gateway: Handle) -> Option<u16> {
    http_get(&fleet.process(gateway).address, "/readyz").map(|(status, _)| status)
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_take_every_descriptor_do_not_keep_a_gateway_from_redis() {
    let mut fleet = Fleet::new();
    let gateway = fleet.gateway_with_descriptors(200);
    let address = fleet.process(gateway).address.clone();
    let _crowd = Crowd::at(&address, 400);
    // New clients are told so, and health checks are answered all the same.
    until("the gateway says that it is short of descriptors", &fleet, || {
        fleet.log().contains("gateway.descriptors_short")
    });
    until(
        "a refusal in words",
        &fleet,
        || matches!(http(&address, "GET", "/api/v1/jobs", &[], ""), Some((503, body)) if body.contains("no room")),
    );
    until("health in a crowd", &fleet, || http_get(&address, "/healthz").is_some_and(|(status, _)| status == 200));
    assert!(!fleet.log().contains("gateway.accept_failed"), "{}", fleet.log());
    // While they stay, Redis goes and comes: every connection to it has to be made anew.
    fleet.redis.kill();
    until("not ready", &fleet, || readiness(&fleet, gateway) == Some(503));
    fleet.redis.restart();
    until("ready again", &fleet, || readiness(&fleet, gateway) == Some(200));
    assert!(!fleet.log().contains("os error 24"), "out of descriptors: {}", fleet.log());
}
