//! Virtual time: devices are futures, and the clock is the next thing that is due.
//!
//! One thread polls one device at a time, in the order of time and then of asking, so a run depends on its file alone.
//! Whatever devices share (server, links, counts) lies here, borrowed only for the length of one call.

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::file::{Event, Scenario, What};
use super::server::ModelServer;
use super::{device, hostile};
use crate::chance::Chance;
use crate::cost::own_cpu_ms;
use crate::link::LinkQuality;
use crate::results::{Check, Latency, Results};
use crate::span;
use crate::tally::Glance;
use crate::view::View;

/// What devices share.
pub(super) struct World {
    pub(super) scenario: Scenario,
    now_ms: Cell<u64>,
    sequence: Cell<u64>,
    due: RefCell<BinaryHeap<Reverse<(u64, u64, u32)>>>,
    pub(super) server: RefCell<ModelServer>,
    posts: RefCell<Vec<VecDeque<Post>>>,
    slow: RefCell<Vec<Option<(u64, LinkQuality)>>>,
    results: RefCell<Results>,
    bucket_s: u64,
    pub(super) notes: Notes,
}

/// What a device is told from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Post {
    Reboot,
    RenewNow,
    Revoked,
    Skew(i64),
}

/// Counts that the checks look at.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// Devices whose identity was gone although its time was not over.
    pub(super) lost_identities: Cell<u64>,
    /// Exchanges without an answer while the server was up and the link whole.
    pub(super) unanswered: Cell<u64>,
    /// Devices that are revoked.
    pub(super) revoked: Cell<u64>,
    /// Devices that hold a certificate in its time.
    pub(super) holding: Cell<u64>,
}

type Life = Pin<Box<dyn Future<Output = ()>>>;

impl World {
    fn new(scenario: Scenario) -> anyhow::Result<Self> {
        let mut results = Results::new("scenario", &scenario.name, "virtual time", "renew");
        results.facts.insert("devices".into(), f64::from(scenario.devices));
        let population = (scenario.devices + hostile::count(&scenario)) as usize;
        Ok(Self {
            now_ms: Cell::new(0),
            sequence: Cell::new(0),
            due: RefCell::default(),
            server: RefCell::new(ModelServer::new(&scenario)?),
            posts: RefCell::new(vec![VecDeque::new(); population]),
            slow: RefCell::new(vec![None; population]),
            results: RefCell::new(results),
            bucket_s: (scenario.span.as_secs() / BUCKETS).max(1),
            notes: Notes::default(),
            scenario,
        })
    }

    /// Milliseconds since the start.
    pub(super) fn now_ms(&self) -> u64 {
        self.now_ms.get()
    }

    /// Waits until a time, or until there is post for the device.
    pub(super) async fn wait(&self, number: u32, until_ms: u64) {
        let mut asked = false;
        poll_fn(|_| {
            if self.now_ms() >= until_ms || self.has_post(number) {
                return Poll::Ready(());
            }
            if !asked {
                asked = true;
                self.call(number, until_ms);
            }
            Poll::Pending
        })
        .await;
    }

    /// Takes the device's post.
    pub(super) fn take_post(&self, number: u32) -> Option<Post> {
        self.posts.borrow_mut().get_mut(number as usize)?.pop_front()
    }

    /// The link of a device at present.
    pub(super) fn link(&self, number: u32) -> LinkQuality {
        let slow = self.slow.borrow().get(number as usize).copied().flatten();
        let slow = slow.filter(|(until, _)| self.now_ms() < *until).map(|(_, link)| link);
        slow.or(self.scenario.link).unwrap_or(LinkQuality::USUAL)
    }

    /// Something went well.
    pub(super) fn done(&self, series: &str, took_ms: u64) {
        let took = Duration::from_millis(took_ms);
        let mut results = self.results.borrow_mut();
        results.series.entry(series.to_owned()).or_default().hdr.record(took);
        let bucket = self.bucket();
        let interval = results.intervals.entry(bucket).or_default();
        interval.series.entry(series.to_owned()).or_default().record(took);
    }

