//! The HTTP API from outside: over real HTTP against a gateway with a real Redis and SQLite.

mod support;

#[path = "rest/access.rs"]
mod access;
#[path = "rest/batches.rs"]
mod batches;
#[path = "rest/bulk.rs"]
mod bulk;
#[path = "rest/commands.rs"]
mod commands;
#[path = "rest/lists.rs"]
mod lists;
#[path = "rest/operators.rs"]
mod operators;
#[path = "rest/reruns.rs"]
mod reruns;
#[path = "rest/resources.rs"]
mod resources;
#[path = "rest/revocations.rs"]
mod revocations;
#[path = "rest/tenants.rs"]
mod tenants;
#[path = "rest/token_attacks.rs"]
mod token_attacks;
