//! The feed of the tenant-wide socket: everything that may be read, as narrow as is wanted, and nothing twice.

use std::time::Duration;

use serde_json::{Value, json};
use wheelhouse::domain::CommandId;

use crate::fixture::{GatewayFixture, job};
use crate::support::socket::Socket;

fn status(kind: &str, id: &str, status: &str, seq: i64) -> String {
    let of_campaign = if kind == "campaign" { r#""is_active":true,"# } else { "" };
    format!(
        r#"{{"type":"{kind}_status","{kind}_id":"{id}","tenant_id":"acme","status":"{status}",{of_campaign}"seq":{seq}}}"#
    )
}

/// Tells of a resource; what is told last shows that all before it has passed.
async fn tell(fixture: &GatewayFixture, kind: &str, id: &str, word: &str, seq: i64) {
    fixture.publish(&format!("acme:{kind}:{id}"), &status(kind, id, word, seq)).await;
}

/// `id status` of what came up to this one.
async fn heard_up_to(socket: &mut Socket, last: &str) -> Vec<String> {
    let mut heard = Vec::new();
    while heard.last().is_none_or(|newest| newest != last) {
        let next = socket.next().await;
        let id = next["job_id"].as_str().or(next["campaign_id"].as_str());
        let id = id.unwrap_or_else(|| panic!("not about a resource: {next}"));
        heard.push(format!("{id} {}", next["status"].as_str().or(next["type"].as_str()).unwrap_or_default()));
    }
    heard
}

async fn subscribe(socket: &mut Socket, filter: Value) -> Value {
    socket.send(json!({"type": "subscribe", "filter": filter})).await;
    socket.until(&["subscription", "error"]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_of_the_tenant_is_told_once_on_every_gateway_and_nothing_of_another() {
    let fixture = GatewayFixture::new().await;
    let (one, other) = (fixture.gateway().await, fixture.gateway().await);
    fixture.grant("eve", &["*"]).await;
    let mut watching =
        [fixture.tenant_socket(&one).await, fixture.tenant_socket(&one).await, fixture.tenant_socket(&other).await];
    let mut elsewhere = fixture.tenant_socket_of(&one, &fixture.token("eve", "acme-2")).await;
    // This gateway hears the job's channel both by its name and by the pattern.
    let mut on_job = fixture.socket(&one, "jobs/j1").await;
    let seq = fixture.status(&job("j1"), "running").await;
    tell(&fixture, "campaign", "c1", "active", 1).await;
    fixture.status(&job("unheard-of"), "paused").await;
    on_job.send(json!({"type": "pause_job"})).await;
    let claim = {
        on_job.until(&["pause_requested"]).await;
        fixture.claim(&job("j1")).await
    };
    let result = fixture.succeed(&claim).await;
    tell(&fixture, "job", "end", "completed", 1).await;
    for socket in &mut watching {
        assert_eq!(socket.next_text().await.0, status("job", "j1", "running", seq));
        assert_eq!(socket.next_text().await.0, status("campaign", "c1", "active", 1));
        assert_eq!(socket.next().await["job_id"], "unheard-of");
        assert_eq!(socket.next_text().await.0, result);
        assert_eq!(heard_up_to(socket, "end completed").await.len(), 1);
    }
    assert_eq!(on_job.next_text().await.0, result);
    for socket in [&mut on_job, &mut elsewhere] {
        socket.send(json!({"type": "ping"})).await;
        assert_eq!(socket.next().await["type"], "pong");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_filter_narrows_from_its_answer_on() {
    let fixture = GatewayFixture::new().await;
    let gateway = fixture.gateway().await;
    for id in ["a", "b", "c"] {
        fixture.job(id).await;
    }
    fixture.sql("UPDATE jobs SET campaign_id = 'c1' WHERE id IN ('a', 'b')").await;
    fixture.sql("UPDATE jobs SET job_type = 'other' WHERE id IN ('b', 'c')").await;
    let mut socket = fixture.tenant_socket(&gateway).await;
    let mut all = fixture.tenant_socket(&gateway).await;
    let mut seq = 0;
    for (filter, understood, heard) in [
        (json!({"kinds": ["campaign"]}), json!({"kinds": ["campaign"]}), vec!["c1 paused"]),
        (json!({"job_ids": ["c"]}), json!({"kinds": ["job"], "job_ids": ["c"]}), vec!["c running"]),
        (json!({"campaign_id": "c1"}), json!({"kinds": ["job"], "campaign_id": "c1"}), vec!["a running", "b paused"]),
        (
            json!({"campaign_id": "c1", "job_type": "other"}),
            json!({"kinds": ["job"], "campaign_id": "c1", "job_type": "other"}),
            vec!["b paused"],
        ),
        (json!({"status": "paused"}), json!({"status": ["paused"]}), vec!["b paused", "c1 paused"]),
        (
            json!({"kinds": ["job", "campaign"], "job_type": "demo"}),
            json!({"kinds": ["job", "campaign"], "job_type": "demo"}),
            vec!["a running", "c1 paused"],
        ),
        (json!({}), json!({}), vec!["a running", "b paused", "c running", "c1 paused"]),
    ] {
        assert_eq!(subscribe(&mut socket, filter).await, json!({"type": "subscription", "filter": understood}));
        seq += 1;
        for (kind, id, word) in
            [("job", "a", "running"), ("job", "b", "paused"), ("job", "c", "running"), ("campaign", "c1", "paused")]
        {
            tell(&fixture, kind, id, word, seq).await;
        }
        assert_eq!(heard_up_to(&mut all, "c1 paused").await.len(), 4);
        assert_eq!(heard_up_to(&mut socket, heard[heard.len() - 1]).await, heard);
    }
    for (filter, part) in
        [(json!({"kind": "job"}), "unknown field `kind`"), (json!({"status": "walking"}), "is not one of")]
    {
        let refused = subscribe(&mut socket, filter).await;
        assert_eq!(refused["error"], "invalid_message");
        assert!(refused["message"].as_str().is_some_and(|m| m.contains(part)), "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_forged_or_repeated_says_nothing() {
    let fixture = GatewayFixture::new().await;
    let gateway = fixture.gateway().await;
    let mut socket = fixture.tenant_socket(&gateway).await;
    let mut on_job = fixture.socket(&gateway, "jobs/j1").await;
    on_job.send(json!({"type": "cancel_job"})).await;
    let ack = on_job.until(&["cancel_requested"]).await;
    let forged = |command: &str| {
        format!(
            r#"{{"type":"cancel_succeeded","job_id":"j1","tenant_id":"acme","command_id":"{command}","status":"cancelled"}}"#
        )
    };
    fixture.publish("acme:job:j1:reply", &forged(ack["command_id"].as_str().expect("id"))).await;
    fixture.publish("acme:job:j1:reply", &forged(&CommandId::generate().to_string())).await;
    fixture.publish("acme:job:j2:reply", &forged(ack["command_id"].as_str().expect("id"))).await;
    for odd in ["nonsense", "[]", r#"{"type":"cancel_succeeded","job_id":"j1","tenant_id":"acme"}"#] {
        fixture.publish("acme:job:j1", odd).await;
        fixture.publish("acme:job:j1:reply", odd).await;
    }
    // Of another resource or tenant than its channel's, and of a type that is none.
    fixture.publish("acme:job:j1", &status("job", "j2", "running", 90)).await;
    fixture.publish("acme:job:j1", &status("campaign", "j1", "active", 91)).await;
    fixture.publish("acme:job:j1", &status("job", "j1", "running", 92).replace("acme", "globex")).await;
    let claim = fixture.claim(&job("j1")).await;
    let result = fixture.succeed(&claim).await;
    assert_eq!(socket.next_text().await.0, result);
    let first = fixture.status(&job("j1"), "running").await;
    let second = fixture.status(&job("j1"), "cancelled").await;
    for seq in [first, second] {
        assert_eq!(socket.next().await["seq"], seq);
    }
    fixture.publish("acme:job:j1:reply", &result).await;
    fixture.publish("acme:job:j1", &status("job", "j1", "running", first)).await;
    fixture.publish("acme:job:j1", &status("job", "j1", "cancelled", second)).await;
    tell(&fixture, "job", "end", "completed", 1).await;
    assert_eq!(heard_up_to(&mut socket, "end completed").await, ["end completed"]);
    // Redis lost its data, and the numbers begin anew: that is news.
    fixture.redis.inline("FLUSHALL");
    fixture.status(&job("j1"), "paused").await;
    assert_eq!(heard_up_to(&mut socket, "j1 paused").await, ["j1 paused"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_may_be_read_is_told_and_whoever_may_read_nothing_is_shown_out() {
    let fixture = GatewayFixture::new().await;
    let gateway = fixture.gateway().await;
    fixture.grant("nobody", &["jobs.cancel"]).await;
    let refused = Socket::try_open(&fixture.tenant_url(&gateway, &fixture.token("nobody", "acme")), &[]).await;
    let Err((status, body)) = refused else { panic!("it may not open") };
    assert!(status == 403 && body.contains("jobs.read or campaigns.read"), "{status} {body}");
    let Err((status, _)) = Socket::try_open(&fixture.tenant_url(&gateway, "x"), &[]).await else { panic!("no token") };
    assert_eq!(status, 401);
    fixture.grant("bob", &["jobs.read", "campaigns.read"]).await;
    let mut bobs = fixture.tenant_socket_of(&gateway, &fixture.token("bob", "acme")).await;
    tell(&fixture, "job", "j1", "running", 1).await;
    tell(&fixture, "campaign", "c1", "active", 1).await;
    assert_eq!(heard_up_to(&mut bobs, "c1 active").await, ["j1 running", "c1 active"]);
    let bob = "bob".parse().expect("user");
    let revoke = async |permission: &str| {
        let version = fixture.store.revoke(&bob, &[permission.to_owned()]).await.expect("revoke");
        fixture.broker.invalidate_permissions(&bob, version).await.expect("invalidate");
    };
    revoke("jobs.read").await;
    // In force within moments: from some number on jobs are not told of any more, while campaigns are.
    let mut seq = 1;
    loop {
        seq += 1;
        tell(&fixture, "job", "j1", "running", seq).await;
        tell(&fixture, "campaign", "c1", "active", seq).await;
        if heard_up_to(&mut bobs, "c1 active").await == ["c1 active"] {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    revoke("campaigns.read").await;
    let closed = bobs.until_that(|v| v.get("closed").is_some()).await;
    assert_eq!(closed["closed"], 4403);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_permissions_from_the_token_a_refresh_narrows_what_is_told_and_without_any_ends_the_socket() {
    let fixture = GatewayFixture::with(&[("auth.permissions", "token")]).await;
    let gateway = fixture.gateway().await;
    let token = |permissions: &[&str]| fixture.token_for("bob", "acme", 600, Some(permissions));
    let mut socket = fixture.tenant_socket_of(&gateway, &token(&["jobs.read", "campaigns.read"])).await;
    let refresh = async |socket: &mut Socket, permissions: &[&str]| {
        socket.send(json!({"type": "refresh_token", "token": token(permissions)})).await;
    };
    refresh(&mut socket, &["campaigns.read"]).await;
    assert_eq!(socket.next().await["type"], "token_refreshed");
    tell(&fixture, "job", "j1", "running", 1).await;
    tell(&fixture, "campaign", "c1", "active", 1).await;
    assert_eq!(heard_up_to(&mut socket, "c1 active").await, ["c1 active"]);
    refresh(&mut socket, &["jobs.cancel"]).await;
    let closed = socket.until_that(|v| v.get("closed").is_some()).await;
    assert_eq!(closed["closed"], 4403);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_gap_a_client_is_told_to_list_again_and_the_feed_goes_on() {
    let fixture = GatewayFixture::new().await;
    let gateway = fixture.gateway().await;
    let mut sockets = [fixture.tenant_socket(&gateway).await, fixture.tenant_socket(&gateway).await];
    for round in 1..=3 {
        fixture.redis.inline("CLIENT KILL TYPE pubsub");
        for socket in &mut sockets {
            assert_eq!(socket.next().await, json!({"type": "resynchronize", "tenant_id": "acme"}));
        }
        tell(&fixture, "job", "j1", "running", round).await;
        for socket in &mut sockets {
            assert_eq!(socket.next().await["seq"], round);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_gets_the_newest_progress_of_each_job_and_is_closed_when_too_much_else_waits() {
    let fixture = GatewayFixture::with(&[("limits.outbox_messages", "8")]).await;
    let gateway = fixture.gateway().await;
    let mut quick = fixture.tenant_socket(&gateway).await.with_foreign_updates();
    let url = fixture.tenant_url(&gateway, &fixture.token("ann", "acme"));
    let mut slow = Socket::open_with_small_buffer(&url).await.with_foreign_updates();
    assert_eq!(slow.next().await["type"], "subscribed");
    let filler = "x".repeat(8 * 1024);
    let message = |kind: &str, id: &str, n: i64| {
        format!(
            r#"{{"type":"job_{kind}","job_id":"{id}","tenant_id":"acme","status":"running","x":"{filler}","seq":{n}}}"#
        )
    };
    for n in 1..=150 {
        for id in ["a", "b"] {
            fixture.publish(&format!("acme:job:{id}"), &message("progress", id, n)).await;
        }
        quick.until_that(|update| update["job_id"] == "b" && update["seq"] == n).await;
    }
    let mut heard = Vec::new();
    while !["a", "b"].iter().all(|id| heard.contains(&json!([id, 150]))) {
        let update = slow.next().await;
        heard.push(json!([update["job_id"], update["seq"]]));
    }
    assert!(heard.len() < 300, "nothing was folded");
    for n in 151..=450 {
        fixture.publish("acme:job:a", &message("status", "a", n)).await;
        quick.until_that(|update| update["seq"] == n).await;
    }
    let closed = slow.until_that(|v| v.get("closed").is_some()).await;
    assert_eq!(closed["closed"], 4413, "{closed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_reaches_the_client_whole_or_it_is_told_to_list_again() {
    const COUNT: i64 = 20_000;
    let fixture = GatewayFixture::with(&[("limits.outbox_messages", "65536")]).await;
    let gateway = fixture.gateway().await;
    let mut socket = fixture.tenant_socket(&gateway).await;
    let client = redis::Client::open(fixture.redis.url()).expect("client");
    let mut connection = client.get_multiplexed_async_connection().await.expect("connect");
    let publishing = tokio::spawn(async move {
        for first in (1..=COUNT).step_by(1_000) {
            let mut burst = redis::pipe();
            for seq in first..first + 1_000 {
                burst.cmd("PUBLISH").arg("acme:job:j1").arg(status("job", "j1", "running", seq)).ignore();
            }
            let () = burst.query_async(&mut connection).await.expect("publish");
        }
    });
    // Nothing comes twice or in another order, and whatever is left out, the word of it comes after it.
    let (mut last, mut missing, mut told) = (0, false, false);
    while missing || !(last == COUNT || (told && publishing.is_finished())) {
        let next = socket.next().await;
        match next["seq"].as_i64() {
            Some(seq) => {
                assert!(seq > last, "{last}, then {next}");
                missing |= seq != last + 1 && !told;
                (last, told) = (seq, false);
            }
            None => {
                assert_eq!(next["type"], "resynchronize", "{next}");
                (missing, told) = (false, true);
            }
        }
    }
    publishing.await.expect("no panic");
}
