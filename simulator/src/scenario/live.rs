//! The same scenario on sockets: real servers, real cryptography, and time that may run faster.
//!
//! Devices enroll, use their certificates at the edge, renew when it is time, and meet the file's events. What a
//! simulator can't do to somebody else's server (stop its CA, revoke, set lifetimes) is done by the operator's hooks.
//! Links are as slow as the file says, in this machine's time: what waits for them has time-outs of its own, which
//! no speed of ours changes. Each device has a clock of its own, which may be off.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustls::sign::CertifiedKey;
use tokio::process::Command;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::file::{Event, Scenario, What};
use super::{intruder, live_goals};
use crate::chance::Chance;
use crate::device::{Enroller, Want, certified};
use crate::edge::Endpoint;
use crate::fleet::{ENROLL, Tokens};
use crate::link::Links;
use crate::results::Results;
use crate::tally::Tally;
use crate::view::View;

/// What a live run needs beside the file.
pub(crate) struct Live {
    pub(crate) enroller: Enroller,
    pub(crate) tokens: Tokens,
    /// Where certificates are used; without one they are only enrolled and renewed.
    pub(crate) edge: Option<Endpoint>,
    /// Of all connections that devices make.
    pub(crate) links: Arc<Links>,
    /// How much faster than the file says.
    pub(crate) speed: f64,
    /// Command lines by the name of what happens; `{device}` and `{seconds}` are filled in.
    pub(crate) hooks: HashMap<String, String>,
    pub(crate) most_at_once: usize,
}

/// What a device is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Post {
    Reconnect,
    RenewNow,
    Revoked,
}

/// What tasks share.
pub(super) struct Shared {
    pub(super) live: Live,
    pub(super) scenario: Scenario,
    pub(super) tally: Tally,
    pub(super) slots: Semaphore,
    pub(super) revoked: AtomicU64,
    pub(super) revoked_accepted: AtomicU64,
    pub(super) hostile_accepted: AtomicU64,
    pub(super) clocks_off: AtomicU64,
    pub(super) links_slow: AtomicU64,
    end: Instant,
    stop: CancellationToken,
}

