//! The swap of the connection to the broker under a live session.
//!
//! First the new connection is made, handshake and all, while traffic goes on. Then packets of the client that
//! begin an exchange wait, at most [`SETTLE_TIMEOUT`], for those under way to end. Then the session moves:
//! - a session that the broker keeps (3.1.1 without clean session; 5.0), or one whose will a second connection
//!   would publish: leave the old connection by DISCONNECT, read it to its end, and take the session over;
//! - another (3.1.1, clean, no will): make sure that the broker has read all that was sent, take over with
//!   CONNECT and the subscriptions in one write, so that no message falls between, and only then read the old
//!   connection to its end.
//!
//! The client's bytes wait meanwhile; what the broker sends on either connection reaches it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use backon::ExponentialBackoff;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::client::TlsStream;

use super::opening::Welcome;
use super::packet::{Kind, Packet};
use super::session::{KEPT_MAX_BYTES, LEAVE, Session, Uncarriable};
use super::{Carrier, End, Upstream, lost};
use crate::carry::breaker::pauses;
use crate::carry::upstream::DialFault;
use crate::identity::Identity;

/// How long exchanges under way may take to end before the session moves with them.
const SETTLE_TIMEOUT: Duration = Duration::from_millis(500);
/// How long the old connection may take to end after DISCONNECT.
const LEAVE_TIMEOUT: Duration = Duration::from_millis(500);
/// How long the broker may take for the whole move.
const TAKEOVER_TIMEOUT: Duration = Duration::from_secs(5);

/// MQTT 3.1.1 §3.12.
const PINGREQ: &[u8] = &[0xc0, 0x00];

type Dialling = Pin<Box<dyn Future<Output = Result<TlsStream<TcpStream>, DialFault>> + Send>>;

/// How far a swap is.
pub(super) enum Swap {
    /// Nothing to do.
    Idle,
    /// The new connection is being made.
    Dialling { to: Arc<Identity>, dialling: Dialling, pauses: ExponentialBackoff },
    /// The new connection is there; exchanges are ending.
    Settling { to: Arc<Identity>, stream: Box<TlsStream<TcpStream>>, until: Instant },
}

impl Swap {
    /// Whether packets that begin an exchange wait.
    pub(super) fn holds(&self) -> bool {
        matches!(self, Self::Settling { .. })
    }

    /// Whether the session moves now.
    pub(super) fn is_due(&self, session: &Session, upstream: &Upstream) -> bool {
        let Self::Settling { until, .. } = self else { return false };
        let is_settled = session.is_quiet() && !upstream.output.is_unsent();
        session.is_welcome() && (is_settled || session.uncarriable().is_some() || *until <= Instant::now())
    }

    /// Whether this swap already leads to `identity`.
    fn leads_to(&self, identity: &Arc<Identity>) -> bool {
        match self {
            Self::Idle => false,
            Self::Dialling { to, .. } | Self::Settling { to, .. } => Arc::ptr_eq(to, identity),
        }
    }

    /// Wait for the next step of the swap; cancel-safe.
    pub(super) async fn progress(&mut self) -> Option<Result<(), DialFault>> {
        match self {
            Self::Idle => std::future::pending().await,
            Self::Settling { until, .. } => {
                if *until <= Instant::now() {
                    // Only the broker's CONNACK is awaited still.
                    std::future::pending::<()>().await;
                }
                tokio::time::sleep_until(*until).await;
                None
            }
            Self::Dialling { to, dialling, .. } => {
                let outcome = dialling.as_mut().await;
                let to = Arc::clone(to);
                Some(outcome.map(|stream| {
                    let until = Instant::now() + SETTLE_TIMEOUT;
                    *self = Self::Settling { to, stream: Box::new(stream), until };
                }))
            }
        }
    }
}

impl Carrier {
    /// The identities changed: begin a swap if the one in use is another.
    pub(super) fn begin_swap(&mut self) {
        let Some(identity) = self.relay.identity() else { return };
        let is_same = identity.is_same(&self.identity) || self.swap.leads_to(&identity);
        if !is_same {
            let dialling = self.dialling(&identity, Duration::ZERO);
            self.swap = Swap::Dialling { to: identity, dialling, pauses: pauses() };
        }
    }

    /// A dial failed: again after a pause. The session stays where it is.
    pub(super) fn retry_swap(&mut self, fault: &DialFault) {
        self.relay.health.failed(&format!("the new certificate waits for a connection: {fault}"));
        if let Swap::Dialling { to, mut pauses, .. } = std::mem::replace(&mut self.swap, Swap::Idle) {
            let pause = pauses.next().unwrap_or(crate::carry::breaker::PAUSE_MAX);
            let dialling = self.dialling(&to, pause);
            self.swap = Swap::Dialling { to, dialling, pauses };
        }
    }

    /// Move the session to the connection that waits.
    pub(super) async fn move_session(&mut self) -> Result<(), End> {
        let Swap::Settling { to, stream, .. } = std::mem::replace(&mut self.swap, Swap::Idle) else {
            return Ok(());
        };
        if let Some(why) = self.session.uncarriable() {
            return Err(End::Uncarriable(why));
        }
        let next = Upstream::new(*stream);
        let moving = Box::pin(self.take_over(next));
        match tokio::time::timeout(TAKEOVER_TIMEOUT, moving).await {
            Ok(outcome) => outcome?,
            Err(_) => return Err(End::UpstreamLost("the broker did not take the session over".to_owned())),
        }
        self.identity = to;
        self.relay.health.remade();
        self.relay.health.succeeded();
        // The identities may have moved on meanwhile.
        self.begin_swap();
        Ok(())
    }

