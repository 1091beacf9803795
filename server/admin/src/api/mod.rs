//! The resources, one file each: what is asked, what is done, and the view that is answered.
//!
//! A view is a struct of its own, never a stored record: what is not listed in a view can't leak.

pub(crate) mod access;
pub(crate) mod access_certificates;
pub(crate) mod access_test;
pub(crate) mod accounts;
pub(crate) mod admin_tokens;
pub(crate) mod approvals;
pub(crate) mod associations;
pub(crate) mod audit;
pub(crate) mod backup;
pub(crate) mod cas;
pub(crate) mod certificates;
pub(crate) mod client_certificates;
pub(crate) mod connections;
pub(crate) mod devices;
pub(crate) mod events;
pub(crate) mod foreign;
pub(crate) mod host_test;
pub(crate) mod hosts;
pub(crate) mod lapsing;
pub(crate) mod managed_headers;
pub(crate) mod metrics;
pub(crate) mod mtls_certificates;
pub(crate) mod origin_pulls;
pub(crate) mod pem;
pub(crate) mod profiles;
pub(crate) mod rulesets;
pub(crate) mod signing;
pub(crate) mod status;
pub(crate) mod tokens;
pub(crate) mod webhooks;
pub(crate) mod zones;

use axum::response::Response;

use crate::envelope::Answer;
use crate::error::ApiError;

/// What a handler of the JSON API returns.
pub(crate) type Outcome = Result<Answer, ApiError>;
/// What a handler returns that answers something else than JSON.
pub(crate) type RawOutcome = Result<Response, ApiError>;
