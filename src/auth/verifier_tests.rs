//! Tokens that are accepted, and every kind that is not. Keys are made here, fresh for each run.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{LazyLock, Mutex};
use std::time::Duration;

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use jsonwebtoken::EncodingKey;
use jsonwebtoken::jwk::Jwk;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::auth::sign::{self, SignError, sign};

const SECRET: &str = "a secret of more than thirty-two bytes";

/// One key pair of an issuer.
struct Pair {
    algorithm: Algorithm,
    private: EncodingKey,
    /// Of an Ed25519 key, which the library cannot make a JWK of.
    x: Option<String>,
}

/// Base64 for URLs, without padding.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let letters = |chunk: &[u8]| {
        let bits = (0..3).fold(0_usize, |bits, i| bits << 8 | usize::from(chunk.get(i).copied().unwrap_or(0)));
        (0..=chunk.len()).map(move |i| char::from(LETTERS[bits >> (18 - 6 * i) & 63])).collect::<String>()
    };
    bytes.chunks(3).map(letters).collect()
}

impl Pair {
    fn ed25519() -> Self {
        let pair = Ed25519KeyPair::generate().expect("key");
        let x = Some(base64(pair.public_key().as_ref()));
        let pkcs8 = pair.to_pkcs8().expect("pkcs8");
        Self { algorithm: Algorithm::EdDSA, private: EncodingKey::from_ed_der(pkcs8.as_ref()), x }
    }

    fn p256() -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("key");
        let pkcs8 = pair.to_pkcs8v1().expect("pkcs8");
        Self { algorithm: Algorithm::ES256, private: EncodingKey::from_ec_der(pkcs8.as_ref()), x: None }
    }

    fn rsa() -> Self {
        // Making one takes a while, so all tests share it.
        static DER: LazyLock<Vec<u8>> = LazyLock::new(|| {
            let pair = aws_lc_rs::rsa::KeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).expect("key");
            AsDer::<aws_lc_rs::encoding::Pkcs8V1Der>::as_der(&pair).expect("der").as_ref().to_vec()
        });
        // The library wants the inner PKCS#1 form: it follows the fixed PKCS#8 head of 26 bytes.
        Self { algorithm: Algorithm::RS256, private: EncodingKey::from_rsa_der(&DER[26..]), x: None }
    }

    fn public(&self, kid: &str) -> Value {
        if let Some(x) = &self.x {
            return json!({"kty":"OKP","crv":"Ed25519","alg":"EdDSA","use":"sig","kid":kid,"x":x});
        }
        let mut jwk = Jwk::from_encoding_key(&self.private, self.algorithm).expect("public half");
        jwk.common.key_id = Some(kid.to_owned());
        serde_json::to_value(jwk).expect("JSON")
    }

    fn token(&self, kid: Option<&str>, claims: &Value) -> String {
        let mut header = Header::new(self.algorithm);
        header.kid = kid.map(str::to_owned);
        jsonwebtoken::encode(&header, claims, &self.private).expect("token")
    }
}

fn settings() -> config::Auth {
    config::Auth {
        hs256_secret: Some(SECRET.into()),
        jwks_url: None,
        jwks_file: None,
        issuer: None,
        audience: None,
        permissions: PermissionSource::Token,
    }
}

async fn verifier(settings: &config::Auth) -> Verifier {
    Verifier::new(settings, &TaskTracker::new(), CancellationToken::new()).await.expect("verifier")
}

fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

/// Good claims with some replaced; `null` takes one out.
fn claims(changes: Value) -> Value {
    let mut claims = json!({"sub":"auth0|ann","tenant_id":"acme","exp":now() + 60,"jti":"t-1"});
    let map = claims.as_object_mut().expect("object");
    for (name, value) in changes.as_object().expect("object") {
        if value.is_null() {
            map.remove(name)
        } else {
            map.insert(name.clone(), value.clone())
        };
    }
    claims
}

