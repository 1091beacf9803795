//! A connection that is as slow as its link.
//!
//! Bytes wait here until the link would have brought them, in order, in both directions. At most a window of them is
//! on its way at once; then the sender waits, as TCP's does. What is written goes on when the connection is flushed
//! or read from, so it is for one task and not for two halves.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::{BROKEN_AFTER, Link, transit};
use crate::chance::Chance;

/// A connection over a link, or over the machine's own.
#[derive(Debug)]
pub(crate) struct Linked<S> {
    inner: S,
    slow: Option<Box<Slow>>,
}

#[derive(Debug)]
struct Slow {
    there: Lane,
    back: Lane,
    /// Whether the peer has said all.
    is_ended: bool,
}

/// One direction.
#[derive(Debug)]
struct Lane {
    link: Link,
    on_way: VecDeque<(Instant, Item)>,
    bytes: usize,
    /// When the link has sent what it was given.
    free_at: Instant,
    /// When the newest item is there.
    last_at: Instant,
    timer: Pin<Box<Sleep>>,
}

#[derive(Debug)]
enum Item {
    Bytes(VecDeque<u8>),
    Broken,
    End,
}

impl<S> Linked<S> {
    /// A connection over this link.
    pub(crate) fn new(inner: S, link: Option<Link>) -> Self {
        let slow = link.map(|mut link| {
            let chance = Chance::new(link.chance.number(), link.chance.number());
            let other = Link { quality: link.quality, chance };
            Box::new(Slow { there: Lane::new(link), back: Lane::new(other), is_ended: false })
        });
        Self { inner, slow }
    }
}

impl Lane {
    fn new(link: Link) -> Self {
        let now = Instant::now();
        let timer = Box::pin(sleep_until(now));
        Self { link, on_way: VecDeque::new(), bytes: 0, free_at: now, last_at: now, timer }
    }

    fn room(&self) -> usize {
        WINDOW_BYTES.saturating_sub(self.bytes)
    }

    fn send(&mut self, bytes: &[u8]) {
        let begins = self.free_at.max(Instant::now());
        self.free_at = begins + self.link.quality.sending(bytes.len());
        match transit(&self.link.quality, bytes.len(), &mut self.link.chance) {
            Some(time) => {
                self.bytes += bytes.len();
                self.put(begins + time, Item::Bytes(bytes.iter().copied().collect()));
            }
            None => self.put(begins + BROKEN_AFTER, Item::Broken),
        }
    }

    /// An item can't overtake another.
    fn put(&mut self, at: Instant, item: Item) {
        self.last_at = self.last_at.max(at);
        self.on_way.push_back((self.last_at, item));
    }

    /// What has come; pending while there is nothing, or it is on its way.
    fn poll_front(&mut self, context: &mut Context<'_>) -> Poll<&mut Item> {
        let Some((at, item)) = self.on_way.front_mut() else { return Poll::Pending };
        if self.timer.deadline() != *at {
            self.timer.as_mut().reset(*at);
        }
        ready!(self.timer.as_mut().poll(context));
        Poll::Ready(item)
    }

    /// These bytes of the first item are taken.
    fn took(&mut self, count: usize) {
        self.bytes = self.bytes.saturating_sub(count);
        if let Some((_, Item::Bytes(bytes))) = self.on_way.front_mut() {
            bytes.drain(..count.min(bytes.len()));
            if bytes.is_empty() {
                self.on_way.pop_front();
            }
        }
    }
}

impl Slow {
    /// Hands on what has come to the other side; ready when nothing is on its way any more.
    fn poll_there<S: AsyncWrite + Unpin>(
        &mut self,
        inner: &mut S,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while !self.there.on_way.is_empty() {
            let Item::Bytes(bytes) = ready!(self.there.poll_front(context)) else {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            };
            let (front, _) = bytes.as_slices();
            let count = ready!(Pin::new(&mut *inner).poll_write(context, front))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.there.took(count);
        }
        Poll::Ready(Ok(()))
    }

