//! Tokens that are revoked: every gateway refuses them within a second, and closes what is open.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::fleet::{Fleet, Handle, http};
use crate::support::socket::Socket;
use crate::support::tokens::{now, token_with};

/// How long everything may take, with much to spare for a busy machine: this is no measurement.
const LIMIT: Duration = Duration::from_secs(30);

fn run(fleet: &Fleet, args: &[&str]) -> String {
    let output = fleet.command(args).output().expect("run wheelhouse");
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn status(fleet: &Fleet, gateway: Handle, token: &str) -> u16 {
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str())];
    http(&fleet.process(gateway).address, "GET", "/api/v1/jobs", &headers, "").expect("an answer").0
}

async fn open(fleet: &Fleet, gateway: Handle, path: &str, token: &str) -> Socket {
    let url = format!("ws://{}/api/v1/realtime/ws{path}?token={token}", fleet.process(gateway).address);
    let mut socket = Socket::open(&url).await;
    assert_eq!(socket.next().await["type"], "subscribed");
    socket
}

async fn closed(socket: &mut Socket) -> Value {
    socket.until_that(|message| message.get("closed").is_some()).await["closed"].clone()
}

fn refused_by_all(fleet: &Fleet, gateways: &[Handle], token: &str) {
    let end = Instant::now() + LIMIT;
    while gateways.iter().any(|gateway| status(fleet, *gateway, token) != 401) {
        assert!(Instant::now() < end, "the token is still taken");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The whole way, for permissions in SQL and in the token.
async fn holds_everywhere(source: &str) {
    let mut fleet = Fleet::new();
    fleet.set("AUTH__PERMISSIONS", source);
    let gateways = [fleet.gateway(), fleet.gateway()];
    fleet.permit("ann", "*").await;
    fleet.external_job("acme", "j1").await;
    let token = |jti: &str| token_with("ann", "acme", &json!({"jti": jti, "permissions": ["*"], "iat": now() - 5}));
    let (stolen, kept) = (token("stolen"), token("kept"));
    let mut on_job = open(&fleet, gateways[0], "/jobs/j1", &stolen).await;
    let mut on_tenant = open(&fleet, gateways[1], "", &stolen).await;
    let mut others = open(&fleet, gateways[0], "/jobs/j1", &kept).await;

    let said = run(&fleet, &["revoke-token", "--jti", "stolen", "--reason", "laptop lost"]);
    assert!(said.contains("stolen"), "{said}");
    assert_eq!(closed(&mut on_job).await, 4403);
    assert_eq!(closed(&mut on_tenant).await, 4403);
    refused_by_all(&fleet, &gateways, &stolen);
    assert_eq!(status(&fleet, gateways[0], &kept), 200, "another token of the same user is good");

    run(&fleet, &["revoke-user", "ann"]);
    assert_eq!(closed(&mut others).await, 4403);
    refused_by_all(&fleet, &gateways, &kept);
    // A gateway that starts later knows of it before it lets anybody in.
    let late = fleet.gateway();
    assert_eq!((status(&fleet, late, &stolen), status(&fleet, late, &kept)), (401, 401));
    let end = Instant::now() + LIMIT;
    while status(&fleet, late, &token_with("ann", "acme", &json!({"permissions": ["*"]}))) != 200 {
        assert!(Instant::now() < end, "a token that was issued later is never taken");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(status(&fleet, late, &kept), 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_token_is_refused_and_its_sockets_closed_on_every_gateway() {
    holds_everywhere("database").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_token_is_refused_also_where_permissions_are_the_tokens() {
    holds_everywhere("token").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_plain_sql_revokes_and_takes_back_is_noticed_and_tenants_are_told_apart() {
    let mut fleet = Fleet::new();
    let gateways = [fleet.gateway()];
    fleet.permit("ann", "*").await;
    let token = |tenant: &str| token_with("ann", tenant, &json!({"jti": "one", "iat": now() - 5}));
    let (acme, globex) = (token("acme"), token("globex"));
    assert_eq!((status(&fleet, gateways[0], &acme), status(&fleet, gateways[0], &globex)), (200, 200));
    run(&fleet, &["revoke-user", "ann", "--tenant", "acme"]);
    refused_by_all(&fleet, &gateways, &acme);
    assert_eq!(status(&fleet, gateways[0], &globex), 200, "the other tenant's token is good");
    let sql = fleet.sql().await;
    sqlx::query("INSERT INTO revoked_tokens (kind, name) VALUES ('token', 'one')").execute(&sql).await.expect("SQL");
    refused_by_all(&fleet, &gateways, &globex);
    sqlx::query("DELETE FROM revoked_tokens").execute(&sql).await.expect("SQL");
    let end = Instant::now() + LIMIT;
    while status(&fleet, gateways[0], &globex) != 200 || status(&fleet, gateways[0], &acme) != 200 {
        assert!(Instant::now() < end, "the revocation was never taken back");
        std::thread::sleep(Duration::from_millis(20));
    }
}
