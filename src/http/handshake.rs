//! The headers of a WebSocket request (RFC 6455, section 4.2), its answer, and whether its origin may open sockets.

use hyper::header::{CONNECTION, FORWARDED, HOST, HeaderName, HeaderValue, ORIGIN, UPGRADE};
use hyper::header::{SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION};
use hyper::http::uri::Authority;
use hyper::{HeaderMap, StatusCode, Version};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use warp::reply::{Reply, Response};

use super::reply::Refusal;
use crate::auth::{header_values, offers_protocol};

/// Why a request cannot become a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfit {
    /// A plain request.
    NotAnUpgrade,
    /// Another version of the protocol.
    Version,
    /// The key is missing or not one.
    Key,
}

/// Checks everything and gives the key to accept with.
pub fn check(headers: &HeaderMap) -> Result<HeaderValue, Unfit> {
    let lists = |name, member: &str| header_values(headers, name).any(|m| m.eq_ignore_ascii_case(member.as_bytes()));
    if !lists(&UPGRADE, "websocket") || !lists(&CONNECTION, "upgrade") {
        return Err(Unfit::NotAnUpgrade);
    }
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|v| v.as_bytes() != b"13") {
        return Err(Unfit::Version);
    }
    let mut keys = headers.get_all(SEC_WEBSOCKET_KEY).iter();
    let (Some(key), None) = (keys.next(), keys.next()) else { return Err(Unfit::Key) };
    let key = key.as_bytes().trim_ascii();
    if !is_key(key) {
        return Err(Unfit::Key);
    }
    HeaderValue::from_str(&derive_accept_key(key)).map_err(|_| Unfit::Key)
}

impl Unfit {
    /// As an HTTP answer.
    pub fn response(self) -> Response {
        let (status, message) = match self {
            Self::NotAnUpgrade => {
                (StatusCode::UPGRADE_REQUIRED, "This address is a WebSocket: connect with a WebSocket client")
            }
            Self::Version => (StatusCode::UPGRADE_REQUIRED, "Only version 13 of the WebSocket protocol is spoken here"),
            Self::Key => (StatusCode::BAD_REQUEST, "Sec-WebSocket-Key is missing or not 16 bytes in base64"),
        };
        let mut response = Refusal::invalid(message).to_response();
        *response.status_mut() = status;
        if status == StatusCode::UPGRADE_REQUIRED {
            let headers = response.headers_mut();
            headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        }
        response
    }
}

/// `101 Switching Protocols`. `protocol` is the subprotocol that is answered where the client offers it.
pub fn switching(headers: &HeaderMap, accept: HeaderValue, protocol: &'static str) -> Response {
    let mut response = warp::reply().into_response();
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let answer = response.headers_mut();
    answer.insert(UPGRADE, HeaderValue::from_static("websocket"));
    answer.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    answer.insert(SEC_WEBSOCKET_ACCEPT, accept);
    if offers_protocol(headers, protocol) {
        answer.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
    }
    response
}

/// Whether a request says once to which host it goes. HTTP/1.0 knows no such header, and may leave it out. `asked`: the
/// host in the address of the request itself, as proxies write it; it may be no other.
pub fn has_one_host(version: Version, asked: Option<&Authority>, headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None)
            if asked.is_some_and(|asked| !asked.as_str().as_bytes().eq_ignore_ascii_case(host.as_bytes())) =>
        {
            false
        }
        (None, _) => version < Version::HTTP_11,
        // Empty where the address of the request has no host.
        (Some(host), None) => {
            host.is_empty() || (Authority::try_from(host.as_bytes()).is_ok() && !host.as_bytes().contains(&b'@'))
        }
        (Some(_), Some(_)) => false,
    }
}

/// 16 bytes in base64.
fn is_key(key: &[u8]) -> bool {
    let Some(body) = key.strip_suffix(b"==") else { return false };
    body.len() == 22 && body.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/'))
}

/// Whether a page of this origin may open sockets here: one of the gateway's own address, scheme, host and port, or one of
/// the list. Programs send no origin; browsers always do, and they
/// send cookies along whichever page asks.
pub fn origin_allowed(headers: &HeaderMap, public_origins: &[String]) -> bool {
    let mut origins = headers.get_all(ORIGIN).iter();
    let Some(origin) = origins.next() else { return true };
    let (Ok(origin), None) = (origin.to_str(), origins.next()) else { return false };
    let Some(place) = HostAndPort::of_origin(origin) else { return false };
    if is_own(&place, headers) {
        return true;
    }
    public_origins.iter().any(|allowed| allowed.trim_end_matches('/').eq_ignore_ascii_case(origin))
}

