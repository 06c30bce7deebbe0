//! Which tenant's jobs are looked at first.

use parking_lot::Mutex;

/// The tenant (in the database's own order) behind which the next look begins; empty for the first of all.
#[derive(Default)]
pub(super) struct TenantCursor(Mutex<String>);

impl TenantCursor {
    pub(super) fn start_after(&self) -> String {
        self.0.lock().clone()
    }

    pub(super) fn advance(&self, tenant: String) {
        *self.0.lock() = tenant;
    }
}
