//! TLS 1.3 by embedded-tls, which is trusted with the protocol and with nothing else.
//!
//! Four things stand between it and the rest: `screen` and `cipher` keep records away from it that would make it
//! panic, by what is outside and what is inside the encryption; `verifier` decides who the server is and must have seen
//! the proof before [`connect`] returns a connection; and the client's signature is made by a [`KeyStore`], which may
//! be a secure element.
//! What is known and not closed here, each with a test: a message that is split over records ends the handshake, and a
//! KeyUpdate ends the connection. See the crate's README for what that asks of a server.

mod cipher;
mod provider;
mod screen;
mod verifier;

use embedded_io::{Error, ErrorKind, ErrorType, Read, Write};
use embedded_tls::blocking::TlsConnection;
use embedded_tls::{MaxFragmentLength, TlsConfig, TlsContext, TlsError};
use muster_proto::enrollment::Ending;
use muster_proto::time::{Instant, Validity};
use muster_proto::x509::{ServerName, ServerRefused};

use self::cipher::GuardedSuite;
use self::provider::Provider;
use self::screen::{GIVEN_UP, Screened};
use self::verifier::StrictVerifier;
use crate::entropy::{Entropy, generator};
use crate::key::KeyStore;
use crate::net::{Close, Deadline, NotConnected};

pub use provider::ClientIdentity;
pub use verifier::{AnyServer, NamedServer, Sent, ServerCheck, Unproven};

/// The memory of one connection, lent for as long as it lives.
#[derive(Debug)]
pub struct TlsMemory<'b> {
    /// One record from the server. A longer record ends the connection.
    pub receive: &'b mut [u8],
    /// One record to the server. Must hold the certificate that is presented and 100 bytes.
    pub send: &'b mut [u8],
}

impl TlsMemory<'_> {
    /// Suits a server that puts a whole EST answer of `Memory::INBOX_BYTES` into one record, as the largest do. For
    /// servers that keep to records of 2 KiB, 2,304 is enough.
    pub const RECEIVE_BYTES: usize = 5120;
    /// Suits a certificate of 900 bytes.
    pub const SEND_BYTES: usize = 1024;
}

/// Who the server must be.
#[derive(Clone, Copy)]
pub struct Peer<'c> {
    /// What it is asked for.
    pub name: ServerName<'c>,
    /// What is asked of its certificate.
    pub check: &'c dyn ServerCheck,
}

/// Makes a TLS connection to `server`, over a transport that was just opened.
///
/// The server must have proven its key; a certificate is presented if there is one and the server asks for it.
/// That the server accepts it shows only with the first bytes that it sends (RFC 8446 §4.4.2.4). All of it must be done
/// by `deadline`, which is the transport's.
///
/// The connection is made in `place`, because it is large and each move of it is a copy on the stack.
///
/// # Errors
/// [`ConnectError`]; the transport is dropped, and `place` is empty.
pub fn connect<'m, IO, K>(
    transport: IO,
    memory: &'m mut TlsMemory<'_>,
    deadline: &'m Deadline,
    server: Peer<'_>,
    client: Option<ClientIdentity<'_, K>>,
    entropy: &mut impl Entropy,
    place: &mut Option<Connection<'m, IO>>,
) -> Result<(), ConnectError>
where
    IO: Read + Write + 'm,
    K: KeyStore,
{
    let mut provider = Provider::new(
        generator(entropy).map_err(|_| ConnectError::NoEntropy)?,
        StrictVerifier::new(server.check),
        client,
    );
    let max_record_bytes = memory.receive.len();
    let mut config = TlsConfig::new();
    if let Some(length) = fragment_length(max_record_bytes) {
        config = config.with_max_fragment_length(length);
    }
    // An address is no SNI (RFC 6066 §3), and the final dot of a rooted name is left out.
    if let ServerName::Dns(name) = server.name {
        config = config.with_server_name(name.strip_suffix('.').unwrap_or(name));
    }
    let connection = Connection::put(place, deadline);
    let tls = begin(&mut connection.tls, transport, memory);
    let opened = tls.open(TlsContext::new(&config, &mut provider));
    let judged = provider.judge(opened);
    match judged {
        Ok(valid) => (connection.server_valid, connection.presented) = (valid, provider.has_signed()),
        Err(_) => *place = None,
    }
    judged.map(drop)
}