fn hs256(claims: &Value) -> String {
    hmac(Algorithm::HS256, SECRET, claims)
}

fn hmac(algorithm: Algorithm, secret: &str, claims: &Value) -> String {
    jsonwebtoken::encode(&Header::new(algorithm), claims, &EncodingKey::from_secret(secret.as_bytes())).expect("token")
}

async fn refusal(verifier: &Verifier, token: &str) -> AuthError {
    let error = verifier.verify(token).await.expect_err("refused");
    assert!(token.len() < 20 || !error.to_string().contains(&token[..20]), "{error}");
    error
}

fn invalid(part: &str) -> impl Fn(AuthError) {
    move |error| match error {
        AuthError::Invalid(message) if message.contains(part) => {}
        other => panic!("{other:?} does not speak of {part:?}"),
    }
}

#[tokio::test]
async fn a_signed_token_comes_back_as_its_caller() {
    let mut settings = settings();
    settings.issuer = Some("https://issuer".into());
    settings.audience = Some("wheelhouse".into());
    let claims = sign::Claims {
        user: "ann@example.com".parse().expect("user"),
        tenant: "acme".parse().expect("tenant"),
        ttl: Duration::from_secs(60),
        permissions: Some(vec!["jobs.*".into()]),
    };
    let token = sign(&settings, &claims).expect("token");
    let caller = verifier(&settings).await.verify(&token).await.expect("caller");
    assert_eq!(caller.user, claims.user);
    assert_eq!(caller.tenant, claims.tenant);
    assert_eq!(caller.permissions, claims.permissions);
    assert!((now() + 55..=now() + 60).contains(&caller.expires_at));
    assert!(caller.token_id.is_some());
    let again = verifier(&settings).await.verify(&sign(&settings, &claims).expect("token")).await.expect("caller");
    assert_ne!(again.token_id, caller.token_id, "every token has an id of its own");
    settings.hs256_secret = None;
    assert!(matches!(sign(&settings, &claims), Err(SignError::NoSecret)));
}

#[tokio::test]
async fn each_claim_is_required_and_checked() {
    let verifier = verifier(&settings()).await;
    verifier.verify(&hs256(&claims(json!({})))).await.expect("the good one");
    for (change, part) in [
        (json!({"sub":null}), "sub"),
        (json!({"sub":7}), "sub"),
        (json!({"sub":"two words"}), "sub"),
        (json!({"sub":""}), "sub"),
        (json!({"sub":"x".repeat(256)}), "sub"),
        (json!({"tenant_id":null}), "tenant_id"),
        (json!({"tenant_id":"a:b"}), "tenant_id"),
        (json!({"tenant_id":"*"}), "tenant_id"),
        (json!({"tenant_id":["acme"]}), "tenant_id"),
        (json!({"exp":null}), "exp"),
        (json!({"exp":"tomorrow"}), "exp"),
        (json!({"exp":-1}), "exp"),
        (json!({"exp":1e300}), "exp"),
        (json!({"exp":u64::MAX}), "exp"),
        (json!({"nbf":now() + 60}), "not valid yet"),
        (json!({"nbf":"soon"}), "nbf"),
        (json!({"permissions":"jobs.read"}), "permissions"),
        (json!({"permissions":[1]}), "permissions"),
    ] {
        invalid(part)(refusal(&verifier, &hs256(&claims(change))).await);
    }
    assert_eq!(refusal(&verifier, "").await, AuthError::Missing);
}

#[tokio::test]
async fn clocks_may_differ_by_five_seconds_and_no_more() {
    let verifier = verifier(&settings()).await;
    assert!(verifier.verify(&hs256(&claims(json!({"exp":now() - 1})))).await.is_ok());
    assert!(verifier.verify(&hs256(&claims(json!({"nbf":now() + 2})))).await.is_ok());
    assert_eq!(refusal(&verifier, &hs256(&claims(json!({"exp":now() - 20})))).await, AuthError::Expired);
}

