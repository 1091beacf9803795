//! What the edge knows now, in parts that are swapped or changed on their own.
//!
//! Readers load an `Arc` or one shard of a map and never wait for a writer's work. Updates are made
//! by one caller at a time, standing before doors, so a door never meets an older list of the
//! revoked than the one it was made with.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use muster_policy::access::{Circumstances, Holder, News, Permit, access};
use muster_policy::host::Protocol;
use muster_policy::reason::Reason;
use muster_policy::time::UnixTime;

use crate::clock::Clock;
use crate::hosts::{Door, DoorMaker, Doors};
use crate::snapshot::{CertificateKey, Event, Fault, Gap, Update};
use crate::standing::{Standing, judged};

/// The edge's knowledge.
pub(crate) struct State {
    doors: ArcSwap<Doors>,
    standing: Arc<ArcSwap<Standing>>,
    /// When the control plane last vouched for it, in seconds since the epoch; [`NEVER`] before it did.
    made_at: AtomicI64,
    change: AtomicU64,
    staleness_allowed_for: Duration,
    maker: DoorMaker,
    clock: Clock,
}

impl State {
    /// Knows nothing yet. `standing` is the same cell that the maker's examiner asks.
    pub(crate) fn new(
        maker: DoorMaker,
        standing: Arc<ArcSwap<Standing>>,
        staleness_allowed_for: Duration,
        clock: Clock,
    ) -> Self {
        Self {
            doors: ArcSwap::from_pointee(Doors::default()),
            standing,
            made_at: AtomicI64::new(NEVER),
            change: AtomicU64::new(0),
            staleness_allowed_for,
            maker,
            clock,
        }
    }

    /// Makes an update its own, or stays as it is. One caller at a time.
    ///
    /// Returns what of it can't be used.
    ///
    /// # Errors
    /// [`Gap`].
    pub(crate) fn update(&self, update: &Update) -> Result<Vec<Fault>, Gap> {
        match update {
            Update::Snapshot(snapshot) => {
                let doors = Doors::new(&self.maker, &snapshot.accounts, &snapshot.cas, &snapshot.hosts);
                let standing = Standing::new(&snapshot.revoked, &snapshot.devices, &snapshot.elsewhere);
                let faults = doors.faults().to_vec();
                self.standing.store(Arc::new(standing));
                self.doors.store(Arc::new(doors));
                self.vouched(snapshot.change, snapshot.made_at);
                Ok(faults)
            }
            Update::Delta(delta) => {
                let at = self.change.load(Ordering::Acquire);
                if delta.from != at {
                    return Err(Gap { from: delta.from, at });
                }
                self.hold_against(&delta.events);
                let mut faults = Vec::new();
                if delta.events.iter().any(concerns_doors) {
                    let doors = self.doors.load().after(&self.maker, &delta.events);
                    faults = doors.faults().to_vec();
                    self.doors.store(Arc::new(doors));
                }
                self.vouched(delta.change, delta.made_at);
                Ok(faults)
            }
        }
    }

    /// The doors as they are now.
    pub(crate) fn doors(&self) -> Guard<Arc<Doors>> {
        self.doors.load()
    }

    /// What is held against certificates and devices now.
    pub(crate) fn standing(&self) -> Guard<Arc<Standing>> {
        self.standing.load()
    }

    /// The number of the last change.
    pub(crate) fn change(&self) -> u64 {
        self.change.load(Ordering::Acquire)
    }

    /// How old the knowledge is; none when there is none yet.
    pub(crate) fn age(&self) -> Option<Duration> {
        let made_at = self.made_at.load(Ordering::Acquire);
        (made_at != NEVER).then(|| self.clock.now().since(UnixTime::from_secs(made_at)))
    }

    /// Whether it is older than allowed, or there is none.
    pub(crate) fn is_stale(&self) -> bool {
        self.age().is_none_or(|age| age > self.staleness_allowed_for)
    }

    pub(crate) fn now(&self) -> UnixTime {
        self.clock.now()
    }

    /// Asks policy, with all that holds now.
    ///
    /// # Errors
    /// The reason why not.
    pub(crate) fn access<'a>(
        &self,
        door: &Door,
        holder: Option<&'a Holder>,
        protocol: Protocol,
    ) -> Result<Permit<'a>, Reason> {
        let (standing, now) = (self.standing(), self.clock.now());
        let judged = holder.into_iter().flat_map(|holder| {
            let key = CertificateKey { ca: holder.ca, serial: holder.serial };
            judged(key, holder.fingerprint, &holder.above, &door.anchors.issuers)
        });
        let is_closed = judged.clone().any(|judged| standing.is_closed(&judged, now));
        let circumstances = Circumstances {
            protocol,
            now,
            news: if self.is_stale() { News::Stale } else { News::Fresh },
            ca_accepted: holder.is_some_and(|holder| door.anchors.cas.contains(&holder.anchor)),
            revoked: judged.clone().any(|judged| standing.is_revoked(&judged)),
            list: if is_closed { News::Stale } else { News::Fresh },
            device: holder
                .map(|holder| standing.device(holder.account, &holder.device).status)
                .unwrap_or_default(),
        };
        access(&door.rule, holder, &circumstances)
    }

    fn hold_against(&self, events: &[Event]) {
        let standing = self.standing();
        for event in events {
            match event {
                Event::Revoked(key) => standing.revoke(key),
                Event::Reactivated(key) => standing.reactivate(key),
                Event::Device(entry) => standing.set_device(entry),
                Event::List(entry) => standing.set_list(entry),
                Event::PrintReactivated(key) => standing.reactivate_print(key),
                Event::PrintRevoked(key) => standing.revoke_print(key),
                Event::Account(_)
                | Event::Ca(_)
                | Event::CaRemoved(_)
                | Event::Host(_)
                | Event::HostRemoved(_) => {}
            }
        }
    }

    fn vouched(&self, change: u64, made_at: UnixTime) {
        self.made_at.store(made_at.as_secs(), Ordering::Release);
        self.change.store(change, Ordering::Release);
    }
}

/// No time: none is before the epoch.
const NEVER: i64 = -1;

/// Whether an event makes any door another one.
pub(crate) const fn concerns_doors(event: &Event) -> bool {
    match event {
        Event::Account(_) | Event::Ca(_) | Event::CaRemoved(_) | Event::Host(_) | Event::HostRemoved(_) => {
            true
        }
        Event::Device(_)
        | Event::List(_)
        | Event::PrintReactivated(_)
        | Event::PrintRevoked(_)
        | Event::Reactivated(_)
        | Event::Revoked(_) => false,
    }
}
