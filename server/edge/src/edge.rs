//! The edge as its owner sees it: start, serve listeners, apply changes, count, drain.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use muster_arrival::fair::FairSlots;
use muster_arrival::handshakes::Handshakes;
use muster_policy::mqtt::Senders;
use muster_policy::network::DeniedNetworks;
use muster_policy::reason::Reason;
use muster_policy::rehearsal::{Rehearsal, Rehearsed};
use prometheus_client::registry::Registry;
use rustls::RootCertStore;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::Clock;
use crate::handover::MqttHandover;
use crate::hosts::DoorMaker;
use crate::http::origin::OriginMaker;
use crate::keeper::Keeper;
use crate::listener::{self, ListenerLimits, Shared};
use crate::live::{Connections, Guest, Sought};
use crate::lkg::{Kept, LastKnownGood, LastKnownGoodError};
use crate::metrics::{Counters, Metrics};
use crate::senders::KnownSenders;
use crate::snapshot::{Applied, CertificateKey, Event, Gap, Update};
use crate::sources::Sources;
use crate::standing::Standing;
use crate::state::{State, concerns_doors};
use crate::tls::config::{ConfigMaker, ListenerKind, provider};
use crate::tls::verifier::Examiner;

/// How often the time is looked at: for certificates that have ended, and for news that is too old.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);
/// For so many looks the news must have been too old before anybody is cut. A clock that jumps, or a
/// machine that wakes, makes it look old for a moment, and whoever vouches for it does so every second.
const STALE_LOOKS: u32 = 5;

/// This part of all connections may be those that have not shown who they are, and one source may have this part of
/// them: the rest stays for those that have.
const ARRIVING_SHARE: usize = 2;

/// How an edge is run.
#[derive(Clone, Debug)]
pub struct EdgeConfig {
    /// Bounds of the listeners.
    pub limits: ListenerLimits,
    /// How old the news of revocations may be before hostnames that are closed then let nobody in, and
    /// some seconds later end the connections that they have.
    pub staleness_allowed_for: Duration,
    /// Verified chains that are remembered; about 2 KiB each.
    pub chains_remembered: usize,
    /// The CAs that the machine trusts, for `https://` origins without pins.
    pub machine_roots: Arc<RootCertStore>,
    /// The networks that no origin is reached in.
    pub denied_networks: DeniedNetworks,
    /// Where the last known good state is kept; nowhere when not given.
    pub last_known_good: Option<PathBuf>,
    /// The clock.
    pub clock: Clock,
}

impl Default for EdgeConfig {
    fn default() -> Self {
        Self {
            limits: ListenerLimits::default(),
            // A control plane in the same process vouches every few seconds; an hour is its repair.
            staleness_allowed_for: Duration::from_secs(3600),
            chains_remembered: 16_384,
            machine_roots: Arc::new(RootCertStore::empty()),
            denied_networks: DeniedNetworks::default(),
            last_known_good: None,
            clock: Clock::system(),
        }
    }
}

/// Why an edge did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The last known good state can't be opened.
    #[error("the edge's last known good state can't be opened")]
    LastKnownGood(#[from] LastKnownGoodError),
}

/// The edge. Cheap to clone; all clones are one edge.
#[derive(Clone)]
pub struct Edge {
    shared: Arc<Shared>,
    /// Writes the last known good state, behind what is in force.
    keeper: Option<Arc<Keeper>>,
    /// Held while an update is applied, so that what is kept has the order of what is in force.
    applying: Arc<Mutex<()>>,
}

impl fmt::Debug for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Edge(change {})", self.shared.state.change())
    }
}

