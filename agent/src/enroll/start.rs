//! What a device starts from: settings for the core, memory lent to it, and what the slots hold.

use std::collections::VecDeque;
use std::time::Duration;

use muster_proto::enrollment::{
    self, AskWishes, Binding, Config, Enrollment, Memory, Presents, Restored, Trust,
};
use muster_proto::est::{Credential, Server};
use muster_proto::time::{EARLIEST_WALL_TIME, Instant};

use super::verify::AwsLc;
use super::{News, SLOTS};
use crate::identity::Identity;
use crate::settings::{Proof, Settings, TrustRoots};
use crate::store::{Content, Found, Kept, Store, StoreError};

/// The memory that one device works in.
#[derive(Debug)]
pub struct Ground<'s> {
    pub(super) settings: &'s Settings,
    anchors: Vec<&'s [u8]>,
    authorities: Vec<u8>,
    request: Vec<u8>,
    current: Vec<u8>,
    candidate: Vec<u8>,
}

impl<'s> Ground<'s> {
    /// Memory for a device of these settings.
    #[must_use]
    pub fn new(settings: &'s Settings) -> Self {
        Self {
            settings,
            anchors: settings.trust.certificates(),
            authorities: vec![0; AUTHORITIES_BYTES],
            request: vec![0; REQUEST_BYTES],
            current: vec![0; CHAIN_BYTES],
            candidate: vec![0; CHAIN_BYTES],
        }
    }

    /// The device core, taking up what was stored.
    pub(super) fn machine<'g>(
        &'g mut self,
        restored: &Restored<'_>,
        now: Instant,
    ) -> Result<Enrollment<'g, AwsLc>, StartError> {
        let config = config(self.settings, &self.anchors, seed()?)?;
        let memory = Memory {
            authorities: &mut self.authorities,
            request: &mut self.request,
            current: &mut self.current,
            candidate: &mut self.candidate,
        };
        Ok(Enrollment::new(config, memory, restored, AwsLc, now))
    }
}

impl Identity {
    /// The identity in a slot; `None` when it holds another thing, or a key that is not the certificate's.
    #[must_use]
    pub fn from_content(content: &Content, roots: &TrustRoots) -> Option<Self> {
        let Some(Kept::Pair(pair)) = &content.record else { return None };
        let bundle = muster_proto::x509::Bundle::new(&pair.chain);
        let anchors = match roots {
            TrustRoots::Certificates(certificates) => certificates.clone(),
            TrustRoots::Fingerprint(_) => vec![pair.anchor.clone().into()],
        };
        let expires_for = Duration::from_secs(pair.window.expires_at().as_secs());
        let identity = Self {
            generation: pair.generation,
            device: bundle.first().ok()?.common_name()?.to_owned(),
            chain: bundle.iter().map(|der| der.to_vec().into()).collect(),
            key: rustls_pki_types::PrivatePkcs8KeyDer::from(content.key.as_pkcs8().to_vec()).into(),
            not_after: std::time::UNIX_EPOCH + expires_for,
            anchors,
        };
        identity.key_fits().then_some(identity)
    }
}

/// Why a device can't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The settings hold what the protocol can't carry.
    #[error("{0}")]
    Settings(&'static str),
    /// The system gives no random numbers.
    #[error("the system's random number generator failed")]
    NoRandom,
    /// The store can't be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn config<'g>(settings: &'g Settings, anchors: &'g [&'g [u8]], seed: u64) -> Result<Config<'g>, StartError> {
    let server = &settings.server;
    Ok(Config {
        server: Server::new(&server.host, server.port, server.label.as_deref())
            .map_err(|_| StartError::Settings("the server's address is malformed"))?,
        identity: enrollment::Identity::new(&settings.device, None).map_err(|_| {
            StartError::Settings("the device id must have 1 to 64 characters out of A-Z a-z 0-9 . _ -")
        })?,
        credential: credential(settings)?,
        trust: match &settings.trust {
            TrustRoots::Certificates(_) => Trust::Certificates(anchors),
            TrustRoots::Fingerprint(fingerprint) => Trust::Fingerprint(*fingerprint),
        },
        wishes: AskWishes::Ask,
        binding: Binding::WhenAsked,
        presents: Presents::Chain,
        pace: settings.pace,
        built_at: EARLIEST_WALL_TIME,
        seed,
    })
}

/// How the device proves itself the first time, as the core takes it.
pub(super) fn credential(settings: &Settings) -> Result<Option<Credential<'_>>, StartError> {
    let basic = |token| {
        Credential::basic(&settings.device, token)
            .map_err(|_| StartError::Settings("the token has control characters in it"))
    };
    Ok(match &settings.credential {
        None => None,
        Some(Proof::Manufacturer(_)) => Some(Credential::manufacturer()),
        Some(Proof::ManufacturerAndToken(_, token)) => Some(basic(token)?.with_manufacturer()),
        Some(Proof::Token(token)) => Some(basic(token)?),
    })
}

/// Reads both slots; what is of no use becomes news.
pub(super) fn take_stock(
    store: &Store,
    news: &mut VecDeque<News>,
) -> Result<[Option<Content>; 2], StoreError> {
    let mut contents = [None, None];
    for (slot, place) in SLOTS.into_iter().zip(&mut contents) {
        match store.take_stock(slot)? {
            Found::Whole(content) => *place = Some(content),
            Found::Empty => {}
            Found::Damaged(damage) => {
                news.push_back(News::Discarded(slot, format!("{damage}; it was set aside")))
            }
        }
    }
    Ok(contents)
}

fn seed() -> Result<u64, StartError> {
    let mut octets = [0; 8];
    aws_lc_rs::rand::fill(&mut octets).map_err(|_| StartError::NoRandom)?;
    Ok(u64::from_le_bytes(octets))
}

/// Far above what `Memory` suggests for a microcontroller: RSA chains and many CA certificates fit.
pub(super) const INBOX_BYTES: usize = 64 << 10;
const AUTHORITIES_BYTES: usize = 32 << 10;
const REQUEST_BYTES: usize = 8 << 10;
const CHAIN_BYTES: usize = 16 << 10;
