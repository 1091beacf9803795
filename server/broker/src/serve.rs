//! The broker as its users see it: start, serve a connection, drain.

use core::hash::BuildHasher;
use core::net::SocketAddr;
use std::hash::RandomState;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use muster_policy::access::Holder;
use muster_policy::identity::AccountId;
use muster_policy::mqtt::{Judge, Senders};
use muster_policy::name::Hostname;
use muster_policy::time::UnixTime;
use tokio::task::JoinHandle;
use tokio::time::Duration;
use tracing::debug;
use uuid::Uuid;

use crate::clock::Clock;
use crate::config::{BrokerConfig, ConfigError, EngineKind, Settings};
use crate::cut::{Cut, CutReason};
use crate::embedded::{Embedded, Hub, keep_time};
use crate::engine::{Client, Engine, PeerNames};
use crate::gate::{self, Admission};
use crate::metrics::{Metrics, Snapshot};
use crate::store::{Loaded, Store, StoreError};
use crate::stream::{Event, Packets, Reading, Stream, StreamError};

use crate::upstream::Upstream;
use crate::wire::connect::{Connect, Unconnectable, write_refused};
use crate::wire::{Broken, Code, Frame};

/// A connection that the edge hands over.
#[derive(Debug)]
pub struct Peer {
    /// Whose host it came to. Its topics and sessions are the account's own.
    pub account: AccountId,
    /// Who it is; nobody on hosts that do not demand a certificate.
    pub holder: Option<Arc<Holder>>,
    /// The host it came to.
    pub host: Hostname,
    /// Where it comes from.
    pub source: SocketAddr,
    /// The signal that its certificate no longer counts.
    pub cut: Cut,
    /// Judges what it asks, CONNECT first.
    pub judge: Arc<dyn Judge>,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ended {
    /// The client closed it without a DISCONNECT.
    Closed,
    /// The edge cut it.
    Cut(CutReason),
    /// The client said goodbye.
    Disconnected,
    /// We ended it, for this reason.
    Ours(Code),
    /// Its CONNECT was refused.
    Refused(Code),
    /// It sent no whole CONNECT in time.
    Silent,
    /// It took nothing of what was sent to it.
    Stalled,
    /// The other broker ended it, or can't be reached.
    Upstream,
}

impl Ended {
    /// The end in snake case: the label of logs and metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Cut(reason) => reason.label(),
            Self::Disconnected => "disconnected",
            Self::Ours(code) | Self::Refused(code) => code.label(),
            Self::Silent => "silent",
            Self::Stalled => "stalled",
            Self::Upstream => "upstream",
        }
    }
}

/// The broker can't start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The settings can't be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The file can't be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The broker; cheap to clone.
#[derive(Clone, Debug)]
pub struct Broker(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    settings: Arc<Settings>,
    metrics: Arc<Metrics>,
    engine: AnyEngine,
    /// How many clients without an id were given one.
    assigned: AtomicU64,
    /// What makes those ids unlike those of any other process: it is keyed at random.
    assigned_by: RandomState,
    keeper: Option<JoinHandle<()>>,
}

#[derive(Debug)]
enum AnyEngine {
    Embedded(Embedded),
    Upstream(Upstream),
    #[cfg(feature = "rumqttd")]
    Rumqttd(crate::rumqttd::Rumqttd),
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(keeper) = &self.keeper {
            keeper.abort();
        }
    }
}

impl Broker {
    /// Starts the broker. `now` is the wall clock, read once; a runtime must be there.
    ///
    /// # Errors
    /// When the settings or the file can't be used.
    pub fn start(config: &BrokerConfig, now: UnixTime) -> Result<Self, StartError> {
        Self::start_with(config, now, Store::open)
    }

