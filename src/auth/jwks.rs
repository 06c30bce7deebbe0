//! The issuer's public keys: reading a JSON Web Key Set, pinning one algorithm to each key, and fetching
//! the set from a file or over HTTP.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};

/// Most keys of a set that are looked at: a token without `kid` is tried with each of its algorithm.
const MAX_KEYS: usize = 64;
/// Largest answer of an issuer.
const MAX_BODY: usize = 1024 * 1024;
/// Longest wait for an issuer.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// Shortest RSA modulus as base64: 2048 bits are 256 bytes, 342 letters.
const MIN_RSA_LETTERS: usize = 342;

/// One public key and the only algorithm it may be used with. The key decides, never the token.
#[derive(Clone)]
pub(super) struct IssuerKey {
    pub(super) kid: Option<String>,
    pub(super) algorithm: Algorithm,
    pub(super) key: DecodingKey,
}

/// The usable keys of a set. Others (for encryption, of other kinds, too short) are left out: an issuer may
/// publish them for somebody else. An error is one line for the operator.
pub(super) fn parse(text: &[u8]) -> Result<Vec<IssuerKey>, String> {
    #[derive(serde::Deserialize)]
    struct JwkSet {
        keys: Vec<serde_json::Value>,
    }
    let set: JwkSet = serde_json::from_slice(text).map_err(|_| "not a JSON Web Key Set (an object with \"keys\")")?;
    let keys: Vec<IssuerKey> = set.keys.into_iter().take(MAX_KEYS).filter_map(to_usable_key).collect();
    if keys.is_empty() {
        return Err("no usable key in the set: RSA (RS256, 2048 bits or more), P-256 (ES256) or Ed25519 (EdDSA)".into());
    }
    Ok(keys)
}

fn to_usable_key(value: serde_json::Value) -> Option<IssuerKey> {
    let jwk: Jwk = serde_json::from_value(value).ok()?;
    let algorithm = match &jwk.algorithm {
        AlgorithmParameters::RSA(rsa) if rsa.n.trim_end_matches('=').len() >= MIN_RSA_LETTERS => Algorithm::RS256,
        AlgorithmParameters::EllipticCurve(ec) if ec.curve == EllipticCurve::P256 => Algorithm::ES256,
        AlgorithmParameters::OctetKeyPair(okp) if okp.curve == EllipticCurve::Ed25519 => Algorithm::EdDSA,
        // Symmetric keys among them: a key that is published can sign for anyone.
        _ => return None,
    };
    let common = &jwk.common;
    let fits = common.key_algorithm.is_none_or(|named| named == KeyAlgorithm::from(algorithm));
    let signs = matches!(common.public_key_use, None | Some(PublicKeyUse::Signature));
    let verifies = common.key_operations.as_ref().is_none_or(|all| all.contains(&KeyOperations::Verify));
    if !(fits && signs && verifies) {
        return None;
    }
    let key = DecodingKey::from_jwk(&jwk).ok()?;
    Some(IssuerKey { kid: common.key_id.clone(), algorithm, key })
}

type HttpsClient = Client<hyper_rustls::HttpsConnector<HttpConnector>, Empty<Bytes>>;

/// Where the set is.
pub(super) enum KeySource {
    File(PathBuf),
    Web { client: Box<HttpsClient>, address: hyper::Uri },
}

impl KeySource {
    pub(super) fn from_url(address: &str) -> Result<Self, String> {
        let address: hyper::Uri = address.parse().map_err(|_| "auth.jwks_url is not a web address".to_owned())?;
        let connector =
            hyper_rustls::HttpsConnectorBuilder::new().with_webpki_roots().https_or_http().enable_http1().build();
        Ok(Self::Web { client: Box::new(Client::builder(TokioExecutor::new()).build(connector)), address })
    }

    /// In words, for the log: without a query, which may hold a key of its own.
    pub(super) fn message(&self) -> String {
        match self {
            Self::File(path) => format!("the file {}", path.display()),
            Self::Web { address, .. } => format!("{}{}", address.host().unwrap_or_default(), address.path()),
        }
    }

    /// Reads the set as it is now.
    pub(super) async fn fetch(&self) -> Result<Vec<IssuerKey>, String> {
        match self {
            Self::File(path) => parse(&tokio::fs::read(path).await.map_err(|error| error.to_string())?),
            Self::Web { client, address } => {
                let fetching = download(client, address.clone());
                let body = tokio::time::timeout(FETCH_TIMEOUT, fetching).await;
                parse(&body.map_err(|_| format!("no answer within {} s", FETCH_TIMEOUT.as_secs()))??)
            }
        }
    }
}

async fn download(client: &HttpsClient, address: hyper::Uri) -> Result<Bytes, String> {
    let request = hyper::Request::get(address)
        .header(hyper::header::ACCEPT, "application/jwk-set+json, application/json")
        .body(Empty::new())
        .map_err(|error| error.to_string())?;
    let answer = client.request(request).await.map_err(|error| with_causes(&error))?;
    // Redirects are not followed: the address is the operator's word, not the server's.
    if answer.status() != hyper::StatusCode::OK {
        return Err(format!("answered {}", answer.status()));
    }
    let body = Limited::new(answer.into_body(), MAX_BODY).collect().await;
    Ok(body.map_err(|error| format!("the answer broke off: {error}"))?.to_bytes())
}

/// An error with its causes: hyper's own words alone are "client error (Connect)".
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rsa(extra: serde_json::Value) -> serde_json::Value {
        let mut key = json!({"kty":"RSA","kid":"r","n":"A".repeat(342),"e":"AQAB"});
        key.as_object_mut().expect("object").extend(extra.as_object().expect("object").clone());
        key
    }

    fn read(key: serde_json::Value) -> Option<Algorithm> {
        let set = json!({"keys":[{"kty":"strange"}, key]});
        parse(set.to_string().as_bytes()).ok().map(|keys| keys[0].algorithm)
    }

    #[test]
    fn each_kind_of_key_has_one_algorithm() {
        assert_eq!(read(rsa(json!({}))), Some(Algorithm::RS256));
        assert_eq!(read(rsa(json!({"alg":"RS256","use":"sig","key_ops":["verify"]}))), Some(Algorithm::RS256));
        let coordinate = "A".repeat(43);
        let ec = json!({"kty":"EC","crv":"P-256","x":coordinate,"y":coordinate});
        assert_eq!(read(ec), Some(Algorithm::ES256));
        assert_eq!(read(json!({"kty":"OKP","crv":"Ed25519","x":coordinate})), Some(Algorithm::EdDSA));
    }

    #[test]
    fn keys_that_are_weak_or_for_something_else_are_left_out() {
        for key in [
            rsa(json!({"n":"A".repeat(171)})),
            rsa(json!({"alg":"RS512"})),
            rsa(json!({"alg":"HS256"})),
            rsa(json!({"alg":"none"})),
            rsa(json!({"use":"enc"})),
            rsa(json!({"key_ops":["encrypt"]})),
            json!({"kty":"oct","k":"c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2U"}),
            json!({"kty":"oct","alg":"HS256","k":"c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2U"}),
            json!({"kty":"EC","crv":"P-384","x":"AA","y":"AA"}),
            json!({"kty":"OKP","crv":"X25519","x":"AA"}),
            json!("text"),
        ] {
            assert_eq!(read(key.clone()), None, "{key}");
        }
        for text in ["", "[]", "{}", r#"{"keys":[]}"#, r#"{"keys":7}"#] {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
    }
}
