//! Where the gateway is, and with which token it is asked: flags and environment first, else a `wheelhouse dev`.

use std::path::{Path, PathBuf};

use hyper::Uri;

use crate::cli::dev::{self, DataFolderState};
use crate::cli::usage::usage;
use crate::config;

/// What `--config` and `--data-dir` say, for every command.
#[derive(Debug, Clone)]
pub(in crate::cli) struct GatewayLocator {
    /// A file of settings.
    pub(in crate::cli) config: Option<PathBuf>,
    /// The folder of a `wheelhouse dev`.
    pub(in crate::cli) data_dir: Option<PathBuf>,
    /// `--set`.
    pub(in crate::cli) overrides: config::Overrides,
}

const NO_TOKEN: &str = "pass --token or set WHEELHOUSE_TOKEN (wheelhouse token --user U --tenant T prints one)";

impl GatewayLocator {
    /// The folder of the `wheelhouse dev` that is meant.
    pub(in crate::cli) fn folder(&self) -> &Path {
        self.data_dir.as_deref().unwrap_or(Path::new(dev::FOLDER))
    }

    /// The gateway's address without a slash at its end, and the token for it.
    pub(in crate::cli) fn gateway(&self, url: Option<&str>, token: Option<&str>) -> anyhow::Result<(String, String)> {
        // The settings of a `dev` lie in its folder, beside its address and its token.
        let beside = self.config.as_deref().filter(|file| dev::is_settings_of_dev(file)).and_then(Path::parent);
        let folder = beside.unwrap_or(self.folder());
        let state = dev::state_of(folder);
        let (kept_url, kept_token) = match &state {
            DataFolderState::Running { url, token } => (url.as_deref(), token.as_deref()),
            DataFolderState::Stopped | DataFolderState::Never => (None, None),
        };
        let base = match (url, &self.config) {
            (Some(url), _) => url.to_owned(),
            (None, Some(file)) if beside.is_none() => listening(&config::load(Some(file), self.overrides.clone())?),
            (None, _) => match (kept_url, token) {
                (Some(kept), _) => kept.to_owned(),
                // With a token of one's own: the gateway's usual address.
                (None, Some(_)) if self.data_dir.is_none() && beside.is_none() => "http://127.0.0.1:8000".to_owned(),
                (None, None) if matches!(state, DataFolderState::Running { .. }) => {
                    anyhow::bail!("`wheelhouse dev` on {} is still starting: try again in a moment", folder.display())
                }
                (None, _)
                    if self.data_dir.is_some() || beside.is_some() || matches!(state, DataFolderState::Stopped) =>
                {
                    return Err(dev::not_running(folder));
                }
                (None, _) => return Err(usage(format!("no token: {NO_TOKEN}, or start `wheelhouse dev` here"))),
            },
        };
        let base = base.trim_end_matches('/').to_owned();
        let named = origin(&base).ok_or_else(|| {
            usage(format!("--url {base}: write it as http://HOST:PORT or https://HOST, without a name or a question"))
        })?;
        let token = match (token, kept_token) {
            (Some(token), _) => token.to_owned(),
            // It is good for the gateway it was made for alone: whoever is at another address must not get it.
            (None, Some(kept)) if kept_url.and_then(origin) == Some(named) => kept.to_owned(),
            (None, Some(_)) => {
                let folder = folder.display();
                let whose = kept_url.unwrap_or("another address");
                return Err(usage(format!(
                    "no token for {base}: the one kept in {folder} is for {whose} alone; {NO_TOKEN}"
                )));
            }
            (None, None) => return Err(usage(format!("no token for {base}: {NO_TOKEN}"))),
        };
        Ok((base, token.trim().to_owned()))
    }
}

/// Where a gateway with these settings is reached from this machine.
fn listening(settings: &config::Settings) -> String {
    let mut address = settings.server.listen;
    if address.ip().is_unspecified() {
        address.set_ip(if address.is_ipv4() { [127, 0, 0, 1].into() } else { std::net::Ipv6Addr::LOCALHOST.into() });
    }
    format!("http://{address}")
}

/// Scheme, host and port: what has to be the same for two addresses to be one server's.
fn origin(url: &str) -> Option<(String, String, u16)> {
    let uri: Uri = url.parse().ok()?;
    let scheme = uri.scheme_str()?.to_ascii_lowercase();
    let usual = match scheme.as_str() {
        "http" => 80,
        "https" => 443,
        _ => return None,
    };
    let authority = uri.authority()?;
    let is_plain = !authority.as_str().contains('@') && uri.query().is_none();
    let host = uri.host().filter(|host| is_plain && !host.is_empty())?.to_ascii_lowercase();
    // A port that is written and cannot be read is not the usual one.
    let has_port = authority.as_str().len() > authority.host().len();
    let port = if has_port { authority.port_u16()? } else { usual };
    Some((scheme, host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_one_servers_only_with_the_same_scheme_host_and_port() {
        let same = |a: &str, b: &str| origin(a).is_some() && origin(a) == origin(b);
        assert!(same("http://localhost:8000", "HTTP://LocalHost:8000/prefix"));
        assert!(same("https://h", "https://h:443"));
        for other in [
            "https://localhost:8000",
            "http://localhost:8001",
            "http://localhost",
            "http://localhost.evil.example:8000",
            "http://localhost:8000@evil.example",
            "http://localhost:8000.evil.example",
            "http://127.0.0.1:8000",
            "localhost:8000",
            "ftp://localhost:8000",
            "http://",
        ] {
            assert!(!same("http://localhost:8000", other), "{other}");
        }
    }
}
