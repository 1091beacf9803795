//! Getting a certificate and keeping one: the machine that every device runs.
//!
//! ```text
//! Anchors -> Keying -> Requesting -> Holding <-> Renewing        Lapsed: the certificate's time is over,
//!                       ^      |                   |                and it goes on trying
//!                       +- Pending (202)           +-> Lapsed -> Holding
//! ```
//! On one connection it reads the CA certificates, asks for the server's wishes, has a key made and a request
//! signed and stored, and sends it. The identity in use stays untouched until its successor was checked, stored,
//! and used once with success ([`Input::Accepted`]), or until its own time is over.
//! RFC 7030 is the protocol; failures only ever lead to another try, whose time is bounded on both sides.

mod advance;
mod answer;
mod authorities;
mod config;
mod events;
mod failure;
mod input;
mod issue;
mod output;
mod pace;
mod request;
mod shelf;
mod window;
mod words;

pub use config::{AskWishes, BadIdentity, Binding, Config, Identity, Memory, Presents, Trust};
pub use failure::{Failure, LocalTask, PayloadError, Place};
pub use input::{Ending, Input, Misuse, Session};
pub use issue::IssueError;
pub use output::{Connect, Event, Output, Pair, Present, Record, ServerTrust, Slot, StoredRequest};
pub use pace::Pace;
pub use window::Window;

use self::advance::Goal;
use self::authorities::{Authorities, anchors};
use self::events::Events;
use self::pace::BackOff;
use self::request::Desk;
use self::shelf::Shelf;
use crate::ShortBuffer;
use crate::clock::WallClock;
use crate::csrattrs::CsrAttributes;
use crate::est::{Credential, Operation, Request};
use crate::http::ResponseReader;
use crate::jitter::Jitter;
use crate::time::{Instant, Millis, Validity};
use crate::x509::{Bundle, Moment, ServerRefused, Verify, check_server};

/// Where an enrollment stands, named for what it waits for or holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Waits for the CA certificates.
    Anchors,
    /// Waits for a key and a signed, stored request.
    Keying,
    /// Waits for its first certificate.
    Requesting,
    /// Waits because the server has accepted the request and not yet decided.
    Pending,
    /// Holds a certificate and has nothing to do.
    Holding,
    /// Holds a certificate and works on its successor, or waits for the successor to be accepted.
    Renewing,
    /// Holds a certificate whose time is over, and works on a new one.
    Lapsed,
}

/// When things are due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// No try before this.
    pub retry_at: Instant,
    /// The window of the identity in use.
    pub window: Option<Window>,
}

/// One device's enrollment. See the [module](self) for its course and the crate for the rule of use.
///
/// Inputs: [`handle`](Self::handle), and [`receive`](Self::receive) for what the server sends. Outputs:
/// [`poll`](Self::poll). Commands: [`renew_now`](Self::renew_now), [`use_credential`](Self::use_credential),
/// [`forget_credential`](Self::forget_credential). For the shell's TLS: [`check_server`](Self::check_server).
/// `now` never goes back.
// In this order, because a field near the beginning takes the shorter instructions of a Cortex-M to get at.
#[repr(C)]
pub struct Enrollment<'a, V> {
    close_due: bool,
    /// Renew although it is not time.
    forced: bool,
    /// The CA certificates were read since the last certificate.
    learned: bool,
    /// The server answered 202 last.
    pending: bool,
    proof: ProofChoice,
    retire_due: Option<Slot>,
    told_state: State,
    /// The identity in use has not been used with success since it was issued.
    untried: bool,
    urgency_told: bool,
    wishes: Option<CsrAttributes>,
    step: Step,
    now: Instant,
    retry_at: Instant,
    clock: WallClock,
    link: Option<Link>,
    /// The identity in use. Changes only in `adopt`.
    current: Shelf<'a>,
    /// Checked and stored, but not accepted yet.
    candidate: Shelf<'a>,
    authorities: Authorities<'a>,
    back_off: BackOff,
    jitter: Jitter,
    desk: Desk<'a>,
    config: Config<'a>,
    reader: ResponseReader,
    /// The status of the answer under way, once its line was read.
    heard: Option<u16>,
    events: Events,
    verifier: V,
}

/// What is under way. `asked`: the output was polled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Rest,
    Connecting { connect: Connect, asked: bool, until: Instant },
    Exchanging { operation: Operation, sent: Option<usize>, until: Instant },
    Making { asked: bool },
    Signing { asked: bool },
    StoringRequest { asked: bool },
    StoringPair { asked: bool },
}

