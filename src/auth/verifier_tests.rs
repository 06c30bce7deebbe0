//! Tokens that are accepted, and every kind that is not. Keys are made here, fresh for each run.

use std::sync::LazyLock;
use std::time::Duration;

use ::base64::Engine;
use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
};
use jsonwebtoken::EncodingKey;
use jsonwebtoken::jwk::Jwk;
use serde_json::json;

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
    ::base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
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

    fn p384() -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).expect("key");
        let pkcs8 = pair.to_pkcs8v1().expect("pkcs8");
        Self { algorithm: Algorithm::ES384, private: EncodingKey::from_ec_der(pkcs8.as_ref()), x: None }
    }

    fn pss() -> Self {
        Self { algorithm: Algorithm::PS256, ..Self::rsa() }
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
        hs256_previous_secret: None,
        jwks_url: None,
        jwks_file: None,
        jwks_max_age: Duration::from_secs(3_600),
        ca_pem: None,
        issuer: None,
        audience: None,
        max_token: Some(Duration::from_secs(86_400)),
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
        (json!({"sub":null}), "a token for a worker is none for a gateway"),
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
        (json!({"exp":253_402_300_799_i64}), "longer than this service accepts"),
        (json!({"exp":now() + 86_300, "iat":now() - 200}), "longer than this service accepts"),
        (json!({"iat":now() + 60}), "issued in the future"),
        (json!({"iat":"now"}), "iat"),
        (json!({"jti":7}), "jti"),
        (json!({"jti":""}), "jti"),
        (json!({"jti":"x".repeat(129)}), "jti"),
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
async fn the_previous_secret_verifies_and_signs_nothing() {
    const NEW: &str = "another secret of more than thirty-two bytes";
    let (old, mut new) = (settings(), settings());
    new.hs256_secret = Some(NEW.into());
    let claims = claims(json!({}));
    invalid("signature")(refusal(&verifier(&new).await, &hs256(&claims)).await);
    // In a rolling change the gateways differ: first by which secret they know as well, then by which they sign with.
    let (mut before, mut after) = (old.clone(), new.clone());
    before.hs256_previous_secret = Some(NEW.into());
    after.hs256_previous_secret = Some(SECRET.into());
    for settings in [&before, &after] {
        let verifier = verifier(settings).await;
        for secret in [SECRET, NEW] {
            verifier.verify(&hmac(Algorithm::HS256, secret, &claims)).await.expect("valid throughout");
        }
        let expired = json!({"sub":"a","tenant_id":"acme","exp":now() - 60});
        for secret in [SECRET, NEW] {
            let token = hmac(Algorithm::HS256, secret, &expired);
            assert_eq!(refusal(&verifier, &token).await, AuthError::Expired, "said of whichever key it is");
        }
    }
    let asked = sign::Claims {
        user: "ann".parse().expect("user"),
        tenant: "acme".parse().expect("tenant"),
        ttl: Duration::from_secs(60),
        permissions: None,
    };
    let signed = sign(&after, &asked).expect("token");
    verifier(&new).await.verify(&signed).await.expect("signed with the new one");
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
    let (rsa, ec, ed, pss, p384) = (Pair::rsa(), Pair::p256(), Pair::ed25519(), Pair::pss(), Pair::p384());
    let file = tempfile::NamedTempFile::new().expect("file");
    let set = json!({"keys":[rsa.public("r"), ec.public("e"), ed.public("d"), pss.public("p"), p384.public("s")]});
    std::fs::write(file.path(), set.to_string()).expect("write");
    let mut settings = settings();
    settings.hs256_secret = None;
    settings.jwks_file = Some(file.path().to_owned());
    let verifier = verifier(&settings).await;
    for (pair, kid) in [(&rsa, "r"), (&ec, "e"), (&ed, "d"), (&pss, "p"), (&p384, "s")] {
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

#[test]
fn plain_http_to_another_machine_is_worth_a_warning() {
    for here in ["http://127.0.0.1:1/k", "http://localhost/k", "http://[::1]/k", "https://issuer/k"] {
        assert!(!is_open_to_forgery(here), "{here}");
    }
    assert!(is_open_to_forgery("http://issuer.internal/k"));
}

#[path = "issuer_tests.rs"]
mod issuer;
