//! The POST of one delivery: no redirects, bounded in time, and of the answer only the status counts.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http::header::{CONTENT_TYPE, USER_AGENT};
use http_body_util::Full;

use crate::outbound::{Bounds, Failed, Outbound};

/// A yes is read so that its connection can be used again; a longer one costs that, nothing else.
const BOUNDS: Bounds = Bounds { time: Duration::from_secs(15), octets: 64 << 10 };

/// Sends deliveries by the way out.
pub(crate) struct Sender(pub(super) Arc<Outbound>);

impl Sender {
    /// Sends a body; returns the status, which is 2xx.
    pub(crate) async fn post(
        &self,
        url: &str,
        id: &str,
        stamp: &str,
        signature: &str,
        body: String,
    ) -> Result<u16, Failed> {
        let request = Request::post(url)
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, concat!("muster/", env!("CARGO_PKG_VERSION")))
            .header("webhook-id", id)
            .header("webhook-timestamp", stamp)
            .header("webhook-signature", signature)
            .body(Full::new(Bytes::from(body)))
            .map_err(|_| Failed::Unreachable)?;
        Ok(self.0.exchange(request, BOUNDS).await?.status.as_u16())
    }
}
