//! Events and failures in a line of a log, for a device with little room.
//!
//! `Debug`, which hosts have beside it, names every value on the way to a reason: each of a dozen types would bring its
//! own code and words. Here a failure is its class and the innermost reason, e.g. `Failed(Certificate(Expired), 1500)`;
//! which rule of its syntax a message or a certificate breaks is for who has it on a desk. Points in time are
//! milliseconds of the shell's clock, dates seconds of the epoch.

use core::fmt::{self, Debug, Display, Formatter};

use super::{Event, Failure, IssueError, PayloadError};
use crate::x509::{PathError, VerifyError};

impl Display for Event {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Adopted(slot) => write!(f, "Adopted({slot:?})"),
            Self::ClockSet(time) => write!(f, "ClockSet({})", time.as_secs()),
            Self::Discarded(slot) => write!(f, "Discarded({slot:?})"),
            Self::Failed(failure, at) => write!(f, "Failed({failure}, {})", at.as_millis()),
            Self::Issued(slot, window) => write!(f, "Issued({slot:?}, {})", window.renew_at().as_secs()),
            Self::Moved(state) => write!(f, "Moved({state:?})"),
            Self::Postponed(at) => write!(f, "Postponed({})", at.as_millis()),
            Self::Urgent => f.write_str("Urgent"),
        }
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (class, reason): (&str, &dyn Debug) = match self {
            Self::Answer(error) => ("Answer", error),
            Self::Certificate(error) => ("Certificate", &Word(of_issue(*error))),
            Self::CutOff(status) => return write!(f, "CutOff({status})"),
            Self::Link(ending) => ("Link", ending),
            Self::Local(task) => ("Local", task),
            Self::Memory(place) => ("Memory", place),
            Self::Payload(error) => ("Payload", &Word(of_payload(*error))),
            Self::Status(status) => return write!(f, "Status({status})"),
            Self::AuthorityMissing => return f.write_str("AuthorityMissing"),
            Self::CandidateRefused => return f.write_str("CandidateRefused"),
            Self::Clock => return f.write_str("Clock"),
            Self::NoCredential => return f.write_str("NoCredential"),
            Self::Timeout => return f.write_str("Timeout"),
            Self::WishUnmet => return f.write_str("WishUnmet"),
        };
        write!(f, "{class}({reason:?})")
    }
}

struct Word(&'static str);

impl Debug for Word {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

const fn of_payload(error: PayloadError) -> &'static str {
    match error {
        PayloadError::Base64(_) => "Base64",
        PayloadError::Cms(_) => "Cms",
        PayloadError::ContentType => "ContentType",
        PayloadError::CsrAttributes => "CsrAttributes",
    }
}

const fn of_issue(error: IssueError) -> &'static str {
    match error {
        IssueError::CommonName => "CommonName",
        IssueError::ForeignKey => "ForeignKey",
        IssueError::Path(error) => of_path(error),
        IssueError::Uri => "Uri",
    }
}

const fn of_path(error: PathError) -> &'static str {
    match error {
        PathError::Budget => "Budget",
        PathError::Expired => "Expired",
        PathError::ExtendedKeyUsage => "ExtendedKeyUsage",
        PathError::KeyUsage => "KeyUsage",
        PathError::LeafIsAuthority => "LeafIsAuthority",
        PathError::Leaf(_) => "Leaf",
        PathError::NotAuthority => "NotAuthority",
        PathError::NotYetValid => "NotYetValid",
        PathError::PathLength => "PathLength",
        PathError::Signature(VerifyError::Invalid) => "Signature",
        PathError::Signature(VerifyError::Unsupported) => "UnsupportedKey",
        PathError::UnknownIssuer => "UnknownIssuer",
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::string::ToString;

    use super::*;
    use crate::enrollment::{Ending, Slot};
    use crate::time::Instant;
    use crate::x509::CertificateError;

    #[test]
    fn a_failure_is_its_class_and_its_innermost_reason() {
        let told = |failure: Failure| Event::Failed(failure, Instant::from_millis(1500)).to_string();
        assert_eq!(told(Failure::Status(401)), "Failed(Status(401), 1500)");
        assert_eq!(told(Failure::Link(Ending::ServerUntrusted)), "Failed(Link(ServerUntrusted), 1500)");
        assert_eq!(told(Failure::Timeout), "Failed(Timeout, 1500)");
        let path = |error| told(Failure::Certificate(IssueError::Path(error)));
        assert_eq!(path(PathError::Expired), "Failed(Certificate(Expired), 1500)");
        assert_eq!(path(PathError::Leaf(CertificateError::Serial)), "Failed(Certificate(Leaf), 1500)");
        assert_eq!(Event::Adopted(Slot::B).to_string(), "Adopted(B)");
        assert_eq!(Event::Urgent.to_string(), "Urgent");
    }
}
