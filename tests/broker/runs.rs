//! Runs of one worker, told of together: `lua/update_runs.lua`, `lua/end_runs.lua`.

use wheelhouse::broker::BrokerError;
use wheelhouse::broker::scripts::runs::{EndedRun, RunMessage, RunState, RunUpdate};
use wheelhouse::broker::scripts::updates::Update;
use wheelhouse::broker::{Broker, Event, Subscriber};
use wheelhouse::domain::{Action, JobStatus, Progress};
use wheelhouse::protocol::server;

use crate::support::redis::RedisServer;
use crate::{accept, claim, connect, job, submission, worker};

const HELD: RunState = RunState::Held { waiting: 0 };

/// How far a run is.
fn at(id: &str, run: i64, items: i64) -> RunUpdate {
    let progress = Progress { items_processed: items, ..Progress::default() };
    let message = server::job_progress(&job(id), JobStatus::Running, &progress);
    RunUpdate {
        job: job(id),
        run,
        keep: false,
        message: Some(RunMessage { text: message, progress: Some(progress), fence: None }),
    }
}

fn renewal(id: &str, run: i64) -> RunUpdate {
    RunUpdate { job: job(id), run, keep: false, message: None }
}

async fn live(broker: &Broker, id: &str) -> (i64, Option<i64>) {
    let live = broker.live(&job(id)).await.expect("live");
    (live.seq, live.progress.map(|progress| progress.items_processed))
}

#[tokio::test]
async fn in_one_call_each_run_has_its_own_fence_and_its_own_number() {
    let redis = RedisServer::start();
    let broker = connect(&redis).await;
    let (tracker, stop) = (tokio_util::task::TaskTracker::new(), tokio_util::sync::CancellationToken::new());
    let (subscriber, mut events) = Subscriber::start(&broker, &tracker, stop.clone()).await.expect("subscribe");
    subscriber.psubscribe(vec!["acme:job:*".to_owned()]).await.expect("subscribe");
    let host = worker("host");
    for id in ["mine", "taken", "ended", "waited-for", "idle"] {
        assert_eq!(broker.renew_run(&job(id), &host, 1).await.expect("run"), HELD);
    }
    broker.renew_run(&job("taken"), &worker("other"), 2).await.expect("run");
    broker.end_run(&job("ended"), 1).await.expect("end");
    accept(&broker, &submission("waited-for", Action::Pause)).await;

    let told = [at("mine", 1, 7), at("taken", 1, 7), at("ended", 1, 7), at("waited-for", 1, 8), renewal("idle", 1)];
    let answers = broker.update_runs(&host, &told).await.expect("answers");
    let states: Vec<RunState> = answers.into_iter().map(|answer| answer.expect("state")).collect();
    assert_eq!(states, [HELD, RunState::Lost, RunState::Lost, RunState::Held { waiting: 1 }, HELD]);
    assert_eq!(live(&broker, "mine").await, (1, Some(7)));
    assert_eq!(live(&broker, "taken").await, (0, None), "nothing of a run that is over is kept");
    assert_eq!(live(&broker, "ended").await, (0, None));
    assert_eq!(live(&broker, "waited-for").await, (1, Some(8)));
    assert_eq!(live(&broker, "idle").await, (0, None));
    broker.update_runs(&host, &[at("mine", 1, 9)]).await.expect("answers");

    let mut heard = Vec::new();
    while heard.len() < 3 {
        if let Event::Message { channel, payload, .. } = events.recv().await.expect("it is heard") {
            let message: serde_json::Value = serde_json::from_slice(&payload).expect("JSON");
            // The command wakes workers on a channel of the same form.
            if message["type"] == "job_progress" {
                heard.push((channel, message["items_processed"].as_i64(), message["seq"].as_i64()));
            }
        }
    }
    let expected = [("mine", 7, 1), ("waited-for", 8, 1), ("mine", 9, 2)];
    assert_eq!(heard, expected.map(|(id, items, seq)| (format!("acme:job:{id}"), Some(items), Some(seq))));
    stop.cancel();
}

#[tokio::test]
async fn a_state_that_cannot_be_read_is_an_error_of_its_own_run_alone() {
    let redis = RedisServer::start();
    let broker = connect(&redis).await;
    let host = worker("host");
    let command = |name: &str, key: String| vec![name.to_owned(), key, "by hand".to_owned()];
    broker.query_any(&command("SET", broker.keys().state(&job("corrupt")))).await.expect("write");
    broker.query_any(&command("SET", broker.keys().queue(&job("no-queue")))).await.expect("write");
    let told = [at("before", 1, 1), at("corrupt", 1, 1), at("no-queue", 1, 1), at("after", 1, 1)];
    let answers = broker.update_runs(&host, &told).await.expect("answers");
    assert!(matches!(answers[0], Ok(HELD)) && matches!(answers[3], Ok(HELD)), "{answers:?}");
    for corrupt in &answers[1..3] {
        assert!(matches!(corrupt, Err(BrokerError::Refused(words)) if words.contains("WRONGTYPE")), "{corrupt:?}");
    }
    assert_eq!((live(&broker, "before").await, live(&broker, "after").await), ((1, Some(1)), (1, Some(1))));
}