/// Apart, so that what is copied here is off the stack before the handshake needs it.
#[inline(never)]
fn begin<'t, 'm, IO: Read + Write>(
    place: &'t mut Option<Tls<'m, IO>>,
    transport: IO,
    memory: &'m mut TlsMemory<'_>,
) -> &'t mut Tls<'m, IO> {
    let screened = Screened::new(transport, memory.receive.len());
    place.insert(TlsConnection::new(screened, memory.receive, memory.send))
}

/// The largest fragment that fits, for servers that obey (RFC 6066 §4); others must be configured to.
const fn fragment_length(max_record_bytes: usize) -> Option<MaxFragmentLength> {
    match max_record_bytes.saturating_sub(MAX_RECORD_OVERHEAD) {
        16384.. => None,
        4096.. => Some(MaxFragmentLength::Bits12),
        2048.. => Some(MaxFragmentLength::Bits11),
        1024.. => Some(MaxFragmentLength::Bits10),
        _ => Some(MaxFragmentLength::Bits9),
    }
}

/// For name resolution, TCP and a handshake in software on a slow board; the machine has the same for EST.
pub(crate) const CONNECT_TIMEOUT: core::time::Duration = core::time::Duration::from_secs(60);

/// For saying good-bye, which changes nothing.
pub const CLOSE_TIMEOUT: core::time::Duration = core::time::Duration::from_secs(2);

/// What encryption may add to a fragment (RFC 8446 §5.2).
const MAX_RECORD_OVERHEAD: usize = 256;

type Tls<'m, IO> = TlsConnection<'m, Screened<IO>, GuardedSuite>;

/// A TLS connection to a server that has proven itself.
pub struct Connection<'m, IO: Read + Write + 'm> {
    /// None once it was closed.
    tls: Option<Tls<'m, IO>>,
    deadline: &'m Deadline,
    server_valid: Option<Validity>,
    presented: bool,
    heard: bool,
}

impl<'m, IO: Read + Write> Connection<'m, IO> {
    fn put<'p>(place: &'p mut Option<Self>, deadline: &'m Deadline) -> &'p mut Self {
        place.insert(Self { tls: None, deadline, server_valid: None, presented: false, heard: false })
    }

    /// Reads and writes wait until `at` at the longest.
    pub fn set_deadline(&self, at: Instant) {
        self.deadline.set(at);
    }

    /// When the server's whole chain is valid, as far as the check looked.
    #[must_use]
    pub const fn server_valid(&self) -> Option<Validity> {
        self.server_valid
    }

    /// Whether the server asked for the certificate and got it.
    #[must_use]
    pub const fn presented(&self) -> bool {
        self.presented
    }

    fn failure(&self, error: TlsError) -> Failure {
        Failure::Ended(match error {
            TlsError::Io(ErrorKind::TimedOut) => return Failure::TimedOut,
            TlsError::ConnectionClosed | TlsError::MissingHandshake => Ending::Closed,
            // A fatal alert, whose description is lost. As the server's first word it can only be about the
            // certificate: everything else was settled before.
            TlsError::InternalError if self.presented && !self.heard => Ending::CertificateRefused,
            _ => Ending::Reset,
        })
    }
}

impl<IO: Read + Write + Close> Connection<'_, IO> {
    /// Tells the server that nothing more will come, in TLS and below it, until `at` at the longest. The connection is
    /// gone either way.
    // Apart: embedded-tls closes a connection by value, and that copy is off the stack at other times.
    #[inline(never)]
    pub fn close(&mut self, at: Instant) {
        self.set_deadline(at);
        let Some(tls) = self.tls.take() else { return };
        // A transport that could not take the good-bye is ended all the same.
        let (Ok(screened) | Err((screened, _))) = tls.close();
        screened.into_inner().close();
    }
}

impl<IO: Read + Write> ErrorType for Connection<'_, IO> {
    type Error = Failure;
}

