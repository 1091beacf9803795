//! What the edge knows, as its control plane hands it over.
//!
//! A [`Snapshot`] is everything as of one numbered change; a [`Delta`] is what one or more later
//! changes made of it. Both are plain values: whoever keeps the ledger makes them, in its process
//! or in another one. Certificates are DER; keys are PKCS#8 DER, wiped when dropped and never shown.

use std::collections::BTreeSet;
use std::fmt;

use muster_policy::enrol::DeviceStatus;
use muster_policy::gate::GateWritten;
use muster_policy::host::{HostPattern, HostRule};
use muster_policy::identity::{AccountId, CaId, Fingerprint, Serial};
use muster_policy::name::{DeviceId, Hostname, TrustDomain};
use muster_policy::time::UnixTime;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use zeroize::Zeroizing;

/// Everything the edge needs, as of one change.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Snapshot {
    /// The number of the last change that is in it.
    pub change: u64,
    /// When the control plane vouched for it; staleness counts from here.
    pub made_at: UnixTime,
    /// The owners of the hostnames.
    pub accounts: Vec<AccountEntry>,
    /// The CAs whose certificates may be accepted.
    pub cas: Vec<CaEntry>,
    /// The hostnames that are answered.
    pub hosts: Vec<HostEntry>,
    /// Every revoked certificate that has not ended yet.
    pub revoked: Vec<CertificateKey>,
    /// The devices that are not active or are in groups; all others are active and in none.
    pub devices: Vec<DeviceEntry>,
    /// What more is known of CAs that issue elsewhere.
    #[serde(default)]
    pub elsewhere: Elsewhere,
}

/// What is known of certificates that were issued elsewhere, beside the serials that are revoked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Elsewhere {
    /// The revoked certificates that are known by their fingerprints.
    pub prints: Vec<PrintKey>,
    /// The CAs that vouch for nobody from some time on.
    pub lists: Vec<ListEntry>,
}

/// What became different since a change. Without events it is a heartbeat.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Delta {
    /// The change it builds on; it is refused by an edge that stands at another one.
    pub from: u64,
    /// The number of its last change; `from` itself for a heartbeat.
    pub change: u64,
    /// When the control plane vouched for it.
    pub made_at: UnixTime,
    /// The changes, in their order.
    pub events: Vec<Event>,
}

/// One difference.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Event {
    /// An account is new or has other settings.
    Account(AccountEntry),
    /// A CA is new, has other certificates, or vouches for nobody any more.
    Ca(CaEntry),
    /// A CA is not known any more.
    CaRemoved(CaId),
    /// A device has another state or other groups.
    Device(DeviceEntry),
    /// A hostname is new, or has another rule or certificate.
    Host(Box<HostEntry>),
    /// A hostname is not answered any more.
    HostRemoved(HostPattern),
    /// A CA's own list is another one, or matters no more.
    List(ListEntry),
    /// A revocation by fingerprint was taken back.
    PrintReactivated(PrintKey),
    /// A certificate was revoked by its fingerprint.
    PrintRevoked(PrintKey),
    /// A revocation was taken back.
    Reactivated(CertificateKey),
    /// A certificate was revoked.
    Revoked(CertificateKey),
}

/// An owner of hostnames, CAs and devices.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountEntry {
    /// The account.
    pub id: AccountId,
    /// The trust domain of its devices' SPIFFE ids.
    pub trust_domain: TrustDomain,
    /// What the edge shows to origins that ask for a client certificate.
    pub outbound: Option<TlsIdentity>,
    /// What requests to its hostnames are judged by after the certificate.
    #[serde(default)]
    pub gate: GateWritten,
}

/// A CA whose client certificates may be accepted, or once were.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaEntry {
    /// The CA.
    pub id: CaId,
    /// Its owner; hostnames of nobody else accept it.
    pub account: AccountId,
    /// Its certificates, each an anchor of its own: the issuing ones first, so that a device that
    /// sends only its leaf passes and one signature is checked, then the root if its other issuing
    /// CAs are to be accepted too. Of a managed CA only the one that issues to devices.
    pub certificates: Vec<ByteBuf>,
    /// Whether hostnames that name no CA accept this one.
    pub is_default: bool,
    /// Whether it vouches for anybody. One that does no more is known all the same: its leaves are then refused
    /// also where a CA above it is accepted.
    #[serde(default = "vouches")]
    pub vouches: bool,
}

/// What was kept before there were others.
const fn vouches() -> bool {
    true
}

