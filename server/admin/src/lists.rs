//! The own revocation lists of CAs whose key is elsewhere: fetched from where the CA publishes them.
//!
//! A list is signed, so it may come by plain `http://`; what comes is read within bounds, checked by
//! the authority, and only then takes the place of the last good one. A fetch that fails is tried again
//! with growing pauses and changes nothing: what happens when the last list ends is the CA's setting.
//! How the last fetch went is in the ledger, and when the next one is due follows from it, also for a
//! server that starts again. That a list is still the one that is known is stored each half hour at most;
//! this process knows it to the second.

mod fetch;
mod follow;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use muster_enroll::{AuthorityError, ListOrigin};
use muster_policy::identity::CaId;
use muster_policy::time::UnixTime;
use muster_store::act::{By, ListTaken, NoteFetch, Rejected};
use muster_store::record::{Fetched, ForeignCa, ListFetch, ListSource};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use tokio::sync::Notify;

use self::fetch::Fetcher;
pub use self::follow::fetch_lists;
pub(crate) use self::follow::next_at;
use crate::Api;
use crate::error::ApiError;
use crate::outbound::{Outbound, PlainHttp};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FetchLabels {
    outcome: &'static str,
}

/// Longest text of why a fetch failed; it may cite what was fetched.
const MESSAGE_MAX_CHARS: usize = 500;
/// How often it is stored that a list is still the one that is known.
const UNCHANGED_STORED_EVERY: Duration = Duration::from_secs(1_800);

/// What fetching works with.
pub(crate) struct Lists {
    fetcher: Fetcher,
    last: Mutex<HashMap<CaId, ListFetch>>,
    fetches: Family<FetchLabels, Counter>,
    /// Told when the settings of a CA changed.
    changed: Notify,
}

impl Lists {
    pub(crate) fn new(outbound: Arc<Outbound>, registry: &mut Registry) -> Self {
        let fetches = Family::default();
        registry.register("crl_fetches", "Fetches of CAs' own CRLs, by how they ended", fetches.clone());
        Self { fetcher: Fetcher(outbound), last: Mutex::default(), fetches, changed: Notify::new() }
    }

    /// Looks anew at which lists are fetched, and when.
    pub(crate) fn changed(&self) {
        self.changed.notify_one();
    }

    /// Checks where a list shall be fetched from.
    pub(crate) fn check_url(&self, text: &str) -> Result<(), ApiError> {
        self.fetcher.0.check_url(text, PlainHttp::Anywhere)
    }

    /// How the last fetch of a CA's list went; `known` is what is stored of the CA.
    pub(crate) fn last(&self, ca: CaId, known: &ForeignCa) -> Option<ListFetch> {
        let noted = self.last.lock().unwrap_or_else(PoisonError::into_inner).get(&ca).cloned();
        noted.or_else(|| known.last_fetch.clone())
    }

    fn count(&self, outcome: Fetched) {
        let outcome = match outcome {
            Fetched::Failed => "failed",
            Fetched::Taken => "taken",
            Fetched::Unchanged => "unchanged",
        };
        self.fetches.get_or_create(&FetchLabels { outcome }).inc();
    }

    fn note(&self, ca: CaId, fetch: ListFetch) {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).insert(ca, fetch);
    }
}

/// Fetches the list of a CA once, and takes it; `known` is what is stored of the CA, which need not be fetched from
/// this address yet.
///
/// # Errors
/// What kept it from being taken, in words for an operator; the last good one stays.
pub(crate) async fn fetch(
    api: &Api,
    (ca, known): (CaId, &ForeignCa),
    url: &str,
    point: Option<String>,
    by: By,
) -> Result<ListTaken, ApiError> {
    let at = by.at;
    let origin = ListOrigin { source: ListSource::Fetched, by, point };
    let fetched = fetch_and_take(api, ca, url, origin).await;
    let (outcome, message) = match &fetched {
        Ok(taken) if taken.ca.list.as_ref().is_some_and(|list| list.taken_at == at) => (Fetched::Taken, None),
        Ok(_) => (Fetched::Unchanged, None),
        Err(error) => (Fetched::Failed, Some(error.message.clone())),
    };
    if let Some(message) = &message {
        tracing::warn!(%ca, message, "the CRL of a CA could not be fetched; the last good one stays");
    }
    api.lists().count(outcome);
    // That an address is no good which somebody only tried says nothing of the one that is set.
    if outcome != Fetched::Failed || known.settings.url.as_deref() == Some(url) {
        note(api, ca, known, (at, outcome, message)).await;
    }
    fetched
}

async fn note(
    api: &Api,
    ca: CaId,
    known: &ForeignCa,
    (at, outcome, message): (UnixTime, Fetched, Option<String>),
) {
    let before = api.lists().last(ca, known).map_or(0, |last| last.failures);
    let failures = if outcome == Fetched::Failed { before.saturating_add(1) } else { 0 };
    let message = message.map(|text| text.chars().take(MESSAGE_MAX_CHARS).collect());
    let fetch = ListFetch { at, outcome, message, failures };
    api.lists().note(ca, fetch.clone());
    if is_to_be_stored(&fetch, known.last_fetch.as_ref()) {
        let account = api.registrar().account();
        if let Err(error) = api.registrar().ledger().offer(NoteFetch { account, ca, fetch }).await {
            tracing::warn!(%error, %ca, "how a fetch went is not stored");
        }
    }
}

/// Whether a fetch tells what the stored one does not; what was taken is stored with the list.
fn is_to_be_stored(fetch: &ListFetch, stored: Option<&ListFetch>) -> bool {
    match fetch.outcome {
        Fetched::Failed => true,
        Fetched::Taken => false,
        Fetched::Unchanged => stored.is_none_or(|stored| {
            stored.outcome == Fetched::Failed || fetch.at.since(stored.at) >= UNCHANGED_STORED_EVERY
        }),
    }
}

async fn fetch_and_take(api: &Api, ca: CaId, url: &str, origin: ListOrigin) -> Result<ListTaken, ApiError> {
    let octets = api.lists().fetcher.get(url).await.map_err(|failed| {
        ApiError::new(http::StatusCode::BAD_REQUEST, crate::error::CODE_ARGUMENT, failed.to_string())
            .at("/url")
    })?;
    take(api, ca, octets, origin, "/url").await
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
    let trial = authority.try_list(ca, octets, origin.point.clone()).await.map_err(refused)?;
    authority.take_list(trial, origin).await.map_err(refused)
}
