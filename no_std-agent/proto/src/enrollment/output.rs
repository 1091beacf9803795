//! What the machine asks of the shell.

use super::{Failure, State, Window};
use crate::time::{Instant, UnixTime};
use crate::x509::Bundle;

/// Something to do. Taken from [`Enrollment::poll`](super::Enrollment::poll) until it is `WaitUntil`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output<'b> {
    /// End the connection and deliver nothing more from it.
    Close,
    /// Connect to the EST server by TCP and TLS. Answer: `Connected` or `Closed`.
    Connect(Connect),
    /// For the log, the status page and the metrics; nothing to do.
    Event(Event),
    /// Make a P-256 key in this slot, over whatever is there. It must be as durable as a stored record before
    /// the answer `KeyReady` (or `LocalFailure`).
    MakeKey(Slot),
    /// Forget key and record in this slot: another identity has taken over.
    Retire(Slot),
    /// Send these bytes over the connection.
    Send(&'b [u8]),
    /// Sign with the slot's key: ECDSA over SHA-256 of the message. Answer: `Signed` or `LocalFailure`.
    Sign {
        /// Whose key.
        slot: Slot,
        /// What to sign, not hashed yet.
        message: &'b [u8],
    },
    /// Put the record into its slot in one atomic write, over what is there, and keep the slot's key. Answer:
    /// `Stored` once it is durable, or `LocalFailure`.
    Store(Record<'b>),
    /// Nothing to do before this time; then `TimerFired`. `Instant::NEVER`: only an answer is awaited.
    WaitUntil(Instant),
}

/// The two places for an identity: one in use, one for its successor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Slot {
    /// The first.
    A,
    /// The second.
    B,
}

impl Slot {
    /// The other one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

/// How to connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connect {
    /// What to ask of the server's certificate.
    pub trust: ServerTrust,
    /// What to present.
    pub present: Present,
}

/// What to ask of a server's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerTrust {
    /// Nothing: only cacerts will be fetched, and only a certificate with the pinned fingerprint is kept of it.
    Bootstrap,
    /// That it passes `check_server`, or an equal check by the TLS library.
    Verified,
}

/// The client certificate for TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Present {
    /// The manufacturer's.
    Manufacturer,
    /// None.
    Nothing,
    /// The one in this slot.
    Slot(Slot),
}

/// What a slot of the store holds beside its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record<'b> {
    /// A whole identity.
    Pair(Pair<'b>),
    /// A request that was, or will be, sent: after a reboot the same bytes are sent again, so that a certificate
    /// whose answer was lost is handed out again instead of a second one.
    Request(StoredRequest<'b>),
}

impl Record<'_> {
    /// Where it belongs.
    #[must_use]
    pub const fn slot(&self) -> Slot {
        match self {
            Self::Pair(pair) => pair.slot,
            Self::Request(request) => request.slot,
        }
    }
}

/// An identity: with the slot's key, everything that is needed to use it and to take up its renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair<'b> {
    /// Where it belongs.
    pub slot: Slot,
    /// Counts up with each renewal: of two stored pairs the lower one is in use and the higher one unproven.
    pub generation: u32,
    /// The leaf, and the intermediates above it if TLS presents them.
    pub chain: Bundle<'b>,
    /// The CA certificate that the pinned fingerprint stands for; empty when anchors are configured.
    pub anchor: &'b [u8],
    /// When to renew it.
    pub window: Window,
    /// The newest proven time when it was stored: a floor for the clock after a reboot.
    pub saved_at: UnixTime,
}

/// A signed request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredRequest<'b> {
    /// Where its key is.
    pub slot: Slot,
    /// The PKCS#10 request.
    pub csr: &'b [u8],
    /// See [`Pair::saved_at`].
    pub saved_at: UnixTime,
}

/// Something worth knowing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The identity in this slot is the one in use from now on.
    Adopted(Slot),
    /// The clock was set from the server's `Date`.
    ClockSet(UnixTime),
    /// A stored record was of no use and is passed over.
    Discarded(Slot),
    /// A try failed; the next one is at this time.
    Failed(Failure, Instant),
    /// A certificate was issued, checked and stored. Use it on the next connection and say how that went.
    Issued(Slot, Window),
    /// The state changed.
    Moved(State),
    /// The server wants to decide first; the request is repeated at this time.
    Postponed(Instant),
    /// Renewal is urgent: most of the window has passed.
    Urgent,
}
