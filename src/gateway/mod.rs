//! The front: sockets, the HTTP API and the operator's page.
//!
//! A gateway keeps nothing of its own. Any number of them share Redis, and a socket may come back to any.
//!
//! `serve` starts a gateway and ends it; `parts` puts its parts together, each with what it uses.
//! [`http`](crate::http) accepts; [`upgrade`] lets clients in and [`session`] serves each socket; [`hub`] passes results
//! and updates on to the [`outbox`] of each; [`rest`] answers plain requests;
//! [`commands`] is the one way in for a command and [`batch`] for many at once, [`schedules`] brings in those that were
//! to come later and [`expiry`] ends those that nobody took up;
//! `refusals` has those written into the audit trail that were only counted; [`limits`] and [`access`] say who may stay, [`memory`] how
//! much of it requests may take;
//! `interruptions` tells watchers when what they see may be old; [`drain`] sends everyone away at the end.

pub mod access;
mod audit_backlog;
pub mod batch;
pub mod clock;
pub mod commands;
pub mod drain;
mod error;
pub mod expiry;
mod fleet;
pub mod health;
pub mod hub;
mod interruptions;
pub mod job_types;
pub mod limits;
pub mod memory;
pub mod outbox;
mod parts;
mod refusals;
pub mod rest;
pub mod results;
pub mod schedules;
mod serve;
pub mod session;
pub mod snapshot;
mod unknown_outcomes;
pub mod upgrade;

pub use self::error::GatewayError;
pub use self::serve::{Tuning, serve, serve_tuned};
