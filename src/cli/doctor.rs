//! `wheelhouse doctor`: what is wrong with the place that a gateway or a worker is to run in.

use std::process::ExitCode;

use clap::{Args, ValueEnum};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::out::say;
use crate::auth::Verifier;
use crate::config::{SettingError, Settings};
use crate::doctor::{Finding, Level, Program, database, redis, settings};

/// What is looked at, and how it is said.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit code 0: nothing keeps it from working. 1: something does, or, with --strict, something should be \
    better. Give it the settings of the program itself: wheelhouse --config gateway.toml doctor"
)]
pub(super) struct DoctorArgs {
    /// For which program: its user's rights are looked at.
    #[arg(long = "as", value_name = "PROGRAM", default_value = "gateway")]
    program: For,
    /// One JSON object, for scripts.
    #[arg(long)]
    json: bool,
    /// A warning counts as well.
    #[arg(long)]
    strict: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum For {
    Gateway,
    Worker,
}

/// Looks at everything, whatever is found on the way: also at settings that a program would refuse.
pub(super) async fn doctor(
    args: DoctorArgs,
    settings: impl FnOnce() -> Result<Settings, SettingError>,
) -> anyhow::Result<ExitCode> {
    let program = match args.program {
        For::Gateway => Program::Gateway,
        For::Worker => Program::Worker,
    };
    let findings = match settings() {
        Ok(settings) => look(&settings, program).await,
        Err(error) => {
            let mend = format!("correct it in {}", error.source_name);
            vec![Finding::error("settings", error.to_string(), mend)]
        }
    };
    let count = |level| findings.iter().filter(|finding| finding.level == level).count();
    let (errors, warnings) = (count(Level::Error), count(Level::Warning));
    if args.json {
        say!("{}", json!({"program": program.as_str(), "errors": errors, "warnings": warnings, "findings": findings}));
    } else {
        for finding in &findings {
            let word = match finding.level {
                Level::Ok => "ok",
                Level::Warning => "warning",
                Level::Error => "ERROR",
            };
            say!("{word:<8} {:<24} {}", finding.check, finding.message);
            if let Some(mend) = &finding.mend {
                say!("{:<8} {:<24} → {mend}", "", "");
            }
        }
        say!("{errors} errors, {warnings} warnings");
    }
    let is_wrong = errors > 0 || args.strict && warnings > 0;
    Ok(if is_wrong { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn look(settings: &Settings, program: Program) -> Vec<Finding> {
    let mut findings = settings::check(settings, program);
    if program == Program::Gateway {
        findings.extend(issuer_keys(settings).await);
        findings.push(open_files(settings));
    }
    let (redis, database) = tokio::join!(redis::check(settings, program), database::check(settings, program));
    findings.extend(redis);
    findings.extend(database);
    findings
}

/// Whether the keys that tokens are checked with can be had.
async fn issuer_keys(settings: &Settings) -> Option<Finding> {
    let auth = &settings.auth;
    let (check, place) = match (&auth.jwks_url, &auth.jwks_file) {
        (Some(_), _) => ("auth.jwks_url", "auth.jwks_url = \"https://…\", at which the issuer's keys are"),
        (None, Some(_)) => (
            "auth.jwks_file",
            "auth.jwks_file names a JWK set with RSA keys of 2048 bits or more, P-256, P-384 or Ed25519",
        ),
        (None, None) => return None,
    };
    let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
    let _end = stop.clone().drop_guard();
    Some(match Verifier::new(auth, &tracker, stop).await {
        Ok(_) => Finding::ok(check, "the issuer's keys can be used"),
        Err(error) => Finding::error(check, error.to_string(), place),
    })
}

/// Whether so many sockets as the limits permit find room.
fn open_files(settings: &Settings) -> Finding {
    let check = "system.open_files";
    let may = super::descriptors::raise_limit();
    let sockets = settings.limits.connections_per_tenant as usize;
    let needed = sockets as u64 + crate::http::descriptors::reserve(settings);
    match may >= needed {
        true => {
            Finding::ok(check, format!("this process may have {may} files and sockets open, and {needed} are needed"))
        }
        false => Finding::warning(
            check,
            super::descriptors::too_few(may, sockets),
            format!("ulimit -n {needed}, or LimitNOFILE={needed} in its systemd unit"),
        ),
    }
}
