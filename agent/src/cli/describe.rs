//! A certificate as people and scripts read it.

use aws_lc_rs::digest::{SHA256, digest};
use muster_proto::time::UnixTime;
use muster_proto::x509::Certificate;
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// What is told of a certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Described {
    pub(super) device: String,
    /// Hexadecimal.
    pub(super) serial: String,
    /// SHA-256 of the certificate, hexadecimal.
    pub(super) fingerprint: String,
    /// Common name of the issuing CA.
    pub(super) issuer: String,
    pub(super) not_before: String,
    pub(super) expires_at: String,
}

impl Described {
    /// Describes a certificate in DER; `None` when it is none.
    pub(super) fn new(der: &[u8]) -> Option<Self> {
        let certificate = Certificate::parse(der).ok()?;
        // A positive number with its highest bit set has a zero before it.
        let serial = certificate.serial.strip_prefix(&[0]).unwrap_or(certificate.serial);
        Some(Self {
            device: certificate.common_name().unwrap_or_default().to_owned(),
            serial: hexadecimal(serial),
            fingerprint: hexadecimal(digest(&SHA256, der).as_ref()),
            issuer: certificate.issuer_common_name().unwrap_or_default().to_owned(),
            not_before: date(certificate.validity.not_before),
            expires_at: date(certificate.validity.not_after),
        })
    }
}

/// A time as RFC 3339 writes it.
pub(super) fn date(time: UnixTime) -> String {
    i64::try_from(time.as_secs())
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_else(|| "beyond the year 9999".to_owned())
}

fn hexadecimal(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}
