//! The CAs that a hostname accepts, as trust anchors.
//!
//! A set is made once per distinct set of CAs and shared by all hostnames that accept the same ones.
//! Which CA vouched for a leaf is known by the key that verified it, never by a distinguished name.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use muster_policy::identity::{AccountId, CaId};
use muster_policy::name::TrustDomain;
use muster_policy::time::UnixTime;
use rustls::DistinguishedName;
use rustls::pki_types::{CertificateDer, TrustAnchor};

use super::issuers::Issuers;
use crate::identity::parse;
use crate::snapshot::{CaEntry, Fault};

/// A CA, checked and ready to be an anchor.
#[derive(Debug)]
pub(crate) struct Ca {
    pub(crate) entry: CaEntry,
    certificates: Vec<CaCertificate>,
}

#[derive(Debug)]
struct CaCertificate {
    anchor: TrustAnchor<'static>,
    not_before: UnixTime,
    not_after: UnixTime,
    issuer: Arc<IssuerFacts>,
}

/// What a leaf's headers say of its issuer.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct IssuerFacts {
    /// The issuer's own serial.
    pub(crate) serial: Vec<u8>,
    /// Its subject key identifier; empty when it has none.
    pub(crate) key_id: Vec<u8>,
}

impl IssuerFacts {
    pub(crate) fn of(certificate: &x509_parser::certificate::X509Certificate<'_>) -> Self {
        use x509_parser::extensions::ParsedExtension;
        let key_id =
            certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
                ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
                _ => None,
            });
        Self { serial: certificate.raw_serial().to_vec(), key_id: key_id.unwrap_or_default() }
    }
}

impl Ca {
    /// Checks the certificates of a CA.
    ///
    /// # Errors
    /// [`Fault::Ca`] when there is none, or one can't be an anchor.
    pub(crate) fn new(entry: CaEntry) -> Result<Self, Fault> {
        let fault = |fault: &str| Fault::Ca { ca: entry.id, fault: fault.to_owned() };
        if entry.certificates.is_empty() {
            return Err(fault("it has no certificate"));
        }
        let certificates = entry
            .certificates
            .iter()
            .map(|der| CaCertificate::new(der).ok_or_else(|| fault("a certificate can't be read")))
            .collect::<Result<_, _>>()?;
        Ok(Self { entry, certificates })
    }

    /// Its certificates as anchors.
    pub(crate) fn anchors(&self) -> impl Iterator<Item = &TrustAnchor<'static>> {
        self.certificates.iter().map(|certificate| &certificate.anchor)
    }
}

impl CaCertificate {
    fn new(der: &[u8]) -> Option<Self> {
        let certificate = parse(der).ok()?;
        let anchor = webpki::anchor_from_trusted_cert(&CertificateDer::from(der)).ok()?.to_owned();
        let validity = certificate.validity();
        Some(Self {
            anchor,
            not_before: UnixTime::from_secs(validity.not_before.timestamp()),
            not_after: UnixTime::from_secs(validity.not_after.timestamp()),
            issuer: Arc::new(IssuerFacts::of(&certificate)),
        })
    }
}

/// The anchors of one set of CAs of one account.
#[derive(Debug)]
pub(crate) struct AnchorSet {
    /// Differs between any two sets of one process, so that a chain verified with one counts for no other.
    pub(crate) generation: u64,
    pub(crate) account: AccountId,
    pub(crate) trust_domain: TrustDomain,
    pub(crate) cas: BTreeSet<CaId>,
    /// `marks` has the same length and order.
    pub(crate) anchors: Vec<TrustAnchor<'static>>,
    marks: Vec<AnchorMark>,
    /// All CAs of the account, in this set or not.
    pub(crate) issuers: Arc<Issuers>,
    /// The names that clients choose their certificate by.
    pub(crate) hints: Vec<DistinguishedName>,
}

/// What webpki's anchors don't carry.
#[derive(Clone, Debug)]
pub(crate) struct AnchorMark {
    pub(crate) ca: CaId,
    pub(crate) not_before: UnixTime,
    pub(crate) not_after: UnixTime,
    pub(crate) issuer: Arc<IssuerFacts>,
}

impl AnchorMark {
    fn is_good_at(&self, now: UnixTime) -> bool {
        (self.not_before..=self.not_after).contains(&now)
    }
}

static GENERATIONS: AtomicU64 = AtomicU64::new(1);

impl AnchorSet {
    /// Joins the CAs; those of another account, and those that vouch for nobody, are left out, whoever asked
    /// for them.
    pub(crate) fn new(
        account: AccountId,
        trust_domain: TrustDomain,
        wanted: &BTreeSet<CaId>,
        known: &BTreeMap<CaId, Arc<Ca>>,
        issuers: Arc<Issuers>,
    ) -> Self {
        let counts = |ca: &&Arc<Ca>| ca.entry.account == account && ca.entry.vouches;
        let members: Vec<_> = wanted.iter().filter_map(|id| known.get(id)).filter(counts).collect();
        let mut set = Self {
            generation: GENERATIONS.fetch_add(1, Ordering::Relaxed),
            account,
            trust_domain,
            cas: members.iter().map(|ca| ca.entry.id).collect(),
            anchors: Vec::new(),
            marks: Vec::new(),
            issuers,
            hints: Vec::new(),
        };
        for ca in members {
            for certificate in &ca.certificates {
                set.hints.push(DistinguishedName::in_sequence(&certificate.anchor.subject));
                set.anchors.push(certificate.anchor.clone());
                set.marks.push(AnchorMark {
                    ca: ca.entry.id,
                    not_before: certificate.not_before,
                    not_after: certificate.not_after,
                    issuer: Arc::clone(&certificate.issuer),
                });
            }
        }
        set
    }

    /// The anchors that are good now, or all of them when none is: which of several certificates of one name
    /// and key is taken is the verifier's choice, and it does not look at their time.
    pub(crate) fn good_at(&self, now: UnixTime) -> Cow<'_, [TrustAnchor<'static>]> {
        let are_good = || self.marks.iter().map(|mark| mark.is_good_at(now));
        if are_good().all(|is_good| is_good) || !are_good().any(|is_good| is_good) {
            return Cow::Borrowed(&self.anchors);
        }
        let good = self.anchors.iter().zip(are_good()).filter(|(_, is_good)| *is_good);
        Cow::Owned(good.map(|(anchor, _)| anchor.clone()).collect())
    }

    /// The mark of an anchor of this set that verified something; of several, one that is good now.
    pub(crate) fn mark(&self, anchor: &TrustAnchor<'_>, now: UnixTime) -> Option<&AnchorMark> {
        let mut same = self.anchors.iter().zip(&self.marks).filter(|(own, _)| *own == anchor);
        let first = same.clone().next();
        same.find(|(_, mark)| mark.is_good_at(now)).or(first).map(|(_, mark)| mark)
    }
}
