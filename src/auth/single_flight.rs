//! Single flight: of many who want the same read at once, one does it and the others get its answer.

use std::collections::HashMap;
use std::hash::Hash;

use parking_lot::Mutex;
use tokio::sync::watch;

/// The reads under way. No larger than the number of requests that wait for one.
pub(super) struct SingleFlight<K, V> {
    under_way: Mutex<HashMap<K, watch::Receiver<Option<V>>>>,
}

/// What someone who wants a read has to do.
enum Role<V> {
    /// Do it, and tell the others.
    Leader(watch::Sender<Option<V>>),
    /// Wait for the one who does.
    Follower(watch::Receiver<Option<V>>),
}

impl<K: Eq + Hash + Clone, V: Clone> SingleFlight<K, V> {
    pub(super) fn new() -> Self {
        Self { under_way: Mutex::new(HashMap::new()) }
    }

    /// The answer of `read`, or of one like it that was already under way.
    pub(super) async fn run<F: Future<Output = V>>(&self, key: &K, read: impl Fn() -> F) -> V {
        loop {
            match self.join(key) {
                Role::Leader(sender) => {
                    // Also when this request is given up half-way: the followers then find the sender gone.
                    let _guard = LeaderGuard { single_flight: self, key };
                    let answer = read().await;
                    let _ = sender.send(Some(answer.clone()));
                    return answer;
                }
                Role::Follower(mut receiver) => {
                    let answer = receiver.wait_for(Option::is_some).await.ok().and_then(|answer| answer.clone());
                    if let Some(answer) = answer {
                        return answer;
                    }
                    // The one who read was given up: somebody else has to.
                }
            }
        }
    }

    fn join(&self, key: &K) -> Role<V> {
        let mut under_way = self.under_way.lock();
        if let Some(receiver) = under_way.get(key) {
            return Role::Follower(receiver.clone());
        }
        let (sender, receiver) = watch::channel(None);
        under_way.insert(key.clone(), receiver);
        Role::Leader(sender)
    }
}

/// Removes the read from those under way, however it ends. Dropped before the sender is, so that a follower who finds
/// the sender gone also finds that nobody reads.
struct LeaderGuard<'a, K: Eq + Hash, V> {
    single_flight: &'a SingleFlight<K, V>,
    key: &'a K,
}

impl<K: Eq + Hash, V> Drop for LeaderGuard<'_, K, V> {
    fn drop(&mut self) {
        self.single_flight.under_way.lock().remove(self.key);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test]
    async fn many_at_once_read_once_and_the_next_one_reads_again() {
        let single_flight = Arc::new(SingleFlight::<u8, usize>::new());
        let reads = Arc::new(AtomicUsize::new(0));
        let gate = Arc::new(Semaphore::new(0));
        let one = |single_flight: Arc<SingleFlight<u8, usize>>| {
            let (reads, gate) = (Arc::clone(&reads), Arc::clone(&gate));
            async move {
                single_flight
                    .run(&7, || async {
                        let number = reads.fetch_add(1, Ordering::SeqCst);
                        gate.acquire().await.expect("open").forget();
                        number
                    })
                    .await
            }
        };
        let many = futures_util::future::join_all((0..50).map(|_| one(Arc::clone(&single_flight))));
        let opened = async { gate.add_permits(1) };
        let (answers, ()) = tokio::join!(many, opened);
        assert_eq!(answers, vec![0; 50]);
        gate.add_permits(1);
        assert_eq!(one(Arc::clone(&single_flight)).await, 1);
        assert!(single_flight.under_way.lock().is_empty());
    }

    #[tokio::test]
    async fn a_reader_who_is_given_up_leaves_the_read_to_another() {
        let single_flight = Arc::new(SingleFlight::<u8, u8>::new());
        let shared = Arc::clone(&single_flight);
        let (started, mut has_started) = tokio::sync::mpsc::channel(1);
        let first = tokio::spawn(async move {
            shared
                .run(&7, || async {
                    started.send(()).await.expect("heard");
                    std::future::pending().await
                })
                .await
        });
        has_started.recv().await.expect("started");
        let shared = Arc::clone(&single_flight);
        let second = tokio::spawn(async move { shared.run(&7, || async { 2 }).await });
        tokio::task::yield_now().await;
        first.abort();
        assert_eq!(second.await.expect("answer"), 2);
    }
}
