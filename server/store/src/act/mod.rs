//! The named transactions: everything that can happen to the ledger.
//!
//! Each is a struct with the facts it needs; [`Ledger::transact`](crate::Ledger::transact) applies it.
//! Every change of state leaves one change and one entry of the audit in the same transaction, but
//! for [`BeginIssue`], whose intent becomes both with [`CompleteIssue`], and what is about the API
//! alone: [`BeginKeyed`], [`EndKeyed`]. What is about no state, as [`NoteConnectionsClosed`], leaves the entry alone.

mod accounts;
pub(crate) mod associations;
mod cas;
mod connections;
mod decide;
pub(crate) mod devices;
mod documents;
mod foreign;
mod hosts;
mod issue;
pub(crate) mod keyed;
mod origin_pulls;
mod outbound;
mod profiles;
pub(crate) mod recount;
pub(crate) mod recover;
mod refusals;
pub(crate) mod requests;
mod revoke;
mod tidy;
mod tokens;
mod webhooks;

use muster_policy::host::HostPattern;
use muster_policy::identity::CaId;
use muster_policy::name::DeviceId;
use muster_policy::profile::ProfileError;
use muster_policy::time::UnixTime;

use crate::record::{Action, Actor, AuditDraft, ChangeKind, DeviceTextError, Subjects};
use crate::tables::Tables;
use crate::transaction::Fault;

pub use accounts::{AddZone, CreateAccount, EditZone, RemoveZone};
pub use associations::SetAssociation;
pub use cas::{AddCa, EditUpload, RemoveCa, SetCaState, StoreCrl};
pub use connections::NoteConnectionsClosed;
pub use decide::{DecideRequest, Decision};
pub use devices::{
    DeviceImport, IMPORT_MAX, ImportDevices, Imported, ImportedRow, OnExisting, STATUS_MAX, SetDevice,
    SetDeviceStatus, SetDevicesStatus, StatusRow,
};
pub use documents::{RemoveDocument, SetDocument};
pub use foreign::{
    FOREIGN_BY_OPERATOR_MAX, FOREIGN_NAMES_MAX, ListTaken, Named, NoteFetch, ReinstateNamed, RevokeNamed,
    SetListSettings, TakeList,
};
pub use hosts::{RemoveHost, SetForwarding, SetHost};
pub use issue::{
    AbandonIssue, BeginIssue, Begun, CompleteIssue, CompleteRefused, INTENT_STALE_AFTER, IssueRefused,
    KeyState, Signed,
};
pub use keyed::{ANSWERS_PER_TOKEN_MAX_BYTES, BeginKeyed, EndKeyed, KEY_KEPT_FOR, KEYS_PER_TOKEN_MAX, Keyed};
pub use origin_pulls::{ORIGIN_PULLS_MAX, PullWish, SetOriginPulls};
pub use outbound::{AddOutboundLeaf, OUTBOUND_LEAVES_MAX, RemoveOutboundLeaf};
pub use profiles::SetProfile;
pub use refusals::{NoteRefusals, REFUSALS_PER_HOUR_MAX, RefusalNote};
pub use revoke::{
    REVOKE_MAX, ReactivateCertificate, RevokeCertificate, RevokeCertificates, RevokeWhich, RevokedRow,
};
pub use tidy::{Retention, Tidied, Tidy};
pub use tokens::{CreateAdminToken, CreateToken, RevokeAdminToken, RevokeToken};
pub use webhooks::{
    AddWebhook, DEAD_LETTERS_MAX, Delivered, NoteDelivery, RemoveDeadLetter, RemoveWebhook, WEBHOOKS_MAX,
};

