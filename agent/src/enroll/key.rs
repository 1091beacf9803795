//! Keys of the device: made here, used here, and taken over from files.

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use muster_proto::csr::P256Point;
use rustls_pki_types::PrivateKeyDer;
use zeroize::Zeroizing;

use crate::store::Key;

/// Makes a P-256 key; `None` when the system gives no random numbers.
pub(super) fn make() -> Option<(Key, P256Point)> {
    let document =
        EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new()).ok()?;
    let key = Key::new(Zeroizing::new(document.as_ref().to_vec()));
    let point = P256Point::new(pair_of(&key)?.public_key().as_ref())?;
    Some((key, point))
}

/// Signs with ECDSA over SHA-256; `None` when the key is not P-256 or no random numbers are had.
pub(super) fn sign(key: &Key, message: &[u8]) -> Option<Vec<u8>> {
    let signature = pair_of(key)?.sign(&SystemRandom::new(), message).ok()?;
    Some(signature.as_ref().to_vec())
}

/// A key from a file in the form in which it is kept; `None` when it is of no known kind.
pub(crate) fn adopt(key: &PrivateKeyDer<'_>) -> Option<Key> {
    let pkcs8 = match key {
        PrivateKeyDer::Pkcs8(der) => der.secret_pkcs8_der().to_vec(),
        PrivateKeyDer::Sec1(der) => {
            let pair =
                EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_ASN1_SIGNING, der.secret_sec1_der());
            pair.ok()?.to_pkcs8v1().ok()?.as_ref().to_vec()
        }
        PrivateKeyDer::Pkcs1(der) => {
            let pair = rsa::KeyPair::from_der(der.secret_pkcs1_der()).ok()?;
            AsDer::<Pkcs8V1Der<'_>>::as_der(&pair).ok()?.as_ref().to_vec()
        }
        _ => return None,
    };
    Some(Key::new(Zeroizing::new(pkcs8)))
}

fn pair_of(key: &Key) -> Option<EcdsaKeyPair> {
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, key.as_pkcs8()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_from_a_file_is_kept_as_pkcs8_whatever_form_it_came_in() {
        let (made, point) = make().expect("random numbers");
        let pkcs8 = PrivateKeyDer::try_from(made.as_pkcs8()).expect("a key");
        let taken = adopt(&pkcs8).expect("known");
        assert_eq!(pair_of(&taken).expect("P-256").public_key().as_ref(), point.as_bytes());
        assert!(sign(&taken, b"message").is_some());
    }
}
