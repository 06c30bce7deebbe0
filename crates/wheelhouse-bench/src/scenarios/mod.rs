//! The scenarios of the suite. Each starts what it needs and leaves nothing running.

mod acks;
mod bench;
mod fanout;
mod growth;
mod guards;
mod peers;
mod process;
mod results;
mod sockets;

use futures_util::future::LocalBoxFuture;

pub(crate) use bench::Bench;

type Scenario = for<'a> fn(&'a mut Bench) -> LocalBoxFuture<'a, anyhow::Result<()>>;

/// In the order in which they run.
pub(crate) const ALL: [(&str, Scenario); 14] = [
    ("acks", |bench| Box::pin(acks::acks(bench))),
    ("limited", |bench| Box::pin(acks::limited(bench))),
    ("results", |bench| Box::pin(results::sqlite(bench))),
    ("postgres", |bench| Box::pin(results::postgres(bench))),
    ("process", |bench| Box::pin(process::process(bench))),
    ("fanout", |bench| Box::pin(fanout::fanout(bench))),
    ("idle", |bench| Box::pin(sockets::idle(bench))),
    ("storm", |bench| Box::pin(sockets::storm(bench))),
    ("cold", |bench| Box::pin(sockets::cold(bench))),
    ("workers", |bench| Box::pin(growth::many_workers(bench))),
    ("neighbours", |bench| Box::pin(guards::neighbours(bench))),
    ("revocation", |bench| Box::pin(guards::revocation(bench))),
    ("growth", |bench| Box::pin(growth::growth(bench))),
    ("peers", |bench| Box::pin(peers::peers(bench))),
];
