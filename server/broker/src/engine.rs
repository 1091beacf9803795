//! The seam between the gate and what carries messages.
//!
//! An engine gets a client whose CONNECT was let in, with the gate in front: it reads packets through
//! [`Client::gate`] and answers on [`Client::packets`]. It never learns what the gate refused beyond
//! the reason code that goes into the answer.

use muster_policy::identity::AccountId;

use crate::Peer;
use crate::cut::Cut;
use crate::gate::{Gate, Owner};
use crate::serve::Ended;
use crate::stream::{Packets, Stream};
use crate::wire::connect::Connect;

/// What carries messages between clients.
pub(crate) trait Engine: Send + Sync {
    /// Serves a client until its connection ends. The client has no CONNACK yet.
    fn serve<S: Stream>(&self, client: Client<S>) -> impl Future<Output = Ended> + Send;

    /// Ends all connections with "server shutting down".
    fn drain(&self);

    /// Puts on disk what is not there yet. Nothing is served afterwards.
    fn close(&self) -> impl Future<Output = ()> + Send;
}

/// A client that was let in.
#[derive(Debug)]
pub(crate) struct Client<S> {
    pub(crate) packets: Packets<S>,
    pub(crate) gate: Gate,
    pub(crate) connect: Connect,
    /// Whether the client id was empty in its CONNECT.
    pub(crate) is_assigned: bool,
    pub(crate) owner: Owner,
    pub(crate) account: AccountId,
    pub(crate) cut: Cut,
    pub(crate) peer: Box<PeerNames>,
}

/// What an engine may say of the peer to others.
#[derive(Clone, Debug)]
pub(crate) struct PeerNames {
    pub(crate) source: core::net::SocketAddr,
    pub(crate) host: String,
    pub(crate) device: Option<String>,
}

impl PeerNames {
    pub(crate) fn of(peer: &Peer) -> Self {
        Self {
            source: peer.source,
            host: peer.host.as_str().to_owned(),
            device: peer.holder.as_ref().map(|holder| holder.device.as_str().to_owned()),
        }
    }
}
