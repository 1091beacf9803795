//! The seam to P-256 arithmetic: public keys, signatures, and the check of signatures.
//!
//! All that this crate does on the curve goes through [`Ec`], a reference that is called and not a type parameter: the
//! code above it is in the image once, whatever is below. A board names its backend with
//! [`KeyStore::ec`](crate::key::KeyStore::ec). Values are as hardware has them: numbers of 32 bytes, big-endian; an
//! element whose keys do not come out implements [`KeyStore`](crate::key::KeyStore) and here only the check.
//!
//! What the seam does not carry: embedded-tls 0.19 makes its ephemeral key and the shared secret (ECDHE, RFC 8446
//! §4.2.8.2) with the `p256` crate and asks nobody. Two multiplications of a handshake stay there, and the crate stays
//! in the image.

use ecdsa::hazmat::SignPrimitive;
use muster_proto::csr::P256Point;
use muster_proto::der::{Reader, Tag, Writer};
use muster_proto::x509::VerifyError;
use p256::ecdsa::signature::hazmat::PrehashVerifier;
use p256::ecdsa::{Signature, VerifyingKey};
use p256::elliptic_curve::sec1::ToEncodedPoint;
use p256::{FieldBytes, SecretKey};
use sha2::Sha256;

/// `r || s`.
pub type RawSignature = [u8; 64];

/// P-256 (FIPS 186-5) on a board.
pub trait Ec: Sync {
    /// The public key of `secret`; `None` when that is zero, or not below the order of the group.
    fn public(&self, secret: &[u8; 32]) -> Option<P256Point>;

    /// Signs a SHA-256 digest with ECDSA. The nonce must be from RFC 6979 or a sound generator; `None` when `secret`
    /// is none, or when it failed.
    fn sign(&self, secret: &[u8; 32], digest: &[u8; 32]) -> Option<RawSignature>;

    /// Checks an ECDSA signature over a SHA-256 digest. `point` is a key in SEC 1 form, as a peer sent it.
    ///
    /// # Errors
    /// [`VerifyError::Invalid`], also for a point off the curve and for numbers out of range.
    fn verify(&self, point: &[u8], digest: &[u8; 32], signature: &RawSignature) -> Result<(), VerifyError>;
}

/// The `p256` crate, on every processor. The same that embedded-tls links, so the curve's code is there once.
#[derive(Clone, Copy, Debug, Default)]
pub struct Portable;

impl Ec for Portable {
    fn public(&self, secret: &[u8; 32]) -> Option<P256Point> {
        let secret = SecretKey::from_slice(secret).ok()?;
        P256Point::new(secret.public_key().to_encoded_point(false).as_bytes())
    }

    /// Deterministic: a weak entropy source costs a key when it is made, not each time it signs. Not by `SigningKey`,
    /// which computes the public key first: as much work as the signature.
    fn sign(&self, secret: &[u8; 32], digest: &[u8; 32]) -> Option<RawSignature> {
        let secret = SecretKey::from_slice(secret).ok()?;
        let mut scalar = secret.to_nonzero_scalar();
        let signed = scalar.try_sign_prehashed_rfc6979::<Sha256>(&FieldBytes::from(*digest), &[]);
        zeroize::Zeroize::zeroize(&mut scalar);
        Some(signed.ok()?.0.to_bytes().into())
    }

    fn verify(&self, point: &[u8], digest: &[u8; 32], signature: &RawSignature) -> Result<(), VerifyError> {
        let signature = Signature::from_slice(signature).map_err(|_| VerifyError::Invalid)?;
        let key = VerifyingKey::from_sec1_bytes(point).map_err(|_| VerifyError::Invalid)?;
        key.verify_prehash(digest, &signature).map_err(|_| VerifyError::Invalid)
    }
}

/// Reads an `Ecdsa-Sig-Value` (RFC 3279 §2.2.3); `None` for other DER, and for numbers that are negative or longer
/// than 32 bytes.
pub(crate) fn from_der(der: &[u8]) -> Option<RawSignature> {
    let mut inside = Reader::only(der, Tag::SEQUENCE).ok()?;
    let mut signature = [0; 64];
    let (r, s) = signature.split_at_mut(32);
    for place in [r, s] {
        let number = match inside.integer().ok()? {
            [0, number @ ..] => number,
            [first, ..] if *first >= 0x80 => return None,
            number => number,
        };
        let start = place.len().checked_sub(number.len())?;
        place.get_mut(start..)?.copy_from_slice(number);
    }
    inside.end().ok()?;
    Some(signature)
}