/// The open connection.
#[derive(Clone, Copy)]
struct Link {
    connect: Connect,
    session: Session,
}

/// With what to authenticate while there is a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ProofChoice {
    Certificate,
    Credential,
}

/// What the shell found in its store at start, by slot; the order does not matter.
#[derive(Clone, Copy, Debug, Default)]
pub struct Restored<'r> {
    /// Records as they were handed to `Output::Store`.
    pub records: [Option<Record<'r>>; 2],
}

impl<'a, V: Verify> Enrollment<'a, V> {
    /// An enrollment at start. Records of no use (unreadable, or of another device) are passed over with an event.
    // Apart: what is made here is large, and is put from here straight into its place.
    #[inline(never)]
    pub fn new(
        config: Config<'a>,
        memory: Memory<'a>,
        restored: &Restored<'_>,
        verifier: V,
        now: Instant,
    ) -> Self {
        let mut jitter = Jitter::new(config.seed);
        let retry_at = now.after(jitter.up_to(Millis::of(config.pace.spread)));
        let mut enrollment = Self {
            clock: WallClock::new(config.built_at),
            config,
            verifier,
            authorities: Authorities::new(memory.authorities),
            desk: Desk::new(memory.request),
            current: Shelf::new(memory.current),
            candidate: Shelf::new(memory.candidate),
            jitter,
            back_off: BackOff::default(),
            retry_at,
            step: Step::Rest,
            link: None,
            reader: ResponseReader::new(),
            heard: None,
            learned: false,
            wishes: None,
            pending: false,
            forced: false,
            proof: ProofChoice::Certificate,
            untried: false,
            urgency_told: false,
            events: Events::default(),
            told_state: State::Anchors,
            close_due: false,
            retire_due: None,
            now,
        };
        enrollment.restore(restored);
        enrollment.advance();
        enrollment
    }

    /// Takes one input. Afterwards drain [`poll`](Self::poll).
    ///
    /// # Errors
    /// [`Misuse`] when the shell calls out of turn; nothing changes then.
    pub fn handle(&mut self, input: Input<'_>, now: Instant) -> Result<(), Misuse> {
        self.now = self.now.max(now);
        match input {
            Input::Accepted(slot) => self.accepted(slot)?,
            Input::Closed(ending) => self.closed(ending),
            Input::Connected(session) => self.connected(session)?,
            Input::KeyReady(key) => self.key_ready(key)?,
            Input::LocalFailure => self.local_failure()?,
            Input::Refused(slot) => self.refused(slot)?,
            Input::Signed(signature) => self.signed(signature)?,
            Input::Stored => self.stored()?,
            Input::TimerFired => self.timer_fired(),
            Input::Wall(wall) => {
                self.clock.set_by_shell(wall, self.now);
            }
        }
        if self.step == Step::Rest {
            self.advance();
        }
        Ok(())
    }

    /// Takes bytes from the server, inside TLS. Afterwards drain [`poll`](Self::poll).
    ///
    /// `inbox` holds one HTTP answer: the same memory as long as a connection lasts, and nobody's while there is none,
    /// or while anything else than an answer is awaited. Any size is safe; what does not fit is a
    /// [`Failure::Answer`]. [`Memory::INBOX_BYTES`] suits P-256 and a two-step CA.
    ///
    /// # Errors
    /// [`Misuse`] when there is no connection; nothing changes then.
    // Apart: once in an image, and its frame is off the stack when it has returned.
    #[inline(never)]
    pub fn receive(&mut self, bytes: &[u8], inbox: &mut [u8], now: Instant) -> Result<(), Misuse> {
        self.now = self.now.max(now);
        self.received(bytes, inbox)?;
        if self.step == Step::Rest {
            self.advance();
        }
        Ok(())
    }

    /// Renews (or goes on enrolling) without waiting for the time to come.
    pub fn renew_now(&mut self, now: Instant) {
        self.now = self.now.max(now);
        self.forced = true;
        self.retry_at = self.now;
        self.back_off.reset();
        if self.step == Step::Rest {
            self.advance();
        }
    }

    /// Hands in another credential, e.g. a recovery token for a device whose certificate is over.
    pub fn use_credential(&mut self, credential: Credential<'a>, now: Instant) {
        self.replace_credential(Some(credential));
        self.proof = ProofChoice::Credential;
        if self.state() != State::Holding {
            self.renew_now(now);
        }
    }

