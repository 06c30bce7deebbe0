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

/// A port that is free now. Another program may take it before it is used: callers try again. It lies below those that
/// the system gives to outgoing connections, so that a server that is killed and started again finds its port free.
pub fn free_port() -> u16 {
    loop {
        let port = fastrand::u16(20_000..32_000);
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
