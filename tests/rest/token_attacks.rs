//! A table of attacks by token: each is a 401, over HTTP and on a socket, and the words never show the token.

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::support::api::RestFixture;
use crate::support::fleet::SECRET;
use crate::support::socket::Socket;
use crate::support::tokens::now;

fn encoded(part: &str) -> String {
    URL_SAFE_NO_PAD.encode(part)
}

fn mac(algorithm: hmac::Algorithm, secret: &[u8], message: &str) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(algorithm, secret), message.as_bytes()).as_ref().to_vec()
}

/// A token of this very text, signed with HMAC and SHA-256.
fn signed(secret: &[u8], header: &str, claims: &str) -> String {
    let message = format!("{}.{}", encoded(header), encoded(claims));
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(mac(hmac::HMAC_SHA256, secret, &message)))
}

fn claims() -> Value {
    json!({
        "sub": "ann", "tenant_id": "acme", "iss": "https://issuer", "aud": "wheelhouse",
        "iat": now(), "exp": now() + 600, "permissions": ["*"],
    })
}

const HEADER: &str = r#"{"alg":"HS256","typ":"JWT"}"#;

/// Signed with the right key, with this header.
fn with_header(header: &Value) -> String {
    signed(SECRET.as_bytes(), &header.to_string(), &claims().to_string())
}

/// Signed with the right key, with some claims replaced; `null` stays as it is, and "absent" takes a claim out.
fn with_claims(changes: &Value) -> String {
    let mut claims = claims();
    let map = claims.as_object_mut().expect("object");
    for (name, value) in changes.as_object().expect("object") {
        map.insert(name.clone(), value.clone());
    }
    map.retain(|_, value| *value != "absent");
    signed(SECRET.as_bytes(), HEADER, &claims.to_string())
}

