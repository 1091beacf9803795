//! What a server would like to see in a request: CsrAttrs (RFC 7030 §4.5.2, RFC 8951 §3.5, RFC 9908).
//!
//! It is advice. Three things matter to this device: whether the TLS channel binding is wanted in
//! challengePassword, whether a key type is named and it is ours, and whether a signature algorithm is named and
//! it is ours. Everything else is checked for its syntax and passed over.

use crate::der::{DerError, Oid, Reader, Tag};
use crate::x509::SignatureAlgorithm;

/// Most entries; the longest published examples have about ten.
const MAX_ENTRIES: usize = 64;

/// A server's wishes, as far as this device can meet or must know them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CsrAttributes {
    /// challengePassword is listed: the server wants the channel binding.
    pub wants_binding: bool,
    /// A key type is named.
    pub key: Wish,
    /// A signature algorithm is named.
    pub signature: Wish,
}

/// How one named preference compares with what this device has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wish {
    /// P-256, or ecdsa-with-SHA256, is among what is asked for.
    Ours,
    /// Only something else is asked for.
    Theirs,
    /// Nothing is asked for.
    #[default]
    Unsaid,
}

impl Wish {
    fn add(&mut self, ours: bool) {
        match (ours, *self) {
            (true, _) => *self = Self::Ours,
            (false, Self::Unsaid) => *self = Self::Theirs,
            (false, _) => {}
        }
    }
}

impl CsrAttributes {
    /// Reads exactly one CsrAttrs; an empty sequence is one.
    ///
    /// # Errors
    /// [`DerError`] when it is not one, also when it has more than a bounded number of entries.
    pub fn parse(der: &[u8]) -> Result<Self, DerError> {
        let mut entries = Reader::only(der, Tag::SEQUENCE)?;
        let mut wishes = Self::default();
        for _ in 0..MAX_ENTRIES {
            if entries.is_empty() {
                return Ok(wishes);
            }
            if entries.peek() == Some(Tag::OID) {
                wishes.add_oid(entries.oid()?);
            } else {
                wishes.add_attribute(entries.sequence()?)?;
            }
        }
        entries.end()?;
        Ok(wishes)
    }

    fn add_oid(&mut self, id: Oid<'_>) {
        if id == Oid::CHALLENGE_PASSWORD {
            self.wants_binding = true;
        } else if let Some(algorithm) = SignatureAlgorithm::from_oid(id) {
            self.signature.add(algorithm == SignatureAlgorithm::EcdsaSha256);
        }
    }

    fn add_attribute(&mut self, mut attribute: Reader<'_>) -> Result<(), DerError> {
        let id = attribute.oid()?;
        let mut values = attribute.enter(Tag::SET)?;
        attribute.end()?;
        match id {
            Oid::EC_PUBLIC_KEY => {
                let is_any_curve = values.is_empty();
                while !values.is_empty() {
                    self.key.add(values.oid()? == Oid::SECP256R1);
                }
                self.key.add(is_any_curve);
            }
            Oid::RSA_ENCRYPTION => self.key.add(false),
            Oid::CHALLENGE_PASSWORD => self.wants_binding = true,
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_tried_with_four_clients_asks_for_what_we_have() {
        let der = [
            0x30, 0x21, 0x30, 0x15, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x31, 0x0a, 0x06,
            0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d,
            0x04, 0x03, 0x02,
        ];
        let wishes = CsrAttributes::parse(&der).expect("an example of the contract");
        assert_eq!(wishes, CsrAttributes { wants_binding: false, key: Wish::Ours, signature: Wish::Ours });
    }

    #[test]
    fn the_example_of_rfc_7030_wants_another_curve_and_the_binding() {
        // RFC 7030 §4.5.2, base64 decoded: secp384r1, challengePassword, ecdsa-with-SHA384, and two more.
        let der = [
            0x30, 0x41, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x07, 0x30, 0x12, 0x06,
            0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x31, 0x07, 0x06, 0x05, 0x2b, 0x81, 0x04, 0x00,
            0x22, 0x30, 0x16, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x0e, 0x31, 0x09,
            0x06, 0x07, 0x2b, 0x06, 0x01, 0x01, 0x01, 0x01, 0x16, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d,
            0x04, 0x03, 0x03,
        ];
        let wishes = CsrAttributes::parse(&der).expect("an example of the RFC");
        assert_eq!(wishes, CsrAttributes { wants_binding: true, key: Wish::Theirs, signature: Wish::Theirs });
    }

    #[test]
    fn no_wishes_are_fine_and_endless_ones_are_not() {
        assert_eq!(CsrAttributes::parse(&[0x30, 0x00]), Ok(CsrAttributes::default()));
        // 65 identifiers of one octet behind a header of three.
        let mut der = [0; 3 + 65 * 3];
        der[..3].copy_from_slice(&[0x30, 0x81, 0xc3]);
        for entry in der[3..].chunks_mut(3) {
            entry.copy_from_slice(&[0x06, 0x01, 0x2a]);
        }
        assert_eq!(CsrAttributes::parse(&der), Err(DerError));
    }
}
