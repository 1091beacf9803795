//! Certificate revocation lists (RFC 5280 §5): one full list per issuing CA, version 2.
//!
//! Entries are written one after the other into one buffer, so a list of a million costs a few
//! times its own size, and time in proportion.

use core::time::Duration;

use der::Encode;
use der::asn1::{GeneralizedTime, ObjectIdentifier, UtcTime};
use muster_policy::identity::Serial;
use muster_policy::revocation::RevocationReason;
use muster_policy::time::UnixTime;

use crate::issuer::Issuer;
use crate::signer::SignError;
use crate::tbs;
use crate::tlv;

/// RFC 5280 §5.2.1.
const AUTHORITY_KEY_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.35");
/// RFC 5280 §5.2.3.
const CRL_NUMBER: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.20");
/// RFC 5280 §5.3.1.
const REASON_CODE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.21");
/// 2050-01-01T00:00:00Z: from here on times are GeneralizedTime (RFC 5280 §5.1.2.4).
const YEAR_2050: UnixTime = UnixTime::from_secs(2_524_608_000);
/// A typical entry: 20 octets of serial, a time and a reason.
const ENTRY_BYTES: usize = 53;

/// One revoked certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Revoked {
    /// Its serial.
    pub serial: Serial,
    /// When it was revoked.
    pub revoked_at: UnixTime,
    /// Why.
    pub reason: RevocationReason,
}

/// Number and lifetime of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CrlSettings {
    /// Its number: greater than that of every list before it (RFC 5280 §5.2.3).
    pub number: u64,
    /// When it was made.
    pub this_update: UnixTime,
    /// When there will be another at the latest.
    pub next_update: UnixTime,
}

/// Why there is no list.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CrlError {
    /// The CA's keyUsage does not allow it.
    #[error("the CA's keyUsage does not allow signing CRLs")]
    NotForCrls,
    /// It would end before it begins.
    #[error("the next update of a CRL comes after this one")]
    Order,
    /// The key could not sign.
    #[error(transparent)]
    Sign(#[from] SignError),
}

impl Issuer {
    /// Makes and signs the DER list of these certificates, which must all be issued by this CA.
    ///
    /// # Errors
    /// When the CA may not sign lists, the times are out of order, or the key fails.
    pub fn sign_crl(
        &self,
        settings: &CrlSettings,
        revoked: impl IntoIterator<Item = Revoked>,
    ) -> Result<Vec<u8>, CrlError> {
        if !self.certificate().signs_crls() {
            return Err(CrlError::NotForCrls);
        }
        if settings.next_update <= settings.this_update {
            return Err(CrlError::Order);
        }
        let tbs = self.crl_to_be_signed(settings, revoked.into_iter());
        Ok(tbs::sign(&tbs, &**self.signer())?)
    }

    /// TBSCertList (RFC 5280 §5.1.2).
    fn crl_to_be_signed(&self, settings: &CrlSettings, revoked: impl Iterator<Item = Revoked>) -> Vec<u8> {
        let mut entries = Vec::with_capacity(revoked.size_hint().0.saturating_mul(ENTRY_BYTES));
        revoked.for_each(|one| entries.extend_from_slice(&entry(&one)));
        // §5.1.2.6: "When there are no revoked certificates, the list MUST be absent."
        let entries = match entries.as_slice() {
            [] => Vec::new(),
            some => tlv::element(tlv::SEQUENCE, &[some]),
        };
        // §5.1.2.1: version 2 is written as 1.
        let version = tlv::element(tlv::INTEGER, &[&[1]]);
        let extensions = tlv::element(tlv::CONTEXT_0, &[&self.crl_extensions(settings.number)]);
        tlv::element(
            tlv::SEQUENCE,
            &[
                &version,
                &self.signer().algorithm().identifier_der(),
                self.certificate().subject_der(),
                &time(settings.this_update),
                &time(settings.next_update),
                &entries,
                &extensions,
            ],
        )
    }

