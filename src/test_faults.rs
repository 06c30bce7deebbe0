//! Guards that can be switched off, to show that the tests under faults notice (`docs/testing-faults.md`). Only with
//! the feature `test-faults`; no other build has this file, or anything that asks it.

use std::sync::OnceLock;

/// `WHEELHOUSE_TEST_FAULTS=no-fence`: a worker that wakes after its lease changes rows and answers, as if its claim
/// still stood.
pub fn fence_is_off() -> bool {
    static OFF: OnceLock<bool> = OnceLock::new();
    *OFF.get_or_init(|| std::env::var("WHEELHOUSE_TEST_FAULTS").is_ok_and(|switch| switch == "no-fence"))
}
