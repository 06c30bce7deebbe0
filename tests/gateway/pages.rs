//! What pages in a browser need: a refusal that a script can read, and one socket for many components.

use serde_json::{Value, json};

use crate::fixture::GatewayFixture;
use crate::support::socket::Socket;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_is_a_close_code_where_the_client_asks_for_it() {
    let fixture = GatewayFixture::with(&[("limits.connections_per_user", "1")]).await;
    let gateway = fixture.gateway().await;
    let base = format!("ws://{}/api/v1/realtime/ws", gateway.address);
    let ann = fixture.token("ann", "acme");
    let stranger = fixture.token("stranger", "acme");
    let closed = async |url: String, headers: &[(&str, &str)]| {
        let opened = Socket::try_open(&url, headers).await;
        opened.unwrap_or_else(|refused| panic!("{url}: not upgraded: {refused:?}")).next().await
    };
    let is = |code: u16, reason: &str| json!({"closed": code, "reason": reason});
    for path in ["/jobs/j1", ""] {
        assert_eq!(closed(format!("{base}{path}?reject=close"), &[]).await, is(4401, "unauthorized"), "{path}");
        let url = format!("{base}{path}?token={stranger}&reject=close");
        assert_eq!(closed(url, &[]).await, is(4403, "permission_denied"), "{path}");
        let url = format!("{base}{path}?reject=close&token={ann}");
        assert_eq!(closed(url, &[("origin", "https://evil.example")]).await, is(4403, "forbidden"), "{path}");
    }
    let url = format!("{base}/jobs/nothing-here?token={ann}&reject=close");
    assert_eq!(closed(url, &[]).await, is(4404, "not_found"));
    // Whoever may come in, does.
    let mut first = Socket::open(&format!("{base}/jobs/j1?token={ann}&reject=close")).await;
    assert_eq!(first.next().await["type"], "subscribed");
    let url = format!("{base}/jobs/j1?token={ann}&reject=close");
    assert_eq!(closed(url, &[]).await, is(4429, "too_many_connections"));
    // Who does not ask for it, or sends no upgrade, gets an HTTP answer as ever.
    let refused = Socket::try_open(&format!("{base}/jobs/j1?token={stranger}"), &[]).await;
    assert_eq!(refused.err().expect("refused").0, 403);
    assert_eq!(fixture.get(&gateway, "/api/v1/realtime/ws/jobs/j1?reject=close").await.0, 401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_states_of_the_named_resources_follow_a_subscription() {
    let fixture = GatewayFixture::new().await;
    let gateway = fixture.gateway().await;
    fixture.job("j2").await;
    let mut socket = fixture.tenant_socket(&gateway).await;
    let filter = json!({"job_ids": ["j2", "j1", "nothing-here"], "campaign_ids": ["c1"]});
    socket.send(json!({"type": "subscribe", "filter": filter, "snapshot": true, "request_id": "page"})).await;
    let answer = socket.next().await;
    assert_eq!((&answer["type"], &answer["request_id"]), (&json!("subscription"), &json!("page")));
    let mut told = Vec::new();
    for _ in 0..4 {
        told.push(socket.next().await);
    }
    let kinds: Vec<&str> = told.iter().map(|message| message["type"].as_str().expect("a type")).collect();
    assert_eq!(kinds, ["job_snapshot", "job_snapshot", "error", "campaign_snapshot"], "{told:?}");
    // As on the job's own socket, but for what stands in the greeting alone.
    let mut own = Socket::open(&fixture.url(&gateway, "jobs/j1")).await;
    let mut snapshot = own.until(&["job_snapshot"]).await;
    snapshot.as_object_mut().expect("an object").remove("workers_online");
    assert_eq!(told[0], snapshot);
    assert_eq!(told[1]["job_id"].as_str().or(told[1]["id"].as_str()), Some("j2"), "{}", told[1]);
    assert_eq!((&told[2]["error"], &told[2]["job_id"]), (&json!("not_found"), &json!("nothing-here")));

    // Who may not read a kind is told the same as for what is not there.
    fixture.grant("reader-of-jobs", &["jobs.read"]).await;
    let mut reader = fixture.tenant_socket_of(&gateway, &fixture.token("reader-of-jobs", "acme")).await;
    reader.send(json!({"type": "subscribe", "filter": {"campaign_ids": ["c1"]}, "snapshot": true})).await;
    let refused = reader.until(&["error"]).await;
    assert_eq!((&refused["error"], &refused["campaign_id"]), (&json!("not_found"), &json!("c1")));

    let many: Vec<Value> = (0..101).map(|n| json!(format!("j{n}"))).collect();
    for filter in [json!({}), json!({"job_ids": many})] {
        socket.send(json!({"type": "subscribe", "filter": filter, "snapshot": true})).await;
        let refused = socket.next().await;
        assert_eq!(refused["error"], "invalid_message");
        assert!(refused["message"].as_str().expect("words").contains("1 to 100 resources"), "{refused}");
    }
}
