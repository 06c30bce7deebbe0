use super::*;

/// Nothing in these tests waits for its end.
const NEVER: Duration = Duration::from_secs(3_600);
const LIMITS: BatchLimits = BatchLimits { items: 4, bytes: 100, interval: NEVER, at_once: 2, waiting: 64 };

/// The batches as they were sent. An item is answered with ten times itself.
struct Fixture {
    batcher: Arc<Batcher<u32, u32>>,
    sent: mpsc::UnboundedReceiver<Vec<u32>>,
    /// Batches wait until they are let go.
    gate: Arc<Semaphore>,
    tasks: TaskTracker,
    end: CancellationToken,
}

impl Fixture {
    /// After a first batch: what comes now has one to wait for.
    async fn begun(limits: BatchLimits) -> Self {
        let (tasks, end) = (TaskTracker::new(), CancellationToken::new());
        let (seen, sent) = mpsc::unbounded_channel();
        let gate = Arc::new(Semaphore::new(1_000));
        let places = gate.clone();
        let batcher = Batcher::start(limits, &tasks, &end, move |items: Vec<u32>| {
            let (seen, places) = (seen.clone(), places.clone());
            async move {
                let _ = seen.send(items.clone());
                places.acquire().await.expect("open").forget();
                items.iter().map(|item| item * 10).collect()
            }
        });
        let mut fixture = Self { batcher: Arc::new(batcher), sent, gate, tasks, end };
        assert_eq!(fixture.batcher.submit(1, 1, false).await, Some(10), "the first one goes at once");
        assert_eq!(fixture.next().await, [1]);
        fixture
    }

    fn submit(&self, item: u32, size: usize, is_urgent: bool) -> tokio::task::JoinHandle<Option<u32>> {
        let batcher = self.batcher.clone();
        self.tasks.spawn(async move { batcher.submit(item, size, is_urgent).await })
    }

    async fn next(&mut self) -> Vec<u32> {
        tokio::time::timeout(Duration::from_secs(60), self.sent.recv()).await.expect("a batch").expect("open")
    }

    /// Lets every task come to where it waits.
    async fn until_all_wait(&self) {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn those_that_come_close_together_share_a_batch_when_it_is_time_and_each_gets_its_own_answer() {
    let mut fixture = Fixture::begun(BatchLimits { interval: Duration::from_millis(20), ..LIMITS }).await;
    let answers = [2, 3].map(|item| fixture.submit(item, 1, false));
    assert_eq!(fixture.next().await, [2, 3]);
    for (answer, expected) in answers.into_iter().zip([20, 30]) {
        assert_eq!(answer.await.expect("task"), Some(expected));
    }
}

#[tokio::test]
async fn whoever_is_waited_for_takes_the_others_along() {
    let mut fixture = Fixture::begun(LIMITS).await;
    fixture.submit(2, 1, false);
    fixture.until_all_wait().await;
    assert!(fixture.sent.try_recv().is_err(), "it is not time");
    fixture.submit(3, 1, true);
    assert_eq!(fixture.next().await, [2, 3]);
    fixture.submit(4, 1, false);
    fixture.until_all_wait().await;
    assert!(fixture.sent.try_recv().is_err(), "it is not time");
    fixture.batcher.hurry();
    assert_eq!(fixture.next().await, [4], "somebody waits for it by now");
}

#[tokio::test]
async fn a_batch_has_no_more_than_so_many_and_so_much() {
    let mut fixture = Fixture::begun(LIMITS).await;
    for (item, size) in [(2, 1), (3, 1), (4, 1), (5, 1), (6, 60), (7, 60), (8, 1), (9, 500)] {
        fixture.submit(item, size, false);
    }
    assert_eq!(fixture.next().await, [2, 3, 4, 5], "full: it goes at once");
    assert_eq!(fixture.next().await, [6], "the next one is too large to go along");
    assert_eq!(fixture.next().await, [7, 8], "and so is this one, which is larger than a batch may be");
    assert_eq!(fixture.next().await, [9]);
}

#[tokio::test]
async fn what_comes_while_the_batches_on_their_way_hang_goes_together_when_one_is_back() {
    let mut fixture = Fixture::begun(LIMITS).await;
    fixture.gate.forget_permits(1_000);
    for item in [2, 3] {
        fixture.submit(item, 1, true);
        assert_eq!(fixture.next().await, [item]);
    }
    for item in [4, 5, 6] {
        fixture.submit(item, 1, true);
    }
    fixture.until_all_wait().await;
    assert!(fixture.sent.try_recv().is_err(), "two are on their way");
    fixture.gate.add_permits(1);
    assert_eq!(fixture.next().await, [4, 5, 6]);
}

#[tokio::test]
async fn when_the_worker_ends_nobody_waits_any_more() {
    let mut fixture = Fixture::begun(LIMITS).await;
    fixture.gate.forget_permits(1_000);
    let on_its_way = fixture.submit(2, 1, true);
    fixture.next().await;
    let waits = fixture.submit(3, 1, false);
    fixture.until_all_wait().await;
    fixture.end.cancel();
    assert_eq!(on_its_way.await.expect("task"), None);
    assert_eq!(waits.await.expect("task"), None);
    assert_eq!(fixture.batcher.submit(4, 1, false).await, None);
}