    /// Puts what the peer sent on its way.
    fn fill<S: AsyncRead + Unpin>(&mut self, inner: &mut S, context: &mut Context<'_>) -> io::Result<()> {
        let mut bytes = [0; READ_BYTES];
        while !self.is_ended && self.back.room() > 0 {
            let room = self.back.room().min(READ_BYTES);
            let mut buffer = ReadBuf::new(bytes.split_at_mut(room).0);
            match Pin::new(&mut *inner).poll_read(context, &mut buffer) {
                Poll::Pending => break,
                Poll::Ready(read) => read?,
            }
            match buffer.filled() {
                [] => {
                    self.is_ended = true;
                    let at = Instant::now() + self.back.link.quality.delay;
                    self.back.put(at, Item::End);
                }
                filled => self.back.send(filled),
            }
        }
        Ok(())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Linked<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { inner, slow } = self.get_mut();
        let Some(slow) = slow else { return Pin::new(inner).poll_read(context, buffer) };
        // An answer can't come before the question is there.
        if let Poll::Ready(Err(error)) = slow.poll_there(inner, context) {
            return Poll::Ready(Err(error));
        }
        slow.fill(inner, context)?;
        let count = match ready!(slow.back.poll_front(context)) {
            Item::Broken => return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            Item::End => return Poll::Ready(Ok(())),
            Item::Bytes(bytes) => {
                let (front, _) = bytes.as_slices();
                let taken = front.split_at(front.len().min(buffer.remaining())).0;
                buffer.put_slice(taken);
                taken.len()
            }
        };
        slow.back.took(count);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Linked<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let Self { inner, slow } = self.get_mut();
        let Some(slow) = slow else { return Pin::new(inner).poll_write(context, bytes) };
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        if slow.there.room() == 0 {
            ready!(slow.poll_there(inner, context))?;
        }
        let taken = bytes.split_at(bytes.len().min(slow.there.room())).0;
        slow.there.send(taken);
        Poll::Ready(Ok(taken.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { inner, slow } = self.get_mut();
        if let Some(slow) = slow {
            ready!(slow.poll_there(inner, context))?;
        }
        Pin::new(inner).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { inner, slow } = self.get_mut();
        if let Some(slow) = slow {
            ready!(slow.poll_there(inner, context))?;
        }
        Pin::new(inner).poll_shutdown(context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.slow.is_none() {
            return Pin::new(&mut self.get_mut().inner).poll_write_vectored(context, slices);
        }
        let first = slices.iter().find(|slice| !slice.is_empty()).map_or(&[][..], |slice| slice);
        self.poll_write(context, first)
    }

    fn is_write_vectored(&self) -> bool {
        self.slow.is_none() && self.inner.is_write_vectored()
    }
}

/// On its way in one direction at once: what TCP's window allows without scaling.
const WINDOW_BYTES: usize = 64 << 10;
const READ_BYTES: usize = 4 << 10;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

    use super::*;
    use crate::link::LinkQuality;

    const GOOD: LinkQuality = LinkQuality {
        delay: Duration::from_millis(100),
        jitter: Duration::ZERO,
        loss: 0.0,
        bytes_per_s: None,
    };

    fn pair(quality: LinkQuality, seed: u64) -> (Linked<DuplexStream>, DuplexStream) {
        let (near, far) = duplex(1 << 20);
        (Linked::new(near, Some(Link { quality, chance: Chance::new(seed, 1) })), far)
    }

    /// Sends so many bytes to a peer that sends them back; how long it took.
    async fn echo(quality: LinkQuality, seed: u64, count: usize) -> Duration {
        let (mut near, far) = pair(quality, seed);
        let (mut read, mut write) = tokio::io::split(far);
        let peer = tokio::spawn(async move { tokio::io::copy(&mut read, &mut write).await });
        let sent: Vec<u8> = (0..count).map(|n| n as u8).collect();
        let began = Instant::now();
        near.write_all(&sent).await.expect("written");
        near.flush().await.expect("flushed");
        let mut received = vec![0; count];
        near.read_exact(&mut received).await.expect("it comes back");
        assert!(sent == received, "in order, and all of it");
        peer.abort();
        began.elapsed()
    }

    fn is_about(span: Duration, expected_ms: u128) -> bool {
        // The timer counts whole milliseconds, upwards.
        (expected_ms..expected_ms + 4).contains(&span.as_millis())
    }

    #[tokio::test(start_paused = true)]
    async fn a_round_trip_takes_the_delay_twice_and_a_rate_its_time() {
        let took = echo(GOOD, 1, 10).await;
        assert!(is_about(took, 200), "{took:?}");
        let took = echo(LinkQuality { bytes_per_s: Some(1000), ..GOOD }, 1, 2000).await;
        assert!(is_about(took, 2 * (100 + 2000)), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn many_small_writes_share_the_delay_and_not_the_rate() {
        let (mut near, mut far) = pair(LinkQuality { bytes_per_s: Some(1000), ..GOOD }, 1);
        let began = Instant::now();
        for _ in 0..10 {
            near.write_all(&[7; 100]).await.expect("written");
        }
        near.flush().await.expect("flushed");
        far.read_exact(&mut [0; 1000]).await.expect("they come");
        assert!(is_about(began.elapsed(), 1100), "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn loss_and_jitter_cost_time_but_no_bytes_and_the_seed_decides() {
        let bad = LinkQuality { jitter: Duration::from_millis(500), loss: 0.2, ..GOOD };
        let took = echo(bad, 3, 200_000).await;
        assert!(took > Duration::from_secs(2), "{took:?}");
        assert_eq!(echo(bad, 3, 200_000).await, took);
        assert_ne!(echo(bad, 4, 200_000).await, took);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_lost_for_good_breaks_the_connection_after_a_while() {
        let (mut near, mut far) = pair(LinkQuality { loss: 1.0, ..GOOD }, 1);
        let began = Instant::now();
        near.write_all(b"hello").await.expect("the link takes it");
        let error = near.read(&mut [0; 9]).await.expect_err("nothing comes any more");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        assert!(began.elapsed() >= BROKEN_AFTER);
        assert_eq!(near.flush().await.expect_err("broken").kind(), io::ErrorKind::ConnectionReset);
        drop(near);
        assert_eq!(far.read(&mut [0; 9]).await.expect("closed"), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_window_is_on_its_way_at_most_and_the_end_comes_after_all_bytes() {
        let (mut near, mut far) = pair(GOOD, 1);
        assert_eq!(near.write(&[1; 100_000]).await.expect("written"), WINDOW_BYTES);
        let waiting = tokio::time::timeout(Duration::from_millis(50), near.write(&[1; 10])).await;
        assert!(waiting.is_err(), "the window is full until the first bytes are there");
        far.write_all(&[2; 5000]).await.expect("written");
        far.shutdown().await.expect("ended");
        let mut received = Vec::new();
        let began = Instant::now();
        near.read_to_end(&mut received).await.expect("read");
        assert_eq!(received, [2; 5000]);
        assert!(is_about(began.elapsed(), 100), "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_link_it_is_the_connection_itself() {
        let (near, mut far) = duplex(64);
        let mut near = Linked::new(near, None);
        let began = Instant::now();
        near.write_all(b"hello").await.expect("written");
        far.read_exact(&mut [0; 5]).await.expect("there");
        assert_eq!(began.elapsed(), Duration::ZERO);
    }
}