#[tokio::test]
async fn issuer_and_audience_must_be_there_and_right_when_set() {
    let mut settings = settings();
    let open = verifier(&settings).await;
    let both = json!({"iss":"https://issuer","aud":["other","wheelhouse"]});
    assert!(open.verify(&hs256(&claims(both.clone()))).await.is_ok(), "without a setting any audience will do");
    settings.issuer = Some("https://issuer".into());
    settings.audience = Some("wheelhouse".into());
    let strict = verifier(&settings).await;
    assert!(strict.verify(&hs256(&claims(both))).await.is_ok());
    for (change, part) in [
        (json!({"aud":"wheelhouse"}), "names no issuer"),
        (json!({"iss":"https://evil","aud":"wheelhouse"}), "another issuer"),
        (json!({"iss":"https://issuer"}), "names no audience"),
        (json!({"iss":"https://issuer","aud":"wheelhouse2"}), "another audience"),
        (json!({"iss":"https://issuer","aud":["a"]}), "another audience"),
    ] {
        invalid(part)(refusal(&strict, &hs256(&claims(change))).await);
    }
}

#[tokio::test]
async fn forged_and_broken_tokens_are_refused() {
    let verifier = verifier(&settings()).await;
    let good = hs256(&claims(json!({})));
    let parts: Vec<&str> = good.split('.').collect();
    let other = hs256(&claims(json!({"tenant_id":"globex"})));
    let other_body = other.split('.').nth(1).expect("body");
    // {"alg":"none"} and {"alg":"None","typ":"JWT"}
    for head in ["eyJhbGciOiJub25lIn0", "eyJhbGciOiJOb25lIiwidHlwIjoiSldUIn0"] {
        for tail in ["", parts[2]] {
            invalid("JSON Web Token")(refusal(&verifier, &format!("{head}.{}.{tail}", parts[1])).await);
        }
    }
    invalid("signature")(refusal(&verifier, &format!("{}.{other_body}.{}", parts[0], parts[2])).await);
    invalid("signature")(refusal(&verifier, &format!("{}.{}.", parts[0], parts[1])).await);
    invalid("signature")(refusal(&verifier, &hmac(Algorithm::HS256, &"x".repeat(40), &claims(json!({})))).await);
    invalid("no key")(refusal(&verifier, &hmac(Algorithm::HS384, SECRET, &claims(json!({})))).await);
    invalid("no key")(refusal(&verifier, &hmac(Algorithm::HS512, SECRET, &claims(json!({})))).await);
    invalid("8 KiB")(refusal(&verifier, &hs256(&claims(json!({"pad":"x".repeat(MAX_TOKEN_LENGTH)})))).await);
    let mut critical = Header::new(Algorithm::HS256);
    critical.crit = Some(vec!["exp".into()]);
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let token = jsonwebtoken::encode(&critical, &claims(json!({})), &key).expect("token");
    invalid("critical")(refusal(&verifier, &token).await);
    for text in ["x", "a.b", "a.b.c", "....", "é.é.é", "eyJhbGciOiJIUzI1NiJ9..", &"a".repeat(4000)] {
        assert!(matches!(refusal(&verifier, text).await, AuthError::Invalid(_)), "{text}");
    }
}

#[tokio::test]
async fn a_claim_of_permissions_in_another_form_matters_only_where_it_is_believed() {
    let mut settings = settings();
    settings.permissions = PermissionSource::Database;
    let caller = verifier(&settings).await.verify(&hs256(&claims(json!({"permissions":"x"})))).await.expect("caller");
    assert_eq!(caller.permissions, None);
}