/// A hostname with all that its door needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostEntry {
    /// The rule.
    pub rule: HostRule,
    /// The server certificate; none when there is none usable. The hostname is then a fault that nobody
    /// answers, not even a wildcard above it.
    pub certificate: Option<TlsIdentity>,
    /// How its `https://` origins are spoken to.
    #[serde(default)]
    pub origin_tls: OriginTls,
}

/// How `https://` origins of a hostname are spoken to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OriginTls {
    /// The only CAs that may vouch for the origin; empty for those of the machine.
    #[serde(default)]
    pub anchors: Vec<ByteBuf>,
    /// The name that the origin's certificate must have; the host of its URL when not given.
    #[serde(default)]
    pub server_name: Option<Hostname>,
    /// Whether the account's outbound certificate is shown, where there is none of the hostname's own.
    #[serde(default)]
    pub identify: bool,
    /// The hostname's own certificate for its origins, which goes before the account's.
    #[serde(default)]
    pub identity: Option<TlsIdentity>,
}

/// A certificate with its key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsIdentity {
    /// The leaf, then the certificates that lead to a root that peers know.
    pub chain: Vec<ByteBuf>,
    /// The leaf's key.
    pub key: SecretKey,
}

/// A private key, PKCS#8 in DER. Wiped when dropped.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "ByteBuf", into = "ByteBuf")]
pub struct SecretKey(Zeroizing<Vec<u8>>);

impl SecretKey {
    /// Takes a key over.
    pub fn new(pkcs8: Vec<u8>) -> Self {
        Self(Zeroizing::new(pkcs8))
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl From<ByteBuf> for SecretKey {
    fn from(pkcs8: ByteBuf) -> Self {
        Self::new(pkcs8.into_vec())
    }
}

impl From<SecretKey> for ByteBuf {
    fn from(key: SecretKey) -> Self {
        Self::from(key.0.to_vec())
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey")
    }
}

/// What names a certificate among all of an edge: a serial alone names nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CertificateKey {
    /// The CA.
    pub ca: CaId,
    /// Its serial there.
    pub serial: Serial,
}

/// What names a certificate of which only its fingerprint is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PrintKey {
    /// The CA.
    pub ca: CaId,
    /// SHA-256 of the certificate.
    pub fingerprint: Fingerprint,
}

/// Until when a CA's own list of revocations is good enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListEntry {
    /// The CA.
    pub ca: CaId,
    /// From when on nobody is let in by its certificates; none for never.
    pub closes_at: Option<UnixTime>,
}

/// What is known of a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceEntry {
    /// Its owner.
    pub account: AccountId,
    /// Its id.
    pub device: DeviceId,
    /// Its state.
    pub status: DeviceStatus,
    /// Its groups.
    #[serde(default)]
    pub groups: BTreeSet<String>,
}

impl DeviceEntry {
    /// Whether there is nothing to know of it: active, and in no group. Such a device needs no entry.
    pub fn is_plain(&self) -> bool {
        self.status == DeviceStatus::Active && self.groups.is_empty()
    }
}

/// The form of what an edge is told, and of what it keeps. It grows with each change of what is in a [`Snapshot`] or an
/// [`Event`], so that no program passes over what it does not know.
pub(crate) const FORM: u8 = 1;

/// Something to make the edge's own.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Update {
    /// Everything anew.
    Snapshot(Box<Snapshot>),
    /// What changed.
    Delta(Delta),
}

impl Update {
    /// As octets, for an edge in another process: the form, and the update. Keys are in them.
    ///
    /// # Errors
    /// [`NoUpdate`] for what can't be written.
    pub fn to_octets(&self) -> Result<Zeroizing<Vec<u8>>, NoUpdate> {
        let mut octets = Zeroizing::new(vec![FORM]);
        let mut writer = rmp_serde::Serializer::new(&mut *octets).with_struct_map();
        self.serialize(&mut writer).map_err(|_| NoUpdate::Malformed)?;
        Ok(octets)
    }

    /// From such octets.
    ///
    /// # Errors
    /// [`NoUpdate`]. Another form is not read even where it could be: what it says and this program does not know
    /// may be what keeps somebody out.
    pub fn from_octets(octets: &[u8]) -> Result<Self, NoUpdate> {
        match octets.split_first() {
            Some((&FORM, update)) => rmp_serde::from_slice(update).map_err(|_| NoUpdate::Malformed),
            Some((&form, _)) => Err(NoUpdate::OtherForm { form }),
            None => Err(NoUpdate::Malformed),
        }
    }
}

