//! What the machine is told once: whom to ask, who it is, whom it trusts, and the memory it works in.

use super::Pace;
use crate::ascii;
use crate::est::{Credential, Server};
use crate::time::UnixTime;
use crate::x509::MAX_INTERMEDIATES;

/// Settings of one enrollment. Everything is borrowed: nothing here is copied to a heap.
#[derive(Clone, Copy, Debug)]
pub struct Config<'a> {
    /// The EST server.
    pub server: Server<'a>,
    /// The identity to obtain.
    pub identity: Identity<'a>,
    /// How to prove it the first time, and after the certificate was lost to time. `None`: renew only.
    pub credential: Option<Credential<'a>>,
    /// Whom to trust.
    pub trust: Trust<'a>,
    /// Whether to ask what the server would like to see in a request.
    pub wishes: AskWishes,
    /// Whether to bind a request to its TLS connection.
    pub binding: Binding,
    /// What to keep of an issued chain.
    pub presents: Presents,
    /// How fast to go.
    pub pace: Pace,
    /// When the firmware was built: wall time is never before it.
    pub built_at: UnixTime,
    /// Different for each device, e.g. a hash of its serial number; decides the jitter and nothing secret.
    pub seed: u64,
}

/// Who the device is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity<'a> {
    device: &'a str,
    uri: Option<&'a str>,
}

impl<'a> Identity<'a> {
    /// Takes the device id (1 to 64 of `A-Z a-z 0-9 . _ -`) and the URI that its certificate must have as a SAN.
    ///
    /// Without a URI the first certificate may have any; its renewals must then have the same.
    ///
    /// # Errors
    /// [`BadIdentity`].
    pub fn new(device: &'a str, uri: Option<&'a str>) -> Result<Self, BadIdentity> {
        if !(1..=64).contains(&device.len()) || !ascii::is_made_of(device.as_bytes(), b"._-") {
            return Err(BadIdentity);
        }
        Ok(Self { device, uri })
    }

    /// The device id: the commonName.
    #[must_use]
    pub const fn device(&self) -> &'a str {
        self.device
    }

    /// The URI SAN that the certificate must have.
    #[must_use]
    pub const fn uri(&self) -> Option<&'a str> {
        self.uri
    }
}

/// A device id that is empty, too long, or has other characters than it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadIdentity;

/// Where trust begins (RFC 7030 §4.1.1).
#[derive(Clone, Copy, Debug)]
pub enum Trust<'a> {
    /// CA certificates in DER: a pinned file, or anchors built into the firmware.
    Certificates(&'a [&'a [u8]]),
    /// SHA-256 of the CA certificate's DER; the certificate itself is fetched, and nothing secret is sent before.
    Fingerprint([u8; 32]),
}

/// Whether to fetch csrattrs before a request is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AskWishes {
    /// Fetch them; a server without them answers 204 or 404.
    Ask,
    /// Save the round trip.
    Skip,
}

/// Whether challengePassword carries the TLS channel binding (RFC 7030 §3.5, RFC 9266).
///
/// A bound request is good for one connection only. It is therefore signed anew for each, and a server that
/// recognises a repeated request by its bytes will not recognise it: with one-time tokens prefer `Never`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binding {
    /// Always; without an exporter from the shell there is no request.
    Always,
    /// Never.
    Never,
    /// If csrattrs lists challengePassword.
    WhenAsked,
}

/// What the shell's TLS presents of a chain. No more is kept and stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presents {
    /// The leaf and its intermediates.
    Chain,
    /// The leaf alone: servers must know the issuing CA.
    Leaf,
}

impl Presents {
    /// The most certificates.
    pub(super) const fn most(self) -> usize {
        match self {
            Self::Chain => 1 + MAX_INTERMEDIATES,
            Self::Leaf => 1,
        }
    }
}

/// The memory that the machine works in, lent for its whole life. Any size is safe: what does not fit is
/// [`Failure::Memory`](super::Failure::Memory). The constants are what suits P-256 and a two-step CA.
#[derive(Debug)]
pub struct Memory<'a> {
    /// The CA certificates that the server named.
    pub authorities: &'a mut [u8],
    /// The request under way.
    pub request: &'a mut [u8],
    /// The chain in use.
    pub current: &'a mut [u8],
    /// The chain that will replace it. Must be as large as `current`: they change places.
    pub candidate: &'a mut [u8],
}

impl Memory<'_> {
    /// Of the inbox, which is lent from time to time. Suits an answer with six P-256 certificates in base64, as after a
    /// change of root, or an RSA chain of two.
    pub const INBOX_BYTES: usize = 4608;
    /// Suits four CA certificates of those that may lead to the configured trust.
    pub const AUTHORITIES_BYTES: usize = 2048;
    /// Suits a request that repeats a subject and a name of some length.
    pub const REQUEST_BYTES: usize = 768;
    /// Suits a leaf and two intermediates; for [`Presents::Leaf`] the longest leaf is enough.
    pub const CHAIN_BYTES: usize = 2048;
}
