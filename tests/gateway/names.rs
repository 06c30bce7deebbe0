//! Ids that are words of Wheelhouse's own: each is an id like any other, on every channel and in every key.

use serde_json::json;

use crate::fixture::{GatewayFixture, job};

/// Each word that stands in the name of a channel, as a job's id.
const WORDS: [&str; 5] = ["control", "reply", "job", "campaign", "wh"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_whose_id_is_a_word_of_a_channels_name_is_told_of_and_answered_like_any_other() {
    let fixture = GatewayFixture::new().await;
    let gateway = fixture.gateway().await;
    let mut feed = fixture.tenant_socket(&gateway).await;
    for id in WORDS {
        fixture.job(id).await;
        let mut socket = fixture.socket(&gateway, &format!("jobs/{id}")).await;
        let seq = fixture.status(&job(id), "running").await;
        for heard in [&mut socket, &mut feed] {
            let update = heard.next().await;
            assert_eq!((&update["type"], &update["job_id"]), (&json!("job_status"), &json!(id)), "{update}");
            assert_eq!(update["seq"], seq);
        }
        socket.send(json!({"type": "pause_job"})).await;
        // Where the job is `control`, the word to the workers passes on the very channel of its updates: nobody is told.
        let ack = socket.next().await;
        assert_eq!((&ack["type"], &ack["job_id"]), (&json!("pause_requested"), &json!(id)), "{ack}");
        let claim = fixture.claim(&job(id)).await;
        let result = fixture.succeed(&claim).await;
        assert_eq!(socket.next_text().await.0, result);
        assert_eq!(feed.next_text().await.0, result);
    }
}
