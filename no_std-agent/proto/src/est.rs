//! EST over HTTP/1.1 (RFC 7030, RFC 8951): which operation is which request.
//!
//! A request is written in pieces of any size: it is generated anew for each piece and the bytes before the piece
//! are passed over, so no memory is needed for it. Everything that ends up in a header was checked when its type
//! was made; nothing else can put bytes there.

use core::fmt::Write;
use core::net::IpAddr;

use crate::x509::ServerName;
use crate::{ascii, base64};

/// What can be asked of an EST server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// The CA certificates (RFC 7030 §4.1).
    CaCerts,
    /// What the server would like to see in a request (RFC 7030 §4.5).
    CsrAttributes,
    /// A first certificate (RFC 7030 §4.2.1).
    SimpleEnroll,
    /// A certificate in place of the one that TLS presents (RFC 7030 §4.2.2).
    SimpleReenroll,
}

impl Operation {
    /// The last segment of its path.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::CaCerts => "cacerts",
            Self::CsrAttributes => "csrattrs",
            Self::SimpleEnroll => "simpleenroll",
            Self::SimpleReenroll => "simplereenroll",
        }
    }

    const fn sends_request(self) -> bool {
        matches!(self, Self::SimpleEnroll | Self::SimpleReenroll)
    }
}

/// An EST server's address, checked: all of it may go into a request head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Server<'a> {
    /// As it was given, which is how a URL and thus `Host` has it, but for the brackets of IPv6.
    host: &'a str,
    name: ServerName<'a>,
    port: u16,
    label: Option<&'a str>,
}

impl<'a> Server<'a> {
    /// Takes the host as it is written in a URL without brackets; an IP address is recognised.
    ///
    /// # Errors
    /// [`AddressError`] when host or label have bytes that their syntax does not allow.
    pub fn new(host: &'a str, port: u16, label: Option<&'a str>) -> Result<Self, AddressError> {
        let name = host.parse().map_or(ServerName::Dns(host), ServerName::Ip);
        Self::at(name, host, port, label)
    }

    /// As [`new`](Self::new) for a device whose network has no IPv6.
    ///
    /// # Errors
    /// [`AddressError`], also for an IPv6 address.
    pub fn without_ipv6(host: &'a str, port: u16, label: Option<&'a str>) -> Result<Self, AddressError> {
        Self::at(ServerName::without_ipv6(host), host, port, label)
    }

    fn at(
        name: ServerName<'a>,
        host: &'a str,
        port: u16,
        label: Option<&'a str>,
    ) -> Result<Self, AddressError> {
        if matches!(name, ServerName::Dns(_)) && !is_dns_name(host) {
            return Err(AddressError::Host);
        }
        if label.is_some_and(|label| !is_label(label)) {
            return Err(AddressError::Label);
        }
        Ok(Self { host, name, port, label })
    }

    /// What its certificate must be for.
    #[must_use]
    pub const fn name(&self) -> ServerName<'a> {
        self.name
    }

    /// The TCP port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }
}

/// What is wrong with a server's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressError {
    /// Neither an IP address nor a DNS name.
    Host,
    /// Not one path segment, or the name of an operation (RFC 7030 §3.2.2).
    Label,
}

/// How a device proves itself when it has no certificate of the CA yet: by a token, by its manufacturer's certificate,
/// or by both in one request. Checked; never shown by `Debug`.
#[derive(Clone, Copy)]
pub struct Credential<'a> {
    token: Option<Token<'a>>,
    manufacturer: bool,
}

#[derive(Clone, Copy)]
enum Token<'a> {
    Basic { user: &'a str, password: &'a str },
    Bearer(&'a str),
}

impl<'a> Credential<'a> {
    /// HTTP Basic (RFC 7617): the device id and its token.
    ///
    /// # Errors
    /// [`CredentialError`] for a colon in the user or a control character in either.
    pub fn basic(user: &'a str, password: &'a str) -> Result<Self, CredentialError> {
        let clean = |text: &str| !text.bytes().any(|byte| byte.is_ascii_control());
        if user.bytes().any(|byte| byte == b':') || !clean(user) || !clean(password) {
            return Err(CredentialError);
        }
        Ok(Self { token: Some(Token::Basic { user, password }), manufacturer: false })
    }

    /// A Bearer token (RFC 6750 §2.1).
    ///
    /// # Errors
    /// [`CredentialError`] when it is empty or not of the `b64token` alphabet.
    pub fn bearer(token: &'a str) -> Result<Self, CredentialError> {
        if token.is_empty() || !ascii::is_made_of(token.as_bytes(), b"-._~+/=") {
            return Err(CredentialError);
        }
        Ok(Self { token: Some(Token::Bearer(token)), manufacturer: false })
    }

    /// The manufacturer's certificate (IDevID), which the shell presents in TLS; no header.
    #[must_use]
    pub const fn manufacturer() -> Self {
        Self { token: None, manufacturer: true }
    }

