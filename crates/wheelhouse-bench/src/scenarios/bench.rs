//! What all scenarios share.

use std::path::PathBuf;

use crate::report::Report;
use crate::stack::Stack;

/// The processes that are measured, and where the figures go.
pub(crate) struct Bench {
    pub(crate) stack: Stack,
    pub(crate) report: Report,
    /// Sockets of the scenarios that open many.
    pub(crate) sockets: usize,
    pub(crate) peers: Option<PathBuf>,
}
