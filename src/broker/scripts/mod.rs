//! One typed wrapper for each Lua script. No raw integers travel: every outcome is an enum.

pub mod audit;
pub mod batch;
mod channels;
pub mod claim;
pub mod connections;
pub mod failed;
mod former;
#[doc(hidden)]
pub mod fuzzing;
pub mod heartbeats;
mod idempotent_call;
pub mod job_types;
pub mod leaders;
mod listeners;
pub mod lua;
mod messages;
pub mod permissions;
pub mod results;
pub mod runs;
pub mod schedules;
mod stored_command;
mod submission;
pub mod submit;
pub mod updates;
pub mod waiting;
pub mod write_check;

/// Keys or arguments by reference, as a script call takes them.
fn texts(strings: &[String]) -> Vec<&str> {
    strings.iter().map(String::as_str).collect()
}

fn bytes(strings: &[String]) -> Vec<&[u8]> {
    strings.iter().map(String::as_bytes).collect()
}