/// Writes an `Ecdsa-Sig-Value` to the end of `place`, whose length is the longest that one can have.
pub(crate) fn to_der<'p>(signature: &RawSignature, place: &'p mut [u8; 72]) -> Option<&'p [u8]> {
    let (r, s) = signature.split_at(32);
    let mut writer = Writer::new(place);
    writer.nested(Tag::SEQUENCE, |numbers| {
        for number in [s, r] {
            let zeros = number.iter().take_while(|byte| **byte == 0).count().min(31);
            let number = number.get(zeros..).unwrap_or_default();
            numbers.nested(Tag::INTEGER, |content| {
                content.bytes(number);
                if number.first().is_some_and(|byte| *byte >= 0x80) {
                    content.bytes(&[0]);
                }
            });
        }
    });
    let written = writer.finish().ok()?;
    place.get(place.len() - written..)
}

#[cfg(test)]
mod tests {
    extern crate std;
    use p256::ecdsa::DerSignature;

    use super::*;

    #[test]
    fn signatures_pass_through_der_as_another_reader_has_them() {
        let mut numbers = [[0; 32], [0; 32], [0x7f; 32], [0xff; 32]];
        numbers[0][31] = 1;
        numbers[1][20] = 0x80;
        // The order begins with ff; a number below it.
        numbers[3][4..16].fill(0);
        for r in numbers {
            for s in numbers {
                let raw: RawSignature = core::array::from_fn(|at| if at < 32 { r[at] } else { s[at - 32] });
                let mut place = [0; 72];
                let der = to_der(&raw, &mut place).expect("fits");
                let theirs: DerSignature = Signature::from_slice(&raw).expect("in range").to_der();
                assert_eq!(der, theirs.as_bytes());
                assert_eq!(from_der(der), Some(raw));
            }
        }
    }

    #[test]
    fn other_der_is_no_signature() {
        let good = [0x30, 6, 2, 1, 1, 2, 1, 1];
        assert!(from_der(&good).is_some());
        for len in 0..good.len() {
            assert_eq!(from_der(&good[..len]), None);
        }
        let long = [&[0x30, 38, 2, 33, 1][..], &[0; 32], &[2, 1, 1]].concat();
        for bad in [
            &[0x30, 6, 2, 1, 1, 2, 1, 1, 0][..],
            &[0x30, 7, 2, 1, 1, 2, 1, 1, 0],
            &[0x30, 6, 2, 1, 0x81, 2, 1, 1],
            &[0x30, 7, 2, 2, 0, 1, 2, 1, 1],
            &[0x30, 3, 2, 1, 1],
            &[0x30, 5, 2, 0, 2, 1, 1],
            &long,
        ] {
            assert_eq!(from_der(bad), None, "{bad:02x?}");
        }
    }

    #[test]
    fn portable_signs_as_the_crate_does_and_refuses_what_is_no_key() {
        use p256::ecdsa::SigningKey;
        use p256::ecdsa::signature::hazmat::PrehashSigner;

        let (secret, digest) = ([7; 32], [9; 32]);
        let theirs: Signature =
            SigningKey::from_slice(&secret).expect("a key").sign_prehash(&digest).expect("signs");
        let ours = Portable.sign(&secret, &digest).expect("signs");
        assert_eq!(ours[..], theirs.to_bytes()[..]);
        let point = Portable.public(&secret).expect("a key");
        assert_eq!(Portable.verify(point.as_bytes(), &digest, &ours), Ok(()));
        assert_eq!(Portable.verify(point.as_bytes(), &[8; 32], &ours), Err(VerifyError::Invalid));
        assert_eq!(Portable.verify(&[4; 65], &digest, &ours), Err(VerifyError::Invalid));
        assert_eq!(Portable.verify(point.as_bytes(), &digest, &[0; 64]), Err(VerifyError::Invalid));
        for none in [[0; 32], [0xff; 32]] {
            assert_eq!((Portable.public(&none), Portable.sign(&none, &digest)), (None, None));
        }
    }
}
