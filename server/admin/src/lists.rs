//! The own revocation lists of CAs whose key is elsewhere: fetched from where the CA publishes them.
//!
//! A list is signed, so it may come by plain `http://`; what comes is read within bounds, checked by
//! the authority, and only then takes the place of the last good one. A fetch that fails is tried again
//! with growing pauses and changes nothing: what happens when the last list ends is the CA's setting.
//! How the last fetch went is known to this process alone, and starts anew with it.

mod fetch;
mod follow;

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use muster_enroll::{AuthorityError, ListOrigin};
use muster_policy::identity::CaId;
use muster_policy::time::UnixTime;
use muster_store::act::{By, ListTaken, Rejected};
use muster_store::record::ListSource;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use serde::Serialize;
use tokio::sync::Notify;
use utoipa::ToSchema;

use self::fetch::Fetcher;
pub use self::follow::fetch_lists;
use crate::Api;
use crate::error::ApiError;
use crate::webhooks::{PlainHttp, WebhookSettings, check_address};

/// How a fetch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Fetched {
    /// There was none that could be taken.
    Failed,
    /// A new list was taken.
    Taken,
    /// It is the list that is known.
    Unchanged,
}

/// The last fetch of a CA's list.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = ListFetchView)]
pub(crate) struct LastFetch {
    at: UnixTime,
    outcome: Fetched,
    /// Why it failed.
    message: Option<String>,
    /// How many failed since one was good.
    failures: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FetchLabels {
    outcome: &'static str,
}

/// What fetching works with.
pub(crate) struct Lists {
    fetcher: Fetcher,
    loopback_http: bool,
    last: Mutex<HashMap<CaId, LastFetch>>,
    fetches: Family<FetchLabels, Counter>,
    /// Told when the settings of a CA changed.
    changed: Notify,
}

impl Lists {
    pub(crate) fn new(settings: &WebhookSettings, registry: &mut Registry) -> Self {
        let fetches = Family::default();
        registry.register("crl_fetches", "Fetches of CAs' own CRLs, by how they ended", fetches.clone());
        Self {
            fetcher: Fetcher::new(&settings.tls),
            loopback_http: settings.loopback_http,
            last: Mutex::default(),
            fetches,
            changed: Notify::new(),
        }
    }

    /// Looks anew at which lists are fetched, and when.
    pub(crate) fn changed(&self) {
        self.changed.notify_one();
    }

    /// Checks where a list shall be fetched from.
    pub(crate) fn check_url(&self, text: &str) -> Result<(), ApiError> {
        check_address(text, PlainHttp::Anywhere, self.loopback_http)
    }

    /// How the last fetch of a CA's list went, since this process began.
    pub(crate) fn last(&self, ca: CaId) -> Option<LastFetch> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).get(&ca).cloned()
    }

    fn note(&self, ca: CaId, at: UnixTime, outcome: Fetched, message: Option<String>) -> u32 {
        let name = match outcome {
            Fetched::Failed => "failed",
            Fetched::Taken => "taken",
            Fetched::Unchanged => "unchanged",
        };
        self.fetches.get_or_create(&FetchLabels { outcome: name }).inc();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let before = last.get(&ca).map_or(0, |last| last.failures);
        let failures = if outcome == Fetched::Failed { before.saturating_add(1) } else { 0 };
        last.insert(ca, LastFetch { at, outcome, message, failures });
        failures
    }
}

/// Fetches the list of a CA once, and takes it.
///
/// # Errors
/// What kept it from being taken, in words for an operator; the last good one stays.
pub(crate) async fn fetch(api: &Api, ca: CaId, url: &str, by: By) -> Result<ListTaken, ApiError> {
    let at = by.at;
    let fetched = fetch_and_take(api, ca, url, by).await;
    let (outcome, message) = match &fetched {
        Ok(taken) if taken.ca.list.as_ref().is_some_and(|list| list.taken_at == at) => (Fetched::Taken, None),
        Ok(_) => (Fetched::Unchanged, None),
        Err(error) => (Fetched::Failed, Some(error.message.clone())),
    };
    if let Some(message) = &message {
        tracing::warn!(%ca, message, "the CRL of a CA could not be fetched; the last good one stays");
    }
    api.lists().note(ca, at, outcome, message);
    fetched
}

async fn fetch_and_take(api: &Api, ca: CaId, url: &str, by: By) -> Result<ListTaken, ApiError> {
    let octets = api.lists().fetcher.get(url).await.map_err(|failed| {
        ApiError::new(http::StatusCode::BAD_REQUEST, crate::error::CODE_ARGUMENT, failed.to_string())
            .at("/url")
    })?;
    take(api, ca, octets, ListOrigin { source: ListSource::Fetched, by }, "/url").await
}

/// Checks a list and takes it.
///
/// # Errors
/// What speaks against it, at `pointer`; the last good one stays.
pub(crate) async fn take(
    api: &Api,
    ca: CaId,
    octets: Vec<u8>,
    origin: ListOrigin,
    pointer: &str,
) -> Result<ListTaken, ApiError> {
    let authority = api.registrar().authority();
    let refused = |error: AuthorityError| match error {
        AuthorityError::ForeignCrl(_)
        | AuthorityError::Rejected(Rejected::ListNumber { .. } | Rejected::ListOlder { .. }) => {
            ApiError::from(error).at(pointer)
        }
        other => other.into(),
    };
    let trial = authority.try_list(ca, octets).await.map_err(refused)?;
    authority.take_list(trial, origin).await.map_err(refused)
}
