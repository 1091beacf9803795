//! Rules about extensions (RFC 5280 §4.2).

use der::Decode;
use der::asn1::ObjectIdentifier;
use muster_policy::key::WishedKey;
use x509_cert::ext::pkix::name::{DistributionPointName, GeneralName};
use x509_cert::ext::pkix::{
    AuthorityKeyIdentifier, BasicConstraints, CrlDistributionPoints, ExtendedKeyUsage, KeyUsage, KeyUsages,
    SubjectKeyIdentifier,
};

use super::{CLIENT_AUTH, Role, SERVER_AUTH, Subject};

const SUBJECT_KEY_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.14");
const KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.15");
pub(super) const SUBJECT_ALT_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.17");
const BASIC_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.19");
const NAME_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.30");
const CRL_DISTRIBUTION_POINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.31");
const AUTHORITY_KEY_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.35");
const EXTENDED_KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.37");

const KNOWN: [ObjectIdentifier; 8] = [
    SUBJECT_KEY_ID,
    KEY_USAGE,
    SUBJECT_ALT_NAME,
    BASIC_CONSTRAINTS,
    NAME_CONSTRAINTS,
    CRL_DISTRIBUTION_POINTS,
    AUTHORITY_KEY_ID,
    EXTENDED_KEY_USAGE,
];

/// §4.2: "A certificate MUST NOT include more than one instance of a particular extension."
pub(super) fn are_unique(subject: &Subject<'_>) -> bool {
    let extensions = subject.extensions();
    extensions.iter().enumerate().all(|(place, extension)| {
        !extensions.iter().take(place).any(|earlier| earlier.extn_id == extension.extn_id)
    })
}

pub(super) fn are_all_known(subject: &Subject<'_>) -> bool {
    subject.extensions().iter().all(|extension| KNOWN.contains(&extension.extn_id))
}

/// §4.2.1.1: not critical, and the identifier of the key that signs.
pub(super) fn has_authority_key_id(subject: &Subject<'_>) -> bool {
    matches!(subject.extension(AUTHORITY_KEY_ID), Some((false, value))
        if AuthorityKeyIdentifier::from_der(value)
            .is_ok_and(|id| id.key_identifier.is_some_and(|id| id.as_bytes() == subject.issuer.key_id)))
}

/// §4.2.1.2: not critical; we put it in every certificate.
pub(super) fn has_subject_key_id(subject: &Subject<'_>) -> bool {
    matches!(subject.extension(SUBJECT_KEY_ID), Some((false, value))
        if SubjectKeyIdentifier::from_der(value).is_ok_and(|id| id.0.as_bytes() == subject.key.key_id()))
}

/// §4.2.1.3: exactly keyCertSign and cRLSign for CAs, exactly digitalSignature for leaves, and keyEncipherment for
/// those with an RSA key.
pub(super) fn has_key_usage(subject: &Subject<'_>) -> bool {
    let wanted = match subject.key.wished() {
        _ if subject.is_authority() => KeyUsages::KeyCertSign | KeyUsages::CRLSign,
        WishedKey::Rsa { .. } => KeyUsages::DigitalSignature | KeyUsages::KeyEncipherment,
        WishedKey::Curve(_) | WishedKey::Unknown => KeyUsages::DigitalSignature.into(),
    };
    matches!(subject.extension(KEY_USAGE), Some((true, value))
        if KeyUsage::from_der(value).is_ok_and(|usage| usage.0 == wanted))
}

/// §4.2.1.9: critical in a CA; leaves of ours say that they are none, for verifiers that would
/// take a missing extension for a yes.
pub(super) fn has_basic_constraints(subject: &Subject<'_>) -> bool {
    let Some((true, value)) = subject.extension(BASIC_CONSTRAINTS) else { return false };
    BasicConstraints::from_der(value).is_ok_and(|constraints| {
        constraints.ca == subject.is_authority()
            && (constraints.ca || constraints.path_len_constraint.is_none())
    })
}

/// §4.2.1.10: "MUST be used only in a CA certificate"; "Conforming CAs MUST mark this extension as critical".
pub(super) fn has_name_constraints_only_as_ca(subject: &Subject<'_>) -> bool {
    subject.extension(NAME_CONSTRAINTS).is_none_or(|(critical, _)| critical && subject.is_authority())
}

fn purpose(role: Role) -> Option<ObjectIdentifier> {
    match role {
        Role::Authority { purpose } => purpose,
        Role::Client => Some(CLIENT_AUTH),
        Role::Server => Some(SERVER_AUTH),
    }
}

/// §4.2.1.12: one purpose for a leaf; a CA carries the one it is limited to.
pub(super) fn has_extended_key_usage(subject: &Subject<'_>) -> bool {
    match (purpose(subject.role), subject.extension(EXTENDED_KEY_USAGE)) {
        (None, None) => true,
        (Some(wanted), Some((false, value))) => {
            ExtendedKeyUsage::from_der(value).is_ok_and(|usage| usage.0 == [wanted])
        }
        _ => false,
    }
}

/// Verifiers read an issuer's extKeyUsage as a limit on what it issues (RFC 5280 leaves it open).
pub(super) fn is_allowed_by_issuer(subject: &Subject<'_>) -> bool {
    match (subject.issuer.purposes, purpose(subject.role)) {
        (None, _) => true,
        (Some(allowed), Some(wanted)) => allowed.contains(&wanted),
        (Some(_), None) => false,
    }
}

/// §4.2.1.13: not critical. https would need a certificate to check a certificate.
pub(super) fn has_http_crl(subject: &Subject<'_>) -> bool {
    let Some((critical, value)) = subject.extension(CRL_DISTRIBUTION_POINTS) else { return true };
    let is_http = |name: &GeneralName| matches!(name, GeneralName::UniformResourceIdentifier(uri) if uri.as_str().starts_with("http://"));
    !critical
        && CrlDistributionPoints::from_der(value).is_ok_and(|points| {
            points.0.iter().all(|point| {
                matches!(&point.distribution_point, Some(DistributionPointName::FullName(names))
                    if !names.is_empty() && names.iter().all(is_http))
            })
        })
}