fn attacks() -> Vec<(String, String)> {
    let secret = SECRET.as_bytes();
    let body = claims().to_string();
    let good = signed(secret, HEADER, &body);
    let parts: Vec<&str> = good.split('.').collect();
    let mut all: Vec<(String, String)> = Vec::new();
    let mut add = |name: &str, token: String| all.push((name.to_owned(), token));

    // Without a signature, or with somebody else's.
    for alg in ["none", "None", "NONE", "nOnE", ""] {
        let header = json!({"alg": alg}).to_string();
        add(&format!("alg {alg:?} without a signature"), format!("{}.{}.", encoded(&header), parts[1]));
        add(&format!("alg {alg:?} with one"), signed(secret, &header, &body));
    }
    add("no signature", format!("{}.{}.", parts[0], parts[1]));
    add("a shorter signature", good[..good.len() - 4].to_owned());
    add("a longer signature", format!("{good}AAAA"));
    add("another key", signed(b"another secret of more than thirty-two bytes", HEADER, &body));
    add("the empty key", signed(b"", HEADER, &body));
    add("the key in another case", signed(SECRET.to_uppercase().as_bytes(), HEADER, &body));
    add(
        "other claims under the signature",
        format!("{}.{}.{}", parts[0], encoded(&body.replace("acme", "globex")), parts[2]),
    );
    // Another algorithm than the key's.
    for (alg, algorithm) in [("HS384", hmac::HMAC_SHA384), ("HS512", hmac::HMAC_SHA512)] {
        let message = format!("{}.{}", encoded(&json!({"alg": alg}).to_string()), parts[1]);
        add(alg, format!("{message}.{}", URL_SAFE_NO_PAD.encode(mac(algorithm, secret, &message))));
    }
    for alg in ["RS256", "PS256", "ES256", "ES384", "EdDSA", "RS512", "hs256", "HS256 ", "HMACSHA256", "dir", "A128KW"]
    {
        add(&format!("alg {alg:?} with the HMAC key"), with_header(&json!({"alg": alg})));
    }
    for alg in [json!(null), json!(["HS256"]), json!({"HS256": 1}), json!(256), json!(true)] {
        add(&format!("alg {alg}"), with_header(&json!({"alg": alg})));
    }
    add("no alg", with_header(&json!({"typ": "JWT"})));
    add("alg twice", signed(secret, r#"{"alg":"none","alg":"HS256"}"#, &body));
    // Keys that the token brings along or names.
    for kid in [
        "/dev/null",
        "../../../../dev/null",
        "' OR '1'='1",
        "' UNION SELECT 'x' -- ",
        "| cat /etc/passwd",
        "\u{0}",
        "http://evil.example/k",
    ] {
        for key in [&b""[..], b"\0", b"x"] {
            add(&format!("kid {kid:?}"), signed(key, &json!({"alg": "HS256", "kid": kid}).to_string(), &body));
        }
    }
    let own = json!({"kty": "oct", "k": encoded("attacker"), "alg": "HS256"});
    for header in [
        json!({"alg": "HS256", "jwk": own}),
        json!({"alg": "HS256", "jku": "http://127.0.0.1:1/keys"}),
        json!({"alg": "HS256", "x5u": "http://127.0.0.1:1/cert"}),
        json!({"alg": "HS256", "x5c": ["MIIB"]}),
    ] {
        add(&header.to_string(), signed(b"attacker", &header.to_string(), &body));
    }
    // Headers that mean something else.
    for more in [
        json!({"crit": ["exp"]}),
        json!({"crit": []}),
        json!({"crit": null}),
        json!({"crit": "exp"}),
        json!({"b64": false}),
        json!({"zip": "DEF"}),
        json!({"zip": null}),
        json!({"enc": "A128GCM"}),
        json!({"cty": "JWT"}),
        json!({"typ": "dpop+jwt"}),
        json!({"typ": "logout+jwt"}),
        json!({"typ": "secevent+jwt"}),
        json!({"typ": "wheelhouse-worker+jwt"}),
        json!({"typ": ""}),
        json!({"typ": null}),
        json!({"typ": 1}),
        json!({"typ": ["JWT"]}),
    ] {
        let mut header = json!({"alg": "HS256"});
        header.as_object_mut().expect("object").extend(more.as_object().expect("object").clone());
        add(&format!("header {more}"), with_header(&header));
    }
    // Not of the right form.
    add("a token in a token", signed(secret, HEADER, &good));
    add("a token in a token as a text", signed(secret, HEADER, &json!(good).to_string()));
    for other in ["null", "[]", "7", "\"ann\"", "", "{", "{}", "\u{feff}{}"] {
        add(&format!("claims {other:?}"), signed(secret, HEADER, other));
        add(&format!("header {other:?}"), signed(secret, other, &body));
    }
    add("five parts", format!("{good}.{}.{}", parts[0], parts[1]));
    add("two parts", format!("{}.{}", parts[0], parts[1]));
    add("a dot before", format!(".{good}"));
    add("a dot behind", format!("{good}."));
    add("padding", format!("{}=.{}.{}", parts[0], parts[1], parts[2]));
    let padded = format!("{}.{}", STANDARD.encode(HEADER), STANDARD.encode(&body));
    add("the other alphabet", format!("{padded}.{}", STANDARD.encode(mac(hmac::HMAC_SHA256, secret, &padded))));
    add("huge", with_claims(&json!({"pad": "x".repeat(8_192)})));
    add("deep", signed(secret, HEADER, &format!("{{\"sub\":{}1{}}}", "[".repeat(2_000), "]".repeat(2_000))));
    // Claims that are wrong, missing, or of another kind.
    for changes in [
        json!({"iss": "absent"}),
        json!({"iss": "https://evil"}),
        json!({"iss": "https://issuer/"}),
        json!({"iss": null}),
        json!({"iss": 7}),
        json!({"aud": "absent"}),
        json!({"aud": "wheelhouse2"}),
        json!({"aud": ["a", "b"]}),
        json!({"aud": []}),
        json!({"aud": null}),
        json!({"sub": "absent"}),
        json!({"sub": ""}),
        json!({"sub": 7}),
        json!({"sub": null}),
        json!({"sub": ["ann"]}),
        json!({"sub": "ann\u{200b}"}),
        json!({"sub": "\u{202e}nna"}),
        json!({"sub": "ann\u{e000}"}),
        json!({"sub": "a b"}),
        json!({"sub": "x".repeat(256)}),
        json!({"tenant_id": "absent"}),
        json!({"tenant_id": "*"}),
        json!({"tenant_id": "a:b"}),
        json!({"tenant_id": "../acme"}),
        json!({"tenant_id": ["acme"]}),
        json!({"tenant_id": ""}),
        json!({"tenant_id": null}),
        json!({"exp": "absent"}),
        json!({"exp": null}),
        json!({"exp": "9999999999"}),
        json!({"exp": 0}),
        json!({"exp": -1}),
        json!({"exp": now() - 60}),
        json!({"exp": 253_402_300_799_i64}),
        json!({"exp": 1e300}),
        json!({"exp": true}),
        json!({"exp": now() + 7_776_100}),
        json!({"iat": now() + 3_600}),
        json!({"iat": null}),
        json!({"iat": "now"}),
        json!({"iat": now() - 7_776_000}),
        json!({"nbf": now() + 3_600}),
        json!({"nbf": "soon"}),
        json!({"jti": 7}),
        json!({"jti": null}),
        json!({"jti": ""}),
        json!({"jti": "x".repeat(129)}),
        // Nobody could revoke it by this name: SQL has no NUL, and what cannot be seen cannot be typed.
        json!({"jti": "a\u{0}b"}),
        json!({"jti": "a\u{200b}b"}),
        json!({"jti": "\u{202e}ab"}),
        json!({"permissions": "*"}),
        json!({"permissions": [1]}),
        json!({"permissions": {"*": true}}),
    ] {
        add(&format!("claims {changes}"), with_claims(&changes));
    }
    add("sub twice", signed(secret, HEADER, &body.replacen('{', "{\"sub\":\"eve\",", 1)));
    add("tenant_id twice", signed(secret, HEADER, &body.replacen('{', "{\"tenant_id\":\"globex\",", 1)));
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_attack_by_token_is_a_401() {
    let settings = [("auth.permissions", "token"), ("auth.issuer", "https://issuer"), ("auth.audience", "wheelhouse")];
    let api = RestFixture::start(&settings).await;
    let good = signed(SECRET.as_bytes(), HEADER, &claims().to_string());
    api.get(&good, "/api/v1/jobs").await.expect(200);
    for header in
        [json!({"alg": "HS256"}), json!({"alg": "HS256", "typ": "at+jwt", "kid": "7", "jku": "http://127.0.0.1:1"})]
    {
        api.get(&with_header(&header), "/api/v1/jobs").await.expect(200);
    }
    api.get(&with_claims(&json!({"aud": ["other", "wheelhouse"], "jti": "t"})), "/api/v1/jobs").await.expect(200);
    let attacks = attacks();
    assert!(attacks.len() > 130, "{}", attacks.len());
    for (name, token) in &attacks {
        let reply = api.get(token, "/api/v1/jobs").await;
        assert_eq!(reply.status, 401, "{name}: {reply:?}");
        let shown = token.split('.').find(|part| part.len() > 12);
        assert!(shown.is_none_or(|part| !reply.text.contains(part)), "{name}: {reply:?}");
        let path = format!("ws://{}/api/v1/realtime/ws?token={}", api.address, percent(token));
        let refused = Socket::try_open(&path, &[]).await.err().map(|(status, _)| status);
        assert_eq!(refused, Some(401), "{name} on a socket");
    }
    api.get(&good, "/api/v1/jobs").await.expect(200);
}

/// As it can stand in an address.
fn percent(token: &str) -> String {
    percent_encoding::utf8_percent_encode(token, percent_encoding::NON_ALPHANUMERIC).to_string()
}
