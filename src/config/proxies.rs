//! Settings about the proxies in front of a gateway.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::ForwardedHeader;

/// Bits of an IPv6 address in front of an IPv4 address that is mapped into it.
const MAPPED_BITS: u8 = 96;

/// A network in CIDR notation, or a single address. IPv4 that is mapped into IPv6 becomes IPv4: addresses of clients
/// are compared in that form.
pub(super) fn network(text: &str) -> Result<IpNet, String> {
    let wrong = || {
        format!("{text:?} is not a network: write it as \"10.0.0.0/8\", \"fd00::/8\" or a single address \"10.0.0.7\"")
    };
    let network = match text.parse::<IpAddr>() {
        Ok(address) => IpNet::from(address),
        Err(_) => text.parse::<IpNet>().map_err(|_| wrong())?,
    };
    Ok(unmapped(network).trunc())
}

fn unmapped(network: IpNet) -> IpNet {
    let IpNet::V6(v6) = network else { return network };
    let bits = v6.prefix_len().checked_sub(MAPPED_BITS);
    let inner = v6.addr().to_ipv4_mapped();
    match inner.zip(bits).and_then(|(address, bits)| Ipv4Net::new(address, bits).ok()) {
        Some(v4) => IpNet::V4(v4),
        // `::/0` means everybody, and has to reach those whose address is IPv4 too: `TrustedProxies` sees to that.
        None => IpNet::V6(v6),
    }
}

/// The name of a header, in any case.
pub(super) fn header_name(text: &str) -> Result<ForwardedHeader, String> {
    match text.to_ascii_lowercase().as_str() {
        "forwarded" => Ok(ForwardedHeader::Forwarded),
        "x-forwarded-for" => Ok(ForwardedHeader::XForwardedFor),
        _ => Err(format!("{text:?} is not a header that is read here: write \"forwarded\" or \"x-forwarded-for\"")),
    }
}

/// Whether an IPv6 network holds all IPv4 addresses in their mapped form.
pub(crate) fn holds_all_ipv4(network: &Ipv6Net) -> bool {
    let first = std::net::Ipv4Addr::UNSPECIFIED.to_ipv6_mapped();
    network.prefix_len() <= MAPPED_BITS && network.contains::<&Ipv6Addr>(&first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_read_in_every_usual_form() {
        for (text, read) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("192.0.2.7", "192.0.2.7/32"),
            ("fd00::/8", "fd00::/8"),
            ("::1", "::1/128"),
            ("::ffff:10.0.0.7", "10.0.0.7/32"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("0.0.0.0/0", "0.0.0.0/0"),
        ] {
            assert_eq!(network(text).expect(text).to_string(), read, "{text}");
        }
        for text in ["", "10.0.0.0/33", "10.0.0", "example.com", "10.0.0.0/8/8", "10.0.0.7:80", "*"] {
            assert!(network(text).expect_err(text).contains("is not a network"), "{text}");
        }
    }
}
