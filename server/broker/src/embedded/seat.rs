//! A connection's place in its session, which is given up however the connection ends.
//!
//! A connection that ends leaves with a [`Departure`]. One whose task is dropped, as the edge does with
//! a connection that does not end in time, leaves as one that was cut: its session must not stay as if
//! somebody were there. What is left to do then is a task of the hub's own, which its end waits for.

use core::ops::Deref;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::time::Duration;
use tracing::error;

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

/// How long connections that ended have for what they left to do: wills and other publications wait for the disk.
const LEAVING_TIMEOUT: Duration = Duration::from_secs(10);

impl Hub {
    /// Does something that has to be done even if whoever waits here is dropped. Returns nothing if it panicked.
    pub(super) async fn see_through<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let done = self.leaving.spawn(work).await;
        done.inspect_err(|error| error!(%error, "what had to be done is not")).ok()
    }

    /// The same from where nobody can wait. Without a runtime the process is at its end, and all this with it.
    pub(super) fn see_through_alone(&self, work: impl Future<Output = ()> + Send + 'static) {
        if let Ok(runtime) = Handle::try_current() {
            drop(self.leaving.spawn_on(work, &runtime));
        }
    }

    /// Writes the last of it, with what the ends of connections left to do. That waits for no peer, and not long for
    /// a disk that takes nothing.
    pub(crate) async fn close(self: &Arc<Self>) {
        self.leaving.close();
        if tokio::time::timeout(LEAVING_TIMEOUT, self.leaving.wait()).await.is_err() {
            error!("not all publications reach everyone: the broker's file can't be written");
        }
        let hub = Arc::clone(self);
        if tokio::task::spawn_blocking(move || hub.store.close()).await.is_err() {
            error!("the last commit to the broker's file panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use muster_policy::time::UnixTime;
    use tokio::sync::oneshot;

    use super::*;
    use crate::clock::Clock;
    use crate::config::{BrokerConfig, Settings};
    use crate::metrics::Metrics;
    use crate::store::Store;

    #[tokio::test]
    async fn what_an_end_left_to_do_is_in_the_file_before_it_is_closed() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, metrics) = (folder.path().join("broker.redb"), Arc::new(Metrics::default()));
        let (store, _) = Store::open(&path, &metrics).expect("opens");
        let settings = Settings::check(&BrokerConfig::default()).expect("settings");
        let clock = Clock::new(UnixTime::from_secs(1_800_000_000));
        let hub = Arc::new(Hub::new(Arc::new(settings), clock, Arc::clone(&metrics), store));
        let (goes_on, waits) = oneshot::channel();
        let work = {
            let hub = Arc::clone(&hub);
            async move {
                waits.await.expect("told");
                hub.store.put_retained(&[1; 16], "a", &"kept");
            }
        };
        hub.see_through_alone(work);
        let closing = tokio::spawn({
            let hub = Arc::clone(&hub);
            async move { hub.close().await }
        });
        // Time to close in, if it did not wait.
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(!closing.is_finished());
        goes_on.send(()).expect("it waits");
        closing.await.expect("no panic");
        drop(hub);
        let (_store, loaded) = Store::open(&path, &metrics).expect("opens again");
        assert_eq!(loaded.retained.len(), 1);
    }
}
