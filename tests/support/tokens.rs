//! Tokens with any claims, signed with the key of the tests.

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use super::fleet::SECRET;

/// Unix seconds.
pub fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

/// A token of these claims beside the usual ones; `null` takes one out.
pub fn token_with(user: &str, tenant: &str, claims: &Value) -> String {
    let mut body = json!({"sub": user, "tenant_id": tenant, "iat": now(), "exp": now() + 600});
    let map = body.as_object_mut().expect("object");
    for (name, value) in claims.as_object().expect("an object of claims") {
        map.insert(name.clone(), value.clone());
    }
    map.retain(|_, value| !value.is_null());
    signed(&body)
}

/// A token of exactly these claims.
pub fn signed(claims: &Value) -> String {
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &key).expect("token")
}
