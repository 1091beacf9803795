//! The GET of one list: no redirects, bounded in time and size.

use std::sync::Arc;
use std::time::Duration;

use http::Request;
use http::header::{ACCEPT, USER_AGENT};
use http_body_util::Full;
use muster_enroll::CRL_MAX_BYTES;

use crate::outbound::{Bounds, Failed, Outbound};

/// A list in PEM is a third larger than in DER, and has line ends.
const BOUNDS: Bounds = Bounds { time: Duration::from_secs(30), octets: CRL_MAX_BYTES / 2 * 3 };

/// Why there is no list, in words for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoList {
    /// More than a list can be, or the answer broke off.
    #[error("what is at the CRL's address is larger than 4 MiB, or broke off")]
    Body,
    /// There is no answer to read.
    #[error("the CRL can't be fetched: {0}")]
    Failed(Failed),
}

/// Fetches by the way out.
pub(super) struct Fetcher(pub(super) Arc<Outbound>);

impl Fetcher {
    /// Reads what is at an address.
    pub(super) async fn get(&self, url: &str) -> Result<Vec<u8>, NoList> {
        let request = Request::get(url)
            .header(ACCEPT, "application/pkix-crl, */*;q=0.5")
            .header(USER_AGENT, concat!("muster/", env!("CARGO_PKG_VERSION")))
            .body(Full::default())
            .map_err(|_| NoList::Failed(Failed::Unreachable))?;
        let taken = self.0.exchange(request, BOUNDS).await.map_err(NoList::Failed)?;
        Ok(taken.body.ok_or(NoList::Body)?.to_vec())
    }
}
