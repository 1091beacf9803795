//! Why a try failed: one value for log, metric and status, sorted by who can do something about it.

use super::{Ending, IssueError};
use crate::base64::Base64Error;
use crate::cms::CmsError;
use crate::http::HttpError;

/// Why a try failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The server's answer is no HTTP that is read here.
    Answer(HttpError),
    /// The server's CA certificates lack the pinned one.
    AuthorityMissing,
    /// The edge or broker refused a new identity; the old one stays in use.
    CandidateRefused,
    /// A new certificate did not pass its checks and was dropped.
    Certificate(IssueError),
    /// The server says no time, or one at which its own certificate is not valid.
    Clock,
    /// The connection broke in an answer that had begun well, with this status.
    CutOff(u16),
    /// The connection could not be made or broke.
    Link(Ending),
    /// The shell could not make a key, sign or store.
    Local(LocalTask),
    /// Something does not fit the memory that was lent for it.
    Memory(Place),
    /// There is neither a usable certificate nor a credential to get one with.
    NoCredential,
    /// The payload of an answer is not what it should be.
    Payload(PayloadError),
    /// The server answered with this status. 3xx are not followed. The rest of the answer may have been cut off.
    Status(u16),
    /// No answer in time.
    Timeout,
    /// The server only takes keys or signatures that this device does not have.
    WishUnmet,
}

/// What the shell was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LocalTask {
    /// The channel binding of the connection.
    Binding,
    /// A key.
    Key,
    /// A signature.
    Signature,
    /// Storing a record.
    Store,
}

/// Which lent memory is too small; the names are those of `Memory`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// `Memory::authorities`.
    Authorities,
    /// `Memory::candidate`, or `current`.
    Candidate,
    /// `Memory::request`.
    Request,
}

/// What is wrong with a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PayloadError {
    /// Not base64.
    Base64(Base64Error),
    /// Not a certs-only message.
    Cms(CmsError),
    /// Another media type than the operation has.
    ContentType,
    /// Not csrattrs.
    CsrAttributes,
}

impl From<Base64Error> for PayloadError {
    fn from(error: Base64Error) -> Self {
        Self::Base64(error)
    }
}

impl From<CmsError> for PayloadError {
    fn from(error: CmsError) -> Self {
        Self::Cms(error)
    }
}
