//! Who gets a job: the row decides.

use serde_json::json;

use super::fixture::RemoteFixture;

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_nobody_knows_is_inserted_and_runs_to_its_end() {
    let mut fixture = RemoteFixture::start(&[]).await;
    let worker = fixture.worker();
    let mut client = fixture.client(&worker, "s1").await;
    let more =
        json!({"job_type": "celery:import", "title": "An import", "parameters": {"a": 1.10}, "created_by": "bob"});
    let attached = client.attach_with(1, "acme", "j1", more).await;
    let expected = json!({"type": "attached", "ref": 1, "run": 1, "status": "running", "resume_point": null});
    assert_eq!(attached, expected);
    let job = fixture.job("j1");
    assert_eq!(
        (&job["status"], &job["job_type"], &job["control"]),
        (&json!("running"), &json!("celery:import"), &json!("live"))
    );
    client
        .send(json!({"type": "progress", "ref": 1, "items_total": 10, "items_processed": 4, "progress_percent": 40.5}))
        .await;
    client.send(json!({"type": "progress", "ref": 1, "items_processed": 5, "current_item": "row 5"})).await;
    client.send(json!({"type": "save", "ref": 1, "n": 1, "point": {"row": 5}})).await;
    assert_eq!(client.about(1, &["saved"]).await["n"], 1);
    let job = fixture.job("j1");
    assert_eq!(
        (&job["items_total"], &job["items_processed"], &job["progress_percent"]),
        (&json!(10), &json!(5), &json!(40))
    );
    client.send(json!({"type": "end", "ref": 1, "how": "completed", "result": {"rows": 10}})).await;
    assert_eq!(client.about(1, &["ended"]).await["status"], "completed");
    let job = fixture.job("j1");
    assert_eq!((&job["status"], &job["result"]), (&json!("completed"), &json!({"rows": 10})));
    // Whoever asks again is told that it has ended, also under another number and with the run.
    for (reference, more) in [(2, json!({})), (3, json!({"run": 1}))] {
        let refused = client.attach_with(reference, "acme", "j1", more).await;
        assert_eq!((&refused["error"], &refused["status"]), (&json!("ended"), &json!("completed")), "{refused}");
    }
    // The end that is said again is answered again.
    assert_eq!(client.end(1, "completed").await["status"], "completed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_there_is_adopted_with_its_resume_point_and_a_paused_one_stays_paused() {
    let mut fixture = RemoteFixture::start(&[]).await;
    let worker = fixture.worker();
    let sql = fixture.fleet.sql().await;
    for (id, status) in [("pending", "pending"), ("running", "running"), ("paused", "paused"), ("done", "completed")] {
        let text = "INSERT INTO jobs (id, tenant_id, status, resume_point) VALUES ($1, 'acme', $2, '{\"at\":7}')";
        sqlx::query(text).bind(id).bind(status).execute(&sql).await.expect("insert");
    }
    let mut client = fixture.client(&worker, "s1").await;
    for (reference, id, status) in [(1, "pending", "running"), (2, "running", "running"), (3, "paused", "paused")] {
        let attached = client.attach(reference, "acme", id).await;
        assert_eq!(
            (&attached["status"], &attached["resume_point"]),
            (&json!(status), &json!({"at": 7})),
            "{id}: {attached}"
        );
        assert_eq!(fixture.job(id)["status"], status);
    }
    assert_eq!(client.attach(4, "acme", "done").await["error"], "ended");
    // The paused one begins when it is resumed, and not before.
    assert_eq!(client.hears_within(3, std::time::Duration::from_millis(300)).await, None);
    let command = fixture.command("resume", "paused");
    let order = client.order(3, "resume").await;
    assert_eq!((&order["by"], &order["reason"]), (&json!("ann"), &json!("a reason")));
    assert_eq!(fixture.result_of("paused", &command).await["status"], "running");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_of_another_live_session_is_elsewhere_and_goes_on_with_whoever_comes_after_goodbye() {
    let mut fixture = RemoteFixture::start(&[]).await;
    let worker = fixture.worker();
    let mut first = fixture.client(&worker, "s1").await;
    let mut second = fixture.client(&worker, "s2").await;
    assert_eq!(first.attach(1, "acme", "j1").await["type"], "attached");
    let refused = second.attach(1, "acme", "j1").await;
    assert_eq!(refused["error"], "elsewhere", "{refused}");
    assert!(refused["retry_after"].as_u64().is_some_and(|seconds| seconds >= 1), "{refused}");
    // The same session does not run it twice either.
    assert_eq!(first.attach(2, "acme", "j1").await["error"], "elsewhere");
    first.send(json!({"type": "save", "ref": 1, "n": 1, "point": 3})).await;
    first.about(1, &["saved"]).await;
    first
        .socket
        .send_raw(tokio_tungstenite::tungstenite::Message::Close(Some(
            tokio_tungstenite::tungstenite::protocol::CloseFrame { code: 1000_u16.into(), reason: "".into() },
        )))
        .await;
    fixture.until_status("j1", "pending").await;
    assert_eq!(fixture.job("j1")["control"], "row");
    let attached = second.attach(2, "acme", "j1").await;
    assert_eq!((&attached["run"], &attached["resume_point"]), (&json!(2), &json!(3)), "{attached}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_tenant_is_denied_and_a_bad_field_is_invalid() {
    let mut fixture = RemoteFixture::start(&[]).await;
    let worker = fixture.worker();
    let mut client = fixture.client(&worker, "s1").await;
    assert_eq!(client.attach(1, "globex", "j1").await["error"], "denied");
    client.send(json!({"type": "expect", "ref": 2, "tenant_id": "globex", "job_id": "j1"})).await;
    assert_eq!(client.about(2, &["refused", "expected"]).await["error"], "denied");
    assert_eq!(client.attach_with(3, "acme", "j1", json!({"campaign_id": "nowhere"})).await["error"], "invalid");
}
