//! What the black-box tests share: real servers on free ports, gone when the test ends.
#![allow(dead_code)]

pub mod api;
pub mod base;
pub mod browser;
pub mod cluster;
pub mod fleet;
pub mod postgres;
pub mod redis;
pub mod socket;
pub mod tls;
pub mod watchdog;

/// A port that is free now. Another program may take it before it is used: callers try again.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind(("127.0.0.1", 0)).expect("bind a free port").local_addr().expect("address").port()
}
