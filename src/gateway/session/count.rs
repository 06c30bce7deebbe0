//! How many sockets are open.

use crate::telemetry::metrics;

/// Counts an open socket, also when its task panics.
pub(super) struct OpenSessionGauge {
    code: Option<u16>,
}

impl OpenSessionGauge {
    pub(super) fn new(resource: &'static str) -> Self {
        metrics::connection_opened(resource);
        Self { code: Some(1011) }
    }

    pub(super) fn closed(mut self, code: Option<u16>) {
        self.code = code;
    }
}

impl Drop for OpenSessionGauge {
    fn drop(&mut self) {
        metrics::connection_closed(self.code);
    }
}
