//! What lists filter certificates by, in few octets beside the keys of the records.
//!
//! A long list is walked here: a record is a kilobyte, a mark 25 octets. Marks are sorted by age, so that
//! those of new certificates lie together and issuing does not pay with a page of its own for each.

use muster_policy::identity::{AccountId, CaId, CertificateId};
use muster_policy::time::UnixTime;

use crate::keys;
use crate::record::{Certificate, CertificateStatus};
use crate::tables::{Row, TableName, Tables};
use crate::transaction::Fault;

/// The part of a certificate that lists filter by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) ca: CaId,
    pub(crate) not_after: UnixTime,
    pub(crate) revoked: bool,
}

impl Mark {
    pub(crate) const fn of(certificate: &Certificate) -> Self {
        let Certificate { ca, not_after, revoked, .. } = certificate;
        Self { ca: *ca, not_after: *not_after, revoked: revoked.is_some() }
    }

    /// Reads what [`Mark::octets`] wrote.
    pub(crate) fn read(octets: &[u8]) -> Result<Self, Fault> {
        Self::parse(octets).ok_or_else(|| Fault::Corrupt {
            table: TableName::CertificateMarks.as_str(),
            what: "a row holds no mark".to_owned(),
        })
    }

    fn parse(octets: &[u8]) -> Option<Self> {
        let (revoked, rest) = octets.split_first()?;
        let (not_after, ca) = rest.split_first_chunk::<8>()?;
        Some(Self {
            ca: CaId::from_bytes(ca.try_into().ok()?),
            not_after: UnixTime::from_secs(i64::from_be_bytes(*not_after)),
            revoked: match revoked {
                0 => false,
                1 => true,
                _ => return None,
            },
        })
    }

    /// Whether it is revoked, its end, its CA.
    pub(crate) fn octets(&self) -> Vec<u8> {
        keys::join(&[&[u8::from(self.revoked)], &keys::time(self.not_after), self.ca.as_bytes()])
    }

    /// What the certificate is worth at `now`.
    pub(crate) fn status(&self, now: UnixTime) -> CertificateStatus {
        if self.revoked {
            CertificateStatus::Revoked
        } else if self.not_after < now {
            CertificateStatus::Expired
        } else {
            CertificateStatus::Active
        }
    }
}

/// Writes a certificate's mark, in its account and, of a client certificate, in its zone.
pub(crate) fn put(tables: &mut Tables<'_>, certificate: &Certificate) -> Result<(), Fault> {
    let octets = Mark::of(certificate).octets();
    let (account, id) = (certificate.account, certificate.id);
    tables.put_raw(TableName::CertificateMarks, &keys::certificate(account, id), &octets)?;
    if let Some(client) = &certificate.client {
        tables.put_raw(TableName::ZoneCertificates, &keys::zone_certificate(client.zone, id), &octets)?;
    }
    Ok(())
}

/// Removes what [`put`] wrote.
pub(crate) fn remove(tables: &mut Tables<'_>, certificate: &Certificate) -> Result<(), Fault> {
    let (account, id): (AccountId, CertificateId) = (certificate.account, certificate.id);
    tables.remove(TableName::CertificateMarks, &keys::certificate(account, id))?;
    if let Some(client) = &certificate.client {
        tables.remove(TableName::ZoneCertificates, &keys::zone_certificate(client.zone, id))?;
    }
    Ok(())
}

/// Writes the marks of all certificates that are stored.
pub(crate) fn build(tables: &mut Tables<'_>) -> Result<(), Fault> {
    let mut from = Vec::new();
    loop {
        let rows = tables.rows(TableName::Certificates, &from, None, STEP)?;
        for (_, value) in &rows {
            put(tables, &crate::codec::decode(TableName::Certificates, value)?)?;
        }
        let Some((last, _)): Option<Row> = rows.into_iter().next_back() else { return Ok(()) };
        from = last;
        from.push(0);
    }
}

/// Rows read at a time.
const STEP: usize = 1_000;
