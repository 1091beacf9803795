//! The change log as a stream of server-sent events (HTML Living Standard §9.2).
//!
//! Who comes back with `Last-Event-ID` goes on there, because events are read from the ledger and not
//! from a queue: a slow reader holds up nobody and loses nothing, until it is so far behind that it is
//! told `lagged` and goes on with the newest. A stream ends when its token does, and when the server
//! stops; clients come back by themselves.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::Event;
use http::{HeaderMap, HeaderName};
use muster_policy::identity::{AccountId, TokenId};
use muster_store::record::Change;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::Api;
use crate::api::RawOutcome;
use crate::auth::Caller;
use crate::error::ApiError;
use crate::events::EventView;
use crate::request::{Account, Query};
use crate::sse::{self, Full, Place, Source, Streams};

/// Streams at once.
const STREAMS_MAX: usize = 64;
/// Streams at once with one token.
const STREAMS_PER_TOKEN_MAX: usize = 8;
/// Changes read at a time.
const STEP: usize = 256;
/// How far behind a reader may be, in changes; beyond, reading lists anew is less work. Tests need not
/// make as many.
const LAG_MAX: u64 = if cfg!(test) { 2_000 } else { 100_000 };
/// How often an idle stream says that it is there; proxies cut after 30 s or more.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(15);
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// The streams that are open, by token; none is the process's own secret.
pub(crate) type EventStreams = Arc<Streams<Option<TokenId>>>;

/// Room for the streams of a process.
pub(crate) fn streams() -> EventStreams {
    Streams::new(STREAMS_MAX, STREAMS_PER_TOKEN_MAX)
}

/// `GET …/events`, after `Last-Event-ID`, else after `since`, else what happens from now on.
pub(crate) async fn stream(
    State(api): State<Arc<Api>>,
    Account(account): Account,
    caller: Caller,
    headers: HeaderMap,
    query: Query,
) -> RawOutcome {
    let changes = api.registrar().ledger().newest_change();
    let newest = *changes.borrow();
    let at = match last_event_id(&headers)? {
        Some(number) => Some(number),
        None => query.parse::<u64>("since")?,
    };
    let follower = Follower {
        at: at.unwrap_or(newest),
        account,
        changes,
        read: VecDeque::new(),
        _place: api.streams().take(caller.token_id()).map_err(too_many)?,
        caller,
        api,
    };
    Ok(sse::send(follower))
}

fn too_many(full: Full) -> ApiError {
    ApiError::too_often(match full {
        Full::OfAll(most) => format!("{most} event streams are open already"),
        Full::OfOne(most) => format!("{most} event streams of this token are open already"),
    })
}

/// Browsers send an empty one when the last event had none.
fn last_event_id(headers: &HeaderMap) -> Result<Option<u64>, ApiError> {
    let Some(value) = headers.get(LAST_EVENT_ID).filter(|value| !value.is_empty()) else { return Ok(None) };
    let number = value.to_str().ok().and_then(|text| text.trim().parse().ok());
    let wrong = || ApiError::argument("/Last-Event-ID", "Last-Event-ID: the number of a change");
    number.map(Some).ok_or_else(wrong)
}

struct Follower {
    api: Arc<Api>,
    account: AccountId,
    caller: Caller,
    /// The last change that was told, or passed over.
    at: u64,
    changes: watch::Receiver<u64>,
    read: VecDeque<Change>,
    _place: Place<Option<TokenId>>,
}

impl Source for Follower {
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(change) = self.read.pop_front() {
                return Some(told(&change));
            }
            let newest = *self.changes.borrow_and_update();
            if let Some((name, from)) = self.jump(newest) {
                self.at = newest;
                return Some(event(name, newest, &json!({ "from": from, "to": newest })));
            }
            if newest > self.at {
                self.read_on().await?;
                continue;
            }
            tokio::select! {
                () = self.api.stopping() => return None,
                changed = self.changes.changed() => changed.ok()?,
                () = tokio::time::sleep(HEARTBEAT_INTERVAL) => {
                    return self.still_good().then(|| Event::default().comment("heartbeat"));
                }
            }
        }
    }
}

impl Follower {
    /// Whether the reader has to be told that it missed something, and from where on.
    fn jump(&self, newest: u64) -> Option<(&'static str, u64)> {
        if self.at > newest {
            // An older ledger was restored: its numbers mean other changes.
            return Some(("reset", newest));
        }
        (newest - self.at > LAG_MAX).then_some(("lagged", self.at.saturating_add(1)))
    }

    /// Reads some changes; none when the ledger can't be read or the token is no longer good.
    async fn read_on(&mut self) -> Option<()> {
        if !self.still_good() {
            return None;
        }
        let at = self.at;
        let changes = self.api.read(move |reader| reader.changes_since(at, STEP)).await.ok()?;
        self.at = changes.last()?.number;
        let ours = changes.into_iter().filter(|change| change.account.is_none_or(|of| of == self.account));
        self.read.extend(ours);
        Some(())
    }

    fn still_good(&self) -> bool {
        self.caller.is_still_good(&self.api)
    }
}

fn told(change: &Change) -> Event {
    let view = EventView::new(change);
    let data = serde_json::to_value(&view).unwrap_or_default();
    event(&view.event, view.number, &data)
}

fn event(name: &str, number: u64, data: &Value) -> Event {
    Event::default().event(name).id(number.to_string()).data(data.to_string())
}
