//! The sockets from outside: foreign WebSocket clients against gateways over a real Redis and SQLite.

mod support;

#[path = "gateway/batches.rs"]
mod batches;
#[path = "gateway/commands.rs"]
mod commands;
#[path = "gateway/conformance.rs"]
mod conformance;
#[path = "support/conformance.rs"]
mod conformance_suite;
#[path = "gateway/faults.rs"]
mod faults;
#[path = "gateway/feed.rs"]
mod feed;
#[path = "gateway/fixture.rs"]
mod fixture;
#[path = "gateway/fleet.rs"]
mod fleet;
#[path = "gateway/interruptions.rs"]
mod interruptions;
#[path = "gateway/leaving.rs"]
mod leaving;
#[path = "gateway/limits.rs"]
mod limits;
#[path = "gateway/many_tenants.rs"]
mod many_tenants;
#[path = "gateway/messages.rs"]
mod messages;
#[path = "gateway/names.rs"]
mod names;
#[path = "gateway/pages.rs"]
mod pages;
#[path = "gateway/raw.rs"]
mod raw;
#[path = "gateway/readiness.rs"]
mod readiness;
#[path = "gateway/results.rs"]
mod results;
#[path = "gateway/schema.rs"]
mod schema;
#[path = "gateway/transport.rs"]
mod transport;
#[path = "gateway/updates.rs"]
mod updates;
#[path = "gateway/upgrade.rs"]
mod upgrade;
