//! How large the records may be that a TLS client takes, read from its hello (RFC 6066 §4).
//!
//! rustls hears max_fragment_length and does not tell. The hello itself is read by rustls alone; this is the one
//! thing that is read of it by hand, and a wrong reading could only change the size of records. Whatever has not
//! the form of a hello has no limit.

/// How large the plaintext of a record may be for a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FragmentLimit(u16);

impl FragmentLimit {
    /// The limit that the ClientHello at the start of these records asks for, if it does.
    pub fn of_hello(records: &[u8]) -> Option<Self> {
        let message = handshake_bytes(records);
        let mut rest = Octets(&message);
        // HandshakeType, length; legacy_version, random; then vectors (RFC 8446 §4.1.2).
        rest.skip(4 + 2 + 32)?;
        let session_id = rest.number(1)?;
        rest.skip(session_id)?;
        let cipher_suites = rest.number(2)?;
        rest.skip(cipher_suites)?;
        let compression_methods = rest.number(1)?;
        rest.skip(compression_methods)?;
        rest.number(2)?;
        loop {
            let (kind, length) = (rest.number(2)?, rest.number(2)?);
            let body = rest.take(length)?;
            if kind == MAX_FRAGMENT_LENGTH {
                return match body {
                    [code @ 1..=4] => Some(Self(256 << code)),
                    _ => None,
                };
            }
        }
    }

    /// What rustls calls the size of a fragment: the record's header counts.
    pub fn record_bytes(self) -> usize {
        // Five octets of header. The inner content type of TLS 1.3 is one more octet of plaintext,
        // which the extension counts and rustls does not.
        usize::from(self.0) + 5 - 1
    }
}

/// The contents of the handshake records at the start, joined.
fn handshake_bytes(records: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(records.len());
    let mut rest = Octets(records);
    while rest.number(1) == Some(CONTENT_TYPE_HANDSHAKE) {
        let Some(fragment) = rest.skip(2).and_then(|()| rest.number(2)).and_then(|length| rest.take(length))
        else {
            break;
        };
        message.extend_from_slice(fragment);
    }
    message
}

/// Octets read from the front, never beyond the end.
struct Octets<'a>(&'a [u8]);

impl<'a> Octets<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn skip(&mut self, length: usize) -> Option<()> {
        self.take(length).map(drop)
    }

    fn number(&mut self, octets: usize) -> Option<usize> {
        Some(self.take(octets)?.iter().fold(0, |number, octet| number << 8 | usize::from(*octet)))
    }
}

/// RFC 6066 §1.1.
const MAX_FRAGMENT_LENGTH: usize = 1;
/// RFC 8446 §5.1.
const CONTENT_TYPE_HANDSHAKE: usize = 22;

#[cfg(test)]
mod tests {
    use super::*;

    /// A hello in one record, with these extensions.
    fn hello(extensions: &[u8]) -> Vec<u8> {
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        // A session id, two suites, one compression method.
        body.extend([2, 9, 9, 0, 4, 0x13, 1, 0x13, 2, 1, 0, 0]);
        body.push(u8::try_from(extensions.len()).expect("short"));
        body.extend(extensions);
        let mut message = vec![1, 0, 0, u8::try_from(body.len()).expect("short")];
        message.extend(body);
        let mut record = vec![22, 3, 1, 0, u8::try_from(message.len()).expect("short")];
        record.extend(message);
        record
    }

    #[test]
    fn the_four_lengths_are_known_and_no_others() {
        let limit = |code| FragmentLimit::of_hello(&hello(&[0, 23, 0, 0, 0, 1, 0, 1, code]));
        let limits = [1, 2, 3, 4].map(|code| limit(code).map(|limit| limit.0));
        assert_eq!(limits, [Some(512), Some(1024), Some(2048), Some(4096)]);
        assert_eq!([0, 5, 255].map(limit), [None; 3]);
        assert_eq!(FragmentLimit::of_hello(&hello(&[0, 1, 0, 2, 1, 1])), None);
        assert_eq!(FragmentLimit::of_hello(&hello(&[])), None);
    }

    #[test]
    fn a_hello_that_is_cut_off_has_no_limit_and_is_no_panic() {
        let whole = hello(&[0, 1, 0, 1, 2]);
        for len in 0..whole.len() {
            assert_eq!(FragmentLimit::of_hello(&whole[..len]), None, "{len}");
        }
    }
}
