//! The promises of commands, under faults: real processes are killed, stopped and cut off while clients issue
//! commands, and a checker reads what everybody saw. `docs/testing-faults.md` describes the parts.
//!
//! `CHAOS_SEED=7 cargo test --test chaos` plays one seed again; `CHAOS_SECONDS` sets how long the load lasts,
//! `CHAOS_SEEDS` how many seeds are played, one after the other.

mod support;

#[path = "chaos/check/mod.rs"]
mod check;
#[path = "chaos/history.rs"]
mod history;