    /// Something failed.
    pub(super) fn failed(&self, series: &str, reason: String) {
        let mut results = self.results.borrow_mut();
        let errors = &mut results.series.entry(series.to_owned()).or_default().errors;
        *errors.entry(reason.clone()).or_default() += 1;
        let bucket = self.bucket();
        let errors = &mut results.intervals.entry(bucket).or_default().errors;
        *errors.entry(series.to_owned()).or_default().entry(reason).or_default() += 1;
    }

    fn bucket(&self) -> u64 {
        self.now_ms() / 1000 / self.bucket_s * self.bucket_s
    }

    fn has_post(&self, number: u32) -> bool {
        self.posts.borrow().get(number as usize).is_some_and(|posts| !posts.is_empty())
    }

    /// Has a device polled at a time.
    fn call(&self, number: u32, at_ms: u64) {
        if at_ms == u64::MAX {
            return;
        }
        let sequence = self.sequence.get() + 1;
        self.sequence.set(sequence);
        self.due.borrow_mut().push(Reverse((at_ms, sequence, number)));
    }

    fn post(&self, number: u32, post: Post) {
        if let Some(posts) = self.posts.borrow_mut().get_mut(number as usize) {
            posts.push_back(post);
        }
        self.call(number, self.now_ms());
    }

    fn happen(&self, event: &Event, chance: &mut Chance) {
        let chosen = |share: f64, chance: &mut Chance| -> Vec<u32> {
            (0..self.scenario.devices).filter(|_| chance.happens(share)).collect()
        };
        let now = self.now_ms();
        let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        let post_to =
            |numbers: Vec<u32>, post: Post| numbers.into_iter().for_each(|number| self.post(number, post));
        match event.what {
            What::CaAway { span } => {
                self.server.borrow_mut().away_until_ms = now.saturating_add(millis(span))
            }
            What::ClockSkew { share, seconds } => post_to(chosen(share, chance), Post::Skew(seconds)),
            What::Lifetime { lifetime } => self.server.borrow_mut().lifetime = lifetime,
            What::Reboot { share } => post_to(chosen(share, chance), Post::Reboot),
            What::Revoke { share } => post_to(chosen(share, chance), Post::Revoked),
            What::Rotate { share } => post_to(chosen(share, chance), Post::RenewNow),
            What::SlowLinks { share, span, link } => {
                let mut slow = self.slow.borrow_mut();
                for number in chosen(share, chance) {
                    if let Some(place) = slow.get_mut(number as usize) {
                        *place = Some((now.saturating_add(millis(span)), link));
                    }
                }
            }
        }
    }

    fn glance(&self, phase: &str) -> Glance {
        let results = self.results.borrow();
        let renew = results.series.get("renew").map(|series| series.hdr.clone()).unwrap_or_default();
        let mut errors = BTreeMap::new();
        for (reason, count) in results.series.values().flat_map(|series| &series.errors) {
            *errors.entry(reason.clone()).or_default() += count;
        }
        Glance {
            at_s: self.now_ms() / 1000,
            phase: Some(format!("{} {phase}", span::show(Duration::from_millis(self.now_ms())))),
            rate_per_s: 0,
            failed_per_s: 0,
            done: self.now_ms() / 1000,
            failed: errors.values().sum(),
            // Uses of certificates come and go within one call: nothing stays open.
            open: 0,
            p50_ms: renew.percentile_ms(50.0),
            p99_ms: renew.percentile_ms(99.0),
            p999_ms: Latency::percentile_ms(&renew, 99.9),
            errors,
        }
    }
}

