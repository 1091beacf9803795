//! Who is connected: certificate, device, hostname -> connections, and the cutting of them.
//!
//! A connection is entered before it is judged, and judged again by every change that could deny
//! it, so none slips between a check and a change. Cutting only tells the connection's own task,
//! which says goodbye in its protocol; telling ten thousand takes milliseconds.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use muster_policy::access::Holder;
use muster_policy::host::{HostPattern, Protocol};
use muster_policy::identity::{AccountId, CaId, Serial};
use muster_policy::name::{DeviceId, Hostname};
use muster_policy::reason::Reason;
use muster_policy::time::UnixTime;
use tokio::sync::Notify;

use crate::http::requests::Requests;
use crate::snapshot::CertificateKey;

/// The order to end a connection, and why. Given once, heard by whoever waits.
#[derive(Debug, Default)]
pub struct Cut {
    reason: OnceLock<Reason>,
    given: Notify,
}

impl Cut {
    /// Waits until the connection has to end; returns at once when it already has to.
    pub async fn wait(&self) -> Reason {
        let given = self.given.notified();
        tokio::pin!(given);
        // Listening before looking: an order given in between is heard.
        given.as_mut().enable();
        if let Some(reason) = self.reason.get() {
            return *reason;
        }
        given.await;
        self.reason.get().copied().unwrap_or(Reason::ServerStopping)
    }

    /// The reason to end, if the connection has to.
    pub fn reason(&self) -> Option<Reason> {
        self.reason.get().copied()
    }

    pub(crate) fn give(&self, reason: Reason) -> bool {
        let first = self.reason.set(reason).is_ok();
        if first {
            self.given.notify_waiters();
        }
        first
    }
}

/// A connection whose handshake is done.
#[derive(Debug)]
pub(crate) struct Guest {
    pub(crate) id: u64,
    /// The name that it asked for; which rule that leads to may change.
    pub(crate) name: Hostname,
    /// The rule that the name led to.
    pub(crate) host: HostPattern,
    pub(crate) protocol: Protocol,
    pub(crate) holder: Option<Arc<Holder>>,
    pub(crate) cut: Arc<Cut>,
    /// What it asks for now, by HTTP; the MQTT of a WebSocket stays one for as long as it runs.
    pub(crate) requests: Arc<Requests>,
    /// Where it comes from.
    pub(crate) peer: SocketAddr,
    /// When it was entered.
    pub(crate) since: UnixTime,
}

/// A connection before it is entered.
pub(crate) struct Newcomer {
    pub(crate) name: Hostname,
    pub(crate) host: HostPattern,
    pub(crate) protocol: Protocol,
    pub(crate) holder: Option<Arc<Holder>>,
    pub(crate) peer: SocketAddr,
    pub(crate) since: UnixTime,
}

/// Which connections are looked for; none means any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sought {
    /// Only those of this certificate.
    pub certificate: Option<CertificateKey>,
    /// Only those of this device, by whichever certificate.
    pub device: Option<(AccountId, DeviceId)>,
    /// Only those to this hostname.
    pub host: Option<HostPattern>,
    /// Only the one of this number.
    pub number: Option<u64>,
    /// Only those that [`Connections`] have behind this time and number.
    pub before: Option<(UnixTime, u64)>,
}

/// A live connection, as people look at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Its number; grows with each connection of the process.
    pub number: u64,
    /// The rule that its name led to.
    pub host: HostPattern,
    /// HTTPS or MQTT.
    pub protocol: Protocol,
    /// Whose certificate was verified; none without one.
    pub holder: Option<Arc<Holder>>,
    /// Where it comes from.
    pub peer: SocketAddr,
    /// When its handshake was done.
    pub since: UnixTime,
}

/// Some of the connections that were looked for, newest first; those of one second by their numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Connections {
    /// These.
    pub found: Vec<Connection>,
    /// How many there are in all.
    pub total: usize,
}

/// All connections.
#[derive(Debug, Default)]
pub(crate) struct Live(Mutex<Index>);

