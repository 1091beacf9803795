//! Why something failed, as one short label for counters, lines and reports.
//!
//! The labels are few by construction: a peer's text never becomes a label.

use std::io;

use muster_proto::enrollment::{Ending, Failure, LocalTask};
use rustls::AlertDescription;

/// Why something failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Reason {
    /// The peer ended it with this TLS alert.
    Alert(AlertDescriptionCode),
    /// The answer breaks its protocol.
    BadAnswer,
    /// A new certificate did not pass the device's checks.
    BadCertificate,
    /// Ended in order, in the middle of something.
    Closed,
    /// Nobody listens.
    ConnectionRefused,
    /// The device could not make a key, sign or store.
    Local,
    /// The broker said no in CONNACK, with this code.
    Mqtt(u8),
    /// No descriptors or ports left on this machine.
    NoDescriptors,
    /// The server wants to decide first (202).
    Postponed,
    /// Broke.
    Reset,
    /// The broker does not let it subscribe.
    NoSubscription,
    /// This status.
    Status(u16),
    /// Took too long.
    TimedOut,
    /// TLS failed otherwise.
    Tls,
    /// The server is not the one that was asked for.
    Untrusted,
    /// No route or name.
    Unreachable,
}

/// The number of an alert (RFC 8446 §6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct AlertDescriptionCode(u8);

impl Reason {
    /// What an IO or TLS error means.
    pub(crate) fn of_io(error: &io::Error) -> Self {
        if let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            return Self::of_tls(tls);
        }
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::ConnectionRefused,
            io::ErrorKind::TimedOut => Self::TimedOut,
            io::ErrorKind::UnexpectedEof => Self::Closed,
            io::ErrorKind::AddrNotAvailable | io::ErrorKind::AddrInUse => Self::NoDescriptors,
            io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable | io::ErrorKind::NotFound => {
                Self::Unreachable
            }
            // EMFILE and ENFILE have no kind of their own.
            _ if matches!(error.raw_os_error(), Some(23 | 24)) => Self::NoDescriptors,
            _ => Self::Reset,
        }
    }

    fn of_tls(error: &rustls::Error) -> Self {
        match error {
            rustls::Error::AlertReceived(alert) => Self::Alert(AlertDescriptionCode(u8::from(*alert))),
            rustls::Error::InvalidCertificate(_) => Self::Untrusted,
            _ => Self::Tls,
        }
    }

    /// What the device core's failure means.
    pub(crate) const fn of_failure(failure: &Failure) -> Self {
        match failure {
            Failure::Answer(_) | Failure::Payload(_) | Failure::Memory(_) | Failure::WishUnmet => {
                Self::BadAnswer
            }
            Failure::AuthorityMissing
            | Failure::Clock
            | Failure::Link(Ending::ServerUntimely | Ending::ServerUntrusted) => Self::Untrusted,
            Failure::Certificate(_) | Failure::CandidateRefused => Self::BadCertificate,
            Failure::Link(Ending::Closed) => Self::Closed,
            Failure::Link(Ending::CertificateRefused) => {
                Self::Alert(AlertDescriptionCode(ALERT_BAD_CERTIFICATE))
            }
            Failure::CutOff(_) | Failure::Link(Ending::Reset) => Self::Reset,
            Failure::Link(Ending::Unreachable) => Self::Unreachable,
            Failure::Local(LocalTask::Binding | LocalTask::Key | LocalTask::Signature | LocalTask::Store)
            | Failure::NoCredential => Self::Local,
            Failure::Status(status) => Self::Status(*status),
            Failure::Timeout => Self::TimedOut,
        }
    }

    /// How the device core is told of it.
    pub(crate) fn ending(self) -> Ending {
        match self {
            Self::Alert(code) if code.refuses_certificate() => Ending::CertificateRefused,
            Self::Closed => Ending::Closed,
            Self::Untrusted => Ending::ServerUntrusted,
            Self::ConnectionRefused | Self::NoDescriptors | Self::TimedOut | Self::Unreachable => {
                Ending::Unreachable
            }
            _ => Ending::Reset,
        }
    }

    /// The label.
    pub(crate) fn label(self) -> String {
        match self {
            Self::Alert(AlertDescriptionCode(code)) => {
                let name = format!("{:?}", AlertDescription::from(code));
                format!("alert_{}", snake(&name))
            }
            Self::BadAnswer => "bad_answer".into(),
            Self::BadCertificate => "bad_certificate_issued".into(),
            Self::Closed => "closed".into(),
            Self::ConnectionRefused => "connection_refused".into(),
            Self::Local => "local".into(),
            Self::Mqtt(code) => format!("connack_{code}"),
            Self::NoDescriptors => "no_descriptors".into(),
            Self::Postponed => "postponed".into(),
            Self::NoSubscription => "subscription_refused".into(),
            Self::Reset => "reset".into(),
            Self::Status(status) => format!("status_{status}"),
            Self::TimedOut => "timed_out".into(),
            Self::Tls => "tls".into(),
            Self::Untrusted => "server_untrusted".into(),
            Self::Unreachable => "unreachable".into(),
        }
    }
}

impl AlertDescriptionCode {
    /// bad_certificate to unknown_ca, access_denied and certificate_required.
    const fn refuses_certificate(self) -> bool {
        matches!(self.0, 42..=46 | 48 | 49 | 116)
    }
}

fn snake(name: &str) -> String {
    let mut out = String::new();
    let mut after_small = false;
    for c in name.chars().filter(char::is_ascii_alphanumeric) {
        if c.is_ascii_uppercase() && after_small {
            out.push('_');
        }
        after_small = c.is_ascii_lowercase();
        out.push(c.to_ascii_lowercase());
    }
    out
}

/// bad_certificate (RFC 8446 §6).
const ALERT_BAD_CERTIFICATE: u8 = 42;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_short_and_alerts_have_their_names() {
        assert_eq!(Reason::Alert(AlertDescriptionCode(48)).label(), "alert_unknown_ca");
        assert_eq!(Reason::Alert(AlertDescriptionCode(45)).label(), "alert_certificate_expired");
        assert_eq!(Reason::Status(503).label(), "status_503");
        assert_eq!(Reason::of_io(&io::Error::from_raw_os_error(24)), Reason::NoDescriptors);
        assert_eq!(Reason::Alert(AlertDescriptionCode(48)).ending(), Ending::CertificateRefused);
    }
}
