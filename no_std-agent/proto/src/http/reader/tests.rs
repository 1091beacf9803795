//! Responses as servers write them, and as attackers do.

extern crate std;
use std::string::String;
use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::http::{ContentType, RetryAfter};
use crate::time::UnixTime;

fn read(pieces: &[&[u8]], size: usize) -> Result<Option<(Head, Vec<u8>)>, HttpError> {
    let mut buffer = vec![0; size];
    let mut reader = ResponseReader::new();
    let mut last = None;
    for piece in pieces {
        if let Progress::Complete { body_len } = reader.feed(piece, &mut buffer)? {
            last = Some((*reader.head(), body_len));
        }
    }
    Ok(last.map(|(head, body_len)| (head, buffer[..body_len].to_vec())))
}

fn read_text(text: &str) -> Result<Option<(Head, Vec<u8>)>, HttpError> {
    read(&[text.as_bytes()], 4096)
}

fn error(text: &str) -> Option<HttpError> {
    read_text(text).err()
}

#[test]
fn the_status_is_known_as_soon_as_its_line_is_there() {
    let text = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 401 No\r\nContent-Length: 2\r\n\r\nno";
    let line_ends = text.windows(4).position(|w| w == b" No\r").expect("there") + 5;
    for cut in 0..text.len() {
        let (mut buffer, mut reader) = (vec![0; 256], ResponseReader::new());
        assert_eq!(reader.feed(&text[..cut], &mut buffer), Ok(Progress::Partial));
        assert_eq!(reader.status(&buffer), (cut >= line_ends).then_some(401), "{cut}");
    }
}

#[test]
fn a_response_reads_the_same_in_any_pieces() {
    let text = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
        Content-Type: application/pkcs7-mime; smime-type=certs-only\r\nMuster-Renewal: renew-at=@9\r\n\
        content-length: 5\r\n\r\nhello";
    let whole = read(&[text], 4096).expect("fine").expect("complete");
    assert_eq!(whole.0.status, 200);
    assert_eq!(whole.0.content_type, ContentType::Pkcs7);
    assert_eq!(whole.0.date, Some(UnixTime::from_secs(784_111_777)));
    assert_eq!(whole.0.steering.renew_at, Some(UnixTime::from_secs(9)));
    assert_eq!(whole.1, b"hello");
    for cut in 0..text.len() {
        assert_eq!(read(&[&text[..cut], &text[cut..]], 4096), Ok(Some(whole.clone())), "cut at {cut}");
    }
    let single: Vec<&[u8]> = text.chunks(1).collect();
    assert_eq!(read(&single, 4096), Ok(Some(whole)));
}

#[test]
fn chunks_extensions_and_trailers_are_taken_apart() {
    let text = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\nA\r\n0123456789\r\n0\r\nX: y\r\n\r\n";
    assert_eq!(read_text(text).expect("fine").expect("complete").1, b"abc0123456789");
    for text in ["Z\r\n", "\r\n", "3\r\nabcd", "3\n", "12345678\r\n", "3;\n", "0\r\nX: y\n"] {
        let all = String::from("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n") + text;
        assert_eq!(error(&all), Some(HttpError::Chunk), "{text:?}");
    }
}

#[test]
fn chunk_framing_is_on_a_budget() {
    let mut text = String::from("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n");
    for _ in 0..300 {
        text.push_str("X: y\r\n");
    }
    assert_eq!(error(&text), Some(HttpError::Chunk));
}

