//! A model of a command's life through a failover, in which every order of events is tried.
//!
//! `docs/model.md` explains it. `state` is what servers, workers and SQL know; `steps` is what can happen next; the
//! tests in `check.rs` have a checker go through all of it.

#![cfg(test)]

mod check;
mod state;
mod steps;
