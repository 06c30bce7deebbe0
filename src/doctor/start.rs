//! What a program says of its settings at its own start.

use super::finding::{Finding, Level, Program};
use super::settings;
use crate::config::Settings;

/// Warns in the log of what the settings alone show. For a program at its start; one that listens on this machine alone is
/// a trial, and is not told what only matters to others.
pub fn warn_at_start(settings: &Settings, program: Program) {
    if program == Program::Gateway && settings.server.listen.ip().is_loopback() {
        return;
    }
    for finding in settings::check(settings, program) {
        if finding.level != Level::Ok {
            let Finding { check, message, mend, .. } = finding;
            tracing::warn!(check, problem = message, mend = mend.unwrap_or_default(), "doctor.finding");
        }
    }
}
