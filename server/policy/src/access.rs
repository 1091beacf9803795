//! Who a client certificate speaks for at the edge.
//!
//! A holder is what the edge makes of a verified certificate, once per connection. Account, CA and
//! serial name the certificate; the device and its groups are what rules are written about.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::identity::{AccountId, CaId, Fingerprint, Serial};
use crate::name::DeviceId;
use crate::time::UnixTime;

/// The holder of a verified client certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The owner of the CA.
    pub account: AccountId,
    /// The CA that the certificate was verified with; never a name that could be another's.
    pub ca: CaId,
    /// The certificate's serial, unique within the CA.
    pub serial: Serial,
    /// SHA-256 of the certificate.
    pub fingerprint: Fingerprint,
    /// Who it says it is: the common name, when it is a device id and no other name contradicts it.
    pub device: DeviceId,
    /// The groups of the device; the rules of operators and back-ends go by these.
    pub groups: BTreeSet<String>,
    /// The end of the certificate: its connections end with it.
    pub not_after: UnixTime,
}
