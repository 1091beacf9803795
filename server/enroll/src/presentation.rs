//! What the client certificate of a connection is worth.
//!
//! Two halves. The path (does it chain to a CA that may authenticate here?) costs signatures and
//! cannot change while the trusted CAs stay the same, so a connection keeps it. Dates, revocation and
//! the device's listing can change at any moment and are looked up for each request.

use std::sync::{Arc, Mutex, PoisonError};

use muster_ca::certificate::LeafFacts;
use muster_ca::chain::{ClientChain, verify_client_chain};
use muster_policy::identity::{CaId, Fingerprint};
use muster_policy::name::DeviceId;
use muster_policy::reason::{Reason, Refusal};
use muster_policy::time::UnixTime;
use muster_store::record::{Certificate, ForeignName};
use muster_store::{Fault, Reader};

use crate::authority::{Trust, TrustedCa};
use crate::front::TlsPeer;

/// Where a refusal speaks of the client certificate.
pub(crate) const FIELD_CERTIFICATE: &str = "/tls/certificate";

/// What the certificate of a connection turned out to be at this moment.
pub(crate) enum Presentation {
    /// Issued by us to a device, known and not revoked. It may have ended: a grace decides that.
    Device(Box<Certificate>),
    /// A manufacturer's, for a device that lists its serial number.
    Manufacturer { device: DeviceId, leaf: Fingerprint },
    /// None was shown.
    Nothing,
    /// One was shown that is good for nothing, and why.
    Refused(Refusal),
}

/// Where the certificate of a connection chains to.
enum Path {
    Device { ca: CaId, facts: LeafFacts },
    Manufacturer { ca: CaId, facts: LeafFacts },
    Nothing,
    Nowhere(Reason),
}

/// The path of one connection, found once per generation of trusted CAs.
#[derive(Default)]
pub(crate) struct PathCache(Mutex<Option<(u64, Arc<Path>)>>);

impl PathCache {
    fn path(&self, peer: &TlsPeer, trust: &Trust, now: UnixTime) -> Arc<Path> {
        let mut cached = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &*cached {
            Some((generation, path)) if *generation == trust.generation => Arc::clone(path),
            _ => {
                let path = Arc::new(find_path(peer, trust, now));
                *cached = Some((trust.generation, Arc::clone(&path)));
                path
            }
        }
    }
}

/// Judges a connection's certificate for one request.
///
/// # Errors
/// Only when the ledger can't be read; a bad certificate is an answer, not an error.
pub(crate) fn judge(
    peer: &TlsPeer,
    cache: &PathCache,
    trust: &Trust,
    reader: &Reader,
    now: UnixTime,
) -> Result<Presentation, Fault> {
    match &*cache.path(peer, trust, now) {
        Path::Nothing => Ok(Presentation::Nothing),
        Path::Nowhere(reason) => Ok(refused(*reason)),
        Path::Device { ca, facts } => judge_device(*ca, facts, reader),
        Path::Manufacturer { ca, facts } => judge_manufacturer(*ca, facts, trust, reader, now),
    }
}

fn refused(reason: Reason) -> Presentation {
    Presentation::Refused(Refusal::new(reason, FIELD_CERTIFICATE))
}

fn find_path(peer: &TlsPeer, trust: &Trust, now: UnixTime) -> Path {
    let Some((leaf, intermediates)) = peer.certificates.split_first() else { return Path::Nothing };
    let Ok(facts) = LeafFacts::parse(leaf) else { return Path::Nowhere(Reason::CertificateUntrusted) };
    let mut refusal = Reason::CertificateUntrusted;
    // An expired leaf has its path, for the grace to judge. An early one has none: it was not checked,
    // and a forged one must not become good while its connection waits.
    let mut leads_to = |ca: &TrustedCa| match verify_client_chain(leaf, intermediates, &ca.anchor, now) {
        ClientChain::Trusted { .. } | ClientChain::Expired { .. } => true,
        ClientChain::NotForClientAuth => {
            refusal = Reason::CertificateUnfit;
            false
        }
        ClientChain::NotYetValid => {
            refusal = Reason::CertificateNotYetValid;
            false
        }
        ClientChain::Untrusted => false,
    };
    let issued_by = |ca: &&TrustedCa| ca.subject_der == facts.issuer_der;
    if let Some(ca) = trust.devices.iter().filter(issued_by).find(|ca| leads_to(ca)) {
        return Path::Device { ca: ca.id, facts };
    }
    if let Some(ca) = trust.manufacturers.iter().find(|ca| leads_to(ca)) {
        return Path::Manufacturer { ca: ca.id, facts };
    }
    Path::Nowhere(refusal)
}

fn judge_device(ca: CaId, facts: &LeafFacts, reader: &Reader) -> Result<Presentation, Fault> {
    let Some(certificate) = reader.certificate_by_serial(ca, facts.serial)? else {
        return Ok(refused(Reason::CertificateUnknown));
    };
    // Bound to the stored certificate, never to a serial or a subject alone.
    Ok(if certificate.fingerprint != facts.fingerprint {
        refused(Reason::CertificateUnknown)
    } else if certificate.revoked.is_some() || revoked_by_name(reader, ca, facts)? {
        refused(Reason::CertificateRevoked)
    } else {
        Presentation::Device(Box::new(certificate))
    })
}

fn judge_manufacturer(
    ca: CaId,
    facts: &LeafFacts,
    trust: &Trust,
    reader: &Reader,
    now: UnixTime,
) -> Result<Presentation, Fault> {
    if facts.not_after < now {
        return Ok(refused(Reason::CertificateExpired));
    }
    let Some(serial) = facts.subject_serial_number() else {
        return Ok(refused(Reason::ManufacturerSerialUnlisted));
    };
    if revoked_by_name(reader, ca, facts)? {
        return Ok(refused(Reason::CertificateRevoked));
    }
    if reader.foreign_ca(ca)?.closes_at().is_some_and(|at| at <= now) {
        return Ok(refused(Reason::CrlStale));
    }
    // Listed under its manufacturer: two of them may number their devices alike.
    let listed = manufacturer_serial(ca, serial);
    Ok(match reader.device_by_manufacturer_serial(trust.account, &listed)? {
        Some(device) => Presentation::Manufacturer { device: device.id, leaf: facts.fingerprint },
        None => refused(Reason::ManufacturerSerialUnlisted),
    })
}

/// Whether the CA's own list, or an operator, revoked a certificate that the ledger may not know.
///
/// A serial is looked up under the CA that the path leads to, which for a leaf of an unknown CA below it can at
/// worst refuse one more.
fn revoked_by_name(reader: &Reader, ca: CaId, facts: &LeafFacts) -> Result<bool, Fault> {
    let names = [ForeignName::Serial(facts.serial), ForeignName::Fingerprint(facts.fingerprint)];
    for name in names {
        if reader.foreign_revoked(ca, name)?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// How a device lists its serial number: bound to the manufacturer's CA.
pub fn manufacturer_serial(ca: CaId, serial: &str) -> String {
    format!("{ca}/{serial}")
}
