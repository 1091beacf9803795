//! The change log as a stream of server-sent events (HTML Living Standard §9.2).
//!
//! Who comes back with `Last-Event-ID` goes on there, because events are read from the ledger and not
//! from a queue: a slow reader holds up nobody and loses nothing, until it is so far behind that it is
//! told `lagged` and goes on with the newest. A stream ends when its token does, and when the server
//! stops; clients come back by themselves.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;
use http::{HeaderMap, HeaderName, HeaderValue};
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
/// Keeps proxies from holding events back.
const NO_BUFFERING: (HeaderName, HeaderValue) =
    (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));

/// The streams that are open, by token; none is the process's own secret.
#[derive(Default)]
pub(crate) struct Streams(Mutex<HashMap<Option<TokenId>, usize>>);

impl Streams {
    fn open(&self) -> MutexGuard<'_, HashMap<Option<TokenId>, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stream's place among the open ones; given back on drop.
struct Place {
    api: Arc<Api>,
    token: Option<TokenId>,
}

impl Place {
    fn take(api: &Arc<Api>, token: Option<TokenId>) -> Result<Self, ApiError> {
        let mut open = api.streams().open();
        if open.values().sum::<usize>() >= STREAMS_MAX {
            return Err(ApiError::too_often(format!("{STREAMS_MAX} event streams are open already")));
        }
        let of_token = open.entry(token).or_default();
        if *of_token >= STREAMS_PER_TOKEN_MAX {
            let message = format!("{STREAMS_PER_TOKEN_MAX} event streams of this token are open already");
            return Err(ApiError::too_often(message));
        }
        *of_token += 1;
        Ok(Self { api: Arc::clone(api), token })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.api.streams().open();
        if let Some(of_token) = open.get_mut(&self.token) {
            *of_token = of_token.saturating_sub(1);
            if *of_token == 0 {
                open.remove(&self.token);
            }
        }
    }
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
        _place: Place::take(&api, caller.token_id())?,
        caller,
        api,
    };
    let events = stream::unfold(follower, |mut follower| async {
        let event = follower.next().await?;
        Some((Ok::<_, Infallible>(event), follower))
    });
    let mut response: Response = Sse::new(events).into_response();
    response.headers_mut().extend([NO_BUFFERING]);
    Ok(response)
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
    _place: Place,
}

impl Follower {
    /// The next event; none ends the stream.
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
