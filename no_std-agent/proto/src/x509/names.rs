//! Names in certificates: subjectAltName, and matching a server's (RFC 5280 §4.2.1.6, RFC 9525 §6).
//!
//! A server is known by its SANs only; the commonName is never a host name here. A wildcard stands for exactly
//! one whole label at the left, and never for one directly below a top-level domain.

use core::net::{IpAddr, Ipv4Addr};

use crate::ascii::{decimal, has};
use crate::der::{DerError, Reader, Tag};

/// One name of a subjectAltName.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GeneralName<'a> {
    /// dNSName, possibly with a wildcard label.
    Dns(&'a str),
    /// iPAddress: 4 or 16 octets.
    Ip(&'a [u8]),
    /// A form that is not compared here.
    Other,
    /// uniformResourceIdentifier.
    Uri(&'a str),
}

/// The names of a subjectAltName, one after another.
#[derive(Clone, Copy, Debug)]
pub struct SubjectAltNames<'a>(Reader<'a>);

impl<'a> SubjectAltNames<'a> {
    /// Iterates over an extension value that [`SubjectAltNames::check`] accepted, or over nothing.
    pub(super) fn new(value: &'a [u8]) -> Self {
        Self(Reader::new(value).sequence().unwrap_or(Reader::new(&[])))
    }

    /// Checks a whole extension value.
    pub(super) fn check(value: &[u8]) -> Result<(), DerError> {
        let mut names = Reader::only(value, Tag::SEQUENCE)?;
        loop {
            read_name(&mut names)?;
            if names.is_empty() {
                return Ok(());
            }
        }
    }
}

impl<'a> Iterator for SubjectAltNames<'a> {
    type Item = GeneralName<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        read_name(&mut self.0).ok()
    }
}

fn read_name<'a>(names: &mut Reader<'a>) -> Result<GeneralName<'a>, DerError> {
    const DNS: Tag = Tag::context(2);
    const URI: Tag = Tag::context(6);
    const IP: Tag = Tag::context(7);
    let element = names.any()?;
    let text = || ascii(element.value).ok_or(DerError);
    match element.tag {
        DNS => text().map(GeneralName::Dns),
        URI => text().map(GeneralName::Uri),
        IP if matches!(element.value.len(), 4 | 16) => Ok(GeneralName::Ip(element.value)),
        IP => Err(DerError),
        // Context class, numbers 0 to 8: the other CHOICEs of GeneralName.
        Tag(other) if other & 0xc0 == 0x80 && other & 0x1f <= 8 => Ok(GeneralName::Other),
        _ => Err(DerError),
    }
}

/// IA5String content without control characters; a NUL inside a name has fooled verifiers before.
fn ascii(bytes: &[u8]) -> Option<&str> {
    bytes.iter().all(|byte| (0x20..0x7f).contains(byte)).then(|| core::str::from_utf8(bytes).ok())?
}

/// The name by which a server was reached: what its certificate must be for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerName<'a> {
    /// A DNS name without wildcard; a final dot is ignored.
    Dns(&'a str),
    /// An address; only an iPAddress SAN with the same octets matches.
    Ip(IpAddr),
}

impl<'a> ServerName<'a> {
    /// The name or the IPv4 address that `host` is, for a device whose network has no IPv6: such an address is a name
    /// that nobody knows. What a name is made of is not checked.
    // The parser of `core` reads both kinds of addresses from one machine, and is five times the code.
    #[must_use]
    pub fn without_ipv6(host: &'a str) -> Self {
        ipv4(host).map_or(Self::Dns(host), |address| Self::Ip(address.into()))
    }

    /// Whether one of `names` is this server.
    #[must_use]
    pub fn matches(&self, mut names: SubjectAltNames<'_>) -> bool {
        names.any(|name| match (self, name) {
            (Self::Dns(host), GeneralName::Dns(pattern)) => dns_matches(host, pattern),
            (Self::Ip(IpAddr::V4(address)), GeneralName::Ip(octets)) => address.octets() == octets,
            (Self::Ip(IpAddr::V6(address)), GeneralName::Ip(octets)) => address.octets() == octets,
            _ => false,
        })
    }
}

