//! Commands become orders, and only what the client has confirmed has succeeded.

use std::time::Duration;

use serde_json::json;

use super::fixture::RemoteFixture;

/// Long enough for a result that would be wrong to come.
const A_WHILE: Duration = Duration::from_millis(400);

#[tokio::test(flavor = "multi_thread")]
async fn pause_and_cancel_are_answered_when_the_client_has_confirmed_them() {
    let mut fixture = RemoteFixture::start(&[]).await;
    let worker = fixture.worker();
    let mut client = fixture.client(&worker, "s1").await;
    client.attach(1, "acme", "j1").await;
    let mut watching = fixture.watch("j1").await;

    let pause = fixture.command("pause", "j1");
    let order = client.order(1, "pause").await;
    assert_eq!((&order["by"], &order["reason"], order.get("kill")), (&json!("ann"), &json!("a reason"), None));
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(fixture.result("j1", &pause), None, "nothing was confirmed");
    assert_eq!(fixture.fleet.status("acme", "j1").await, "running");
    client.reached(&order, "still").await;
    let result = fixture.result_of("j1", &pause).await;
    assert_eq!((&result["type"], &result["control"]), (&json!("pause_succeeded"), &json!("live")), "{result}");
    assert_eq!(watching.until(&["pause_succeeded"]).await["status"], "paused");

    let resume = fixture.command("resume", "j1");
    let resumed = client.order(1, "resume").await;
    assert!(resumed["order"].as_i64() > order["order"].as_i64(), "{resumed}");
    assert_eq!(fixture.result_of("j1", &resume).await["status"], "running");

    let cancel = fixture.command("cancel", "j1");
    let order = client.order(1, "cancel").await;
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(fixture.result("j1", &cancel), None, "nothing was confirmed");
    client.reached(&order, "ended").await;
    assert_eq!(client.about(1, &["ended"]).await["status"], "cancelled");
    let result = fixture.result_of("j1", &cancel).await;
    assert_eq!((&result["status"], &result["control"]), (&json!("cancelled"), &json!("live")), "{result}");
    assert_eq!(fixture.job("j1")["cancelled_by"], "ann");
}

#[tokio::test(flavor = "multi_thread")]
async fn work_that_refuses_goes_on_and_the_command_fails_with_its_words() {
    let mut fixture = RemoteFixture::start(&[]).await;
    let worker = fixture.worker();
    let mut client = fixture.client(&worker, "s1").await;
    client.attach(1, "acme", "j1").await;
    for action in ["pause", "cancel"] {
        let command = fixture.command(action, "j1");
        let order = client.order(1, action).await;
        let number = order["order"].clone();
        client.send(json!({"type": "reached", "ref": 1, "order": number, "state": "refused", "error": "Not in this thread"})).await;
        let result = fixture.result_of("j1", &command).await;
        assert_eq!(result["error"], "Not in this thread", "{result}");
        assert_eq!(fixture.fleet.status("acme", "j1").await, "running");
    }
    assert_eq!(client.end(1, "completed").await["status"], "completed");
}

#[tokio::test(flavor = "multi_thread")]
async fn work_that_ends_before_the_order_reaches_it_answers_the_command() {
    let mut fixture = RemoteFixture::start(&[]).await;
    let worker = fixture.worker();
    let mut client = fixture.client(&worker, "s1").await;
    for (reference, how, kind, status) in [
        (1, "completed", "cancel_failed", "completed"),
        (2, "failed", "cancel_failed", "failed"),
        (3, "cancelled", "cancel_succeeded", "cancelled"),
        (4, "handed_back", "cancel_succeeded", "cancelled"),
    ] {
        let job = format!("j{reference}");
        client.attach(reference, "acme", &job).await;
        let cancel = fixture.command("cancel", &job);
        client.order(reference, "cancel").await;
        client.end(reference, how).await;
        let result = fixture.result_of(&job, &cancel).await;
        assert_eq!(result["type"], kind, "{how}: {result}");
        fixture.until_status(&job, status).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_to_end_that_is_not_confirmed_comes_again_with_kill_and_the_end_of_the_process_answers_it() {
    let mut fixture = RemoteFixture::start(&[("WORKER__GRACE_SECONDS", "1")]).await;
    let worker = fixture.worker();
    let mut client = fixture.client(&worker, "s1").await;
    client.attach(1, "acme", "j1").await;
    let cancel = fixture.command("cancel", "j1");
    let order = client.order(1, "cancel").await;
    let again = client.order(1, "cancel").await;
    assert_eq!((&again["order"], &again["kill"]), (&order["order"], &json!(true)));
    assert_eq!(fixture.result("j1", &cancel), None);
    drop(client);
    let result = fixture.result_of("j1", &cancel).await;
    assert_eq!((&result["type"], &result["control"]), (&json!("cancel_succeeded"), &json!("live")), "{result}");
    let mut other = fixture.client(&worker, "s2").await;
    assert_eq!(other.attach(1, "acme", "j1").await["status"], "cancelled");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_time_limit_does_not_count_the_time_that_the_job_is_paused() {
    let mut fixture = RemoteFixture::start(&[]).await;
    let worker = fixture.worker();
    let mut client = fixture.client(&worker, "s1").await;
    client.attach_with(1, "acme", "j1", json!({"timeout_seconds": 2})).await;
    let pause = fixture.command("pause", "j1");
    let order = client.order(1, "pause").await;
    client.reached(&order, "still").await;
    fixture.result_of("j1", &pause).await;
    assert_eq!(client.hears_within(1, Duration::from_millis(2_500)).await, None, "it stands");
    fixture.command("resume", "j1");
    client.order(1, "resume").await;
    let order = client.order(1, "time_out").await;
    assert_eq!((&order["by"], &order["reason"]), (&json!("wheelhouse"), &json!("timed out after 2 s")));
    client.reached(&order, "ended").await;
    assert_eq!(client.about(1, &["ended"]).await["status"], "failed");
    assert_eq!(fixture.job("j1")["error_message"], "timed out after 2 s");
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_of_a_client_are_kept_in_the_jobs_output() {
    let mut fixture = RemoteFixture::start(&[]).await;
    let worker = fixture.worker();
    let mut client = fixture.client(&worker, "s1").await;
    client.attach(1, "acme", "j1").await;
    client.send(json!({"type": "log", "ref": 1, "stream": "stderr", "lines": ["first", ""]})).await;
    client.send(json!({"type": "log", "ref": 1, "lines": ["last"]})).await;
    let pool = fixture.fleet.sql().await;
    let read = "SELECT stream, text FROM job_output WHERE tenant_id = 'acme' AND job_id = 'j1' ORDER BY line";
    let until_there = async {
        loop {
            let lines: Vec<(String, String)> = sqlx::query_as(read).fetch_all(&pool).await.expect("read");
            if lines.len() >= 3 {
                return lines;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let lines = tokio::time::timeout(Duration::from_secs(30), until_there).await.expect("the lines are written");
    let line = |stream: &str, text: &str| (stream.to_owned(), text.to_owned());
    assert_eq!(lines, [line("stderr", "first"), line("stderr", ""), line("log", "last")]);
    client.send(json!({"type": "log", "ref": 1, "lines": []})).await;
    let answer = client.about(1, &["error"]).await;
    assert!(answer["message"].as_str().is_some_and(|words| words.contains("lines must be 1 to 1000")), "{answer}");
    client.end(1, "completed").await;
}
