//! The checks between a certificate that a server sent and one that this device will use.
//!
//! The key must be the one that was asked for, the names must be ours, the chain must end at a trusted CA, and
//! the dates must hold as far as time is known. Only then is there an [`Issued`] value, and only that is stored.

use super::Identity;
use crate::csr::P256Point;
use crate::der::Oid;
use crate::x509::{
    Anchors, Bundle, Certificate, GeneralName, Moment, Path, PathError, Purpose, Verify, check_path,
};

/// Why a certificate is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IssueError {
    /// Its commonName is not the device id, or there are several.
    CommonName,
    /// No certificate in the answer is for our key.
    ForeignKey,
    /// There is no path to a trusted CA.
    Path(PathError),
    /// It lacks the URI that this identity has.
    Uri,
}

/// What a new certificate must be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expected<'e> {
    pub(super) key: &'e P256Point,
    pub(super) identity: &'e Identity<'e>,
    /// The certificate that it will replace.
    pub(super) current: Option<Certificate<'e>>,
}

/// A certificate that passed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Issued<'m> {
    pub(super) leaf: Certificate<'m>,
    pub(super) path: Path<'m>,
}

/// Finds our certificate among those of an answer and checks it.
pub(super) fn check<'m>(
    answer: Bundle<'m>,
    authorities: Bundle<'m>,
    expected: &Expected<'_>,
    anchors: &Anchors<'_>,
    moment: Moment,
    verifier: &impl Verify,
) -> Result<Issued<'m>, IssueError> {
    let leaf = answer
        .iter()
        .filter_map(Certificate::readable)
        .find(|certificate| is_for_key(certificate, expected.key))
        .ok_or(IssueError::ForeignKey)?;
    check_names(&leaf, expected)?;
    let candidates = answer.iter().chain(authorities.iter());
    let path = check_path(&leaf, candidates, anchors, Purpose::ClientAuth, moment, verifier)
        .map_err(IssueError::Path)?;
    Ok(Issued { leaf, path })
}

pub(super) fn is_for_key(certificate: &Certificate<'_>, key: &P256Point) -> bool {
    let public = &certificate.key;
    public.algorithm == Oid::EC_PUBLIC_KEY
        && public.curve == Some(Oid::SECP256R1)
        && public.bits == key.as_bytes()
}

fn check_names(leaf: &Certificate<'_>, expected: &Expected<'_>) -> Result<(), IssueError> {
    if leaf.common_name() != Some(expected.identity.device()) {
        return Err(IssueError::CommonName);
    }
    let wanted = expected.identity.uri().or_else(|| expected.current.as_ref().and_then(first_uri));
    let has = |uri: &str| leaf.extensions.subject_alt_names().any(|name| name == GeneralName::Uri(uri));
    if wanted.is_none_or(has) { Ok(()) } else { Err(IssueError::Uri) }
}

fn first_uri<'a>(certificate: &Certificate<'a>) -> Option<&'a str> {
    certificate.extensions.subject_alt_names().find_map(|name| match name {
        GeneralName::Uri(uri) => Some(uri),
        _ => None,
    })
}
