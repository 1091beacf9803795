//! What the shell tells the machine.

use super::Slot;
use crate::csr::P256Point;
use crate::time::{UnixTime, Validity};
use crate::x509::{PathError, ServerRefused};

/// Something that happened. Handed to [`Enrollment::handle`](super::Enrollment::handle) one at a time.
#[derive(Clone, Copy, Debug)]
pub enum Input<'i> {
    /// The identity in this slot was accepted by the edge or broker: a connection made with it works. A shell
    /// that has nothing to try it on says so right after [`Input::Stored`].
    Accepted(Slot),
    /// The connection could not be made, or ended. Not for one that ended by `Output::Close`.
    Closed(Ending),
    /// TCP and TLS are up and the server is the one that was asked for.
    Connected(Session),
    /// The key that was asked for exists, and this is its public half.
    KeyReady(P256Point),
    /// What was asked for last (key, signature or store) cannot be done.
    LocalFailure,
    /// The identity in this slot was refused by the edge or broker, for itself and not for a passing reason.
    Refused(Slot),
    /// The DER signature that was asked for.
    Signed(&'i [u8]),
    /// The record is stored: it will be there after a power cut.
    Stored,
    /// The time of the last `Output::WaitUntil` has come. Early and repeated ones do no harm.
    TimerFired,
    /// Wall time as the shell believes it: at start if there is a clock, and whenever it was set or jumped. A
    /// time below the floor is ignored, and one by which the server's dates are wrong is dropped after that one try; a
    /// server that then says no time leads to `Failure::Clock`, and the shell may say its own again. A shell that is
    /// sure of its clock should check the server's dates itself (see [`Session::server_valid`]).
    Wall(UnixTime),
}

/// What is known of a TLS connection that was just made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Session {
    /// When the server's whole chain is valid, as `check_server` said; `None` if the shell checked the dates
    /// against a clock that it is sure of. The server's own `Date` must lie within.
    pub server_valid: Option<Validity>,
    /// `EXPORTER-Channel-Binding` with no context, 32 bytes (RFC 9266 §4.2); needed only for bound requests.
    pub binding: Option<[u8; 32]>,
}

/// How a connection ended, or why there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The server refused the certificate that TLS presented.
    CertificateRefused,
    /// The server closed it in order.
    Closed,
    /// It broke, or TLS failed for another reason.
    Reset,
    /// The server's certificate did not pass `check_server` for its dates. By another time it may.
    ServerUntimely,
    /// The server's certificate did not pass `check_server` for another reason, or it did not prove its key.
    ServerUntrusted,
    /// The name does not resolve, or nobody answers.
    Unreachable,
}

impl Ending {
    /// What a server ends with that `check_server` refused.
    #[must_use]
    pub const fn of_refused(refused: ServerRefused) -> Self {
        match refused {
            ServerRefused::Path(PathError::Expired | PathError::NotYetValid) => Self::ServerUntimely,
            ServerRefused::Name | ServerRefused::Path(_) => Self::ServerUntrusted,
        }
    }
}

/// The shell called out of turn; the machine did not change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misuse {
    /// An answer to a question that was not asked.
    Unasked,
    /// A slot that holds no identity.
    EmptySlot,
}
