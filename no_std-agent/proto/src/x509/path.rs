//! From a leaf to a trusted CA (RFC 5280 §6.1), with bounded depth and bounded work.
//!
//! Names chain by raw bytes. An intermediate must be a CA, may sign certificates, allow the purpose if it
//! lists any, and have path length left. The search goes depth first over the candidates and gives up after
//! [`MAX_SIGNATURES`] checks, so a hostile bundle of cross-signed CAs costs a known number of verifications.
//! Of an anchor only name, key and its CA constraints are used, not its dates (RFC 5280 §6.1.1(d)).

use super::{Bundle, Certificate, CertificateError, ServerName, Verify, VerifyError};
use crate::der::Oid;
use crate::sha256;
use crate::time::{Millis, UnixTime, Validity};

/// Most intermediates between a leaf and its anchor. Ours have one; two more leave room for a rollover.
pub const MAX_INTERMEDIATES: usize = 3;

/// Most signature checks for one path: about 0.1 s each on a small Cortex-M without hardware help.
const MAX_SIGNATURES: u8 = 10;

/// How far a certificate may begin in the future. The clock may come from a Date with one-second resolution, and
/// the CA's own clock may lead; a device that refuses its new certificate for that would ask again at once.
const NOT_BEFORE_TOLERANCE: Millis = Millis::from_secs(60);

/// What is trusted without proof.
#[derive(Clone, Copy, Debug, Default)]
pub struct Anchors<'a> {
    /// Encoded CA certificates.
    pub certificates: &'a [&'a [u8]],
    /// SHA-256 of an encoded CA certificate: a certificate with it is an anchor wherever it comes from.
    pub fingerprint: Option<&'a [u8; 32]>,
}

impl Anchors<'_> {
    /// Whether `der` is the certificate with the trusted fingerprint.
    #[must_use]
    pub fn pins(&self, der: &[u8]) -> bool {
        self.fingerprint.is_some_and(|pinned| sha256(der) == *pinned)
    }
}

/// What is known of the present time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// It is not before this; nothing more is known. Expired certificates are refused as far as that shows.
    NotBefore(UnixTime),
    /// It is this.
    Known(UnixTime),
}

/// What the leaf is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// TLS client authentication: a device's own certificate.
    ClientAuth,
    /// TLS server authentication.
    ServerAuth,
}

/// Why there is no path from a leaf to an anchor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathError {
    /// Too many signatures would have to be checked.
    Budget,
    /// A certificate's time is over.
    Expired,
    /// extKeyUsage does not allow the purpose.
    ExtendedKeyUsage,
    /// keyUsage does not allow it.
    KeyUsage,
    /// The leaf is a CA.
    LeafIsAuthority,
    /// The leaf does not parse.
    Leaf(CertificateError),
    /// The issuer is not a CA.
    NotAuthority,
    /// A certificate's time has not come.
    NotYetValid,
    /// The issuer's path length is used up, or there are too many intermediates.
    PathLength,
    /// A signature does not verify.
    Signature(VerifyError),
    /// No issuer is known that leads to an anchor.
    UnknownIssuer,
}

/// A verified path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path<'a> {
    /// When all of its certificates are valid.
    pub validity: Validity,
    intermediates: [Option<&'a [u8]>; MAX_INTERMEDIATES],
}

impl<'a> Path<'a> {
    /// The encoded intermediates, the leaf's issuer first; without the anchor.
    pub fn intermediates(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.intermediates.into_iter().flatten()
    }
}

/// Finds a path from `leaf` over some of `candidates` to one of `anchors`.
///
/// # Errors
/// [`PathError`]: the reason at the candidate that came furthest; [`PathError::UnknownIssuer`] if none fitted.
pub fn check_path<'a, I>(
    leaf: &Certificate<'a>,
    candidates: I,
    anchors: &Anchors<'_>,
    purpose: Purpose,
    moment: Moment,
    verifier: &impl Verify,
) -> Result<Path<'a>, PathError>
where
    I: Iterator<Item = &'a [u8]> + Clone,
{
    // By number and not by type: the search is in an image once, wherever candidates come from.
    let candidates = |number| candidates.clone().nth(number);
    let candidates = &candidates;
    let search = Search { candidates, anchors, purpose, moment, verifier, signatures_left: MAX_SIGNATURES };
    search.from(leaf)
}

/// Checks a TLS server's certificate: its name, a path over some of `candidates` to one of `anchors`, serverAuth, and
/// dates as far as the time is known. Returns when all of the path is valid.
///
/// # Errors
/// [`ServerRefused`].
// Once in an image for each kind of candidates.
#[inline(never)]
pub fn check_server<'a, I>(
    name: &ServerName<'_>,
    leaf: &'a [u8],
    candidates: I,
    anchors: &Anchors<'_>,
    moment: Moment,
    verifier: &impl Verify,
) -> Result<Validity, ServerRefused>
where
    I: Iterator<Item = &'a [u8]> + Clone,
{
    let leaf = Certificate::parse(leaf).map_err(|error| ServerRefused::Path(PathError::Leaf(error)))?;
    if !name.matches(leaf.extensions.subject_alt_names()) {
        return Err(ServerRefused::Name);
    }
    check_path(&leaf, candidates, anchors, Purpose::ServerAuth, moment, verifier)
        .map(|path| path.validity)
        .map_err(ServerRefused::Path)
}

/// Why a TLS server is not the one that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerRefused {
    /// Its certificate is for another name.
    Name,
    /// Its certificate does not lead to the configured trust.
    Path(PathError),
}

