//! What counts as one source.

use std::net::{IpAddr, Ipv6Addr};

/// The address that a peer is counted by: an IPv4 address, or an IPv6 /64, which is what one site is given at
/// least (RFC 6177).
pub fn source_of(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_ipv6_site_is_one_source_and_mapped_v4_is_v4() {
        let parse = |text: &str| text.parse::<IpAddr>().expect("an address");
        assert_eq!(source_of(parse("2001:db8::1")), source_of(parse("2001:db8::ffff:1")));
        assert_ne!(source_of(parse("2001:db8::1")), source_of(parse("2001:db8:0:1::1")));
        assert_eq!(source_of(parse("::ffff:192.0.2.1")), parse("192.0.2.1"));
    }
}