/// Why an operator's transaction was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Rejected {
    /// There is no such account.
    #[error("there is no such account")]
    AccountUnknown,
    /// There is no such CA in the account.
    #[error("there is no such CA")]
    CaUnknown,
    /// The CA or leaf is associated with hostnames, or the CA issues.
    #[error("Certificate cannot be deleted while in use. {0}")]
    CaInUse(String),
    /// The CA never vouches for clients.
    #[error("the CA issues no client certificates")]
    CaNotOfClients,
    /// The same certificate came before, by the same way and for the same use.
    #[error("a certificate with these contents already exists, as {0}")]
    CertificateExists(CaId),
    /// There is no such certificate in the account.
    #[error("there is no such certificate")]
    CertificateUnknown,
    /// A list's number must grow (RFC 5280 §5.2.3).
    #[error("the CRL number must be greater than {newest}")]
    CrlNumber {
        /// The number of the stored list.
        newest: u64,
    },
    /// A retired device stays retired.
    #[error("the device {0} is retired for good")]
    DeviceRetired(DeviceId),
    /// A field of a device is out of its bounds.
    #[error("device {device}: {error}")]
    DeviceText {
        /// The device.
        device: DeviceId,
        /// Which field, and what it must be.
        error: DeviceTextError,
    },
    /// There is no such device in the account.
    #[error("there is no device {0}")]
    DeviceUnknown(DeviceId),
    /// There is no such dead letter.
    #[error("there is no such dead letter")]
    DeadLetterUnknown,
    /// There is no such document.
    #[error("there is no such object")]
    DocumentUnknown,
    /// An object of this id or name exists.
    #[error("{0} exists already")]
    Exists(&'static str),
    /// The hostname lies in no zone of the account.
    #[error("{0} lies in no zone of the account; add the zone first")]
    HostOutsideZone(HostPattern),
    /// There is no such hostname in the account.
    #[error("there is no such hostname")]
    HostUnknown,
    /// The CA's key is here, so its list is made here.
    #[error("the key of the CA is here, so this server makes its CRL; revoke certificates one by one")]
    ListIsOurs,
    /// Only the CA's next list takes it back.
    #[error("the CA's own CRL lists the certificate; only a newer CRL of the CA takes that back")]
    ListedByCa,
    /// The number of a list grows (RFC 5280 §5.2.3).
    #[error("the CRL number must be greater than {newest}, which the CA published before")]
    ListNumber {
        /// The number of the list that is known.
        newest: String,
    },
    /// A later list is made later.
    #[error("the CRL is older than the one that is known, of {newest}")]
    ListOlder {
        /// When that was made.
        newest: UnixTime,
    },
    /// The manufacturer's serial belongs to another device.
    #[error("the manufacturer serial {serial} belongs to device {device} already")]
    ManufacturerSerialTaken {
        /// The serial.
        serial: String,
        /// The device that lists it.
        device: DeviceId,
    },
    /// The profile's fields contradict their rules.
    #[error("the profile's {0}")]
    Profile(ProfileError),
    /// Another writer was faster.
    #[error("it was changed since it was read")]
    RevisionDiffers,
    /// There is no such request.
    #[error("there is no such request, or it does not wait")]
    RequestNotWaiting,
    /// There is no such token in the account.
    #[error("there is no such token")]
    TokenUnknown,
    /// There is no such webhook in the account.
    #[error("there is no such webhook")]
    WebhookUnknown,
    /// There is no such zone in the account.
    #[error("there is no such zone")]
    ZoneUnknown,
    /// Hostnames lie in the zone.
    #[error("hostnames lie in the zone: {0}; remove them first")]
    ZoneInUse(String),
    /// More at once than one transaction takes.
    #[error("at most {max} at once")]
    TooMany {
        /// The most.
        max: usize,
    },
}

/// Who acts, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct By {
    /// Who.
    pub actor: Actor,
    /// When.
    pub at: UnixTime,
}

impl By {
    /// The server itself.
    pub const fn system(at: UnixTime) -> Self {
        Self { actor: Actor::System, at }
    }
}

/// Writes the change and the audit entry of something that happened.
fn log(
    tables: &mut Tables<'_>,
    by: &By,
    action: Action,
    subjects: Subjects,
    kind: ChangeKind,
) -> Result<(), Fault> {
    tables.change(by.at, subjects.account, kind)?;
    audit(tables, by, action, subjects, None)
}

/// Writes an audit entry.
fn audit(
    tables: &mut Tables<'_>,
    by: &By,
    action: Action,
    subjects: Subjects,
    details: Option<String>,
) -> Result<(), Fault> {
    tables.audit(AuditDraft { at: by.at, actor: by.actor.clone(), action, subjects, reason: None, details })
}
