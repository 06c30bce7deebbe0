//! Tokens of an issuer whose keys come over HTTPS, with a certificate of a private authority.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::json;

use super::trust::tls_before;
use crate::support::fleet::{Fleet, Handle, http};
use crate::support::tls::Authority;
use crate::support::tokens::now;

/// A key of the issuer's.
struct Key {
    name: &'static str,
    private: EncodingKey,
}

impl Key {
    fn new(name: &'static str) -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).expect("key");
        let pkcs8 = pair.to_pkcs8v1().expect("pkcs8");
        Self { name, private: EncodingKey::from_ec_der(pkcs8.as_ref()) }
    }

    fn public(&self) -> serde_json::Value {
        let mut jwk = Jwk::from_encoding_key(&self.private, Algorithm::ES384).expect("public half");
        jwk.common.key_id = Some(self.name.to_owned());
        serde_json::to_value(jwk).expect("JSON")
    }

    fn token(&self) -> String {
        let mut header = Header::new(Algorithm::ES384);
        header.kid = Some(self.name.to_owned());
        let claims = json!({"sub": "ann", "tenant_id": "acme", "iat": now(), "exp": now() + 600});
        jsonwebtoken::encode(&header, &claims, &self.private).expect("token")
    }
}

/// Serves the set; gives its address. What is served can be changed.
fn serve(set: Arc<Mutex<String>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("address").to_string();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut request = [0; 4096];
            let _ = stream.read(&mut request);
            let body = set.lock().expect("lock").clone();
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
            let _ = stream.write_all(format!("{head}{body}").as_bytes());
        }
    });
    address
}

fn status(fleet: &Fleet, gateway: Handle, token: &str) -> u16 {
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str())];
    http(&fleet.process(gateway).address, "GET", "/api/v1/jobs", &headers, "").expect("an answer").0
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_come_over_https_from_an_issuer_with_a_private_authority_and_change() {
    let authority = Authority::new();
    authority.sign("DNS:localhost");
    let folder = authority.file().parent().expect("folder").to_owned();
    let (old, new) = (Key::new("old"), Key::new("new"));
    let set = Arc::new(Mutex::new(json!({"keys": [old.public()]}).to_string()));
    let port = tls_before(&folder.join("server.pem"), &folder.join("server.key"), &serve(set.clone()));
    let mut fleet = Fleet::new();
    fleet.permit("ann", "jobs.read").await;
    fleet.set("AUTH__JWKS_URL", &format!("https://localhost:{port}/keys"));
    let stranger = fleet.gateway();
    assert_eq!(status(&fleet, stranger, &old.token()), 503, "nobody has said that this authority is to be believed");
    fleet.set("AUTH__CA_FILE", &authority.file().display().to_string());
    let gateway = fleet.gateway();
    assert_eq!(status(&fleet, gateway, &old.token()), 200);
    assert_eq!(status(&fleet, gateway, &new.token()), 401);
    // The key changes right after a fetch.
    *set.lock().expect("lock") = json!({"keys": [old.public(), new.public()]}).to_string();
    assert_eq!(status(&fleet, gateway, &new.token()), 200, "a new key is found at its first token");
    *set.lock().expect("lock") = json!({"keys": []}).to_string();
    assert_eq!(status(&fleet, gateway, &Key::new("other").token()), 401);
    let end = Instant::now() + Duration::from_secs(20);
    while status(&fleet, gateway, &old.token()) != 401 {
        assert!(Instant::now() < end, "the keys of before are still good");
        std::thread::sleep(Duration::from_millis(50));
    }
}