struct Search<'a, 's> {
    candidates: &'s dyn Fn(usize) -> Option<&'a [u8]>,
    anchors: &'s Anchors<'s>,
    purpose: Purpose,
    moment: Moment,
    verifier: &'s dyn Verify,
    signatures_left: u8,
}

impl<'a> Search<'a, '_> {
    #[inline(never)]
    fn from(mut self, leaf: &Certificate<'a>) -> Result<Path<'a>, PathError> {
        check_leaf(leaf, self.purpose)?;
        check_dates(leaf, self.moment)?;
        let path = Path { validity: leaf.validity, intermediates: [None; MAX_INTERMEDIATES] };
        self.above(leaf, path, 0, 0)
    }

    /// Looks for the issuer of `subject`, which has `depth` intermediates up to and including itself, of which
    /// `counted` are not self-issued. Recursion ends at [`MAX_INTERMEDIATES`].
    fn above(
        &mut self,
        subject: &Certificate<'a>,
        path: Path<'a>,
        depth: usize,
        counted: u8,
    ) -> Result<Path<'a>, PathError> {
        let mut reason = PathError::UnknownIssuer;
        for &der in self.anchors.certificates {
            let Some(issuer) = named(der, subject.issuer) else { continue };
            match self.check_issuer(subject, &issuer, counted) {
                Ok(()) => return Ok(path),
                Err(PathError::Budget) => return Err(PathError::Budget),
                Err(error) => reason = error,
            }
        }
        for der in (0..).map_while(self.candidates) {
            if der == subject.der {
                continue;
            }
            let Some(issuer) = named(der, subject.issuer) else { continue };
            let tried = match self.check_issuer(subject, &issuer, counted) {
                Ok(()) if self.anchors.pins(der) => return Ok(path),
                Ok(()) => self.through(&issuer, path, depth, counted),
                Err(error) => Err(error),
            };
            match tried {
                Ok(path) => return Ok(path),
                Err(PathError::Budget) => return Err(PathError::Budget),
                // A candidate that fitted but led nowhere says less than one that broke a rule.
                Err(PathError::UnknownIssuer) => {}
                Err(error) => reason = error,
            }
        }
        Err(reason)
    }

    /// Goes on above `issuer`, which signed what the path has so far.
    fn through(
        &mut self,
        issuer: &Certificate<'a>,
        mut path: Path<'a>,
        depth: usize,
        counted: u8,
    ) -> Result<Path<'a>, PathError> {
        check_dates(issuer, self.moment)?;
        let place = path.intermediates.get_mut(depth).ok_or(PathError::PathLength)?;
        *place = Some(issuer.der);
        path.validity = path.validity.and(issuer.validity);
        self.above(issuer, path, depth + 1, counted + u8::from(!issuer.is_self_issued()))
    }

    /// Whether `issuer`, whose name fits, issued `subject`.
    fn check_issuer(
        &mut self,
        subject: &Certificate<'_>,
        issuer: &Certificate<'_>,
        counted: u8,
    ) -> Result<(), PathError> {
        let constraints = issuer.extensions.basic_constraints.filter(|found| found.authority);
        let constraints = constraints.ok_or(PathError::NotAuthority)?;
        if constraints.path_length.is_some_and(|most| counted > most) {
            return Err(PathError::PathLength);
        }
        if issuer.extensions.key_usage.is_some_and(|usage| !usage.key_cert_sign()) {
            return Err(PathError::KeyUsage);
        }
        if !issuer.extensions.allows_purpose(self.purpose.oid()) {
            return Err(PathError::ExtendedKeyUsage);
        }
        self.signatures_left = self.signatures_left.checked_sub(1).ok_or(PathError::Budget)?;
        subject.check_signature(&issuer.key, self.verifier).map_err(PathError::Signature)
    }
}

/// The certificate, if it parses and its subject is `name`.
fn named<'d>(der: &'d [u8], name: &[u8]) -> Option<Certificate<'d>> {
    Certificate::readable(der).filter(|certificate| certificate.subject == name)
}

impl Purpose {
    const fn oid(self) -> Oid<'static> {
        match self {
            Self::ClientAuth => Oid::CLIENT_AUTH,
            Self::ServerAuth => Oid::SERVER_AUTH,
        }
    }
}

fn check_leaf(leaf: &Certificate<'_>, purpose: Purpose) -> Result<(), PathError> {
    if leaf.extensions.basic_constraints.is_some_and(|found| found.authority) {
        return Err(PathError::LeafIsAuthority);
    }
    if leaf.extensions.key_usage.is_some_and(|usage| !usage.digital_signature()) {
        return Err(PathError::KeyUsage);
    }
    if !leaf.extensions.allows_purpose(purpose.oid()) {
        return Err(PathError::ExtendedKeyUsage);
    }
    Ok(())
}

fn check_dates(certificate: &Certificate<'_>, moment: Moment) -> Result<(), PathError> {
    let (earliest, latest) = match moment {
        Moment::NotBefore(floor) => (floor, None),
        Moment::Known(now) => (now, Some(now.after(NOT_BEFORE_TOLERANCE))),
    };
    if certificate.validity.not_after < earliest {
        return Err(PathError::Expired);
    }
    if latest.is_some_and(|latest| latest < certificate.validity.not_before) {
        return Err(PathError::NotYetValid);
    }
    Ok(())
}

impl<'a> Bundle<'a> {
    /// The certificate with the fingerprint that `anchors` trusts, if it is here.
    #[must_use]
    pub fn pinned_by(&self, anchors: &Anchors<'_>) -> Option<&'a [u8]> {
        self.iter().find(|der| anchors.pins(der))
    }
}
