//! Reads the layers and checks every value.

use super::Settings;

/// What flags set, above everything else: `("server.listen", "127.0.0.1:0")`.
pub type Overrides = Vec<(String, String)>;

/// One wrong setting: the key, the value's problem, the source it came from.
#[derive(Debug, thiserror::Error)]
#[error("setting {key}: {problem} (from {source_name})")]
pub struct SettingError {
    /// `redis.url`
    pub key: String,
    /// In words, without the value where it is a secret.
    pub problem: String,
    /// `the defaults`, `the file PATH`, `the environment variable NAME`, `the flag --name`.
    pub source_name: String,
}

/// Puts the layers together.
pub fn load(_file: Option<&std::path::Path>, _overrides: Overrides) -> Result<Settings, SettingError> {
    unimplemented!()
}
