//! One visit to the HTTPS service: a GET, then a POST of the status, over one connection with the identity.
//!
//! The status line of the first answer is what shows that the identity was taken.

use core::fmt::{self, Write as _};
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

impl fmt::Display for Visit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answered { get, post } => write!(f, "answered with {get} and {post}"),
            Self::Broken(get) => write!(f, "broken after {get}"),
            Self::Refused => f.write_str("refused"),
            Self::Unanswered => f.write_str("unanswered"),
        }
    }
}

/// Visits, within the deadline of `transport`.
// Apart: off the stack while the connection is made.
#[inline(never)]
pub(crate) fn visit<T: Read + Write>(
    transport: &mut T,
    service: Endpoint<'_>,
    path: &str,
    status: &str,
) -> Visit {
    let mut memory = [0; ANSWER_BYTES];
    let (host, port, length) = (service.host, number(service.port.into()), number(status.len()));
    let get = match exchange(
        transport,
        &["GET ", path, VERSION_AND_HOST, host, ":", &port, "\r\n\r\n"],
        &mut memory,
    ) {
        Ok(get) => get,
        Err(Failed::Refused) => return Visit::Refused,
        Err(Failed::Other) => return Visit::Unanswered,
    };
    let post = [
        "POST ",
        path,
        VERSION_AND_HOST,
        host,
        ":",
        &port,
        "\r\nContent-Type: application/json\r\nContent-Length: ",
        &length,
        "\r\n\r\n",
        status,
    ];
    match exchange(transport, &post, &mut memory) {
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

/// One request, in its parts, and the status of its answer.
fn exchange<T: Read + Write>(transport: &mut T, request: &[&str], memory: &mut [u8]) -> Result<u16, Failed> {
    // TLS gathers them in one record.
    for part in request {
        transport.write_all(part.as_bytes())?;
    }
    transport.flush()?;
    let mut reader = ResponseReader::new();
    let mut piece = [0; PIECE_BYTES];
    loop {
        let read = transport.read(&mut piece)?;
        if read == 0 {
            return Err(Failed::Other);
        }
        match reader.feed(piece.get(..read).unwrap_or_default(), memory) {
            Ok(Progress::Complete { .. }) => return Ok(reader.head().status),
            Ok(Progress::Partial) => {}
            Err(_) => return Err(Failed::Other),
        }
    }
}

fn number(number: usize) -> String<NUMBER_BYTES> {
    let mut text = String::new();
    // A number of 32 bits always fits.
    let _ = write!(text, "{number}");
    text
}

/// For a whole visit, from the name to the second answer: MQTT waits for it.
pub(crate) const VISIT_TIMEOUT: Duration = Duration::from_secs(30);
const VERSION_AND_HOST: &str = " HTTP/1.1\r\nHost: ";
const NUMBER_BYTES: usize = 10;
/// Bytes that are taken from TLS at once.
const PIECE_BYTES: usize = 128;
/// Longest answer; a longer one counts as none.
const ANSWER_BYTES: usize = 1024;
