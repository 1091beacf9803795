//! One run against an endpoint.

use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use rustls::client::Resumption;
use rustls::sign::CertifiedKey;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::session::{Endpoint, Open, Wire};
use super::{HANDSHAKE, HELD, REQUEST, RESUMED, ROUND_TRIP};
use crate::arrival::Arrival;
use crate::cost::{self, Bound, Costs, Idle, Unit, Watched};
use crate::device::certified;
use crate::fleet::wait_for;
use crate::identities::Directory;
use crate::reason::Reason;
use crate::results::{Results, SESSIONS_RESUMED};
use crate::tally::Tally;
use crate::view::View;

/// What each device does once it was let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// Leaves at once: a new connection and a full handshake each time.
    Handshake,
    /// Comes back with the session it was given.
    Resume,
    /// Asks again and again on one connection.
    KeepAlive,
    /// Publishes to itself and waits for the message (MQTT).
    RoundTrip,
    /// Stays and does nothing: what a held connection costs.
    Idle,
}

/// One run.
pub(crate) struct EdgeRun {
    pub(crate) endpoint: Endpoint,
    pub(crate) directory: Arc<Directory>,
    /// The devices of this shard; they come again when all have come.
    pub(crate) devices: Vec<u32>,
    pub(crate) mode: Mode,
    pub(crate) arrival: Arrival,
    /// Which of the schedule's arrivals are this process's: number, and of how many.
    pub(crate) shard: (u32, u32),
    pub(crate) seed: u64,
    /// No arrivals after this; connections are held until then.
    pub(crate) span: Duration,
    /// Between two requests on one connection.
    pub(crate) every: Duration,
    /// `{device}` is the device's id.
    pub(crate) topic: String,
    pub(crate) most_at_once: usize,
    pub(crate) watched: Option<Watched>,
    pub(crate) start_at: Option<Duration>,
    /// What this is a part of, for the view.
    pub(crate) phase: Option<String>,
}

/// What a device's task needs.
struct Shared {
    endpoint: Endpoint,
    directory: Arc<Directory>,
    tally: Tally,
    mode: Mode,
    every: Duration,
    topic: String,
    end: Instant,
    stop: CancellationToken,
}

impl EdgeRun {
    /// Runs it for its span, or until it is stopped.
    pub(crate) async fn run(
        self,
        mut results: Results,
        view: View,
        stop: CancellationToken,
    ) -> anyhow::Result<(Results, View)> {
        let stays = matches!(self.mode, Mode::KeepAlive | Mode::RoundTrip | Mode::Idle);
        let bound = cost::bound()?;
        wait_for(self.start_at).await;
        let began = Instant::now();
        let shared = Arc::new(Shared {
            endpoint: self.endpoint,
            directory: self.directory,
            tally: Tally::of_phase(self.phase),
            mode: self.mode,
            every: self.every,
            topic: self.topic,
            end: began + self.span,
            stop: stop.child_token(),
        });
        let memory_before = cost::resident_kib();
        let own_before = cost::own_cpu_ms();
        let server_before = self.watched.as_ref().and_then(Watched::cpu_ms);
        let seen = stop.child_token();
        let showing =
            tokio::spawn(follow(view, Arc::clone(&shared), self.mode, self.watched.clone(), seen.clone()));
        let slots = Arc::new(Semaphore::new(self.most_at_once));
        let mut working = JoinSet::new();
        // A device that stays comes once.
        let rounds = if stays { 1 } else { usize::MAX };
        let coming = std::iter::repeat_n(&self.devices, rounds).flatten();
        for (number, at) in coming.zip(self.arrival.of_shard(self.seed, self.shard)) {
            let due = began + at;
            if due > shared.end {
                break;
            }
            let slot = tokio::select! {
                slot = arrive(due, shared.end, &slots) => slot,
                () = stop.cancelled() => break,
            };
            let Some(slot) = slot else { break };
            while working.try_join_next().is_some() {}
            let (shared, number) = (Arc::clone(&shared), *number);
            working.spawn(async move {
                device(&shared, number, due).await;
                drop(slot);
            });
        }
        if stays {
            // All are there, or on their way: what they cost is seen just before they may go.
            let before_end = shared.end.checked_sub(IDLE_LOOK_BEFORE_END).unwrap_or(began);
            tokio::select! {
                () = tokio::time::sleep_until(before_end.into()) => {}
                () = stop.cancelled() => {}
            }
            let kib = cost::resident_kib().saturating_sub(memory_before);
            let idle = Idle { connections: shared.tally.open(), kib };
            // Where devices talk, memory is of their talk.
            results.costs.idle = (self.mode == Mode::Idle).then_some(idle);
        }
        while working.join_next().await.is_some() {}
        results.costs.client_cpu_ms = cost::own_cpu_ms() - own_before;
        results.costs.server_cpu_ms =
            self.watched.as_ref().map(|watched| watched.cpu_since(server_before)).unwrap_or_default();
        count_work(&mut results.costs, self.mode, &shared.tally, bound);
        seen.cancel();
        let view = showing.await?;
        shared.tally.finish(&mut results);
        Ok((results, view))
    }
}

/// What the CPU was spent on, and what of it is cryptography.
fn count_work(costs: &mut Costs, mode: Mode, tally: &Tally, bound: Bound) {
    let (full, resumed) = (tally.count(HANDSHAKE), tally.count(RESUMED));
    costs.bound = Some(bound);
    (costs.operations, costs.unit) = match mode {
        Mode::Handshake | Mode::Idle | Mode::Resume => {
            costs.least_ms = Some(full as f64 * bound.handshake_ms + resumed as f64 * bound.agree_ms);
            (full + resumed, Unit::Verification)
        }
        // A request on an open connection has no signature in it.
        Mode::KeepAlive | Mode::RoundTrip => (tally.count(mode.series()), Unit::Request),
    };
}

