//! The ClientHello: read within bounds of bytes, parsed by rustls alone.
//!
//! However it is cut into records and segments, the decision is made on the whole message.

use std::io;
use std::sync::Arc;

use muster_policy::fragment::FragmentLimit;
use rustls::server::{Accepted, Acceptor};
use rustls::{CipherSuite, ServerConfig};
use tokio::io::{AsyncRead, AsyncReadExt};

/// A hello with an ML-KEM share is 2 KiB; this leaves room for one octet per record.
const HELLO_MAX_BYTES: usize = 16 * 1024;
/// One read takes a usual hello whole.
const READ_BYTES: usize = 2048;

/// A whole ClientHello.
pub struct Hello {
    /// As rustls has it.
    pub accepted: Accepted,
    fragment_limit: Option<FragmentLimit>,
}

impl Hello {
    /// The configuration as this client needs it: records that it has room for (RFC 6066 §4), which rustls itself
    /// does not obey, and its own order of ciphers if it would rather not do AES. Everyone else gets records of
    /// the usual size, which strongSwan needs (an answer in one record).
    ///
    /// Nothing that resumes is shared by a copy: there must be no store.
    pub fn suited(&self, config: Arc<ServerConfig>) -> Arc<ServerConfig> {
        let avoids_aes = self.avoids_aes();
        if self.fragment_limit.is_none() && !avoids_aes {
            return config;
        }
        let mut config = (*config).clone();
        if let Some(limit) = self.fragment_limit {
            config.max_fragment_size = Some(limit.record_bytes());
        }
        config.ignore_client_order &= !avoids_aes;
        Arc::new(config)
    }

    /// Whether the client puts ChaCha20 before AES, as those do that have no instructions for AES.
    fn avoids_aes(&self) -> bool {
        let first_known = self.accepted.client_hello().cipher_suites().iter().find_map(is_chacha20);
        first_known == Some(true)
    }
}

/// Whether it is ChaCha20; None for what is not spoken here.
const fn is_chacha20(suite: &CipherSuite) -> Option<bool> {
    match suite {
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256
        | CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
        | CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => Some(true),
        CipherSuite::TLS13_AES_128_GCM_SHA256
        | CipherSuite::TLS13_AES_256_GCM_SHA384
        | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
        | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
        | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
        | CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 => Some(false),
        _ => None,
    }
}

/// Why there is none.
#[derive(Debug)]
pub enum HelloFault {
    /// The peer went away or the socket failed.
    Gone,
    /// It is longer than is read.
    TooLarge,
    /// It is no ClientHello; the alert to send.
    Malformed(Vec<u8>),
}

impl From<io::Error> for HelloFault {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

/// Reads until the hello is whole. Who calls it sets the deadline.
///
/// # Errors
/// [`HelloFault`].
pub async fn read_hello(stream: &mut (impl AsyncRead + Unpin)) -> Result<Hello, HelloFault> {
    let mut acceptor = Acceptor::default();
    let mut seen = Vec::with_capacity(READ_BYTES);
    loop {
        let before = seen.len();
        if before >= HELLO_MAX_BYTES {
            return Err(HelloFault::TooLarge);
        }
        let room = READ_BYTES.min(HELLO_MAX_BYTES - before);
        if (&mut *stream).take(room as u64).read_buf(&mut seen).await? == 0 {
            return Err(HelloFault::Gone);
        }
        let mut fresh = seen.get(before..).unwrap_or_default();
        while !fresh.is_empty() {
            acceptor.read_tls(&mut fresh)?;
            match acceptor.accept() {
                Ok(Some(accepted)) if fresh.is_empty() => {
                    return Ok(Hello { accepted, fragment_limit: FragmentLimit::of_hello(&seen) });
                }
                Ok(None) => {}
                // Nothing may follow a hello before the server has answered it.
                Ok(Some(_)) => return Err(HelloFault::Malformed(Vec::new())),
                Err((_, mut alert)) => {
                    let mut bytes = Vec::new();
                    alert.write_all(&mut bytes)?;
                    return Err(HelloFault::Malformed(bytes));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::{ClientConfig, ClientConnection, RootCertStore};

    use super::*;

    /// RFC 8446 §5.1.
    const RECORD_HEADER_BYTES: usize = 5;

    /// One record.
    fn hello(name: &str) -> Vec<u8> {
        let config =
            ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()
                .expect("versions")
                .with_root_certificates(RootCertStore::empty())
                .with_no_client_auth();
        let name = name.to_owned().try_into().expect("a name");
        let mut client = ClientConnection::new(Arc::new(config), name).expect("a client");
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).expect("written");
        bytes
    }

    /// The same handshake message in records of one octet.
    fn crumbs(hello: &[u8]) -> Vec<u8> {
        hello[RECORD_HEADER_BYTES..].iter().flat_map(|octet| [22, 3, 1, 0, 1, *octet]).collect()
    }

    /// A hello with one extension more.
    fn with_extension(hello: &[u8], extension: &[u8]) -> Vec<u8> {
        let mut message = hello[RECORD_HEADER_BYTES..].to_vec();
        let mut at = 4 + 2 + 32;
        at += 1 + usize::from(message[at]);
        at += 2 + usize::from(u16::from_be_bytes([message[at], message[at + 1]]));
        at += 1 + usize::from(message[at]);
        let extensions = u16::from_be_bytes([message[at], message[at + 1]]) + extension.len() as u16;
        message[at..at + 2].copy_from_slice(&extensions.to_be_bytes());
        message.splice(at + 2..at + 2, extension.iter().copied());
        let length = (message.len() - 4) as u32;
        message[1..4].copy_from_slice(&length.to_be_bytes()[1..]);
        let mut record = vec![22, 3, 1];
        record.extend((message.len() as u16).to_be_bytes());
        record.extend(message);
        record
    }

    #[tokio::test]
    async fn a_hello_says_the_same_however_it_is_cut() {
        let whole = hello("api.example.com");
        for bytes in [whole.clone(), crumbs(&whole)] {
            let hello = read_hello(&mut bytes.as_slice()).await.expect("a hello");
            assert_eq!(hello.accepted.client_hello().server_name(), Some("api.example.com"));
            assert_eq!(hello.fragment_limit, None);
            for cut in [1, 5, 9, bytes.len() / 2, bytes.len() - 1] {
                let fault = read_hello(&mut &bytes[..cut]).await;
                assert!(matches!(fault, Err(HelloFault::Gone)), "cut at {cut}");
            }
        }
    }

    #[tokio::test]
    async fn a_small_client_is_heard() {
        for (code, limit) in [(1, 512), (2, 1024), (4, 4096)] {
            let bytes = with_extension(&hello("api.example.com"), &[0, 1, 0, 1, code]);
            for bytes in [bytes.clone(), crumbs(&bytes)] {
                let hello = read_hello(&mut bytes.as_slice()).await.expect("a hello");
                assert_eq!(hello.fragment_limit.map(FragmentLimit::record_bytes), Some(limit + 4));
            }
        }
    }

    #[tokio::test]
    async fn what_is_no_hello_is_refused_within_bounds() {
        let endless = std::iter::repeat_n([22, 3, 1, 0, 1, 1], 4000).flatten().collect::<Vec<u8>>();
        for bytes in [b"GET / HTTP/1.1\r\n\r\n".to_vec(), vec![0; 64], endless] {
            let fault = read_hello(&mut bytes.as_slice()).await;
            assert!(matches!(fault, Err(HelloFault::Malformed(_) | HelloFault::TooLarge)));
        }
    }
}
