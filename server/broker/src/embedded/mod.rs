//! The default engine: subscriptions, sessions, retained messages and wills in this process.
//!
//! * [`hub`]: what all clients of an account share, and the only file where locks meet. [`delivery`]:
//!   from a publication to sessions.
//! * [`session`]: one client's state and queue; [`flight`]: what is under way to it and from it;
//!   [`succession`]: from one session to the next; [`budget`]: what those of one device hold together. [`index`],
//!   [`retained`], [`timers`]: plain tables.
//!   [`withheld`]: retained messages whose senders lost their right.
//! * [`connection`]: one client's connection: packets in, messages out; [`requests`]: what it asks for,
//!   and the answers; [`seat`]: its place in a session.
//! * [`restore`]: what the file gives back at the start.

mod budget;
mod connection;
mod delivery;
mod flight;
pub(crate) mod hub;
mod index;
mod message;
mod requests;
mod restore;
mod retained;
mod seat;
mod session;
mod session_restore;
mod succession;
mod terms;
#[cfg(test)]
mod tests;
mod timers;
mod withheld;

pub(crate) use self::hub::Hub;
pub(crate) use self::restore::keep_time;
use crate::engine::{Client, Engine};
use crate::serve::Ended;
use crate::stream::Stream;

/// The embedded engine.
#[derive(Debug)]
pub(crate) struct Embedded {
    hub: std::sync::Arc<Hub>,
}

impl Embedded {
    pub(crate) const fn new(hub: std::sync::Arc<Hub>) -> Self {
        Self { hub }
    }

    #[cfg(test)]
    pub(crate) fn hub(&self) -> &Hub {
        &self.hub
    }

    pub(crate) fn heed(&self, senders: std::sync::Arc<dyn muster_policy::mqtt::Senders>) {
        // Whoever came first knows it.
        let _ = self.hub.senders.set(senders);
    }
}

impl Engine for Embedded {
    async fn serve<S: Stream>(&self, client: Client<S>) -> Ended {
        connection::serve(&self.hub, client).await
    }

    fn drain(&self) {
        self.hub.drain();
    }

    async fn close(&self) {
        self.hub.close().await;
    }
}