/// Notes how many sessions were resumed, where that was tried. A server may resume none, as ours does; then what was
/// done are full handshakes, and they are what goals are about.
pub(crate) fn note_resumption(results: &mut Results) {
    let count = |results: &Results, name| results.series.get(name).map_or(0, |series| series.hdr.count());
    let (full, resumed) = (count(results, HANDSHAKE), count(results, RESUMED));
    results.facts.insert(SESSIONS_RESUMED.into(), resumed as f64);
    if resumed == 0 && full > 0 {
        results.main_series = HANDSHAKE.to_owned();
    }
}

async fn follow(
    view: View,
    shared: Arc<Shared>,
    mode: Mode,
    watched: Option<Watched>,
    stop: CancellationToken,
) -> View {
    view.follow(&shared.tally, mode.series(), watched, stop).await
}

impl Mode {
    /// The series that matters.
    pub(crate) const fn series(self) -> &'static str {
        match self {
            Self::Handshake | Self::Idle => HANDSHAKE,
            Self::Resume => RESUMED,
            Self::KeepAlive => REQUEST,
            Self::RoundTrip => ROUND_TRIP,
        }
    }
}

async fn arrive(
    due: Instant,
    end: Instant,
    slots: &Arc<Semaphore>,
) -> Option<tokio::sync::OwnedSemaphorePermit> {
    tokio::time::sleep_until(due.into()).await;
    // Whoever finds no descriptor until the end was not let in; that ends the arrivals.
    tokio::time::timeout_at(end.into(), Arc::clone(slots).acquire_owned()).await.ok()?.ok()
}

async fn device(shared: &Shared, number: u32, due: Instant) {
    let tally = &shared.tally;
    let Ok(Some(identity)) = identity(&shared.directory, number) else {
        return tally.failed(HANDSHAKE, Reason::Local);
    };
    let device = shared.directory.device(number);
    let resumption = (shared.mode == Mode::Resume).then(|| Resumption::in_memory_sessions(SESSIONS));
    let wire = shared.endpoint.wire(number, device, Some(identity), resumption);
    let topic = shared.topic.replace("{device}", &wire.device);
    let Some(open) = let_in(shared, wire.clone(), due).await else { return };
    match shared.mode {
        Mode::Handshake => leave(tally, open).await,
        Mode::Resume => {
            leave(tally, open).await;
            for _ in 0..RESUMES {
                let Some(open) = let_in(shared, wire.clone(), Instant::now()).await else { return };
                leave(tally, open).await;
            }
        }
        Mode::Idle => hold(shared, open).await,
        Mode::KeepAlive | Mode::RoundTrip => talk(shared, open, number, &topic).await,
    }
}

/// Connects, and counts it.
async fn let_in(shared: &Shared, wire: Wire, due: Instant) -> Option<Open> {
    match Box::pin(shared.endpoint.open(wire)).await {
        Ok(open) => {
            shared.tally.done(if open.resumed { RESUMED } else { HANDSHAKE }, due.elapsed());
            shared.tally.opened();
            Some(open)
        }
        Err(reason) => {
            shared.tally.failed(HANDSHAKE, reason);
            None
        }
    }
}

async fn leave(tally: &Tally, open: Open) {
    Box::pin(open.close()).await;
    tally.closed();
}

async fn hold(shared: &Shared, mut open: Open) {
    let ended = tokio::select! {
        reason = Box::pin(open.ended()) => Some(reason),
        () = tokio::time::sleep_until(shared.end.into()) => None,
        () = shared.stop.cancelled() => None,
    };
    if let Some(reason) = ended {
        shared.tally.failed(HELD, reason);
    }
    leave(&shared.tally, open).await;
}

/// Asks at fixed times, open-loop: a late answer makes the next request late, and that counts in its latency.
async fn talk(shared: &Shared, mut open: Open, number: u32, topic: &str) {
    let series = shared.mode.series();
    if shared.mode == Mode::RoundTrip
        && let Err(reason) = shared.endpoint.subscribe(&mut open, topic).await
    {
        shared.tally.failed(series, reason);
        return leave(&shared.tally, open).await;
    }
    // Devices that came together do not ask together.
    let spread = shared.every.mul_f64(f64::from(number % SPREAD) / f64::from(SPREAD));
    let first = Instant::now() + spread;
    for count in 0_u32.. {
        let due = first + shared.every * count;
        if due > shared.end || shared.stop.is_cancelled() {
            break;
        }
        tokio::time::sleep_until(due.into()).await;
        let asked = match shared.mode {
            Mode::RoundTrip => {
                let payload = format!("{number}-{count}");
                Box::pin(shared.endpoint.round_trip(&mut open, topic, payload.as_bytes())).await
            }
            _ => Box::pin(shared.endpoint.ask(&mut open)).await,
        };
        match asked {
            Ok(()) => shared.tally.done(series, due.elapsed()),
            Err(reason) => {
                shared.tally.failed(series, reason);
                break;
            }
        }
    }
    leave(&shared.tally, open).await;
}

fn identity(directory: &Directory, number: u32) -> anyhow::Result<Option<Arc<CertifiedKey>>> {
    directory.pair(number)?.map(|(pair, intermediates)| certified(&pair, &intermediates)).transpose()
}

/// One server each.
const SESSIONS: usize = 1;
/// Returns of one device after its full handshake.
const RESUMES: usize = 4;
const SPREAD: u32 = 1000;
/// When memory is looked at.
const IDLE_LOOK_BEFORE_END: Duration = Duration::from_millis(500);