/// Whether the origin is the address to which the browser sent the request. The proxy that ends TLS says by which scheme
/// (`X-Forwarded-Proto`, `Forwarded`); no page can make a browser send these headers, and none with a cookie along. Where
/// nobody says it, a port shows it; without a port it may have been either.
fn is_own(origin: &HostAndPort<'_>, headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(HOST).and_then(|host| host.to_str().ok()) else { return false };
    let Some(own) = HostAndPort::of_authority(host, origin.default_port) else { return false };
    let is_https = origin.default_port == HTTPS_PORT;
    let has_port = HostAndPort::of_authority(host, 0).is_some_and(|own| own.port != 0);
    let fits = match forwarded_https(headers) {
        Some(was_https) => was_https == is_https,
        None => !has_port || (own.port == HTTPS_PORT) == is_https,
    };
    fits && own == *origin
}

/// Whether a proxy says that the client speaks TLS. Of several, each hop adds its word: one that ends TLS is enough.
fn forwarded_https(headers: &HeaderMap) -> Option<bool> {
    let words = header_values(headers, &X_FORWARDED_PROTO).map(<[u8]>::to_ascii_lowercase);
    let elements = header_values(headers, &FORWARDED).flat_map(|element| element.split(|byte| *byte == b';'));
    let protos = elements.filter_map(|pair| {
        let pair = pair.trim_ascii().to_ascii_lowercase();
        Some(pair.strip_prefix(b"proto=")?.trim_ascii().to_vec())
    });
    let quote = |byte: &u8| *byte == b'"';
    let all: Vec<Vec<u8>> =
        words.chain(protos).map(|word| word.into_iter().filter(|byte| !quote(byte)).collect()).collect();
    if all.is_empty() { None } else { Some(all.iter().any(|word| word == b"https" || word == b"wss")) }
}

const HTTPS_PORT: u16 = 443;

/// In which a proxy names the scheme of the client's request.
pub static X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Host and port, and the port that its scheme has by default.
struct HostAndPort<'a> {
    host: &'a str,
    port: u16,
    default_port: u16,
}

impl PartialEq for HostAndPort<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.host.eq_ignore_ascii_case(other.host) && self.port == other.port
    }
}

impl<'a> HostAndPort<'a> {
    fn of_origin(origin: &'a str) -> Option<Self> {
        let (scheme, authority) = origin.split_once("://")?;
        let default_port = match scheme.to_ascii_lowercase().as_str() {
            "http" => 80,
            "https" => HTTPS_PORT,
            _ => return None,
        };
        Self::of_authority(authority, default_port)
    }

