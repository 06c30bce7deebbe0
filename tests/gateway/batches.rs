//! Batches on the tenant-wide socket: an answer for each resource, its result, and one summary.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use wheelhouse::broker::scripts::claim::ClaimOutcome;

use crate::fixture::{GatewayFixture, job, worker};
use crate::support::socket::Socket;

/// Jobs `b0`, `b1`, …; gives their ids.
async fn jobs(fixture: &GatewayFixture, count: usize) -> Vec<String> {
    let ids: Vec<String> = (0..count).map(|n| format!("b{n}")).collect();
    for id in &ids {
        fixture.job(id).await;
    }
    ids
}

/// A worker that answers every command on these jobs, as fast as it can, until it is dropped.
fn working(fixture: &Arc<GatewayFixture>, ids: &[String]) -> tokio::task::JoinHandle<()> {
    let (fixture, ids) = (fixture.clone(), ids.to_vec());
    tokio::spawn(async move {
        loop {
            for id in &ids {
                if let Ok(ClaimOutcome::Command(claim)) =
                    fixture.broker.claim(&job(id), &worker(), Duration::from_secs(30)).await
                {
                    fixture.succeed(&claim).await;
                }
            }
            tokio::task::yield_now().await;
        }
    })
}

/// Sends a message and gives its answer. On a machine with much else to do a database may be slow to answer once:
/// `unavailable` says that nothing was done, and it is sent again.
async fn asked(socket: &mut Socket, message: Value) -> Value {
    loop {
        socket.send(message.clone()).await;
        let answer = socket.next().await;
        if answer["error"] != "unavailable" {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

async fn is_quiet(socket: &mut Socket) {
    socket.send(json!({"type": "ping"})).await;
    assert_eq!(socket.next().await, json!({"type": "pong"}));
}

fn budget_used(fixture: &GatewayFixture) -> String {
    let (tenant, user) = ("acme".parse().expect("tenant"), "ann".parse().expect("user"));
    fixture.redis.inline(&format!("LLEN {}", fixture.broker.keys().rate(&tenant, &user)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_is_answered_for_each_resource_then_come_the_results_and_one_summary_to_who_asked() {
    let fixture = GatewayFixture::new().await;
    let (one, other) = (fixture.gateway().await, fixture.gateway().await);
    let ids = jobs(&fixture, 3).await;
    let (mut asking, mut far) = (fixture.tenant_socket(&one).await, fixture.tenant_socket(&other).await);
    let mut on_one = fixture.socket(&one, "jobs/b1").await;
    asking
        .send(json!({"type": "cancel_jobs", "job_ids": ["b0", "gone", "b1", "b2", "b1"], "request_id": "r1", "reason": "x"}))
        .await;
    let ack = asking.next().await;
    assert_eq!(ack["type"], "batch_requested", "{ack}");
    for (field, value) in [
        ("action", json!("cancel")),
        ("kind", json!("job")),
        ("tenant_id", json!("acme")),
        ("total", json!(4)),
        ("accepted", json!(3)),
        ("refused", json!(1)),
        ("workers_online", json!(0)),
        ("more", json!(false)),
        ("request_id", json!("r1")),
    ] {
        assert_eq!(ack[field], value, "{field} of {ack}");
    }
    assert_eq!(
        ack["items"][1],
        json!({"job_id": "gone", "error": "not_found", "message": "There is no job gone in your tenant"})
    );
    for id in &ids {
        let claim = fixture.claim(&job(id)).await;
        let item = ack["items"].as_array().expect("items").iter().find(|item| item["job_id"] == **id).expect("item");
        assert_eq!(item["command_id"], claim.command.to_string());
        let result = fixture.succeed(&claim).await;
        assert_eq!(asking.next_text().await.0, result);
        assert_eq!(far.next_text().await.0, result);
        if id == "b1" {
            assert_eq!(on_one.next_text().await.0, result);
        }
    }
    let summary = format!(
        r#"{{"type":"batch_completed","batch_id":{},"tenant_id":"acme","action":"cancel","total":4,"succeeded":3,"failed":0,"refused":1,"request_id":"r1"}}"#,
        ack["batch_id"]
    );
    assert_eq!(asking.next_text().await.0, summary);
    for socket in [&mut asking, &mut far, &mut on_one] {
        is_quiet(socket).await;
    }
    assert_eq!(budget_used(&fixture), ":1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ack_is_first_and_the_summary_last_however_fast_the_workers_are_and_whatever_is_subscribed() {
    let fixture = Arc::new(GatewayFixture::with(&[("limits.commands_per_minute", "1000")]).await);
    let gateway = fixture.gateway().await;
    let ids = jobs(&fixture, 120).await;
    let mut socket = fixture.tenant_socket(&gateway).await;
    // Nothing of jobs: their results come all the same, because this socket asked for them.
    socket.send(json!({"type": "subscribe", "filter": {"kinds": ["campaign"]}})).await;
    assert_eq!(socket.next().await["type"], "subscription");
    let worker = working(&fixture, &ids);
    for round in 0..6 {
        let action = if round % 2 == 0 { "pause" } else { "resume" };
        socket.send(json!({"type": format!("{action}_jobs"), "job_ids": ids})).await;
        let ack = socket.next().await;
        assert_eq!((&ack["type"], &ack["accepted"]), (&json!("batch_requested"), &json!(120)), "{ack}");
        let mut told: Vec<String> = Vec::new();
        let summary = loop {
            let next = socket.next().await;
            if next["type"] == "batch_completed" {
                break next;
            }
            assert_eq!(next["type"], format!("{action}_succeeded"), "{next}");
            told.push(next["command_id"].as_str().expect("id").to_owned());
        };
        assert_eq!((&summary["succeeded"], &summary["batch_id"]), (&json!(120), &ack["batch_id"]));
        let mut expected: Vec<String> =
            ack["items"].as_array().expect("items").iter().map(|i| text(i, "command_id")).collect();
        expected.sort();
        told.sort();
        assert_eq!(told, expected);
    }
    worker.abort();
    is_quiet(&mut socket).await;
}

fn text(value: &Value, name: &str) -> String {
    value[name].as_str().expect("text").to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_runs_on_when_its_socket_is_gone_and_a_repeat_elsewhere_gets_ack_results_and_summary() {
    let fixture = GatewayFixture::new().await;
    let (one, other) = (fixture.gateway().await, fixture.gateway().await);
    let ids = jobs(&fixture, 3).await;
    let request =
        json!({"type": "pause_jobs", "filter": {"status": "pending", "job_type": "demo"}, "request_id": "r1"});
    let mut first = fixture.tenant_socket(&one).await;
    first.send(request.clone()).await;
    let ack = first.next().await;
    // The bed's own job j1 fits too.
    assert_eq!((&ack["type"], &ack["total"]), (&json!("batch_requested"), &json!(4)), "{ack}");
    drop(first);
    let claim = fixture.claim(&job(&ids[0])).await;
    let known = fixture.succeed(&claim).await;
    // What the filter would find by now is not what it was about.
    fixture.job("later").await;
    let mut second = fixture.tenant_socket(&other).await;
    second.send(request.clone()).await;
    assert_eq!(second.next().await, ack);
    assert_eq!(second.next_text().await.0, known);
    for id in ["b1", "b2", "j1"] {
        let claim = fixture.claim(&job(id)).await;
        let result = fixture.succeed(&claim).await;
        assert_eq!(second.next_text().await.0, result);
    }
    let summary = second.next().await;
    assert_eq!((&summary["type"], &summary["succeeded"]), (&json!("batch_completed"), &json!(4)), "{summary}");
    // All over: everything at once.
    let mut third = fixture.tenant_socket(&one).await;
    third.send(request).await;
    assert_eq!(third.next().await, ack);
    for _ in 0..4 {
        assert_eq!(third.next().await["type"], "pause_succeeded");
    }
    assert_eq!(third.next().await, summary);
    assert_eq!(budget_used(&fixture), ":1");
    third.send(json!({"type": "cancel_jobs", "job_ids": ["b1"], "request_id": "r1"})).await;
    let refused = third.next().await;
    assert_eq!((&refused["error"], &refused["request_id"]), (&json!("request_conflict"), &json!("r1")), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_is_refused_as_a_whole_with_the_reason() {
    let fixture = GatewayFixture::with(&[("limits.commands_per_minute", "2")]).await;
    let gateway = fixture.gateway().await;
    let ids = jobs(&fixture, 201).await;
    let mut socket = fixture.tenant_socket(&gateway).await;
    let mut refused = async |message: Value| {
        socket.send(message).await;
        let answer = socket.next().await;
        assert_eq!((&answer["type"], &answer["request_id"]), (&json!("error"), &json!("r")), "{answer}");
        answer
    };
    let many: Vec<String> = (0..1_001).map(|n| format!("x{n}")).collect();
    for (message, words) in [
        (
            json!({"type": "cancel_jobs", "job_ids": ids, "request_id": "r"}),
            "201 uses 3 commands of the budget, which has 2",
        ),
        (json!({"type": "cancel_jobs", "job_ids": many, "request_id": "r"}), "1000 at most, and names 1001"),
        (json!({"type": "cancel_jobs", "job_ids": [], "request_id": "r"}), "job_ids is empty"),
        (json!({"type": "cancel_jobs", "job_ids": ["a"], "filter": {}, "request_id": "r"}), "not both"),
        (json!({"type": "cancel_jobs", "filter": {"state": "running"}, "request_id": "r"}), "unknown field `state`"),
        (json!({"type": "cancel_jobs", "job_ids": ["a"], "delay_seconds": 9, "request_id": "r"}), "runs at once"),
    ] {
        let answer = refused(message).await;
        assert_eq!(answer["error"], "invalid_message");
        assert!(answer["message"].as_str().is_some_and(|m| m.contains(words)), "{answer}");
    }
    // Neither was counted. And whoever may not do it learns that, whatever there is.
    fixture.grant("bob", &["jobs.read"]).await;
    let mut bob = fixture.tenant_socket_of(&gateway, &fixture.token("bob", "acme")).await;
    for ids in [json!(["b1"]), json!(["none-such"])] {
        bob.send(json!({"type": "cancel_jobs", "job_ids": ids, "request_id": "r2"})).await;
        let answer = bob.next().await;
        let expected = json!({"type": "error", "error": "permission_denied", "message": "Insufficient permissions to cancel job", "request_id": "r2"});
        if ids == json!(["b1"]) {
            assert_eq!(answer, expected);
        } else {
            assert_eq!(answer["error"], "request_conflict");
        }
    }
    assert_eq!(asked(&mut socket, json!({"type": "cancel_jobs", "job_ids": ids[..100]})).await["accepted"], 100);
    // Of the two that it would use one is left.
    let limited = asked(&mut socket, json!({"type": "cancel_jobs", "job_ids": ids[100..], "request_id": "r3"})).await;
    assert_eq!((&limited["error"], &limited["request_id"]), (&json!("rate_limit_exceeded"), &json!("r3")), "{limited}");
    assert!(limited["retry_after"].as_i64().is_some_and(|seconds| (1..=60).contains(&seconds)), "{limited}");
    assert_eq!(budget_used(&fixture), ":1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dry_run_says_what_it_would_hit_and_does_nothing() {
    let fixture = GatewayFixture::new().await;
    let gateway = fixture.gateway().await;
    jobs(&fixture, 5).await;
    fixture.sql("UPDATE jobs SET status = 'running' WHERE id IN ('b1', 'b2', 'b3')").await;
    fixture.sql("UPDATE jobs SET status = 'completed' WHERE id = 'b0'").await;
    fixture.sql("UPDATE jobs SET campaign_id = 'c1' WHERE id IN ('b2', 'b3', 'b4')").await;
    fixture.sql("UPDATE jobs SET job_type = 'other' WHERE id = 'b3'").await;
    let mut socket = fixture.tenant_socket(&gateway).await;
    for (filter, hit) in [
        (json!({}), json!(["b4", "b3", "b2", "b1", "j1"])),
        (json!({"status": "running"}), json!(["b3", "b2", "b1"])),
        (json!({"status": ["pending", "running"], "campaign_id": "c1"}), json!(["b4", "b3", "b2"])),
        (json!({"status": "running", "campaign_id": "c1", "job_type": "demo"}), json!(["b2"])),
        (json!({"campaign_id": "none"}), json!([])),
    ] {
        socket.send(json!({"type": "cancel_jobs", "filter": filter, "dry_run": true})).await;
        let preview = socket.next().await;
        assert_eq!(preview["type"], "batch_preview", "{preview}");
        let ids: Vec<&Value> = preview["items"].as_array().expect("items").iter().map(|item| &item["job_id"]).collect();
        assert_eq!(json!(ids), hit, "{filter}");
        assert_eq!(preview["cost"], i64::from(!ids.is_empty()));
    }
    socket
        .send(json!({"type": "pause_campaigns", "campaign_ids": ["c1", "c2"], "dry_run": true, "request_id": "d"}))
        .await;
    assert_eq!(
        socket.next().await,
        json!({
            "type": "batch_preview", "action": "pause", "kind": "campaign", "tenant_id": "acme", "total": 2, "accepted": 1,
            "refused": 1, "cost": 1, "more": false, "request_id": "d",
            "items": [{"campaign_id": "c1"},
                {"campaign_id": "c2", "error": "not_found", "message": "There is no campaign c2 in your tenant"}],
        })
    );
    assert_eq!(budget_used(&fixture), ":0");
    // Of another tenant nothing is hit, and what is there is not told to whoever may not read it.
    fixture.grant("eve", &["*"]).await;
    let mut eve = fixture.tenant_socket_of(&gateway, &fixture.token("eve", "globex")).await;
    eve.send(json!({"type": "cancel_jobs", "job_ids": ["b1"]})).await;
    let ack = eve.next().await;
    assert_eq!((&ack["accepted"], &ack["items"][0]["error"]), (&json!(0), &json!("not_found")), "{ack}");
    assert_eq!(eve.next().await["type"], "batch_completed");
    fixture.grant("bob", &["jobs.cancel", "campaigns.read"]).await;
    let mut bob = fixture.tenant_socket_of(&gateway, &fixture.token("bob", "acme")).await;
    bob.send(json!({"type": "cancel_jobs", "filter": {}, "dry_run": true})).await;
    assert_eq!(bob.next().await["message"], "Insufficient permissions to read job");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_filter_takes_the_first_thousand_and_says_that_there_are_more() {
    let fixture = GatewayFixture::with(&[("limits.commands_per_minute", "10")]).await;
    let gateway = fixture.gateway().await;
    fixture
        .sql(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1100)
         INSERT INTO jobs (id, tenant_id, job_type) SELECT 'm' || i, 'acme', 'many' FROM n",
        )
        .await;
    let mut socket = fixture.tenant_socket(&gateway).await;
    socket.send(json!({"type": "cancel_jobs", "filter": {"job_type": "many"}})).await;
    let ack = socket.next().await;
    assert_eq!((&ack["total"], &ack["accepted"], &ack["more"]), (&json!(1_000), &json!(1_000), &json!(true)));
    assert_eq!(budget_used(&fixture), ":10");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_filter_that_fits_nothing_is_answered_with_an_empty_batch_and_the_workers_that_are_online() {
    let fixture = GatewayFixture::new().await;
    let gateway = fixture.gateway().await;
    for worker in ["w1", "w2"] {
        let worker = worker.parse().expect("id");
        fixture.broker.heartbeat(&worker, None, Duration::from_secs(60)).await.expect("heartbeat");
    }
    let mut socket = fixture.tenant_socket(&gateway).await;
    socket.send(json!({"type": "pause_jobs", "filter": {"job_type": "none"}})).await;
    let ack = socket.next().await;
    assert_eq!((&ack["type"], &ack["total"]), (&json!("batch_requested"), &json!(0)), "{ack}");
    assert_eq!((&ack["workers_online"], &ack["items"]), (&json!(2), &json!([])), "{ack}");
    assert_eq!(socket.next().await["type"], "batch_completed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn single_commands_name_their_resource_and_their_results_come_whatever_is_subscribed() {
    let fixture = GatewayFixture::new().await;
    let gateway = fixture.gateway().await;
    let mut socket = fixture.tenant_socket(&gateway).await;
    socket.send(json!({"type": "subscribe", "filter": {"job_ids": ["none"]}})).await;
    socket.until(&["subscription"]).await;
    socket.send(json!({"type": "pause_job", "job_id": "j1", "request_id": "r1"})).await;
    let ack = socket.next().await;
    assert_eq!((&ack["type"], &ack["job_id"]), (&json!("pause_requested"), &json!("j1")), "{ack}");
    let claim = fixture.claim(&job("j1")).await;
    let result = fixture.succeed(&claim).await;
    assert_eq!(socket.next_text().await.0, result);
    socket.send(json!({"type": "cancel_campaign", "campaign_id": "none", "request_id": "r2"})).await;
    let expected = json!({"type": "error", "error": "not_found", "message": "There is no campaign none in your tenant", "request_id": "r2"});
    assert_eq!(socket.next().await, expected);
    socket.send(json!({"type": "cancel_job", "job_id": "j1", "delay_seconds": 3600})).await;
    let kept = socket.next().await;
    assert_eq!(kept["type"], "cancel_scheduled", "{kept}");
    socket.send(json!({"type": "cancel_scheduled", "schedule_id": kept["schedule_id"]})).await;
    let taken = socket.next().await;
    assert_eq!((&taken["type"], &taken["job_id"]), (&json!("schedule_withdrawn"), &json!("j1")), "{taken}");
    is_quiet(&mut socket).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn results_that_were_lost_on_the_way_are_found_in_the_record() {
    let fixture = GatewayFixture::new().await;
    let gateway = fixture.gateway().await;
    let ids = jobs(&fixture, 3).await;
    let mut socket = fixture.tenant_socket(&gateway).await;
    socket.send(json!({"type": "pause_jobs", "job_ids": ids})).await;
    let ack = socket.next().await;
    // The subscription is cut, and a result recorded in the same moment.
    fixture.redis.inline("CLIENT KILL TYPE pubsub");
    let claim = fixture.claim(&job("b0")).await;
    let cut = fixture.succeed(&claim).await;
    let mut told = [socket.next().await, socket.next().await];
    told.sort_by_key(|message| message["type"].to_string());
    assert_eq!(told[0], serde_json::from_str::<Value>(&cut).expect("JSON"));
    assert_eq!(told[1], json!({"type": "resynchronize", "tenant_id": "acme"}));
    // Recorded, and never published at all.
    for (n, id) in ["b1", "b2"].into_iter().enumerate() {
        let command = text(&ack["items"][n + 1], "command_id");
        let message = format!(
            r#"{{"type":"pause_failed","job_id":"{id}","tenant_id":"acme","command_id":"{command}","error":"x"}}"#
        );
        let words = ["HSET".to_owned(), fixture.broker.keys().results(&job(id)), command, format!("1|0|{message}")];
        fixture.broker.query_any(&words).await.expect("record");
    }
    for _ in 0..2 {
        assert_eq!(socket.next().await["type"], "pause_failed");
    }
    let summary = socket.next().await;
    assert_eq!((&summary["succeeded"], &summary["failed"]), (&json!(1), &json!(2)), "{summary}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_long_ids_fit_into_a_frame_here_and_nothing_larger() {
    let fixture = GatewayFixture::new().await;
    let gateway = fixture.gateway().await;
    let mut socket = fixture.tenant_socket(&gateway).await;
    let ids: Vec<String> = (0..1_000).map(|n| format!("{n:0>128}")).collect();
    socket.send(json!({"type": "cancel_jobs", "job_ids": ids})).await;
    let ack = socket.next().await;
    assert_eq!((&ack["total"], &ack["refused"]), (&json!(1_000), &json!(1_000)));
    assert_eq!(socket.next().await["type"], "batch_completed");
    let _ = socket.try_send(Message::text(" ".repeat(193 * 1024))).await;
    let closed = socket.next().await;
    assert_eq!((&closed["closed"], &closed["reason"]), (&json!(1009), &json!("a message may have 192 KiB")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_outlives_redis_and_its_results_and_summary_come_when_it_is_back() {
    let mut fixture = GatewayFixture::new().await;
    // On a busy disk the usual `everysec` may keep a write in memory, and a killed server loses it.
    fixture.redis.inline("CONFIG SET appendfsync always");
    let gateway = fixture.gateway().await;
    let ids = jobs(&fixture, 3).await;
    let mut socket = fixture.tenant_socket(&gateway).await;
    socket.send(json!({"type": "pause_jobs", "job_ids": ids, "request_id": "r1"})).await;
    let ack = socket.next().await;
    assert_eq!(ack["accepted"], 3);
    fixture.redis.kill();
    socket.send(json!({"type": "cancel_jobs", "job_ids": ids, "request_id": "r2"})).await;
    let refused = socket.until(&["error"]).await;
    assert!(matches!(refused["error"].as_str(), Some("unavailable" | "outcome_unknown")), "{refused}");
    fixture.redis.restart();
    let back = async {
        while fixture.broker.ping(Duration::from_secs(1)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(crate::support::socket::PATIENCE, back).await.expect("Redis is back");
    for id in &ids {
        let claim = fixture.claim(&job(id)).await;
        fixture.succeed(&claim).await;
    }
    let mut told = Vec::new();
    let summary = loop {
        match socket.until(&["pause_succeeded", "batch_completed"]).await {
            summary if summary["type"] == "batch_completed" => break summary,
            result => told.push(text(&result, "job_id")),
        }
    };
    told.sort();
    assert_eq!((told, &summary["succeeded"], &summary["batch_id"]), (ids, &json!(3), &ack["batch_id"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_may_command_jobs_and_not_read_them_gets_the_results_of_their_own_commands_alone() {
    let fixture = GatewayFixture::new().await;
    let gateway = fixture.gateway().await;
    fixture.grant("bob", &["jobs.cancel", "campaigns.read"]).await;
    let mut bob = fixture.tenant_socket_of(&gateway, &fixture.token("bob", "acme")).await;
    let ids = jobs(&fixture, 2).await;
    bob.send(json!({"type": "cancel_jobs", "job_ids": [ids[0]]})).await;
    assert_eq!(bob.next().await["accepted"], 1);
    let mut ann = fixture.tenant_socket(&gateway).await;
    ann.send(json!({"type": "cancel_job", "job_id": ids[1]})).await;
    assert_eq!(ann.next().await["type"], "cancel_requested");
    fixture.status(&job(&ids[0]), "running").await;
    let anns = fixture.claim(&job(&ids[1])).await;
    fixture.succeed(&anns).await;
    let bobs = fixture.claim(&job(&ids[0])).await;
    let result = fixture.succeed(&bobs).await;
    assert_eq!(bob.next_text().await.0, result);
    assert_eq!(bob.next().await["type"], "batch_completed");
    is_quiet(&mut bob).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_wide_socket_counts_against_the_limits_and_is_answered_before_a_drain_sends_it_away() {
    let fixture = GatewayFixture::with(&[("limits.connections_per_user", "1")]).await;
    let gateway = fixture.gateway().await;
    let ids = jobs(&fixture, 100).await;
    let mut socket = fixture.tenant_socket(&gateway).await;
    let second = Socket::try_open(&fixture.tenant_url(&gateway, &fixture.token("ann", "acme")), &[]).await;
    let Err((status, body)) = second else { panic!("one more than may be") };
    assert!(status == 429 && body.contains("too_many_connections"), "{status} {body}");
    socket.send(json!({"type": "cancel_jobs", "job_ids": ids, "request_id": "r1"})).await;
    // Its first part has reached Redis.
    let begun = async {
        while budget_used(&fixture) != ":1" {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(crate::support::socket::PATIENCE, begun).await.expect("it is read");
    gateway.stop.cancel();
    assert_eq!(socket.next().await["type"], "batch_requested");
    let closed = socket.until_that(|message| message.get("closed").is_some()).await;
    assert_eq!(closed["closed"], 1012, "{closed}");
    drop(socket);
    gateway.left().await;
}
