//! A [`Batcher`] for each partition: what goes into one call lies on one server, and a server that does not answer holds up no other.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::batcher::{BatchLimits, Batcher};
use super::context::WorkerContext;
use crate::broker::{Keys, Partition};
use crate::domain::TenantId;

type Start<T, A> = Box<dyn Fn() -> Batcher<T, A> + Send + Sync>;

pub(crate) struct PartitionBatchers<T, A> {
    keys: Keys,
    start: Start<T, A>,
    /// One for each partition of which something has been said.
    batchers: Mutex<HashMap<Partition, Arc<Batcher<T, A>>>>,
}

impl<T: Send + 'static, A: Send + 'static> PartitionBatchers<T, A> {
    /// `send` gives an answer for each item, in their order.
    pub(crate) fn new<F>(
        ctx: &WorkerContext,
        limits: BatchLimits,
        send: impl Fn(Vec<T>) -> F + Clone + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Vec<A>> + Send + 'static,
    {
        let (tracker, end) = (ctx.tracker.clone(), ctx.end.clone());
        let start = Box::new(move || Batcher::start(limits, &tracker, &end, send.clone()));
        Self { keys: ctx.broker.keys(), start, batchers: Mutex::default() }
    }

    /// That of a tenant's partition.
    pub(crate) fn of(&self, tenant: &TenantId) -> Arc<Batcher<T, A>> {
        let partition = self.keys.partition(tenant);
        self.batchers.lock().entry(partition).or_insert_with(|| Arc::new((self.start)())).clone()
    }
}
