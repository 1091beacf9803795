//! A model of an EST server: real certificates, one-time tokens, the same answer for the same request, and faults
//! on demand. It reads requests with x509-parser and its own few lines of HTTP, nothing of the crate under test.

use std::collections::{HashMap, HashSet};

use rcgen::BasicConstraints;
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, X509Certificate, X509CertificationRequest};

use crate::authority::{
    Authority, P256Verifier, Point, START, TestKey, ca_params, certs_only, device_params, server_params,
};

pub(crate) const NAME: &str = "est.example.com";

/// What the server answers next instead of doing its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// 503 with this Retry-After.
    Busy(u32),
    /// An enrolment answer with a certificate for another key.
    ForeignKey,
    /// An enrolment answer with a certificate of an unknown CA.
    ForeignAuthority,
    /// 202 with this Retry-After.
    Postpone(u32),
    /// 302 to another host.
    Redirect,
    /// An enrolment answer for another device.
    WrongName,
}

pub(crate) struct EstServer {
    pub(crate) root: Authority,
    issuing: Authority,
    foreign: Authority,
    pub(crate) leaf: Vec<u8>,
    /// Unused and used tokens with the device each is for, and the request it was used by.
    tokens: HashMap<String, (String, Option<Vec<u8>>)>,
    answers: HashMap<Vec<u8>, (Vec<u8>, u64)>,
    pub(crate) issued: HashMap<String, Vec<Vec<u8>>>,
    pub(crate) lifetime: u64,
    /// Whether a certificate whose time is over may still be renewed.
    pub(crate) grace: bool,
    /// Says no time, like a device without a clock.
    pub(crate) dateless: bool,
    pub(crate) csrattrs: Option<Vec<u8>>,
    pub(crate) steering: Option<String>,
    pub(crate) chunked: bool,
    pub(crate) faults: Vec<Fault>,
    pub(crate) revoked: HashSet<Vec<u8>>,
    pub(crate) log: Vec<(u64, String, u16)>,
    serial: u64,
}

impl EstServer {
    pub(crate) fn new() -> Self {
        let root = Authority::root("Example Root", 1);
        let issuing = root.issue_authority(ca_params("Example Devices", BasicConstraints::Constrained(0)), 2);
        let foreign = Authority::root("Example Devices", 3);
        let leaf = root.issue(&server_params(NAME), &TestKey::from_seed(4));
        Self {
            root,
            issuing,
            foreign,
            leaf,
            tokens: HashMap::new(),
            answers: HashMap::new(),
            issued: HashMap::new(),
            lifetime: 3600,
            grace: true,
            dateless: false,
            csrattrs: None,
            steering: None,
            chunked: false,
            faults: Vec::new(),
            revoked: HashSet::new(),
            log: Vec::new(),
            serial: 0,
        }
    }

    pub(crate) fn add_token(&mut self, device: &str, token: &str) {
        self.tokens.insert(token.to_owned(), (device.to_owned(), None));
    }

    /// Whether TLS accepts this client certificate.
    pub(crate) fn accepts_client(&self, leaf: &[u8], wall: u64) -> bool {
        let (_, certificate) = X509Certificate::from_der(leaf).expect("devices present what was issued");
        let over = u64::try_from(certificate.validity().not_after.timestamp()).expect("this century") < wall;
        !self.revoked.contains(leaf) && (self.grace || !over)
    }

    /// Takes one whole request off `bytes`; `None` while it is not complete.
    pub(crate) fn take_request(bytes: &mut Vec<u8>) -> Option<Vec<u8>> {
        let head_len = bytes.windows(4).position(|w| w == b"\r\n\r\n")? + 4;
        let head = std::str::from_utf8(&bytes[..head_len]).expect("heads are text");
        let length: usize = field(head, "Content-Length").map_or(0, |value| value.parse().expect("a number"));
        if bytes.len() < head_len + length {
            return None;
        }
        Some(bytes.drain(..head_len + length).collect())
    }

    pub(crate) fn answer(&mut self, request: &[u8], client: Option<&[u8]>, wall: u64) -> Vec<u8> {
        let text = std::str::from_utf8(request).expect("heads and base64 are text");
        let (head, body) = text.split_once("\r\n\r\n").expect("a whole request");
        let path = head.split(' ').nth(1).expect("a path").to_owned();
        let operation = path.rsplit('/').next().expect("a last segment").to_owned();
        assert!(head.contains(&format!("Host: {NAME}")), "{head}");
        let (status, fields, payload) = self.respond(&operation, head, body, client, wall);
        self.log.push((wall, operation, status));
        self.write(status, &fields, &payload, wall)
    }

    fn respond(
        &mut self,
        operation: &str,
        head: &str,
        body: &str,
        client: Option<&[u8]>,
        wall: u64,
    ) -> (u16, String, Vec<u8>) {
        const PKCS7: &str = "Content-Type: application/pkcs7-mime; smime-type=certs-only\r\n";
        let enrols = operation.starts_with("simple");
        if enrols && let Some(fault) = self.faults.pop() {
            match fault {
                Fault::Busy(after) => return (503, format!("Retry-After: {after}\r\n"), Vec::new()),
                Fault::Postpone(after) => return (202, format!("Retry-After: {after}\r\n"), Vec::new()),
                Fault::Redirect => return (302, "Location: https://evil.example/\r\n".into(), Vec::new()),
                wrong => return (200, PKCS7.into(), certs_only(&[&self.issue_wrongly(wrong, body, wall)])),
            }
        }
        match operation {
            "cacerts" => (200, PKCS7.into(), certs_only(&[&self.issuing.der, &self.root.der])),
            "csrattrs" => match &self.csrattrs {
                Some(attributes) => {
                    (200, "Content-Type: application/csrattrs\r\n".into(), attributes.clone())
                }
                None => (204, String::new(), Vec::new()),
            },
            _ => {
                let csr = unbase64(body);
                let Some(device) = self.authenticate(operation, head, client, &csr) else {
                    return (401, "WWW-Authenticate: Basic realm=\"est\"\r\n".into(), Vec::new());
                };
                let steering = self.steering.as_ref().map(|s| format!("Muster-Renewal: {s}\r\n"));
                let certificate = self.issue(&device, &csr, wall);
                (200, PKCS7.to_owned() + &steering.unwrap_or_default(), certs_only(&[&certificate]))
            }
        }
    }

