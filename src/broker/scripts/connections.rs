//! `lua/open_connection.lua`: limits on open sockets, as leases that heal after a crash.

use std::time::Duration;

use crate::broker::{Broker, BrokerError};
use crate::domain::{TenantId, UserId};

/// One open socket.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ConnectionLease {
    /// Whose.
    pub tenant: TenantId,
    /// Whose.
    pub user: UserId,
    /// Unique: gateway id and a number.
    pub id: String,
}

/// Whether a socket may open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opened {
    /// It may; the lease is taken.
    Open,
    /// The tenant has as many as it may.
    TenantFull,
    /// The user has.
    UserFull,
}

impl Broker {
    /// Takes a lease, if both limits allow.
    pub async fn open_connection(
        &self,
        _lease: &ConnectionLease,
        _per_tenant: u32,
        _per_user: u32,
        _ttl: Duration,
    ) -> Result<Opened, BrokerError> {
        unimplemented!()
    }

    /// Makes leases last another `ttl`; takes again those that Redis no longer has. Pipelined.
    pub async fn renew_connections(&self, _leases: &[ConnectionLease], _ttl: Duration) -> Result<(), BrokerError> {
        unimplemented!()
    }

    /// Gives leases back. Pipelined.
    pub async fn close_connections(&self, _leases: &[ConnectionLease]) -> Result<(), BrokerError> {
        unimplemented!()
    }
}
