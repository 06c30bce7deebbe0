//! What all scenarios share.

use std::path::PathBuf;

use crate::cli::bench::report::Report;
use crate::cli::bench::stack::Stack;

/// The processes that are measured, and where the figures go.
pub(in crate::cli::bench) struct Bench {
    pub(in crate::cli::bench) stack: Stack,
    pub(in crate::cli::bench) report: Report,
    /// Sockets of the scenarios that open many.
    pub(in crate::cli::bench) sockets: usize,
    pub(in crate::cli::bench) peers: Option<PathBuf>,
}
