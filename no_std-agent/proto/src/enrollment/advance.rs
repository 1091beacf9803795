//! What to do next, decided from what is there and not from what was done last.
//!
//! `advance` runs whenever nothing is under way. Because it only looks at goal, connection and request, a
//! failure at any point needs no path of its own: the next try goes on with what is still missing.

use super::input::{Ending, Misuse, Session};
use super::pace::{Setback, ceilings};
use super::request::{ChannelBinding, Need};
use super::{
    AskWishes, Binding, Connect, Enrollment, Event, Failure, Link, LocalTask, Place, Present, ProofChoice,
    ServerTrust, Slot, State, Step, Trust,
};
use crate::csr::{P256Point, SignatureError};
use crate::csrattrs::Wish;
use crate::est::Operation;
use crate::http::ResponseReader;
use crate::time::{Instant, Millis};
use crate::x509::{Moment, Verify};

/// For name resolution, TCP and a TLS handshake in software on a slow board over a bad link.
const CONNECT_TIMEOUT: Millis = Millis::from_secs(60);

/// For one request and its answer; a CA with an HSM behind it may take seconds.
const ANSWER_TIMEOUT: Millis = Millis::from_secs(60);

/// The least part of a certificate's life before it may be renewed, up to the ceiling of the pace.
const MIN_HOLD_FRACTION: u64 = 16;

/// What there is to achieve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Goal {
    /// A certificate, authenticated like this.
    Certificate(ProofChoice),
    /// The time, from an authenticated server.
    Clock,
    /// Nothing at present.
    Nothing,
}