    /// Forgets the credential: it is used up, and would only be refused. A request that is being sent with it goes
    /// out again without it, if there is a certificate to prove the device.
    pub fn forget_credential(&mut self, now: Instant) {
        self.now = self.now.max(now);
        self.replace_credential(None);
        self.proof = ProofChoice::Certificate;
        if self.step == Step::Rest {
            self.advance();
        }
    }

    /// Next thing to do, written to `buffer` where it has to be sent. Call until it is [`Output::WaitUntil`].
    ///
    /// # Errors
    /// [`ShortBuffer`] for an empty buffer; any other size will do, larger ones take fewer calls.
    pub fn poll<'b>(&'b mut self, buffer: &'b mut [u8]) -> Result<Output<'b>, ShortBuffer> {
        if buffer.is_empty() {
            return Err(ShortBuffer);
        }
        let state = self.state();
        if state != self.told_state {
            self.told_state = state;
            self.events.push(Event::Moved(state));
        }
        if core::mem::take(&mut self.close_due) {
            return Ok(Output::Close);
        }
        if let Some(slot) = self.retire_due.take() {
            return Ok(Output::Retire(slot));
        }
        if let Some(event) = self.events.pop() {
            return Ok(Output::Event(event));
        }
        Ok(self.poll_step(buffer))
    }

    /// Where it stands.
    #[must_use]
    pub fn state(&self) -> State {
        if self.current.label().is_some() {
            return if self.current.is_over(self.moment()) {
                State::Lapsed
            } else if self.candidate.label().is_some() || matches!(self.goal(), Goal::Certificate(_)) {
                State::Renewing
            } else {
                State::Holding
            };
        }
        if self.pending {
            State::Pending
        } else if !self.learned {
            State::Anchors
        } else if !self.desk.is_stored() {
            State::Keying
        } else {
            State::Requesting
        }
    }

