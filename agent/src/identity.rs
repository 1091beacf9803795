//! The identities of a running agent: the one in use, and the candidate that was issued and waits for its first use.
//!
//! The renewing half owns [`Publisher`]; the carrying half holds [`Identities`]. A candidate becomes
//! the one in use when a peer took it once ([`Verdict::Accepted`]); until then the old one stays in use.

use std::sync::Arc;
use std::time::SystemTime;

use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::{mpsc, watch};

/// A device certificate with its key: everything that a TLS client needs to present it.
#[derive(Debug)]
pub struct Identity {
    /// Counts up with each enrollment of this device; the slot's record carries it.
    pub generation: u32,
    /// The device id, the common name of the leaf.
    pub device: String,
    /// Leaf first, then the issuing CA.
    pub chain: Vec<CertificateDer<'static>>,
    /// The private key of the leaf.
    pub key: PrivateKeyDer<'static>,
    /// The end of the leaf: nothing may be presented after it.
    pub not_after: SystemTime,
    /// What servers are verified against: the account's CA certificates.
    pub anchors: Vec<CertificateDer<'static>>,
}

impl Identity {
    /// Whether it is the same certificate. The generation does not tell: after a refusal the next one has it again.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.chain.first() == other.chain.first()
    }

    /// Whether TLS knows the key, and the leaf is for it.
    #[must_use]
    pub fn key_fits(&self) -> bool {
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        rustls::sign::CertifiedKey::from_der(self.chain.clone(), self.key.clone_key(), &provider).is_ok()
    }
}

/// The identities of this moment.
#[derive(Clone, Debug, Default)]
pub struct Held {
    /// The one that traffic uses. `None` before the first enrollment and after a lapse.
    pub in_use: Option<Arc<Identity>>,
    /// Issued and stored, not yet taken by any peer.
    pub candidate: Option<Arc<Identity>>,
}

impl Held {
    /// Whether both hold the same certificates.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let same = |one: &Option<Arc<Identity>>, other: &Option<Arc<Identity>>| match (one, other) {
            (Some(one), Some(other)) => one.is_same(other),
            (one, other) => one.is_none() && other.is_none(),
        };
        same(&self.in_use, &other.in_use) && same(&self.candidate, &other.candidate)
    }
}

/// What a peer said of a candidate.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// A peer took it: it may replace the one in use.
    Accepted {
        /// The candidate.
        identity: Arc<Identity>,
    },
    /// A peer refused it; the one in use stays.
    Refused {
        /// The candidate.
        identity: Arc<Identity>,
        /// The peer's words.
        why: String,
    },
}

/// The renewing half's end.
#[derive(Debug)]
pub struct Publisher {
    held: watch::Sender<Held>,
    verdicts: mpsc::Receiver<Verdict>,
}

/// The carrying half's end; clones see the same identities.
#[derive(Clone, Debug)]
pub struct Identities {
    held: watch::Receiver<Held>,
    verdicts: mpsc::Sender<Verdict>,
}

/// Verdicts that wait to be read: more than the upstreams of one agent.
const VERDICTS: usize = 16;

/// Both ends, holding nothing yet.
#[must_use]
pub fn channel() -> (Publisher, Identities) {
    let (held_in, held_out) = watch::channel(Held::default());
    let (verdict_in, verdict_out) = mpsc::channel(VERDICTS);
    (Publisher { held: held_in, verdicts: verdict_out }, Identities { held: held_out, verdicts: verdict_in })
}

impl Publisher {
    /// Replace what is held; every [`Identities`] wakes.
    pub fn publish(&self, held: Held) {
        self.held.send_replace(held);
    }

    /// Whether anybody tries candidates; if not, each is taken unseen.
    #[must_use]
    pub fn has_judges(&self) -> bool {
        !self.verdicts.is_closed()
    }

    /// The next verdict; `None` when no [`Identities`] is left.
    pub async fn verdict(&mut self) -> Option<Verdict> {
        self.verdicts.recv().await
    }
}

impl Identities {
    /// What is held now.
    #[must_use]
    pub fn held(&self) -> Held {
        self.held.borrow().clone()
    }

    /// Wait until what is held was replaced; `false` when the [`Publisher`] is gone.
    pub async fn changed(&mut self) -> bool {
        self.held.changed().await.is_ok()
    }

    /// Tell how a peer took the candidate.
    pub async fn judge(&self, verdict: Verdict) {
        // With the publisher gone the agent is stopping: nobody needs the verdict.
        let _ = self.verdicts.send(verdict).await;
    }
}
