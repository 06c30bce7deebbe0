//! One task for each partition in which there is something to do: a server of Redis that is away, or hangs, holds up what
//! is about its own tenants and nothing else. What is about one tenant stays in order.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};

use crate::broker::Partition;

/// What a lane's task hears.
pub(super) struct LaneReceiver<T> {
    pub(super) partition: Partition,
    pub(super) queue: mpsc::Receiver<T>,
    /// Something was missed that should have come by the queue.
    pub(super) missed: Arc<Notify>,
    /// What was interrupted goes on: to be said when nothing waits in the queue.
    pub(super) resumed: Arc<Notify>,
}

struct Lane<T> {
    queue: mpsc::Sender<T>,
    missed: Arc<Notify>,
    resumed: Arc<Notify>,
}

type StartLane<T> = Box<dyn Fn(LaneReceiver<T>) + Send + Sync>;

/// The lanes, each of which begins when it is needed for the first time. There are never more than partitions.
pub(super) struct Lanes<T> {
    lanes: Mutex<HashMap<Partition, Lane<T>>>,
    /// How many things may wait in one lane. What becomes of one that finds no room, its sender decides.
    capacity: usize,
    start: StartLane<T>,
}

impl<T> Lanes<T> {
    /// `start`: begins the task of a lane.
    pub(super) fn new(capacity: usize, start: impl Fn(LaneReceiver<T>) + Send + Sync + 'static) -> Self {
        Self { lanes: Mutex::default(), capacity, start: Box::new(start) }
    }

    /// `false`: there is no room.
    pub(super) fn send(&self, partition: Partition, item: T) -> bool {
        self.with(partition, |lane| lane.queue.try_send(item).is_ok())
    }

    /// Tells a lane that it has missed something.
    pub(super) fn missed(&self, partition: Partition) {
        self.with(partition, |lane| lane.missed.notify_one());
    }

    /// Tells a lane that what was interrupted goes on.
    pub(super) fn resumed(&self, partition: Partition) {
        self.with(partition, |lane| lane.resumed.notify_one());
    }

    fn with<R>(&self, partition: Partition, act: impl FnOnce(&Lane<T>) -> R) -> R {
        let mut lanes = self.lanes.lock();
        let lane = lanes.entry(partition).or_insert_with(|| {
            let (sender, queue) = mpsc::channel(self.capacity);
            let (missed, resumed) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
            (self.start)(LaneReceiver { partition, queue, missed: missed.clone(), resumed: resumed.clone() });
            Lane { queue: sender, missed, resumed }
        });
        act(lane)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::broker::Keys;

    #[tokio::test]
    async fn a_lane_that_stands_still_holds_up_no_other_and_says_when_it_is_full() {
        let (heard, mut hears) = mpsc::channel(8);
        let stuck = Keys::new(2).partitions().next().expect("one");
        let other = Keys::new(2).partitions().nth(1).expect("two");
        let lanes = Lanes::new(2, move |mut lane: LaneReceiver<u32>| {
            let heard = heard.clone();
            tokio::spawn(async move {
                if lane.partition == stuck {
                    lane.missed.notified().await;
                }
                while let Some(item) = lane.queue.recv().await {
                    let _ = heard.send(item).await;
                }
            });
        });
        assert!(lanes.send(stuck, 1) && lanes.send(stuck, 2) && !lanes.send(stuck, 3));
        assert!(lanes.send(other, 4));
        assert_eq!(hears.recv().await, Some(4));
        lanes.missed(stuck);
        for expected in [1, 2] {
            let item = tokio::time::timeout(Duration::from_secs(10), hears.recv()).await;
            assert_eq!(item.expect("goes on"), Some(expected));
        }
    }
}
