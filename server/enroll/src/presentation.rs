//! What the client certificate of a connection is worth.
//!
//! A certificate that is in the ledger octet for octet, under a CA that is trusted still, is one that we signed: no
//! signature says more. Any other needs a path to a CA that may authenticate here. That costs signatures and cannot
//! change while the trusted CAs stay the same, so a connection keeps it. The ledger's word, dates, revocation and the
//! device's listing can change at any moment and are looked up for each request.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use muster_ca::certificate::{LeafFacts, names_of};
use muster_ca::chain::{ClientChain, verify_client_chain};
use muster_policy::identity::{CaId, Fingerprint, Serial};
use muster_policy::name::DeviceId;
use muster_policy::reason::{Reason, Refusal};
use muster_policy::time::UnixTime;
use muster_store::record::{Certificate, ForeignName};
use muster_store::{Fault, Reader};
use rustls::pki_types::CertificateDer;

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

/// Where a certificate that the ledger does not know chains to.
enum Path {
    /// With all that it can be revoked by: its own names and those of the CAs it was shown with.
    Manufacturer {
        ca: CaId,
        names: Vec<ForeignName>,
    },
    Nowhere(Reason),
}

/// What one connection's certificate says, read once, and its path, found once per generation of trusted CAs.
#[derive(Default)]
pub(crate) struct PathCache {
    facts: OnceLock<Option<LeafFacts>>,
    path: Mutex<Option<(u64, Arc<Path>)>>,
}

impl PathCache {
    fn facts(&self, leaf: &[u8]) -> Option<&LeafFacts> {
        self.facts.get_or_init(|| LeafFacts::parse(leaf).ok()).as_ref()
    }

    fn path(&self, shown: &Shown<'_>, trust: &Trust, now: UnixTime) -> Arc<Path> {
        let mut cached = self.path.lock().unwrap_or_else(PoisonError::into_inner);
        match &*cached {
            Some((generation, path)) if *generation == trust.generation => Arc::clone(path),
            _ => {
                let path = Arc::new(find_path(shown, trust, now));
                *cached = Some((trust.generation, Arc::clone(&path)));
                path
            }
        }
    }
}

/// A certificate with the chain it came with.
struct Shown<'a> {
    leaf: &'a CertificateDer<'a>,
    intermediates: &'a [CertificateDer<'a>],
    facts: &'a LeafFacts,
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
    let Some((leaf, intermediates)) = peer.certificates.split_first() else {
        return Ok(Presentation::Nothing);
    };
    let Some(facts) = cache.facts(leaf) else { return Ok(refused(Reason::CertificateUntrusted)) };
    let shown = Shown { leaf, intermediates, facts };
    if let Some(certificate) = issued_here(&shown, trust, reader, now)? {
        return judge_device(certificate, reader);
    }
    match &*cache.path(&shown, trust, now) {
        Path::Nowhere(reason) => Ok(refused(*reason)),
        Path::Manufacturer { ca, names } => judge_manufacturer(*ca, facts, names, trust, reader, now),
    }
}

fn refused(reason: Reason) -> Presentation {
    Presentation::Refused(Refusal::new(reason, FIELD_CERTIFICATE))
}

/// The ledger's certificate with these octets, of a CA that is trusted still. It may have ended.
///
/// One of the future is left to the path: a clock that was set back trusts nothing.
fn issued_here(
    shown: &Shown<'_>,
    trust: &Trust,
    reader: &Reader,
    now: UnixTime,
) -> Result<Option<Certificate>, Fault> {
    if now < shown.facts.not_before {
        return Ok(None);
    }
    for ca in trust.devices.iter().filter(|ca| ca.subject_der == shown.facts.issuer_der) {
        let stored = reader.certificate_by_serial(ca.id, shown.facts.serial)?;
        if let Some(certificate) = stored.filter(|stored| stored.der.as_slice() == shown.leaf.as_ref()) {
            return Ok(Some(certificate));
        }
    }
    Ok(None)
}

fn find_path(shown: &Shown<'_>, trust: &Trust, now: UnixTime) -> Path {
    let mut refusal = Reason::CertificateUntrusted;
    // An early one has no path: it was not checked, and a forged one must not become good while its connection waits.
    let mut leads_to =
        |ca: &TrustedCa| match verify_client_chain(shown.leaf, shown.intermediates, &ca.anchor, now) {
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
    let issued_by = |ca: &&TrustedCa| ca.subject_der == shown.facts.issuer_der;
    if trust.devices.iter().filter(issued_by).any(&mut leads_to) {
        return Path::Nowhere(Reason::CertificateUnknown);
    }
    if let Some(ca) = trust.manufacturers.iter().find(|ca| leads_to(ca)) {
        let chain = core::iter::once(shown.leaf).chain(shown.intermediates);
        let names: Result<Vec<_>, _> = chain.map(|der| names_of(der)).collect();
        let Ok(names) = names else { return Path::Nowhere(Reason::CertificateUntrusted) };
        let names = names.into_iter().flat_map(foreign_names).collect();
        return Path::Manufacturer { ca: ca.id, names };
    }
    Path::Nowhere(refusal)
}

fn judge_device(certificate: Certificate, reader: &Reader) -> Result<Presentation, Fault> {
    let names = foreign_names((certificate.serial, certificate.fingerprint));
    Ok(if certificate.revoked.is_some() || revoked_by_name(reader, certificate.ca, &names)? {
        refused(Reason::CertificateRevoked)
    } else {
        Presentation::Device(Box::new(certificate))
    })
}

fn judge_manufacturer(
    ca: CaId,
    facts: &LeafFacts,
    names: &[ForeignName],
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
    if revoked_by_name(reader, ca, names)? {
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

fn foreign_names((serial, fingerprint): (Serial, Fingerprint)) -> [ForeignName; 2] {
    [ForeignName::Serial(serial), ForeignName::Fingerprint(fingerprint)]
}

/// Whether the CA's own list, or an operator, revoked a certificate that the ledger may not know.
///
/// Serials are looked up under the CA that the path leads to, which for what unknown CAs below it issued can at
/// worst refuse one more.
fn revoked_by_name(reader: &Reader, ca: CaId, names: &[ForeignName]) -> Result<bool, Fault> {
    for name in names {
        if reader.foreign_revoked(ca, *name)?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// How a device lists its serial number: bound to the manufacturer's CA.
pub fn manufacturer_serial(ca: CaId, serial: &str) -> String {
    format!("{ca}/{serial}")
}
