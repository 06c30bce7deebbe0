//! One call of SUBSCRIBE or PSUBSCRIBE with many names, of which Redis may refuse some.

use std::collections::BTreeSet;

use redis::aio::PubSubSink;

/// What Redis does not permit to be heard, and in which words.
#[derive(Default)]
pub(super) struct Refused {
    pub(super) names: BTreeSet<String>,
    pub(super) error: Option<redis::RedisError>,
}

impl Refused {
    /// Both together.
    pub(super) fn add(&mut self, other: Self) {
        self.names.extend(other.names);
        self.error = self.error.take().or(other.error);
    }
}

/// Subscribes to as many of these as Redis permits. It refuses a whole call because of one name in it: such a call is made
/// again in halves, so that one tenant's channel that is not permitted costs the others nothing.
pub(super) async fn subscribe_permitted(
    sink: &mut PubSubSink,
    names: &[String],
    patterns: bool,
) -> redis::RedisResult<Refused> {
    let (mut refused, mut untried) = (Refused::default(), vec![names]);
    while let Some(some) = untried.pop() {
        let asked = if patterns { sink.psubscribe(some).await } else { sink.subscribe(some).await };
        match asked {
            // Redis answered, and the connection is well.
            Err(error) if is_answer(&error) && some.len() > 1 => {
                let (one, other) = some.split_at(some.len() / 2);
                untried.extend([one, other]);
            }
            Err(error) if is_answer(&error) => {
                refused.add(Refused { names: some.iter().cloned().collect(), error: Some(error) });
            }
            asked => asked?,
        }
    }
    Ok(refused)
}

/// Whether the server said it, and not the line.
fn is_answer(error: &redis::RedisError) -> bool {
    !error.is_io_error() && !error.is_unrecoverable_error()
}
