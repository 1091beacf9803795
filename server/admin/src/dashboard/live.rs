//! Pages that follow what happens: their live parts, as a stream of server-sent events.
//!
//! An event is named for the part of the page that it renews and carries the part as it is rendered
//! now; it is sent when it differs from what was sent last. Nothing queues: a slow reader gets the
//! newest state when it reads again. A stream doesn't count as a use of its session; when the session
//! is over it says `over` and ends, and it ends when the server stops. Beyond the most that may be open
//! it says `busy` and ends. `live.js` asks for the page itself instead when it has no stream.

use core::convert::Infallible;
use core::time::Duration;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;
use maud::{Markup, html};
use muster_policy::identity::SecretHash;

use super::inside::Problem;
use super::visit::Visit;
use super::{devices, overview};
use crate::sse::{self, Place, Source, Streams};

/// Streams at once.
const STREAMS_MAX: usize = 64;
/// Streams at once of one session. Browsers open six connections to a host that speaks HTTP/1.1:
/// three are left to the pages themselves.
const STREAMS_PER_SESSION_MAX: usize = 3;
/// How often parts are rendered anew.
const INTERVAL: Duration = Duration::from_secs(1);
/// Rounds without news after which a stream says that it is there; proxies cut after 30 s or more.
const QUIET_ROUNDS_MAX: u32 = 15;
/// A page with live parts.
#[derive(Clone, Debug)]
pub(super) enum Watched {
    Device(String),
    Overview,
}

/// A live part: its name on the page, and how it looks now.
pub(super) type Part = (&'static str, Markup);

impl Watched {
    async fn parts(&self, visit: &Visit) -> Result<Vec<Part>, Problem> {
        match self {
            Self::Device(id) => devices::parts(visit, id).await,
            Self::Overview => overview::parts(visit).await,
        }
    }
}

/// The place of a part on its page.
pub(super) fn place((name, content): &Part) -> Markup {
    html! { div data-live=(name) { (content) } }
}

/// Where the page says whether it follows; scripts write it, and without them nothing follows.
pub(super) fn sign(stream: &str) -> Markup {
    html! { p { small data-live-stream=(stream) role="status" {} } }
}

/// The streams that are open, by session.
pub(super) type Watchers = Arc<Streams<SecretHash>>;

/// Room for the streams of a process.
pub(super) fn watchers() -> Watchers {
    Streams::new(STREAMS_MAX, STREAMS_PER_SESSION_MAX)
}

/// `GET …/live`: the stream of a page.
pub(super) async fn follow(visit: Visit, watched: Watched) -> Result<Response, Problem> {
    let Ok(place) = visit.dashboard.watchers.take(visit.session.key) else { return Ok(last_word("busy")) };
    // What can't be shown is refused before the stream begins.
    let first = watched.parts(&visit).await?;
    let mut follower = Follower {
        visit,
        watched,
        sent: HashMap::new(),
        waiting: VecDeque::new(),
        is_over: false,
        _place: place,
    };
    follower.note(first);
    Ok(sse::send(follower))
}

/// A stream that says one thing and ends; what is no stream would be an error in the browser's console.
pub(super) fn last_word(name: &str) -> Response {
    let event = Ok::<_, Infallible>(Event::default().event(name).data(name));
    Sse::new(stream::iter([event])).into_response()
}

struct Follower {
    visit: Visit,
    watched: Watched,
    sent: HashMap<&'static str, String>,
    /// Parts of this round that are to be sent; never more than the page has.
    waiting: VecDeque<&'static str>,
    is_over: bool,
    _place: Place<SecretHash>,
}

impl Source for Follower {
    async fn next(&mut self) -> Option<Event> {
        let mut quiet = 0;
        loop {
            if self.is_over {
                return None;
            }
            if let Some(name) = self.waiting.pop_front() {
                return Some(Event::default().event(name).data(self.sent.get(name)?));
            }
            tokio::select! {
                () = self.visit.dashboard.api.stopping() => return None,
                () = tokio::time::sleep(INTERVAL) => {}
            }
            if !self.visit.is_still_open() {
                self.is_over = true;
                return Some(Event::default().event("over").data("over"));
            }
            let parts = self.watched.parts(&self.visit).await.ok()?;
            self.note(parts);
            quiet += 1;
            if self.waiting.is_empty() && quiet >= QUIET_ROUNDS_MAX {
                return Some(Event::default().comment("still here"));
            }
        }
    }
}

impl Follower {
    /// Takes down which parts are news.
    fn note(&mut self, parts: Vec<Part>) {
        for (name, content) in parts {
            let content = content.into_string();
            if self.sent.get(name) != Some(&content) {
                self.sent.insert(name, content);
                self.waiting.push_back(name);
            }
        }
    }
}
