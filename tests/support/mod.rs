//! What the black-box tests share: real servers on free ports, gone when the test ends.
#![allow(dead_code)]

pub mod api;
pub mod base;
pub mod browser;
pub mod clock;
pub mod cluster;
pub mod disk;
pub mod fleet;
pub mod foreign;
pub mod former;
pub mod postgres;
pub mod preload;
pub mod proxy;
pub mod redis;
pub mod roles;
pub mod schema;
pub mod sentinels;
pub mod socket;
pub mod tls;
pub mod tokens;
pub mod watchdog;

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

/// A port that is free now. Another program may take it before it is used: callers try again. No other test of this
/// process gets it, also when nobody listens there for a while. It lies below those that the system gives to outgoing
/// connections, so that a server that is killed and started again finds its port free.
pub fn free_port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let port = fastrand::u16(20_000..32_000);
        if !given.contains(&port) && std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            given.insert(port);
            return port;
        }
    }
}
