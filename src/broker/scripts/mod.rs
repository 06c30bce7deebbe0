//! One typed wrapper for each Lua script. No raw integers travel: every outcome is an enum.

pub mod audit;
pub mod claim;
pub mod connections;
pub mod permissions;
pub mod presence;
pub mod runs;
pub mod submit;
pub mod updates;
