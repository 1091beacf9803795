//! The shell of the device core: it brings sockets, keys, disk and clocks, and decides nothing.
//!
//! One input, then drain: [`Device::next`] hands the core what happened, takes all its outputs, and does
//! them. Whatever takes time runs beside it (the connection in a task, the disk on a blocking thread), one
//! piece of local work after the other in the order asked. `next` loses nothing when it is dropped, so a
//! caller can wait for other things at the same time.

mod heard;
mod job;
pub(crate) mod key;
mod link;
mod start;
mod tls;
mod verify;
mod words;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use muster_proto::enrollment::{
    Connect, Ending, Enrollment, Event, Failure, Input, Misuse, Output, Present, Restored, ServerTrust,
    Session, Slot, State, Window,
};
use muster_proto::time::{Instant, UnixTime};
use tokio::task::JoinHandle;

use self::heard::Heard;
use self::job::{Done, Job};
use self::link::{Handshake, Happening, Link};
pub use self::start::{Ground, StartError};
use self::start::{INBOX_BYTES, take_stock};
use self::verify::AwsLc;
use self::words::Circumstances;
pub use self::words::{Outlook, state_name};
use crate::clock::Clock;
use crate::identity::{Held, Identity, Publisher, Verdict};
use crate::settings::{Proof, Settings};
use crate::store::{Kept, Store};

/// Something worth knowing, for the log, the status and whoever waits at a terminal.
#[derive(Clone, Debug)]
pub enum News {
    /// This identity is in use from now on.
    Adopted(Arc<Identity>),
    /// The clock was set from the server's `Date`.
    ClockSet(UnixTime),
    /// A stored record was of no use: its slot, and why.
    Discarded(Slot, String),
    /// A try failed.
    Failed {
        /// The value that the core has for it.
        failure: Failure,
        /// The same as a sentence.
        words: String,
        /// Whether waiting helps.
        outlook: Outlook,
        /// When the next try is due.
        again_in: Duration,
    },
    /// A certificate was issued, checked and stored.
    Issued(Window),
    /// The state changed.
    Moved(State),
    /// The server wants to decide first; the request is repeated after this time.
    Postponed(Duration),
    /// Something beside the course of things went wrong.
    Trouble(String),
    /// Renewal is urgent.
    Urgent,
}

/// A device that enrolls and renews.
pub struct Device<'g> {
    machine: Enrollment<'g, AwsLc>,
    /// One HTTP answer.
    inbox: Vec<u8>,
    settings: &'g Settings,
    server: String,
    store: Arc<Store>,
    clock: Clock,
    publisher: Publisher,
    link: Option<Link>,
    connect: Option<Connect>,
    jobs: VecDeque<Job>,
    job: Option<JoinHandle<Done>>,
    identities: [Option<Arc<Identity>>; 2],
    published: Held,
    /// The identity in use could not be shown.
    is_unshown: bool,
    news: VecDeque<News>,
    heard: Heard,
    link_words: String,
    store_words: String,
    wait_until: Instant,
    /// When that is looked at which nothing tells about.
    look_at: Instant,
    wall: (Instant, UnixTime),
}

