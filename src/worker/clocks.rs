//! Whether the clocks agree, before anything is deleted because of its age.
//!
//! A single clock that is a year ahead makes everything look a year old. So whoever deletes by age asks this machine, every
//! Redis, the database (PostgreSQL has a clock of its own) and, for the audit trail, the rows that were written last.

use futures_util::future::try_join_all;

use super::core::Core;
use crate::broker::{Broker, BrokerError};
use crate::store::{PrunedBy, Store, StoreError};

/// Clocks that are further apart than this do not agree, in ms.
const APART_MS: i64 = 5 * 60 * 1_000;
/// The newest row of the audit trail may be so old, in ms. If it is older, nobody has asked for anything since, or all
/// clocks were set forwards together: the next command decides which.
const QUIET_MS: i64 = 60 * 60 * 1_000;

/// Why nothing may be deleted because of its age just now.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Doubt {
    /// One of two clocks is wrong.
    #[error(
        "this machine's clock says {here}, that of {whose} {there}: nothing is removed because of its age until they agree; set the wrong one right"
    )]
    Apart { here: jiff::Timestamp, whose: &'static str, there: jiff::Timestamp },
    /// The trail does not bear the clocks out.
    #[error(
        "the clocks say {here}, and the audit trail's newest row is of {newest}: no row is removed because of its age until one of now is written, for the clocks might be wrong"
    )]
    Quiet { here: jiff::Timestamp, newest: jiff::Timestamp },
    #[error(transparent)]
    Broker(#[from] BrokerError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What this machine, Redis and the database say, where they agree.
pub(crate) async fn read(core: &Core) -> Result<PrunedBy, Doubt> {
    let (worker_clock, redis_clock) = agreed(&core.broker, &core.store).await?;
    Ok(PrunedBy { worker: core.id.clone(), worker_clock, redis_clock })
}

/// This moment by this machine's clock and by that of Redis which shows least, Unix ms, where these and the database's
/// agree.
pub(crate) async fn agreed(broker: &Broker, store: &Store) -> Result<(i64, i64), Doubt> {
    let asked = broker.keys().partitions().map(|partition| broker.look_at_clock(partition));
    let (redis, database) = (try_join_all(asked).await?, store.clock().await?);
    let here = jiff::Timestamp::now().as_millisecond();
    let apart = |whose, there: i64| Doubt::Apart { here: stamp(here), whose, there: stamp(there) };
    let far = |there: &i64| there.abs_diff(here) > APART_MS.unsigned_abs();
    if let Some(there) = redis.iter().copied().find(far) {
        return Err(apart("Redis", there));
    }
    if far(&database) {
        return Err(apart("the database", database));
    }
    Ok((here, redis.into_iter().min().unwrap_or(here)))
}

/// The same for rows of the audit trail that are older than `keep_ms`. `None`: there are none.
pub(crate) async fn read_for_audit(core: &Core, keep_ms: i64) -> Result<Option<PrunedBy>, Doubt> {
    let Some((oldest, newest)) = core.store.audit_span().await? else { return Ok(None) };
    if oldest >= jiff::Timestamp::now().as_millisecond().saturating_sub(keep_ms) {
        return Ok(None);
    }
    let clocks = read(core).await?;
    if newest.abs_diff(clocks.now()) > QUIET_MS.unsigned_abs() {
        return Err(Doubt::Quiet { here: stamp(clocks.now()), newest: stamp(newest) });
    }
    Ok(Some(clocks))
}

fn stamp(ms: i64) -> jiff::Timestamp {
    jiff::Timestamp::from_millisecond(ms).unwrap_or_default()
}