    fn of_authority(authority: &'a str, default_port: u16) -> Option<Self> {
        // The colons of an IPv6 address stand between brackets.
        let end = authority.rfind(']').map_or(0, |at| at + 1);
        let (host, port) = match authority[end..].rfind(':') {
            Some(at) => (&authority[..end + at], authority[end + at + 1..].parse().ok()?),
            None => (authority, default_port),
        };
        (!host.is_empty()).then_some(Self { host, port, default_port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::source::tests::headers;

    /// The request of RFC 6455, section 1.3, with one header replaced, or left out where the value is empty.
    fn request(replace: (&str, &str)) -> HeaderMap {
        let all = [
            ("upgrade", "websocket"),
            ("connection", "Upgrade"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("sec-websocket-version", "13"),
        ];
        let pairs: Vec<_> = all.into_iter().map(|pair| if pair.0 == replace.0 { replace } else { pair }).collect();
        headers(&pairs.into_iter().filter(|pair| !pair.1.is_empty()).collect::<Vec<_>>())
    }

    #[test]
    fn the_example_of_the_rfc_is_accepted_with_its_key() {
        let key = check(&request(("", ""))).expect("accepted");
        assert_eq!(key, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        for good in [("connection", "keep-alive, UPGRADE"), ("upgrade", "WebSocket"), ("upgrade", "h2c, websocket")] {
            assert!(check(&request(good)).is_ok(), "{good:?}");
        }
    }

    #[test]
    fn each_missing_or_wrong_header_has_its_answer() {
        let cases = [
            (("upgrade", ""), Unfit::NotAnUpgrade, 426),
            (("upgrade", "h2c"), Unfit::NotAnUpgrade, 426),
            (("connection", "keep-alive"), Unfit::NotAnUpgrade, 426),
            (("sec-websocket-version", ""), Unfit::Version, 426),
            (("sec-websocket-version", "8"), Unfit::Version, 426),
            (("sec-websocket-key", ""), Unfit::Key, 400),
            (("sec-websocket-key", "short=="), Unfit::Key, 400),
            (("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZ!=="), Unfit::Key, 400),
        ];
        for (change, unfit, status) in cases {
            assert_eq!(check(&request(change)), Err(unfit), "{change:?}");
            let response = unfit.response();
            assert_eq!(response.status(), status);
            assert_eq!(response.headers().contains_key(SEC_WEBSOCKET_VERSION), status == 426);
        }
    }

    #[test]
    fn a_request_names_its_host_once() {
        let fits = |version, hosts: &[&str]| {
            let pairs: Vec<_> = hosts.iter().map(|host| ("host", *host)).collect();
            has_one_host(version, None, &headers(&pairs))
        };
        for host in ["a", "a:80", "127.0.0.1:8000", "[::1]:8000", ""] {
            assert!(fits(Version::HTTP_11, &[host]), "{host}");
        }
        for hosts in [&[][..], &["a", "a"], &["a", "b"], &["a, b"], &["a b"], &["user@a"], &["a/b"], &["http://a"]] {
            assert!(!fits(Version::HTTP_11, hosts), "{hosts:?}");
        }
        assert!(fits(Version::HTTP_10, &[]));
        assert!(!fits(Version::HTTP_10, &["a", "b"]));
    }

    #[test]
    fn the_gateways_own_pages_and_the_listed_ones_may_open_sockets() {
        let public = ["https://ops.example.com".to_owned(), "http://localhost:3000/".to_owned()];
        let allowed =
            |origin: &str, host: &str| origin_allowed(&headers(&[("origin", origin), ("host", host)]), &public);
        assert!(origin_allowed(&headers(&[("host", "a")]), &[]));
        for (origin, host) in [
            ("http://127.0.0.1:8000", "127.0.0.1:8000"),
            ("http://Example.com", "example.COM"),
            ("https://example.com", "example.com:443"),
            ("https://example.com", "example.com"),
            ("http://[::1]:8000", "[::1]:8000"),
            ("https://ops.example.com", "10.0.0.7:8000"),
            ("http://localhost:3000", "127.0.0.1:8000"),
        ] {
            assert!(allowed(origin, host), "{origin} at {host}");
        }
        for (origin, host) in [
            ("null", "127.0.0.1:8000"),
            ("", ""),
            ("http://127.0.0.1:9000", "127.0.0.1:8000"),
            ("http://evil.example", "127.0.0.1:8000"),
            ("http://ops.example.com", "127.0.0.1:8000"),
            ("https://ops.example.com.evil.example", "127.0.0.1:8000"),
            ("http://example.com:80x", "example.com"),
            ("file://example.com", "example.com"),
            ("https://127.0.0.1:8000", "127.0.0.1:8000"),
            ("http://example.com:443", "example.com:443"),
        ] {
            assert!(!allowed(origin, host), "{origin} at {host}");
        }
        let behind = |origin: &str, name: &str, value: &str| {
            let all = [("origin", origin), ("host", "ops.test"), (name, value)];
            origin_allowed(&headers(&all), &[])
        };
        for (name, value) in [
            ("x-forwarded-proto", "https"),
            ("x-forwarded-proto", "HTTPS, http"),
            ("forwarded", "for=10.0.0.1;proto=https"),
            ("forwarded", "for=10.0.0.1; Proto=\"https\", for=10.0.0.2"),
        ] {
            assert!(behind("https://ops.test", name, value), "{value}");
            assert!(!behind("http://ops.test", name, value), "{value}: the scheme counts");
        }
        assert!(behind("http://ops.test", "x-forwarded-proto", "http"));
        assert!(!behind("https://ops.test", "x-forwarded-proto", "http"));
        let odd_port = [("origin", "https://ops.test:8443"), ("host", "ops.test:8443"), ("x-forwarded-proto", "https")];
        assert!(origin_allowed(&headers(&odd_port), &[]));
        let twice = [("origin", "http://a"), ("origin", "http://b"), ("host", "a")];
        assert!(!origin_allowed(&headers(&twice), &[]));
    }
}