    /// The same credential, and the manufacturer's certificate in TLS beside it: for a server that wants both.
    #[must_use]
    pub const fn with_manufacturer(self) -> Self {
        Self { manufacturer: true, ..self }
    }

    /// Whether TLS has to present the manufacturer's certificate.
    #[must_use]
    pub const fn is_manufacturer(&self) -> bool {
        self.manufacturer
    }
}

impl core::fmt::Debug for Credential<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let token = match self.token {
            None => "none",
            Some(Token::Basic { .. }) => "Basic",
            Some(Token::Bearer(_)) => "Bearer",
        };
        write!(f, "Credential(token: {token}, manufacturer: {})", self.manufacturer)
    }
}

/// A credential that cannot be sent as a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CredentialError;

/// One request, ready to be written.
#[derive(Clone, Copy, Debug)]
pub struct Request<'r> {
    /// What is asked.
    pub operation: Operation,
    /// Of whom.
    pub server: Server<'r>,
    /// With which credential; `None` where TLS says who asks.
    pub credential: Option<Credential<'r>>,
    /// The PKCS#10 request, for the operations that send one.
    pub csr: &'r [u8],
}

/// A piece of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Bytes of the piece.
    pub len: usize,
    /// Bytes of the whole request.
    pub total: usize,
}

impl Request<'_> {
    /// Writes what comes behind the first `skip` bytes, as much as `out` holds.
    #[must_use]
    pub fn write(&self, skip: usize, out: &mut [u8]) -> Written {
        let mut piece = Piece { out, skip, filled: 0, total: 0 };
        self.write_head(&mut piece);
        if self.operation.sends_request() {
            push_base64(&mut piece, &[self.csr]);
        }
        Written { len: piece.filled, total: piece.total }
    }

    fn write_head(&self, piece: &mut Piece<'_>) {
        piece.text(if self.operation.sends_request() { "POST" } else { "GET" });
        piece.text(" /.well-known/est/");
        if let Some(label) = self.server.label {
            piece.text(label);
            piece.text("/");
        }
        piece.text(self.operation.name());
        piece.text(" HTTP/1.1\r\nHost: ");
        self.write_host(piece);
        piece.text("\r\n");
        self.write_authorization(piece);
        if self.operation.sends_request() {
            // RFC 8951 §3 deprecates the transfer encoding field; older servers decode only if it is there.
            piece.text(
                "Content-Type: application/pkcs10\r\nContent-Transfer-Encoding: base64\r\nContent-Length: ",
            );
            // Nothing in memory is as long as the longest number here.
            let length = base64::encoded_len(self.csr.len()).and_then(|length| u32::try_from(length).ok());
            piece.number(length.unwrap_or(u32::MAX));
            piece.text("\r\n");
        }
        piece.text("\r\n");
    }

    fn write_host(&self, piece: &mut Piece<'_>) {
        let host = self.server.host;
        if let ServerName::Ip(IpAddr::V6(_)) = self.server.name {
            piece.text("[");
            piece.text(host);
            piece.text("]");
        } else {
            piece.text(host);
        }
        if self.server.port != HTTPS_PORT {
            piece.text(":");
            piece.number(self.server.port.into());
        }
    }

    fn write_authorization(&self, piece: &mut Piece<'_>) {
        match self.credential.and_then(|credential| credential.token) {
            None => return,
            Some(Token::Basic { user, password }) => {
                piece.text("Authorization: Basic ");
                push_base64(piece, &[user.as_bytes(), b":", password.as_bytes()]);
            }
            Some(Token::Bearer(token)) => {
                piece.text("Authorization: Bearer ");
                piece.text(token);
            }
        }
        piece.text("\r\n");
    }
}

fn push_base64(piece: &mut Piece<'_>, parts: &[&[u8]]) {
    let mut encoder = base64::Encoder::new();
    for part in parts {
        encoder.push(part, &mut |group| piece.bytes(group));
    }
    encoder.finish(&mut |group| piece.bytes(group));
}

/// A window into a text that is generated from its start: drops `skip` bytes, then fills `out`, then only counts.
struct Piece<'b> {
    out: &'b mut [u8],
    skip: usize,
    filled: usize,
    total: usize,
}

impl Piece<'_> {
    fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    fn number(&mut self, number: u32) {
        // Writing to a piece never fails, and neither does a number.
        let _ = write!(self, "{number}");
    }

    fn bytes(&mut self, bytes: &[u8]) {
        let before = self.skip.saturating_sub(self.total).min(bytes.len());
        self.total += bytes.len();
        let wanted = bytes.get(before..).unwrap_or_default();
        for (place, byte) in self.out.iter_mut().skip(self.filled).zip(wanted) {
            *place = *byte;
            self.filled += 1;
        }
    }
}

impl Write for Piece<'_> {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        self.text(text);
        Ok(())
    }
}

const HTTPS_PORT: u16 = 443;

