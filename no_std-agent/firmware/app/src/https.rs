//! One visit to the HTTPS service: a GET, then a POST of the status, over one connection with the identity.
//!
//! The status line of the first answer is what shows that the identity was taken.

use core::fmt::Write as _;
use core::time::Duration;

use embedded_io::{Error, ErrorKind, Read, Write};
use heapless::String;
use muster_proto::http::{Progress, ResponseReader};

use crate::factory::Endpoint;

/// How a visit ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Visit {
    /// The statuses of both answers.
    Answered { get: u16, post: u16 },
    /// Only the first was answered.
    Broken(u16),
    /// The edge does not take the identity.
    Refused,
    /// Anything else before an answer.
    Unanswered,
}

/// Visits, within the deadline of `transport`. `memory` holds one answer.
// Apart: off the stack while the connection is made.
#[inline(never)]
pub(crate) fn visit<T: Read + Write>(
    transport: &mut T,
    service: Endpoint<'_>,
    path: &str,
    status: &str,
    memory: &mut [u8],
) -> Visit {
    let mut head = String::<HEAD_BYTES>::new();
    let Endpoint { host, port } = service;
    if write!(head, "GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n").is_err() {
        return Visit::Unanswered;
    }
    let get = match exchange(transport, &head, "", memory) {
        Ok(get) => get,
        Err(Failed::Refused) => return Visit::Refused,
        Err(Failed::Other) => return Visit::Unanswered,
    };
    head.clear();
    let written = write!(
        head,
        "POST {path} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        status.len()
    );
    if written.is_err() {
        return Visit::Broken(get);
    }
    match exchange(transport, &head, status, memory) {
        Ok(post) => Visit::Answered { get, post },
        Err(_) => Visit::Broken(get),
    }
}

enum Failed {
    Refused,
    Other,
}

impl<E: Error> From<E> for Failed {
    fn from(error: E) -> Self {
        match error.kind() {
            ErrorKind::PermissionDenied => Self::Refused,
            _ => Self::Other,
        }
    }
}

/// One request and the status of its answer.
fn exchange<T: Read + Write>(
    transport: &mut T,
    head: &str,
    body: &str,
    memory: &mut [u8],
) -> Result<u16, Failed> {
    transport.write_all(head.as_bytes())?;
    transport.write_all(body.as_bytes())?;
    transport.flush()?;
    let mut reader = ResponseReader::new();
    let mut piece = [0; PIECE_BYTES];
    loop {
        let read = transport.read(&mut piece)?;
        if read == 0 {
            return Err(Failed::Other);
        }
        match reader.feed(piece.get(..read).unwrap_or_default(), memory) {
            Ok(Progress::Complete { head, .. }) => return Ok(head.status),
            Ok(Progress::Partial) => {}
            Err(_) => return Err(Failed::Other),
        }
    }
}

/// For a whole visit, from the name to the second answer: MQTT waits for it.
pub(crate) const VISIT_TIMEOUT: Duration = Duration::from_secs(30);
/// A path of 200 bytes, a host of 253 and the field names.
const HEAD_BYTES: usize = 600;
/// Bytes that are taken from TLS at once.
const PIECE_BYTES: usize = 128;
/// Longest answer; a longer one counts as none.
pub const MEMORY_BYTES: usize = 1024;
