//! What every program that listens has in common, whatever it serves: the accept loop and its limits, and the WebSocket that
//! a request becomes.
//!
//! [`server`] accepts ([`descriptors`] says for how many there is room, [`addresses`] how much of it one address gets,
//! [`client_address`] and the PROXY protocol who is behind a proxy, `wire` how long a client may take); [`handshake`] reads the headers of an upgrade; [`socket`] reads,
//! writes and closes by polling, with the codes of [`close`]; [`liveness`] and [`flood`] say who may stay; [`reply`] has
//! refusals as JSON.

pub mod addresses;
pub mod client_address;
pub mod close;
pub mod descriptors;
pub mod flood;
mod frames;
pub mod handshake;
pub mod liveness;
mod proxy_protocol;
pub mod reply;
pub mod server;
pub mod socket;
mod stream;
pub mod tls;
mod wire;

pub use client_address::{ClientAddress, TrustedProxies};
pub use reply::Refusal;