impl<IO: Read + Write> Read for Connection<'_, IO> {
    /// As in the trait; `Ok(0)` also when the server closed in order.
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Failure> {
        let Some(tls) = &mut self.tls else { return Ok(0) };
        match tls.read(buffer) {
            Ok(read) => {
                self.heard |= read > 0;
                Ok(read)
            }
            Err(error) => match self.failure(error) {
                Failure::Ended(Ending::Closed) => Ok(0),
                failure => Err(failure),
            },
        }
    }
}

impl<IO: Read + Write> Write for Connection<'_, IO> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Failure> {
        let tls = self.tls.as_mut().ok_or(Failure::Ended(Ending::Closed))?;
        tls.write(bytes).map_err(|error| self.failure(error))
    }

    fn flush(&mut self) -> Result<(), Failure> {
        let tls = self.tls.as_mut().ok_or(Failure::Ended(Ending::Closed))?;
        tls.flush().map_err(|error| self.failure(error))
    }
}

/// Why nothing is read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The connection is over, and not in order. A deadline within a record is a reason too.
    Ended(Ending),
    /// The deadline came between two records. The connection is as it was, and can be read from later.
    TimedOut,
}

impl Error for Failure {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Ended(Ending::CertificateRefused) => ErrorKind::PermissionDenied,
            Self::Ended(Ending::Unreachable) => ErrorKind::NotConnected,
            Self::Ended(
                Ending::Closed | Ending::Reset | Ending::ServerUntimely | Ending::ServerUntrusted,
            ) => ErrorKind::ConnectionReset,
            Self::TimedOut => ErrorKind::TimedOut,
        }
    }
}

impl core::fmt::Display for Failure {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Debug::fmt(self, f)
    }
}

impl core::error::Error for Failure {}

/// Why there is no connection. `Display` is for a log: a word, without what `Debug` says of a reason inside.
#[derive(Clone, Copy, Debug)]
pub enum ConnectError {
    /// The key store did not sign.
    Key,
    /// There was no entropy for the handshake.
    NoEntropy,
    /// The server sent a record that is refused: too long, empty, or in the clear where nothing may be.
    Record,
    /// The handshake failed, or the transport under it.
    Tls(TlsError),
    /// No connection within the time for it.
    Timeout,
    /// There is no way to the server.
    Unreachable,
    /// The server did not ask for the identity that was to be used.
    Unasked,
    /// The server is not who it must be.
    Untrusted(Unproven),
}

impl core::fmt::Display for ConnectError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Key => "the key cannot sign",
            Self::NoEntropy => "no randomness",
            Self::Record => "a record that is refused",
            Self::Tls(TlsError::HandshakeAborted(..)) => "an alert of the server",
            Self::Tls(_) => "the handshake failed",
            Self::Timeout => "no answer in time",
            Self::Unreachable => "unreachable",
            Self::Unasked => "the server does not ask for the certificate",
            Self::Untrusted(Unproven::Certificate(ServerRefused::Name)) => {
                "the server's certificate has another name"
            }
            Self::Untrusted(Unproven::Certificate(ServerRefused::Path(_))) => {
                "the server's certificate is not trusted"
            }
            Self::Untrusted(_) => "the server does not prove its key",
        })
    }
}

impl From<NotConnected> for ConnectError {
    fn from(error: NotConnected) -> Self {
        match error {
            NotConnected::TimedOut => Self::Timeout,
            NotConnected::Unreachable => Self::Unreachable,
        }
    }
}

impl ConnectError {
    const fn from_tls(error: TlsError) -> Self {
        match error {
            TlsError::Io(ErrorKind::InvalidData) => Self::Record,
            TlsError::Io(ErrorKind::TimedOut | GIVEN_UP) => Self::Timeout,
            error => Self::Tls(error),
        }
    }

    /// What the machine is told.
    #[must_use]
    pub const fn ending(&self) -> Ending {
        match self {
            Self::Key | Self::NoEntropy | Self::Record | Self::Tls(_) | Self::Unasked => Ending::Reset,
            Self::Timeout | Self::Unreachable => Ending::Unreachable,
            Self::Untrusted(Unproven::Certificate(refused)) => Ending::of_refused(*refused),
            Self::Untrusted(_) => Ending::ServerUntrusted,
        }
    }
}
