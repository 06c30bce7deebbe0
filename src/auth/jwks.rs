//! The issuer's public keys: reading a JSON Web Key Set, pinning one algorithm to each key, and fetching
//! the set from a file or over HTTP.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::roca;

/// Most keys of a set that are looked at: a token without `kid` is tried with each of its algorithm.
const MAX_KEYS: usize = 64;
/// Largest answer of an issuer.
const MAX_BODY: usize = 1024 * 1024;
/// Longest wait for an issuer.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// Shortest RSA modulus, in bits.
const MIN_RSA_BITS: usize = 2048;
/// What issuers may sign with.
pub(super) const ISSUER_ALGORITHMS: [Algorithm; 5] =
    [Algorithm::RS256, Algorithm::PS256, Algorithm::ES256, Algorithm::ES384, Algorithm::EdDSA];

/// One public key and one algorithm it may be used with. The key decides, never the token.
#[derive(Clone)]
pub(super) struct IssuerKey {
    pub(super) kid: Option<String>,
    pub(super) algorithm: Algorithm,
    pub(super) key: DecodingKey,
}

/// The usable keys of a set. Others (for encryption, of other kinds, too short) are left out: an issuer may
/// publish them for somebody else. A set without any is the issuer's word too: none of its keys is good any more. An error
/// is one line for the operator: the text is no set.
pub(super) fn parse(text: &[u8]) -> Result<Vec<IssuerKey>, String> {
    #[derive(serde::Deserialize)]
    struct JwkSet {
        keys: Vec<serde_json::Value>,
    }
    let set: JwkSet = serde_json::from_slice(text).map_err(|_| "not a JSON Web Key Set (an object with \"keys\")")?;
    let keys: Vec<IssuerKey> = set.keys.into_iter().flat_map(to_usable_keys).take(MAX_KEYS).collect();
    if keys.is_empty() {
        tracing::warn!("auth.no_issuer_key: {NO_USABLE_KEY}");
    }
    Ok(keys)
}

/// What a set without a usable key lacks.
pub(super) const NO_USABLE_KEY: &str = "no usable key in the set: RSA (RS256 or PS256, 2048 bits or more), P-256 (ES256), \
    P-384 (ES384) or Ed25519 (EdDSA)";

/// The key with each algorithm that it may be used with: the one that it names, else those of its kind.
fn to_usable_keys(value: serde_json::Value) -> Vec<IssuerKey> {
    let Ok(jwk) = serde_json::from_value::<Jwk>(value) else { return Vec::new() };
    let algorithms: &[Algorithm] = match &jwk.algorithm {
        AlgorithmParameters::RSA(rsa) if is_strong_rsa(&rsa.n, &rsa.e) => &[Algorithm::RS256, Algorithm::PS256],
        AlgorithmParameters::EllipticCurve(ec) if ec.curve == EllipticCurve::P256 => &[Algorithm::ES256],
        AlgorithmParameters::EllipticCurve(ec) if ec.curve == EllipticCurve::P384 => &[Algorithm::ES384],
        AlgorithmParameters::OctetKeyPair(okp) if okp.curve == EllipticCurve::Ed25519 => &[Algorithm::EdDSA],
        // Symmetric keys among them: a key that is published can sign for anyone.
        _ => &[],
    };
    let common = &jwk.common;
    let signs = matches!(common.public_key_use, None | Some(PublicKeyUse::Signature));
    let verifies = common.key_operations.as_ref().is_none_or(|all| all.contains(&KeyOperations::Verify));
    let (true, true, Ok(key)) = (signs, verifies, DecodingKey::from_jwk(&jwk)) else { return Vec::new() };
    let fits =
        |algorithm: &&Algorithm| common.key_algorithm.is_none_or(|named| named == KeyAlgorithm::from(**algorithm));
    let with =
        |algorithm: &Algorithm| IssuerKey { kid: common.key_id.clone(), algorithm: *algorithm, key: key.clone() };
    algorithms.iter().filter(fits).map(with).collect()
}

/// Whether a modulus is long enough, zeros in front of it not counted, and of no chip that is known for weak ones, and the
/// exponent is odd and not 1.
fn is_strong_rsa(modulus: &str, exponent: &str) -> bool {
    let number = |text: &str| -> Option<Vec<u8>> {
        let bytes = URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok()?;
        Some(bytes.into_iter().skip_while(|byte| *byte == 0).collect())
    };
    let (Some(modulus), Some(exponent)) = (number(modulus), number(exponent)) else { return false };
    let bits = modulus.first().map_or(0, |first| modulus.len() * 8 - first.leading_zeros() as usize);
    bits >= MIN_RSA_BITS
        && !roca::is_marked(&modulus)
        && exponent != [1]
        && exponent.last().is_some_and(|last| last % 2 == 1)
}

