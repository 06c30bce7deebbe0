//! `make bench`: every scenario on processes of its own, beside its yardsticks, in one table. Not published: users measure
//! their own deployment with `wheelhouse bench load`, on whose load generator this is built.
//!
//! - [`suite`] runs the [`scenarios`] one after the other and prints the [`report`].
//! - [`stack`] has the processes that are measured, [`yardsticks`] what Redis can do at best.

// The scenarios are futures within futures, deeper than the compiler looks by default.
#![recursion_limit = "256"]

mod print;
mod report;
mod scenarios;
mod stack;
mod suite;
mod yardsticks;

use clap::Parser;

/// Starts a private Redis, gateways and workers, and measures everything. About five minutes.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(flatten)]
    suite: suite::SuiteArgs,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let stop = wheelhouse::worker::signals::stop_signals()?;
    let measured = stop.run_until_cancelled_owned(suite::suite(arguments.suite)).await;
    measured.unwrap_or_else(|| anyhow::bail!("interrupted"))
}
