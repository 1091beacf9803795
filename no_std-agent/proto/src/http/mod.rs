//! The part of HTTP/1.1 that an EST client needs (RFC 9110, RFC 9112), without IO.
//!
//! [`ResponseReader`] takes bytes as they come, in any pieces, and leaves the body in the caller's buffer.
//! One request is outstanding at a time, so bytes behind an answer are an error. Redirects are not followed
//! (credentials would travel to another host); that is decided one floor up, by the status.

mod chunked;
mod date;
mod fields;
mod reader;
mod renewal;

pub use date::parse_http_date;
pub use fields::{Body, ContentType, Head, HttpError, RetryAfter};
pub use reader::{Progress, ResponseReader};
pub use renewal::{Steering, parse_renewal};