/// Letters, digits, hyphens in labels of at most 63 bytes; 253 bytes in all (RFC 1123 §2.1).
fn is_dns_name(host: &str) -> bool {
    let is_label = |label: &[u8]| {
        (1..=63).contains(&label.len())
            && ascii::is_made_of(label, b"-_")
            && !matches!(label, [b'-', ..] | [.., b'-'])
    };
    let host = host.as_bytes();
    host.len() <= 253 && host.strip_suffix(b".").unwrap_or(host).split(|byte| *byte == b'.').all(is_label)
}

/// One segment of unreserved characters that is no operation of EST.
fn is_label(label: &str) -> bool {
    const OPERATIONS: [&str; 6] =
        ["cacerts", "csrattrs", "simpleenroll", "simplereenroll", "serverkeygen", "fullcmc"];
    (1..=64).contains(&label.len())
        && ascii::is_made_of(label.as_bytes(), b"-._~")
        && !matches!(label, "." | "..")
        && !OPERATIONS.contains(&label)
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::string::String;
    use std::vec::Vec;

    use super::*;

    fn whole(request: &Request<'_>, piece: usize) -> String {
        let mut all = Vec::new();
        loop {
            let mut out = [0; 600];
            let written = request.write(all.len(), &mut out[..piece]);
            all.extend_from_slice(&out[..written.len]);
            if all.len() == written.total {
                return String::from_utf8(all).expect("heads are text");
            }
        }
    }

    fn enroll(server: Server<'static>, credential: Option<Credential<'static>>) -> Request<'static> {
        Request { operation: Operation::SimpleEnroll, server, credential, csr: b"foobar" }
    }

    #[test]
    fn a_request_is_the_same_in_pieces_of_any_size() {
        let server = Server::new("est.example.com", 8443, Some("sensors")).expect("an address");
        let request = enroll(server, Credential::basic("dev-1", "s3cret").ok());
        let expected = "POST /.well-known/est/sensors/simpleenroll HTTP/1.1\r\nHost: est.example.com:8443\r\n\
            Authorization: Basic ZGV2LTE6czNjcmV0\r\nContent-Type: application/pkcs10\r\n\
            Content-Transfer-Encoding: base64\r\nContent-Length: 8\r\n\r\nZm9vYmFy";
        for piece in 1..expected.len() + 2 {
            assert_eq!(whole(&request, piece), expected, "{piece}");
        }
    }

    #[test]
    fn a_manufacturer_s_certificate_is_no_header_and_does_not_displace_one() {
        let server = Server::new("est.example.com", 443, None).expect("an address");
        let token = Credential::bearer("abc").expect("a token");
        let both = token.with_manufacturer();
        assert!(both.is_manufacturer() && !token.is_manufacturer());
        let head = whole(&enroll(server, Some(both)), 600);
        assert!(head.contains("\r\nAuthorization: Bearer abc\r\n"), "{head}");
        let head = whole(&enroll(server, Some(Credential::manufacturer())), 600);
        assert!(!head.contains("Authorization"), "{head}");
    }

    #[test]
    fn reading_operations_send_no_body_and_no_credential() {
        let server = Server::new("::1", 443, None).expect("an address");
        let request = Request { operation: Operation::CaCerts, server, credential: None, csr: &[] };
        assert_eq!(whole(&request, 600), "GET /.well-known/est/cacerts HTTP/1.1\r\nHost: [::1]\r\n\r\n");
    }

    #[test]
    fn without_ipv6_all_else_is_as_with_it() {
        for host in ["est.example.com", "10.0.2.2", "EST.example.com."] {
            assert_eq!(Server::without_ipv6(host, 8443, Some("x")), Server::new(host, 8443, Some("x")));
        }
        assert_eq!(Server::without_ipv6("::1", 8443, None), Err(AddressError::Host));
        assert_eq!(Server::without_ipv6("est.example.com", 8443, Some("a/b")), Err(AddressError::Label));
    }

    #[test]
    fn nothing_unchecked_reaches_a_head() {
        assert_eq!(Server::new("a\r\nX: y", 1, None), Err(AddressError::Host));
        assert_eq!(Server::new("", 1, None), Err(AddressError::Host));
        assert_eq!(Server::new("-a.example", 1, None), Err(AddressError::Host));
        assert_eq!(Server::new("a", 1, Some("cacerts")), Err(AddressError::Label));
        assert_eq!(Server::new("a", 1, Some("x/y")), Err(AddressError::Label));
        assert_eq!(Server::new("a", 1, Some("")), Err(AddressError::Label));
        assert!(Credential::basic("a:b", "c").is_err());
        assert!(Credential::basic("a", "c\n").is_err());
        assert!(Credential::bearer("a b").is_err());
        assert!(Credential::bearer("").is_err());
    }

    #[test]
    fn debug_shows_no_secret() {
        let secret = Credential::basic("dev-1", "s3cret").expect("fine");
        let shown = "Credential(token: Basic, manufacturer: true)";
        assert_eq!(std::format!("{:?}", secret.with_manufacturer()), shown);
    }
}