/// Four numbers of 8 bits, without zeros in front, which to some make an octal number.
fn ipv4(host: &str) -> Option<Ipv4Addr> {
    let mut parts = host.as_bytes().split(|byte| *byte == b'.');
    let mut octets = [0; 4];
    for octet in &mut octets {
        let part = parts.next().filter(|part| !matches!(part, [b'0', _, ..]))?;
        *octet = u8::try_from(decimal(part)?).ok()?;
    }
    parts.next().is_none().then(|| octets.into())
}

fn dns_matches(host: &str, pattern: &str) -> bool {
    // By bytes: searching in a text is more code.
    let (host, pattern) = (host.as_bytes(), pattern.as_bytes());
    let host = host.strip_suffix(b".").unwrap_or(host);
    if host.is_empty() || has(host, b'*') {
        return false;
    }
    let Some(parent) = pattern.strip_prefix(b"*.") else { return host.eq_ignore_ascii_case(pattern) };
    // What is behind the first label, which is not empty, with its dot.
    let label_len = host.iter().take_while(|byte| **byte != b'.').count();
    let Some([b'.', rest @ ..]) = host.get(label_len..) else { return false };
    label_len > 0 && has(parent, b'.') && !has(parent, b'*') && rest.eq_ignore_ascii_case(parent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv4_address_is_read_as_the_library_reads_it_and_all_else_is_a_name() {
        for host in ["0.0.0.0", "10.0.2.2", "255.255.255.255"] {
            assert_eq!(ServerName::without_ipv6(host), ServerName::Ip(host.parse().expect("an address")));
        }
        for host in
            ["", ".", "1.2.3", "1.2.3.4.", "1.2.3.4.5", "1.2.3.256", "01.2.3.4", "1..3.4", "1.2.3.a", "::1"]
        {
            assert!(host.parse::<Ipv4Addr>().is_err());
            assert_eq!(ServerName::without_ipv6(host), ServerName::Dns(host));
        }
    }

    #[test]
    fn a_wildcard_is_one_whole_left_label() {
        assert!(dns_matches("est.example.com", "*.example.com"));
        assert!(dns_matches("EST.example.COM.", "*.Example.com"));
        assert!(!dns_matches("a.b.example.com", "*.example.com"));
        assert!(!dns_matches("example.com", "*.example.com"));
        assert!(!dns_matches(".example.com", "*.example.com"));
        assert!(!dns_matches("est.example.com", "e*.example.com"));
        assert!(!dns_matches("est.example.com", "*.*.com"));
        assert!(!dns_matches("example.com", "*.com"));
        assert!(!dns_matches("*.example.com", "*.example.com"));
    }

    #[test]
    fn names_compare_without_case_and_only_whole() {
        assert!(dns_matches("est.example.com", "EST.EXAMPLE.COM"));
        assert!(!dns_matches("est.example.com", "example.com"));
        assert!(!dns_matches("", ""));
    }

    #[test]
    fn an_address_needs_an_address_name() {
        let names = b"\x30\x11\x82\x09127.0.0.1\x87\x04\x7f\x00\x00\x01";
        assert_eq!(SubjectAltNames::check(names), Ok(()));
        assert!(ServerName::Ip([127, 0, 0, 1].into()).matches(SubjectAltNames::new(names)));
        assert!(!ServerName::Ip([127, 0, 0, 2].into()).matches(SubjectAltNames::new(names)));
        let only_dns = b"\x30\x0b\x82\x09127.0.0.1";
        assert!(!ServerName::Ip([127, 0, 0, 1].into()).matches(SubjectAltNames::new(only_dns)));
    }

    #[test]
    fn a_nul_in_a_name_refuses_the_extension() {
        assert!(SubjectAltNames::check(b"\x30\x05\x82\x03a\0b").is_err());
        assert!(SubjectAltNames::check(b"\x30\x00").is_err());
        assert!(SubjectAltNames::check(b"\x30\x05\x87\x03\x01\x02\x03").is_err());
    }
}
