//! Failures in words: what happened, and what to do about it.
//!
//! The device core has one value for each way to fail. An operator reads a sentence, and learns whether
//! waiting helps ([`Outlook`]).

use muster_proto::enrollment::{Ending, Failure, IssueError, LocalTask, ServerTrust, State};
use muster_proto::x509::PathError;

/// Whether the same try can work later by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outlook {
    /// It can: the network or the server has to come back.
    Passing,
    /// Somebody has to change something first.
    Lasting,
}

/// What is known around a failure.
#[derive(Clone, Debug)]
pub(super) struct Circumstances<'c> {
    pub(super) server: &'c str,
    pub(super) trust: ServerTrust,
    /// The connection's last words.
    pub(super) link: &'c str,
    /// The server's own words.
    pub(super) heard: Option<String>,
    /// The store's last words.
    pub(super) store: &'c str,
}

/// One sentence, without a full stop.
pub(super) fn sentence(failure: &Failure, around: &Circumstances<'_>) -> String {
    let server = around.server;
    match failure {
        Failure::Answer(error) => {
            format!("{server} did not answer like an EST server ({error:?}); check the URL")
        }
        Failure::AuthorityMissing => format!(
            "{server} has no CA certificate with the pinned SHA-256; check --ca-sha256, or this is not your server"
        ),
        Failure::CandidateRefused => {
            "the new certificate was refused when it was tried out; the old one stays in use".to_owned()
        }
        Failure::Certificate(error) => issued(server, error),
        Failure::Clock => {
            format!("{server} reports a time at which its own certificate is not valid; check both clocks")
        }
        Failure::CutOff(status) => {
            format!("the connection to {server} broke off in the middle of an answer (status {status})")
        }
        Failure::Link(ending) => link(server, *ending, around),
        Failure::Local(task) => local(*task, around),
        Failure::Memory(place) => format!("what {server} sent is larger than this agent accepts ({place:?})"),
        Failure::NoCredential => {
            "there is neither a valid certificate nor a credential; enroll the device with a \
                                  token or a manufacturer's certificate"
                .to_owned()
        }
        Failure::Payload(error) => {
            format!("{server} sent a payload that EST does not allow ({error:?})")
        }
        Failure::Status(status) => refusal(server, *status, around.heard.as_deref()),
        Failure::Timeout => format!("{server} does not answer in time"),
        Failure::WishUnmet => {
            format!(
                "{server} only accepts keys or signatures that this agent does not support; it supports P-256 with SHA-256"
            )
        }
    }
}

/// Whether waiting helps.
pub(super) const fn outlook(failure: &Failure) -> Outlook {
    match failure {
        Failure::Link(Ending::Closed | Ending::Reset | Ending::Unreachable)
        | Failure::CutOff(_)
        | Failure::Timeout
        | Failure::Status(408 | 425 | 429 | 500 | 502..=504 | 507..=599) => Outlook::Passing,
        _ => Outlook::Lasting,
    }
}

/// The state in a word, for status and log.
#[must_use]
pub const fn state_name(state: State) -> &'static str {
    match state {
        State::Anchors => "starting",
        State::Keying => "making a request",
        State::Requesting => "enrolling",
        State::Pending => "waiting for approval",
        State::Holding => "holding",
        State::Renewing => "renewing",
        State::Lapsed => "lapsed",
    }
}

fn issued(server: &str, error: &IssueError) -> String {
    let what = match error {
        IssueError::CommonName => "names another device",
        IssueError::ForeignKey => "is not for the key of the request",
        IssueError::Path(PathError::UnknownIssuer) => "does not lead to the trusted CA",
        IssueError::Path(PathError::Expired) => "has expired according to this device's clock",
        IssueError::Path(PathError::NotYetValid) => "is not yet valid according to this device's clock",
        IssueError::Path(_) => "is not a valid device certificate",
        IssueError::Uri => "lacks the URI of this device",
    };
    format!("{server} issued a certificate that {what}; it is not used ({error:?})")
}

fn link(server: &str, ending: Ending, around: &Circumstances<'_>) -> String {
    let words = around.link;
    match ending {
        Ending::CertificateRefused => {
            format!("{server} refused the certificate that this device presented ({words})")
        }
        Ending::Closed | Ending::Reset => format!("the connection to {server} broke ({words})"),
        Ending::ServerUntimely => format!(
            "{server} is not trusted: its certificate is not valid according to this device's clock ({words}); check the clock, and \
             the server's certificate"
        ),
        Ending::ServerUntrusted if around.trust == ServerTrust::Bootstrap => {
            format!("{server} did not prove the key of its certificate ({words})")
        }
        Ending::ServerUntrusted => format!(
            "{server} is not the server that was asked for: its certificate does not pass ({words}); check the URL \
             and the CA"
        ),
        Ending::Unreachable => format!("{server} can't be reached ({words})"),
    }
}

fn local(task: LocalTask, around: &Circumstances<'_>) -> String {
    let words = around.store;
    match task {
        LocalTask::Binding => {
            "the server requires requests to be bound to their connection, which needs TLS 1.3".to_owned()
        }
        LocalTask::Key => format!("no key could be made and stored ({words})"),
        LocalTask::Signature => format!("the request could not be signed ({words})"),
        LocalTask::Store => format!("it could not be stored ({words})"),
    }
}

fn refusal(server: &str, status: u16, heard: Option<&str>) -> String {
    let what = match status {
        401 => "does not accept the credential",
        403 => "does not allow it",
        404 => "has no such path or profile; check the URL and the label",
        429 => "got too many requests",
        300..=399 => "redirects, which is not followed; give the final URL",
        500..=599 => "failed",
        _ => "refused the request",
    };
    let heard = heard.map(|words| format!(": {words}")).unwrap_or_default();
    format!("{server} {what} (status {status}){heard}")
}
