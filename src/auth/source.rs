//! Where a token may be in a request (CONTRACT section 3), and in which order the places count.

use std::fmt;

use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, COOKIE, HeaderName, HeaderValue, SEC_WEBSOCKET_PROTOCOL};

/// What is answered in `Sec-WebSocket-Protocol` to a client that offers it.
pub const WEBSOCKET_PROTOCOL: &str = "wheelhouse";

/// Where a token was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenSource {
    /// `?token=`
    Query,
    /// `Authorization: Bearer`
    Header,
    /// The cookie `access_token`: browsers send it by themselves, so the request's origin must be checked.
    Cookie,
    /// `Sec-WebSocket-Protocol: wheelhouse, bearer.<token>`
    Protocol,
}

/// A token as it was presented, not yet believed.
#[derive(Clone, PartialEq, Eq)]
pub struct PresentedToken {
    /// Its text: for the verifier only.
    pub token: String,
    /// Where it was.
    pub place: TokenSource,
}

/// Without the token.
impl fmt::Debug for PresentedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PresentedToken").field("place", &self.place).finish_non_exhaustive()
    }
}

/// The token of a request: the first place that has one counts, and a place that has an empty one has none.
/// `query` is what stands after the `?`.
pub fn extract(query: Option<&str>, headers: &HeaderMap) -> Option<PresentedToken> {
    let found = |token: Option<String>, place| {
        token.filter(|token| !token.is_empty()).map(|token| PresentedToken { token, place })
    };
    found(query.and_then(from_query), TokenSource::Query)
        .or_else(|| found(from_authorization(headers), TokenSource::Header))
        .or_else(|| found(from_cookie(headers), TokenSource::Cookie))
        .or_else(|| found(from_protocol(headers), TokenSource::Protocol))
}

/// The token of a foreign worker: `Authorization: Bearer`, else `bearer.<token>` beside this subprotocol.
pub fn extract_for_protocol(headers: &HeaderMap, protocol: &str) -> Option<String> {
    let offered = || {
        let bearer = || header_values(headers, &SEC_WEBSOCKET_PROTOCOL).find_map(|p| p.strip_prefix(b"bearer."));
        offers_protocol(headers, protocol).then(bearer).flatten().map(text)
    };
    from_authorization(headers).or_else(offered).filter(|token| !token.is_empty())
}

/// Whether the client offers this subprotocol, which must then be answered: a browser drops a socket whose server picked
/// none of the offered ones, wherever the token was.
pub fn offers_protocol(headers: &HeaderMap, protocol: &str) -> bool {
    header_values(headers, &SEC_WEBSOCKET_PROTOCOL).any(|offered| offered == protocol.as_bytes())
}

fn from_query(query: &str) -> Option<String> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let decoded = |text| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
    pairs.into_iter().find(|(name, _)| decoded(name) == "token").map(|(_, value)| decoded(value))
}

/// Of two tokens a proxy might have checked the one, and this program take the other: then neither is taken.
fn from_authorization(headers: &HeaderMap) -> Option<String> {
    let bearer = |value: &HeaderValue| {
        let value = value.as_bytes();
        let space = value.iter().position(|byte| *byte == b' ')?;
        value[..space].eq_ignore_ascii_case(b"bearer").then(|| text(&value[space..]))
    };
    let mut tokens = headers.get_all(AUTHORIZATION).iter().filter_map(bearer);
    let first = tokens.next()?;
    Some(if tokens.all(|other| other == first) { first } else { "two tokens".to_owned() })
}

fn from_cookie(headers: &HeaderMap) -> Option<String> {
    let cookies = headers.get_all(COOKIE).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b';'));
    let token = cookies.map(<[u8]>::trim_ascii).find_map(|pair| pair.strip_prefix(b"access_token="))?;
    Some(text(token).trim_matches('"').to_owned())
}

fn from_protocol(headers: &HeaderMap) -> Option<String> {
    // Without `wheelhouse` beside it there would be no protocol to answer with, and the token must not be one.
    if !offers_protocol(headers, WEBSOCKET_PROTOCOL) {
        return None;
    }
    header_values(headers, &SEC_WEBSOCKET_PROTOCOL).find_map(|p| p.strip_prefix(b"bearer.")).map(text)
}

/// The members of a header that is a list with commas, over all its lines. They are bytes: what one of them, or
/// another part of the same line, is made of is no reason not to see the others.
pub fn header_values<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
    let lines = headers.get_all(name).iter();
    lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b',')).map(<[u8]>::trim_ascii)
}

