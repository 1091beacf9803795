//! One end of a carried MQTT connection: packets in, bounded bytes out.
//!
//! What waits here ([`Input::fill`], [`Output::flush`]) may be dropped and called again without loss, so that
//! one task can wait for all four halves of a pair of ends at once.

use std::io;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};

use super::packet::{Packet, PacketFault, PacketReader};

/// Bytes that wait to be sent to one end, above which nothing more is read for it. One packet may exceed it.
const QUEUE_MAX_BYTES: usize = 64 * 1024;

/// What is read at once.
const READ_BYTES: usize = 8 * 1024;

/// One end.
#[derive(Debug)]
pub(super) struct Peer<S> {
    pub(super) input: Input<S>,
    pub(super) output: Output<S>,
}

/// What one end sends.
#[derive(Debug)]
pub(super) struct Input<S> {
    stream: ReadHalf<S>,
    packets: PacketReader,
    is_ended: bool,
}

/// What is sent to one end.
#[derive(Debug)]
pub(super) struct Output<S> {
    stream: WriteHalf<S>,
    pub(super) queue: BytesMut,
    /// Written to the stream, perhaps still in its own buffer.
    is_unflushed: bool,
}

impl<S: AsyncRead + AsyncWrite> Peer<S> {
    pub(super) fn new(stream: S) -> Self {
        let (reading, writing) = tokio::io::split(stream);
        Self {
            input: Input { stream: reading, packets: PacketReader::new(), is_ended: false },
            output: Output { stream: writing, queue: BytesMut::new(), is_unflushed: false },
        }
    }
}

impl<S: AsyncRead> Input<S> {
    /// A whole packet that was received.
    pub(super) fn next_packet(&mut self) -> Result<Option<Packet>, PacketFault> {
        self.packets.next_packet()
    }

    /// Receive some bytes. Call it only when [`Self::next_packet`] found none, which bounds the buffer.
    pub(super) async fn fill(&mut self) -> io::Result<()> {
        let buffer = self.packets.buffer();
        buffer.reserve(READ_BYTES);
        if self.stream.read_buf(buffer).await? == 0 {
            self.is_ended = true;
        }
        Ok(())
    }

    /// Whether the other side sends no more.
    pub(super) fn is_ended(&self) -> bool {
        self.is_ended
    }
}

impl<S: AsyncWrite> Output<S> {
    /// Send all that is queued.
    pub(super) async fn flush(&mut self) -> io::Result<()> {
        while !self.queue.is_empty() {
            self.stream.write_buf(&mut self.queue).await?;
            self.is_unflushed = true;
        }
        self.stream.flush().await?;
        self.is_unflushed = false;
        Ok(())
    }

    /// Send what is queued and end the stream in order.
    pub(super) async fn close(&mut self) -> io::Result<()> {
        self.flush().await?;
        self.stream.shutdown().await
    }

    /// Whether a packet more may be queued.
    pub(super) fn has_room(&self) -> bool {
        self.queue.len() < QUEUE_MAX_BYTES
    }

    /// Whether [`Self::flush`] has something to do.
    pub(super) fn is_unsent(&self) -> bool {
        self.is_unflushed || !self.queue.is_empty()
    }
}
