//! What is revoked among certificates that a CA issued elsewhere.
//!
//! The ledger has no record of such a certificate: it is named by its serial, or by its fingerprint
//! where somebody knows no more. It is revoked while the CA's own list says so, or an operator does;
//! either goes on when the other ends.

use core::fmt;
use core::str::FromStr;

use muster_policy::host::WhenStale;
use muster_policy::identity::{CaId, Fingerprint, IdentifierError, Serial};
use muster_policy::time::UnixTime;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::record::Revocation;
use crate::tables::{Record, TableName};

/// What names a certificate that was issued elsewhere, within its CA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ForeignName {
    /// SHA-256 of the certificate.
    Fingerprint(Fingerprint),
    /// Its serial.
    Serial(Serial),
}

impl fmt::Display for ForeignName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fingerprint(fingerprint) => fingerprint.fmt(f),
            Self::Serial(serial) => serial.fmt(f),
        }
    }
}

impl FromStr for ForeignName {
    type Err = IdentifierError;

    /// Hex, with or without colons; 32 octets are a fingerprint, fewer a serial.
    fn from_str(text: &str) -> Result<Self, IdentifierError> {
        let digits: String = text.chars().filter(|c| *c != ':').take(2 * FINGERPRINT_BYTES + 1).collect();
        if digits.len() == 2 * FINGERPRINT_BYTES {
            return digits.to_ascii_lowercase().parse().map(Self::Fingerprint);
        }
        text.parse().map(Self::Serial)
    }
}

const FINGERPRINT_BYTES: usize = 32;

/// A certificate that was issued elsewhere and is revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForeignRevoked {
    /// Its CA.
    pub ca: CaId,
    /// Which one it is.
    pub name: ForeignName,
    /// What the CA's own list says.
    pub by_list: Option<Revocation>,
    /// What an operator said here.
    pub by_operator: Option<Revocation>,
}

impl ForeignRevoked {
    /// Since when, and why: what was said first.
    pub fn revocation(&self) -> Option<Revocation> {
        let said = [self.by_list, self.by_operator];
        said.into_iter().flatten().min_by_key(|revocation| revocation.at)
    }
}

/// Where a list came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum ListSource {
    /// It was fetched from the CA's address.
    Fetched,
    /// An operator uploaded it.
    Uploaded,
}

/// How the revocations of a CA whose key is elsewhere become known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListSettings {
    /// Where its list is fetched from; none when it is uploaded.
    pub url: Option<String>,
    /// How often it is fetched, in seconds.
    pub every_s: u32,
    /// What hostnames do with its certificates when the list is past its end.
    pub when_stale: WhenStale,
    /// The distribution point that its complete list names, if it names one (RFC 5280 §5.2.5).
    #[serde(default)]
    pub point: Option<String>,
}

/// The newest list of a CA whose key is elsewhere, without the list itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForeignList {
    /// Its number (RFC 5280 §5.2.3), big-endian without leading zeros.
    pub number: ByteBuf,
    /// When it was made.
    pub this_update: UnixTime,
    /// When there will be another at the latest.
    pub next_update: UnixTime,
    /// SHA-256 of the list.
    pub fingerprint: Fingerprint,
    /// How many certificates it revokes.
    pub entries: u64,
    /// Where it came from.
    pub source: ListSource,
    /// When it came.
    pub taken_at: UnixTime,
}

/// How a fetch of a CA's list ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Fetched {
    /// There was none that could be taken.
    Failed,
    /// A new list was taken.
    Taken,
    /// It is the list that is known.
    Unchanged,
}

/// A fetch of a CA's list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct ListFetch {
    /// When it began.
    pub at: UnixTime,
    /// How it ended.
    pub outcome: Fetched,
    /// Why it failed.
    pub message: Option<String>,
    /// How many failed since one was good.
    pub failures: u32,
}

/// What is known of the revocations of a CA beside those of certificates issued here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForeignCa {
    /// How its list becomes known.
    pub settings: ListSettings,
    /// Its newest list.
    pub list: Option<ForeignList>,
    /// How many certificates are revoked, by the list or an operator.
    pub revoked: u64,
    /// How many of them an operator revoked.
    pub by_operator: u64,
    /// The last fetch of its list that was stored; one that changed nothing need not be.
    #[serde(default)]
    pub last_fetch: Option<ListFetch>,
}

impl ForeignCa {
    /// After when nobody is let in by its certificates; none when that never happens.
    pub fn closes_at(&self) -> Option<UnixTime> {
        let list = self.list.as_ref()?;
        (self.settings.when_stale == WhenStale::Closed).then_some(list.next_update)
    }
}

/// The list itself, DER.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForeignListDer(pub ByteBuf);

impl Record for ForeignCa {
    const TABLE: TableName = TableName::ForeignCas;
}

impl Record for ForeignListDer {
    const TABLE: TableName = TableName::ForeignLists;
}

impl Record for ForeignRevoked {
    const TABLE: TableName = TableName::ForeignRevoked;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_serial_or_a_fingerprint() {
        let print = "ab".repeat(32);
        assert!(matches!(print.parse(), Ok(ForeignName::Fingerprint(read)) if read.to_string() == print));
        let colons = ["AB"; 32].join(":");
        assert_eq!(colons.parse::<ForeignName>(), print.parse());
        assert!(matches!("0A:1b".parse(), Ok(ForeignName::Serial(read)) if read.to_string() == "0a1b"));
        for wrong in ["", "xy", "00", &"ab".repeat(21), &"ab".repeat(33), &"xy".repeat(32)] {
            assert!(wrong.parse::<ForeignName>().is_err(), "{wrong}");
        }
    }
}
