//! MQTT over WebSocket (MQTT 5 §6): an upgraded stream as a byte stream.
//!
//! The edge answers the HTTP upgrade, with the subprotocol `mqtt`, and hands over what follows. Binary
//! messages are joined to one stream of octets, for a packet may span messages and a message packets.
//! Text closes the connection, as §6.0.0.2 demands. Messages and frames are bounded.

use core::pin::Pin;
use core::task::{Context, Poll, ready};
use std::io;

use bytes::{Buf, Bytes};
use futures_util::{Sink, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

/// Largest message of the peer. Clients put one packet in one message; larger ones can be split.
const MESSAGE_MAX_BYTES: usize = 1024 * 1024;
/// What the WebSocket codec reads at one go, and so what an idle connection holds.
const READ_BUFFER_BYTES: usize = 1024;
/// Largest part of the output that goes into one message.
const WRITE_MAX_BYTES: usize = 32 * 1024;

/// The octets inside a WebSocket.
#[derive(Debug)]
pub struct OctetStream<S> {
    socket: WebSocketStream<S>,
    /// What of the last message was not read yet.
    rest: Bytes,
}

/// Takes a stream whose HTTP upgrade was answered, server side.
///
/// The answer must name the subprotocol `mqtt`; a client that did not offer it is not for us.
pub async fn adapt<S: AsyncRead + AsyncWrite + Unpin>(upgraded: S) -> OctetStream<S> {
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(0)
        .max_write_buffer_size(2 * WRITE_MAX_BYTES)
        .max_message_size(Some(MESSAGE_MAX_BYTES))
        .max_frame_size(Some(MESSAGE_MAX_BYTES));
    let socket = WebSocketStream::from_raw_socket(upgraded, Role::Server, Some(config)).await;
    OctetStream { socket, rest: Bytes::new() }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for OctetStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            match ready!(Pin::new(&mut self.socket).poll_next(cx)) {
                Some(Ok(Message::Binary(octets))) => self.rest = octets,
                // Answers to pings go out with the next write or flush.
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Ok(Message::Close(_))) | None => return Poll::Ready(Ok(())),
                Some(Ok(Message::Text(_))) => {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "text")));
                }
                Some(Err(error)) => return Poll::Ready(Err(io_error(error))),
            }
        }
        let count = self.rest.len().min(buffer.remaining());
        buffer.put_slice(self.rest.get(..count).unwrap_or_default());
        self.rest.advance(count);
        if self.rest.is_empty() {
            self.rest = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for OctetStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        ready!(Pin::new(&mut self.socket).poll_ready(cx)).map_err(io_error)?;
        let part = octets.get(..octets.len().min(WRITE_MAX_BYTES)).unwrap_or_default();
        let message = Message::Binary(Bytes::copy_from_slice(part));
        Pin::new(&mut self.socket).start_send(message).map_err(io_error)?;
        Poll::Ready(Ok(part.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx).map_err(io_error)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match ready!(Pin::new(&mut self.socket).poll_close(cx)) {
            Ok(()) | Err(Error::ConnectionClosed | Error::AlreadyClosed) => Poll::Ready(Ok(())),
            Err(error) => Poll::Ready(Err(io_error(error))),
        }
    }
}

fn io_error(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        Error::ConnectionClosed | Error::AlreadyClosed => io::ErrorKind::BrokenPipe.into(),
        other => io::Error::new(io::ErrorKind::InvalidData, other),
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{SinkExt, StreamExt};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn packets_may_span_messages_and_messages_packets() {
        let (ours, theirs) = tokio::io::duplex(4096);
        let mut client = WebSocketStream::from_raw_socket(theirs, Role::Client, None).await;
        let mut octets = adapt(ours).await;
        client.send(Message::Binary(Bytes::from_static(b"ab"))).await.expect("sends");
        client.send(Message::Ping(Bytes::new())).await.expect("sends");
        client.send(Message::Binary(Bytes::from_static(b"cde"))).await.expect("sends");
        let mut read = [0; 5];
        octets.read_exact(&mut read).await.expect("reads");
        assert_eq!(&read, b"abcde");
        octets.write_all(b"xyz").await.expect("writes");
        octets.flush().await.expect("flushes");
        loop {
            match client.next().await.expect("a message").expect("sound") {
                Message::Binary(answer) => break assert_eq!(answer.as_ref(), b"xyz"),
                Message::Pong(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    #[tokio::test]
    async fn text_is_refused() {
        let (ours, theirs) = tokio::io::duplex(4096);
        let mut client = WebSocketStream::from_raw_socket(theirs, Role::Client, None).await;
        let mut octets = adapt(ours).await;
        client.send(Message::Text("hello".into())).await.expect("sends");
        assert!(octets.read_u8().await.is_err());
    }
}
