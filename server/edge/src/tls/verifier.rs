//! Whether a client's certificate is good for a hostname, and whose it is.
//!
//! Order: caps on size and work, then the chain against the hostname's own anchors, then the names,
//! then the revoked set. A chain that was verified is remembered by its leaf and the set of anchors
//! until its first certificate ends; the revoked set is asked every time, and rustls checks on every
//! connection that the peer holds the leaf's key (RFC 8446 §4.4.3), cached chain or not.

use std::sync::Arc;

use arc_swap::ArcSwap;
use muster_policy::access::{Above, Holder};
use muster_policy::identity::{CaId, Fingerprint, Serial};
use muster_policy::reason::Reason;
use muster_policy::time::UnixTime;
use quick_cache::sync::Cache;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{self, CertificateDer};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use webpki::{EndEntityCert, KeyUsage, VerifiedPath};

use super::alert;
use super::anchors::{AnchorSet, IssuerFacts};
use crate::clock::to_pki;
use crate::identity::{Leaf, fingerprint, key_within_bounds, parse};
use crate::snapshot::CertificateKey;
use crate::standing::{Standing, judged};

/// A leaf and three CAs: more than any device PKI has.
const CHAIN_MAX_CERTIFICATES: usize = 4;
/// Four large RSA certificates fit; webpki alone would take 64 KiB.
const CHAIN_MAX_BYTES: usize = 16 * 1024;

/// A leaf whose chain was verified, and all that follows from that.
#[derive(Debug)]
pub(crate) struct Verified {
    pub(crate) leaf: Leaf,
    pub(crate) key: CertificateKey,
    /// The CAs between leaf and anchor, as certificates of those above them; they can be revoked too.
    above: Vec<Above>,
    /// The CA whose anchor it was verified with.
    anchor: CaId,
    /// The end of the first of the path's certificates to end.
    pub(crate) valid_until: UnixTime,
    valid_from: UnixTime,
    pub(crate) issuer: Arc<IssuerFacts>,
    pub(crate) der: CertificateDer<'static>,
    /// The CAs between leaf and anchor, as they were verified.
    pub(crate) path: Vec<CertificateDer<'static>>,
}

impl Verified {
    /// Whether nothing is held against the leaf or a CA above it.
    fn hold_up(&self, anchors: &AnchorSet, standing: &Standing, now: UnixTime) -> Result<(), Reason> {
        let all = judged(self.key, self.leaf.fingerprint, &self.above, &anchors.issuers);
        if all.clone().any(|judged| standing.is_revoked(&judged)) {
            return Err(Reason::CertificateRevoked);
        }
        if all.clone().any(|judged| standing.is_closed(&judged, now)) {
            return Err(Reason::CrlStale);
        }
        Ok(())
    }

    /// The holder, without what is known of its device.
    pub(crate) fn holder(&self, anchors: &AnchorSet) -> Holder {
        Holder {
            account: anchors.account,
            ca: self.key.ca,
            anchor: self.anchor,
            serial: self.leaf.serial,
            fingerprint: self.leaf.fingerprint,
            above: self.above.clone(),
            device: self.leaf.device.clone(),
            groups: std::collections::BTreeSet::new(),
            not_after: self.valid_until,
        }
    }
}

/// Judges chains; shared by all hostnames.
pub(crate) struct Examiner {
    verified: Cache<(Fingerprint, u64), Arc<Verified>>,
    algorithms: WebPkiSupportedAlgorithms,
    standing: Arc<ArcSwap<Standing>>,
}

impl Examiner {
    /// An examiner that remembers this many verified chains.
    pub(crate) fn new(
        remembered: usize,
        algorithms: WebPkiSupportedAlgorithms,
        standing: Arc<ArcSwap<Standing>>,
    ) -> Self {
        Self { verified: Cache::new(remembered), algorithms, standing }
    }

