//! The settings of a worker.

use std::path::Path;

use wheelhouse::config::{self, SettingError, Settings};

/// The settings of a worker, checked. They are read as `wheelhouse` itself reads its own, and mean the same: a file that
/// a gateway has can be given to a worker.
///
/// The built-in defaults come first, then the file, then the environment (`WHEELHOUSE__REDIS__URL` sets `redis.url`).
#[derive(Debug, Clone)]
pub struct WorkerSettings(Settings);

impl WorkerSettings {
    /// Reads the settings: from this file, if one is named, and from the environment.
    ///
    /// # Errors
    /// When the file cannot be read, or a setting is unknown or wrong. The error names the setting and where it stands.
    pub fn load(file: Option<&Path>) -> Result<Self, SettingError> {
        config::load(file, Vec::new()).map(Self)
    }

    /// As [`load`](Self::load), with settings of the program's own over all others: `("worker.concurrency", "8")`.
    ///
    /// # Errors
    /// As for [`load`](Self::load).
    pub fn load_with<'a>(
        file: Option<&Path>,
        overrides: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, SettingError> {
        let overrides = overrides.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned()));
        config::load(file, overrides.collect()).map(Self)
    }

    pub(crate) fn start_logs(&self) {
        wheelhouse::telemetry::log::init(&self.0.log);
    }
}

impl From<WorkerSettings> for Settings {
    fn from(settings: WorkerSettings) -> Self {
        settings.0
    }
}
