//! The accept loop, and what every connection passes before its first request.
//!
//! ```text
//! accept (never awaits a peer) -> slot for the connection, per source and in all
//!    -> first byte, timed -> slot for the handshake -> handshake, timed -> the handler
//! ```
//! A peer that sends nothing holds a connection slot for a few seconds and no handshake slot, so
//! silent sockets can't keep an honest client out. When slots run out new connections are closed
//! at once; nothing queues. Running out of file descriptors is survived: the loop waits for some to
//! come back.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::server::{StartHandshake, TlsStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::hello::Hello;
use super::tls::TlsSource;
use crate::admission::source_of;
use crate::metrics::{ConnectionRefusal, Metrics};

/// Bounds of a listener.
#[derive(Clone, Copy, Debug)]
pub struct ListenerLimits {
    /// Connections open at once.
    pub connections: usize,
    /// Connections open at once from one address (IPv6: one /64).
    pub connections_per_source: usize,
    /// Handshakes in progress at once.
    pub handshakes: usize,
    /// How long a peer may take to send its first byte.
    pub first_byte_timeout: Duration,
    /// How long a handshake may take.
    pub handshake_timeout: Duration,
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
            first_byte_timeout: Duration::from_secs(5),
            handshake_timeout: Duration::from_secs(10),
            drain_timeout: Duration::from_secs(10),
        }
    }
}

/// How long the loop pauses when the system has no file descriptor left.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);

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
    handshakes: Semaphore,
    sources: Sources,
}

impl Listener {
    /// Accepts until stopped, then gives open connections time to finish.
    pub(crate) async fn run<H, F>(self, socket: TcpListener, handler: H)
    where
        H: Fn(TlsStream<TcpStream>, SocketAddr) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = ()> + Send,
    {
        let connections = Arc::new(Semaphore::new(self.limits.connections));
        let shared = Arc::new(Shared {
            limits: self.limits,
            tls: self.tls,
            metrics: self.metrics,
            handshakes: Semaphore::new(self.limits.handshakes),
            sources: Sources::default(),
        });
        let tasks = TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                () = self.stop.cancelled() => break,
                accepted = socket.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let Ok(slot) = Arc::clone(&connections).try_acquire_owned() else {
                        shared.metrics.connection_refused(ConnectionRefusal::ConnectionLimit);
                        continue;
                    };
                    let Some(source) = shared.sources.take(peer.ip(), self.limits.connections_per_source)
                    else {
                        shared.metrics.connection_refused(ConnectionRefusal::SourceLimit);
                        continue;
                    };
                    let (shared, handler) = (Arc::clone(&shared), handler.clone());
                    tasks.spawn(async move {
                        shared.welcome(stream, peer, handler).await;
                        shared.sources.give_back(source);
                        drop::<OwnedSemaphorePermit>(slot);
                    });
                }
                Err(error) => survive(&error, &shared.metrics).await,
            }
        }
        // Closed first: who comes now is told so at once, and does not wait in the backlog for the end.
        drop(socket);
        tasks.close();
        let drained = tokio::time::timeout(self.limits.drain_timeout, tasks.wait()).await;
        if drained.is_err() {
            tracing::warn!(open = tasks.len(), "connections were still open when the drain time ended");
        }
    }
}

impl Shared {
    async fn welcome<H, F>(&self, stream: TcpStream, peer: SocketAddr, handler: H)
    where
        H: Fn(TlsStream<TcpStream>, SocketAddr) -> F,
        F: Future<Output = ()>,
    {
        // An answer is one small write; without this the last segment would wait for an ACK.
        let _ = stream.set_nodelay(true);
        // Looked at, not only waited for: a socket that was never read from is called readable too soon.
        let mut first_byte = [0];
        let looked = stream.peek(&mut first_byte);
        let looked = tokio::time::timeout(self.limits.first_byte_timeout, looked).await;
        if !matches!(looked, Ok(Ok(1))) {
            self.metrics.connection_refused(ConnectionRefusal::Silent);
            return;
        }
        match tokio::time::timeout(self.limits.handshake_timeout, self.handshake(stream)).await {
            Ok(Ok(tls)) => {
                self.metrics.connection_opened();
                handler(tls, peer).await;
                self.metrics.connection_closed();
            }
            Ok(Err(error)) => {
                tracing::debug!(%peer, %error, "handshake failed");
                self.metrics.connection_refused(ConnectionRefusal::HandshakeFailed);
            }
            Err(_) => self.metrics.connection_refused(ConnectionRefusal::HandshakeTimeout),
        }
    }

    async fn handshake(&self, mut stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let _slot = self.handshakes.acquire().await.map_err(io::Error::other)?;
        let hello = Hello::read(&mut stream).await?;
        let config = hello.suited(self.tls.current());
        StartHandshake::from_parts(hello.accepted, stream).into_stream(config).await
    }
}

/// Waits out what accept can fail with; a connection lost before accept needs no pause.
async fn survive(error: &io::Error, metrics: &Metrics) {
    if matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    ) {
        return;
    }
    metrics.connection_refused(ConnectionRefusal::AcceptFailed);
    tracing::warn!(%error, "can't accept connections; trying again");
    tokio::time::sleep(EXHAUSTED_PAUSE).await;
}

/// How many connections each source has open. Holds an entry only while there is one.
#[derive(Default)]
struct Sources(Mutex<HashMap<IpAddr, usize>>);

impl Sources {
    fn take(&self, peer: IpAddr, most: usize) -> Option<IpAddr> {
        let source = source_of(peer);
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(source).or_insert(0);
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(source)
    }

    fn give_back(&self, source: IpAddr) {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                open.remove(&source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_has_only_its_share_and_gets_it_back() {
        let sources = Sources::default();
        let peer: IpAddr = "192.0.2.1".parse().expect("an address");
        assert!(sources.take(peer, 2).is_some() && sources.take(peer, 2).is_some());
        assert!(sources.take(peer, 2).is_none());
        assert!(sources.take("192.0.2.2".parse().expect("an address"), 2).is_some());
        sources.give_back(peer);
        assert!(sources.take(peer, 2).is_some());
    }

    #[test]
    fn an_idle_source_leaves_no_entry() {
        let sources = Sources::default();
        let peer: IpAddr = "2001:db8::1".parse().expect("an address");
        let source = sources.take(peer, 1).expect("free");
        sources.give_back(source);
        assert!(sources.0.lock().expect("not poisoned").is_empty());
    }
}