    /// The same with a way of its own to open the file.
    pub(crate) fn start_with(
        config: &BrokerConfig,
        now: UnixTime,
        open: impl FnOnce(&Path, &Arc<Metrics>) -> Result<(Store, Loaded), StoreError>,
    ) -> Result<Self, StartError> {
        let settings = Arc::new(Settings::check(config)?);
        let metrics = Arc::new(Metrics::default());
        let (engine, keeper) = match config.engine {
            EngineKind::Embedded => {
                let (store, loaded) = match &config.file {
                    Some(path) => open(path, &metrics)?,
                    None => (Store::nowhere(), Loaded::default()),
                };
                let clock = Clock::new(now);
                let hub = Arc::new(Hub::new(Arc::clone(&settings), clock, Arc::clone(&metrics), store));
                hub.restore(loaded);
                let keeper = tokio::spawn(keep_time(Arc::downgrade(&hub)));
                (AnyEngine::Embedded(Embedded::new(hub)), Some(keeper))
            }
            EngineKind::Upstream => {
                let upstream = Upstream::new(config, Arc::clone(&settings), Arc::clone(&metrics))?;
                (AnyEngine::Upstream(upstream), None)
            }
            #[cfg(feature = "rumqttd")]
            EngineKind::Rumqttd => {
                let engine = crate::rumqttd::Rumqttd::new(Arc::clone(&settings), Arc::clone(&metrics));
                (AnyEngine::Rumqttd(engine), None)
            }
            #[cfg(not(feature = "rumqttd"))]
            EngineKind::Rumqttd => return Err(ConfigError::EngineMissing.into()),
        };
        let assigned = AtomicU64::new(1);
        let assigned_by = RandomState::new();
        Ok(Self(Arc::new(Inner { settings, metrics, engine, assigned, assigned_by, keeper })))
    }

    #[cfg(test)]
    pub(crate) fn hub(&self) -> &Hub {
        match &self.0.engine {
            AnyEngine::Embedded(engine) => engine.hub(),
            _ => panic!("another engine"),
        }
    }

    /// Serves one connection until it ends. Dropping the future ends it without a goodbye.
    pub async fn serve<S: Stream>(&self, stream: S, peer: Peer) -> Ended {
        let _counted = self.0.metrics.connections.while_held();
        // Boxed one by one: an idle connection then holds the memory of its own engine's future alone,
        // and not of CONNECT, which is long past, or of the engine that it does not use.
        let ended = match Box::pin(self.admit(stream, peer)).await {
            Ok(client) => match &self.0.engine {
                AnyEngine::Embedded(engine) => Box::pin(engine.serve(*client)).await,
                AnyEngine::Upstream(engine) => Box::pin(engine.serve(*client)).await,
                #[cfg(feature = "rumqttd")]
                AnyEngine::Rumqttd(engine) => Box::pin(engine.serve(*client)).await,
            },
            Err(ended) => ended,
        };
        self.0.metrics.ended(ended);
        debug!(ended = ended.label(), "an MQTT connection ended");
        ended
    }

    /// Answers a client's CONNECT with a refusal, and closes.
    ///
    /// For a client that the edge does not let in after all: it learns so in its protocol's words, and does
    /// not take a closed connection for a broken one. A silent client is waited for as in [`Broker::serve`].
    pub async fn refuse<S: Stream>(&self, stream: S, code: Code) -> Ended {
        let _counted = self.0.metrics.connections.while_held();
        let ended = Box::pin(self.turn_away(stream, code)).await;
        self.0.metrics.ended(ended);
        ended
    }

    /// Asks from now on whether the senders of retained messages and wills may still speak; the first to be given is
    /// asked.
    ///
    /// Only our own engine asks: what another broker or router retains is its own.
    pub fn heed(&self, senders: Arc<dyn Senders>) {
        match &self.0.engine {
            AnyEngine::Embedded(engine) => engine.heed(senders),
            AnyEngine::Upstream(_) => {}
            #[cfg(feature = "rumqttd")]
            AnyEngine::Rumqttd(_) => {}
        }
    }

    /// What was counted until now.
    pub fn metrics(&self) -> Snapshot {
        self.0.metrics.snapshot()
    }

    /// Ends all connections with "server shutting down". Those in [`Broker::serve`] return soon after.
    pub fn drain(&self) {
        match &self.0.engine {
            AnyEngine::Embedded(engine) => engine.drain(),
            AnyEngine::Upstream(engine) => engine.drain(),
            #[cfg(feature = "rumqttd")]
            AnyEngine::Rumqttd(engine) => engine.drain(),
        }
    }

