//! From an answer's bytes to the next step, operation by operation (RFC 7030 §4).
//!
//! The server's `Date` is looked at first: it may be what the clock was missing to judge the rest.

use super::advance::Goal;
use super::authorities::anchors;
use super::input::Misuse;
use super::issue::{self, Expected};
use super::pace::Setback;
use super::{Enrollment, Event, Failure, IssueError, PayloadError, Place, ServerTrust, Step, Window};
use crate::base64;
use crate::cms;
use crate::csrattrs::CsrAttributes;
use crate::est::Operation;
use crate::http::{ContentType, Head, Progress, RetryAfter};
use crate::time::{Millis, UnixTime};
use crate::x509::{Bundle, Moment, PathError, Verify};

/// How long to wait after a 202 that does not say (RFC 7030 §4.2.3 asks for Retry-After).
const DEFAULT_POSTPONEMENT_S: u32 = 60;

/// A step of the clock that is worth an event.
const CLOCK_EVENT_STEP: Millis = Millis::from_secs(60);

impl<V: Verify> Enrollment<'_, V> {
    pub(super) fn received(&mut self, bytes: &[u8], inbox: &mut [u8]) -> Result<(), Misuse> {
        if self.link.is_none() {
            return Err(Misuse::Unasked);
        }
        let Step::Exchanging { operation, sent, .. } = self.step else {
            // An answer without a question: some proxies say 408 to an idle connection. The next step connects anew.
            self.drop_link();
            return Ok(());
        };
        match self.reader.feed(bytes, inbox) {
            Ok(Progress::Partial) => self.heard = self.reader.status(inbox),
            Ok(Progress::Complete { body_len }) => {
                let head = *self.reader.head();
                let body = inbox.get_mut(..body_len).unwrap_or_default();
                self.answered(operation, &head, body, sent.is_none());
            }
            Err(error) => self.fail(Failure::Answer(error), Setback::Passing),
        }
        Ok(())
    }

    fn answered(&mut self, operation: Operation, head: &Head, body: &mut [u8], all_sent: bool) {
        let bootstrap = self.link.is_some_and(|link| link.connect.trust == ServerTrust::Bootstrap);
        if !bootstrap && !self.take_date(head.date) {
            return self.fail(Failure::Clock, Setback::Passing);
        }
        self.step = Step::Rest;
        let done = match operation {
            Operation::CaCerts => self.take_authorities(head, body, bootstrap),
            Operation::CsrAttributes => self.take_wishes(head, body),
            Operation::SimpleEnroll | Operation::SimpleReenroll => self.take_certificate(head, body),
        };
        match done {
            // An answer before the end of the request leaves the rest of the request in the way.
            Ok(()) if head.closes || !all_sent => self.drop_link(),
            Ok(()) => {}
            Err((failure, setback)) => self.fail(failure, setback),
        }
    }

    /// Sets the clock. `false` when the server's certificate is not valid at the time that it says itself.
    fn take_date(&mut self, date: Option<UnixTime>) -> bool {
        let Some(date) = date else { return true };
        let valid = self.link.and_then(|link| link.session.server_valid);
        if valid.is_some_and(|valid| !valid.contains(date)) {
            return false;
        }
        let before = self.moment();
        self.clock.set_by_server(date, self.now);
        let after = self.clock.at_least(self.now);
        let moved = match before {
            Moment::NotBefore(_) => true,
            Moment::Known(before) => {
                before.millis_since(after).max(after.millis_since(before)) >= CLOCK_EVENT_STEP
            }
        };
        if moved {
            self.events.push(Event::ClockSet(after));
        }
        true
    }

    fn take_authorities(&mut self, head: &Head, body: &mut [u8], bootstrap: bool) -> Result<(), Refusal> {
        self.check_status(head)?;
        let goal = self.goal();
        let anchors = anchors(&self.config.trust);
        let bundle = certificates(body, head)?;
        if anchors.fingerprint.is_some() && bundle.pinned_by(&anchors).is_none() {
            return Err((Failure::AuthorityMissing, Setback::Lasting));
        }
        self.authorities
            .replace(bundle, &anchors)
            .map_err(|_| (Failure::Memory(Place::Authorities), Setback::Lasting))?;
        if !bootstrap && goal == Goal::Clock && !self.clock.is_set() {
            return Err((Failure::Clock, Setback::Lasting));
        }
        self.learned = true;
        Ok(())
    }

    /// A server without wishes, or with an error in their place, has none: they are advice.
    fn take_wishes(&mut self, head: &Head, body: &mut [u8]) -> Result<(), Refusal> {
        self.wishes = Some(CsrAttributes::default());
        if head.status != 200 || body.is_empty() {
            return match head.status {
                401 | 429 | 503 => self.check_status(head),
                _ => Ok(()),
            };
        }
        let payload = decode(body, head, ContentType::CsrAttributes)?;
        let wishes = CsrAttributes::parse(payload)
            .map_err(|_| (Failure::Payload(PayloadError::CsrAttributes), Setback::Lasting))?;
        self.wishes = Some(wishes);
        if self.meets_wishes() { Ok(()) } else { Err((Failure::WishUnmet, Setback::Lasting)) }
    }

    fn take_certificate(&mut self, head: &Head, body: &mut [u8]) -> Result<(), Refusal> {
        if head.status == 202 {
            self.postpone(head);
            return Ok(());
        }
        self.pending = false;
        if matches!(head.status, 400 | 409 | 422) {
            // The server will not take this request for what it is: make another.
            self.desk.forget();
        }
        if matches!(head.status, 401 | 403) {
            return Err((Failure::Status(head.status), self.setback_of_refusal()));
        }
        self.check_status(head)?;
        let shelved = self.shelve(head, body);
        match shelved {
            Ok(()) => self.step = Step::StoringPair { asked: false },
            // It may be our time that is wrong, and another request could not use the same one-time token.
            Err((Failure::Certificate(IssueError::Path(PathError::Expired | PathError::NotYetValid)), _)) => {
            }
            // The same request would bring the same certificate again.
            Err((Failure::Certificate(_), _)) => self.desk.forget(),
            Err(_) => {}
        }
        shelved
    }

    /// Checks the certificate in `body` and puts it with its chain on the candidate's shelf.
    fn shelve(&mut self, head: &Head, body: &mut [u8]) -> Result<(), Refusal> {
        let moment = self.moment();
        let slot = self.next_slot();
        let anchors = anchors(&self.config.trust);
        let answer = certificates(body, head)?;
        let Some(key) = self.desk.key() else { return Err((Failure::Status(head.status), Setback::Passing)) };
        let expected = Expected { key, identity: &self.config.identity, current: self.current.leaf() };
        let issued =
            issue::check(answer, self.authorities.bundle(), &expected, &anchors, moment, &self.verifier)
                .map_err(|error| (Failure::Certificate(error), Setback::Lasting))?;
        let window = Window::choose(issued.leaf.validity, head.steering, &mut self.jitter);
        let generation = self.current.label().map_or(0, |label| label.generation.saturating_add(1));
        let chain = core::iter::once(issued.leaf.der).chain(issued.path.intermediates());
        self.candidate
            .fill(slot, generation, window, &mut chain.take(self.config.presents.most()))
            .map_err(|_| (Failure::Memory(Place::Candidate), Setback::Lasting))
    }

    fn postpone(&mut self, head: &Head) {
        let wait = self.told_wait(head).unwrap_or(DEFAULT_POSTPONEMENT_S);
        self.pending = true;
        self.hang_up();
        self.retry_at = self.now.after(self.wait_after(Setback::Told(wait)));
        self.back_off.answered();
        self.events.push(Event::Postponed(self.retry_at));
    }

    /// What an answer that ended before its time was about, as far as it says: a refusal is one without its text.
    pub(super) fn cut_off(&mut self, operation: Operation) -> Option<Refusal> {
        let status = self.heard?;
        let enrols = matches!(operation, Operation::SimpleEnroll | Operation::SimpleReenroll);
        let setback = match status {
            ..300 => return Some((Failure::CutOff(status), Setback::Passing)),
            401 | 403 if enrols => self.setback_of_refusal(),
            status => setback_of(status),
        };
        Some((Failure::Status(status), setback))
    }

    /// Passes a 200; turns any other status into a failure.
    fn check_status(&self, head: &Head) -> Result<(), Refusal> {
        if head.status == 200 {
            return Ok(());
        }
        let setback = self.told_wait(head).map_or_else(|| setback_of(head.status), Setback::Told);
        Err((Failure::Status(head.status), setback))
    }

    /// How long the server says to wait, in seconds.
    fn told_wait(&self, head: &Head) -> Option<u32> {
        match head.retry_after? {
            RetryAfter::Seconds(seconds) => Some(seconds),
            RetryAfter::At(time) => {
                let present = head.date.unwrap_or_else(|| self.clock.at_least(self.now));
                let seconds = time.as_secs().saturating_sub(present.as_secs());
                Some(u32::try_from(seconds).unwrap_or(u32::MAX))
            }
        }
    }
}

type Refusal = (Failure, Setback);

const fn setback_of(status: u16) -> Setback {
    match status {
        408 | 425 | 429 | 500.. => Setback::Passing,
        _ => Setback::Lasting,
    }
}

fn lasting(error: impl Into<PayloadError>) -> Refusal {
    (Failure::Payload(error.into()), Setback::Lasting)
}

/// The certificates in the body.
// Once in an image, for two operations.
#[inline(never)]
fn certificates<'b>(body: &'b mut [u8], head: &Head) -> Result<Bundle<'b>, Refusal> {
    cms::certificates(decode(body, head, ContentType::Pkcs7)?).map_err(lasting)
}

/// Takes the base64 off the body.
fn decode<'b>(body: &'b mut [u8], head: &Head, expected: ContentType) -> Result<&'b [u8], Refusal> {
    // A server that says nothing is taken at its payload, which is checked anyway.
    if head.content_type != expected && head.content_type != ContentType::Unsaid {
        return Err((Failure::Payload(PayloadError::ContentType), Setback::Lasting));
    }
    base64::decode_in_place(body).map(|bytes| &*bytes).map_err(lasting)
}
