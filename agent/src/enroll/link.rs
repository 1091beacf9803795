//! One connection to the EST server: a task that connects, and then carries bytes both ways.
//!
//! The device core decides when; this task only does it. Dropping the [`Link`] ends the connection in order;
//! whatever the task still says is then heard by nobody, which is what `Output::Close` asks for. The queues
//! are bounded: a core that does not listen stops the reading, and with it the peer.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use muster_proto::enrollment::Ending;
use rustls::{AlertDescription, CertificateError, ClientConfig, Error, ProtocolVersion};
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::settings::ServerUrl;

/// A connection, or the attempt to make one.
#[derive(Debug)]
pub(super) struct Link {
    outgoing: mpsc::Sender<Vec<u8>>,
    happenings: mpsc::Receiver<Happening>,
}

/// What happens on a connection.
#[derive(Debug)]
pub(super) enum Happening {
    /// It ended, or did not come to be; with words about it.
    Ended(Ending, String),
    /// Bytes came.
    Received(Vec<u8>),
    /// TCP and TLS are up.
    Up(Handshake),
}

/// What is known of a TLS connection.
#[derive(Debug)]
pub(super) struct Handshake {
    /// The server's certificates, its own first.
    pub(super) chain: Vec<CertificateDer<'static>>,
    /// tls-exporter (RFC 9266 §4.2); only of TLS 1.3, which needs no extended master secret for it.
    pub(super) binding: Option<[u8; 32]>,
}

impl Link {
    /// Starts to connect.
    pub(super) fn open(server: ServerUrl, tls: ClientConfig) -> Self {
        let (outgoing, to_send) = mpsc::channel(QUEUE);
        let (teller, happenings) = mpsc::channel(QUEUE);
        tokio::spawn(serve(server, tls, to_send, teller));
        Self { outgoing, happenings }
    }

    /// Sends bytes, after those before them. `false` when the queue is full: the peer does not take them.
    pub(super) fn send(&self, bytes: Vec<u8>) -> bool {
        !matches!(self.outgoing.try_send(bytes), Err(mpsc::error::TrySendError::Full(_)))
    }

    /// The next happening; nothing comes after [`Happening::Ended`].
    pub(super) async fn next(&mut self) -> Happening {
        let last = || Happening::Ended(Ending::Reset, "the connection is gone".to_owned());
        self.happenings.recv().await.unwrap_or_else(last)
    }
}

/// The task: it ends with its connection, or when the [`Link`] is dropped.
async fn serve(
    server: ServerUrl,
    tls: ClientConfig,
    mut to_send: mpsc::Receiver<Vec<u8>>,
    teller: mpsc::Sender<Happening>,
) {
    let connected = tokio::select! {
        connected = connect(&server, tls) => connected,
        () = teller.closed() => return,
    };
    let ended = match connected {
        Ok(mut stream) => {
            let up = Happening::Up(handshake(&stream));
            if teller.send(up).await.is_err() {
                return;
            }
            let ended = carry(&mut stream, &mut to_send, &teller).await;
            // In order where the peer still listens; it is owed no more than a moment.
            let _ = tokio::time::timeout(FAREWELL_TIMEOUT, stream.shutdown()).await;
            ended
        }
        Err(error) => Some(error),
    };
    if let Some((ending, words)) = ended {
        let _ = teller.send(Happening::Ended(ending, words)).await;
    }
}

/// Carries bytes until one side ends; `None` when it was ours.
async fn carry(
    stream: &mut TlsStream<TcpStream>,
    to_send: &mut mpsc::Receiver<Vec<u8>>,
    teller: &mpsc::Sender<Happening>,
) -> Option<(Ending, String)> {
    let mut buffer = vec![0; READ_BYTES];
    loop {
        tokio::select! {
            bytes = to_send.recv() => {
                let bytes = bytes?;
                let sent = async {
                    stream.write_all(&bytes).await?;
                    stream.flush().await
                };
                tokio::select! {
                    sent = sent => if let Err(error) = sent { return Some(spelled(&error)) },
                    () = teller.closed() => return None,
                }
            }
            read = stream.read(&mut buffer) => match read {
                Ok(0) => return Some((Ending::Closed, "the server closed the connection".to_owned())),
                Ok(len) => {
                    let bytes = buffer.get(..len).unwrap_or_default().to_vec();
                    if teller.send(Happening::Received(bytes)).await.is_err() {
                        return None;
                    }
                }
                Err(error) => return Some(spelled(&error)),
            },
        }
    }
}

