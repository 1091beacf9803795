//! What the ledger holds: one file per kind of record.
//!
//! Records are stored with field names; a field that a later version adds has `#[serde(default)]`,
//! so that older files stay readable without a migration. A record never holds a secret: tokens are
//! kept as hashes, CA keys in files of their own.

mod account;
mod association;
mod audit;
mod ca;
mod certificate;
mod change;
mod device;
mod document;
mod foreign;
mod host;
mod idempotency;
mod outbound;
mod permission;
mod request;
mod token;
mod webhook;

pub use account::{Account, Counters, Zone, ZoneKind};
pub use association::{Association, AssociationScope};
pub use audit::{Action, Actor, AuditDraft, AuditEntry, Subjects};
pub use ca::{Ca, CaKind, CaRole, CaState, CrlState, Upload, UploadKind};
pub use certificate::{Certificate, CertificateStatus, ClientRequest, How, Revocation, RevokedEntry};
pub use change::{Change, ChangeKind, ImportedDevices};
pub use device::{DEVICE_GROUPS_MAX, DEVICE_LABELS_MAX, DEVICE_TEXT_MAX_BYTES, Device, DeviceTextError};
pub use document::{Document, DocumentKind};
pub use foreign::{
    Fetched, ForeignCa, ForeignList, ForeignListDer, ForeignName, ForeignRevoked, ListFetch, ListSettings,
    ListSource,
};
pub use host::{Host, OriginTls};
pub use idempotency::KeyedRequest;
pub(crate) use idempotency::KeyedUse;
pub use outbound::{OriginPull, OutboundLeaf, ShownTo};
pub use permission::{Area, Level, Permission, PermissionError};
pub use request::{Intent, Request, WaitingRequest};
pub use token::{AdminRole, AdminToken, Token, TokenState};
pub use webhook::{DeadLetter, Webhook, WebhookProgress};
