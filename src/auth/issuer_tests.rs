//! Keys of an issuer that changes them, goes away and comes back.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

/// An issuer over HTTP: what it answers can be changed, and it counts.
struct WebIssuer {
    address: SocketAddr,
    answer: Arc<Mutex<(u16, String)>>,
    asked: Arc<AtomicUsize>,
}

impl WebIssuer {
    async fn start(answer: (u16, String)) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address");
        let answer = Arc::new(Mutex::new(answer));
        let asked = Arc::new(AtomicUsize::new(0));
        let (given, count) = (Arc::clone(&answer), Arc::clone(&asked));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0_u8; 4096];
                let _ = stream.read(&mut request).await;
                count.fetch_add(1, Ordering::SeqCst);
                let (status, body) = given.lock().clone();
                let head =
                    format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
                let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
            }
        });
        Self { address, answer, asked }
    }

    fn now_answers(&self, status: u16, body: String) {
        *self.answer.lock() = (status, body);
    }

    async fn verifier(&self, eager: Duration) -> Verifier {
        self.verifier_with(eager, Duration::from_secs(3_600)).await
    }

    async fn verifier_with(&self, eager: Duration, max_age: Duration) -> Verifier {
        let mut settings = settings();
        settings.jwks_max_age = max_age;
        settings.hs256_secret = None;
        settings.jwks_url = Some(format!("http://{}/keys", self.address));
        let policy = RefreshPolicy { eager, retry: Duration::from_millis(50), ..RefreshPolicy::default() };
        Verifier::with_refresh_policy(&settings, policy, &TaskTracker::new(), CancellationToken::new())
            .await
            .expect("verifier")
    }
}

#[tokio::test]
async fn a_new_key_of_the_issuer_is_fetched_when_a_token_names_it() {
    let (old, new) = (Pair::ed25519(), Pair::ed25519());
    let web = WebIssuer::start((200, json!({"keys":[old.public("old")]}).to_string())).await;
    let verifier = web.verifier(Duration::ZERO).await;
    verifier.verify(&old.token(Some("old"), &claims(json!({})))).await.expect("the old key");
    invalid("no key")(refusal(&verifier, &new.token(Some("new"), &claims(json!({})))).await);
    web.now_answers(200, json!({"keys":[new.public("new")]}).to_string());
    verifier.verify(&new.token(Some("new"), &claims(json!({})))).await.expect("the new key");
    invalid("no key")(refusal(&verifier, &old.token(Some("old"), &claims(json!({})))).await);
}

#[tokio::test]
async fn made_up_key_names_do_not_flood_the_issuer_and_do_not_hide_a_new_key() {
    let (pair, new) = (Pair::ed25519(), Pair::ed25519());
    let web = WebIssuer::start((200, json!({"keys":[pair.public("k")]}).to_string())).await;
    let begun = std::time::Instant::now();
    let verifier = web.verifier(RefreshPolicy::default().eager).await;
    let made_up = |n: usize| pair.token(Some(&format!("made-up-{n}")), &claims(json!({})));
    for _ in 0..3 {
        let all = (0..50).map(|n| {
            let (verifier, token) = (verifier.clone(), made_up(n));
            async move { invalid("no key")(refusal(&verifier, &token).await) }
        });
        futures_util::future::join_all(all).await;
    }
    // The new key comes in right after a fetch.
    web.now_answers(200, json!({"keys":[pair.public("k"), new.public("new")]}).to_string());
    verifier.verify(&new.token(Some("new"), &claims(json!({})))).await.expect("the new key");
    let most = begun.elapsed().as_millis() / RefreshPolicy::default().eager.as_millis() + 1;
    let asked = web.asked.load(Ordering::SeqCst);
    assert!(asked as u128 <= most, "{asked} fetches where {most} are the most");
}

#[tokio::test]
async fn a_set_without_a_usable_key_is_the_issuers_word() {
    let pair = Pair::ed25519();
    let set = json!({"keys":[pair.public("k")]}).to_string();
    let token = pair.token(Some("k"), &claims(json!({})));
    for empty in [json!({"keys":[]}), json!({"keys":[{"kty":"oct","k":"c2VjcmV0"}]}), json!({"keys":[7]})] {
        let web = WebIssuer::start((200, set.clone())).await;
        let verifier = web.verifier(Duration::from_millis(1)).await;
        verifier.verify(&token).await.expect("valid");
        web.now_answers(200, empty.to_string());
        // Another key's name makes the gateway ask.
        invalid("no key")(refusal(&verifier, &pair.token(Some("other"), &claims(json!({})))).await);
        invalid("no key")(refusal(&verifier, &token).await);
        web.now_answers(200, set.clone());
        verifier.verify(&token).await.expect("the issuer names it again");
    }
}

#[tokio::test]
async fn keys_of_an_issuer_that_is_away_are_good_for_their_longest_age_only() {
    let pair = Pair::ed25519();
    let token = pair.token(Some("k"), &claims(json!({})));
    for failure in [(500, String::new()), (200, "<html>Sign in</html>".to_owned()), (200, "{}".to_owned())] {
        let web = WebIssuer::start((200, json!({"keys":[pair.public("k")]}).to_string())).await;
        let verifier = web.verifier_with(Duration::from_millis(1), Duration::from_millis(400)).await;
        web.now_answers(failure.0, failure.1);
        verifier.verify(&token).await.expect("still good");
        let gone = async {
            while verifier.verify(&token).await != Err(AuthError::Unavailable) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), gone).await.expect("too old");
        web.now_answers(200, json!({"keys":[pair.public("k")]}).to_string());
        let back = async {
            while verifier.verify(&token).await.is_err() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), back).await.expect("fetched again");
    }
}

#[tokio::test]
async fn an_issuer_that_is_away_is_said_to_be_away_and_found_again() {
    let pair = Pair::ed25519();
    let set = json!({"keys":[pair.public("k")]}).to_string();
    let token = pair.token(Some("k"), &claims(json!({})));
    let web = WebIssuer::start((500, String::new())).await;
    let verifier = web.verifier(Duration::from_millis(1)).await;
    assert_eq!(refusal(&verifier, &token).await, AuthError::Unavailable);
    web.now_answers(200, set);
    let found = async {
        while verifier.verify(&token).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), found).await.expect("the keys were fetched again");
    web.now_answers(500, String::new());
    let other = pair.token(Some("other"), &claims(json!({})));
    // A look at the issuer that has just been made counts for a moment longer.
    let noticed = async {
        while refusal(&verifier, &other).await != AuthError::Unavailable {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), noticed).await.expect("the issuer is known to be away");
    verifier.verify(&token).await.expect("keys that were good stay good");
}
