//! Runs the scenarios that were asked for, and prints one table.

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;

use crate::print::remark;
use crate::report::Report;
use crate::scenarios::{self, Bench};
use crate::stack::Stack;
use wheelhouse::cli::descriptors;

/// What to measure, and where to write it.
#[derive(Debug, Args)]
pub(crate) struct SuiteArgs {
    /// Only these, with commas: acks, results, burst, postgres, process, fanout, idle, storm, cold, limited, workers, neighbours, revocation, growth.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Where the table goes as JSON.
    #[arg(long, default_value = "bench/latest.json", value_name = "FILE")]
    json: PathBuf,
    /// Scenarios for 20,000 file descriptors are made smaller to fit this many sockets.
    #[arg(long, default_value_t = 10_000)]
    sockets: usize,
    /// A folder with the peers that `make bench-peers` installs: they are measured in the same run.
    #[arg(long, value_name = "DIR")]
    peers: Option<PathBuf>,
}

pub(crate) async fn suite(args: SuiteArgs) -> anyhow::Result<()> {
    let begun = Instant::now();
    let descriptors = descriptors::raise_limit();
    let room = usize::try_from(descriptors).unwrap_or(usize::MAX).saturating_sub(500);
    if room < args.sockets {
        remark!("{}; going on with {room}", descriptors::too_few(descriptors, args.sockets));
    }
    let mut bench = Bench {
        stack: Stack::start().await?,
        report: Report { about: about(), ..Report::default() },
        sockets: args.sockets.min(room),
        peers: args.peers,
    };
    for (name, scenario) in scenarios::ALL {
        if !args.only.is_empty() && !args.only.iter().any(|only| only == name) {
            continue;
        }
        remark!("{name} ({:.0} s, load average {})", begun.elapsed().as_secs_f64(), load_average());
        if let Err(error) = scenario(&mut bench).await {
            bench.report.leave_out(name, &error);
        }
    }
    bench.report.about.push(format!(
        "{:.0} s in all; load average at the end {}",
        begun.elapsed().as_secs_f64(),
        load_average()
    ));
    bench.report.print();
    bench.report.write(&args.json)?;
    remark!("\nwritten to {}", args.json.display());
    Ok(())
}

fn about() -> Vec<String> {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let model = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = model.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ").map(|(_, name)| name));
    let redis = std::process::Command::new("redis-server").arg("--version").output();
    let redis = redis.map(|out| String::from_utf8_lossy(&out.stdout).into_owned()).unwrap_or_default();
    let redis = redis.split_whitespace().find_map(|word| word.strip_prefix("v=")).unwrap_or("?");
    vec![
        format!(
            "wheelhouse {} ({}), Redis {redis}, {cores} cores ({}), load average {} at the start",
            env!("CARGO_PKG_VERSION"),
            if cfg!(debug_assertions) { "DEBUG BUILD: these figures mean nothing" } else { "release build" },
            model.unwrap_or("unknown"),
            load_average()
        ),
        jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%MZ").to_string(),
    ]
}

/// Of the last minute: who else was at work on this machine.
pub(crate) fn load_average() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().unwrap_or("unknown").to_owned()
}
