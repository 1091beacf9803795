//! Whether who sent a retained message may still speak.
//!
//! It holds the edge's knowledge and nothing of its connections, so that the broker, which the edge hands
//! connections to, can keep it.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use muster_policy::enrol::DeviceStatus;
use muster_policy::identity::AccountId;
use muster_policy::mqtt::{Sender, Senders};
use muster_policy::reason::Reason;

use crate::snapshot::CertificateKey;
use crate::standing::judged;
use crate::state::State;

/// What the edge knows of senders.
pub(crate) struct KnownSenders(pub(crate) Arc<State>);

impl fmt::Debug for KnownSenders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KnownSenders(change {})", self.0.change())
    }
}

impl Senders for KnownSenders {
    fn groups(&self, account: AccountId, sender: &Sender) -> Result<Arc<BTreeSet<String>>, Reason> {
        let (doors, standing) = (self.0.doors(), self.0.standing());
        // A revocation is for good, so it comes before what may pass.
        let key = CertificateKey { ca: sender.ca, serial: sender.serial };
        let issuers = doors.issuers(account);
        let mut all = judged(key, sender.fingerprint, &sender.above, &issuers);
        if all.any(|judged| standing.is_revoked(&judged)) {
            return Err(Reason::CertificateRevoked);
        }
        if !doors.vouches(account, sender.ca) {
            return Err(Reason::CaNotAccepted);
        }
        let facts = standing.device(account, &sender.device);
        match facts.status {
            DeviceStatus::Active => Ok(facts.groups),
            DeviceStatus::Suspended => Err(Reason::DeviceSuspended),
            DeviceStatus::Retired => Err(Reason::DeviceRetired),
        }
    }
}