impl Edge {
    /// Makes an edge that knows nothing yet: it turns everybody away until the first
    /// [`Edge::apply`], unless it has a last known good state, which it then starts from.
    ///
    /// # Errors
    /// [`StartError`] when the folder of that state can't be opened. A state that can't be read counts as
    /// none: whoever keeps the ledger tells it again.
    pub fn start(
        config: EdgeConfig,
        handover: Arc<dyn MqttHandover>,
        registry: &mut Registry,
    ) -> Result<Self, StartError> {
        let provider = provider();
        let standing = Arc::new(ArcSwap::from_pointee(Standing::default()));
        let examiner = Arc::new(Examiner::new(
            config.chains_remembered,
            provider.signature_verification_algorithms,
            Arc::clone(&standing),
        ));
        let maker = DoorMaker {
            tls: ConfigMaker {
                provider: Arc::clone(&provider),
                examiner: Arc::clone(&examiner),
                clock: config.clock.clone(),
            },
            origins: OriginMaker {
                provider,
                machine_roots: config.machine_roots,
                denied: config.denied_networks,
            },
        };
        let limits = config.limits;
        // Where only few may come, all of them may come at once.
        let arriving = (limits.connections / ARRIVING_SHARE).max(limits.handshakes.min(limits.connections));
        let shared = Arc::new(Shared {
            state: Arc::new(State::new(maker, standing, config.staleness_allowed_for, config.clock)),
            live: Arc::default(),
            metrics: Arc::new(Metrics::new(registry)),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            handover,
            examiner,
            limits,
            connections: Arc::new(Semaphore::new(limits.connections)),
            handshakes: Handshakes::new(limits.handshakes, limits.handshake_times),
            arriving: Arc::new(FairSlots::new(arriving, arriving / ARRIVING_SHARE)),
            sources: Arc::new(Sources::new(limits.new_per_source_per_s, limits.new_per_source_burst)),
        });
        let folder = config.last_known_good;
        let last_known_good = folder.as_deref().map(LastKnownGood::open).transpose()?;
        let unreadable =
            |error: &LastKnownGoodError| tracing::error!(%error, "the last known good state is not used");
        let kept =
            last_known_good.as_ref().and_then(|kept| kept.load().inspect_err(unreadable).ok().flatten());
        if let Some(snapshot) = kept {
            tracing::info!(change = snapshot.change, made_at = %snapshot.made_at, "starting from the last known good state");
            let change = snapshot.change;
            for fault in shared.state.update(&Update::Snapshot(Box::new(snapshot))).unwrap_or_default() {
                tracing::error!(%fault, "not served");
            }
            shared.metrics.stands_at(change);
        }
        let keeper = folder
            .zip(last_known_good)
            .map(|(folder, state)| Kept::new(folder, state))
            .map(|mut kept| Keeper::start(move |update, gives_up| kept.keep(update, gives_up)))
            .transpose()
            .map_err(LastKnownGoodError::Thread)?;
        shared.tasks.spawn(watch_time(Arc::downgrade(&shared), shared.stop.clone()));
        Ok(Self { shared, keeper: keeper.map(Arc::new), applying: Arc::default() })
    }

    /// Accepts connections until `stop` or [`Edge::drain`]. Connections that are open then go on.
    pub async fn serve(&self, socket: TcpListener, kind: ListenerKind, stop: CancellationToken) {
        listener::accept(Arc::clone(&self.shared), socket, kind, stop).await;
    }

    /// Makes a change the edge's own, and tells every connection that it denies to end.
    ///
    /// Takes the time of building what changed, so call it off the paths of connections; nothing
    /// waits for it. Afterwards the change is in force for every handshake, request and live
    /// connection; it is written to the last known good state later, which nothing waits for. A hostname or CA that
    /// can't be used spoils nothing else; [`Applied::faults`] names it.
    ///
    /// # Errors
    /// [`Gap`]; the edge goes on with what it had, and wants a snapshot. Also when its last known good state
    /// lacks a change.
    pub fn apply(&self, update: Update) -> Result<Applied, Gap> {
        let _applying = self.applying.lock().unwrap_or_else(PoisonError::into_inner);
        // Only where nothing would come into force the later for it.
        if let (Update::Delta(delta), Some(keeper)) = (&update, &self.keeper)
            && delta.events.is_empty()
            && keeper.asks(self.shared.state.now())
        {
            return Err(Gap { from: delta.from, at: self.change() });
        }
        let faults = self.shared.state.update(&update)?;
        for fault in &faults {
            tracing::error!(%fault, "not served");
        }
        let cut = match &update {
            Update::Snapshot(_) => self.shared.cut_denied(&self.shared.live.all()),
            Update::Delta(delta) if delta.events.iter().any(concerns_doors) => {
                self.shared.cut_denied(&self.shared.live.all())
            }
            Update::Delta(delta) => self.shared.cut_denied(&self.concerned(&delta.events)),
        };
        self.shared.metrics.stands_at(self.shared.state.change());
        if let Some(keeper) = &self.keeper {
            keeper.give(update);
        }
        Ok(Applied { cut, faults })
    }

    /// The number of the last change in force; what the next delta has to build on.
    pub fn change(&self) -> u64 {
        self.shared.state.change()
    }

    /// What would become of a visit now, by the same steps as one takes. Nothing is counted.
    pub fn rehearse(&self, rehearsal: &Rehearsal) -> Rehearsed {
        self.shared.rehearse(rehearsal)
    }