#[derive(Debug, Default)]
struct Index {
    last_id: u64,
    guests: HashMap<u64, Arc<Guest>>,
    by_certificate: BTreeSet<(CaId, Serial, u64)>,
    /// By the CAs between their certificates and the anchors.
    by_above: BTreeSet<(CaId, Serial, u64)>,
    by_device: BTreeSet<(AccountId, DeviceId, u64)>,
    by_end: BTreeSet<(UnixTime, u64)>,
}

/// A connection's place among the live ones; given up when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    live: Arc<Live>,
    pub(crate) guest: Arc<Guest>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.live.index().remove(&self.guest);
    }
}

impl Live {
    /// Enters a connection.
    pub(crate) fn enter(self: &Arc<Self>, newcomer: Newcomer) -> Place {
        let Newcomer { name, host, protocol, holder, peer, since } = newcomer;
        let mut index = self.index();
        index.last_id += 1;
        let (id, cut, requests) = (index.last_id, Arc::default(), Arc::default());
        let guest = Arc::new(Guest { id, name, host, protocol, holder, cut, requests, peer, since });
        index.insert(&guest);
        Place { live: Arc::clone(self), guest }
    }

    /// The connections of a certificate.
    pub(crate) fn of_certificate(&self, key: &CertificateKey) -> Vec<Arc<Guest>> {
        let index = self.index();
        let ids = index.by_certificate.range((key.ca, key.serial, 0)..=(key.ca, key.serial, u64::MAX));
        ids.filter_map(|(.., id)| index.guests.get(id)).cloned().collect()
    }

    /// The connections of a certificate, and of all certificates below it if it is a CA's.
    pub(crate) fn of_certificate_and_below(&self, key: &CertificateKey) -> Vec<Arc<Guest>> {
        let mut guests = self.of_certificate(key);
        let index = self.index();
        let ids = index.by_above.range((key.ca, key.serial, 0)..=(key.ca, key.serial, u64::MAX));
        guests.extend(ids.filter_map(|(.., id)| index.guests.get(id)).cloned());
        guests
    }

    /// The connections of a device, by whichever certificate.
    pub(crate) fn of_device(&self, account: AccountId, device: &DeviceId) -> Vec<Arc<Guest>> {
        let index = self.index();
        let first = (account, device.clone(), 0);
        let last = (account, device.clone(), u64::MAX);
        index.by_device.range(first..=last).filter_map(|(.., id)| index.guests.get(id)).cloned().collect()
    }

    /// Every connection.
    pub(crate) fn all(&self) -> Vec<Arc<Guest>> {
        self.index().guests.values().cloned().collect()
    }

    /// Some of the connections that are looked for: `skip` are passed over, `limit` are shown.
    pub(crate) fn find(&self, sought: &Sought, skip: usize, limit: usize) -> Connections {
        let mut guests = self.sought(sought);
        guests.sort_unstable_by_key(|guest| core::cmp::Reverse((guest.since, guest.id)));
        let found = guests.iter().skip(skip).take(limit).map(|guest| Connection::of(guest)).collect();
        Connections { found, total: guests.len() }
    }

    /// All connections that are looked for, in no order.
    pub(crate) fn sought(&self, sought: &Sought) -> Vec<Arc<Guest>> {
        let mut guests = match (sought.number, &sought.certificate, &sought.device) {
            (Some(number), ..) => self.index().guests.get(&number).cloned().into_iter().collect(),
            (None, Some(key), _) => self.of_certificate(key),
            (None, None, Some((account, device))) => self.of_device(*account, device),
            (None, None, None) => self.all(),
        };
        guests.retain(|guest| {
            let holder = guest.holder.as_deref();
            let certificate = holder.map(|holder| CertificateKey { ca: holder.ca, serial: holder.serial });
            let device = holder.map(|holder| (&holder.account, &holder.device));
            sought.certificate.is_none_or(|key| certificate == Some(key))
                && sought.device.as_ref().is_none_or(|(account, name)| device == Some((account, name)))
                && sought.host.as_ref().is_none_or(|host| guest.host == *host)
                && sought.before.is_none_or(|before| (guest.since, guest.id) < before)
        });
        guests
    }

