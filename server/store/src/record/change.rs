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
    /// So many devices were imported; followers read them anew.
    DevicesImported(u64),
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

impl Record for Change {
    const TABLE: TableName = TableName::Changes;
}