#[tokio::test]
async fn a_new_host_forgets_the_progress_of_the_one_before_and_what_is_known_is_kept_for_a_week() {
    let redis = RedisServer::start();
    let broker = connect(&redis).await;
    broker.update_runs(&worker("first"), &[at("j1", 1, 40)]).await.expect("answers");
    broker.update_runs(&worker("second"), &[renewal("j1", 2)]).await.expect("answers");
    assert_eq!(live(&broker, "j1").await, (1, None), "it begins anew, and its numbers go on");
    let seconds_left = async || {
        let asked = ["TTL".to_owned(), broker.keys().state(&job("j1"))];
        broker.query_any(&asked).await.expect("TTL").join("").parse::<i64>().expect("a number")
    };
    let shorten = ["EXPIRE".to_owned(), broker.keys().state(&job("j1")), "500".to_owned()];
    assert!(seconds_left().await > 604_000, "from the start");
    broker.query_any(&shorten).await.expect("EXPIRE");
    broker.update_runs(&worker("second"), &[at("j1", 2, 1)]).await.expect("answers");
    assert!(seconds_left().await <= 500, "not with each of them");
    broker.update_runs(&worker("second"), &[RunUpdate { keep: true, ..renewal("j1", 2) }]).await.expect("answers");
    assert!(seconds_left().await > 604_000);
}

#[tokio::test]
async fn runs_that_end_together_are_told_of_each_with_its_own_number_and_none_that_is_not_the_newest() {
    let redis = RedisServer::start();
    let broker = connect(&redis).await;
    let (tracker, stop) = (tokio_util::task::TaskTracker::new(), tokio_util::sync::CancellationToken::new());
    let (subscriber, mut events) = Subscriber::start(&broker, &tracker, stop.clone()).await.expect("subscribe");
    let channels = ["done", "taken", "waited-for", "silent"].map(|id| format!("acme:job:{id}"));
    subscriber.subscribe(channels.to_vec()).await.expect("subscribe");
    let host = worker("host");
    broker.update_runs(&host, &[at("done", 1, 5)]).await.expect("answers");
    for id in ["taken", "waited-for", "silent"] {
        assert_eq!(broker.renew_run(&job(id), &host, 1).await.expect("run"), HELD);
    }
    broker.renew_run(&job("taken"), &worker("other"), 2).await.expect("run");
    accept(&broker, &submission("waited-for", Action::Pause)).await;
    broker
        .query_any(&["SET".to_owned(), broker.keys().state(&job("corrupt")), "by hand".to_owned()])
        .await
        .expect("write");

    let ended = |id: &str, status| EndedRun {
        job: job(id),
        run: 1,
        message: Some(server::job_status(&job(id), status, None)),
        fence: None,
    };
    let runs = [
        ended("done", JobStatus::Completed),
        ended("taken", JobStatus::Pending),
        ended("corrupt", JobStatus::Failed),
        ended("waited-for", JobStatus::Failed),
        EndedRun { message: None, ..ended("silent", JobStatus::Failed) },
    ];
    let answers = broker.end_runs(&runs).await.expect("answers");
    assert!(matches!(&answers[2], Err(BrokerError::Refused(words)) if words.contains("WRONGTYPE")), "{answers:?}");
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 4, "{answers:?}");
    assert_eq!(live(&broker, "done").await, (2, None), "its progress is forgotten, and its numbers go on");
    assert_eq!(live(&broker, "taken").await, (0, None), "its newer run has nothing to do with that");
    for (id, number) in [("done", 1), ("waited-for", 1), ("silent", 1)] {
        assert_eq!(broker.renew_run(&job(id), &host, number).await.expect("run"), RunState::Lost, "{id} is over");
    }
    assert_eq!(broker.renew_run(&job("taken"), &worker("other"), 2).await.expect("run"), HELD);
    // What waited for the host is anybody's.
    claim(&broker, "waited-for", "another").await;

    let mut heard = Vec::new();
    while heard.len() < 3 {
        if let Event::Message { channel, payload, .. } = events.recv().await.expect("it is heard") {
            let message: serde_json::Value = serde_json::from_slice(&payload).expect("JSON");
            let says = message["status"].as_str().unwrap_or_default().to_owned();
            heard.push((
                channel,
                message["type"].as_str().unwrap_or_default().to_owned(),
                says,
                message["seq"].as_i64(),
            ));
        }
    }
    let expected = [
        ("done", "job_progress", "running", 1),
        ("done", "job_status", "completed", 2),
        ("waited-for", "job_status", "failed", 1),
    ];
    let expected =
        expected.map(|(id, kind, status, seq)| (format!("acme:job:{id}"), kind.into(), status.into(), Some(seq)));
    assert_eq!(heard, expected);
    stop.cancel();
}