    /// The connections whose certificates have ended; each is returned once.
    pub(crate) fn ended(&self, now: UnixTime) -> Vec<Arc<Guest>> {
        let mut index = self.index();
        // The last second of a certificate is still good (RFC 5280 §4.1.2.5: "inclusive").
        let still = index.by_end.split_off(&(now, 0));
        let ended = std::mem::replace(&mut index.by_end, still);
        ended.iter().filter_map(|(_, id)| index.guests.get(id)).cloned().collect()
    }

    /// How many there are of a protocol, and how many certificates they use.
    pub(crate) fn counts(&self) -> LiveCounts {
        let index = self.index();
        let mut counts = LiveCounts::default();
        for guest in index.guests.values() {
            match guest.protocol {
                Protocol::Https => counts.https += 1,
                Protocol::Mqtt => counts.mqtt += 1,
            }
        }
        let mut last = None;
        for (ca, serial, _) in &index.by_certificate {
            counts.certificates += usize::from(last.replace((ca, serial)) != Some((ca, serial)));
        }
        counts
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connection {
    fn of(guest: &Guest) -> Self {
        Self {
            number: guest.id,
            host: guest.host.clone(),
            protocol: guest.protocol,
            holder: guest.holder.clone(),
            peer: guest.peer,
            since: guest.since,
        }
    }
}

/// How many are connected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LiveCounts {
    pub(crate) https: usize,
    pub(crate) mqtt: usize,
    pub(crate) certificates: usize,
}

impl Index {
    fn insert(&mut self, guest: &Arc<Guest>) {
        if let Some(holder) = &guest.holder {
            self.by_certificate.insert((holder.ca, holder.serial, guest.id));
            self.by_above.extend(holder.above.iter().map(|above| (above.ca, above.serial, guest.id)));
            self.by_device.insert((holder.account, holder.device.clone(), guest.id));
            self.by_end.insert((holder.not_after, guest.id));
        }
        self.guests.insert(guest.id, Arc::clone(guest));
    }

