//! Where a request comes from, behind proxies. What a client says about itself is never believed: the address of the
//! connection counts, and only where it is a trusted proxy's, what that one says about whom it got the request from.

use std::net::{IpAddr, Ipv4Addr};

use hyper::HeaderMap;
use hyper::header::{FORWARDED, HeaderName};
use ipnet::IpNet;

use crate::config::{self, ForwardedHeader, holds_all_ipv4};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The address of whoever sent a request; in the extensions of every request. IPv4 is written as IPv4, also where the
/// listener is an IPv6 one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientAddress(pub IpAddr);

/// Which proxies are believed, and about what.
#[derive(Debug, Clone)]
pub struct TrustedProxies {
    networks: Vec<IpNet>,
    headers: Vec<ForwardedHeader>,
}

impl TrustedProxies {
    /// As the settings say.
    pub fn new(settings: &config::Server) -> Self {
        Self { networks: settings.trusted_proxies.clone(), headers: settings.forwarded_headers.clone() }
    }

    /// Whether this address is a trusted proxy's.
    pub fn trusts(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.networks.iter().any(|network| match network {
            IpNet::V6(v6) if address.is_ipv4() => holds_all_ipv4(v6),
            network => network.contains(&address),
        })
    }

    /// The client of a request that came over a connection from `peer`.
    ///
    /// Where both headers are there and do not agree, one of them was passed on as the client had sent it, and nothing
    /// tells which: then neither is believed, and the proxy's own address stands.
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> ClientAddress {
        let peer = peer.to_canonical();
        if !self.trusts(peer) {
            return ClientAddress(peer);
        }
        let mut found = None;
        for header in &self.headers {
            let hops = match header {
                ForwardedHeader::Forwarded => hops(headers, &FORWARDED, forwarded),
                ForwardedHeader::XForwardedFor => hops(headers, &X_FORWARDED_FOR, x_forwarded_for),
            };
            if hops.is_empty() {
                continue;
            }
            let client = self.first_untrusted(peer, hops);
            if *found.get_or_insert(client) != client {
                return ClientAddress(peer);
            }
        }
        ClientAddress(found.unwrap_or(peer))
    }

    /// Walks from the nearest hop to the farthest, as long as each is a trusted proxy. What is no address is nobody's
    /// word: the hop that passed it on is as far as can be seen.
    fn first_untrusted(&self, peer: IpAddr, hops: Vec<Option<IpAddr>>) -> IpAddr {
        let mut client = peer;
        for hop in hops.into_iter().rev() {
            let Some(address) = hop else { break };
            client = address;
            if !self.trusts(address) {
                break;
            }
        }
        client
    }
}

/// All that the lines of one header say, in the order in which it was added: several lines count as one list.
fn hops(headers: &HeaderMap, name: &HeaderName, read: fn(&[u8], &mut Vec<Option<IpAddr>>)) -> Vec<Option<IpAddr>> {
    let mut hops = Vec::new();
    for line in headers.get_all(name) {
        read(line.as_bytes(), &mut hops);
    }
    hops
}

fn x_forwarded_for(line: &[u8], hops: &mut Vec<Option<IpAddr>>) {
    let entries = line.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    // RFC 9110 lets a list have empty elements, which mean nothing.
    hops.extend(entries.filter(|entry| !entry.is_empty()).map(address));
}

/// The elements of a line of `Forwarded`. From the first one on that breaks the form nothing is believed: a quotation
/// mark that a client left open would otherwise take what the proxy added into its own text.
fn forwarded(line: &[u8], hops: &mut Vec<Option<IpAddr>>) {
    let mut rest = line;
    loop {
        rest = rest.trim_ascii_start();
        match rest {
            [] => return,
            [b',', after @ ..] => rest = after,
            _ => match element(rest) {
                Some((hop, after)) => {
                    hops.push(hop);
                    rest = after;
                }
                None => return hops.push(None),
            },
        }
    }
}

/// One element, up to its comma or the end: `for=192.0.2.43;proto=https`. Its address, and what follows it.
fn element(mut rest: &[u8]) -> Option<(Option<IpAddr>, &[u8])> {
    let mut node = None;
    loop {
        let equals = rest.iter().position(|byte| matches!(byte, b'=' | b',' | b';' | b'"'))?;
        if rest[equals] != b'=' {
            return None;
        }
        let name = rest[..equals].trim_ascii();
        let (value, after) = value(&rest[equals + 1..])?;
        if name.eq_ignore_ascii_case(b"for") && node.replace(value).is_some() {
            return None;
        }
        rest = after.trim_ascii_start();
        match rest {
            [b';', after @ ..] => rest = after,
            [] | [b',', ..] => return Some((node.and_then(|node| address(&node)), rest)),
            _ => return None,
        }
    }
}