/// Runs a scenario in virtual time.
///
/// # Errors
/// When the model can't be made, and when it was stopped: half a story says nothing of its end.
pub(crate) fn run(scenario: Scenario, view: &mut View, stop: &CancellationToken) -> anyhow::Result<Results> {
    let cpu_before = own_cpu_ms();
    let world = Rc::new(World::new(scenario)?);
    let devices = world.scenario.devices;
    let mut lives: Vec<Option<Life>> = Vec::new();
    for number in 0..devices {
        lives.push(Some(Box::pin(device::live(Rc::clone(&world), number))));
        world.call(number, 0);
    }
    for (nth, kind) in (0_u32..).zip(hostile::kinds(&world.scenario)) {
        lives.push(Some(Box::pin(hostile::live(Rc::clone(&world), devices + nth, kind))));
        world.call(devices + nth, 0);
    }
    let end_ms = u64::try_from(world.scenario.span.as_millis())?;
    let mut events: VecDeque<Event> = world.scenario.events.clone().into();
    let mut chance = Chance::new(world.scenario.seed, EVENT_STREAM);
    let (mut shown, mut phase) = (Instant::now(), String::new());
    let mut polls = 0_u64;
    loop {
        let next = world.due.borrow().peek().map_or(u64::MAX, |Reverse((at, ..))| *at);
        let event_ms =
            events.front().map_or(u64::MAX, |event| u64::try_from(event.at.as_millis()).unwrap_or(u64::MAX));
        if next.min(event_ms) > end_ms {
            break;
        }
        if event_ms <= next {
            let Some(event) = events.pop_front() else { break };
            world.now_ms.set(event_ms);
            phase = event.what.to_string();
            let interval = world.bucket();
            world.results.borrow_mut().intervals.entry(interval).or_default().phase = Some(phase.clone());
            world.happen(&event, &mut chance);
            continue;
        }
        let Some(Reverse((at, _, number))) = world.due.borrow_mut().pop() else { break };
        world.now_ms.set(at.max(world.now_ms()));
        poll_one(&mut lives, number);
        polls += 1;
        if polls.is_multiple_of(SHOW_EVERY_POLLS) && shown.elapsed() > Duration::from_secs(1) {
            shown = Instant::now();
            view.show(&world.glance(&phase), false);
            anyhow::ensure!(!stop.is_cancelled(), "stopped before the scenario was over");
        }
    }
    world.now_ms.set(end_ms);
    drop(lives);
    Ok(conclude(&world, own_cpu_ms() - cpu_before))
}

fn poll_one(lives: &mut [Option<Life>], number: u32) {
    let Some(place) = lives.get_mut(number as usize) else { return };
    let Some(life) = place else { return };
    // Whoever waits asked to be called at a time, so there is nobody to wake.
    if life.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready() {
        *place = None;
    }
}

fn conclude(world: &World, cpu_ms: f64) -> Results {
    let mut results = world.results.replace(Results::new("scenario", "", "", "renew"));
    let server = world.server.borrow();
    let (book, notes) = (&server.book, &world.notes);
    results.took_s = world.scenario.span.as_secs_f64();
    if !results.series.contains_key("renew") {
        results.main_series = "enroll".to_owned();
    }
    for (name, value) in [
        ("certificates_issued", book.issued),
        ("requests_repeated", book.repeated),
        ("fullest_second", u64::from(book.fullest_second)),
        ("revoked", notes.revoked.get()),
        ("holding_at_the_end", notes.holding.get()),
    ] {
        results.facts.insert(name.into(), value as f64);
    }
    // Not among the facts: it differs from run to run.
    results.costs.client_cpu_ms = cpu_ms;
    let held = |name: &str, bad: u64, what: &str| Check {
        name: name.into(),
        held: bad == 0,
        detail: format!("{bad} {what}"),
    };
    let entitled = u64::from(world.scenario.devices).saturating_sub(notes.revoked.get());
    let missing = entitled.saturating_sub(notes.holding.get());
    results.checks = vec![
        held("no revoked device is let in", book.revoked_accepted, "were"),
        held("nobody hostile gets anything", book.hostile_accepted, "did"),
        held("no device loses an identity in its time", notes.lost_identities.get(), "did"),
        held("every request on a whole link is answered", notes.unanswered.get(), "were not"),
        held("every device that may holds a certificate at the end", missing, "do not"),
    ];
    results
}

/// Points of a chart over the whole span.
const BUCKETS: u64 = 400;
const EVENT_STREAM: u64 = 2;
const SHOW_EVERY_POLLS: u64 = 4096;
