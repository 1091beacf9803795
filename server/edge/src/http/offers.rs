//! What a client has been handed of answers and has not taken.
//!
//! An h2 client that opens no window can hold an answer, and the connection to the origin with it, for as
//! long as it answers pings: the system sees nothing wrong with such a connection. A window of one octet is
//! enough for hyper to let go of a whole piece, and with the last one of the body; so what counts is the piece
//! itself, until it is written or dropped.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Buf, Bytes};
use tokio::time::Instant;

/// The answers of one connection of which the client has not taken all that was handed out.
#[derive(Debug, Default)]
pub(crate) struct Offers(Mutex<Pending>);

#[derive(Debug, Default)]
struct Pending {
    last_id: u64,
    waiting: BTreeMap<u64, Waiting>,
}

/// One that waits.
#[derive(Debug)]
struct Waiting {
    pieces: usize,
    /// When something of it was taken last, or its first piece handed out.
    since: Instant,
}

impl Offers {
    /// Since when the one waits of which nothing was taken for longest.
    pub(crate) fn oldest(&self) -> Option<Instant> {
        self.pending().waiting.values().map(|waiting| waiting.since).min()
    }

    /// An answer whose pieces are to be watched.
    pub(crate) fn answer(self: &Arc<Self>) -> Offer {
        let mut pending = self.pending();
        pending.last_id += 1;
        Offer { offers: Arc::clone(self), id: pending.last_id }
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One answer.
#[derive(Clone, Debug)]
pub(crate) struct Offer {
    offers: Arc<Offers>,
    id: u64,
}

impl Offer {
    /// Hands out a piece of it.
    pub(crate) fn piece(&self, octets: Bytes) -> Piece {
        let mut pending = self.offers.pending();
        let new = || Waiting { pieces: 0, since: Instant::now() };
        pending.waiting.entry(self.id).or_insert_with(new).pieces += 1;
        Piece { octets, offer: Some(self.clone()) }
    }

    fn moved(&self) {
        if let Some(waiting) = self.offers.pending().waiting.get_mut(&self.id) {
            waiting.since = Instant::now();
        }
    }

    fn done(&self) {
        let mut pending = self.offers.pending();
        if let Some(waiting) = pending.waiting.get_mut(&self.id) {
            waiting.pieces -= 1;
            if waiting.pieces == 0 {
                pending.waiting.remove(&self.id);
            }
        }
    }
}

/// Octets of an answer on their way to a client.
#[derive(Debug)]
pub(crate) struct Piece {
    octets: Bytes,
    offer: Option<Offer>,
}

impl Piece {
    /// Of a page of our own: no origin waits for it to be taken.
    pub(crate) const fn unwatched(octets: Bytes) -> Self {
        Self { octets, offer: None }
    }
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.octets.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.octets.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.octets.advance(count);
        if let Some(offer) = self.offer.as_ref().filter(|_| count > 0) {
            offer.moved();
        }
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        if let Some(offer) = &self.offer {
            offer.done();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_answer_waits_from_its_first_piece_or_what_was_taken_last_until_all_is_gone() {
        let (offers, second) = (Arc::new(Offers::default()), Duration::from_secs(1));
        let waits = |offers: &Offers| offers.oldest().map(|since| since.elapsed());
        let (slow, other) = (offers.answer(), offers.answer());
        let mut first = slow.piece(Bytes::from_static(b"abc"));
        tokio::time::advance(second).await;
        let last = slow.piece(Bytes::from_static(b"d"));
        let quick = other.piece(Bytes::from_static(b"e"));
        assert_eq!(waits(&offers), Some(second), "more of an answer does not mean that any was taken");
        first.advance(1);
        tokio::time::advance(second).await;
        first.advance(0);
        assert_eq!(waits(&offers), Some(second));
        drop((first, quick));
        assert_eq!(waits(&offers), Some(second), "its end is not taken");
        drop((last, Piece::unwatched(Bytes::from_static(b"f"))));
        assert_eq!(waits(&offers), None);
    }
}