    fn authenticate(
        &mut self,
        operation: &str,
        head: &str,
        client: Option<&[u8]>,
        csr: &[u8],
    ) -> Option<String> {
        if operation == "simplereenroll" {
            let (_, certificate) = X509Certificate::from_der(client?).expect("checked by TLS");
            let (_, request) = X509CertificationRequest::from_der(csr).expect("a request");
            assert_eq!(request.certification_request_info.subject.as_raw(), certificate.subject().as_raw());
            return Some(certificate.subject().iter_common_name().next()?.as_str().ok()?.to_owned());
        }
        let basic = field(head, "Authorization")?.strip_prefix("Basic ")?.to_owned();
        let pair = String::from_utf8(unbase64(&basic)).ok()?;
        let (user, token) = pair.split_once(':')?;
        let (device, used_by) = self.tokens.get_mut(token)?;
        if device != user || used_by.as_ref().is_some_and(|earlier| earlier != csr) {
            return None;
        }
        *used_by = Some(csr.to_vec());
        Some(user.to_owned())
    }

    fn issue(&mut self, device: &str, csr: &[u8], wall: u64) -> Vec<u8> {
        // The same request gets the same certificate for as long as that is of use.
        if let Some((earlier, not_after)) = self.answers.get(csr)
            && *not_after >= wall
        {
            return earlier.clone();
        }
        let point = checked_point(csr);
        self.serial += 1;
        let params = device_params(device, self.serial, wall - 60, wall + self.lifetime);
        let certificate = self.issuing.issue(&params, &Point(point));
        self.answers.insert(csr.to_vec(), (certificate.clone(), wall + self.lifetime));
        self.issued.entry(device.to_owned()).or_default().push(certificate.clone());
        certificate
    }

    fn issue_wrongly(&self, fault: Fault, body: &str, wall: u64) -> Vec<u8> {
        let point = Point(checked_point(&unbase64(body)));
        let params = |device| device_params(device, 999, wall - 60, wall + self.lifetime);
        match fault {
            Fault::ForeignKey => self.issuing.issue(&params("dev-0"), &TestKey::from_seed(77)),
            Fault::ForeignAuthority => self.foreign.issue(&params("dev-0"), &point),
            _ => self.issuing.issue(&params("dev-other"), &point),
        }
    }

    fn write(&self, status: u16, fields: &str, payload: &[u8], wall: u64) -> Vec<u8> {
        let body = base64(payload);
        let date = if self.dateless { String::new() } else { format!("Date: {}\r\n", http_date(wall)) };
        if status == 204 {
            return format!("HTTP/1.1 204 No Content\r\n{date}\r\n").into_bytes();
        }
        if self.chunked {
            let chunks: String = body
                .as_bytes()
                .chunks(100)
                .map(|c| format!("{:x}\r\n{}\r\n", c.len(), std::str::from_utf8(c).expect("ASCII")))
                .collect();
            return format!(
                "HTTP/1.1 {status} X\r\n{date}{fields}Transfer-Encoding: chunked\r\n\r\n{chunks}0\r\n\r\n"
            )
            .into_bytes();
        }
        format!("HTTP/1.1 {status} X\r\n{date}{fields}Content-Length: {}\r\n\r\n{body}", body.len())
            .into_bytes()
    }
}

/// The key of a request whose signature was checked.
fn checked_point(csr: &[u8]) -> Vec<u8> {
    use muster_proto::csr::CertificationRequest;
    let (rest, request) = X509CertificationRequest::from_der(csr).expect("a request");
    assert!(rest.is_empty());
    // The signature is checked by the p256 crate, over the bytes that x509-parser found.
    let parsed = CertificationRequest::parse(csr).expect("a request");
    parsed.check_signature(&P256Verifier::default()).expect("proof of possession");
    request.certification_request_info.subject_pki.subject_public_key.data.to_vec()
}

fn field<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

pub(crate) fn http_date(unix: u64) -> String {
    let at =
        OffsetDateTime::from_unix_timestamp(unix.try_into().expect("this century")).expect("this century");
    let (weekday, month) = (at.weekday().to_string(), at.month().to_string());
    format!(
        "{}, {:02} {} {} {:02}:{:02}:{:02} GMT",
        &weekday[..3],
        at.day(),
        &month[..3],
        at.year(),
        at.hour(),
        at.minute(),
        at.second()
    )
}

pub(crate) fn base64(bytes: &[u8]) -> String {
    let mut text = Vec::new();
    let mut encoder = muster_proto::base64::Encoder::new();
    encoder.push(bytes, &mut |group| text.extend_from_slice(group));
    encoder.finish(&mut |group| text.extend_from_slice(group));
    String::from_utf8(text).expect("ASCII")
}

fn unbase64(text: &str) -> Vec<u8> {
    let mut buffer = text.as_bytes().to_vec();
    muster_proto::base64::decode_in_place(&mut buffer).expect("base64").to_vec()
}

#[test]
fn dates_are_written_as_http_has_them() {
    assert_eq!(http_date(START), "Thu, 01 Jan 2026 00:00:00 GMT");
}
