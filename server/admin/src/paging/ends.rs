//! Where numbered pages ended, so that the page of the next number goes on there (contract §1.6).
//!
//! Clients that iterate ask for one number after the other. Counted from the start of a list that changes
//! meanwhile, a page would repeat entries or leave some out. So it is remembered for some minutes behind which
//! entry each page of a caller's list ended. Where that is forgotten, or was never asked for, pages are counted. Of
//! two iterations at once by one caller the later page counts, which is where counting would go on too.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::Method;
use muster_enroll::hash_secret;
use muster_policy::identity::SecretHash;
use muster_policy::time::UnixTime;
use muster_store::reader::Cursor;

use crate::Api;
use crate::auth::Caller;
use crate::paging::number;

/// Ends that are remembered, of 200 bytes at most; the oldest make room.
const ENDS_MAX: usize = 1_024;
/// How long: an iteration that does something about each entry of a page is slow.
const KEPT_FOR: Duration = Duration::from_secs(600);

/// Tells a list behind which entry it goes on, and is told behind which one its page ended.
#[derive(Clone, Debug)]
pub(crate) struct Behind(pub(crate) Cursor);

/// The ends of pages, the newest last.
#[derive(Default)]
pub(crate) struct PageEnds(Mutex<VecDeque<End>>);

struct End {
    /// Hash of the caller, the list and the number of the page.
    page: SecretHash,
    cursor: Cursor,
    at: UnixTime,
}

impl PageEnds {
    fn note(&self, page: SecretHash, cursor: Cursor, at: UnixTime) {
        let mut ends = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ends.retain(|end| end.page != page);
        if ends.len() >= ENDS_MAX {
            ends.pop_front();
        }
        ends.push_back(End { page, cursor, at });
    }

    fn of(&self, page: SecretHash, now: UnixTime) -> Option<Cursor> {
        let ends = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let end = ends.iter().find(|end| end.page == page && now.since(end.at) <= KEPT_FOR);
        end.map(|end| end.cursor.clone())
    }
}

/// Lets a numbered page go on where the one before ended, and remembers where it ends itself.
pub(crate) async fn follow(State(api): State<Arc<Api>>, mut request: Request, next: Next) -> Response {
    let Some((list, page)) = asked(&request) else { return next.run(request).await };
    let named = |page: u32| hash_secret(&format!("{list}\n{page}"));
    let before = page.checked_sub(1).and_then(|before| api.page_ends().of(named(before), api.now()));
    if let Some(cursor) = before {
        request.extensions_mut().insert(Behind(cursor));
    }
    let response = next.run(request).await;
    if let Some(Behind(cursor)) = response.extensions().get() {
        api.page_ends().note(named(page), cursor.clone(), api.now());
    }
    response
}

/// The list that is asked for and by whom, and the number of the page.
fn asked(request: &Request) -> Option<(String, u32)> {
    if request.method() != Method::GET {
        return None;
    }
    let caller = request.extensions().get::<Caller>()?;
    let query = request.uri().query().unwrap_or_default();
    let mut page = 1;
    let mut rest = Vec::new();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        if name == "page" {
            page = number(&value, "page", u32::MAX).ok()?;
        } else {
            rest.push((name, value));
        }
    }
    rest.sort();
    Some((format!("{:?}\n{}\n{rest:?}", caller.actor, request.uri().path()), page))
}
