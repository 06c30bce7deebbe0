//! Metrics as Prometheus reads them: what a gateway shows at `/metrics`.

use std::sync::OnceLock;
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio_util::sync::CancellationToken;

use super::metrics::{HTTP_LATENCY, LATENCY, WORKER_LATENCY, describe, touch};

/// From a command on the same machine to one that waited for its worker to come back.
const LATENCY_BUCKETS: [f64; 16] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];
/// `?wait=` makes a request last up to a minute.
const HTTP_BUCKETS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0, 60.0];

/// How often samples of histograms are folded into their buckets: until then they take up memory.
const UPKEEP: Duration = Duration::from_secs(5);

/// A view of all metrics of this process; cheap to clone.
#[derive(Clone)]
pub struct Metrics(PrometheusHandle);

impl Metrics {
    /// Installs the recorder, once for the process: all gateways in one test program share it.
    pub fn install() -> Self {
        static INSTALLED: OnceLock<PrometheusHandle> = OnceLock::new();
        Self(INSTALLED.get_or_init(install).clone())
    }

    /// All metrics as text, in the format of Prometheus.
    pub fn render(&self) -> String {
        self.0.render()
    }

    /// Folds samples until told to stop: without it they pile up where nobody reads `/metrics`.
    pub async fn upkeep(self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(UPKEEP) => self.0.run_upkeep(),
            }
        }
    }
}

fn install() -> PrometheusHandle {
    let buckets = [
        (LATENCY, LATENCY_BUCKETS.as_slice()),
        (WORKER_LATENCY, LATENCY_BUCKETS.as_slice()),
        (HTTP_LATENCY, HTTP_BUCKETS.as_slice()),
    ];
    let builder = buckets.into_iter().fold(PrometheusBuilder::new(), |builder, (name, buckets)| {
        // Only an empty list of buckets is refused, and then there is nothing left to build with.
        builder.set_buckets_for_metric(Matcher::Full(name.to_owned()), buckets).unwrap_or_default()
    });
    let recorder = builder.build_recorder();
    let handle = recorder.handle();
    // An embedding program may have a recorder of its own: then /metrics stays empty and its own shows them.
    let _ = metrics::set_global_recorder(recorder);
    describe();
    touch();
    handle
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Action, ResourceKind};
    use crate::telemetry::metrics::*;

    #[test]
    fn the_four_names_of_the_contract_show_from_the_start_and_count() {
        let metrics = Metrics::install();
        let text = metrics.render();
        for name in [COMMANDS, COMMANDS_SUCCESS, COMMANDS_FAILED] {
            assert!(text.contains(&format!("# TYPE {name} counter")), "{name} in {text}");
            assert!(text.contains(&format!("{name}{{resource=\"campaign\",action=\"resume\"}} 0")), "{name} in {text}");
        }
        command_received(ResourceKind::Job, Action::Pause);
        command_result(ResourceKind::Job, Action::Pause, true, Duration::from_millis(7));
        // Installing again gives the same metrics: two gateways in one process.
        let text = Metrics::install().render();
        assert!(text.contains(&format!("{COMMANDS}{{resource=\"job\",action=\"pause\"}} 1")), "{text}");
        assert!(text.contains(&format!("# TYPE {LATENCY} histogram")), "{text}");
        assert!(
            text.contains(&format!("{LATENCY}_bucket{{resource=\"job\",action=\"pause\",le=\"0.01\"}} 1")),
            "{text}"
        );
        assert!(
            text.contains(&format!("{LATENCY}_bucket{{resource=\"job\",action=\"pause\",le=\"0.005\"}} 0")),
            "{text}"
        );
    }
}
