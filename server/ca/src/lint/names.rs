//! Rules about names (RFC 5280 §4.1.2.6, §4.2.1.6).

use der::Decode;
use muster_policy::enrol::{SAN_MAX, San};
use muster_policy::host::HostPattern;
use muster_policy::name::Hostname;
use x509_cert::ext::pkix::SubjectAltName;

use super::extensions::SUBJECT_ALT_NAME;
use super::{Role, Subject};
use crate::names;

/// ub-common-name and ub-organization-name (RFC 5280 appendix A.1).
const TEXT_MAX_CHARS: usize = 64;
/// Longest URI: a SPIFFE id of the longest trust domain and the longest device id (SPIFFE-ID §2.3: 2048).
const URI_MAX_BYTES: usize = 512;

/// §4.1.2.6: a CA's subject is never empty, and ours never is.
pub(super) fn has_good_subject(subject: &Subject<'_>) -> bool {
    names::subject_attributes(subject.tbs.subject()).is_ok_and(|attributes| {
        !attributes.is_empty()
            && attributes.iter().all(|attribute| {
                let text = &attribute.text;
                !text.is_empty()
                    && text.chars().count() <= TEXT_MAX_CHARS
                    && !text.chars().any(char::is_control)
            })
    })
}

/// §4.2.1.6: not critical, as there is a subject; at least one name for a leaf, none for a CA.
pub(super) fn has_good_sans(subject: &Subject<'_>) -> bool {
    match subject.extension(SUBJECT_ALT_NAME) {
        None => subject.is_authority(),
        Some((critical, value)) => {
            !critical
                && !subject.is_authority()
                && SubjectAltName::from_der(value)
                    .is_ok_and(|names| names::sans(&names.0).is_ok_and(|sans| are_good(&sans, subject.role)))
        }
    }
}

fn are_good(sans: &[San], role: Role) -> bool {
    (1..=SAN_MAX).contains(&sans.len()) && sans.iter().all(|san| is_good(san, role))
}

fn is_good(san: &San, role: Role) -> bool {
    match san {
        // "preferred name syntax"; a device id as a DNS name may hold what a hostname may not.
        // §4.2.1.6 leaves wildcards to applications: servers may have one label (RFC 9525 §6.3).
        San::Dns(name) if name.starts_with("*.") => {
            role == Role::Server
                && name.parse::<HostPattern>().is_ok_and(|checked| checked.to_string() == *name)
        }
        San::Dns(name) => {
            !name.is_empty() && name.parse::<Hostname>().is_ok_and(|checked| checked.as_str() == name)
                || muster_policy::name::DeviceId::try_from(name.clone()).is_ok()
        }
        // "MUST NOT be a relative URI", and it "MUST include both a scheme and a scheme-specific-part".
        San::Uri(uri) => {
            uri.len() <= URI_MAX_BYTES
                && uri.chars().all(|c| c.is_ascii_graphic())
                && uri.split_once(':').is_some_and(|(scheme, rest)| {
                    scheme.starts_with(|c: char| c.is_ascii_alphabetic()) && !rest.is_empty()
                })
        }
        San::Ip(_) => true,
        San::Email(_) | San::Other(_) => false,
    }
}
