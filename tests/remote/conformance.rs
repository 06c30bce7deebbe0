//! The sockets of a worker and RFC 6455.

use super::fixture::RemoteFixture;
use crate::conformance_suite::Subject;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sockets_of_a_worker_are_as_rfc_6455_says() {
    let mut fixture = RemoteFixture::start(&[]).await;
    let worker = fixture.worker();
    let subject = Subject {
        address: worker.address.clone(),
        path: "/api/v1/worker/ws".to_owned(),
        headers: format!("sec-websocket-protocol: wheelhouse-worker.1, bearer.{}\r\n", fixture.token),
        greeting: 0,
        question: r#"{"type":"hello","v":1,"worker":"w","session":"s","software":"~"^}"#.to_owned(),
        answer: r#"{"type":"welcome""#.to_owned(),
        longest: 256 * 1024,
        // All say hello as one session, of which the newest socket counts.
        at_once: 1,
    };
    let (failures, count) = subject.failures().await;
    assert!(failures.is_empty(), "{} of {count}:\n{}", failures.len(), failures.join("\n"));
}
