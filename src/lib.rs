//! Wheelhouse: live control of long-running jobs and campaigns.
//!
//! # The map
//! Arrows go one way: `cli → gateway | worker | console → http → auth → broker | store → domain | protocol`.
//!
//! - `demo`: the jobs of `wheelhouse dev`, written against the worker SDK.
//! - [`domain`]: ids, statuses, actions, the transition table. Pure.
//! - [`protocol`]: the bytes that programs outside rely on. Pure.
//! - `auth`: token sources, token verification, permissions.
//! - `cli`: the command line, one file for each subcommand.
//! - [`config`]: settings, checked before anything starts.
//! - [`broker`]: everything that talks to Redis.
//! - [`store`]: everything that talks to SQL.
//! - `console`: the operator's page.
//! - [`doctor`]: what is wrong with the place that a program runs in.
//! - `gateway`: sockets, the HTTP API, and the one way in for commands.
//! - `http`: what every listener has in common: the accept loop, the WebSocket that a request becomes.
//! - [`telemetry`]: logs and metrics.
//! - [`worker`]: carries out commands, and runs jobs.
//!
//! Without the feature `server` there is only what a worker needs: `auth`, `cli`, `console`, `demo`, `gateway` and `http` are left
//! out, with the crates that they alone use. Workers are written against the crate `wheelhouse-worker`, which is built so.

// What only the gateway and the command line call is not used without them.
#![cfg_attr(not(feature = "server"), allow(dead_code))]

#[cfg(feature = "server")]
pub mod auth;
pub mod broker;
#[cfg(feature = "server")]
pub mod cli;
pub mod config;
#[cfg(feature = "server")]
pub mod console;
#[cfg(feature = "server")]
pub mod demo;
pub mod doctor;
pub mod domain;
#[cfg(feature = "server")]
pub mod gateway;
#[cfg(feature = "server")]
pub mod http;
pub mod protocol;
pub mod store;
pub mod telemetry;
#[cfg(feature = "test-faults")]
pub mod test_faults;
pub mod worker;

#[cfg(test)]
mod circles;
#[cfg(test)]
mod glossary;
#[cfg(test)]
mod layers;
