//! Tokens that somebody revokes over HTTP.

use serde_json::json;

use crate::support::api::{RestFixture, until};
use crate::support::tokens::{now, token_with};

const PATH: &str = "/api/v1/admin/revocations";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_may_revoke_ends_tokens_of_the_own_tenant_only() {
    let api = RestFixture::start(&[]).await;
    let admin = api.user("admin", "acme", &["tokens.revoke", "jobs.read"]).await;
    api.grant("eve", &["jobs.read"]).await;
    let token = |tenant: &str, jti: &str| token_with("eve", tenant, &json!({"jti": jti, "iat": now() - 5}));
    let (one, two, elsewhere) = (token("acme", "one"), token("acme", "two"), token("globex", "one"));
    let status = async |token: &str| api.get(token, "/api/v1/jobs").await.status;
    assert_eq!((status(&one).await, status(&two).await, status(&elsewhere).await), (200, 200, 200));

    let answer = api.post(&admin, PATH, &json!({"jti": "one", "reason": "left open in a train"})).await.expect(201);
    assert_eq!((&answer["jti"], &answer["tenant_id"]), (&json!("one"), &json!("acme")));
    assert!(answer["revoked_at"].as_i64().is_some_and(|at| (at - now()).abs() < 60), "{answer}");
    until("the token is refused", || async { status(&one).await == 401 }).await;
    let reply = api.get(&one, "/api/v1/jobs").await;
    assert!(reply.error(401, "unauthorized").contains("revoked"));
    assert_eq!((status(&two).await, status(&elsewhere).await), (200, 200));

    let answer = api.post(&admin, PATH, &json!({"user_id": "eve", "expires_at": now() + 900})).await.expect(201);
    assert_eq!(answer["user_id"], "eve");
    until("every token of the user is refused", || async { status(&two).await == 401 }).await;
    assert_eq!(status(&elsewhere).await, 200, "another tenant's");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_takes_its_permission_and_a_body_that_fits() {
    let api = RestFixture::start(&[]).await;
    let reader = api.user("reader", "acme", &["jobs.*", "campaigns.*", "audit.read"]).await;
    let asked = json!({"user_id": "eve"});
    assert_eq!(
        api.post(&reader, PATH, &asked).await.error(403, "permission_denied"),
        "Insufficient permissions to revoke tokens"
    );
    api.send("POST", PATH, &[], asked.to_string()).await.error(401, "unauthorized");
    let admin = api.user("admin", "acme", &["tokens.*"]).await;
    for bad in [
        json!({}),
        json!({"jti": "a", "user_id": "b"}),
        json!({"jti": ""}),
        json!({"jti": "x".repeat(129)}),
        json!({"jti": 7}),
        json!({"user_id": "two words"}),
        json!({"user_id": "eve", "tenant_id": "globex"}),
        json!({"user_id": "eve", "reason": "x".repeat(501)}),
        json!({"jti": "a\u{0}b"}),
        json!({"jti": "a\u{200b}b"}),
        json!({"jti": "\u{202e}ab"}),
        json!([]),
    ] {
        api.post(&admin, PATH, &bad).await.error(400, "invalid_message");
    }
}
