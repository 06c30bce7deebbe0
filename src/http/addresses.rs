//! What one address may use of a listener, whoever it belongs to: connections, new connections, requests. These are the
//! limits that hold before anybody has signed in.
//!
//! Whoever has an address of IPv6 has a whole network of them, so the first 64 bits count as one. The address of a trusted
//! proxy is nobody's: behind it the client's counts.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::flood::Budgets;
use super::reply::Refusal;
use crate::config::Limits;
use crate::protocol::ErrorCode;

/// Seconds of the rate that may come at once: programs come back together after a restart.
const BURST_SECONDS: f64 = 10.0;

/// The limits of one process, for all of its listeners; cheap to clone.
#[derive(Clone)]
pub struct AddressLimits(Arc<Shared>);

struct Shared {
    most_connections: u32,
    most_requests: u32,
    connections: Budgets<Holder>,
    requests: Budgets<Holder>,
    /// Only those with an open connection.
    open: Mutex<HashMap<Holder, u32>>,
}

/// Whom an address belongs to, as far as can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Holder {
    V4(Ipv4Addr),
    /// The network.
    V6(u64),
}

impl Holder {
    fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address),
            IpAddr::V6(address) => Self::V6((address.to_bits() >> 64) as u64),
        }
    }
}

/// One open connection of an address; given back when dropped.
pub struct AddressPlace {
    limits: AddressLimits,
    holder: Holder,
}

impl AddressLimits {
    /// As the settings say.
    pub fn new(limits: &Limits) -> Self {
        Self(Arc::new(Shared {
            most_connections: limits.connections_per_address,
            most_requests: limits.requests_per_second_per_address,
            connections: Budgets::over_seconds(limits.new_connections_per_second, BURST_SECONDS),
            requests: Budgets::over_seconds(limits.requests_per_second_per_address, BURST_SECONDS),
            open: Mutex::default(),
        }))
    }

    /// A new connection from this address.
    pub fn connect(&self, address: IpAddr) -> Result<AddressPlace, Refusal> {
        if !self.0.connections.take(Holder::of(address), Instant::now()) {
            let message =
                "Too many new connections come from your address: keep them open, and wait before you open more";
            return Err(too_many(message));
        }
        self.place(address)
    }

    /// A connection from this address that a proxy has passed on: how often it opens new ones is the proxy's affair.
    pub fn place(&self, address: IpAddr) -> Result<AddressPlace, Refusal> {
        let holder = Holder::of(address);
        let mut open = self.0.open.lock();
        let count = open.entry(holder).or_insert(0);
        if *count >= self.0.most_connections {
            return Err(too_many("Too many connections are open from your address: close some and try again"));
        }
        *count += 1;
        Ok(AddressPlace { limits: self.clone(), holder })
    }

    /// A request from this address.
    pub fn request(&self, address: IpAddr) -> Result<(), Refusal> {
        if self.0.requests.take(Holder::of(address), Instant::now()) {
            return Ok(());
        }
        let most = self.0.most_requests;
        let message = format!("Too many requests come from your address: {most} a second are answered here");
        Err(Refusal::new(ErrorCode::RateLimitExceeded, message).with_retry_after(1))
    }
}

impl Drop for AddressPlace {
    fn drop(&mut self) {
        let mut open = self.limits.0.open.lock();
        if let Some(count) = open.get_mut(&self.holder) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.holder);
            }
        }
    }
}

fn too_many(message: &str) -> Refusal {
    Refusal::new(ErrorCode::TooManyConnections, message).with_retry_after(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(connections: u32) -> AddressLimits {
        let mut limits = crate::config::load_from(None, [], Vec::new()).expect("settings").limits;
        limits.connections_per_address = connections;
        limits.new_connections_per_second = 1;
        AddressLimits::new(&limits)
    }

    fn address(text: &str) -> IpAddr {
        text.parse().expect("address")
    }

    #[test]
    fn places_are_counted_for_each_address_and_given_back() {
        let limits = limits(2);
        let held = [limits.place(address("192.0.2.1")), limits.place(address("::ffff:192.0.2.1"))];
        assert!(held.iter().all(Result::is_ok));
        let refusal = limits.place(address("192.0.2.1")).err().expect("refused");
        assert_eq!((refusal.code.as_str(), refusal.retry_after), ("too_many_connections", Some(1)));
        let other = limits.place(address("192.0.2.2")).expect("another address");
        drop((held, other));
        assert!(limits.place(address("192.0.2.1")).is_ok());
        assert!(limits.0.open.lock().is_empty(), "nobody is kept who has nothing open");
    }

    #[test]
    fn a_network_of_ipv6_is_one_holder() {
        let limits = limits(1);
        let _held = limits.place(address("2001:db8:0:1::1")).expect("the first");
        assert!(limits.place(address("2001:db8:0:1:ffff::2")).is_err());
        assert!(limits.place(address("2001:db8:0:2::1")).is_ok());
    }

    #[test]
    fn new_connections_have_a_rate_and_those_behind_a_proxy_have_none() {
        let limits = limits(1_000_000);
        let opened = (0..100).filter(|_| limits.connect(address("192.0.2.1")).is_ok()).count();
        assert!((10..20).contains(&opened), "{opened}");
        assert!((0..100).all(|_| limits.place(address("192.0.2.1")).is_ok()));
    }
}
