//! What happens to a device, into the log and the status file.

use std::path::{Path, PathBuf};
use std::time::Duration;

use muster_proto::enrollment::State;

use crate::carry::Health;
use crate::clock::Clock;
use crate::enroll::{Device, News, Outlook, state_name};
use crate::status::Status;

/// Writes log lines and the status file.
#[derive(Debug)]
pub(super) struct Reporter {
    dir: PathBuf,
    clock: Clock,
    status: Status,
    carry: Option<Health>,
}

impl Reporter {
    pub(super) fn new(dir: &Path, clock: Clock, carry: Option<Health>) -> Self {
        Self { dir: dir.to_owned(), clock, status: Status::default(), carry }
    }

    /// Something else is carried from now on.
    pub(super) fn carries(&mut self, carry: Option<Health>) {
        self.carry = carry;
    }

    /// Writes how traffic is carried now.
    pub(super) fn refresh(&mut self) {
        if self.carry.is_some() {
            self.write();
        }
    }

    pub(super) const fn clock(&self) -> Clock {
        self.clock
    }

    /// A device took up its work.
    pub(super) fn started(&mut self, device: &Device<'_>) {
        match device.in_use() {
            Some(identity) => {
                tracing::info!(
                    device = identity.device,
                    generation = identity.generation,
                    "holds a certificate"
                );
            }
            None => tracing::info!("holds no certificate"),
        }
        self.stands(device);
        self.write();
    }

    pub(super) fn report(&mut self, news: &News, device: &Device<'_>) {
        self.log(news);
        let now = self.clock.wall().as_secs();
        match news {
            News::Discarded(_, what) | News::Trouble(what) => self.status.note(now, what),
            News::Failed { words, outlook: Outlook::Lasting, .. } => self.status.note_lasting(now, words),
            News::Failed { words, .. } => self.status.note(now, words),
            News::Issued(_) => {
                self.status.obtained += 1;
                self.status.forget_failures();
            }
            // The server took the request: it is not refused any more.
            News::Postponed(_) => self.status.stuck = None,
            News::Adopted(_) | News::ClockSet(_) | News::Moved(_) | News::Urgent => {}
        }
        self.stands(device);
        self.write();
    }

    fn log(&self, news: &News) {
        match news {
            News::Adopted(identity) => {
                tracing::info!(
                    device = identity.device,
                    generation = identity.generation,
                    "certificate in use"
                );
            }
            News::ClockSet(time) => tracing::info!(unix = time.as_secs(), "clock set by the server"),
            News::Discarded(slot, why) => tracing::warn!(?slot, why, "a slot was of no use"),
            News::Failed { words, outlook: Outlook::Passing, again_in, .. } => {
                tracing::warn!(again_in_s = again_in.as_secs(), "{words}");
            }
            News::Failed { words, again_in, .. } => {
                tracing::error!(again_in_s = again_in.as_secs(), "{words}");
            }
            News::Issued(window) => {
                tracing::info!(
                    renew_at = window.renew_at().as_secs(),
                    expires_at = window.expires_at().as_secs(),
                    "certificate issued and stored"
                );
            }
            News::Moved(state) => tracing::info!(state = state_name(*state), "state"),
            News::Postponed(again_in) => {
                tracing::info!(again_in_s = again_in.as_secs(), "the server decides later");
            }
            News::Trouble(words) => tracing::warn!("{words}"),
            News::Urgent => tracing::warn!("renewal is urgent: most of the time for it has passed"),
        }
    }

    fn stands(&mut self, device: &Device<'_>) {
        let now = self.clock.wall();
        let state = state_name(device.state());
        if self.status.state != state {
            state.clone_into(&mut self.status.state);
            self.status.since = now.as_secs();
        }
        self.status.generation = device.in_use().map(|identity| identity.generation);
        // Once it renews, only the pause after a failure counts: it may have been asked to before the time.
        let window = device.window().filter(|_| device.state() == State::Holding);
        let renews_in = window.map_or(Duration::ZERO, |window| window.renew_at().since(now));
        self.status.next_try_at = Some(now.plus(device.retry_in().max(renews_in)).as_secs());
    }

    fn write(&mut self) {
        self.status.carry = self.carry.as_ref().and_then(|carry| serde_json::to_value(carry.status()).ok());
        // The status is for others; the agent itself does not need it, so a full disk does not stop it.
        if let Err(error) = self.status.write(&self.dir) {
            tracing::warn!(%error, "the status file could not be written");
        }
    }
}
