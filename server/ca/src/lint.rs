//! What must hold of a certificate before it is signed: one function per rule, with its RFC section.
//!
//! The rules look at the bytes that will be signed, decoded by another crate than the one that
//! built them, so a fault in building or a grant that says too much is stopped here.

use der::asn1::ObjectIdentifier;
use der::{Decode, Encode};
use x509_cert::TbsCertificate;
use x509_cert::certificate::Version;
use x509_cert::ext::Extension;

use crate::certificate::unix_time;
use crate::subject_key::SubjectKey;
use crate::tbs::IssuerView;

mod extensions;
mod names;
#[cfg(test)]
mod tests;

/// Largest TBSCertificate: a certificate must fit into one TLS record with its CMS and base64
/// around it (16 KiB), which one client needs.
const TBS_MAX_BYTES: usize = 8 * 1024;

/// id-kp-serverAuth (RFC 5280 §4.2.1.12).
pub(crate) const SERVER_AUTH: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.1");
/// id-kp-clientAuth (RFC 5280 §4.2.1.12).
pub(crate) const CLIENT_AUTH: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.2");

/// anyExtendedKeyUsage (RFC 5280 §4.2.1.12).
pub(crate) const ANY_PURPOSE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.37.0");

/// What a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// A CA, limited to one purpose or not.
    Authority { purpose: Option<ObjectIdentifier> },
    /// A TLS client.
    Client,
    /// A TLS server.
    Server,
}

/// A rule that the certificate breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{rule} (RFC 5280 §{section})")]
pub struct Lint {
    /// What must hold.
    pub rule: &'static str,
    /// The section of RFC 5280 that gives the rule.
    pub section: &'static str,
}

/// What the rules look at.
struct Subject<'a> {
    tbs: &'a TbsCertificate,
    bytes: &'a [u8],
    role: Role,
    issuer: &'a IssuerView<'a>,
    key: &'a SubjectKey,
}

/// Applies every rule.
///
/// # Errors
/// The first rule that is broken.
pub(crate) fn check(bytes: &[u8], role: Role, issuer: &IssuerView<'_>, key: &SubjectKey) -> Result<(), Lint> {
    let tbs = TbsCertificate::from_der(bytes)
        .map_err(|_| Lint { rule: "a certificate is one DER structure", section: "4.1" })?;
    let subject = Subject { tbs: &tbs, bytes, role, issuer, key };
    RULES.iter().try_for_each(
        |(rule, section, holds)| {
            if holds(&subject) { Ok(()) } else { Err(Lint { rule, section }) }
        },
    )
}

/// What must hold, the section that says so, and whether it does.
type Rule = (&'static str, &'static str, fn(&Subject<'_>) -> bool);

const RULES: &[Rule] = &[
    ("a certificate fits into one TLS record", "4.1", is_small),
    ("the version is 3", "4.1.2.1", is_version_3),
    ("the serial is positive and has at most 20 octets", "4.1.2.2", has_good_serial),
    ("the inner signature algorithm is the signer's", "4.1.2.3", has_signers_algorithm),
    ("the issuer is the subject of the issuer's certificate", "4.1.2.4", has_issuers_name),
    ("the validity is ordered and inside the issuer's", "4.1.2.5", has_validity_inside_issuers),
    (
        "the subject is not empty, its texts are printable and of at most 64 characters",
        "4.1.2.6",
        names::has_good_subject,
    ),
    ("the key is the granted one, of a known and strong kind", "4.1.2.7", has_the_key),
    ("there are no unique identifiers", "4.1.2.8", has_no_unique_identifiers),
    ("no extension occurs twice", "4.2", extensions::are_unique),
    ("every extension is one we mean to issue", "4.2", extensions::are_all_known),
    ("the authority key identifier is the issuer's", "4.2.1.1", extensions::has_authority_key_id),
    ("the subject key identifier is the key's", "4.2.1.2", extensions::has_subject_key_id),
    ("keyUsage is critical and exactly what the role needs", "4.2.1.3", extensions::has_key_usage),
    ("a leaf has alternative names, all of them well-formed", "4.2.1.6", names::has_good_sans),
    ("basicConstraints is critical and says cA for a CA only", "4.2.1.9", extensions::has_basic_constraints),
    ("nameConstraints are critical and of a CA", "4.2.1.10", extensions::has_name_constraints_only_as_ca),
    ("extKeyUsage is exactly what the role needs", "4.2.1.12", extensions::has_extended_key_usage),
    ("the issuer may issue for this purpose", "4.2.1.12", extensions::is_allowed_by_issuer),
    ("the CRL is at an http URL", "4.2.1.13", extensions::has_http_crl),
];

fn is_small(subject: &Subject<'_>) -> bool {
    subject.bytes.len() <= TBS_MAX_BYTES
}

fn is_version_3(subject: &Subject<'_>) -> bool {
    subject.tbs.version() == Version::V3
}

fn has_good_serial(subject: &Subject<'_>) -> bool {
    let octets = subject.tbs.serial_number().as_bytes();
    let is_positive = octets.first().is_some_and(|first| first & 0x80 == 0);
    octets.len() <= 20 && is_positive && octets.iter().any(|octet| *octet != 0)
}

fn has_signers_algorithm(subject: &Subject<'_>) -> bool {
    subject.tbs.signature().to_der().is_ok_and(|der| der == subject.issuer.algorithm.identifier_der())
}

fn has_issuers_name(subject: &Subject<'_>) -> bool {
    let issuer = subject.tbs.issuer();
    match subject.issuer.name_der {
        Some(name) => issuer.to_der().is_ok_and(|der| der == name),
        None => issuer == subject.tbs.subject(),
    }
}

/// A CA may be older than its issuer: a rollover certificate speaks of a key that was there before.
fn has_validity_inside_issuers(subject: &Subject<'_>) -> bool {
    let validity = subject.tbs.validity();
    let (not_before, not_after) = (unix_time(&validity.not_before), unix_time(&validity.not_after));
    let starts_inside =
        matches!(subject.role, Role::Authority { .. }) || not_before >= subject.issuer.not_before;
    not_before < not_after && starts_inside && not_after <= subject.issuer.not_after
}

fn has_the_key(subject: &Subject<'_>) -> bool {
    let spki = subject.tbs.subject_public_key_info().to_der();
    spki.is_ok_and(|der| der == subject.key.spki_der()) && subject.key.is_strong()
}

fn has_no_unique_identifiers(subject: &Subject<'_>) -> bool {
    subject.tbs.issuer_unique_id().is_none() && subject.tbs.subject_unique_id().is_none()
}

impl Subject<'_> {
    fn extensions(&self) -> &[Extension] {
        self.tbs.extensions().map_or(&[], Vec::as_slice)
    }

    /// The one extension of this kind: whether it is critical, and its value.
    fn extension(&self, oid: ObjectIdentifier) -> Option<(bool, &[u8])> {
        self.extensions()
            .iter()
            .find(|extension| extension.extn_id == oid)
            .map(|extension| (extension.critical, extension.extn_value.as_bytes()))
    }

    const fn is_authority(&self) -> bool {
        matches!(self.role, Role::Authority { .. })
    }
}
