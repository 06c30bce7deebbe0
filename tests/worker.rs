//! Workers against a real Redis and SQLite: what job code sees, what commands do to it, and what is
//! left of both when workers, Redis or SQL go away.

mod support;

#[path = "worker/attached.rs"]
mod attached;
#[path = "worker/audit.rs"]
mod audit;
#[path = "worker/campaigns.rs"]
mod campaigns;
#[path = "worker/code.rs"]
mod code;
#[path = "worker/commands.rs"]
mod commands;
#[path = "worker/fair.rs"]
mod fair;
#[path = "worker/faults.rs"]
mod faults;
#[path = "worker/fixture.rs"]
mod fixture;
#[path = "worker/handover.rs"]
mod handover;
#[path = "worker/held.rs"]
mod held;
#[path = "worker/idle.rs"]
mod idle;
#[path = "worker/import.rs"]
mod import;
#[path = "worker/json_values.rs"]
mod json_values;
#[path = "worker/leaving.rs"]
mod leaving;
#[path = "worker/listeners.rs"]
mod listeners;
#[path = "worker/reports.rs"]
mod reports;
#[path = "worker/retries.rs"]
mod retries;
#[path = "worker/split.rs"]
mod split;
#[path = "worker/upgrade.rs"]
mod upgrade;