    /// Who knows whether the senders of retained messages may still speak. It holds no connection of the edge.
    pub fn senders(&self) -> Arc<dyn Senders> {
        Arc::new(KnownSenders(Arc::clone(&self.shared.state)))
    }

    /// What a dashboard shows.
    pub fn counters(&self) -> Counters {
        let live = self.shared.live.counts();
        Counters {
            change: self.change(),
            hosts: self.shared.state.doors().len(),
            revoked: self.shared.state.standing().revoked_count(),
            news_age: self.shared.state.age(),
            connections_https: live.https,
            connections_mqtt: live.mqtt,
            certificates_connected: live.certificates,
            ..self.shared.metrics.summary()
        }
    }

    /// The live connections that are looked for, newest first: `skip` are passed over, `limit` are shown.
    pub fn connections(&self, sought: &Sought, skip: usize, limit: usize) -> Connections {
        self.shared.live.find(sought, skip, limit)
    }

    /// Tells the live connections that are looked for to end; how many. Who has its right may come again.
    pub fn close(&self, sought: &Sought) -> usize {
        let guests = self.shared.live.sought(sought);
        guests.iter().filter(|guest| self.shared.cut(guest, Reason::ConnectionClosed)).count()
    }

    /// Stops all listeners, lets requests under way finish and tells MQTT clients to go; ends
    /// everything when the drain time is over. What is being kept meanwhile is written, or given up after some seconds;
    /// what comes later is not kept.
    pub async fn drain(&self) {
        let keeper = self.keeper.clone();
        let kept = tokio::task::spawn_blocking(move || keeper.map(|keeper| keeper.finish()));
        self.drain_connections().await;
        if let Err(error) = kept.await {
            tracing::error!(%error, "the last known good state is not kept");
        }
    }

    async fn drain_connections(&self) {
        self.shared.stop.cancel();
        self.shared.tasks.close();
        let drained = tokio::time::timeout(self.shared.limits.drain_timeout, self.shared.tasks.wait()).await;
        if drained.is_err() {
            let rest = self.shared.live.all();
            tracing::warn!(open = rest.len(), "connections were still open when the drain time ended");
            for guest in &rest {
                guest.cut.give(Reason::ServerStopping);
            }
            let _ = tokio::time::timeout(crate::handover::CUT_GRACE * 2, self.shared.tasks.wait()).await;
        }
    }

    /// The connections that an event about certificates or devices could deny.
    fn concerned(&self, events: &[Event]) -> Vec<Arc<Guest>> {
        let live = &self.shared.live;
        // Rare, and found by nothing that connections are indexed by.
        if events.iter().any(|event| matches!(event, Event::List(_) | Event::PrintRevoked(_))) {
            return live.all();
        }
        let of = |event: &Event| match event {
            Event::Revoked(key) => {
                let twins = self.shared.state.doors().twins(key.ca);
                let others = twins.into_iter().filter(|ca| *ca != key.ca);
                let keys = std::iter::once(*key).chain(others.map(|ca| CertificateKey { ca, ..*key }));
                keys.flat_map(|key| live.of_certificate_and_below(&key)).collect()
            }
            Event::Device(entry) => live.of_device(entry.account, &entry.device),
            _ => Vec::new(),
        };
        events.iter().flat_map(of).collect()
    }
}

