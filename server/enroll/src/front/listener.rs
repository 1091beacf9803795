//! The accept loop, and what every connection passes before its first request.
//!
//! ```text
//! accept (never awaits a peer) -> slot for the connection, in fair shares of the sources
//!    -> ClientHello, timed -> slot for the handshake, likewise -> handshake, timed -> the handler
//! ```
//! A peer that sends nothing, or only the beginning of a hello, holds no handshake slot, and who has many
//! connections gives its oldest up to who has few: silent or idle sockets can't keep an honest client out, nor can
//! handshakes that stall (see [`muster_arrival`]). What was begun for a request goes on when its connection is
//! closed, and the same request gets the same answer again. Running out of file descriptors is survived: the loop
//! waits for some to come back.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use muster_arrival::accept::{EXHAUSTED_PAUSE, is_the_peers};
use muster_arrival::fair::{FairSlot, FairSlots, NoSlot};
use muster_arrival::handshakes::{Handshakes, Times, Unfinished};
use muster_arrival::hello::{HelloFault, read_hello};
use muster_arrival::source::source_of;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::server::{StartHandshake, TlsStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::tls::TlsSource;
use crate::metrics::{ConnectionRefusal, Metrics};

/// Bounds of a listener.
#[derive(Clone, Copy, Debug)]
pub struct ListenerLimits {
    /// Connections open at once.
    pub connections: usize,
    /// Connections open at once from one address (IPv6: one /64).
    pub connections_per_source: usize,
    /// Handshakes in progress at once. One source has a quarter of them at most, and fewer when others come.
    pub handshakes: usize,
    /// How long a peer may take to send its ClientHello.
    pub hello_timeout: Duration,
    /// How long the parts of a handshake may take after it.
    pub handshake_times: Times,
    /// How long open connections get to finish when the server stops.
    pub drain_timeout: Duration,
}

impl Default for ListenerLimits {
    /// Room for a gateway with thousands of devices behind one address; half of all slots stay free of it.
    fn default() -> Self {
        Self {
            connections: 8192,
            connections_per_source: 4096,
            handshakes: 512,
            hello_timeout: Duration::from_secs(5),
            handshake_times: Times::default(),
            drain_timeout: Duration::from_secs(10),
        }
    }
}

/// How long a peer whose hello is none may take to take its alert.
const ALERT_TIMEOUT: Duration = Duration::from_millis(500);

/// A listener that hands finished TLS connections to a handler.
pub(crate) struct Listener {
    pub(crate) limits: ListenerLimits,
    pub(crate) tls: TlsSource,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) stop: CancellationToken,
}

struct Shared {
    limits: ListenerLimits,
    tls: TlsSource,
    metrics: Arc<Metrics>,
    connections: Arc<FairSlots>,
    handshakes: Handshakes,
}

impl Listener {
    /// Accepts until stopped, then gives open connections time to finish.
    pub(crate) async fn run<H, F>(self, socket: TcpListener, handler: H)
    where
        H: Fn(TlsStream<TcpStream>, SocketAddr) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let limits = self.limits;
        let shared = Arc::new(Shared {
            limits,
            tls: self.tls,
            metrics: self.metrics,
            connections: Arc::new(FairSlots::new(limits.connections, limits.connections_per_source)),
            handshakes: Handshakes::new(limits.handshakes, limits.handshake_times),
        });
        let tasks = TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                () = self.stop.cancelled() => break,
                accepted = socket.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    if let Some(slot) = shared.slot(peer) {
                        tasks.spawn(Arc::clone(&shared).attend(stream, peer, handler.clone(), slot));
                    }
                }
                Err(error) => survive(&error, &shared.metrics).await,
            }
        }
        // Closed first: who comes now is told so at once, and does not wait in the backlog for the end.
        drop(socket);
        tasks.close();
        let drained = timeout(limits.drain_timeout, tasks.wait()).await;
        if drained.is_err() {
            tracing::warn!(open = tasks.len(), "connections were still open when the drain time ended");
        }
    }
}

impl Shared {
    fn slot(&self, peer: SocketAddr) -> Option<FairSlot> {
        self.connections
            .slot_now(source_of(peer.ip()))
            .inspect_err(|no_slot| {
                self.metrics.connection_refused(match no_slot {
                    NoSlot::ShareTaken => ConnectionRefusal::SourceLimit,
                    NoSlot::AllTaken => ConnectionRefusal::ConnectionLimit,
                });
            })
            .ok()
    }

    async fn attend<H, F>(
        self: Arc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
        handler: H,
        mut slot: FairSlot,
    ) where
        H: Fn(TlsStream<TcpStream>, SocketAddr) -> F,
        F: Future<Output = ()>,
    {
        tokio::select! {
            () = self.welcome(stream, peer, handler) => {}
            () = slot.taken() => self.metrics.connection_refused(ConnectionRefusal::ConnectionLimit),
        }
    }

    async fn welcome<H, F>(&self, stream: TcpStream, peer: SocketAddr, handler: H)
    where
        H: Fn(TlsStream<TcpStream>, SocketAddr) -> F,
        F: Future<Output = ()>,
    {
        match self.handshake(stream, peer).await {
            Ok(tls) => {
                let _open = self.metrics.connection_opened();
                handler(tls, peer).await;
            }
            Err(reason) => self.metrics.connection_refused(reason),
        }
    }

    async fn handshake(
        &self,
        mut stream: TcpStream,
        peer: SocketAddr,
    ) -> Result<TlsStream<TcpStream>, ConnectionRefusal> {
        let hello = match timeout(self.limits.hello_timeout, read_hello(&mut stream)).await {
            Ok(Ok(hello)) => hello,
            Ok(Err(fault)) => {
                if let HelloFault::Malformed(alert) = fault {
                    let _ = timeout(ALERT_TIMEOUT, stream.write_all(&alert)).await;
                }
                return Err(ConnectionRefusal::HelloMalformed);
            }
            Err(_) => return Err(ConnectionRefusal::Silent),
        };
        let config = hello.suited(self.tls.current());
        let begin = || StartHandshake::from_parts(hello.accepted, stream).into_stream(config);
        match self.handshakes.carry_out(source_of(peer.ip()), begin).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => {
                tracing::debug!(%peer, %error, "handshake failed");
                Err(ConnectionRefusal::HandshakeFailed)
            }
            Err(Unfinished::NoSlot) => Err(ConnectionRefusal::HandshakeLimit),
            Err(Unfinished::TooSlow) => Err(ConnectionRefusal::HandshakeTimeout),
        }
    }
}

/// Waits out what accept can fail with; a connection lost before accept needs no pause.
async fn survive(error: &io::Error, metrics: &Metrics) {
    if is_the_peers(error) {
        return;
    }
    metrics.connection_refused(ConnectionRefusal::AcceptFailed);
    tracing::warn!(%error, "can't accept connections; trying again");
    tokio::time::sleep(EXHAUSTED_PAUSE).await;
}
