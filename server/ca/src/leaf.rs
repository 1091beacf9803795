//! A device's certificate: `Grant` -> [`Prepared`] -> [`Issued`].
//!
//! What is granted is put into a TBSCertificate and linted; then the intent to sign it can be
//! stored; then it is signed, once, as signing takes the [`Prepared`] away. Contents are fixed
//! (RFC 7030 §4.2.3, RFC 5280 §4.2): CN = device id, the granted names, keyUsage exactly
//! digitalSignature, for RSA keys with keyEncipherment, extKeyUsage exactly clientAuth,
//! basicConstraints critical without cA.

use core::net::IpAddr;
use core::str::FromStr;
use std::sync::Arc;

use muster_policy::enrol::{Grant, San};
use muster_policy::identity::{Fingerprint, Serial};
use muster_policy::key::WishedKey;
use muster_policy::time::UnixTime;
use rcgen::{
    CertificateParams, CrlDistributionPoint, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyUsagePurpose, SanType, SerialNumber,
};

use crate::certificate;
use crate::issuer::Issuer;
use crate::lint::{self, Lint, Role};
use crate::signer::{SignError, Signer};
use crate::subject_key::SubjectKey;
use crate::tbs::{self, BuildError, Draft};

/// Why no certificate can be prepared; each is a fault of ours, not of the requester.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrepareError {
    /// It could not be built.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The grant is for another key.
    #[error("the grant is for another key")]
    KeyMismatch,
    /// It breaks a rule.
    #[error("the certificate breaks a rule: {0}")]
    Lint(Lint),
    /// It grants a name that no certificate can carry; the text says which.
    #[error("the granted name can't be written into a certificate: {0}")]
    Name(String),
}

/// A certificate that lacks nothing but its signature.
///
/// Signing takes it away: what was prepared once is signed at most once.
pub struct Prepared {
    tbs: Vec<u8>,
    serial: Serial,
    not_before: UnixTime,
    not_after: UnixTime,
    signer: Arc<dyn Signer>,
}

/// An issued certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// The DER certificate.
    pub der: Vec<u8>,
    /// Its serial.
    pub serial: Serial,
    /// SHA-256 of the DER.
    pub fingerprint: Fingerprint,
    /// Start of its validity.
    pub not_before: UnixTime,
    /// End of its validity.
    pub not_after: UnixTime,
}

impl Issuer {
    /// Builds and lints a device's certificate. Nothing is signed yet.
    ///
    /// `crl_url` is put in only when the grant names the CRL. A notBefore that lies before the
    /// issuer's is moved to the issuer's.
    ///
    /// # Errors
    /// When the key is not the granted one, or the certificate would break a rule.
    pub fn prepare(
        &self,
        grant: &Grant,
        key: &SubjectKey,
        serial: Serial,
        crl_url: Option<&str>,
    ) -> Result<Prepared, PrepareError> {
        if grant.key_fingerprint() != key.fingerprint() {
            return Err(PrepareError::KeyMismatch);
        }
        let contents = LeafContents {
            common_name: Some(grant.device().as_str()),
            sans: grant.sans(),
            not_before: grant.not_before(),
            not_after: grant.not_after(),
            crl_url: crl_url.filter(|_| grant.names_crl()),
            role: Role::Client,
        };
        self.prepare_leaf(&contents, key, serial)
    }

    pub(crate) fn prepare_leaf(
        &self,
        contents: &LeafContents<'_>,
        key: &SubjectKey,
        serial: Serial,
    ) -> Result<Prepared, PrepareError> {
        let view = self.view();
        let not_before = contents.not_before.max(view.not_before);
        let draft = Draft {
            params: contents.params(key, serial, not_before)?,
            subject_der: None,
            subject_key: key,
            issuer: view,
        };
        let tbs = draft.build()?;
        lint::check(&tbs, contents.role, &view, key).map_err(PrepareError::Lint)?;
        let signer = Arc::clone(self.signer());
        Ok(Prepared { tbs, serial, not_before, not_after: contents.not_after, signer })
    }
}

/// What a leaf says, apart from its key, serial and issuer.
pub(crate) struct LeafContents<'a> {
    pub(crate) common_name: Option<&'a str>,
    pub(crate) sans: &'a [San],
    pub(crate) not_before: UnixTime,
    pub(crate) not_after: UnixTime,
    pub(crate) crl_url: Option<&'a str>,
    pub(crate) role: Role,
}

impl LeafContents<'_> {
    fn params(
        &self,
        key: &SubjectKey,
        serial: Serial,
        not_before: UnixTime,
    ) -> Result<CertificateParams, PrepareError> {
        let mut params = CertificateParams::default();
        params.serial_number = Some(SerialNumber::from_slice(serial.as_bytes()));
        params.not_before = not_before.to_offset_date_time();
        params.not_after = self.not_after.to_offset_date_time();
        params.distinguished_name = DistinguishedName::new();
        if let Some(name) = self.common_name {
            params.distinguished_name.push(DnType::CommonName, name);
        }
        params.subject_alt_names = self.sans.iter().map(san_type).collect::<Result<_, _>>()?;
        // RFC 5280 §4.2.1.9 leaves it open for leaves; saying "no CA" costs 14 octets, and some
        // verifiers take a missing extension for a yes.
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        // RFC 3279 §2.3.1 allows it, and clients of the API that is followed here find it in theirs.
        if matches!(key.wished(), WishedKey::Rsa { .. }) {
            params.key_usages.push(KeyUsagePurpose::KeyEncipherment);
        }
        params.extended_key_usages = vec![match self.role {
            Role::Server => ExtendedKeyUsagePurpose::ServerAuth,
            Role::Client | Role::Authority { .. } => ExtendedKeyUsagePurpose::ClientAuth,
        }];
        params.crl_distribution_points =
            self.crl_url.map(|url| CrlDistributionPoint { uris: vec![url.to_owned()] }).into_iter().collect();
        Ok(params)
    }
}

fn san_type(san: &San) -> Result<SanType, PrepareError> {
    let wrong = || PrepareError::Name(san.text().to_owned());
    Ok(match san {
        San::Dns(name) => SanType::DnsName(name.as_str().try_into().map_err(|_| wrong())?),
        San::Uri(uri) => SanType::URI(uri.as_str().try_into().map_err(|_| wrong())?),
        San::Ip(address) => SanType::IpAddress(IpAddr::from_str(address).map_err(|_| wrong())?),
        San::Email(_) | San::Other(_) => return Err(wrong()),
    })
}

impl Prepared {
    /// Its serial.
    pub const fn serial(&self) -> Serial {
        self.serial
    }

    /// What will be signed (RFC 5280 §4.1.2): the intent to record before signing.
    pub fn tbs_der(&self) -> &[u8] {
        &self.tbs
    }

    /// Start of its validity, which may be later than granted.
    pub const fn not_before(&self) -> UnixTime {
        self.not_before
    }

    /// End of its validity.
    pub const fn not_after(&self) -> UnixTime {
        self.not_after
    }

    /// Signs it.
    ///
    /// # Errors
    /// When the CA key fails. The prepared certificate is gone; another attempt takes a new serial.
    pub fn sign(self) -> Result<Issued, SignError> {
        let der = tbs::sign(&self.tbs, &*self.signer)?;
        let fingerprint = certificate::fingerprint(&der);
        Ok(Issued {
            der,
            serial: self.serial,
            fingerprint,
            not_before: self.not_before,
            not_after: self.not_after,
        })
    }
}

impl core::fmt::Debug for Prepared {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Prepared").field("serial", &self.serial).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