    fn remove(&mut self, guest: &Guest) {
        if let Some(holder) = &guest.holder {
            self.by_certificate.remove(&(holder.ca, holder.serial, guest.id));
            for above in &holder.above {
                self.by_above.remove(&(above.ca, above.serial, guest.id));
            }
            self.by_device.remove(&(holder.account, holder.device.clone(), guest.id));
            self.by_end.remove(&(holder.not_after, guest.id));
        }
        self.guests.remove(&guest.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(serial: u8, device: &str, not_after: i64) -> Arc<Holder> {
        Arc::new(Holder {
            account: AccountId::from_bytes([1; 16]),
            ca: CaId::from_bytes([2; 16]),
            anchor: CaId::from_bytes([2; 16]),
            serial: Serial::from_bytes(&[serial]).expect("a serial"),
            fingerprint: muster_policy::identity::Fingerprint::from_bytes([serial; 32]),
            above: Vec::new(),
            device: device.parse().expect("an id"),
            groups: BTreeSet::new(),
            not_after: UnixTime::from_secs(not_after),
        })
    }

    fn enter(live: &Arc<Live>, holder: Option<&Arc<Holder>>) -> Place {
        let name = "api.example.com";
        live.enter(Newcomer {
            name: name.parse().expect("a name"),
            host: name.parse().expect("a host"),
            protocol: Protocol::Https,
            holder: holder.cloned(),
            peer: SocketAddr::from(([192, 0, 2, 1], 4_711)),
            since: UnixTime::from_secs(50),
        })
    }

    #[test]
    fn connections_are_shown_newest_first_in_parts() {
        let live = Arc::new(Live::default());
        let (first, second) = (holder(1, "meter-1", 100), holder(2, "meter-1", 100));
        let _places = [enter(&live, Some(&first)), enter(&live, Some(&second)), enter(&live, None)];
        let numbers = |sought: &Sought, skip, limit| {
            let Connections { found, total } = live.find(sought, skip, limit);
            (found.iter().map(|one| one.number).collect::<Vec<_>>(), total)
        };
        let any = Sought::default();
        assert_eq!(numbers(&any, 0, 2), (vec![3, 2], 3));
        assert_eq!(numbers(&any, 2, 2), (vec![1], 3));
        let behind = |since, number| {
            let before = Some((UnixTime::from_secs(since), number));
            numbers(&Sought { before, ..any.clone() }, 0, 9)
        };
        assert_eq!(behind(50, 2), (vec![1], 1));
        assert_eq!((behind(51, 0).1, behind(50, 0).1), (3, 0), "by the time first");
        let certificate = Some(CertificateKey { ca: first.ca, serial: first.serial });
        assert_eq!(numbers(&Sought { certificate, ..any.clone() }, 0, 9), (vec![1], 1));
        let device = Some((first.account, first.device.clone()));
        assert_eq!(numbers(&Sought { certificate, device, ..any.clone() }, 0, 9), (vec![1], 1));
        let device = Some((first.account, first.device.clone()));
        assert_eq!(numbers(&Sought { device, ..any.clone() }, 0, 9), (vec![2, 1], 2));
        let third = Sought { number: Some(3), ..any.clone() };
        assert_eq!((numbers(&third, 0, 9), third.certificate), ((vec![3], 1), None));
        assert_eq!(numbers(&Sought { certificate, ..third }, 0, 9), (vec![], 0), "it has no certificate");
        assert_eq!(numbers(&Sought { number: Some(4), ..any.clone() }, 0, 9), (vec![], 0));
        let host = Some("other.example.com".parse().expect("a host"));
        assert_eq!(numbers(&Sought { host, ..any }, 0, 9), (vec![], 0));
    }

    #[test]
    fn connections_are_found_by_certificate_and_device_and_leave_nothing_behind() {
        let live = Arc::new(Live::default());
        let (first, second) = (holder(1, "meter-1", 100), holder(2, "meter-1", 100));
        let places = [enter(&live, Some(&first)), enter(&live, Some(&first)), enter(&live, Some(&second))];
        let anonymous = enter(&live, None);
        let key = CertificateKey { ca: first.ca, serial: first.serial };
        assert_eq!(live.of_certificate(&key).len(), 2);
        assert_eq!(live.of_device(first.account, &first.device).len(), 3);
        assert_eq!(live.all().len(), 4);
        assert_eq!(live.counts(), LiveCounts { https: 4, mqtt: 0, certificates: 2 });
        drop((places, anonymous));
        let index = live.index();
        assert!(index.guests.is_empty() && index.by_certificate.is_empty());
        assert!(index.by_device.is_empty() && index.by_end.is_empty());
    }

    #[test]
    fn a_certificate_is_good_through_its_last_second() {
        let live = Arc::new(Live::default());
        let _place = enter(&live, Some(&holder(1, "meter-1", 100)));
        assert!(live.ended(UnixTime::from_secs(100)).is_empty());
        assert_eq!(live.ended(UnixTime::from_secs(101)).len(), 1);
        assert!(live.ended(UnixTime::from_secs(102)).is_empty(), "told once");
    }

    #[tokio::test]
    async fn a_cut_is_heard_whenever_one_listens_and_keeps_its_first_reason() {
        let cut = Arc::new(Cut::default());
        let waiting = tokio::spawn({
            let cut = Arc::clone(&cut);
            async move { cut.wait().await }
        });
        tokio::task::yield_now().await;
        assert!(cut.give(Reason::CertificateRevoked));
        assert!(!cut.give(Reason::ServerStopping));
        assert_eq!(waiting.await.expect("no panic"), Reason::CertificateRevoked);
        assert_eq!(cut.wait().await, Reason::CertificateRevoked);
    }
}
