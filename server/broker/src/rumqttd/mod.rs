//! The engine `rumqttd`: its router in this process, behind the gate and behind a shield of our own.
//!
//! The router only matches topics and passes on. Everything in it that clients are known to break is kept from them:
//! client ids, shared subscriptions, qualities above 0, wills, sessions and keep alive never reach it ([`attendant`]),
//! and what it never frees is counted ([`routers`]). What it is good for, and what not, is in `DECISIONS.md`.
//!
//! [`Relay`] stands between a client and its attendant as it stands between a client and another broker, so that
//! the gate, cuts and stalls are the same.

mod attendant;
mod envelope;
mod places;
mod routers;

use std::sync::Arc;

use tokio::sync::watch;

use self::attendant::Attendant;
use self::places::Places;
use self::routers::Routers;
use crate::config::Settings;
use crate::engine::{Client, Engine};
use crate::metrics::Metrics;
use crate::serve::Ended;
use crate::stream::{Packets, Stream};
use crate::upstream::{Relay, refuse};
use crate::wire::{Code, Qos};

/// The engine.
#[derive(Debug)]
pub(crate) struct Rumqttd {
    routers: Arc<Routers>,
    places: Arc<Places>,
    settings: Arc<Settings>,
    metrics: Arc<Metrics>,
    draining: watch::Sender<bool>,
}

/// What the pipe between the gate and an attendant holds: as much as a socket, so that both may get ahead.
const PIPE_BYTES: usize = 16 * 1024;
/// Largest packet in the pipe: the gate has its own, smaller limit for what clients send.
const PIPE_PACKET_BYTES: u32 = 268_435_455;

impl Rumqttd {
    pub(crate) fn new(settings: Arc<Settings>, metrics: Arc<Metrics>) -> Self {
        Self {
            routers: Arc::new(Routers::start()),
            places: Arc::default(),
            settings,
            metrics,
            draining: watch::Sender::new(false),
        }
    }
}

impl Engine for Rumqttd {
    async fn serve<S: Stream>(&self, client: Client<S>) -> Ended {
        if client.connect.will.as_ref().is_some_and(|will| will.qos == Qos::Two) {
            return refuse(client, Code::QOS_NOT_SUPPORTED).await;
        }
        let most = self.settings.quotas.sessions_per_device;
        let (account, owner) = (client.account, client.owner.clone());
        let place = match self.places.take((account, owner), &client.connect.client_id, most) {
            Ok(place) => place,
            Err(code) => return refuse(client, code).await,
        };
        let Some(link) = self.routers.link().await else {
            return refuse(client, Code::SERVER_BUSY).await;
        };
        let (gate_end, router_end) = tokio::io::duplex(PIPE_BYTES);
        let pipe = Packets::new(router_end, PIPE_PACKET_BYTES);
        let attendant = Attendant::new(&client, pipe, link, place, &self.routers, &self.settings.quotas);
        let pipe = Packets::new(gate_end, PIPE_PACKET_BYTES);
        let relay = Relay::new(client, pipe, &self.settings, &self.metrics);
        let (ended, ()) =
            tokio::join!(Box::pin(relay.run(self.draining.subscribe())), Box::pin(attendant.run()));
        ended
    }

    fn drain(&self) {
        self.draining.send_replace(true);
    }

    /// Nothing is kept; the router ends with the process.
    async fn close(&self) {}
}