/// Runs a scenario on sockets.
///
/// # Errors
/// When the view can't be shown.
pub(crate) async fn run(
    scenario: Scenario,
    live: Live,
    view: View,
    stop: CancellationToken,
) -> anyhow::Result<(Results, View)> {
    let mut results = Results::new("scenario", &scenario.name, "live", "edge");
    if live.edge.is_none() {
        results.main_series = ENROLL.to_owned();
    }
    let began = Instant::now();
    let scaled = |span: Duration| span.div_f64(live.speed);
    let end = began + scaled(scenario.span);
    let seen = stop.child_token();
    let shared = Arc::new(Shared {
        slots: Semaphore::new(live.most_at_once),
        live,
        scenario,
        tally: Tally::new(),
        revoked: AtomicU64::new(0),
        revoked_accepted: AtomicU64::new(0),
        hostile_accepted: AtomicU64::new(0),
        clocks_off: AtomicU64::new(0),
        links_slow: AtomicU64::new(0),
        end,
        stop: seen.clone(),
    });
    let showing = tokio::spawn(follow(view, Arc::clone(&shared), seen.clone()));
    let mut tasks = JoinSet::new();
    let mut posts = Vec::new();
    for number in 0..shared.scenario.devices {
        let (sender, receiver) = mpsc::channel(POSTS_MAX);
        posts.push(sender);
        tasks.spawn(device(Arc::clone(&shared), number, receiver));
    }
    for (nth, kind) in (0_u32..).zip(super::hostile::kinds(&shared.scenario)) {
        tasks.spawn(intruder::live(Arc::clone(&shared), nth, kind));
    }
    let mut chance = Chance::new(shared.scenario.seed, EVENT_STREAM);
    for event in &shared.scenario.events {
        let due = began + event.at.div_f64(shared.live.speed);
        tokio::select! {
            () = tokio::time::sleep_until(due.into()) => happen(&shared, event, &posts, &mut chance).await,
            () = stop.cancelled() => break,
        }
    }
    tokio::select! {
        () = tokio::time::sleep_until(end.into()) => {}
        () = stop.cancelled() => {}
    }
    seen.cancel();
    let ended = async { while tasks.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(END_TIMEOUT, ended).await;
    let view = showing.await?;
    tasks.shutdown().await;
    shared.tally.finish(&mut results);
    live_goals::conclude(&shared, &mut results);
    Ok((results, view))
}

impl Shared {
    /// A span of the file in this run's time.
    pub(super) fn scaled(&self, span: Duration) -> Duration {
        span.div_f64(self.live.speed)
    }

    /// Waits, and says whether the run still goes on.
    pub(super) async fn goes_on_after(&self, span: Duration) -> bool {
        let until = Instant::now() + span;
        tokio::select! {
            () = tokio::time::sleep_until(until.min(self.end).into()) => {}
            () = self.stop.cancelled() => return false,
        }
        until < self.end
    }
}

async fn follow(view: View, shared: Arc<Shared>, stop: CancellationToken) -> View {
    let series = if shared.live.edge.is_some() { EDGE } else { ENROLL };
    view.follow(&shared.tally, series, None, stop).await
}

async fn device(shared: Arc<Shared>, number: u32, mut posts: mpsc::Receiver<Post>) {
    let mut chance = Chance::new(shared.scenario.seed, DEVICE_STREAMS + u64::from(number));
    let mut revoked = false;
    // A fleet that boots together spreads its first connections.
    if !shared.goes_on_after(shared.scaled(FIRST_SPREAD).mul_f64(chance.unit())).await {
        return;
    }
    while !shared.live.enroller.directory.is_enrolled(number) {
        enroll(&shared, number, Want::First).await;
        if !shared.goes_on_after(AGAIN_AFTER.mul_f64(0.5 + chance.unit())).await {
            return;
        }
    }
    loop {
        let pause = shared.scaled(shared.scenario.use_every).mul_f64(0.9 + 0.2 * chance.unit());
        tokio::select! {
            biased;
            post = posts.recv() => match post {
                Some(Post::Reconnect) => {}
                Some(Post::RenewNow) => enroll(&shared, number, Want::Next).await,
                Some(Post::Revoked) => {
                    revoked = true;
                    continue;
                }
                None => return,
            },
            goes_on = shared.goes_on_after(pause) => if !goes_on { return },
        }
        if !revoked && is_due(&shared, number) {
            enroll(&shared, number, Want::Next).await;
        }
        use_certificate(&shared, number, revoked).await;
    }
}

async fn enroll(shared: &Shared, number: u32, want: Want) {
    let Ok(_slot) = shared.slots.acquire().await else { return };
    let enroller = &shared.live.enroller;
    // It keeps its token: whose certificate ended, or seems to by its clock, has nothing else to show.
    let token = shared.live.tokens.of(&enroller.directory.device(number)).await.ok().flatten();
    let began = Instant::now();
    let series = if want == Want::First { ENROLL } else { RENEW };
    match Box::pin(enroller.run(number, token.as_deref(), want, &shared.tally)).await {
        Ok(()) => shared.tally.done(series, began.elapsed()),
        Err(reason) => shared.tally.failed(series, reason),
    }
}

/// Whether it is time to renew, by the window that was stored with the certificate and the device's clock.
fn is_due(shared: &Shared, number: u32) -> bool {
    let enroller = &shared.live.enroller;
    let pair = enroller.directory.pair(number).ok().flatten();
    pair.is_some_and(|(pair, _)| pair.window.renew_at().as_secs() <= enroller.clocks.unix_now(number))
}

async fn use_certificate(shared: &Shared, number: u32, revoked: bool) {
    let Some(edge) = &shared.live.edge else { return };
    let Some((device, identity)) = identity(&shared.live.enroller, number) else { return };
    let Ok(_slot) = shared.slots.acquire().await else { return };
    let began = Instant::now();
    match Box::pin(edge.open(edge.wire(number, device, Some(identity), None))).await {
        Ok(open) => {
            if revoked {
                shared.revoked_accepted.fetch_add(1, Ordering::Relaxed);
            }
            shared.tally.done(EDGE, began.elapsed());
            open.close().await;
        }
        Err(reason) if revoked => shared.tally.failed("revoked", reason),
        Err(reason) => shared.tally.failed(EDGE, reason),
    }
}

/// The certificate that a device uses.
pub(super) fn identity(enroller: &Enroller, number: u32) -> Option<(String, Arc<CertifiedKey>)> {
    let (pair, intermediates) = enroller.directory.pair(number).ok()??;
    Some((enroller.directory.device(number), certified(&pair, &intermediates).ok()?))
}

async fn happen(shared: &Arc<Shared>, event: &Event, posts: &[mpsc::Sender<Post>], chance: &mut Chance) {
    let chosen = |share: f64, chance: &mut Chance| -> Vec<u32> {
        (0..shared.scenario.devices).filter(|_| chance.happens(share)).collect()
    };
    let tell = |numbers: &[u32], post: Post| {
        for sender in numbers.iter().filter_map(|number| posts.get(*number as usize)) {
            // One that has so much to do already does not need more.
            let _ = sender.try_send(post);
        }
    };
    shared.tally.enter(event.what.to_string());
    match event.what {
        What::CaAway { span } => {
            hook(shared, "ca-away", "", 0).await;
            let shared = Arc::clone(shared);
            tokio::spawn(async move {
                shared.goes_on_after(shared.scaled(span)).await;
                hook(&shared, "ca-back", "", 0).await;
            });
        }
        What::Lifetime { lifetime } => {
            hook(shared, "lifetime", "", lifetime.as_secs()).await;
        }
        What::ClockSkew { share, seconds } => {
            for number in chosen(share, chance) {
                shared.live.enroller.clocks.skew(number, seconds);
                shared.clocks_off.fetch_add(1, Ordering::Relaxed);
            }
        }
        What::Reboot { share } => {
            let numbers = chosen(share, chance);
            numbers.iter().for_each(|number| shared.live.enroller.clocks.reboot(*number));
            tell(&numbers, Post::Reconnect);
        }
        What::Rotate { share } => tell(&chosen(share, chance), Post::RenewNow),
        What::Revoke { share } => {
            let numbers = chosen(share, chance);
            for number in &numbers {
                if hook(shared, "revoke", &shared.live.enroller.directory.device(*number), 0).await {
                    shared.revoked.fetch_add(1, Ordering::Relaxed);
                    tell(&[*number], Post::Revoked);
                }
            }
        }
        What::SlowLinks { share, span, link } => {
            let until = tokio::time::Instant::now() + shared.scaled(span);
            for number in chosen(share, chance) {
                shared.live.links.slow(number, until, link);
                shared.links_slow.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// Runs the operator's command for something; whether there is one and it worked.
async fn hook(shared: &Shared, name: &str, device: &str, seconds: u64) -> bool {
    let Some(line) = shared.live.hooks.get(name) else { return false };
    let line = line.replace("{device}", device).replace("{seconds}", &seconds.to_string());
    let status = Command::new("sh").args(["-c", &line]).stdout(std::process::Stdio::null()).status().await;
    let worked = status.is_ok_and(|status| status.success());
    if !worked {
        shared.tally.count_error("hook", name.to_owned());
    }
    worked
}

/// Uses of certificates at the edge.
pub(super) const EDGE: &str = "edge";
const RENEW: &str = "renew";
/// What the device core spreads a boot over.
const FIRST_SPREAD: Duration = Duration::from_secs(120);
const AGAIN_AFTER: Duration = Duration::from_secs(5);
const POSTS_MAX: usize = 4;
const END_TIMEOUT: Duration = Duration::from_secs(5);
const EVENT_STREAM: u64 = 2;
const DEVICE_STREAMS: u64 = 1 << 32;
