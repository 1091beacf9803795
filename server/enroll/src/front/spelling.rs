//! The spelling of one response header.
//!
//! libest compares header names byte for byte and wants `WWW-Authenticate`; hyper can title-case
//! names and writes `Www-Authenticate`. RFC 9110 §5.1 makes names case-insensitive, so the right
//! spelling harms nobody. The wrapper swaps it in the head of a 401 answer, in place, in the first
//! write after a request; everything else passes through untouched.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const STATUS_LINES: [&[u8]; 2] = [b"HTTP/1.1 401 ", b"HTTP/1.0 401 "];
const WRITTEN: &[u8] = b"\r\nWww-Authenticate:";
const WANTED: &[u8] = b"\r\nWWW-Authenticate:";

/// A stream whose 401 answers spell `WWW-Authenticate` as RFC 9110 §11.6.1 prints it.
pub(crate) struct Spelling<S>(S);

impl<S> Spelling<S> {
    pub(crate) const fn new(stream: S) -> Self {
        Self(stream)
    }
}

/// The same bytes with the header respelled, or `None` where there is nothing to do.
///
/// Both spellings have one length, so a partial write keeps its meaning.
fn respell(bytes: &[u8]) -> Option<Vec<u8>> {
    if !STATUS_LINES.iter().any(|line| bytes.starts_with(line)) {
        return None;
    }
    let at = bytes.windows(WRITTEN.len()).position(|window| window == WRITTEN)?;
    let mut respelled = bytes.to_vec();
    respelled.get_mut(at..at + WANTED.len())?.copy_from_slice(WANTED);
    Some(respelled)
}

impl<S: AsyncRead + Unpin> AsyncRead for Spelling<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Spelling<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match respell(buf) {
            Some(respelled) => Pin::new(&mut self.0).poll_write(cx, &respelled),
            None => Pin::new(&mut self.0).poll_write(cx, buf),
        }
    }

    // Not vectored: head and body then leave in one write, thus in one TLS record, which
    // strongSwan needs of the head and likes of both.
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let first = bufs.iter().find(|buf| !buf.is_empty()).map_or(&[][..], |buf| &**buf);
        self.poll_write(cx, first)
    }

    fn is_write_vectored(&self) -> bool {
        false
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn respells_only_the_head_of_a_401() {
        let head = b"HTTP/1.1 401 Unauthorized\r\nWww-Authenticate: Basic realm=\"x\"\r\n\r\nbody";
        let respelled = respell(head).expect("a 401");
        assert_eq!(respelled.len(), head.len());
        assert!(respelled.windows(WANTED.len()).any(|window| window == WANTED));
        assert_eq!(respell(b"HTTP/1.1 200 OK\r\nWww-Authenticate: Basic\r\n\r\n"), None);
        assert_eq!(respell(b"HTTP/1.1 401 Unauthorized\r\n\r\n"), None);
        assert_eq!(respell(b""), None);
    }
}