impl<'g> Device<'g> {
    /// Takes up what is in the store.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start(
        ground: &'g mut Ground<'_>,
        store: Arc<Store>,
        clock: Clock,
        publisher: Publisher,
    ) -> Result<Self, StartError> {
        let settings = ground.settings;
        let mut news = VecDeque::new();
        let contents = take_stock(&store, &mut news)?;
        let mut restored = Restored::default();
        let mut identities = [None, None];
        for (slot, content) in SLOTS.into_iter().zip(&contents) {
            let Some(content) = content else { continue };
            if let Some(place) = restored.records.get_mut(index(slot)) {
                *place = content.record.as_ref().map(|record| record.as_record(slot));
            }
            if let Some(place) = identities.get_mut(index(slot)) {
                *place = Identity::from_content(content, &settings.trust).map(Arc::new);
            }
        }
        let now = clock.now();
        let machine = ground.machine(&restored, now)?;
        let mut device = Self {
            machine,
            inbox: vec![0; INBOX_BYTES],
            settings,
            server: settings.server.to_string(),
            store,
            clock,
            publisher,
            link: None,
            connect: None,
            jobs: VecDeque::new(),
            job: None,
            identities,
            published: Held::default(),
            is_unshown: false,
            news,
            heard: Heard::default(),
            link_words: String::new(),
            store_words: String::new(),
            wait_until: now,
            look_at: now,
            wall: (now, clock.wall()),
        };
        device.tell_wall();
        if let Some(identity) = device.in_use() {
            device.jobs.push_back(Job::Show(identity));
        }
        Ok(device)
    }

    /// Works until there is news. Dropping it before loses nothing.
    pub async fn next(&mut self) -> News {
        loop {
            self.drain();
            if let Some(news) = self.news.pop_front() {
                return news;
            }
            self.wait().await;
        }
    }

    /// Renews, or goes on enrolling, without waiting for the time to come.
    pub fn renew_now(&mut self) {
        self.machine.renew_now(self.clock.now());
    }

    /// Enrolls by the credential as if nothing were held; what is held stays in use until that succeeded.
    ///
    /// # Errors
    /// [`StartError`] for a credential that can't be sent.
    pub fn enroll_anew(&mut self) -> Result<(), StartError> {
        let now = self.clock.now();
        if let Some(credential) = start::credential(self.settings)? {
            self.machine.use_credential(credential, now);
        }
        self.machine.renew_now(now);
        Ok(())
    }

    /// Ends it: the work on the disk that is under way is finished, and so is the tidying that is due.
    ///
    /// Before that no other device may work on the same store.
    pub async fn finish(mut self) -> Publisher {
        self.link = None;
        if self.job.is_some() {
            outcome(&mut self.job).await;
        }
        for job in self.jobs.drain(..).filter(Job::is_tidying) {
            let store = Arc::clone(&self.store);
            let roots = self.settings.trust.clone();
            outcome(&mut Some(tokio::task::spawn_blocking(move || job.run(&store, &roots)))).await;
        }
        self.publisher
    }

    /// Whether a new certificate is stored and waits to be tried.
    #[must_use]
    pub fn has_candidate(&self) -> bool {
        self.machine.candidate().is_some()
    }

    /// Where it stands.
    #[must_use]
    pub fn state(&self) -> State {
        self.machine.state()
    }

    /// When the identity in use is to be renewed.
    #[must_use]
    pub fn window(&self) -> Option<Window> {
        self.machine.times().window
    }

    /// How long until the next try is allowed.
    #[must_use]
    pub fn retry_in(&self) -> Duration {
        self.machine.times().retry_at.since(self.clock.now())
    }

    /// The identity in use.
    #[must_use]
    pub fn in_use(&self) -> Option<Arc<Identity>> {
        self.machine.current().and_then(|slot| self.identity(slot))
    }

    fn identity(&self, slot: Slot) -> Option<Arc<Identity>> {
        self.identities.get(index(slot)).cloned().flatten()
    }

    /// Waits for the next happening and hands it to the core.
    async fn wait(&mut self) {
        let deadline = self.clock.deadline(self.wait_until.min(self.look_at));
        let Self { link, job, publisher, .. } = self;
        let judged = publisher.has_judges();
        tokio::select! {
            happening = happening(link) => self.happened(happening),
            done = outcome(job) => {
                self.job = None;
                self.done(done);
            }
            verdict = publisher.verdict(), if judged => {
                if let Some(verdict) = verdict {
                    self.judged(verdict);
                }
            }
            () = tokio::time::sleep_until(deadline) => self.handle(Input::TimerFired),
        }
        self.tell_wall_if_it_jumped();
        self.look();
    }

    /// Looks now and then, however often the caller asks anew: the system's clock may be set, and a full disk have
    /// room again, while nothing else happens.
    fn look(&mut self) {
        if self.clock.now() < self.look_at {
            return;
        }
        self.look_at = self.clock.now().plus(LOOK_INTERVAL);
        if self.is_unshown
            && let Some(identity) = self.in_use()
        {
            self.jobs.push_back(Job::Show(identity));
        }
    }

    /// Takes outputs until there are none, and starts what they ask for.
    fn drain(&mut self) {
        loop {
            let mut buffer = [0; SEND_BYTES];
            // The buffer is not empty, which is all that `poll` asks of it.
            let Ok(output) = self.machine.poll(&mut buffer) else { return };
            match output {
                Output::Close => self.link = None,
                Output::Connect(connect) => self.connect(connect),
                Output::Event(event) => self.tell(event),
                Output::MakeKey(slot) => {
                    self.forget(slot);
                    self.jobs.push_back(Job::MakeKey(slot));
                }
                Output::Retire(slot) => self.retire(slot),
                Output::Send(bytes) => {
                    self.heard.forget();
                    let bytes = bytes.to_vec();
                    let sent = self.link.as_ref().is_none_or(|link| link.send(bytes));
                    if !sent {
                        self.link = None;
                        "the server does not read what is sent".clone_into(&mut self.link_words);
                        self.handle(Input::Closed(Ending::Reset));
                    }
                }
                Output::Sign { slot, message } => self.jobs.push_back(Job::Sign(slot, message.to_vec())),
                Output::Store(record) => {
                    self.jobs.push_back(Job::Store(record.slot(), Kept::from_record(&record)));
                }
                Output::WaitUntil(at) => {
                    self.wait_until = at;
                    if !self.accept_unseen() {
                        break;
                    }
                }
            }
        }
        self.start_job();
        self.publish();
    }

    /// With nobody to try it, a candidate is taken at once; says whether there was one.
    fn accept_unseen(&mut self) -> bool {
        match self.machine.candidate() {
            Some(slot) if !self.publisher.has_judges() => {
                self.handle(Input::Accepted(slot));
                true
            }
            _ => false,
        }
    }

    fn start_job(&mut self) {
        if self.job.is_some() {
            return;
        }
        if let Some(job) = self.jobs.pop_front() {
            let store = Arc::clone(&self.store);
            let roots = self.settings.trust.clone();
            self.job = Some(tokio::task::spawn_blocking(move || job.run(&store, &roots)));
        }
    }

    fn connect(&mut self, connect: Connect) {
        self.connect = Some(connect);
        let expected = (connect.trust == ServerTrust::Verified).then(|| tls::Expected {
            server: self.settings.server.clone(),
            roots: self.settings.trust.clone(),
            pinned: self.machine.pinned_authority().map(<[u8]>::to_vec),
            moment: self.machine.moment(),
        });
        let presented = match connect.present {
            Present::Nothing => None,
            Present::Slot(slot) => self.identity(slot),
            Present::Manufacturer => {
                self.settings.credential.as_ref().and_then(Proof::manufacturer).map(Arc::clone)
            }
        };
        let unusable = connect.present != Present::Nothing && presented.is_none();
        match tls::client(expected, presented.as_deref()) {
            Ok(config) if !unusable => {
                self.link = Some(Link::open(self.settings.server.clone(), config));
            }
            Ok(_) => self.ended(Ending::CertificateRefused, "its key can't be used".to_owned()),
            Err(error) => self.ended(Ending::CertificateRefused, error.to_string()),
        }
    }

    fn happened(&mut self, happening: Happening) {
        match happening {
            Happening::Ended(ending, words) => self.ended(ending, words),
            Happening::Received(bytes) => {
                self.heard.take(&bytes);
                let taken = self.machine.receive(&bytes, &mut self.inbox, self.clock.now());
                self.tell_misuse(taken);
            }
            Happening::Up(handshake) => self.up(&handshake),
        }
    }

    /// The handshake is over: the core itself says whether this is the server.
    fn up(&mut self, handshake: &Handshake) {
        let verified = self.connect.is_some_and(|connect| connect.trust == ServerTrust::Verified);
        let server_valid = if verified {
            let Some((leaf, others)) = handshake.chain.split_first() else {
                return self.ended(Ending::ServerUntrusted, "it showed no certificate".to_owned());
            };
            match self.machine.check_server(leaf, others.iter().map(AsRef::as_ref)) {
                Ok(validity) => Some(validity),
                Err(refused) => return self.ended(Ending::of_refused(refused), format!("{refused:?}")),
            }
        } else {
            None
        };
        self.handle(Input::Connected(Session { server_valid, binding: handshake.binding }));
    }

    fn ended(&mut self, ending: Ending, words: String) {
        self.link = None;
        self.link_words = words;
        self.handle(Input::Closed(ending));
    }

    fn done(&mut self, done: Done) {
        match done {
            Done::Failed(words) => {
                self.store_words = words;
                self.handle(Input::LocalFailure);
            }
            Done::Key(point) => self.handle(Input::KeyReady(point)),
            Done::Signature(signature) => self.handle(Input::Signed(&signature)),
            Done::Stored(slot, identity) => {
                if let (Some(identity), Some(place)) = (identity, self.identities.get_mut(index(slot))) {
                    *place = Some(Arc::new(identity));
                }
                self.handle(Input::Stored);
            }
            Done::Shown => self.is_unshown = false,
            Done::Tidied => {}
            // Told once, and not each time that it is tried again.
            Done::Unshown(_) if self.is_unshown => {}
            Done::Unshown(words) => {
                self.is_unshown = true;
                self.news.push_back(News::Trouble(words));
            }
            Done::Untidy(words) => self.news.push_back(News::Trouble(words)),
        }
    }

    fn judged(&mut self, verdict: Verdict) {
        let (judged, why) = match verdict {
            Verdict::Accepted { identity } => (identity, None),
            Verdict::Refused { identity, why } => (identity, Some(why)),
        };
        let is_meant = |slot: &Slot| self.identity(*slot).is_some_and(|identity| identity.is_same(&judged));
        // A verdict on an identity that is gone already means nothing.
        let Some(slot) = SLOTS.into_iter().find(is_meant) else { return };
        match why {
            None => self.handle(Input::Accepted(slot)),
            Some(why) => {
                let generation = judged.generation;
                self.news.push_back(News::Trouble(format!("certificate {generation} was refused: {why}")));
                self.handle(Input::Refused(slot));
            }
        }
    }

    /// Another identity has taken over: that one is shown before this one is gone.
    fn retire(&mut self, slot: Slot) {
        if let Some(identity) = self.in_use() {
            self.jobs.push_back(Job::Show(identity));
        }
        self.forget(slot);
        self.jobs.push_back(Job::Clear(slot));
    }

    fn forget(&mut self, slot: Slot) {
        if let Some(place) = self.identities.get_mut(index(slot)) {
            *place = None;
        }
    }

    fn publish(&mut self) {
        let in_use = self.in_use().filter(|_| self.machine.state() != State::Lapsed);
        let candidate = self.machine.candidate().and_then(|slot| self.identity(slot));
        let held = Held { in_use, candidate };
        if !self.published.is_same(&held) {
            self.published = held.clone();
            self.publisher.publish(held);
        }
    }

    fn tell(&mut self, event: Event) {
        let in_time = |at: Instant| at.since(self.clock.now());
        let news = match event {
            Event::Adopted(slot) => {
                let Some(identity) = self.identity(slot) else { return };
                self.jobs.push_back(Job::Show(Arc::clone(&identity)));
                News::Adopted(identity)
            }
            Event::ClockSet(time) => News::ClockSet(time),
            Event::Discarded(slot) => {
                News::Discarded(slot, "it is of another device, or unreadable".to_owned())
            }
            Event::Failed(failure, at) => {
                let words = words::sentence(&failure, &self.circumstances());
                let again_in = in_time(at);
                if failure == Failure::Clock {
                    // The core holds the system's time in doubt, and the server knows none: there is no better one.
                    self.tell_wall();
                }
                News::Failed { failure, words, outlook: words::outlook(&failure), again_in }
            }
            Event::Issued(_, window) => News::Issued(window),
            Event::Moved(state) => News::Moved(state),
            Event::Postponed(at) => News::Postponed(in_time(at)),
            Event::Urgent => News::Urgent,
        };
        self.news.push_back(news);
    }

    fn circumstances(&self) -> Circumstances<'_> {
        Circumstances {
            server: &self.server,
            trust: self.connect.map_or(ServerTrust::Verified, |connect| connect.trust),
            link: &self.link_words,
            heard: self.heard.words(),
            store: &self.store_words,
        }
    }

    fn handle(&mut self, input: Input<'_>) {
        let taken = self.machine.handle(input, self.clock.now());
        self.tell_misuse(taken);
    }

    /// The core is unchanged then, and whatever it waits for still comes or times out.
    fn tell_misuse(&self, taken: Result<(), Misuse>) {
        if let Err(misuse) = taken {
            tracing::error!(?misuse, "the device core was called out of turn");
        }
    }

    fn tell_wall(&mut self) {
        self.wall = (self.clock.now(), self.clock.wall());
        self.handle(Input::Wall(self.wall.1));
    }

    /// Both clocks should have gone on by as much; a system that slept or was set shows a difference.
    fn tell_wall_if_it_jumped(&mut self) {
        let (since, then) = self.wall;
        let due = then.plus(self.clock.now().since(since));
        let wall = self.clock.wall();
        if wall.since(due).max(due.since(wall)) > WALL_TOLERANCE {
            self.tell_wall();
        }
    }
}

/// The next happening on the connection; never, without one.
async fn happening(link: &mut Option<Link>) -> Happening {
    match link {
        Some(link) => link.next().await,
        None => std::future::pending().await,
    }
}

/// How the local work went; never, without any.
async fn outcome(job: &mut Option<JoinHandle<Done>>) -> Done {
    match job {
        None => std::future::pending().await,
        Some(job) => match job.await {
            Ok(done) => done,
            // A panic there is a bug here.
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => Done::Failed("the agent is stopping".to_owned()),
        },
    }
}

const fn index(slot: Slot) -> usize {
    match slot {
        Slot::A => 0,
        Slot::B => 1,
    }
}

/// Both slots, in the order of the arrays here.
pub const SLOTS: [Slot; 2] = [Slot::A, Slot::B];

/// A request with an RSA-sized chain in base64 takes a few of these.
const SEND_BYTES: usize = 4 << 10;
/// How long a set clock may go unnoticed, and how soon what could not be shown is tried again.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);
/// Beyond rounding to seconds and slewing by a time service.
const WALL_TOLERANCE: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests;
