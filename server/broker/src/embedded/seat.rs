//! A connection's place in its session, which is given up however the connection ends.
//!
//! A connection that ends leaves with a [`Departure`]. One whose task is dropped, as the edge does with
//! a connection that does not end in time, leaves as one that was cut: its session must not stay as if
//! somebody were there.

use core::ops::Deref;
use std::sync::Arc;

use super::hub::{Attached, Departure, Hub};
use crate::config::OnCutWill;

/// A place in a session.
#[derive(Debug)]
pub(super) struct Seat<'a> {
    hub: &'a Arc<Hub>,
    attached: Attached,
    has_left: bool,
}

impl<'a> Seat<'a> {
    pub(super) const fn new(hub: &'a Arc<Hub>, attached: Attached) -> Self {
        Self { hub, attached, has_left: false }
    }

    /// Whether an earlier session of the client is yet to end.
    pub(super) const fn has_predecessor(&self) -> bool {
        self.attached.predecessor.is_some()
    }

    /// Ends the earlier session.
    pub(super) fn succeed(&mut self) {
        self.hub.succeed(&mut self.attached);
    }

    /// Gives the place up. A will may go to many: it reaches them all even if this task is dropped meanwhile.
    pub(super) async fn leave(&mut self, departure: Departure) {
        self.hub.succeed(&mut self.attached);
        let work = self.detach(departure);
        self.has_left = true;
        self.hub.see_through(work).await;
    }

    fn detach(&self, departure: Departure) -> impl Future<Output = ()> + Send + use<> {
        let (hub, attached) = (Arc::clone(self.hub), self.attached.clone());
        async move { hub.detach(&attached, departure).await }
    }
}

impl Deref for Seat<'_> {
    type Target = Attached;

    fn deref(&self) -> &Attached {
        &self.attached
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        if self.has_left {
            return;
        }
        self.hub.succeed(&mut self.attached);
        let on_cut = self.hub.settings.on_cut;
        let fires_will = on_cut.will == OnCutWill::Publish;
        let departure = Departure { fires_will, session: on_cut.session, expiry_s: None };
        self.hub.see_through_alone(self.detach(departure));
    }
}
