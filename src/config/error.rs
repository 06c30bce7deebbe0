//! What is wrong with a setting.

/// One wrong setting: the key, the value's problem, the source it came from.
#[derive(Debug, thiserror::Error)]
#[error("setting {key}: {problem} (from {source_name})")]
pub struct SettingError {
    /// `redis.url`
    pub key: String,
    /// In words, without the value where it is a secret.
    pub problem: String,
    /// `the defaults`, `the file PATH`, `the environment variable NAME`, `the flag that sets KEY`.
    pub source_name: String,
}
