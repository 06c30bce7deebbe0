//! What a token's header and times must be like, beyond a signature that fits (RFC 8725).

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::{AuthError, LEEWAY};

/// The end of the year 9999: nothing later is a time that a clock can be asked about.
const MAX_TIMESTAMP: f64 = 253_402_300_799.0;

const NOT_A_TOKEN: AuthError = AuthError::Invalid("it is not a JSON Web Token of a kind that is accepted here");

/// Refuses a header that asks for something that is not done here: whoever wrote it meant the token to be read in
/// another way. Names of keys and addresses of keys in it are no instructions, and are passed over.
pub(super) fn check_header(token: &str) -> Result<(), AuthError> {
    let mut parts = token.split('.');
    let (Some(header), Some(_), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return Err(NOT_A_TOKEN);
    };
    let header = URL_SAFE_NO_PAD.decode(header).map_err(|_| NOT_A_TOKEN)?;
    let header: Map<String, Value> = serde_json::from_slice(&header).map_err(|_| NOT_A_TOKEN)?;
    if header.contains_key("crit") || header.contains_key("b64") {
        return Err(AuthError::Invalid("its header has critical parts that are not understood here"));
    }
    if header.contains_key("zip") || header.contains_key("enc") {
        return Err(AuthError::Invalid("it is compressed or encrypted, which is not understood here"));
    }
    if header.contains_key("cty") {
        return Err(AuthError::Invalid("it holds another token, which is not understood here"));
    }
    match header.get("typ") {
        None => Ok(()),
        Some(Value::String(kind)) if is_access_token(kind) => Ok(()),
        Some(_) => Err(AuthError::Invalid("its typ is neither JWT nor at+jwt: it is for something else")),
    }
}

/// `JWT`, or `at+jwt` (RFC 9068). Tokens for other purposes say so here, and may be signed with the same key.
fn is_access_token(kind: &str) -> bool {
    let kind = kind.to_ascii_lowercase();
    matches!(kind.strip_prefix("application/").unwrap_or(&kind), "jwt" | "at+jwt")
}

/// When a token was issued and when it ends, in Unix seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lifetime {
    pub(super) issued_at: Option<i64>,
    pub(super) expires_at: i64,
}

impl Lifetime {
    /// Reads `iat` and `exp`. `longest`: the longest time between the two; without `iat`, from now on.
    pub(super) fn read(
        iat: Option<&Value>,
        exp: Option<&Value>,
        now: i64,
        longest: Option<i64>,
    ) -> Result<Self, AuthError> {
        let expires_at = exp.and_then(time).ok_or(AuthError::Invalid("its exp is missing or not a time"))?;
        let issued_at = match iat {
            None => None,
            Some(iat) => Some(time(iat).ok_or(AuthError::Invalid("its iat is not a time"))?),
        };
        if issued_at.is_some_and(|at| at > now.saturating_add(LEEWAY)) {
            return Err(AuthError::Invalid("it was issued in the future: is a clock wrong?"));
        }
        let from = issued_at.unwrap_or(now.saturating_add(LEEWAY));
        if longest.is_some_and(|longest| expires_at.saturating_sub(from) > longest) {
            return Err(AuthError::Invalid(
                "it is good for longer than this service accepts: get one that ends sooner",
            ));
        }
        Ok(Self { issued_at, expires_at })
    }
}

/// Seconds, without their fraction.
fn time(value: &Value) -> Option<i64> {
    value.as_f64().filter(|time| (0.0..=MAX_TIMESTAMP).contains(time)).map(|time| time as i64)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn header(header: &Value) -> Result<(), AuthError> {
        check_header(&format!("{}.e30.c2ln", URL_SAFE_NO_PAD.encode(header.to_string())))
    }

    #[test]
    fn a_header_that_asks_for_what_is_not_done_here_is_refused() {
        for good in [
            json!({"alg":"HS256"}),
            json!({"alg":"HS256","typ":"JWT"}),
            json!({"alg":"RS256","typ":"jwt","kid":"k","jku":"https://evil.example"}),
            json!({"alg":"RS256","typ":"at+JWT"}),
            json!({"alg":"RS256","typ":"application/at+jwt"}),
        ] {
            assert_eq!(header(&good), Ok(()), "{good}");
        }
        for bad in [
            json!({"crit":null}),
            json!({"crit":[]}),
            json!({"crit":["exp"]}),
            json!({"b64":false}),
            json!({"zip":"DEF"}),
            json!({"zip":null}),
            json!({"enc":"A128GCM"}),
            json!({"cty":"JWT"}),
            json!({"typ":"logout+jwt"}),
            json!({"typ":"JWE"}),
            json!({"typ":null}),
            json!({"typ":["JWT"]}),
            json!("text"),
            json!([]),
        ] {
            assert!(header(&bad).is_err(), "{bad}");
        }
        for token in ["", ".", "..", "e30.e30", "e30.e30.e30.e30", "e30=.e30.e30", "!.e30.e30"] {
            assert!(check_header(token).is_err(), "{token}");
        }
    }

    #[test]
    fn times_are_times_and_a_life_is_not_longer_than_the_longest() {
        let read = |iat: Value, exp: Value| Lifetime::read(Some(&iat), Some(&exp), 1_000, Some(600));
        assert_eq!(read(json!(999.9), json!(1_599.5)), Ok(Lifetime { issued_at: Some(999), expires_at: 1_599 }));
        assert!(read(json!(1_005), json!(1_605)).is_ok(), "clocks differ");
        for (iat, exp) in [
            (json!(1_006), json!(1_100)),
            (json!(900), json!(1_501)),
            (json!(null), json!(1_100)),
            (json!("900"), json!(1_100)),
            (json!(-1), json!(1_100)),
            (json!(900), json!("1100")),
            (json!(900), json!(1e300)),
        ] {
            assert!(read(iat.clone(), exp.clone()).is_err(), "{iat} {exp}");
        }
        let without_iat = |exp: i64, longest| Lifetime::read(None, Some(&json!(exp)), 1_000, longest);
        assert!(without_iat(1_605, Some(600)).is_ok());
        assert!(without_iat(1_606, Some(600)).is_err());
        assert!(without_iat(253_402_300_799, Some(7_776_000)).is_err(), "the year 9999");
        assert!(without_iat(253_402_300_799, None).is_ok());
    }
}