/// Bytes that are to be a token. Whatever is no text makes one that no key fits: it is invalid, and not absent.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(HeaderName::from_bytes(name.as_bytes()).expect("name"), value.parse().expect("value"));
        }
        map
    }

    fn found(query: Option<&str>, pairs: &[(&str, &str)]) -> Option<(String, TokenSource)> {
        extract(query, &headers(pairs)).map(|p| (p.token, p.place))
    }

    #[test]
    fn a_token_is_found_in_each_of_its_four_places() {
        let is = |token: &str, place| Some((token.to_owned(), place));
        assert_eq!(found(Some("a=1&token=q%2Eq"), &[]), is("q.q", TokenSource::Query));
        assert_eq!(found(None, &[("authorization", "bearer  h")]), is("h", TokenSource::Header));
        let two = [("authorization", "Bearer h"), ("authorization", "Bearer i")];
        assert_eq!(found(None, &two), is("two tokens", TokenSource::Header), "neither of two that differ");
        let with_another_kind = [("authorization", "Basic eDp5"), ("authorization", "Bearer h")];
        assert_eq!(found(None, &with_another_kind), is("h", TokenSource::Header));
        assert_eq!(found(None, &[("cookie", "x=1; access_token=c; y=2")]), is("c", TokenSource::Cookie));
        assert_eq!(found(None, &[("cookie", "x=1"), ("cookie", "access_token=c")]), is("c", TokenSource::Cookie));
        let protocol = [("sec-websocket-protocol", "wheelhouse, bearer.a.b.c")];
        assert_eq!(found(None, &protocol), is("a.b.c", TokenSource::Protocol));
        let lines = [("sec-websocket-protocol", "wheelhouse"), ("sec-websocket-protocol", "bearer.p")];
        assert_eq!(found(None, &lines), is("p", TokenSource::Protocol));
    }

    #[test]
    fn the_places_count_in_the_order_of_the_contract() {
        let all = [
            ("authorization", "Bearer h"),
            ("cookie", "access_token=c"),
            ("sec-websocket-protocol", "wheelhouse, bearer.p"),
        ];
        assert_eq!(found(Some("token=q"), &all).expect("one").0, "q");
        assert_eq!(found(Some("token="), &all).expect("one").0, "h");
        assert_eq!(found(None, &all[1..]).expect("one").0, "c");
        assert_eq!(found(None, &all[2..]).expect("one").0, "p");
    }

    #[test]
    fn what_only_looks_like_a_token_is_none() {
        assert_eq!(found(Some("xtoken=q&tokens=q"), &[]), None);
        assert_eq!(found(None, &[("authorization", "Basic abc")]), None);
        assert_eq!(found(None, &[("authorization", "Bearer")]), None);
        assert_eq!(found(None, &[("cookie", "my_access_token=c")]), None);
        assert_eq!(found(None, &[("sec-websocket-protocol", "bearer.p")]), None);
    }

    #[test]
    fn bytes_of_others_beside_a_token_do_not_hide_it() {
        let raw = |pairs: &[(&'static str, &[u8])]| {
            let mut map = HeaderMap::new();
            for (name, value) in pairs {
                map.append(*name, hyper::header::HeaderValue::from_bytes(value).expect("value"));
            }
            extract(None, &map).map(|p| (p.token, p.place))
        };
        let is = |token: &str, place| Some((token.to_owned(), place));
        for others in
            [&b"name=J\xc3\xb6rg; access_token=c"[..], b"access_token=c; name=J\xf6rg", b"\xff\xfe;access_token=c"]
        {
            assert_eq!(raw(&[("cookie", others)]), is("c", TokenSource::Cookie));
            assert_eq!(raw(&[("cookie", b"x=\xff"), ("cookie", others)]), is("c", TokenSource::Cookie));
        }
        let protocols = b"\xc3\xb6, wheelhouse, bearer.p";
        assert_eq!(raw(&[("sec-websocket-protocol", protocols)]), is("p", TokenSource::Protocol));
        // A place that has something has a token, even if it is none that is good for anything.
        let both = raw(&[("authorization", b"Bearer J\xf6rg"), ("cookie", b"access_token=c")]).expect("one");
        assert_eq!(both.1, TokenSource::Header);
        assert_eq!(found(Some("x=%ff&token=q"), &[]), is("q", TokenSource::Query));
        assert_eq!(found(Some("%74oken=q"), &[]), is("q", TokenSource::Query));
        assert_eq!(found(Some("token=%ff"), &[("cookie", "access_token=c")]).expect("one").1, TokenSource::Query);
    }

    #[test]
    fn the_protocol_is_answered_wherever_the_token_was_and_the_token_is_not_printed() {
        assert!(offers_protocol(&headers(&[("sec-websocket-protocol", "x, wheelhouse")]), WEBSOCKET_PROTOCOL));
        assert!(!offers_protocol(&headers(&[("sec-websocket-protocol", "bearer.wheelhouse")]), WEBSOCKET_PROTOCOL));
        let presented = extract(Some("token=verysecret"), &HeaderMap::new()).expect("one");
        assert!(!format!("{presented:?}").contains("verysecret"));
    }
}
