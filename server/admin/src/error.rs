//! What a client is told when something is refused or fails: one file from inside errors to the wire.
//!
//! A status, a code of at least 1000, one sentence, and a JSON pointer to the part of the request it
//! speaks of. Texts of the database or of the file system never get out; they go to the log.

use axum::response::{IntoResponse, Response};
use http::header::RETRY_AFTER;
use http::{HeaderName, HeaderValue, StatusCode};
use muster_enroll::{AuthorityError, RevocationError};
use muster_policy::reason::{Fault as Fallibility, Refusal};
use muster_store::act::Rejected;
use muster_store::{Error as LedgerError, Fault};

use crate::envelope;

/// The bearer token is missing, unknown, revoked or expired.
pub(crate) const CODE_AUTHENTICATION: u16 = 10_000;
/// The token may not do this.
pub(crate) const CODE_PERMISSION: u16 = 9_109;
/// The body is not JSON.
pub(crate) const CODE_JSON: u16 = 6_007;
/// There is no such route.
pub(crate) const CODE_ROUTE: u16 = 7_000;
/// The route exists, for other methods.
pub(crate) const CODE_METHOD: u16 = 7_001;
/// There is no such account or zone.
pub(crate) const CODE_IDENTIFIER: u16 = 7_003;
/// A value of the request is out of its bounds.
pub(crate) const CODE_ARGUMENT: u16 = 1_400;
/// What was uploaded as a CA can't be one.
pub(crate) const CODE_NOT_A_CA: u16 = 1_411;
/// The body is larger than is read.
pub(crate) const CODE_TOO_LARGE: u16 = 1_413;
/// There is no such object.
pub(crate) const CODE_NOT_FOUND: u16 = 1_404;
/// The object's state does not allow it.
pub(crate) const CODE_CONFLICT: u16 = 1_409;
/// Policy, or the form of the request for a certificate, does not allow it.
pub(crate) const CODE_REFUSED: u16 = 1_450;
/// Too many requests.
pub(crate) const CODE_TOO_OFTEN: u16 = 1_429;
/// The object is not in the state that the request was written for.
pub(crate) const CODE_PRECONDITION: u16 = 1_412;
/// A request with the same idempotency key was cut off.
pub(crate) const CODE_KEY_BEGUN: u16 = 1_420;
/// The idempotency key was used for another request.
pub(crate) const CODE_KEY_DIFFERS: u16 = 1_422;
/// A request with the same idempotency key is being carried out.
pub(crate) const CODE_KEY_IN_USE: u16 = 1_423;
/// The same certificate was uploaded before.
pub(crate) const CODE_CERTIFICATE_EXISTS: u16 = 1_471;
/// There is no such uploaded certificate.
pub(crate) const CODE_CERTIFICATE: u16 = 1_472;
/// There is no such Access certificate.
pub(crate) const CODE_ACCESS_CERTIFICATE: u16 = 12_135;
/// Of a message, not of an error: what was changed is stored, and an edge does not go by it yet.
pub(crate) const CODE_NOT_IN_FORCE: u16 = 1_202;
/// We failed.
pub(crate) const CODE_INTERNAL: u16 = 1_500;
/// We can't now.
pub(crate) const CODE_UNAVAILABLE: u16 = 1_503;

/// Tells SDKs that a repeat can't cure a 409, but one that says when to; else they send it three times.
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// A refusal or failure as the client sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    pub(crate) code: u16,
    pub(crate) message: String,
    /// RFC 6901 pointer into the body, or the name of a query parameter or header after a slash.
    pub(crate) pointer: Option<String>,
    /// When the client may come again, in seconds.
    pub(crate) retry_after_s: Option<u16>,
    /// What else is wrong, of the same status.
    pub(crate) also: Vec<Self>,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, code: u16, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), pointer: None, retry_after_s: None, also: Vec::new() }
    }

    /// A value of the request can't be used.
    pub(crate) fn argument(pointer: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, CODE_ARGUMENT, message).at(pointer)
    }

    /// There is no such object; an object of another account is told the same way.
    pub(crate) fn not_found(what: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, CODE_NOT_FOUND, format!("there is no such {what}"))
    }

    /// There is no such account or zone.
    pub(crate) fn no_route_to(what: &str) -> Self {
        let message = format!("Could not route to the {what}: there is none of this id");
        Self::new(StatusCode::NOT_FOUND, CODE_IDENTIFIER, message)
    }

    /// There is no such uploaded certificate.
    pub(crate) fn no_certificate() -> Self {
        Self::new(StatusCode::NOT_FOUND, CODE_CERTIFICATE, "Certificate not found")
    }

    /// There is no such Access certificate.
    pub(crate) fn no_access_certificate() -> Self {
        let message = "access.api.error.not_found: Access certificate not found";
        Self::new(StatusCode::NOT_FOUND, CODE_ACCESS_CERTIFICATE, message)
    }

    /// It was changed since the caller read it.
    pub(crate) fn precondition() -> Self {
        let message = "it was changed since it was read: read it again, and send the new ETag as If-Match";
        Self::new(StatusCode::PRECONDITION_FAILED, CODE_PRECONDITION, message)
    }

    pub(crate) fn conflict(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, CODE_CONFLICT, message)
    }

    /// We failed; `error` goes to the log.
    pub(crate) fn internal(error: impl core::fmt::Display) -> Self {
        tracing::error!(%error, "a request of the admin API failed");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            CODE_INTERNAL,
            "an internal error; the log of the server has it under the request id",
        )
    }

    /// We can't now; `error` goes to the log.
    fn unavailable(message: impl Into<String>, error: impl core::fmt::Display) -> Self {
        tracing::error!(%error, "a request of the admin API can't be served now");
        Self {
            retry_after_s: Some(1),
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, CODE_UNAVAILABLE, message)
        }
    }

    pub(crate) fn too_often(message: impl Into<String>) -> Self {
        Self { retry_after_s: Some(1), ..Self::new(StatusCode::TOO_MANY_REQUESTS, CODE_TOO_OFTEN, message) }
    }

    #[must_use]
    pub(crate) const fn coded(mut self, code: u16) -> Self {
        self.code = code;
        self
    }

    #[must_use]
    pub(crate) fn at(mut self, pointer: impl Into<String>) -> Self {
        self.pointer = Some(pointer.into());
        self
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = envelope::failure(&self);
        let headers = response.headers_mut();
        if self.status == StatusCode::CONFLICT && self.retry_after_s.is_none() {
            headers.insert(SHOULD_RETRY, HeaderValue::from_static("false"));
        }
        if let Some(seconds) = self.retry_after_s {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl From<Fault> for ApiError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Corrupt { .. } => Self::internal(fault),
            Fault::NotOpen | Fault::Storage(_) => Self::unavailable("the ledger can't be read now", fault),
        }
    }
}