type HttpsClient = Client<hyper_rustls::HttpsConnector<HttpConnector>, Empty<Bytes>>;

/// Where the set is.
pub(super) enum KeySource {
    File(PathBuf),
    Web { client: Box<HttpsClient>, address: hyper::Uri },
}

impl KeySource {
    /// `ca_pem`: the only authorities that are believed; else those that the environment names, else the public ones.
    pub(super) fn from_url(address: &str, ca_pem: Option<&[u8]>) -> Result<Self, String> {
        let address: hyper::Uri = address.parse().map_err(|_| "auth.jwks_url is not a web address".to_owned())?;
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(tls_config(ca_pem)?)
            .https_or_http()
            .enable_http1();
        let connector = connector.build();
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

fn tls_config(ca_pem: Option<&[u8]>) -> Result<rustls::ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let versions = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let versions = versions.map_err(|error| error.to_string())?;
    let mut roots = RootCertStore::empty();
    let (source, certificates) = match ca_pem {
        Some(pem) => {
            let read = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
            ("setting auth.ca_file", read.map_err(|_| "setting auth.ca_file: is no PEM file of certificates")?)
        }
        None => {
            let path = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
            let (file, folder) = (path("SSL_CERT_FILE"), path("SSL_CERT_DIR"));
            if file.is_none() && folder.is_none() {
                roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
                return Ok(versions.with_root_certificates(roots).with_no_client_auth());
            }
            let found = rustls_native_certs::load_certs_from_paths(file.as_deref(), folder.as_deref());
            ("SSL_CERT_FILE or SSL_CERT_DIR", found.certs)
        }
    };
    let (added, _) = roots.add_parsable_certificates(certificates);
    if added == 0 {
        return Err(format!("{source}: holds no certificate in PEM that can be read"));
    }
    Ok(versions.with_root_certificates(roots).with_no_client_auth())
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
        let mut key = json!({"kty":"RSA","kid":"r","n":format!("{}w", "_".repeat(341)),"e":"AQAB"});
        key.as_object_mut().expect("object").extend(extra.as_object().expect("object").clone());
        key
    }

    fn read(key: serde_json::Value) -> Vec<Algorithm> {
        let set = json!({"keys":[{"kty":"strange"}, key]});
        parse(set.to_string().as_bytes()).expect("a set").into_iter().map(|key| key.algorithm).collect()
    }

    #[test]
    fn each_kind_of_key_has_its_algorithms() {
        assert_eq!(read(rsa(json!({}))), [Algorithm::RS256, Algorithm::PS256]);
        assert_eq!(read(rsa(json!({"alg":"RS256","use":"sig","key_ops":["verify"]}))), [Algorithm::RS256]);
        assert_eq!(read(rsa(json!({"alg":"PS256"}))), [Algorithm::PS256]);
        let coordinate = "A".repeat(43);
        let ec = json!({"kty":"EC","crv":"P-256","x":coordinate,"y":coordinate});
        assert_eq!(read(ec), [Algorithm::ES256]);
        let coordinates = "A".repeat(64);
        let p384 = json!({"kty":"EC","crv":"P-384","x":coordinates,"y":coordinates});
        assert_eq!(read(p384), [Algorithm::ES384]);
        assert_eq!(read(json!({"kty":"OKP","crv":"Ed25519","x":coordinate})), [Algorithm::EdDSA]);
    }

    #[test]
    fn keys_that_are_weak_or_for_something_else_are_left_out() {
        for key in [
            rsa(json!({"n":format!("{}w", "_".repeat(170))})),
            // 2047 bits, and 1024 behind zeros.
            rsa(json!({"n":format!("f{}w", "_".repeat(340))})),
            rsa(json!({"n":format!("{}{}w", "A".repeat(171), "_".repeat(170))})),
            // Long enough, and with the mark of the chip.
            rsa(json!({"n":URL_SAFE_NO_PAD.encode(roca::tests::power(128))})),
            rsa(json!({"e":"AQ"})),
            rsa(json!({"e":"Ag"})),
            rsa(json!({"alg":"RS512"})),
            rsa(json!({"alg":"HS256"})),
            rsa(json!({"alg":"none"})),
            rsa(json!({"use":"enc"})),
            rsa(json!({"key_ops":["encrypt"]})),
            json!({"kty":"oct","k":"c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2U"}),
            json!({"kty":"oct","alg":"HS256","k":"c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2U"}),
            json!({"kty":"EC","crv":"P-521","x":"AA","y":"AA"}),
            json!({"kty":"OKP","crv":"X25519","x":"AA"}),
            json!("text"),
        ] {
            assert_eq!(read(key.clone()), [], "{key}");
        }
        for text in ["", "[]", "{}", r#"{"keys":7}"#] {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
    }
}
