//! One request over an open connection, and its whole answer: HTTP/1.1, with nothing kept between two.
//!
//! Memory for an idle connection is what matters here, so nothing is buffered beyond an exchange.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::reason::Reason;
use crate::tls::Stream;

/// Sends a GET and reads its answer; the status.
pub(super) async fn get(stream: &mut Stream, host: &str, path: &str) -> Result<u16, Reason> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: muster-sim\r\n\r\n");
    stream.write_all(request.as_bytes()).await.map_err(|error| Reason::of_io(&error))?;
    stream.flush().await.map_err(|error| Reason::of_io(&error))?;
    read_answer(stream).await
}

/// The status of an answer, once all of it was read.
async fn read_answer(stream: &mut Stream) -> Result<u16, Reason> {
    let mut bytes = Vec::with_capacity(READ_BYTES);
    loop {
        read_more(stream, &mut bytes).await?;
        if let Some((status, head_len, body)) = head(&bytes)? {
            // 1xx come before the answer itself.
            if status < 200 {
                bytes.drain(..head_len);
                continue;
            }
            bytes.drain(..head_len.min(bytes.len()));
            skip_body(stream, bytes, body).await?;
            return Ok(status);
        }
        if bytes.len() > MAX_HEAD_BYTES {
            return Err(Reason::BadAnswer);
        }
    }
}

/// How a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Body {
    Chunked,
    Length(u64),
}

/// Status, length of the head, and body of an answer; `None` while the head is not whole.
fn head(bytes: &[u8]) -> Result<Option<(u16, usize, Body)>, Reason> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut answer = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(head_len) = answer.parse(bytes).map_err(|_| Reason::BadAnswer)? else {
        return Ok(None);
    };
    let status = answer.code.ok_or(Reason::BadAnswer)?;
    let field = |name: &str| answer.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name));
    let body = if matches!(status, 204 | 304) || status < 200 {
        Body::Length(0)
    } else if field("transfer-encoding").is_some() {
        Body::Chunked
    } else {
        let length = field("content-length")
            .and_then(|field| std::str::from_utf8(field.value).ok()?.trim().parse().ok());
        // A body that ends with the connection would end what is measured.
        Body::Length(length.ok_or(Reason::BadAnswer)?)
    };
    Ok(Some((status, head_len, body)))
}

async fn skip_body(stream: &mut Stream, mut bytes: Vec<u8>, body: Body) -> Result<(), Reason> {
    match body {
        Body::Length(length) => {
            let mut left = length.saturating_sub(bytes.len() as u64);
            while left > 0 {
                bytes.clear();
                left = left.saturating_sub(read_more(stream, &mut bytes).await? as u64);
            }
            Ok(())
        }
        Body::Chunked => loop {
            match httparse::parse_chunk_size(&bytes).map_err(|_| Reason::BadAnswer)? {
                httparse::Status::Complete((line, 0)) => {
                    return skip(stream, &mut bytes, line as u64 + 2).await;
                }
                httparse::Status::Complete((line, size)) => {
                    skip(stream, &mut bytes, size.saturating_add(line as u64 + 2)).await?;
                }
                httparse::Status::Partial => {
                    read_more(stream, &mut bytes).await?;
                }
            }
        },
    }
}

async fn skip(stream: &mut Stream, bytes: &mut Vec<u8>, mut count: u64) -> Result<(), Reason> {
    while count > bytes.len() as u64 {
        count -= bytes.len() as u64;
        bytes.clear();
        read_more(stream, bytes).await?;
    }
    bytes.drain(..usize::try_from(count).unwrap_or(bytes.len()));
    Ok(())
}

async fn read_more(stream: &mut Stream, bytes: &mut Vec<u8>) -> Result<usize, Reason> {
    bytes.reserve(READ_BYTES);
    match stream.read_buf(bytes).await {
        Ok(0) => Err(Reason::Closed),
        Ok(len) => Ok(len),
        Err(error) => Err(Reason::of_io(&error)),
    }
}

const READ_BYTES: usize = 2048;
const MAX_HEAD_BYTES: usize = 32 << 10;
const MAX_FIELDS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_read_as_they_come() {
        let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
        assert_eq!(head(whole), Ok(Some((200, whole.len() - 5, Body::Length(5)))));
        assert_eq!(head(b"HTTP/1.1 200 OK\r\nContent-"), Ok(None));
        let chunked = head(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").expect("an answer");
        assert_eq!(chunked.map(|(_, _, body)| body), Some(Body::Chunked));
        assert_eq!(head(b"SSH-2.0-OpenSSH\r\n\r\n"), Err(Reason::BadAnswer));
        assert_eq!(head(b"HTTP/1.1 200 OK\r\n\r\n"), Err(Reason::BadAnswer));
    }
}