#[tokio::test]
async fn without_any_key_there_is_no_verifier() {
    let mut settings = settings();
    settings.hs256_secret = None;
    let error = Verifier::new(&settings, &TaskTracker::new(), CancellationToken::new()).await.err().expect("error");
    assert!(error.to_string().contains("set auth.hs256_secret, auth.jwks_url or auth.jwks_file"), "{error}");
    settings.hs256_secret = Some("short".into());
    let error = Verifier::new(&settings, &TaskTracker::new(), CancellationToken::new()).await.err().expect("error");
    assert!(error.to_string().contains("32 bytes") && !error.to_string().contains("short"), "{error}");
}

#[tokio::test]
async fn keys_of_a_file_verify_with_their_own_algorithm_only() {
    let (rsa, ec, ed) = (Pair::rsa(), Pair::p256(), Pair::ed25519());
    let file = tempfile::NamedTempFile::new().expect("file");
    let set = json!({"keys":[rsa.public("r"), ec.public("e"), ed.public("d")]});
    std::fs::write(file.path(), set.to_string()).expect("write");
    let mut settings = settings();
    settings.hs256_secret = None;
    settings.jwks_file = Some(file.path().to_owned());
    let verifier = verifier(&settings).await;
    for (pair, kid) in [(&rsa, "r"), (&ec, "e"), (&ed, "d")] {
        for kid in [Some(kid), None] {
            let caller = verifier.verify(&pair.token(kid, &claims(json!({})))).await.expect("caller");
            assert_eq!(caller.user.as_str(), "auth0|ann");
        }
        assert_eq!(
            refusal(&verifier, &pair.token(Some(kid), &claims(json!({"exp":now() - 60})))).await,
            AuthError::Expired
        );
    }
    // The name of another key, a key of somebody else, and the public key as an HMAC secret.
    invalid("no key")(refusal(&verifier, &ec.token(Some("r"), &claims(json!({})))).await);
    invalid("signature")(refusal(&verifier, &Pair::p256().token(Some("e"), &claims(json!({})))).await);
    let modulus = rsa.public("r")["n"].as_str().expect("n").to_owned();
    invalid("no key")(refusal(&verifier, &hmac(Algorithm::HS256, &modulus, &claims(json!({})))).await);
    invalid("no key")(refusal(&verifier, &hs256(&claims(json!({})))).await);
    settings.jwks_file = Some("/nowhere/keys.json".into());
    let error = Verifier::new(&settings, &TaskTracker::new(), CancellationToken::new()).await.err().expect("error");
    assert!(error.to_string().starts_with("setting auth.jwks_file: "), "{error}");
}

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
                let (status, body) = given.lock().expect("lock").clone();
                let head =
                    format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
                let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
            }
        });
        Self { address, answer, asked }
    }

    fn now_answers(&self, status: u16, body: String) {
        *self.answer.lock().expect("lock") = (status, body);
    }

    async fn verifier(&self, eager: Duration) -> Verifier {
        let mut settings = settings();
        settings.hs256_secret = None;
        settings.jwks_url = Some(format!("http://{}/keys", self.address));
        let policy = RefreshPolicy { eager, ..RefreshPolicy::default() };
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
async fn made_up_key_names_do_not_flood_the_issuer() {
    let pair = Pair::ed25519();
    let web = WebIssuer::start((200, json!({"keys":[pair.public("k")]}).to_string())).await;
    let verifier = web.verifier(Duration::from_secs(3600)).await;
    for n in 0..50 {
        invalid("no key")(refusal(&verifier, &pair.token(Some(&format!("made-up-{n}")), &claims(json!({})))).await);
    }
    assert_eq!(web.asked.load(Ordering::SeqCst), 1, "only the fetch at the start");
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

#[test]
fn plain_http_to_another_machine_is_worth_a_warning() {
    for here in ["http://127.0.0.1:1/k", "http://localhost/k", "http://[::1]/k", "https://issuer/k"] {
        assert!(!is_open_to_forgery(here), "{here}");
    }
    assert!(is_open_to_forgery("http://issuer.internal/k"));
}