/// A word, or a text in quotation marks.
fn value(rest: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let Some((b'"', mut rest)) = rest.split_first() else {
        let end = rest.iter().position(|byte| matches!(byte, b',' | b';')).unwrap_or(rest.len());
        let word = rest[..end].trim_ascii();
        let is_word = !word.is_empty() && !word.iter().any(|byte| *byte == b'"' || byte.is_ascii_whitespace());
        return is_word.then(|| (word.to_vec(), &rest[end..]));
    };
    let mut text = Vec::new();
    loop {
        match rest {
            [b'"', after @ ..] => return Some((text, after)),
            [b'\\', byte, after @ ..] | [byte, after @ ..] => {
                text.push(*byte);
                rest = after;
            }
            [] => return None,
        }
    }
}

/// An address, with or without a port: `192.0.2.43`, `192.0.2.43:4711`, `2001:db8::1`, `[2001:db8::1]`,
/// `[2001:db8::1]:4711`. Names, `unknown` and `_hidden` are none.
fn address(entry: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(entry).ok()?;
    let address = if let Some(bracketed) = text.strip_prefix('[') {
        let (inner, port) = bracketed.split_once(']')?;
        if !port.is_empty() && !port.starts_with(':') {
            return None;
        }
        IpAddr::V6(inner.parse().ok()?)
    } else if let Ok(address) = text.parse::<IpAddr>() {
        address
    } else {
        IpAddr::V4(text.rsplit_once(':')?.0.parse::<Ipv4Addr>().ok()?)
    };
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::source::tests::headers;

    fn proxies(networks: &[&str]) -> TrustedProxies {
        TrustedProxies {
            networks: networks.iter().map(|text| text.parse().expect("network")).collect(),
            headers: vec![ForwardedHeader::Forwarded, ForwardedHeader::XForwardedFor],
        }
    }

    fn client(peer: &str, pairs: &[(&str, &str)]) -> String {
        let proxies = proxies(&["10.0.0.0/8", "fd00::/8"]);
        proxies.client(peer.parse().expect("address"), &headers(pairs)).0.to_string()
    }

    #[test]
    fn only_a_trusted_proxy_is_believed() {
        for peer in ["192.0.2.1", "2001:db8::1", "11.0.0.1"] {
            assert_eq!(client(peer, &[("x-forwarded-for", "198.51.100.7")]), peer);
            assert_eq!(client(peer, &[("forwarded", "for=198.51.100.7")]), peer);
        }
        for peer in ["10.1.2.3", "::ffff:10.1.2.3", "fd00::2"] {
            assert_eq!(client(peer, &[("x-forwarded-for", "198.51.100.7")]), "198.51.100.7");
            assert_eq!(client(peer, &[("forwarded", "for=198.51.100.7")]), "198.51.100.7");
        }
        assert_eq!(client("::ffff:192.0.2.1", &[]), "192.0.2.1");
        assert_eq!(client("10.1.2.3", &[]), "10.1.2.3");
    }

    #[test]
    fn hops_are_read_from_the_nearest_on_and_what_the_client_made_up_is_not() {
        for (lines, is) in [
            (&["6.6.6.6, 198.51.100.7"][..], "198.51.100.7"),
            (&["6.6.6.6, 198.51.100.7, 10.0.0.9,10.0.0.8"], "198.51.100.7"),
            (&["6.6.6.6", "198.51.100.7", "10.0.0.9"], "198.51.100.7"),
            (&["10.0.0.9, 10.0.0.8"], "10.0.0.9"),
            (&["6.6.6.6, unknown, 10.0.0.9"], "10.0.0.9"),
            (&["6.6.6.6, example.com"], "10.1.2.3"),
            (&["6.6.6.6, 10.0.0.9\u{e9}"], "10.1.2.3"),
            (&[", ,198.51.100.7, ,"], "198.51.100.7"),
            (&[""], "10.1.2.3"),
            (&["198.51.100.7:4711"], "198.51.100.7"),
            (&["2001:db8::7"], "2001:db8::7"),
            (&["[2001:db8::7]:4711"], "2001:db8::7"),
            (&["::ffff:198.51.100.7"], "198.51.100.7"),
            (&["198.51.100.7, ::ffff:10.0.0.9"], "198.51.100.7"),
            (&["fe80::1%eth0"], "10.1.2.3"),
        ] {
            let pairs: Vec<_> = lines.iter().map(|line| ("x-forwarded-for", *line)).collect();
            assert_eq!(client("10.1.2.3", &pairs), is, "{lines:?}");
        }
    }

    #[test]
    fn forwarded_is_read_as_the_rfc_writes_it() {
        for (lines, is) in [
            (&["for=192.0.2.43"][..], "192.0.2.43"),
            (&["For=\"[2001:db8:cafe::17]:4711\""], "2001:db8:cafe::17"),
            (&["for=192.0.2.60;proto=http;by=203.0.113.43"], "192.0.2.60"),
            (&["by=203.0.113.43 ; for=\"192.0.2.60:_port\" ; host=\"a, b;c\""], "192.0.2.60"),
            (&["for=6.6.6.6, for=192.0.2.43, for=10.0.0.9"], "192.0.2.43"),
            (&["for=6.6.6.6", "for=192.0.2.43"], "192.0.2.43"),
            (&["for=\"192.0.2\\.43\""], "192.0.2.43"),
            (&["for=6.6.6.6, for=unknown"], "10.1.2.3"),
            (&["for=6.6.6.6, for=_hidden, for=10.0.0.9"], "10.0.0.9"),
            (&["for=6.6.6.6, proto=https"], "10.1.2.3"),
            (&["for=6.6.6.6;for=192.0.2.43"], "10.1.2.3"),
            // Open quotation marks of a client around what the proxy added.
            (&["for=6.6.6.6;x=\", for=\"[2001:db8::7]\""], "10.1.2.3"),
            (&["for=6.6.6.6, for=\", for=192.0.2.43"], "10.1.2.3"),
            (&["garbage"], "10.1.2.3"),
            (&["garbage, for=192.0.2.43"], "10.1.2.3"),
        ] {
            let pairs: Vec<_> = lines.iter().map(|line| ("forwarded", *line)).collect();
            assert_eq!(client("10.1.2.3", &pairs), is, "{lines:?}");
        }
    }

    #[test]
    fn two_headers_that_disagree_are_both_left_alone() {
        let both = |forwarded, other| client("10.1.2.3", &[("forwarded", forwarded), ("x-forwarded-for", other)]);
        assert_eq!(both("for=192.0.2.43", "192.0.2.43"), "192.0.2.43");
        assert_eq!(both("for=6.6.6.6", "192.0.2.43"), "10.1.2.3");
        let mut one = proxies(&["10.0.0.0/8"]);
        one.headers = vec![ForwardedHeader::XForwardedFor];
        let pairs = [("forwarded", "for=6.6.6.6"), ("x-forwarded-for", "192.0.2.43")];
        let found = one.client("10.1.2.3".parse().expect("address"), &headers(&pairs));
        assert_eq!(found.0.to_string(), "192.0.2.43");
    }

    #[test]
    fn a_network_of_everybody_holds_both_kinds_of_addresses() {
        let all = proxies(&["::/0"]);
        assert!(all.trusts("192.0.2.1".parse().expect("v4")) && all.trusts("2001:db8::1".parse().expect("v6")));
        let some = proxies(&["2000::/3"]);
        assert!(!some.trusts("192.0.2.1".parse().expect("v4")) && some.trusts("2001:db8::1".parse().expect("v6")));
    }

    proptest::proptest! {
        /// Whatever a client puts in front, the entry that the proxy added decides.
        #[test]
        fn nothing_in_front_changes_what_the_proxy_added(front in "[ -~]{0,60}") {
            let x = client("10.1.2.3", &[("x-forwarded-for", &format!("{front}, 192.0.2.43"))]);
            proptest::prop_assert_eq!(x, "192.0.2.43");
            let forwarded = client("10.1.2.3", &[("forwarded", &format!("{front}, for=192.0.2.43"))]);
            // A form that is broken hides the client behind its proxy, and never behind an address of its choice.
            proptest::prop_assert!(forwarded == "192.0.2.43" || forwarded == "10.1.2.3", "{}", forwarded);
        }
    }
}
