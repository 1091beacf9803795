//! Entries of the audit.
//!
//! An entry is stored as the exact JSON text that was hashed (see `crate::audit`), so its form can
//! grow without breaking the chain of older entries.

use core::fmt;

use muster_policy::host::HostPattern;
use muster_policy::identity::{AccountId, CaId, CertificateId, Serial, TokenId, ZoneId};
use muster_policy::name::{DeviceId, Label};
use muster_policy::reason::Reason;
use muster_policy::time::UnixTime;
use serde::{Deserialize, Serialize};

/// Who did it, as proven.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Actor {
    /// A holder of an admin token.
    AdminToken(TokenId),
    /// Someone who proved nothing.
    Anonymous,
    /// A device with its certificate.
    Holder(DeviceId),
    /// Someone with access to the data directory.
    Local,
    /// A device with its manufacturer's certificate.
    Manufacturer(DeviceId),
    /// A device with its manufacturer's certificate and a token.
    ManufacturerAndToken(DeviceId, TokenId),
    /// The server itself.
    System,
    /// A device with a token.
    Token(DeviceId, TokenId),
}

impl Actor {
    /// The token that a device enrolls with.
    pub const fn enrollment_token(&self) -> Option<TokenId> {
        match self {
            Self::ManufacturerAndToken(_, token) | Self::Token(_, token) => Some(*token),
            Self::AdminToken(_)
            | Self::Anonymous
            | Self::Holder(_)
            | Self::Local
            | Self::Manufacturer(_)
            | Self::System => None,
        }
    }
}

#[cfg(feature = "schema")]
impl utoipa::PartialSchema for Actor {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
        use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Type};
        OneOfBuilder::new()
            .description(Some("Who did it: a word, or under a word the ids of a device and of a token"))
            .item(ObjectBuilder::new().schema_type(Type::String))
            .item(ObjectBuilder::new().schema_type(Type::Object))
            .into()
    }
}

#[cfg(feature = "schema")]
impl utoipa::ToSchema for Actor {}

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Action {
    /// An account was made.
    AccountCreated,
    /// An admin token was made.
    AdminTokenCreated,
    /// An admin token was revoked.
    AdminTokenRevoked,
    /// A CA was added.
    CaAdded,
    /// A CA's state was set.
    CaStateSet,
    /// A certificate was issued.
    CertificateIssued,
    /// A certificate is good again.
    CertificateReactivated,
    /// A certificate was revoked.
    CertificateRevoked,
    /// A revocation list was stored.
    CrlStored,
    /// A device's fields were set.
    DeviceSet,
    /// A device's status was set.
    DeviceStatusSet,
    /// Devices were imported.
    DevicesImported,
    /// The own list of a CA whose key is elsewhere was taken; the details say what it changed.
    ForeignListTaken,
    /// A certificate that was issued elsewhere is no longer revoked by an operator.
    ForeignReinstated,
    /// A certificate that was issued elsewhere was revoked.
    ForeignRevoked,
    /// A hostname was taken away.
    HostRemoved,
    /// The rule of a hostname was set.
    HostSet,
    /// An issuance ended without a certificate, after its serial may have been signed.
    IssueAbandoned,
    /// An issuance was cut off by a crash; its serial may have been signed.
    IssueInterrupted,
    /// How the list of a CA becomes known was set; the details say how.
    ListSettingsSet,
    /// A profile was set.
    ProfileSet,
    /// Something was refused.
    Refused,
    /// More was refused than the audit takes in an hour; the details say how many.
    RefusalsOmitted,
    /// A request was approved.
    RequestApproved,
    /// A request was denied.
    RequestDenied,
    /// A request began to wait for a person.
    RequestWaiting,
    /// Old records were removed; the details say how many.
    Tidied,
    /// A token was made.
    TokenCreated,
    /// A token was revoked.
    TokenRevoked,
    /// A CA was removed.
    CaRemoved,
    /// Live connections were ended by a person; the details say how many.
    ConnectionsClosed,
    /// A dead letter of a webhook was delivered after all or dropped; the details say which.
    DeadLetterRemoved,
    /// A document was removed; the details say which.
    DocumentRemoved,
    /// A document was set; the details say which.
    DocumentSet,
    /// What the origins of a hostname are shown was set; the details say which leaf.
    OriginPullSet,
    /// A leaf was uploaded; the details say which.
    OutboundLeafAdded,
    /// An uploaded leaf was removed; the details say which.
    OutboundLeafRemoved,
    /// A webhook was made; the details say which.
    WebhookAdded,
    /// A webhook was removed; the details say which.
    WebhookRemoved,
    /// A zone was added.
    ZoneAdded,
    /// A zone was removed.
    ZoneRemoved,
    /// A zone's fields were set.
    ZoneSet,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// What an entry is about; whatever does not apply is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct Subjects {
    /// The account.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account: Option<AccountId>,
    /// The zone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<ZoneId>,
    /// The CA.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<CaId>,
    /// The profile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<Label>,
    /// The device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<DeviceId>,
    /// The hostname.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<HostPattern>,
    /// The token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<TokenId>,
    /// The certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<CertificateId>,
    /// The serial that was or may have been signed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial: Option<Serial>,
}

/// An entry of the audit before it has its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditDraft {
    /// When.
    pub at: UnixTime,
    /// Who.
    pub actor: Actor,
    /// What.
    pub action: Action,
    /// About what.
    pub subjects: Subjects,
    /// Why it was refused.
    pub reason: Option<Reason>,
    /// Bounded text for people, never a secret.
    pub details: Option<String>,
}

/// An entry of the audit; numbers start at 1 and have no gaps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// Its number.
    pub number: u64,
    /// When.
    pub at: UnixTime,
    /// Who.
    pub actor: Actor,
    /// What.
    pub action: Action,
    /// About what.
    #[serde(default)]
    pub subjects: Subjects,
    /// Why it was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<String>,
}