#[tokio::test]
async fn what_comes_late_of_the_end_of_a_run_changes_nothing_of_what_was_told_since() {
    let redis = RedisServer::start();
    let broker = connect(&redis).await;
    let host = worker("host");
    let end = async |id: &str, run: i64, status: JobStatus| {
        let ended =
            EndedRun { job: job(id), run, message: Some(server::job_status(&job(id), status, None)), fence: None };
        let answers = broker.end_runs(&[ended]).await.expect("answers");
        assert!(matches!(answers[..], [Ok(true)]), "{answers:?}");
        live(&broker, id).await.0
    };
    assert_eq!(broker.renew_run(&job("retried"), &host, 1).await.expect("run"), HELD);
    assert_eq!(end("retried", 1, JobStatus::Pending).await, 1);
    // The answer to that was lost, and it is told again after the waiting job was cancelled.
    let cancelled = Update { message: server::job_status(&job("retried"), JobStatus::Cancelled, None), desired: None };
    assert_eq!(broker.publish_update(&job("retried"), &cancelled).await.expect("publish"), 2);
    assert_eq!(end("retried", 1, JobStatus::Pending).await, 2, "it is not told again");

    // Redis has not heard that the second run began, and hears of its end first.
    assert_eq!(broker.renew_run(&job("overtaken"), &host, 1).await.expect("run"), HELD);
    assert_eq!(end("overtaken", 2, JobStatus::Failed).await, 1);
    assert_eq!(end("overtaken", 1, JobStatus::Pending).await, 1, "the older run is not heard of any more");
    assert_eq!(broker.renew_run(&job("overtaken"), &host, 2).await.expect("run"), RunState::Lost, "it stays over");
}

#[tokio::test]
async fn a_status_from_before_a_command_was_claimed_is_not_told_and_one_from_after_it_is() {
    let redis = RedisServer::start();
    let broker = connect(&redis).await;
    let host = worker("host");
    let message = |status| server::job_status(&job("j1"), status, None);
    let begins = async |run: i64, fence: i64| {
        let told = RunMessage { text: message(JobStatus::Running), progress: None, fence: Some(fence) };
        let update = RunUpdate { job: job("j1"), run, keep: true, message: Some(told) };
        broker.update_runs(&host, &[update]).await.expect("answers").pop().expect("one").expect("state")
    };
    let ends = async |run: i64, status: JobStatus, fence: Option<i64>| {
        let ended = EndedRun { job: job("j1"), run, message: Some(message(status)), fence };
        broker.end_runs(&[ended]).await.expect("answers").pop().expect("one").expect("ended")
    };
    let told = async || live(&broker, "j1").await.0;
    assert_eq!((begins(1, 0).await, told().await), (HELD, 1));
    broker.end_run(&job("j1"), 1).await.expect("end");
    // It waits to be tried again. While its worker stands still, another one carries out a cancel.
    accept(&broker, &submission("j1", Action::Cancel)).await;
    let claim = claim(&broker, "j1", "another").await;
    let cancelled = Update { message: message(JobStatus::Cancelled), desired: None };
    assert_eq!(broker.publish_update(&job("j1"), &cancelled).await.expect("publish"), 2);
    assert_eq!((begins(2, 0).await, told().await), (RunState::Overtaken, 2), "a start from before it is not heard of");
    assert!(!ends(2, JobStatus::Pending, Some(0)).await, "nor is an end, and somebody has to look at the row");
    assert_eq!(told().await, 2);
    assert_eq!(broker.renew_run(&job("j1"), &host, 2).await.expect("run"), RunState::Lost, "it is over all the same");
    // What was written with that command, or has ended for good, is told.
    assert_eq!((begins(3, claim.fence).await, told().await), (RunState::Held { waiting: 1 }, 3));
    assert_eq!((ends(3, JobStatus::Pending, Some(claim.fence)).await, told().await), (true, 4));
    assert_eq!((begins(4, 0).await, told().await), (RunState::Overtaken, 4));
    assert_eq!((ends(4, JobStatus::Completed, None).await, told().await), (true, 5));
}
