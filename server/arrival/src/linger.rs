//! Closing a connection without a reset.
//!
//! Who is answered before its request was read whole is still sending: a refusal needs no body. A socket that is
//! closed then answers what comes with a reset, and many a client tells of a broken pipe where it should tell of
//! the refusal. So this side is closed first, and what comes is read for a while and dropped (RFC 9112 §9.6).

use core::pin::Pin;
use core::task::{Context, Poll, ready};
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// After so much silence nothing is waited for any more.
const SILENCE_MAX: Duration = Duration::from_secs(1);
/// How long it may go on.
const TIME_MAX: Duration = Duration::from_secs(5);
/// How much is read and dropped.
const BYTES_MAX: usize = 1024 * 1024;
/// How much is read at once.
const PIECE_BYTES: usize = 4 * 1024;

/// Whether the peer may be in the midst of a body; shared by the connection and whoever reads its requests.
#[derive(Clone, Debug, Default)]
pub struct Sending(Arc<AtomicBool>);

impl Sending {
    /// Says so of the newest request: whether it has a body.
    pub fn set(&self, has_body: bool) {
        self.0.store(has_body, Ordering::Relaxed);
    }

    fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A stream whose shutdown waits for a peer that is still sending, for 5 s and 1 MiB at most.
#[derive(Debug)]
pub struct Lingering<S> {
    stream: S,
    sending: Sending,
    end: End,
}

#[derive(Debug)]
enum End {
    NotYet,
    Reading(Drain),
    Reached,
}

#[derive(Debug)]
struct Drain {
    bytes_left: usize,
    deadline: Instant,
    /// Ends with the silence, or at the deadline.
    pause: Pin<Box<Sleep>>,
}

impl<S> Lingering<S> {
    /// Wraps a stream; `sending` says at its shutdown whether to wait.
    pub const fn new(stream: S, sending: Sending) -> Self {
        Self { stream, sending, end: End::NotYet }
    }

    /// What says whether to wait.
    pub const fn sending(&self) -> &Sending {
        &self.sending
    }
}

impl Drain {
    fn new() -> Self {
        let deadline = Instant::now() + TIME_MAX;
        Self { bytes_left: BYTES_MAX, deadline, pause: Box::pin(tokio::time::sleep(SILENCE_MAX)) }
    }

    /// Ready when the peer has closed its side too, or is waited for no longer.
    fn poll<S: AsyncRead + Unpin>(&mut self, stream: &mut S, cx: &mut Context<'_>) -> Poll<()> {
        let mut piece = [0; PIECE_BYTES];
        while self.bytes_left > 0 {
            let mut piece = ReadBuf::new(&mut piece);
            match Pin::new(&mut *stream).poll_read(cx, &mut piece) {
                Poll::Ready(Ok(())) if !piece.filled().is_empty() => {
                    self.bytes_left = self.bytes_left.saturating_sub(piece.filled().len());
                    self.pause.as_mut().reset(self.deadline.min(Instant::now() + SILENCE_MAX));
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return self.pause.as_mut().poll(cx),
            }
        }
        Poll::Ready(())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Lingering<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Lingering<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if matches!(this.end, End::NotYet) {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
            this.end = if this.sending.get() { End::Reading(Drain::new()) } else { End::Reached };
        }
        if let End::Reading(drain) = &mut this.end {
            ready!(drain.poll(&mut this.stream, cx));
            this.end = End::Reached;
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    fn lingering(has_body: bool) -> (Lingering<DuplexStream>, DuplexStream) {
        let (near, far) = duplex(PIECE_BYTES);
        let sending = Sending::default();
        sending.set(has_body);
        (Lingering::new(near, sending), far)
    }

    /// A server that answers at once and closes; what comes of it for a client that sends its body slowly.
    async fn answered_early(has_body: bool) -> io::Result<String> {
        let socket = TcpListener::bind("127.0.0.1:0").await?;
        let mut client = TcpStream::connect(socket.local_addr()?).await?;
        let (stream, _) = socket.accept().await?;
        let sending = Sending::default();
        sending.set(has_body);
        let mut server = Lingering::new(stream, sending);
        let served = tokio::spawn(async move {
            server.write_all(b"refused").await?;
            server.shutdown().await
        });
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_millis(20)).await;
            client.write_all(b"a part of the body").await?;
        }
        let mut answer = String::new();
        client.read_to_string(&mut answer).await?;
        drop(client);
        served.await??;
        Ok(answer)
    }

    #[tokio::test]
    async fn who_is_answered_in_the_midst_of_its_body_gets_the_answer() {
        assert_eq!(answered_early(true).await.expect("no reset"), "refused");
        answered_early(false).await.expect_err("it is this that helps");
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_waited_for_without_a_body() {
        let (mut near, _far) = lingering(false);
        let began_at = Instant::now();
        near.shutdown().await.expect("closed");
        assert_eq!(began_at.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_peer_is_waited_for_a_second() {
        let (mut near, _far) = lingering(true);
        let began_at = Instant::now();
        near.shutdown().await.expect("closed");
        assert!((SILENCE_MAX..SILENCE_MAX * 2).contains(&began_at.elapsed()), "{:?}", began_at.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_drips_is_waited_for_no_longer_than_five_seconds() {
        let (mut near, mut far) = lingering(true);
        tokio::spawn(async move {
            while far.write_all(b"x").await.is_ok() {
                tokio::time::sleep(SILENCE_MAX / 2).await;
            }
        });
        let began_at = Instant::now();
        near.shutdown().await.expect("closed");
        assert!((TIME_MAX..TIME_MAX + SILENCE_MAX).contains(&began_at.elapsed()), "{:?}", began_at.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_floods_is_read_no_further_than_a_mebibyte() {
        let (mut near, mut far) = lingering(true);
        let flood = tokio::spawn(async move {
            let mut sent = 0;
            while far.write_all(&[0; PIECE_BYTES]).await.is_ok() {
                sent += PIECE_BYTES;
            }
            sent
        });
        near.shutdown().await.expect("closed");
        drop(near);
        let sent = flood.await.expect("no panic");
        assert!((BYTES_MAX..BYTES_MAX + 4 * PIECE_BYTES).contains(&sent), "{sent}");
    }
}
