//! The change log that followers such as edges read.

use muster_policy::enrol::DeviceStatus;
use muster_policy::host::HostPattern;
use muster_policy::identity::{AccountId, CaId, CertificateId, TokenId, WebhookId, ZoneId};
use muster_policy::name::{DeviceId, Label};
use muster_policy::time::UnixTime;
use serde::{Deserialize, Serialize};

use crate::record::{CaState, DocumentKind, ForeignName};
use crate::tables::{Record, TableName};

/// One change; numbers start at 1 and have no gaps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Its number.
    pub number: u64,
    /// When it happened.
    pub at: UnixTime,
    /// The account it concerns; none for changes of the server itself.
    pub account: Option<AccountId>,
    /// What happened.
    pub kind: ChangeKind,
}

/// What happened. Ids only: a follower reads the record in a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ChangeKind {
    /// An account was made.
    AccountCreated,
    /// An admin token was made or revoked.
    AdminTokenSet(TokenId),
    /// A CA was added.
    CaAdded(CaId),
    /// A CA's state was set.
    CaStateSet(CaId, CaState),
    /// A certificate was issued.
    CertificateIssued(CertificateId),
    /// A revoked certificate is good again.
    CertificateReactivated(CertificateId),
    /// A certificate was revoked.
    CertificateRevoked(CertificateId),
    /// A new revocation list of a CA was stored.
    CrlStored(CaId),
    /// A device became known, or something of it was set, with the status it has now.
    DeviceSet(DeviceId, DeviceStatus),
    /// Devices were imported.
    DevicesImported(ImportedDevices),
    /// The CA's own list, or how it becomes known, is another one. With it these certificates became revoked or
    /// good again; none when they are too many to name.
    ForeignListTaken(CaId, Option<Vec<ForeignName>>),
    /// An operator revoked a certificate that was issued elsewhere, or took that back.
    ForeignRevocationSet(CaId, ForeignName),
    /// A hostname was taken away.
    HostRemoved(HostPattern),
    /// The rule of a hostname was set.
    HostSet(HostPattern),
    /// A profile was set.
    ProfileSet(Label),
    /// A token was made or revoked.
    TokenSet(TokenId),
    /// A CA is gone.
    CaRemoved(CaId),
    /// A document of this kind was set or removed.
    DocumentSet(DocumentKind, CaId),
    /// What the origins of this hostname are shown was set.
    OriginPullSet(HostPattern),
    /// A leaf was uploaded or removed.
    OutboundLeafSet(CaId),
    /// A webhook was made or removed.
    WebhookSet(WebhookId),
    /// A zone was added.
    ZoneAdded(ZoneId),
    /// A zone is gone.
    ZoneRemoved(ZoneId),
    /// A zone's fields were set.
    ZoneSet(ZoneId),
}

/// The devices of an import.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "ImportedWritten")]
pub struct ImportedDevices {
    /// How many became known, or other than they were.
    pub count: u64,
    /// Those of them that are more than active and in no group. None when they are too many to name, or not named, as
    /// before 1 Dec 2026: followers read all devices anew.
    pub noted: Option<Vec<DeviceId>>,
}

/// As a number alone it was written before.
#[derive(Deserialize)]
#[serde(untagged)]
enum ImportedWritten {
    Count(u64),
    Noted { count: u64, noted: Option<Vec<DeviceId>> },
}

impl From<ImportedWritten> for ImportedDevices {
    fn from(written: ImportedWritten) -> Self {
        match written {
            ImportedWritten::Count(count) => Self { count, noted: None },
            ImportedWritten::Noted { count, noted } => Self { count, noted },
        }
    }
}

impl Record for Change {
    const TABLE: TableName = TableName::Changes;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec;

    #[test]
    fn an_import_that_names_no_devices_is_read_as_it_was_written() {
        #[derive(Serialize)]
        #[serde(rename_all = "kebab-case")]
        enum Before {
            DevicesImported(u64),
        }
        let before = codec::encode(TableName::Changes, &Before::DevicesImported(7)).expect("encodes");
        let read: ChangeKind = codec::decode(TableName::Changes, &before).expect("decodes");
        assert_eq!(read, ChangeKind::DevicesImported(ImportedDevices { count: 7, noted: None }));
        let noted = Some(vec!["meter-1".parse().expect("an id")]);
        let now = ChangeKind::DevicesImported(ImportedDevices { count: 1, noted });
        let bytes = codec::encode(TableName::Changes, &now).expect("encodes");
        assert_eq!(codec::decode::<ChangeKind>(TableName::Changes, &bytes).expect("decodes"), now);
    }
}
