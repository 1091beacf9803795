//! DER elements as bytes: written around contents that are already DER, and split into their parts.
//!
//! Used where bytes of others must survive exactly (a name, a key, a whole certificate), so that
//! no decode and encode again can change them. What is read goes through the `der` crate, which
//! refuses every length that is not in its shortest form (X.690 §10.1).

use der::asn1::{AnyRef, ObjectIdentifier};
use der::{Decode, Reader, SliceReader, Tag, Tagged};

/// INTEGER.
pub(crate) const INTEGER: u8 = 0x02;
/// BIT STRING.
pub(crate) const BIT_STRING: u8 = 0x03;
/// OCTET STRING.
pub(crate) const OCTET_STRING: u8 = 0x04;
/// ENUMERATED.
pub(crate) const ENUMERATED: u8 = 0x0a;
/// OBJECT IDENTIFIER.
const OBJECT_IDENTIFIER: u8 = 0x06;
/// SEQUENCE.
pub(crate) const SEQUENCE: u8 = 0x30;
/// SET.
pub(crate) const SET: u8 = 0x31;
/// Context-specific, primitive, number 0.
pub(crate) const CONTEXT_0_PRIMITIVE: u8 = 0x80;
/// Context-specific, constructed, number 0.
pub(crate) const CONTEXT_0: u8 = 0xa0;
/// Context-specific, constructed, number 1.
pub(crate) const CONTEXT_1: u8 = 0xa1;

/// One element: the tag octet, the length in its shortest form, and the parts in order.
pub(crate) fn element(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    // Tag, up to 9 length octets, contents.
    let mut out = Vec::with_capacity(length.saturating_add(10));
    out.push(tag);
    match u8::try_from(length) {
        Ok(short) if short < 0x80 => out.push(short),
        _ => {
            let octets = length.to_be_bytes();
            let significant: Vec<u8> = octets.into_iter().skip_while(|octet| *octet == 0).collect();
            // At most 8 octets, so the sum stays below 0x89.
            out.push(0x80 | u8::try_from(significant.len()).unwrap_or(8));
            out.extend_from_slice(&significant);
        }
    }
    for part in parts {
        out.extend_from_slice(part);
    }
    out
}

/// A SET OF in DER order: by encoding, ascending (X.690 §11.6).
pub(crate) fn set_of(tag: u8, mut members: Vec<Vec<u8>>) -> Vec<u8> {
    members.sort_unstable();
    let parts: Vec<&[u8]> = members.iter().map(Vec::as_slice).collect();
    element(tag, &parts)
}

/// An OBJECT IDENTIFIER.
pub(crate) fn oid(identifier: &ObjectIdentifier) -> Vec<u8> {
    element(OBJECT_IDENTIFIER, &[identifier.as_bytes()])
}

/// A non-negative INTEGER from big-endian octets, in its shortest form (X.690 §8.3.2).
pub(crate) fn unsigned(octets: &[u8]) -> Vec<u8> {
    let start = octets.iter().position(|octet| *octet != 0).unwrap_or(octets.len());
    match octets.get(start..).unwrap_or_default() {
        [] => element(INTEGER, &[&[0]]),
        // A leading zero keeps it from being read as negative.
        negative @ [first, ..] if first & 0x80 != 0 => element(INTEGER, &[&[0], negative]),
        positive => element(INTEGER, &[positive]),
    }
}

/// A BIT STRING without unused bits.
pub(crate) fn bit_string(octets: &[u8]) -> Vec<u8> {
    element(BIT_STRING, &[&[0], octets])
}

/// The contents of the one SEQUENCE that `der` is; nothing may follow it.
pub(crate) fn sequence_contents(der: &[u8]) -> der::Result<&[u8]> {
    let any = AnyRef::from_der(der)?;
    any.tag().assert_eq(Tag::Sequence)?;
    Ok(any.value())
}

/// The members of a SEQUENCE, each with its tag and length.
pub(crate) fn split(der: &[u8]) -> der::Result<Vec<&[u8]>> {
    let mut reader = SliceReader::new(sequence_contents(der)?)?;
    let mut members = Vec::new();
    while !reader.is_finished() {
        members.push(reader.tlv_bytes()?);
    }
    Ok(members)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_take_their_shortest_form() {
        assert_eq!(element(SEQUENCE, &[&[0; 0x7f]])[..2], [0x30, 0x7f]);
        assert_eq!(element(SEQUENCE, &[&[0; 0x80]])[..3], [0x30, 0x81, 0x80]);
        assert_eq!(element(SEQUENCE, &[&[0; 0x100]])[..4], [0x30, 0x82, 0x01, 0x00]);
    }

    #[test]
    fn splits_what_it_writes() {
        let members = [element(INTEGER, &[&[5]]), element(SET, &[])];
        let whole = element(SEQUENCE, &[&members[0], &members[1]]);
        assert_eq!(split(&whole).expect("well-formed"), members);
        assert!(split(&whole[..whole.len() - 1]).is_err());
        assert!(split(&[whole.as_slice(), &[0]].concat()).is_err());
        // A length that could be shorter.
        assert!(split(&[0x30, 0x81, 0x00]).is_err());
    }

    #[test]
    fn integers_are_positive_and_short() {
        assert_eq!(unsigned(&[0, 0]), [2, 1, 0]);
        assert_eq!(unsigned(&[0, 0x7f]), [2, 1, 0x7f]);
        assert_eq!(unsigned(&[0x80]), [2, 2, 0, 0x80]);
    }

    #[test]
    fn sets_are_sorted_by_encoding() {
        let set = set_of(SET, vec![vec![0x02, 0x01, 0x09], vec![0x02, 0x01, 0x03]]);
        assert_eq!(set, [0x31, 0x06, 0x02, 0x01, 0x03, 0x02, 0x01, 0x09]);
    }
}
