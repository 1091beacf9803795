//! The `mqtt` relay: a session of a local client, carried to the broker over mutual TLS.
//!
//! The client speaks MQTT 3.1.1 or 5.0 in clear on loopback and needs no change. When the identity is swapped
//! the connection to the broker is re-made under the session (`swap`); what must be said again is in
//! `session`. When the broker is lost the client's connection is closed after a random pause, so that it
//! comes again by its own rules and not together with all others. Memory of one client: two queues and one
//! packet of each side, and what `session` keeps; all bounded.

pub mod opening;
pub mod packet;
mod peer;
pub mod session;
mod subscriptions;
mod swap;

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use self::opening::{COME_AGAIN, OTHER_VERSION, Opening, Will, unavailable};
use self::packet::{Kind, Packet, PacketFault, Version};
use self::peer::Peer;
use self::session::{LEAVE, Pass, Session, Uncarriable};
use self::swap::Swap;
use super::breaker::broken_pause;
use super::clock;
use super::relay::Relay;
use super::upstream::refusal;
use crate::identity::{Identities, Identity};

/// Time for the client's CONNECT.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for the last bytes of a connection.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

type Local = Peer<TcpStream>;
type Upstream = Peer<TlsStream<TcpStream>>;

/// A session with both its ends.
struct Carrier {
    relay: Arc<Relay>,
    identities: Identities,
    identity: Arc<Identity>,
    session: Session,
    local: Local,
    upstream: Upstream,
    /// A packet of the client that begins an exchange, and waits for the swap.
    parked: Option<Packet>,
    swap: Swap,
}

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("the broker ended the session")]
    BrokerLeft,
    #[error("the device's certificate ended")]
    CertificateEnded,
    #[error("the client left")]
    ClientLeft,
    #[error("the client was lost")]
    ClientLost,
    #[error("the client sent {0}")]
    ClientFault(PacketFault),
    #[error("the agent stops")]
    Stopping,
    #[error("the session can't move to the new certificate: {0}")]
    Uncarriable(Uncarriable),
    #[error("the broker sent {0}")]
    UpstreamFault(PacketFault),
    #[error("{0}")]
    UpstreamLost(String),
}

pub(super) async fn serve(relay: Arc<Relay>, socket: TcpStream) {
    let mut local = Local::new(socket);
    let opening = tokio::select! {
        opening = tokio::time::timeout(CONNECT_TIMEOUT, read_opening(&mut local)) => opening,
        () = relay.shutdown.cancelled() => return,
    };
    // A client that is silent, or speaks something else, gets no answer (5.0 §3.1.4).
    let Ok(Some(opening)) = opening else { return };
    let Some(mut carrier) = Carrier::open(relay, local, opening).await else { return };
    // The state machine is large and lives as long as the client: off the task's own frame.
    let end = Box::pin(carrier.run()).await;
    carrier.end(end).await;
}

async fn read_opening(local: &mut Local) -> Option<Opening> {
    loop {
        match local.input.next_packet().ok()? {
            Some(packet) if packet.kind() == Kind::Connect => match Opening::read(&packet) {
                Ok(opening) => return Some(opening),
                Err(PacketFault::OtherVersion) => {
                    local.output.queue.extend_from_slice(OTHER_VERSION);
                    local.output.close().await.ok()?;
                    return None;
                }
                Err(_) => return None,
            },
            Some(_) => return None,
            None if local.input.is_ended() => return None,
            None => local.input.fill().await.ok()?,
        }
    }
}

impl Carrier {
    /// Reach the broker, or tell the client that it can't be reached.
    async fn open(relay: Arc<Relay>, mut local: Local, opening: Opening) -> Option<Self> {
        // Before the identity is read, so that no swap is missed.
        let identities = relay.identities.clone();
        let dialled = match relay.identity() {
            None => {
                relay.health.turned_away("the device has no certificate yet, or it has ended");
                None
            }
            Some(identity) => match relay.upstream.dial(&identity).await {
                Ok(stream) => Some((identity, stream)),
                Err(fault) => {
                    relay.health.failed(&fault.to_string());
                    None
                }
            },
        };
        let Some((identity, stream)) = dialled else {
            local.output.queue.extend_from_slice(&unavailable(opening.version()));
            // The client may be gone: then there is nobody to tell.
            let _ = tokio::time::timeout(CLOSE_TIMEOUT, local.output.close()).await;
            return None;
        };
        let mut upstream = Upstream::new(stream);
        upstream.output.queue.extend_from_slice(&opening.first_connect());
        let session = Session::new(opening);
        Some(Self { relay, identities, identity, session, local, upstream, parked: None, swap: Swap::Idle })
    }

    /// Carry packets until something ends it.
    async fn run(&mut self) -> End {
        loop {
            if let Err(end) = self.pump() {
                return end;
            }
            if self.swap.is_due(&self.session, &self.upstream) {
                match self.move_session().await {
                    // Packets may have come behind the broker's CONNACK, and nothing else may come for long.
                    Ok(()) => continue,
                    Err(end) => return end,
                }
            }
            if let Err(end) = self.wait().await {
                return end;
            }
        }
    }

    /// Move whole packets across, as far as there is room.
    fn pump(&mut self) -> Result<(), End> {
        while self.local.output.has_room() {
            let Some(packet) = self.upstream.input.next_packet().map_err(End::UpstreamFault)? else { break };
            self.handle_upstream(&packet)?;
        }
        while self.upstream.output.has_room() && !self.is_parked() {
            let packet = match self.parked.take() {
                Some(packet) => Some(packet),
                None => self.local.input.next_packet().map_err(End::ClientFault)?,
            };
            let Some(packet) = packet else { break };
            if self.swap.holds() && Session::begins_exchange(&packet) {
                self.parked = Some(packet);
            } else {
                self.handle_client(&packet)?;
            }
        }
        Ok(())
    }