/// Octets that are no update, or an update that can't be made into octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoUpdate {
    /// The form is right, and what follows is no update.
    #[error("not an update for an edge")]
    Malformed,
    /// The other program is of another version, older or newer.
    #[error(
        "an update of form {form}, and this program has form {FORM}: server and edge need versions of the same form"
    )]
    OtherForm {
        /// What the octets begin with.
        form: u8,
    },
}

/// What an update did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// How many connections lost their right and were told to end.
    pub cut: usize,
    /// What of it can't be used. A hostname named here is not served, and a CA accepts nobody, until a
    /// later update puts it right; all the rest is in force.
    pub faults: Vec<Fault>,
}

/// A part of an update that can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A CA certificate can't be an anchor.
    #[error("CA {ca}: {fault}")]
    Ca {
        /// The CA.
        ca: CaId,
        /// What is wrong, in words for an operator.
        fault: String,
    },
    /// A hostname can't be served as it is written.
    #[error("{host}: {fault}")]
    Host {
        /// The hostname.
        host: HostPattern,
        /// What is wrong, in words for an operator.
        fault: String,
    },
}

/// The delta builds on another change, or on one that the last known good state lacks: ask for a snapshot. The
/// edge goes on with what it had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the delta builds on change {from}; the edge is at {at}, and needs a full snapshot")]
pub struct Gap {
    /// What the delta builds on.
    pub from: u64,
    /// Where the edge is.
    pub at: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_never_shown() {
        let identity = TlsIdentity { chain: Vec::new(), key: SecretKey::new(b"secret".to_vec()) };
        assert!(!format!("{identity:?}").contains("115"), "{identity:?}");
    }

    #[test]
    fn a_ca_that_was_kept_before_some_were_retired_vouches() {
        let (ca, account) = (CaId::from_bytes([1; 16]), AccountId::from_bytes([2; 16]));
        let bytes = rmp_serde::to_vec(&(ca, account, Vec::<ByteBuf>::new(), true)).expect("written");
        assert!(rmp_serde::from_slice::<CaEntry>(&bytes).expect("read").vouches);
    }

    #[test]
    fn an_update_is_the_same_on_the_other_side() {
        use muster_policy::gate::{
            Action, App, Condition, Decision, Policy, RuleWritten, Visitors, ZoneRules,
        };
        use muster_policy::identity::ZoneId;

        let zone = ZoneId::from_bytes([3; 16]);
        let visitors = Visitors {
            include: vec![Condition::CommonName("boss".to_owned()), Condition::Certificate],
            ..Visitors::default()
        };
        let policies = vec![Policy { decision: Decision::NonIdentity, visitors }];
        let host = "api.example.com".parse().expect("a host");
        let rule = RuleWritten { expression: "ip.src eq 192.0.2.1".to_owned(), action: Action::Block };
        let account = AccountEntry {
            id: AccountId::from_bytes([1; 16]),
            trust_domain: "fleet.example".parse().expect("a trust domain"),
            outbound: Some(TlsIdentity {
                chain: vec![ByteBuf::from(vec![1])],
                key: SecretKey::new(vec![2; 3]),
            }),
            gate: GateWritten {
                apps: vec![App { host, path: "/".to_owned(), policies }],
                zones: vec![ZoneRules { zone, rules: vec![rule] }],
                untold_zones: [zone].into(),
                ..GateWritten::default()
            },
        };
        let events = vec![Event::Account(account.clone())];
        let delta = Delta { from: 3, change: 4, made_at: UnixTime::from_secs(5), events };
        let octets = Update::Delta(delta).to_octets().expect("written");
        let Ok(Update::Delta(delta)) = Update::from_octets(&octets) else { panic!("not the same") };
        assert!(matches!(delta.events.as_slice(), [Event::Account(read)] if *read == account));
        let cut = Update::from_octets(&octets[..octets.len() - 1]).map(drop);
        assert_eq!(cut, Err(NoUpdate::Malformed));
        let newer = [&[FORM + 1], &octets[1..]].concat();
        assert_eq!(Update::from_octets(&newer).map(drop), Err(NoUpdate::OtherForm { form: FORM + 1 }));
    }

    #[test]
    fn what_is_written_is_read_back() {
        let entry = CertificateKey {
            ca: CaId::from_bytes([1; 16]),
            serial: Serial::from_bytes(&[2; 20]).expect("a serial"),
        };
        let bytes = rmp_serde::to_vec(&entry).expect("written");
        assert_eq!(rmp_serde::from_slice::<CertificateKey>(&bytes).expect("read"), entry);
    }
}