    fn dialling(&self, identity: &Arc<Identity>, pause: Duration) -> Dialling {
        let (relay, identity) = (Arc::clone(&self.relay), Arc::clone(identity));
        Box::pin(async move {
            tokio::time::sleep(pause).await;
            relay.upstream.dial(&identity).await
        })
    }

    async fn take_over(&mut self, mut next: Upstream) -> Result<(), End> {
        let opening = self.session.opening();
        if opening.outlives_connection() || opening.would_fire_will() {
            self.leave().await?;
            let welcome = self.take(&mut next).await?;
            self.upstream = next;
            self.say_again(&welcome).await?;
        } else {
            if self.session.opening().is_named() {
                self.fence().await?;
            }
            let welcome = self.take(&mut next).await?;
            let waiting = self.await_subscribed(&mut next).await?;
            if self.session.opening().is_named() {
                // The broker ends it; see `fence`.
                self.drain().await?;
            } else {
                self.leave().await?;
            }
            self.upstream = next;
            self.say_again(&welcome).await?;
            for packet in waiting {
                self.handle_upstream(&packet)?;
            }
        }
        while !self.session.is_resubscribed() {
            let packet = read(&mut self.upstream).await?;
            self.make_room().await?;
            self.handle_upstream(&packet)?;
        }
        if let Some(why) = self.session.uncarriable() {
            return Err(End::Uncarriable(why));
        }
        self.session.write_lost_pings(&mut self.local.output.queue);
        Ok(())
    }

    /// Wait until the broker has read all that was sent on the old connection, by a ping of the relay's own.
    ///
    /// From here on nothing is sent on it. A broker that closes a socket with unread bytes resets it, and with
    /// that drops what it had still to send.
    async fn fence(&mut self) -> Result<(), End> {
        let until = Instant::now() + LEAVE_TIMEOUT;
        self.upstream.output.queue.extend_from_slice(PINGREQ);
        match tokio::time::timeout_at(until, self.upstream.output.flush()).await {
            Ok(flushed) => flushed.map_err(lost)?,
            Err(_) => return Ok(()),
        }
        while let Ok(packet) = tokio::time::timeout_at(until, read(&mut self.upstream)).await {
            let packet = packet?;
            if packet.kind() == Kind::Pingresp && !self.session.awaits_ping() {
                return Ok(());
            }
            self.make_room().await?;
            self.handle_upstream(&packet)?;
        }
        Ok(())
    }

    /// CONNECT on the new connection, and its CONNACK.
    async fn take(&mut self, next: &mut Upstream) -> Result<Welcome, End> {
        self.session.write_takeover(&mut next.output.queue);
        next.output.flush().await.map_err(lost)?;
        let packet = read(next).await?;
        self.session.opening().welcome(&packet).map_err(End::UpstreamFault)
    }

    async fn say_again(&mut self, welcome: &Welcome) -> Result<(), End> {
        self.session.write_rest(welcome, &mut self.upstream.output.queue).map_err(End::Uncarriable)?;
        self.upstream.output.flush().await.map_err(lost)
    }

    /// The answers to the relay's own SUBSCRIBE packets; what else came is kept for after the old connection.
    async fn await_subscribed(&mut self, next: &mut Upstream) -> Result<Vec<Packet>, End> {
        let (mut waiting, mut bytes) = (Vec::new(), 0_usize);
        while !self.session.is_resubscribed() {
            let packet = read(next).await?;
            if packet.kind() == Kind::Suback {
                self.session.handle_upstream(&packet).map_err(End::UpstreamFault)?;
                continue;
            }
            bytes = bytes.saturating_add(packet.size());
            if bytes > KEPT_MAX_BYTES {
                return Err(End::Uncarriable(Uncarriable::TooMuch));
            }
            waiting.push(packet);
        }
        Ok(waiting)
    }

    /// Leave the old connection by DISCONNECT, and pass on what the broker had sent on it.
    async fn leave(&mut self) -> Result<(), End> {
        self.upstream.output.queue.extend_from_slice(LEAVE);
        // The broker may have closed it already, which is as good.
        let _ = tokio::time::timeout(LEAVE_TIMEOUT, self.upstream.output.flush()).await;
        self.drain().await
    }

    /// Pass on what the broker had sent on the old connection, to its end.
    async fn drain(&mut self) -> Result<(), End> {
        let until = Instant::now() + LEAVE_TIMEOUT;
        loop {
            let packet = match tokio::time::timeout_at(until, read(&mut self.upstream)).await {
                Ok(Ok(packet)) if packet.kind() != Kind::Disconnect => packet,
                Ok(Err(End::UpstreamFault(fault))) => return Err(End::UpstreamFault(fault)),
                Ok(Ok(_) | Err(_)) | Err(_) => return Ok(()),
            };
            self.make_room().await?;
            self.handle_upstream(&packet)?;
        }
    }

    /// Wait for the client to take what is queued for it.
    async fn make_room(&mut self) -> Result<(), End> {
        if self.local.output.has_room() {
            return Ok(());
        }
        self.local.output.flush().await.map_err(|_| End::ClientLost)
    }
}

/// The next packet of the broker.
async fn read(upstream: &mut Upstream) -> Result<Packet, End> {
    loop {
        if let Some(packet) = upstream.input.next_packet().map_err(End::UpstreamFault)? {
            return Ok(packet);
        }
        upstream.input.fill().await.map_err(lost)?;
        if upstream.input.is_ended() {
            return Err(End::UpstreamLost("the broker closed the connection".to_owned()));
        }
    }
}