    /// What it was told, with the credential that it has now.
    #[must_use]
    pub const fn config(&self) -> &Config<'a> {
        &self.config
    }

    /// When things are due.
    #[must_use]
    pub fn times(&self) -> Times {
        Times { retry_at: self.retry_at, window: self.current.window() }
    }

    /// The slot of the identity in use. It stays usable while its successor is on trial.
    #[must_use]
    pub fn current(&self) -> Option<Slot> {
        self.current.slot()
    }

    /// The slot of a successor that is stored and wants to be tried.
    #[must_use]
    pub fn candidate(&self) -> Option<Slot> {
        // Until it is stored it does not exist for anyone else.
        self.candidate.slot().filter(|_| !matches!(self.step, Step::StoringPair { .. }))
    }

    /// The chain of the identity in this slot, leaf first.
    #[must_use]
    pub fn chain(&self, slot: Slot) -> Option<Bundle<'_>> {
        [&self.current, &self.candidate]
            .into_iter()
            .find(|shelf| shelf.slot() == Some(slot))
            .map(Shelf::chain)
    }

    /// How often the identity in this slot was renewed, counted from the first one.
    #[must_use]
    pub fn generation(&self, slot: Slot) -> Option<u32> {
        let labels = [self.current.label(), self.candidate.label()];
        labels.into_iter().flatten().find(|label| label.slot == slot).map(|label| label.generation)
    }

    /// What is known of the present time.
    #[must_use]
    pub fn moment(&self) -> Moment {
        self.clock.read(self.now)
    }

    /// The CA certificate that the pinned fingerprint stands for, once it was fetched.
    #[must_use]
    pub fn pinned_authority(&self) -> Option<&[u8]> {
        self.authorities.pinned(&self.config.trust)
    }

    /// What checks signatures here.
    pub const fn verifier(&self) -> &V {
        &self.verifier
    }

    /// Checks a TLS server's certificate: chain to the configured trust, serverAuth, name, and dates as far as
    /// the time is known. `others` are the further certificates that it sent. Whether the server has the key is
    /// for TLS to find out.
    ///
    /// # Errors
    /// [`ServerRefused`]; the connection must then end with [`Ending::of_refused`].
    pub fn check_server<'c>(
        &'c self,
        leaf: &'c [u8],
        others: impl Iterator<Item = &'c [u8]> + Clone,
    ) -> Result<Validity, ServerRefused> {
        let name = self.config.server.name();
        let candidates = others.chain(self.authorities.bundle().iter());
        let anchors = anchors(&self.config.trust);
        check_server(&name, leaf, candidates, &anchors, self.moment(), &self.verifier)
    }

    /// Another credential, or none. What was begun with the one before is not gone on with.
    fn replace_credential(&mut self, credential: Option<Credential<'a>>) {
        self.config.credential = credential;
        if matches!(self.step, Step::Exchanging { operation: Operation::SimpleEnroll, .. }) {
            self.hang_up();
            self.step = Step::Rest;
        }
    }

    fn restore(&mut self, restored: &Restored<'_>) {
        let mut newest_request = None;
        for record in restored.records.iter().flatten() {
            let taken = match record {
                Record::Pair(pair) => self.restore_pair(pair),
                Record::Request(request) => {
                    newest_request = Some(*request);
                    self.clock.raise_floor(request.saved_at);
                    true
                }
            };
            if !taken {
                self.events.push(Event::Discarded(record.slot()));
            }
        }
        // With two pairs the renewal is done but for the proof: the older one is in use.
        let generation = |shelf: &Shelf<'_>| shelf.label().map(|label| label.generation);
        if generation(&self.candidate).is_some_and(|newer| Some(newer) < generation(&self.current)) {
            core::mem::swap(&mut self.current, &mut self.candidate);
        }
        if let Some(request) = newest_request
            && (self.current.slot() == Some(request.slot)
                || !self.desk.restore(request.slot, request.csr, self.config.identity.device()))
        {
            self.events.push(Event::Discarded(request.slot));
        }
    }

    /// Puts a stored identity on the first free shelf.
    fn restore_pair(&mut self, pair: &Pair<'_>) -> bool {
        let Ok(leaf) = pair.chain.first() else { return false };
        if leaf.common_name() != Some(self.config.identity.device()) {
            return false;
        }
        let shelf = if self.current.label().is_none() { &mut self.current } else { &mut self.candidate };
        let mut chain = pair.chain.iter().take(self.config.presents.most());
        if shelf.fill(pair.slot, pair.generation, pair.window, &mut chain).is_err() {
            return false;
        }
        self.clock.raise_floor(pair.saved_at);
        let anchors = anchors(&self.config.trust);
        if anchors.pins(pair.anchor) {
            // It fits: the same memory held it when it was stored. If not, it is fetched again.
            let _ = self.authorities.replace(Bundle::new(pair.anchor), &anchors);
        }
        true
    }

    // Apart, here and below: each kind of output is then written where it is wanted, and not put together from parts.
    #[inline(never)]
    fn poll_step<'b>(&'b mut self, buffer: &'b mut [u8]) -> Output<'b> {
        match &mut self.step {
            Step::Connecting { connect, asked: asked @ false, .. } => {
                *asked = true;
                Output::Connect(*connect)
            }
            Step::Exchanging { operation, sent: Some(sent), .. } => {
                let (operation, skip) = (*operation, *sent);
                Output::Send(self.write_request(operation, skip, buffer))
            }
            Step::Making { asked: asked @ false } => {
                *asked = true;
                Output::MakeKey(self.next_slot())
            }
            Step::Signing { asked: asked @ false } => {
                *asked = true;
                Output::Sign { slot: self.next_slot(), message: self.desk.message() }
            }
            Step::StoringRequest { asked: asked @ false } => {
                *asked = true;
                let saved_at = self.clock.floor();
                Output::Store(Record::Request(StoredRequest {
                    slot: self.next_slot(),
                    csr: self.desk.csr(),
                    saved_at,
                }))
            }
            Step::StoringPair { asked: asked @ false } => {
                *asked = true;
                let anchor = self.pinned_authority().unwrap_or_default();
                match self.candidate.pair(anchor, self.clock.floor()) {
                    Some(pair) => Output::Store(Record::Pair(pair)),
                    None => Output::WaitUntil(Instant::NEVER),
                }
            }
            _ => Output::WaitUntil(self.wait_until()),
        }
    }

    /// Writes the next piece of a request, behind the first `skip` bytes.
    #[inline(never)]
    fn write_request<'b>(&mut self, operation: Operation, skip: usize, buffer: &'b mut [u8]) -> &'b [u8] {
        let credential = match self.link.map(|link| link.connect.present) {
            Some(Present::Manufacturer | Present::Nothing) if operation == Operation::SimpleEnroll => {
                self.config.credential
            }
            _ => None,
        };
        let request = Request { operation, server: self.config.server, credential, csr: self.desk.csr() };
        let written = request.write(skip, buffer);
        let end = skip + written.len;
        if let Step::Exchanging { sent, .. } = &mut self.step {
            *sent = (end < written.total).then_some(end);
        }
        buffer.get(..written.len).unwrap_or_default()
    }

    /// Where the next key lives: where the request is, or else beside the identity in use.
    fn next_slot(&self) -> Slot {
        self.desk.slot().unwrap_or_else(|| self.current.slot().map_or(Slot::A, Slot::other))
    }
}