#[test]
fn what_could_be_read_in_two_ways_is_refused() {
    let with = |fields: &str| {
        let mut text = String::from("HTTP/1.1 200 OK\r\n");
        text.push_str(fields);
        text.push_str("\r\n\r\n");
        error(&text)
    };
    assert_eq!(with("Content-Length: 1\r\nContent-Length: 2"), Some(HttpError::Framing));
    assert_eq!(with("Content-Length: 1\r\nTransfer-Encoding: chunked"), Some(HttpError::Framing));
    assert_eq!(with("Transfer-Encoding: gzip, chunked"), Some(HttpError::Framing));
    assert_eq!(with("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"), Some(HttpError::Framing));
    assert_eq!(with("Content-Length: +1"), Some(HttpError::Framing));
    assert_eq!(with("Content-Length: 99999999999999999999999"), Some(HttpError::Framing));
    assert_eq!(with("Content-Length: 1\r\nContent-Encoding: gzip"), Some(HttpError::Framing));
    assert_eq!(with("Server: x"), Some(HttpError::Framing));
    assert_eq!(with("Content-Length : 1"), Some(HttpError::Field));
    assert_eq!(with("Content-Length: 1\r\n folded"), Some(HttpError::Field));
    assert_eq!(with("X: a\nContent-Length: 1"), Some(HttpError::Field));
    assert_eq!(with(": 1"), Some(HttpError::Field));
    assert_eq!(with("nonsense"), Some(HttpError::Field));
}

#[test]
fn other_protocols_are_refused() {
    for line in
        ["HTTP/2 200 OK", "HTTP/1.2 200 OK", "ICY 200 OK", "HTTP/1.1 600 X", "HTTP/1.1 20 X", "HTTP/1.1 2000"]
    {
        let mut text = String::from(line);
        text.push_str("\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(error(&text), Some(HttpError::StatusLine), "{line}");
    }
    assert_eq!(error("HTTP/1.1 101 Switching\r\n\r\n"), Some(HttpError::TooManyInterim));
    assert_eq!(error(&"HTTP/1.1 100 Continue\r\n\r\n".repeat(5)), Some(HttpError::TooManyInterim));
}

#[test]
fn bytes_behind_the_answer_are_refused() {
    assert_eq!(error("HTTP/1.1 204 No Content\r\n\r\nX"), Some(HttpError::Unexpected));
    assert_eq!(error("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nab"), Some(HttpError::Unexpected));
}

#[test]
fn a_short_buffer_is_an_error_at_every_size() {
    let text = String::from("HTTP/1.1 200 OK\r\nContent-Length: 60\r\n\r\n") + &"x".repeat(60);
    for size in 0..text.len() {
        let result = read(&[text.as_bytes()], size);
        if size < 39 {
            assert_eq!(result, Err(HttpError::HeadTooLarge), "{size}");
        } else if size < 60 {
            assert_eq!(result, Err(HttpError::BodyTooLarge), "{size}");
        } else {
            assert!(result.is_ok(), "{size}");
        }
    }
    let endless = String::from("HTTP/1.1 200 OK\r\n") + &"X: y\r\n".repeat(2000);
    assert_eq!(read(&[endless.as_bytes()], 100_000), Err(HttpError::HeadTooLarge));
}

#[test]
fn waiting_times_are_seconds_or_a_date() {
    let retry = |value: &str| {
        let mut text = String::from("HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\nRetry-After: ");
        text.push_str(value);
        text.push_str("\r\n\r\n");
        read_text(&text).expect("fine").expect("complete").0.retry_after
    };
    assert_eq!(retry("120"), Some(RetryAfter::Seconds(120)));
    assert_eq!(retry("99999999999999999999999999"), Some(RetryAfter::Seconds(u32::MAX)));
    let date = RetryAfter::At(UnixTime::from_secs(784_111_777));
    assert_eq!(retry("Sun, 06 Nov 1994 08:49:37 GMT"), Some(date));
    assert_eq!(retry("12x"), None);
    assert_eq!(retry("-1"), None);
    assert_eq!(retry(""), None);
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes: Vec<u8>, size in 0..200_usize) {
        let _ = read(&[&bytes], size);
    }

    #[test]
    fn any_body_arrives_as_it_was_chunked(body in prop::collection::vec(any::<u8>(), 1..300), step in 1..50_usize) {
        let mut text = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        for chunk in body.chunks(step) {
            text.extend_from_slice(std::format!("{:x}\r\n", chunk.len()).as_bytes());
            text.extend_from_slice(chunk);
            text.extend_from_slice(b"\r\n");
        }
        text.extend_from_slice(b"0\r\n\r\n");
        let (_, read) = read(&[&text], 4096).expect("fine").expect("complete");
        prop_assert_eq!(read, body);
    }
}
