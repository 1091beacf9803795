//! The ClientHello of the EST listener: read whole, within bounds, and parsed by rustls.
//!
//! It is read before the handshake begins because a device with little memory says in it how large a record may
//! be (RFC 6066 §4), and the configuration has to be chosen by that: rustls itself does not obey. Everyone else
//! gets records of the usual size, which strongSwan needs (an answer in one record).

use std::io;
use std::sync::Arc;

use muster_policy::fragment::FragmentLimit;
use rustls::ServerConfig;
use rustls::server::{Accepted, Acceptor};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// A hello with an ML-KEM share is 2 KiB; this leaves room for one octet per record.
const HELLO_MAX_BYTES: usize = 16 * 1024;
/// One read takes a usual hello whole.
const READ_BYTES: usize = 2048;

/// A whole ClientHello.
pub(super) struct Hello {
    pub(super) accepted: Accepted,
    limit: Option<FragmentLimit>,
}

impl Hello {
    /// Reads until the hello is whole. Who calls it sets the deadline.
    ///
    /// # Errors
    /// When the peer goes away, sends too much, or what is no hello; then it was told so.
    pub(super) async fn read(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> io::Result<Self> {
        let invalid = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why);
        let mut acceptor = Acceptor::default();
        let mut seen = Vec::with_capacity(READ_BYTES);
        loop {
            let before = seen.len();
            if before >= HELLO_MAX_BYTES {
                return Err(invalid("the hello is too long"));
            }
            let room = READ_BYTES.min(HELLO_MAX_BYTES - before);
            if (&mut *stream).take(room as u64).read_buf(&mut seen).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let mut fresh = seen.get(before..).unwrap_or_default();
            while !fresh.is_empty() {
                acceptor.read_tls(&mut fresh)?;
                match acceptor.accept() {
                    Ok(Some(accepted)) if fresh.is_empty() => {
                        return Ok(Self { accepted, limit: FragmentLimit::of_hello(&seen) });
                    }
                    Ok(None) => {}
                    // Nothing may follow a hello before the server has answered it.
                    Ok(Some(_)) => return Err(invalid("something follows the hello")),
                    Err((error, mut alert)) => {
                        let mut bytes = Vec::new();
                        alert.write_all(&mut bytes)?;
                        stream.write_all(&bytes).await?;
                        return Err(io::Error::new(io::ErrorKind::InvalidData, error));
                    }
                }
            }
        }
    }

    /// The configuration as this client needs it. Nothing that resumes is shared by a copy: there is no store.
    pub(super) fn suited(&self, config: Arc<ServerConfig>) -> Arc<ServerConfig> {
        match self.limit {
            None => config,
            Some(limit) => {
                let mut config = (*config).clone();
                config.max_fragment_size = Some(limit.record_bytes());
                Arc::new(config)
            }
        }
    }
}
