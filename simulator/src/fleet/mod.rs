//! `muster-sim fleet`: devices enroll at an EST server, or renew there, as they come.
//!
//! A device that holds a certificate already is passed over, so a run that was interrupted is taken up by running
//! it again; a request that was sent and not answered is sent again with the same bytes, and a server that keeps
//! to its contract answers it with the same certificate.

mod tokens;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub(crate) use self::tokens::{TokenSource, Tokens};
use crate::arrival::Arrival;
use crate::cost::{self, Bound, Costs, Unit, Watched};
use crate::device::{Enroller, Want};
use crate::results::Results;
use crate::tally::Tally;
use crate::view::View;

/// One run.
pub(crate) struct FleetRun {
    pub(crate) enroller: Enroller,
    pub(crate) tokens: Tokens,
    /// The devices of this shard.
    pub(crate) devices: Vec<u32>,
    pub(crate) want: Want,
    pub(crate) arrival: Arrival,
    /// Which of the schedule's arrivals are this process's: number, and of how many.
    pub(crate) shard: (u32, u32),
    pub(crate) seed: u64,
    pub(crate) most_at_once: usize,
    pub(crate) watched: Option<Watched>,
    pub(crate) start_at: Option<Duration>,
}

impl FleetRun {
    /// Runs it until every device is done, or until it is stopped.
    pub(crate) async fn run(
        self,
        mut results: Results,
        view: View,
        stop: CancellationToken,
    ) -> anyhow::Result<(Results, View)> {
        let Self { enroller, tokens, devices, want, arrival, shard, seed, most_at_once, watched, start_at } =
            self;
        let bound = cost::bound()?;
        wait_for(start_at).await;
        let tally = Arc::new(Tally::new());
        let seen = stop.child_token();
        let showing = tokio::spawn(follow(view, Arc::clone(&tally), watched.clone(), seen.clone()));
        let (own_before, server_before) = (cost::own_cpu_ms(), watched.as_ref().and_then(Watched::cpu_ms));
        let shared = Arc::new((enroller, tokens));
        let slots = Arc::new(Semaphore::new(most_at_once));
        let mut working = JoinSet::new();
        let began = Instant::now();
        for (number, at) in devices.into_iter().zip(arrival.of_shard(seed, shard)) {
            let due = began + at;
            // Waiting for a free descriptor is in the latency too: it counts from the time of arrival.
            let slot = tokio::select! {
                slot = arrive(due, &slots) => slot,
                () = stop.cancelled() => break,
            };
            while working.try_join_next().is_some() {}
            let (shared, tally) = (Arc::clone(&shared), Arc::clone(&tally));
            working.spawn(async move {
                one(&shared, number, want, due, &tally).await;
                drop(slot);
            });
        }
        tokio::select! {
            () = async { while working.join_next().await.is_some() {} } => {}
            () = stop.cancelled() => working.shutdown().await,
        }
        results.costs.client_cpu_ms = cost::own_cpu_ms() - own_before;
        results.costs.server_cpu_ms =
            watched.as_ref().map(|watched| watched.cpu_since(server_before)).unwrap_or_default();
        count_work(&mut results.costs, want, tally.count(ENROLL), bound);
        seen.cancel();
        let view = showing.await?;
        tally.finish(&mut results);
        let (directory, (own, shards)) = (&shared.0.directory, shard);
        let identities =
            directory.enrolled().into_iter().filter(|number| number % shards.max(1) == own).count();
        results.facts.insert("identities".into(), identities as f64);
        results.facts.insert("identity_bytes".into(), directory.own_bytes() as f64);
        Ok((results, view))
    }
}

/// What the CPU was spent on, and what of it is cryptography: a handshake and a certificate for each device.
fn count_work(costs: &mut Costs, want: Want, certificates: u64, bound: Bound) {
    let handshake_ms = match want {
        Want::First => bound.one_sided_ms(),
        Want::Next => bound.handshake_ms,
    };
    costs.least_ms = Some(certificates as f64 * (handshake_ms + bound.issue_ms));
    costs.bound = Some(bound);
    (costs.operations, costs.unit) = (certificates, Unit::Certificate);
}

async fn follow(view: View, tally: Arc<Tally>, watched: Option<Watched>, stop: CancellationToken) -> View {
    view.follow(&tally, ENROLL, watched, stop).await
}

async fn arrive(due: Instant, slots: &Arc<Semaphore>) -> Option<tokio::sync::OwnedSemaphorePermit> {
    if due > Instant::now() {
        tokio::time::sleep_until(due.into()).await;
    }
    Arc::clone(slots).acquire_owned().await.ok()
}

async fn one(shared: &(Enroller, Tokens), number: u32, want: Want, due: Instant, tally: &Tally) {
    let (enroller, tokens) = shared;
    let token = match want {
        Want::First => match tokens.of(&enroller.directory.device(number)).await {
            Ok(token) => token,
            Err(_) => return tally.count_error(ENROLL, "no_token".to_owned()),
        },
        Want::Next => None,
    };
    match Box::pin(enroller.run(number, token.as_deref(), want, tally)).await {
        Ok(()) => tally.done(ENROLL, due.elapsed()),
        Err(reason) => tally.failed(ENROLL, reason),
    }
}

/// Shards on several machines begin together.
pub(crate) async fn wait_for(start_at: Option<Duration>) {
    if let Some(at) = start_at {
        tokio::time::sleep(at.saturating_sub(crate::clock::unix_now())).await;
    }
}

/// The series of whole enrollments, from the time of arrival to the stored certificate.
pub(crate) const ENROLL: &str = "enroll";