    fn crl_extensions(&self, number: u64) -> Vec<u8> {
        let key_id = tlv::element(tlv::CONTEXT_0_PRIMITIVE, &[self.certificate().key_id()]);
        let authority = extension(&AUTHORITY_KEY_ID, &tlv::element(tlv::SEQUENCE, &[&key_id]));
        let number = extension(&CRL_NUMBER, &tlv::unsigned(&number.to_be_bytes()));
        tlv::element(tlv::SEQUENCE, &[&authority, &number])
    }
}

fn entry(revoked: &Revoked) -> Vec<u8> {
    let serial = tlv::unsigned(revoked.serial.as_bytes());
    let at = time(revoked.revoked_at);
    // §5.3.1: "the reason code CRL entry extension SHOULD be absent instead of using unspecified (0)".
    if revoked.reason == RevocationReason::Unspecified {
        return tlv::element(tlv::SEQUENCE, &[&serial, &at]);
    }
    let reason = tlv::element(tlv::ENUMERATED, &[&[revoked.reason.code()]]);
    let extensions = tlv::element(tlv::SEQUENCE, &[&extension(&REASON_CODE, &reason)]);
    tlv::element(tlv::SEQUENCE, &[&serial, &at, &extensions])
}

/// An extension that is not critical.
fn extension(kind: &ObjectIdentifier, value: &[u8]) -> Vec<u8> {
    tlv::element(tlv::SEQUENCE, &[&tlv::oid(kind), &tlv::element(tlv::OCTET_STRING, &[value])])
}

/// §5.1.2.4: UTCTime through the year 2049, GeneralizedTime from then on.
fn time(at: UnixTime) -> Vec<u8> {
    let span = Duration::from_secs(u64::try_from(at.as_secs()).unwrap_or(0));
    let der = if at < YEAR_2050 {
        UtcTime::from_unix_duration(span).and_then(|time| time.to_der())
    } else {
        GeneralizedTime::from_unix_duration(span).and_then(|time| time.to_der())
    };
    // `UnixTime` lies in the years 1970 to 9999, and each of the two can write its part of them.
    der.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{self, serial};

    const SETTINGS: CrlSettings =
        CrlSettings { number: 300, this_update: fixtures::NOW, next_update: UnixTime::MAX };

    #[test]
    fn an_empty_list_has_no_list_of_entries() {
        let crl = fixtures::devices().sign_crl(&SETTINGS, []).expect("signs");
        let tbs = tlv::split(&crl).expect("a list")[0].to_vec();
        assert_eq!(tlv::split(&tbs).expect("members").len(), 6);
    }

    #[test]
    fn the_reason_is_left_out_when_there_is_none() {
        let revoked = |reason| Revoked { serial: serial(1), revoked_at: fixtures::NOW, reason };
        assert_eq!(tlv::split(&entry(&revoked(RevocationReason::Unspecified))).expect("members").len(), 2);
        let with = entry(&revoked(RevocationReason::KeyCompromise));
        assert!(hex::encode(with).ends_with("300c300a0603551d1504030a0101"));
    }

    #[test]
    fn times_change_their_form_in_2050() {
        assert_eq!(time(UnixTime::from_secs(2_524_607_999)), b"\x17\x0d491231235959Z");
        assert_eq!(time(YEAR_2050), b"\x18\x0f20500101000000Z");
        assert_eq!(time(UnixTime::MAX), b"\x18\x0f99991231235959Z");
    }

    #[test]
    fn refuses_a_list_that_ends_before_it_begins() {
        let settings = CrlSettings { next_update: fixtures::NOW, ..SETTINGS };
        assert_eq!(fixtures::devices().sign_crl(&settings, []), Err(CrlError::Order));
    }

    #[test]
    fn a_long_list_has_every_entry_once() {
        let entries = (0..20_000).map(|number| Revoked {
            serial: serial(number),
            revoked_at: fixtures::NOW,
            reason: RevocationReason::Superseded,
        });
        let crl = fixtures::devices().sign_crl(&SETTINGS, entries).expect("signs");
        let tbs = tlv::split(&crl).expect("a list")[0].to_vec();
        let members = tlv::split(&tbs).expect("members");
        assert_eq!(tlv::split(members[5]).expect("entries").len(), 20_000);
    }
}
