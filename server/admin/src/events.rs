//! The change log as others follow it: one event for each change, under the change's number.
//!
//! Numbers have no gaps and never repeat, so a follower that remembers the last one goes on exactly
//! there. What an event tells is ids; what they name is read through the API.

use muster_policy::time::UnixTime;
use muster_store::record::{Change, ChangeKind};
use serde::Serialize;
use serde_json::{Map, Value, json};

/// The names of all events, in alphabetical order.
pub(crate) const NAMES: [&str; 24] = [
    "account-created",
    "admin-token-set",
    "ca-added",
    "ca-removed",
    "ca-state-set",
    "certificate-issued",
    "certificate-reactivated",
    "certificate-revoked",
    "crl-stored",
    "device-set",
    "devices-imported",
    "document-set",
    "foreign-list-taken",
    "foreign-revocation-set",
    "host-removed",
    "host-set",
    "origin-pull-set",
    "outbound-leaf-set",
    "profile-set",
    "token-set",
    "webhook-set",
    "zone-added",
    "zone-removed",
    "zone-set",
];

/// A change, as followers see it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct EventView {
    pub(crate) number: u64,
    pub(crate) at: UnixTime,
    /// What happened, such as `certificate-revoked`.
    pub(crate) event: String,
    /// What it happened to: ids under their names, such as `certificate`.
    pub(crate) subject: Map<String, Value>,
}

impl EventView {
    pub(crate) fn new(change: &Change) -> Self {
        let Change { number, at, kind, .. } = change;
        Self { number: *number, at: *at, event: name(kind), subject: subject(kind) }
    }
}

/// The name of what happened: the word that the ledger stores.
pub(crate) fn name(kind: &ChangeKind) -> String {
    match serde_json::to_value(kind) {
        Ok(Value::String(name)) => name,
        Ok(Value::Object(fields)) => fields.into_iter().next().map_or_else(String::new, |(name, _)| name),
        _ => String::new(),
    }
}

fn subject(kind: &ChangeKind) -> Map<String, Value> {
    let subject = match kind {
        ChangeKind::AdminTokenSet(token) => json!({ "admin_token": token }),
        ChangeKind::CaAdded(ca) | ChangeKind::CaRemoved(ca) | ChangeKind::CrlStored(ca) => {
            json!({ "ca": ca })
        }
        ChangeKind::CaStateSet(ca, state) => json!({ "ca": ca, "state": state }),
        ChangeKind::CertificateIssued(certificate)
        | ChangeKind::CertificateReactivated(certificate)
        | ChangeKind::CertificateRevoked(certificate) => json!({ "certificate": certificate }),
        ChangeKind::DeviceSet(device, status) => json!({ "device": device, "status": status }),
        ChangeKind::DevicesImported(devices) => json!({ "count": devices.count }),
        ChangeKind::DocumentSet(kind, id) => json!({ "kind": kind, "id": id }),
        ChangeKind::ForeignListTaken(ca, _) => json!({ "ca": ca }),
        ChangeKind::ForeignRevocationSet(ca, name) => json!({ "ca": ca, "name": name.to_string() }),
        ChangeKind::HostRemoved(host) | ChangeKind::HostSet(host) | ChangeKind::OriginPullSet(host) => {
            json!({ "host": host })
        }
        ChangeKind::OutboundLeafSet(id) => json!({ "mtls_certificate": id }),
        ChangeKind::ProfileSet(profile) => json!({ "profile": profile }),
        ChangeKind::TokenSet(token) => json!({ "token": token }),
        ChangeKind::WebhookSet(webhook) => json!({ "webhook": webhook }),
        ChangeKind::ZoneAdded(zone) | ChangeKind::ZoneRemoved(zone) | ChangeKind::ZoneSet(zone) => {
            json!({ "zone": zone })
        }
        // The account itself, which is in the path.
        _ => json!({}),
    };
    match subject {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_has_the_word_of_the_ledger_and_names_its_subject() {
        let device = "meter-1".parse().expect("an id");
        let kind = ChangeKind::DeviceSet(device, muster_policy::enrol::DeviceStatus::Suspended);
        let change = Change { number: 7, at: UnixTime::from_secs(0), account: None, kind };
        let event = EventView::new(&change);
        assert_eq!((event.number, event.event.as_str()), (7, "device-set"));
        assert_eq!(Value::Object(event.subject), json!({ "device": "meter-1", "status": "suspended" }));
        assert_eq!(name(&ChangeKind::AccountCreated), "account-created");
    }

    #[test]
    fn every_change_has_its_name_in_the_list() {
        // The error lists what could have been there.
        let error = serde_json::from_str::<ChangeKind>("\"x\"").expect_err("no change").to_string();
        let mut known: Vec<&str> = error.split('`').skip(1).step_by(2).filter(|name| *name != "x").collect();
        known.sort_unstable();
        assert_eq!(known, NAMES);
    }
}
