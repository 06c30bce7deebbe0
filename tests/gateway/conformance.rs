//! The sockets of a gateway and RFC 6455.

use crate::conformance_suite::Subject;
use crate::fixture::GatewayFixture;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sockets_of_a_gateway_are_as_rfc_6455_says() {
    let fixture = GatewayFixture::with(&[("limits.messages_per_second", "10000")]).await;
    let gateway = fixture.gateway().await;
    let subject = |path: &str, greeting, longest| Subject {
        address: gateway.address.to_string(),
        path: format!("/api/v1/realtime/ws{path}?token={}", fixture.token("ann", "acme")),
        headers: String::new(),
        greeting,
        question: r#"{"type":"ping","x":"~"^}"#.to_owned(),
        answer: r#"{"type":"pong""#.to_owned(),
        longest,
        at_once: 16,
    };
    let (one, all) = tokio::join!(subject("/jobs/j1", 2, 16 * 1024).failures(), subject("", 1, 192 * 1024).failures());
    for (failures, count) in [one, all] {
        assert!(failures.is_empty(), "{} of {count}:\n{}", failures.len(), failures.join("\n"));
        assert!(count > 400, "{count}");
    }
}
