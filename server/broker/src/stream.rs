//! Packets over a byte stream: cut out of the input as they complete, sent out of one buffer.
//!
//! * The fixed header is judged before its body is awaited: a packet above the limit ends the
//!   connection at its second to fifth octet, and no buffer grows by an announced length.
//! * Both buffers are freed when they are empty: a connection that is idle holds none.
//! * All state lives here and not in futures, so `event` may be dropped and called again.

use core::mem::MaybeUninit;
use core::pin::Pin;
use core::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Duration, Instant};

use crate::wire::{Broken, Code, Frame};

/// What a connection can be carried by.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Stream for S {}

/// A stream of packets.
#[derive(Debug)]
pub(crate) struct Packets<S> {
    stream: S,
    input: BytesMut,
    output: Vec<u8>,
    sent: usize,
    needs_flush: bool,
    max_bytes: usize,
    /// When the peer last took as much as it must, or output began to wait.
    moved_at: Instant,
    /// What it took since.
    moved: usize,
    /// When the peer last sent [`PROGRESS_BYTES`] octets, or took as many while it was not read.
    heard_at: Instant,
    /// What it sent since.
    heard: usize,
}

/// What happened on a stream.
#[derive(Debug)]
pub(crate) enum Event {
    /// The peer closed it.
    Closed,
    /// All output is gone.
    Drained,
    /// A packet came.
    Frame(Frame),
}

/// Whether packets are wanted now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    Paused,
    Wanted,
}