/// Ends connections whose certificate, or the CA above it, has ended, those whose CA's own list has, and those
/// whose hostnames let nobody in while the news of revocations is too old. Ends itself with the edge.
async fn watch_time(edge: Weak<Shared>, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(WATCH_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut stale_looks, mut has_news, mut closed) = (0, false, 0);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let Some(shared) = edge.upgrade() else { return };
        for guest in shared.live.ended(shared.state.now()) {
            shared.cut(&guest, Reason::CertificateExpired);
        }
        let closed_now = shared.state.standing().closed_count(shared.state.now());
        if closed_now > closed {
            let cut = shared.cut_denied(&shared.live.all());
            tracing::error!(cas = closed_now, cut, "the own revocation lists of CAs are past their end");
        }
        closed = closed_now;
        let age = shared.state.age();
        // The first may be too old when it comes: that is another thing to say.
        if age.is_some() && !has_news {
            (stale_looks, has_news) = (0, true);
        }
        stale_looks = if shared.state.is_stale() { STALE_LOOKS.min(stale_looks) + 1 } else { 0 };
        // Once: who comes later is asked at the door.
        if stale_looks == STALE_LOOKS {
            let cut = shared.cut_denied(&shared.live.all());
            match age {
                Some(age) => tracing::error!(?age, cut, "the news of revocations is too old"),
                None => tracing::warn!("no news of revocations has come yet"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use muster_policy::host::Protocol;
    use muster_policy::identity::{CaId, Fingerprint};
    use muster_policy::time::UnixTime;

    use super::*;
    use crate::handover::NoBroker;
    use crate::live::Newcomer;
    use crate::snapshot::{Delta, PrintKey, Snapshot};

    const NOW: i64 = 1_800_000_000;

    fn snapshot(change: u64) -> Update {
        Update::Snapshot(Box::new(Snapshot {
            change,
            made_at: UnixTime::from_secs(NOW),
            accounts: Vec::new(),
            cas: Vec::new(),
            hosts: Vec::new(),
            revoked: Vec::new(),
            devices: Vec::new(),
            elsewhere: Default::default(),
        }))
    }

    fn delta(from: u64, change: u64) -> Update {
        Update::Delta(Delta { from, change, made_at: UnixTime::from_secs(NOW), events: Vec::new() })
    }

    #[tokio::test]
    async fn each_connection_is_asked_again_once_for_many_certificates() {
        let edge = Edge::start(EdgeConfig::default(), Arc::new(NoBroker), &mut Registry::default());
        let edge = edge.expect("an edge");
        let name = "api.example.com";
        let places = [0; 3].map(|_| {
            edge.shared.live.enter(Newcomer {
                name: name.parse().expect("a name"),
                host: name.parse().expect("a host"),
                protocol: Protocol::Https,
                holder: None,
                peer: ([192, 0, 2, 1], 4_711).into(),
                since: UnixTime::from_secs(NOW),
            })
        });
        let revoked = [1, 2].map(|number| {
            let fingerprint = Fingerprint::from_bytes([number; 32]);
            Event::PrintRevoked(PrintKey { ca: CaId::from_bytes([1; 16]), fingerprint })
        });
        assert_eq!(edge.concerned(&revoked).len(), places.len());
    }

    #[tokio::test]
    async fn what_is_in_force_does_not_wait_until_it_is_kept_and_is_kept_at_the_end() {
        let temp = tempfile::tempdir().expect("a folder");
        let config = EdgeConfig { last_known_good: Some(temp.path().join("edge")), ..EdgeConfig::default() };
        let start = || Edge::start(config.clone(), Arc::new(NoBroker), &mut Registry::default());
        let edge = start().expect("an edge");
        edge.apply(snapshot(1)).expect("taken");
        edge.apply(delta(1, 2)).expect("taken");
        edge.drain().await;
        let again = start().expect("the folder is free");
        assert_eq!(again.change(), 2);

        let (write, written) = std::sync::mpsc::sync_channel(8);
        let slow = Keeper::start(move |_, _| written.recv().map_err(|_| LastKnownGoodError::GivenUp));
        let slow = Edge { keeper: slow.ok().map(Arc::new), ..again };
        slow.apply(snapshot(3)).expect("taken");
        assert_eq!(slow.change(), 3);
        write.send(()).expect("nothing was written before");
    }

    #[tokio::test]
    async fn a_change_that_could_not_be_kept_has_everything_told_anew() {
        let edge = Edge::start(EdgeConfig::default(), Arc::new(NoBroker), &mut Registry::default());
        let (tell, told) = std::sync::mpsc::sync_channel(8);
        let keep = move |update: &Update, _: &_| {
            let is_delta = matches!(update, Update::Delta(_));
            tell.send(is_delta).map_err(|_| LastKnownGoodError::GivenUp)?;
            if is_delta { Err(LastKnownGoodError::Behind) } else { Ok(()) }
        };
        let keeper = Keeper::start(keep).ok().map(Arc::new);
        let edge = Edge { keeper, ..edge.expect("an edge") };
        assert_eq!(edge.counters().news_age, None, "none has come");
        edge.apply(snapshot(1)).expect("taken");
        assert!(edge.counters().news_age.is_some());
        assert!(!told.recv().expect("kept"));
        edge.apply(delta(1, 2)).expect("in force all the same");
        assert!(told.recv().expect("tried"));
        let gap = loop {
            if let Err(gap) = edge.apply(delta(2, 2)) {
                break gap;
            }
        };
        assert_eq!(gap, Gap { from: 2, at: 2 });
        edge.apply(delta(2, 3)).expect("not asked again at once");
        edge.apply(snapshot(3)).expect("taken");
    }
}
