//! The body encodings of EST: base64 as RFC 8951 §3 reads it, with PEM armour tolerated.
//!
//! Requests: standard alphabet with padding, white space anywhere, whatever Content-Transfer-Encoding
//! says. Answers: one line for everybody, wrapped for the clients that can't read one line.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use muster_policy::identity::Fingerprint;
use muster_policy::reason::{Reason, Refusal};

/// Columns of a wrapped answer (RFC 2045 §6.8).
const WRAP_COLUMNS: usize = 76;
/// The two PEM labels under which clients send PKCS#10 (RFC 7468 §7).
const CSR_LABELS: [&str; 2] = ["CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"];
/// Where a refusal speaks of the body.
const FIELD: &str = "/body";

/// Whether the lines of an answer are broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lines {
    /// One line; strongSwan 5.9 reads nothing else.
    One,
    /// Lines of 76 columns; libest reads nothing else.
    Wrapped,
}

/// SHA-256 of a certificate.
pub fn fingerprint(der: &[u8]) -> Fingerprint {
    Fingerprint::from_bytes(crate::secret::sha256(der))
}

/// Reads the body of an enrolment request into DER.
///
/// # Errors
/// `BodyMalformed` for anything but base64 of something, or exactly one PEM block of a request.
pub fn decode_request(body: &[u8]) -> Result<Vec<u8>, Refusal> {
    if body.trim_ascii_start().starts_with(b"-----BEGIN ") {
        return decode_armour(body);
    }
    let compact: Vec<u8> =
        body.iter().copied().filter(|octet| !matches!(octet, b'\r' | b'\n' | b' ' | b'\t')).collect();
    if compact.is_empty() {
        return Err(Refusal::new(Reason::BodyMalformed, FIELD).with_detail("the body is empty"));
    }
    STANDARD.decode(compact).map_err(|error| Refusal::new(Reason::BodyMalformed, FIELD).with_detail(error))
}

fn decode_armour(body: &[u8]) -> Result<Vec<u8>, Refusal> {
    let malformed = |detail: &str| Refusal::new(Reason::BodyMalformed, FIELD).with_detail(detail);
    let mut blocks = pem::parse_many(body).map_err(|error| malformed(&error.to_string()))?;
    let (Some(block), true) = (blocks.pop(), blocks.is_empty()) else {
        return Err(malformed("the body is not exactly one PEM block"));
    };
    if !CSR_LABELS.contains(&block.tag()) {
        return Err(malformed("the PEM block is not a certificate request"));
    }
    Ok(block.into_contents())
}

/// Writes an answer's body.
pub(crate) fn encode_answer(der: &[u8], lines: Lines) -> String {
    match lines {
        Lines::One => {
            let mut text = String::with_capacity(base64::encoded_len(der.len(), true).unwrap_or(0) + 1);
            STANDARD.encode_string(der, &mut text);
            text.push('\n');
            text
        }
        Lines::Wrapped => {
            let text = STANDARD.encode(der);
            let mut wrapped = String::with_capacity(text.len() + text.len() / WRAP_COLUMNS * 2 + 2);
            let mut rest = text.as_str();
            while !rest.is_empty() {
                let (line, tail) = rest.split_at(rest.len().min(WRAP_COLUMNS));
                wrapped.push_str(line);
                wrapped.push_str("\r\n");
                rest = tail;
            }
            wrapped
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn reason(body: &[u8]) -> Reason {
        decode_request(body).expect_err("must be refused").reason
    }

    #[test]
    fn reads_white_space_anywhere() {
        assert_eq!(decode_request(b" A Q\r\nI\tD\n").expect("base64"), [1, 2, 3]);
    }

    #[test]
    fn refuses_other_alphabets_and_missing_padding() {
        for body in [&b""[..], b"\n", b"AQI-", b"AQ_D", b"AQ", b"AQID!", b"AQID=", b"AQ==AQ==", b"\xff\xfe"] {
            assert_eq!(reason(body), Reason::BodyMalformed, "{body:?}");
        }
    }

    #[test]
    fn reads_one_pem_block_under_either_label() {
        for label in CSR_LABELS {
            let body = format!("-----BEGIN {label}-----\nAQID\n-----END {label}-----\n");
            assert_eq!(decode_request(body.as_bytes()).expect("armour"), [1, 2, 3]);
            assert_eq!(reason((body.clone() + &body).as_bytes()), Reason::BodyMalformed);
        }
        let key = "-----BEGIN PRIVATE KEY-----\nAQID\n-----END PRIVATE KEY-----\n";
        assert_eq!(reason(key.as_bytes()), Reason::BodyMalformed);
        assert_eq!(reason(b"-----BEGIN "), Reason::BodyMalformed);
    }

    proptest! {
        #[test]
        fn reads_what_it_writes(der in prop::collection::vec(any::<u8>(), 1..600)) {
            for lines in [Lines::One, Lines::Wrapped] {
                let text = encode_answer(&der, lines);
                prop_assert_eq!(decode_request(text.as_bytes()).expect("own output"), der.clone());
            }
            prop_assert!(encode_answer(&der, Lines::Wrapped).lines().all(|line| line.len() <= WRAP_COLUMNS));
            prop_assert_eq!(encode_answer(&der, Lines::One).lines().count(), 1);
        }

        #[test]
        fn survives_any_body(body in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode_request(&body);
        }
    }
}