impl<V: Verify> Enrollment<'_, V> {
    pub(super) fn goal(&self) -> Goal {
        let moment = self.moment();
        let Some(window) = self.current.window() else { return Goal::Certificate(ProofChoice::Credential) };
        if self.candidate.label().is_some() {
            return if self.clock.is_set() { Goal::Nothing } else { Goal::Clock };
        }
        let over = self.current.is_over(moment);
        match moment {
            _ if self.forced || over => Goal::Certificate(self.proof),
            Moment::NotBefore(_) => Goal::Clock,
            Moment::Known(at) if at >= window.renew_at() => Goal::Certificate(self.proof),
            Moment::Known(_) => Goal::Nothing,
        }
    }

    /// Starts what is next, or rests until something is due.
    pub(super) fn advance(&mut self) {
        self.step = Step::Rest;
        self.adopt_if_alone();
        let goal = self.goal();
        if goal == Goal::Nothing {
            self.learned = false;
            self.wishes = None;
            self.urgency_told = false;
        }
        if goal == Goal::Nothing || self.now < self.retry_at {
            self.hang_up();
            return;
        }
        self.tell_urgency();
        if goal == Goal::Certificate(ProofChoice::Credential) && self.config.credential.is_none() {
            self.fail(Failure::NoCredential, Setback::Lasting);
            return;
        }
        let wanted = self.wanted_connect();
        match self.link {
            Some(link) if link.connect == wanted => self.advance_on(link, goal),
            _ => {
                self.hang_up();
                let until = self.now.after(CONNECT_TIMEOUT);
                self.step = Step::Connecting { connect: wanted, asked: false, until };
            }
        }
    }

    fn advance_on(&mut self, link: Link, goal: Goal) {
        if link.connect.trust == ServerTrust::Bootstrap || !self.learned || goal == Goal::Clock {
            return self.exchange(Operation::CaCerts);
        }
        if self.config.wishes == AskWishes::Ask && self.wishes.is_none() {
            return self.exchange(Operation::CsrAttributes);
        }
        let Ok(binding) = self.wanted_binding(link.session) else {
            return self.fail(Failure::Local(LocalTask::Binding), Setback::Lasting);
        };
        match self.desk.need(binding) {
            Need::Key => self.step = Step::Making { asked: false },
            Need::Signature => match self.desk.draft(&self.config, &self.current, binding) {
                Ok(()) => self.step = Step::Signing { asked: false },
                Err(_) => self.fail(Failure::Memory(Place::Request), Setback::Lasting),
            },
            Need::Storing => self.step = Step::StoringRequest { asked: false },
            Need::Nothing => self.exchange(match link.connect.present {
                Present::Slot(_) => Operation::SimpleReenroll,
                Present::Manufacturer | Present::Nothing => Operation::SimpleEnroll,
            }),
        }
    }

    fn exchange(&mut self, operation: Operation) {
        self.reader = ResponseReader::new();
        self.heard = None;
        self.step = Step::Exchanging { operation, sent: Some(0), until: self.now.after(ANSWER_TIMEOUT) };
    }

    pub(super) fn wanted_connect(&self) -> Connect {
        let unpinned =
            matches!(self.config.trust, Trust::Fingerprint(_)) && self.pinned_authority().is_none();
        if unpinned {
            return Connect { trust: ServerTrust::Bootstrap, present: Present::Nothing };
        }
        let present = match (self.goal(), self.current.slot()) {
            (Goal::Certificate(ProofChoice::Certificate), Some(slot)) => Present::Slot(slot),
            (Goal::Certificate(_), _) if self.config.credential.is_some_and(|c| c.is_manufacturer()) => {
                Present::Manufacturer
            }
            _ => Present::Nothing,
        };
        Connect { trust: ServerTrust::Verified, present }
    }

    /// The binding that a request on this connection needs: none, or the connection's. `Err`: it has none.
    fn wanted_binding(&self, session: Session) -> Result<Option<ChannelBinding>, ()> {
        let wanted = match self.config.binding {
            Binding::Always => true,
            Binding::Never => false,
            Binding::WhenAsked => self.wishes.is_some_and(|wishes| wishes.wants_binding),
        };
        if !wanted {
            return Ok(None);
        }
        session.binding.map(Some).ok_or(())
    }

    /// When `TimerFired` is wanted next.
    pub(super) fn wait_until(&self) -> Instant {
        match self.step {
            Step::Connecting { until, .. } | Step::Exchanging { until, .. } => until,
            Step::Rest => self.rest_until(),
            // The shell answers these on its own.
            Step::Making { .. }
            | Step::Signing { .. }
            | Step::StoringRequest { .. }
            | Step::StoringPair { .. } => Instant::NEVER,
        }
    }

    fn rest_until(&self) -> Instant {
        let Some(window) = self.current.window() else { return self.retry_at };
        let over_at = window.expires_at().after(Millis::from_secs(1));
        let wake_at = match self.goal() {
            Goal::Nothing if self.candidate.label().is_some() => Instant::NEVER,
            // Not before the retry time: that also spreads a fleet that boots after all its windows opened.
            Goal::Nothing => self.clock.instant_of(window.renew_at(), self.now).max(self.retry_at),
            Goal::Certificate(_) | Goal::Clock => self.retry_at,
        };
        match self.moment() {
            Moment::Known(at) if at < over_at => wake_at.min(self.clock.instant_of(over_at, self.now)),
            _ => wake_at,
        }
    }

    pub(super) fn timer_fired(&mut self) {
        match self.step {
            Step::Connecting { until, .. } if until <= self.now => {
                self.fail(Failure::Timeout, Setback::Passing);
            }
            Step::Exchanging { operation, until, .. } if until <= self.now => {
                let (failure, setback) =
                    self.cut_off(operation).unwrap_or((Failure::Timeout, Setback::Passing));
                self.fail(failure, setback);
            }
            _ => {}
        }
    }

    pub(super) fn connected(&mut self, session: Session) -> Result<(), Misuse> {
        let Step::Connecting { connect, asked: true, .. } = self.step else { return Err(Misuse::Unasked) };
        self.link = Some(Link { connect, session });
        self.step = Step::Rest;
        Ok(())
    }

    pub(super) fn closed(&mut self, ending: Ending) {
        self.link = None;
        let step = self.step;
        match step {
            // Between two exchanges the server may close as it likes; the next one connects again.
            Step::Rest | Step::Making { .. } | Step::Signing { .. } => {}
            Step::StoringRequest { .. } | Step::StoringPair { .. } => {}
            Step::Exchanging { operation, .. } if let Some((failure, setback)) = self.cut_off(operation) => {
                self.fail(failure, setback);
            }
            Step::Connecting { .. } | Step::Exchanging { .. } => {
                let setback = match ending {
                    Ending::CertificateRefused => self.setback_of_refusal(),
                    // Some servers drop an expired certificate without a word.
                    Ending::Closed | Ending::Reset if self.state() == State::Lapsed => {
                        self.setback_of_refusal();
                        Setback::Passing
                    }
                    // Only then: a server of another name says nothing about the time, and the real one may say none.
                    Ending::ServerUntimely => {
                        self.clock.doubt();
                        Setback::Passing
                    }
                    Ending::Closed | Ending::Reset | Ending::ServerUntrusted | Ending::Unreachable => {
                        Setback::Passing
                    }
                };
                self.fail(Failure::Link(ending), setback);
            }
        }
    }

    pub(super) fn key_ready(&mut self, key: P256Point) -> Result<(), Misuse> {
        let Step::Making { asked: true } = self.step else { return Err(Misuse::Unasked) };
        self.desk.begin(self.next_slot(), key);
        self.step = Step::Rest;
        Ok(())
    }

    pub(super) fn signed(&mut self, signature: &[u8]) -> Result<(), Misuse> {
        let Step::Signing { asked: true } = self.step else { return Err(Misuse::Unasked) };
        match self.desk.sign(signature) {
            Ok(()) => self.step = Step::Rest,
            Err(SignatureError::NotASignature) => {
                self.fail(Failure::Local(LocalTask::Signature), Setback::Passing);
            }
            Err(SignatureError::ShortBuffer) => self.fail(Failure::Memory(Place::Request), Setback::Lasting),
        }
        Ok(())
    }

    pub(super) fn stored(&mut self) -> Result<(), Misuse> {
        match self.step {
            Step::StoringRequest { asked: true } => self.desk.stored(),
            Step::StoringPair { asked: true } => self.pair_stored(),
            _ => return Err(Misuse::Unasked),
        }
        self.step = Step::Rest;
        Ok(())
    }

    pub(super) fn local_failure(&mut self) -> Result<(), Misuse> {
        let task = match self.step {
            Step::Making { asked: true } => LocalTask::Key,
            Step::Signing { asked: true } => LocalTask::Signature,
            Step::StoringRequest { asked: true } => LocalTask::Store,
            Step::StoringPair { asked: true } => {
                // Unstored it must not be used. The request is still there, and repeating it brings it back.
                self.candidate.clear();
                LocalTask::Store
            }
            _ => return Err(Misuse::Unasked),
        };
        if task == LocalTask::Signature {
            // A key that cannot sign is of no use: the next try makes another.
            self.desk.forget();
        }
        self.fail(Failure::Local(task), Setback::Passing);
        Ok(())
    }

    /// A new identity is durable.
    fn pair_stored(&mut self) {
        self.desk.forget();
        self.succeeded();
        if let Some(label) = self.candidate.label() {
            self.events.push(Event::Issued(label.slot, label.window));
        }
    }

    /// The next renewal is not at once, even if the server steers it there: a mistake on its side must not turn
    /// a fleet into a load test. While each new certificate is due already, it comes later each time.
    fn succeeded(&mut self) {
        let at = self.clock.at_least(self.now);
        let window = self.candidate.window();
        let least = if window.is_some_and(|window| window.renew_at() <= at) {
            self.wait_after(Setback::Passing)
        } else {
            self.back_off.answered();
            Millis::of(self.config.pace.floor)
        };
        let left = window.map_or(Millis::ZERO, |window| window.expires_at().millis_since(at));
        let hold = left.part(MIN_HOLD_FRACTION).min(Millis::of(self.config.pace.ceiling));
        self.retry_at = self.now.after(hold.max(least));
        self.pending = false;
        self.forced = false;
        self.proof = ProofChoice::Certificate;
    }

    /// Takes the candidate into use when there is nothing else that could be: at the first enrollment, and once
    /// the time of the identity before it is over.
    fn adopt_if_alone(&mut self) {
        let alone = self.current.label().is_none() || self.current.is_over(self.moment());
        if alone && self.candidate.label().is_some() {
            self.adopt();
            self.untried = true;
        }
    }

    /// The candidate takes over; only here does the identity in use change.
    fn adopt(&mut self) {
        core::mem::swap(&mut self.current, &mut self.candidate);
        self.retire_due = self.candidate.slot();
        self.candidate.clear();
        if let Some(slot) = self.current.slot() {
            self.events.push(Event::Adopted(slot));
        }
    }

    pub(super) fn accepted(&mut self, slot: Slot) -> Result<(), Misuse> {
        if self.candidate() == Some(slot) {
            self.adopt();
        } else if self.current.slot() != Some(slot) {
            return Err(Misuse::EmptySlot);
        } else if !self.untried {
            // That the old identity works says nothing about the next one.
            return Ok(());
        }
        self.untried = false;
        self.back_off.reset();
        Ok(())
    }

    pub(super) fn refused(&mut self, slot: Slot) -> Result<(), Misuse> {
        if self.candidate() == Some(slot) {
            self.candidate.clear();
            self.retire_due = Some(slot);
            self.fail(Failure::CandidateRefused, Setback::Lasting);
            return Ok(());
        }
        if self.current.slot() != Some(slot) {
            return Err(Misuse::EmptySlot);
        }
        // The only identity is refused: another one is the only cure, but not in a hurry.
        if !self.forced && self.candidate.label().is_none() {
            self.forced = true;
            let wait = self.wait_after(Setback::Passing);
            self.retry_at = self.retry_at.max(self.now.after(wait));
        }
        Ok(())
    }

    /// Ends a try and plans the next.
    pub(super) fn fail(&mut self, failure: Failure, setback: Setback) {
        self.hang_up();
        self.step = Step::Rest;
        self.retry_at = self.now.after(self.wait_after(setback));
        self.events.push(Event::Failed(failure, self.retry_at));
    }

    pub(super) fn wait_after(&mut self, setback: Setback) -> Millis {
        let window = self.current.window();
        let longest = ceilings(&self.config.pace, window.as_ref(), self.clock.at_least(self.now));
        self.back_off.after(setback, &self.config.pace, longest, &mut self.jitter)
    }

    /// After a refusal tries the other way to authenticate, if there is one. The credential is tried soon; only
    /// when it was refused too is it time to wait.
    pub(super) fn setback_of_refusal(&mut self) -> Setback {
        if self.current.label().is_none() || self.config.credential.is_none() {
            return Setback::Lasting;
        }
        match self.proof {
            ProofChoice::Certificate => {
                self.proof = ProofChoice::Credential;
                Setback::Passing
            }
            ProofChoice::Credential => {
                self.proof = ProofChoice::Certificate;
                Setback::Lasting
            }
        }
    }

    /// Drops a connection that does not keep to the protocol while nothing is asked over it.
    pub(super) fn drop_link(&mut self) {
        if self.link.take().is_some() {
            self.close_due = true;
        }
    }

    pub(super) fn hang_up(&mut self) {
        self.drop_link();
        if matches!(self.step, Step::Connecting { asked: true, .. }) {
            self.close_due = true;
        }
    }

    fn tell_urgency(&mut self) {
        let urgent = self.current.window().is_some_and(|w| self.clock.at_least(self.now) >= w.urgent_at());
        if urgent && !self.urgency_told {
            self.urgency_told = true;
            self.events.push(Event::Urgent);
        }
    }

    pub(super) fn meets_wishes(&self) -> bool {
        !self.wishes.is_some_and(|wishes| wishes.key == Wish::Theirs || wishes.signature == Wish::Theirs)
    }
}