impl From<Rejected> for ApiError {
    fn from(rejected: Rejected) -> Self {
        let message = rejected.to_string();
        match rejected {
            Rejected::AccountUnknown => Self::no_route_to("account"),
            Rejected::CaUnknown => Self::not_found("CA"),
            Rejected::ListNumber { .. } | Rejected::ListOlder { .. } => Self::argument("/crl", message),
            Rejected::CertificateExists(_) => {
                Self::new(StatusCode::CONFLICT, CODE_CERTIFICATE_EXISTS, message).at("/certificates")
            }
            Rejected::DeadLetterUnknown => Self::not_found("dead letter"),
            Rejected::DocumentUnknown => Self::not_found("object"),
            Rejected::WebhookUnknown => Self::not_found("webhook"),
            // Whoever sent `If-Match` was told before; a repeat goes by what is there then.
            Rejected::RevisionDiffers => Self { retry_after_s: Some(1), ..Self::conflict(message) },
            Rejected::ZoneUnknown => Self::no_route_to("zone"),
            Rejected::CertificateUnknown => Self::not_found("certificate"),
            Rejected::DeviceUnknown(_) => Self::not_found("device"),
            Rejected::HostOutsideZone(_) => Self::argument("/host", message),
            Rejected::HostUnknown => Self::not_found("hostname"),
            Rejected::RequestNotWaiting => Self::not_found("waiting request"),
            Rejected::TokenUnknown => Self::not_found("token"),
            Rejected::DeviceText { error, .. } => Self::argument(format!("/{}", error.field), message),
            Rejected::Profile(error) => Self::argument(format!("/{}", error.field), message),
            Rejected::TooMany { .. } => Self::argument("", message),
            _ => Self::conflict(message),
        }
    }
}

impl From<LedgerError<Rejected>> for ApiError {
    fn from(error: LedgerError<Rejected>) -> Self {
        match error {
            LedgerError::Refused(rejected) => rejected.into(),
            LedgerError::Internal => Self::internal("the ledger undid a transaction"),
            LedgerError::Overloaded => Self::unavailable("the ledger is overloaded", "overloaded"),
            LedgerError::Unavailable(what) => {
                Self::unavailable("the ledger can't store the change now", what)
            }
        }
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        let status = match refusal.reason.fault() {
            Fallibility::Authentication | Fallibility::Forbidden => StatusCode::FORBIDDEN,
            Fallibility::Malformed | Fallibility::MediaType | Fallibility::NotOffered => {
                StatusCode::BAD_REQUEST
            }
            Fallibility::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Fallibility::NotFound => StatusCode::NOT_FOUND,
            Fallibility::TooOften => StatusCode::TOO_MANY_REQUESTS,
            // Reasons of the edge; nothing here is refused for one of them.
            Fallibility::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Fallibility::Origin => StatusCode::BAD_GATEWAY,
            Fallibility::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        };
        let retry_after_s =
            matches!(refusal.reason.fault(), Fallibility::TooOften | Fallibility::Unavailable);
        Self {
            retry_after_s: retry_after_s.then_some(1),
            ..Self::new(status, CODE_REFUSED, refusal.to_string()).at(refusal.field)
        }
    }
}

impl From<AuthorityError> for ApiError {
    fn from(error: AuthorityError) -> Self {
        match error {
            AuthorityError::AccountMissing => Self::no_route_to("account"),
            AuthorityError::Import(refused) => {
                Self::new(StatusCode::BAD_REQUEST, CODE_NOT_A_CA, refused.to_string()).at("/pem")
            }
            AuthorityError::ForeignCrl(refused) => {
                Self::new(StatusCode::BAD_REQUEST, CODE_ARGUMENT, format!("crl: {refused}")).at("/crl")
            }
            AuthorityError::Rejected(rejected) => rejected.into(),
            AuthorityError::NoActiveCa(_)
            | AuthorityError::NoRoomForRollover
            | AuthorityError::TwoRoots
            | AuthorityError::NotReplaced => Self::conflict(error.to_string()),
            AuthorityError::Ledger(what) => Self::unavailable("the ledger can't be used now", what),
            other => Self::internal(other),
        }
    }
}

impl From<RevocationError> for ApiError {
    fn from(error: RevocationError) -> Self {
        let message = format!(
            "the change is stored, but the CRL of CA {} could not be renewed; it is tried again by itself",
            error.ca
        );
        Self::unavailable(message, error)
    }
}