    /// Puts on disk what is not there yet. Call it when all of [`Broker::serve`] have returned, or
    /// were dropped: what those left to do is waited for.
    pub async fn close(&self) {
        match &self.0.engine {
            AnyEngine::Embedded(engine) => engine.close().await,
            AnyEngine::Upstream(engine) => engine.close().await,
            #[cfg(feature = "rumqttd")]
            AnyEngine::Rumqttd(engine) => engine.close().await,
        }
    }

    /// Waits for CONNECT and holds it against the certificate.
    async fn admit<S: Stream>(&self, stream: S, peer: Peer) -> Result<Box<Client<S>>, Ended> {
        let settings = &self.0.settings;
        let mut packets = Packets::new(stream, settings.quotas.packet_bytes.min(CONNECT_BYTES_MAX));
        let names = Box::new(PeerNames::of(&peer));
        let Peer { account, holder, mut cut, judge, .. } = peer;
        let first = tokio::select! {
            reason = cut.wait() => return Err(Ended::Cut(reason)),
            first = self.first(&mut packets) => first?,
        };
        let mut connect = match Connect::parse(&first) {
            Ok(connect) => connect,
            Err(fault) => return Err(not_a_connect(packets, fault).await),
        };
        let admitted = gate::admit(&mut connect, holder.as_deref(), settings, judge, || self.assigned_id());
        let Admission { owner, gate, is_assigned } = match admitted {
            Ok(admission) => admission,
            Err(code) => {
                write_refused(packets.output(), connect.version, code);
                packets.finish().await;
                return Err(Ended::Refused(code));
            }
        };
        packets.take_up_to(settings.quotas.packet_bytes);
        Ok(Box::new(Client { packets, gate, connect, is_assigned, owner, account, cut, peer: names }))
    }

    /// Waits for CONNECT, whoever comes with it, and says no.
    async fn turn_away<S: Stream>(&self, stream: S, code: Code) -> Ended {
        let mut packets = Packets::new(stream, self.0.settings.quotas.packet_bytes.min(CONNECT_BYTES_MAX));
        let first = match self.first(&mut packets).await {
            Ok(first) => first,
            Err(ended) => return ended,
        };
        match Connect::parse(&first) {
            Ok(connect) => {
                write_refused(packets.output(), connect.version, code);
                packets.finish().await;
                Ended::Refused(code)
            }
            Err(fault) => not_a_connect(packets, fault).await,
        }
    }

    /// The first packet of a client, which has to come in time.
    async fn first<S: Stream>(&self, packets: &mut Packets<S>) -> Result<Frame, Ended> {
        let limit = Duration::from_secs(self.0.settings.quotas.connect_timeout_s.into());
        match tokio::time::timeout(limit, packets.event(Reading::Wanted)).await {
            Err(_) => Err(Ended::Silent),
            Ok(Ok(Event::Frame(frame))) => Ok(frame),
            Ok(Ok(Event::Closed | Event::Drained)) | Ok(Err(StreamError::Io(_))) => Err(Ended::Closed),
            Ok(Err(StreamError::Broken(broken))) => Err(Ended::Refused(broken.code)),
        }
    }

    /// A client id that no other client of this broker has.
    fn assigned_id(&self) -> String {
        let number = self.0.assigned.fetch_add(1, Ordering::Relaxed);
        let half = |part: u8| self.0.assigned_by.hash_one((part, number)).to_be_bytes();
        let mut octets = [0; 16];
        for (octet, value) in octets.iter_mut().zip(half(0).into_iter().chain(half(1))) {
            *octet = value;
        }
        format!("auto-{}", Uuid::new_v8(octets))
    }
}

/// The largest first packet: what is held of someone who has not been let in. A CONNECT with long names and a
/// long will has a quarter of it.
const CONNECT_BYTES_MAX: u32 = 256 * 1024;

/// Says what is wrong with a first packet, where its version is known, and closes.
async fn not_a_connect<S: Stream>(mut packets: Packets<S>, fault: Unconnectable) -> Ended {
    let Unconnectable { version, broken: Broken { code, what } } = fault;
    debug!(%code, what, "a CONNECT that can't be served");
    if let Some(version) = version {
        write_refused(packets.output(), version, code);
        packets.finish().await;
    }
    Ended::Refused(code)
}