    /// Judges what a client showed.
    ///
    /// # Errors
    /// The reason why it is no good here.
    pub(crate) fn examine(
        &self,
        anchors: &AnchorSet,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<Arc<Verified>, Reason> {
        let verified = self.chain(anchors, leaf, intermediates, now)?;
        verified.hold_up(anchors, &self.standing.load(), now)?;
        Ok(verified)
    }

    fn chain(
        &self,
        anchors: &AnchorSet,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<Arc<Verified>, Reason> {
        let bytes = leaf.len() + intermediates.iter().map(|certificate| certificate.len()).sum::<usize>();
        if intermediates.len() >= CHAIN_MAX_CERTIFICATES || bytes > CHAIN_MAX_BYTES {
            return Err(Reason::ChainExcessive);
        }
        let key = (fingerprint(leaf), anchors.generation);
        if let Some(verified) = self.verified.get(&key) {
            if (verified.valid_from..=verified.valid_until).contains(&now) {
                return Ok(verified);
            }
            self.verified.remove(&key);
        }
        let verified = Arc::new(verify(anchors, leaf, intermediates, now, &self.algorithms)?);
        self.verified.insert(key, Arc::clone(&verified));
        Ok(verified)
    }
}

fn verify(
    anchors: &AnchorSet,
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    now: UnixTime,
    algorithms: &WebPkiSupportedAlgorithms,
) -> Result<Verified, Reason> {
    for certificate in intermediates {
        key_within_bounds(&parse(certificate)?)?;
    }
    let certificate = parse(leaf)?;
    key_within_bounds(&certificate)?;
    let usable = anchors.good_at(now);
    let end_entity = EndEntityCert::try_from(leaf).map_err(|error| reason_of(&error))?;
    let path = end_entity
        .verify_for_usage(
            algorithms.all,
            &usable,
            intermediates,
            to_pki(now),
            // For CAs: the purpose is among those named, if any are. Leaves are held to more below.
            KeyUsage::client_auth(),
            None,
            None,
        )
        .map_err(|error| reason_of(&error))?;
    let span = Span::of(anchors, &path, now)?;
    if now < span.from {
        return Err(Reason::CertificateNotYetValid);
    }
    if now > span.until {
        return Err(Reason::CertificateExpired);
    }
    let issuer = issuer(anchors, &path)?;
    let read = Leaf::of(&certificate, leaf, &anchors.trust_domain)?;
    Ok(Verified {
        above: above(anchors, &path, span.anchor)?,
        key: CertificateKey { ca: issuer.unwrap_or(span.anchor), serial: read.serial },
        anchor: span.anchor,
        valid_from: span.from.max(read.not_before),
        valid_until: span.until.min(read.not_after),
        issuer: span.issuer,
        der: leaf.clone().into_owned(),
        path: path.intermediate_certificates().map(|certificate| certificate.der().into_owned()).collect(),
        leaf: read,
    })
}

/// The CA that issued the leaf, if it is one that is known.
fn issuer(anchors: &AnchorSet, path: &VerifiedPath<'_>) -> Result<Option<CaId>, Reason> {
    let direct = path.intermediate_certificates().next().map(|certificate| certificate.der());
    let found = match &direct {
        Some(der) => {
            let issuer = webpki::anchor_from_trusted_cert(der).map_err(|error| reason_of(&error))?;
            anchors.issuers.of(&issuer)
        }
        None => anchors.issuers.of(path.anchor()),
    };
    found.map(|found| found.first().copied()).ok_or(Reason::CertificateUntrusted)
}

/// The CAs of a path, each as a certificate of the one above it, as far as that one is known here.
fn above(anchors: &AnchorSet, path: &VerifiedPath<'_>, anchor: CaId) -> Result<Vec<Above>, Reason> {
    let ders: Vec<_> = path.intermediate_certificates().map(|certificate| certificate.der()).collect();
    let mut above = Vec::with_capacity(ders.len());
    for (place, der) in ders.iter().enumerate() {
        let issuer = match ders.get(place + 1) {
            Some(next) => {
                let next = webpki::anchor_from_trusted_cert(next).map_err(|error| reason_of(&error))?;
                anchors.issuers.of(&next).and_then(|found| found.first().copied())
            }
            None => Some(anchor),
        };
        let serial = Serial::from_bytes(parse(der)?.raw_serial());
        let (Some(ca), Ok(serial)) = (issuer, serial) else { continue };
        above.push(Above { ca, serial, fingerprint: fingerprint(der) });
    }
    Ok(above)
}

/// The time that all CAs of a path share, and who stands at its ends.
struct Span {
    anchor: CaId,
    from: UnixTime,
    until: UnixTime,
    issuer: Arc<IssuerFacts>,
}

impl Span {
    /// webpki does not look at an anchor's time: an ended CA vouches for nobody.
    fn of(anchors: &AnchorSet, path: &VerifiedPath<'_>, now: UnixTime) -> Result<Self, Reason> {
        let mark = anchors.mark(path.anchor(), now).ok_or(Reason::CertificateUntrusted)?;
        let mut span = Self {
            anchor: mark.ca,
            from: mark.not_before,
            until: mark.not_after,
            issuer: Arc::clone(&mark.issuer),
        };
        for (index, certificate) in path.intermediate_certificates().enumerate() {
            let der = certificate.der();
            let certificate = parse(&der)?;
            let validity = certificate.validity();
            span.from = span.from.max(UnixTime::from_secs(validity.not_before.timestamp()));
            span.until = span.until.min(UnixTime::from_secs(validity.not_after.timestamp()));
            if index == 0 {
                span.issuer = Arc::new(IssuerFacts::of(&certificate));
            }
        }
        Ok(span)
    }
}

fn reason_of(error: &webpki::Error) -> Reason {
    match error {
        webpki::Error::CertExpired { .. } => Reason::CertificateExpired,
        webpki::Error::CertNotValidYet { .. } => Reason::CertificateNotYetValid,
        webpki::Error::RequiredEkuNotFoundContext(_) | webpki::Error::CaUsedAsEndEntity => {
            Reason::CertificateUnfit
        }
        webpki::Error::BadDer | webpki::Error::BadDerTime | webpki::Error::TrailingData(_) => {
            Reason::IdentityMalformed
        }
        _ => Reason::CertificateUntrusted,
    }
}

/// Whether a hostname serves those who show no certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Demand {
    Optional,
    Required,
}

/// The client verifier of one hostname.
pub(crate) struct DoorVerifier {
    pub(crate) demand: Demand,
    pub(crate) anchors: Arc<AnchorSet>,
    pub(crate) examiner: Arc<Examiner>,
}

impl std::fmt::Debug for DoorVerifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DoorVerifier({:?}, {:?})", self.demand, self.anchors.cas)
    }
}

