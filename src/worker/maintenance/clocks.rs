//! Whether the clocks agree, before anything is deleted because of its age.
//!
//! A single clock that is a year ahead makes everything look a year old. So before anything is deleted by age, the clocks of
//! this machine, of every Redis and of the database (PostgreSQL has its own) are compared and, for the audit trail, the
//! rows that were written last.

use futures_util::future::try_join_all;

use crate::broker::{Broker, BrokerError};
use crate::store::{PruningClocks, Store, StoreError};
use crate::worker::context::WorkerContext;

/// Clocks that are further apart than this do not agree, in ms.
const MAX_CLOCK_SKEW_MS: i64 = 5 * 60 * 1_000;
/// The newest row of the audit trail may be so old, in ms. If it is older, nobody has asked for anything since, or all
/// clocks were set forwards together: the next command decides which.
const MAX_NEWEST_ROW_AGE_MS: i64 = 60 * 60 * 1_000;

/// Why nothing may be deleted because of its age just now.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClockDisagreement {
    /// One of two clocks is wrong.
    #[error(
        "this machine's clock says {here}, that of {whose} {there}: nothing is removed because of its age until they agree; set the wrong one right"
    )]
    Apart { here: jiff::Timestamp, whose: &'static str, there: jiff::Timestamp },
    /// The newest row of the audit trail is much older than the clocks say.
    #[error(
        "the clocks say {here}, and the audit trail's newest row is of {newest}: no row is removed because of its age until one of now is written, for the clocks might be wrong"
    )]
    Quiet { here: jiff::Timestamp, newest: jiff::Timestamp },
    #[error(transparent)]
    Broker(#[from] BrokerError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What the clocks of this machine, of Redis and of the database say, if they agree.
pub(crate) async fn read_agreed(ctx: &WorkerContext) -> Result<PruningClocks, ClockDisagreement> {
    let (worker_clock, redis_clock) = agreed(&ctx.broker, &ctx.store).await?;
    Ok(PruningClocks { worker: ctx.id.clone(), worker_clock, redis_clock })
}

/// This moment by this machine's clock and by that of Redis which shows least, in Unix ms, if these and the database's
/// agree.
pub(crate) async fn agreed(broker: &Broker, store: &Store) -> Result<(i64, i64), ClockDisagreement> {
    let asked = broker.keys().partitions().map(|partition| broker.read_clock(partition));
    let (redis, database) = (try_join_all(asked).await?, store.clock().await?);
    let here = jiff::Timestamp::now().as_millisecond();
    let apart = |whose, there: i64| ClockDisagreement::Apart { here: stamp(here), whose, there: stamp(there) };
    let far = |there: &i64| there.abs_diff(here) > MAX_CLOCK_SKEW_MS.unsigned_abs();
    if let Some(there) = redis.iter().copied().find(far) {
        return Err(apart("Redis", there));
    }
    if far(&database) {
        return Err(apart("the database", database));
    }
    Ok((here, redis.into_iter().min().unwrap_or(here)))
}

/// The same, for deleting rows of the audit trail that are older than `keep_ms`. `None`: there are none.
pub(crate) async fn read_agreed_for_audit(
    ctx: &WorkerContext,
    keep_ms: i64,
) -> Result<Option<PruningClocks>, ClockDisagreement> {
    let Some((oldest, newest)) = ctx.store.audit_time_range().await? else { return Ok(None) };
    if oldest >= jiff::Timestamp::now().as_millisecond().saturating_sub(keep_ms) {
        return Ok(None);
    }
    let clocks = read_agreed(ctx).await?;
    if newest.abs_diff(clocks.now()) > MAX_NEWEST_ROW_AGE_MS.unsigned_abs() {
        return Err(ClockDisagreement::Quiet { here: stamp(clocks.now()), newest: stamp(newest) });
    }
    Ok(Some(clocks))
}

fn stamp(ms: i64) -> jiff::Timestamp {
    jiff::Timestamp::from_millisecond(ms).unwrap_or_default()
}
