//! An EST client that sends exactly the bytes it is told to, each request on a connection of its own.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::KeyPair;
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion};

/// Longest wait for bytes of an answer.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
const TLS12: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12];
/// Larger than any answer here.
const ANSWER_MAX_BYTES: u64 = 4 << 20;

/// A certificate chain and its key.
pub struct Identity {
    /// The leaf first.
    pub chain: Vec<Vec<u8>>,
    /// The key.
    pub key: KeyPair,
}

/// An HTTP answer.
#[derive(Debug)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// The head as it came, status line included.
    pub head: String,
    /// The body as it came.
    pub body: Vec<u8>,
}

impl Reply {
    /// The value of a header, whatever its case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// The reason code of a refusal.
    pub fn reason(&self) -> &str {
        self.header("Muster-Reason").unwrap_or_default()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body without base64.
    pub fn decoded(&self) -> Vec<u8> {
        let text: String = self.text().split_whitespace().collect();
        STANDARD.decode(text).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// The one certificate of an enrolment answer.
    pub fn certificate(&self) -> Vec<u8> {
        assert_eq!(self.status, 200, "{} {}", self.head, self.text());
        let mut certificates = certificates_of(&self.decoded());
        assert_eq!(certificates.len(), 1, "exactly one certificate");
        certificates.remove(0)
    }
}

/// The certificates of a certs-only CMS, by a reader that is not ours: x509-parser's DER.
pub fn certificates_of(cms: &[u8]) -> Vec<Vec<u8>> {
    let find = |start: usize| x509_parser::parse_x509_certificate(cms.get(start..).unwrap_or_default()).ok();
    let mut certificates = Vec::new();
    let mut at = 0;
    while at < cms.len() {
        match find(at) {
            Some((rest, _)) => {
                let end = cms.len() - rest.len();
                certificates.push(cms[at..end].to_vec());
                at = end;
            }
            None => at += 1,
        }
    }
    certificates
}

/// A client of one server.
#[derive(Clone)]
pub struct Est {
    server: SocketAddr,
    roots: RootCertStore,
    identity: Option<Arc<Identity>>,
    name: &'static str,
    versions: &'static [&'static SupportedProtocolVersion],
}

impl Est {
    /// A client that trusts the certificates of a PEM file.
    pub fn new(server: SocketAddr, ca_file: &Path) -> Self {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(ca_file).expect("a CA file") {
            roots.add(certificate.expect("PEM")).expect("a CA");
        }
        Self { server, roots, identity: None, name: "localhost", versions: rustls::ALL_VERSIONS }
    }

    /// The same client with a certificate.
    #[must_use]
    pub fn with(mut self, identity: Identity) -> Self {
        self.identity = Some(Arc::new(identity));
        self
    }

    /// The same client that asks for another name (SNI).
    #[must_use]
    pub fn named(mut self, name: &'static str) -> Self {
        self.name = name;
        self
    }

    /// The same client on TLS 1.2.
    #[must_use]
    pub fn on_tls12(mut self) -> Self {
        self.versions = TLS12;
        self
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// When the server refuses the connection or the handshake.
    pub fn connect(&self) -> io::Result<StreamOwned<ClientConnection, TcpStream>> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(self.versions)
            .map_err(io::Error::other)?
            .with_root_certificates(self.roots.clone());
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let chain = identity.chain.iter().map(|der| CertificateDer::from(der.clone())).collect();
                let key = PrivateKeyDer::try_from(identity.key.serialize_der()).map_err(io::Error::other)?;
                builder.with_client_auth_cert(chain, key).map_err(io::Error::other)?
            }
        };
        config.resumption = Resumption::disabled();
        let name = ServerName::try_from(self.name).map_err(io::Error::other)?;
        let mut tls = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
        let mut socket = TcpStream::connect(self.server)?;
        socket.set_read_timeout(Some(READ_TIMEOUT))?;
        tls.complete_io(&mut socket)?;
        Ok(StreamOwned::new(tls, socket))
    }

    /// Sends a whole request as given and reads the answer.
    ///
    /// # Errors
    /// When the connection breaks before an answer.
    pub fn send(&self, request: &[u8]) -> io::Result<Reply> {
        exchange(self.connect()?, request)
    }

    /// GET of a path of the hostname that is asked for; an error where the door stays shut.
    ///
    /// # Errors
    /// When the connection breaks before an answer.
    pub fn visit(&self, path: &str) -> io::Result<Reply> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.name);
        self.send(request.as_bytes())
    }

    /// GET of an operation.
    pub fn get(&self, operation: &str) -> Reply {
        let request = format!(
            "GET /.well-known/est/{operation} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        );
        self.send(request.as_bytes()).expect("an answer")
    }

    /// POST of a request, base64, with an Authorization header or none.
    pub fn post(&self, operation: &str, authorization: Option<&str>, der: &[u8]) -> Reply {
        self.try_post(operation, authorization, der).expect("an answer")
    }

    /// The same, where the server may be gone.
    ///
    /// # Errors
    /// When the connection breaks before an answer.
    pub fn try_post(&self, operation: &str, authorization: Option<&str>, der: &[u8]) -> io::Result<Reply> {
        self.send(&post(operation, authorization, &STANDARD.encode(der)))
    }

    /// First enrollment with Basic.
    pub fn enroll(&self, device: &str, token: &str, der: &[u8]) -> Reply {
        self.post("simpleenroll", Some(&basic(device, token)), der)
    }
}

/// The bytes of a POST.
pub fn post(operation: &str, authorization: Option<&str>, body: &str) -> Vec<u8> {
    let authorization = authorization.map(|value| format!("Authorization: {value}\r\n")).unwrap_or_default();
    format!(
        "POST /.well-known/est/{operation} HTTP/1.1\r\nHost: localhost\r\n{authorization}\
         Content-Type: application/pkcs10\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// The value of a Basic Authorization header.
pub fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// Writes a request and reads one answer.
pub(crate) fn exchange(mut stream: impl Read + Write, request: &[u8]) -> io::Result<Reply> {
    stream.write_all(request)?;
    stream.flush()?;
    read_reply(&mut stream)
}

/// Reads one answer, to its Content-Length or to the end.
///
/// # Errors
/// When the connection ends before the head is whole.
pub fn read_reply(stream: &mut impl Read) -> io::Result<Reply> {
    let mut reply = read_head(stream)?;
    match reply.header("Content-Length").and_then(|length| length.parse().ok()) {
        Some(length) => {
            reply.body = vec![0; length];
            stream.read_exact(&mut reply.body)?;
        }
        None if reply.status == 204 || reply.status == 100 => {}
        None => {
            let _ = stream.take(ANSWER_MAX_BYTES).read_to_end(&mut reply.body);
        }
    }
    Ok(reply)
}

/// Reads the head of one answer and nothing more.
///
/// # Errors
/// When the connection ends before the head is whole.
pub fn read_head(stream: &mut impl Read) -> io::Result<Reply> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut octet = [0];
        stream.read_exact(&mut octet)?;
        head.extend(octet);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    Ok(Reply { status: status.ok_or_else(|| io::Error::other(head.clone()))?, head, body: Vec::new() })
}