impl ClientCertVerifier for DoorVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.demand == Demand::Required
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.anchors.hints
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: pki_types::UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let now = UnixTime::from_secs(i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
        self.examiner
            .examine(&self.anchors, end_entity, intermediates, now)
            .map(|_| ClientCertVerified::assertion())
            .map_err(alert::error_of)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &self.examiner.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.examiner.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.examiner.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use muster_policy::identity::{AccountId, CaId};
    use rcgen::{
        BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
        Issuer, KeyPair,
    };
    use serde_bytes::ByteBuf;

    use super::*;
    use crate::snapshot::CaEntry;
    use crate::tls::anchors::Ca;
    use crate::tls::config::provider;
    use crate::tls::issuers::Issuers;

    const ACCOUNT: AccountId = AccountId::from_bytes([1; 16]);
    const ID: CaId = CaId::from_bytes([2; 16]);
    const NOW: i64 = 1_800_000_000;

    struct Rig {
        examiner: Examiner,
        standing: Arc<ArcSwap<Standing>>,
        ca: BTreeMap<CaId, Arc<Ca>>,
        leaf: CertificateDer<'static>,
    }

    impl Rig {
        fn new() -> Self {
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let key = KeyPair::generate().expect("a key");
            let der = params.self_signed(&key).expect("a certificate").der().to_vec();
            let entry = CaEntry {
                id: ID,
                account: ACCOUNT,
                certificates: vec![ByteBuf::from(der)],
                is_default: true,
                vouches: true,
            };
            let issuer = Issuer::new(params, key);
            let mut params = CertificateParams::default();
            params.distinguished_name = DistinguishedName::new();
            params.distinguished_name.push(DnType::CommonName, "meter-1");
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            params.not_before = UnixTime::from_secs(NOW - 100).to_offset_date_time();
            params.not_after = UnixTime::from_secs(NOW + 100).to_offset_date_time();
            let key = KeyPair::generate().expect("a key");
            let leaf = params.signed_by(&key, &issuer).expect("a certificate").der().clone();
            let standing = Arc::new(ArcSwap::from_pointee(Standing::default()));
            let algorithms = provider().signature_verification_algorithms;
            let examiner = Examiner::new(16, algorithms, Arc::clone(&standing));
            let ca = BTreeMap::from([(ID, Arc::new(Ca::new(entry).expect("a CA")))]);
            Self { examiner, standing, ca, leaf }
        }

        fn anchors(&self, account: AccountId) -> AnchorSet {
            let domain = "fleet.example".parse().expect("a trust domain");
            let issuers = Issuers::by_account(&self.ca).remove(&account).unwrap_or_default();
            AnchorSet::new(account, domain, &BTreeSet::from([ID]), &self.ca, issuers)
        }

        fn examine(&self, anchors: &AnchorSet, at: i64) -> Result<Arc<Verified>, Reason> {
            self.examiner.examine(anchors, &self.leaf, &[], UnixTime::from_secs(at))
        }
    }

    #[test]
    fn a_verified_chain_is_remembered_for_its_own_anchors_and_time_alone() {
        let rig = Rig::new();
        let (first, second) = (rig.anchors(ACCOUNT), rig.anchors(ACCOUNT));
        let verified = rig.examine(&first, NOW).expect("good");
        assert!(Arc::ptr_eq(
            &verified,
            &rig.examine(&first, NOW + 100).expect("good through its last second")
        ));
        assert!(!Arc::ptr_eq(&verified, &rig.examine(&second, NOW).expect("verified anew")));
        for (at, reason) in
            [(NOW + 101, Reason::CertificateExpired), (NOW - 101, Reason::CertificateNotYetValid)]
        {
            rig.examine(&first, NOW).expect("remembered");
            assert_eq!(rig.examine(&first, at).map(drop), Err(reason));
        }
    }

    #[test]
    fn a_remembered_chain_is_refused_from_the_moment_it_is_revoked() {
        let rig = Rig::new();
        let anchors = rig.anchors(ACCOUNT);
        let verified = rig.examine(&anchors, NOW).expect("good");
        rig.standing.load().revoke(&verified.key);
        assert_eq!(rig.examine(&anchors, NOW).map(drop), Err(Reason::CertificateRevoked));
        rig.standing.load().reactivate(&verified.key);
        assert!(rig.examine(&anchors, NOW).is_ok());
    }

    #[test]
    fn a_chain_that_is_too_long_or_too_large_is_not_looked_at() {
        let rig = Rig::new();
        let (anchors, now) = (rig.anchors(ACCOUNT), UnixTime::from_secs(NOW));
        let examine =
            |others: &[CertificateDer<'_>]| rig.examiner.examine(&anchors, &rig.leaf, others, now).map(drop);
        let most = CHAIN_MAX_CERTIFICATES - 1;
        assert_eq!(examine(&vec![rig.leaf.clone(); most]), Ok(()));
        assert_eq!(examine(&vec![rig.leaf.clone(); most + 1]), Err(Reason::ChainExcessive));
        let large = CertificateDer::from(vec![0; CHAIN_MAX_BYTES]);
        assert_eq!(examine(&[large]), Err(Reason::ChainExcessive));
    }

    #[test]
    fn a_ca_is_no_anchor_for_another_account() {
        let rig = Rig::new();
        let anchors = rig.anchors(AccountId::from_bytes([9; 16]));
        assert_eq!(rig.examine(&anchors, NOW).map(drop), Err(Reason::CertificateUntrusted));
    }
}