async fn connect(server: &ServerUrl, tls: ClientConfig) -> Result<TlsStream<TcpStream>, (Ending, String)> {
    let unreachable = |error: io::Error| (Ending::Unreachable, error.to_string());
    let name = ServerName::try_from(server.host.clone())
        .map_err(|error| (Ending::Unreachable, error.to_string()))?;
    let socket = reach(server).await.map_err(unreachable)?;
    // Requests are small and waited for.
    let _ = socket.set_nodelay(true);
    TlsConnector::from(Arc::new(tls)).connect(name, socket).await.map_err(|error| spelled(&error))
}

/// Tries the host's addresses one after the other, each for a while: one of them may lead nowhere.
async fn reach(server: &ServerUrl) -> io::Result<TcpStream> {
    let addresses: Vec<SocketAddr> =
        tokio::net::lookup_host((server.host.as_str(), server.port)).await?.take(MAX_ADDRESSES).collect();
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in addresses {
        let timed_out = || io::Error::new(io::ErrorKind::TimedOut, "no answer in time");
        match tokio::time::timeout(ADDRESS_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(socket)) => return Ok(socket),
            Ok(Err(error)) => last = error,
            Err(_) => last = timed_out(),
        }
        last = io::Error::new(last.kind(), format!("{address}: {last}"));
    }
    Err(last)
}

fn handshake(stream: &TlsStream<TcpStream>) -> Handshake {
    let (_, connection) = stream.get_ref();
    let chain = connection.peer_certificates().unwrap_or_default();
    let binding = (connection.protocol_version() == Some(ProtocolVersion::TLSv1_3))
        .then(|| connection.export_keying_material([0; 32], EXPORTER_LABEL, Some(b"")));
    Handshake {
        chain: chain.iter().map(|der| der.clone().into_owned()).collect(),
        binding: binding.and_then(Result::ok),
    }
}

/// What an error means for the device core, and in words.
fn spelled(error: &io::Error) -> (Ending, String) {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    let ending = match tls {
        Some(Error::InvalidCertificate(CertificateError::Expired | CertificateError::NotValidYet)) => {
            Ending::ServerUntimely
        }
        Some(Error::InvalidCertificate(_) | Error::NoCertificatesPresented) => Ending::ServerUntrusted,
        Some(Error::AlertReceived(alert)) if is_about_our_certificate(*alert) => Ending::CertificateRefused,
        _ => Ending::Reset,
    };
    let words = match (tls, error.kind()) {
        (None, io::ErrorKind::UnexpectedEof) => "the server cut the connection".to_owned(),
        _ => error.to_string(),
    };
    (ending, words)
}

/// RFC 8446 §6.2: the alerts by which a server says that it does not like the client's certificate.
const fn is_about_our_certificate(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::AccessDenied
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateRequired
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::UnsupportedCertificate
    )
}

/// One TLS record (RFC 8446 §5.1).
const READ_BYTES: usize = 16 << 10;
/// Pieces under way in each direction; a request is one or two pieces.
const QUEUE: usize = 8;
/// Addresses of one name that are tried.
const MAX_ADDRESSES: usize = 8;
/// For one address; the whole attempt has a minute (the device core's limit).
const ADDRESS_TIMEOUT: Duration = Duration::from_secs(7);
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(2);
/// RFC 9266 §4.2.
const EXPORTER_LABEL: &[u8] = b"EXPORTER-Channel-Binding";