/// Why a stream can't go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StreamError {
    #[error(transparent)]
    Broken(#[from] Broken),
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// How much is read at one go, on the stack.
const READ_BYTES: usize = 4096;
/// Output beyond which a client gets no more messages, and is not read, until it took some.
pub(crate) const OUTPUT_HIGH_BYTES: usize = 32 * 1024;
/// How long a client may take for the next [`PROGRESS_BYTES`] of what waits for it.
pub(crate) const STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// What a client takes at least in that time: 34 octets in a second, below any link that carries TLS. Without
/// it, one octet now and then would hold a full buffer for ever. In the other direction, what it sends of a packet
/// before it counts as a sign of life.
const PROGRESS_BYTES: usize = 1024;
/// How long the last words may take, and the peer's close after them: less than the second after which the edge
/// closes what it has cut, so that the end is counted as what it was.
const FINISH_TIMEOUT: Duration = Duration::from_millis(800);
/// How much of what a peer sends after our last words is read: a few packets that crossed them.
const LINGER_BYTES: usize = 64 * 1024;
/// Buffers above this are given back when they are empty; smaller ones too when the stream is idle.
const KEEP_BYTES: usize = 512;

impl<S: Stream> Packets<S> {
    pub(crate) fn new(stream: S, max_bytes: u32) -> Self {
        Self {
            stream,
            input: BytesMut::new(),
            output: Vec::new(),
            sent: 0,
            needs_flush: false,
            max_bytes: usize::try_from(max_bytes).unwrap_or(usize::MAX),
            moved_at: Instant::now(),
            moved: 0,
            heard_at: Instant::now(),
            heard: 0,
        }
    }

    /// Takes packets of so many octets from now on.
    pub(crate) fn take_up_to(&mut self, max_bytes: u32) {
        self.max_bytes = usize::try_from(max_bytes).unwrap_or(usize::MAX);
    }

    /// Where packets are written to; they go out in the next [`Packets::event`].
    pub(crate) fn output(&mut self) -> &mut Vec<u8> {
        if self.output.is_empty() {
            self.moved_at = Instant::now();
            self.moved = 0;
        }
        &mut self.output
    }

    /// The next thing that happens. Cancel-safe.
    pub(crate) async fn event(&mut self, reading: Reading) -> Result<Event, StreamError> {
        core::future::poll_fn(|cx| self.poll_event(cx, reading)).await
    }

    /// The next packet, when it is all there already.
    pub(crate) fn next_frame(&mut self) -> Result<Option<Frame>, Broken> {
        cut_frame(&mut self.input, self.max_bytes)
    }

    /// The first octet of the next packet, which stays, when all of it is there within a time. Sends nothing.
    ///
    /// What is wrong with the stream is for [`Packets::event`] to say.
    pub(crate) async fn ahead(&mut self, wait: Duration) -> Option<u8> {
        let whole = core::future::poll_fn(|cx| {
            loop {
                match peek_frame(&self.input, self.max_bytes) {
                    Ok(Some(header)) => return Poll::Ready(Some(header.first)),
                    Ok(None) if matches!(ready!(self.poll_input(cx)), Ok(1..)) => {}
                    Ok(None) | Err(_) => return Poll::Ready(None),
                }
            }
        });
        tokio::time::timeout(wait, whole).await.ok().flatten()
    }

    /// Sends what waits and closes, for a moment at most.
    ///
    /// What the peer still sends is read and dropped until it closes too: a socket that is closed with input unread
    /// is reset, and takes the last words along; a WebSocket has a handshake of its own (RFC 6455 §7.1.1).
    pub(crate) async fn finish(self) {
        self.finish_within(FINISH_TIMEOUT).await;
    }

    /// The same with a time of its own.
    pub(crate) async fn finish_within(mut self, wait: Duration) {
        let (mut left, mut is_shut) = (LINGER_BYTES, false);
        let end = core::future::poll_fn(|cx| {
            ready!(self.poll_output(cx))?;
            if !is_shut {
                ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
                is_shut = true;
            }
            while left > 0 {
                self.input.clear();
                match ready!(self.poll_input(cx))? {
                    0 => break,
                    count => left = left.saturating_sub(count),
                }
            }
            Poll::Ready(Ok::<_, std::io::Error>(()))
        });
        // The peer may be gone or deaf: nothing hangs on its reading this.
        let _ = tokio::time::timeout(wait, end).await;
    }

    /// Octets that wait to be sent.
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.output.len().saturating_sub(self.sent)
    }

    /// When to give up on a client that takes nothing.
    pub(crate) fn stalled_at(&self) -> Option<Instant> {
        (self.waiting_bytes() > 0 || self.needs_flush).then(|| self.moved_at + STALL_TIMEOUT)
    }

    /// When the peer last sent a part of a packet that is worth the name, or took one while much waited for it: a large
    /// one takes its time on a slow link.
    pub(crate) const fn heard_at(&self) -> Instant {
        self.heard_at
    }

    fn poll_event(&mut self, cx: &mut Context<'_>, reading: Reading) -> Poll<Result<Event, StreamError>> {
        let waited = self.waiting_bytes() > 0 || self.needs_flush;
        match self.poll_output(cx) {
            Poll::Ready(Ok(())) if waited => return Poll::Ready(Ok(Event::Drained)),
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error.into())),
            Poll::Ready(Ok(())) | Poll::Pending => {}
        }
        if reading == Reading::Paused || self.waiting_bytes() > OUTPUT_HIGH_BYTES {
            return Poll::Pending;
        }
        loop {
            if let Some(frame) = cut_frame(&mut self.input, self.max_bytes)? {
                return Poll::Ready(Ok(Event::Frame(frame)));
            }
            if self.input.is_empty() {
                self.input = BytesMut::new();
            }
            if ready!(self.poll_input(cx))? == 0 {
                return Poll::Ready(Ok(Event::Closed));
            }
        }
    }

    fn poll_output(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        while let Some(rest) = self.output.get(self.sent..)
            && !rest.is_empty()
        {
            let count = ready!(Pin::new(&mut self.stream).poll_write(cx, rest))?;
            if count == 0 {
                return Poll::Ready(Err(std::io::ErrorKind::WriteZero.into()));
            }
            self.sent = self.sent.saturating_add(count);
            self.moved = self.moved.saturating_add(count);
            if self.moved >= PROGRESS_BYTES {
                self.moved_at = Instant::now();
                self.moved = 0;
                if self.waiting_bytes() > OUTPUT_HIGH_BYTES {
                    // It is not read meanwhile: what it takes is all the life that it can show.
                    self.heard_at = self.moved_at;
                }
            }
            self.needs_flush = true;
        }
        self.sent = 0;
        self.output.clear();
        if self.output.capacity() > KEEP_BYTES {
            self.output = Vec::new();
        }
        if self.needs_flush {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.needs_flush = false;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_input(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<usize>> {
        let mut octets = [MaybeUninit::uninit(); READ_BYTES];
        let mut buffer = ReadBuf::uninit(&mut octets);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
        self.input.extend_from_slice(buffer.filled());
        self.heard = self.heard.saturating_add(buffer.filled().len());
        if self.heard >= PROGRESS_BYTES {
            self.heard_at = Instant::now();
            self.heard = 0;
        }
        Poll::Ready(Ok(buffer.filled().len()))
    }
}

/// The header of a packet that is all there.
fn peek_frame(input: &[u8], max_bytes: usize) -> Result<Option<Header>, Broken> {
    let Some(header) = Header::read(input)? else { return Ok(None) };
    let length = header.octets.saturating_add(header.body);
    if length > max_bytes {
        return Err(Broken::new(Code::PACKET_TOO_LARGE, "a packet above the limit"));
    }
    Ok((input.len() >= length).then_some(header))
}

/// Cuts a whole packet off the input.
fn cut_frame(input: &mut BytesMut, max_bytes: usize) -> Result<Option<Frame>, Broken> {
    let Some(header) = peek_frame(input, max_bytes)? else { return Ok(None) };
    input.advance(header.octets);
    let body = input.split_to(header.body).freeze();
    Ok(Some(Frame { first: header.first, body, is_padded: header.is_padded }))
}

/// The whole packets at the begin of some octets.
pub(crate) fn cut_frames(octets: &[u8], max_bytes: usize) -> Vec<Frame> {
    let mut input = BytesMut::from(octets);
    core::iter::from_fn(|| cut_frame(&mut input, max_bytes).ok().flatten()).collect()
}

/// The fixed header, MQTT 5 §2.1.
struct Header {
    first: u8,
    octets: usize,
    body: usize,
    is_padded: bool,
}

impl Header {
    /// Reads it, if it is all there.
    fn read(input: &[u8]) -> Result<Option<Self>, Broken> {
        let Some((first, rest)) = input.split_first() else { return Ok(None) };
        let mut body = 0_usize;
        for (shift, octets, octet) in [0, 7, 14, 21]
            .into_iter()
            .zip(2_usize..)
            .zip(rest)
            .map(|((shift, octets), octet)| (shift, octets, *octet))
        {
            body |= usize::from(octet & 0x7f) << shift;
            if octet & 0x80 == 0 {
                let is_padded = octet == 0 && octets > 2;
                return Ok(Some(Self { first: *first, octets, body, is_padded }));
            }
        }
        if rest.len() >= 4 {
            return Err(Broken::malformed("a remaining length of more than four octets"));
        }
        Ok(None)
    }
}