    fn handle_client(&mut self, packet: &Packet) -> Result<(), End> {
        match self.session.handle_client(packet).map_err(End::ClientFault)? {
            Pass::On => packet.write(&mut self.upstream.output.queue),
            Pass::Swallow => {}
            Pass::Last => {
                let is_plain = packet.body().len() < 2;
                match self.session.opening().last_disconnect(Will::Dropped) {
                    Some(bytes) if is_plain && packet.body().first().is_none_or(|code| *code == 0) => {
                        self.upstream.output.queue.extend_from_slice(&bytes);
                    }
                    _ => packet.write(&mut self.upstream.output.queue),
                }
                return Err(End::ClientLeft);
            }
        }
        Ok(())
    }

    fn handle_upstream(&mut self, packet: &Packet) -> Result<(), End> {
        if packet.kind() == Kind::Connack && !self.session.is_welcome() {
            let welcome = self.session.opening().welcome(packet).map_err(End::UpstreamFault)?;
            self.local.output.queue.extend_from_slice(&welcome.for_client);
            if welcome.code != 0 {
                return Err(End::BrokerLeft);
            }
            self.relay.health.succeeded();
            self.session.welcomed(&welcome);
            return Ok(());
        }
        match self.session.handle_upstream(packet).map_err(End::UpstreamFault)? {
            Pass::On => packet.write(&mut self.local.output.queue),
            Pass::Swallow => {}
            Pass::Last => {
                packet.write(&mut self.local.output.queue);
                return Err(End::BrokerLeft);
            }
        }
        Ok(())
    }

    /// Wait until something can be done.
    async fn wait(&mut self) -> Result<(), End> {
        let read_local = self.upstream.output.has_room() && !self.is_parked();
        let read_upstream = self.local.output.has_room();
        let (send_local, send_upstream) = (self.local.output.is_unsent(), self.upstream.output.is_unsent());
        let is_over = |ended: bool, end: End| if ended { Err(end) } else { Ok(()) };
        tokio::select! {
            filled = self.local.input.fill(), if read_local => {
                let is_lost = filled.is_err() || self.local.input.is_ended();
                is_over(is_lost, End::ClientLost)
            }
            filled = self.upstream.input.fill(), if read_upstream => {
                filled.map_err(lost)?;
                let words = "the broker closed the connection".to_owned();
                is_over(self.upstream.input.is_ended(), End::UpstreamLost(words))
            }
            sent = self.local.output.flush(), if send_local => sent.map_err(|_| End::ClientLost),
            sent = self.upstream.output.flush(), if send_upstream => sent.map_err(lost),
            progress = self.swap.progress() => {
                if let Some(Err(fault)) = progress {
                    self.retry_swap(&fault);
                }
                Ok(())
            }
            is_there = self.identities.changed() => {
                if is_there {
                    self.begin_swap();
                    Ok(())
                } else {
                    Err(End::Stopping)
                }
            }
            () = tokio::time::sleep(clock::left_until(self.identity.not_after)) => Err(End::CertificateEnded),
            () = self.relay.shutdown.cancelled() => Err(End::Stopping),
        }
    }

    fn is_parked(&self) -> bool {
        self.parked.is_some() && self.swap.holds()
    }

    /// End both sides as fits the reason.
    async fn end(mut self, end: End) {
        match &end {
            End::ClientLeft | End::BrokerLeft => {}
            End::ClientLost | End::ClientFault(_) => {
                // 3.1.1 knows no other way to have the will published than to break off.
                if let Some(bytes) = self.session.opening().last_disconnect(Will::Published) {
                    self.upstream.output.queue.extend_from_slice(&bytes);
                }
            }
            End::Stopping | End::CertificateEnded | End::Uncarriable(_) => {
                self.upstream.output.queue.extend_from_slice(LEAVE);
                self.come_again();
            }
            End::UpstreamLost(_) | End::UpstreamFault(_) => self.come_again(),
        }
        match &end {
            End::ClientLeft | End::ClientLost | End::BrokerLeft | End::Stopping => {
                tracing::debug!(why = %end, "an MQTT session ended");
            }
            _ => self.relay.health.failed(&end.to_string()),
        }
        let is_lost = matches!(end, End::UpstreamLost(_)) && self.session.is_welcome();
        if is_lost {
            tokio::select! {
                () = tokio::time::sleep(broken_pause()) => {}
                () = self.relay.shutdown.cancelled() => {}
            }
        }
        let (local, upstream) = (&mut self.local.output, &mut self.upstream.output);
        let breaks_off = matches!(end, End::ClientLost | End::ClientFault(_));
        let closing = async {
            // Either end may be gone already, and then there is nobody to tell.
            let upstream = async { if breaks_off { upstream.flush().await } else { upstream.close().await } };
            let _ = tokio::join!(local.close(), upstream);
        };
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, closing).await;
    }

    /// Tell the client in its protocol's words that it may come again; 3.1.1 has none after CONNACK.
    fn come_again(&mut self) {
        let version = self.session.opening().version();
        if !self.session.is_welcome() {
            self.local.output.queue.extend_from_slice(&unavailable(version));
        } else if version == Version::V5 {
            self.local.output.queue.extend_from_slice(COME_AGAIN);
        }
    }
}

/// An error of the connection to the broker, in words.
fn lost(error: std::io::Error) -> End {
    End::UpstreamLost(
        refusal(&error).unwrap_or_else(|| format!("the connection to the broker broke: {error}")),
    )
}
