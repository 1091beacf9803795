//! Streams of server-sent events (HTML Living Standard §9.2): how they are sent, and how many are open.
//!
//! Each holds a connection and a task for as long as its reader likes, so there are only so many, and only
//! so many of one reader.

use core::convert::Infallible;
use core::future::Future;
use core::hash::Hash;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;
use http::{HeaderName, HeaderValue};

/// Keeps proxies from holding events back.
const NO_BUFFERING: (HeaderName, HeaderValue) =
    (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));

/// What a stream tells.
pub(crate) trait Source: Send + 'static {
    /// The next event; none ends the stream.
    fn next(&mut self) -> impl Future<Output = Option<Event>> + Send;
}

/// The answer that sends a source to its end.
pub(crate) fn send(source: impl Source) -> Response {
    let events = stream::unfold(source, async |mut source| {
        let event = source.next().await?;
        Some((Ok::<_, Infallible>(event), source))
    });
    let mut response = Sse::new(events).into_response();
    response.headers_mut().extend([NO_BUFFERING]);
    response
}

/// Why a stream gets no place; each with the most there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    /// All readers together have the most.
    OfAll(usize),
    /// This reader has the most.
    OfOne(usize),
}

/// The streams that are open, by reader.
pub(crate) struct Streams<K> {
    open: Mutex<HashMap<K, usize>>,
    of_all_max: usize,
    of_one_max: usize,
}

impl<K: Clone + Eq + Hash> Streams<K> {
    /// None is open; so many may be.
    pub(crate) fn new(of_all_max: usize, of_one_max: usize) -> Arc<Self> {
        Arc::new(Self { open: Mutex::default(), of_all_max, of_one_max })
    }

    /// Takes a place for a reader.
    pub(crate) fn take(self: &Arc<Self>, reader: K) -> Result<Place<K>, Full> {
        let mut open = self.open();
        if open.values().sum::<usize>() >= self.of_all_max {
            return Err(Full::OfAll(self.of_all_max));
        }
        let of_one = open.get(&reader).copied().unwrap_or_default();
        if of_one >= self.of_one_max {
            return Err(Full::OfOne(self.of_one_max));
        }
        open.insert(reader.clone(), of_one.saturating_add(1));
        drop(open);
        Ok(Place { streams: Arc::clone(self), reader })
    }
}

impl<K> Streams<K> {
    fn open(&self) -> MutexGuard<'_, HashMap<K, usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stream's place among the open ones; given back on drop.
pub(crate) struct Place<K: Eq + Hash> {
    streams: Arc<Streams<K>>,
    reader: K,
}

impl<K: Eq + Hash> Drop for Place<K> {
    fn drop(&mut self) {
        let mut open = self.streams.open();
        if let Some(of_one) = open.get_mut(&self.reader) {
            *of_one = of_one.saturating_sub(1);
            if *of_one == 0 {
                open.remove(&self.reader);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_for_all_and_for_one_and_are_given_back() {
        let streams = Streams::new(3, 2);
        let places = [streams.take("a"), streams.take("a")];
        assert!(places.iter().all(Result::is_ok));
        assert_eq!(streams.take("a").err(), Some(Full::OfOne(2)));
        let other = streams.take("b");
        assert!(other.is_ok());
        assert_eq!(streams.take("c").err(), Some(Full::OfAll(3)));
        drop(places);
        assert!(streams.take("c").is_ok() && streams.take("a").is_ok());
        drop(other);
        assert!(streams.open().is_empty(), "nobody is remembered");
    }
}
