//! PEM text (RFC 7468) taken apart into blocks whose contents are wiped when dropped.
//!
//! A bundle may hold a private key beside its certificates, so no reader of one keeps plain copies.

use pem::PemError;
use zeroize::Zeroizing;

/// One block of a PEM text.
pub(crate) struct Block {
    /// What stands after BEGIN.
    pub(crate) label: String,
    /// The octets.
    pub(crate) der: Zeroizing<Vec<u8>>,
    /// Whether it has the headers of RFC 1421 encryption, which OpenSSL wrote before PKCS#8.
    pub(crate) is_encrypted_by_headers: bool,
}

/// All blocks, in order; text around them is passed over.
pub(crate) fn blocks(text: &str) -> Result<Vec<Block>, PemError> {
    let blocks = pem::parse_many(text)?.into_iter().map(|block| Block {
        label: block.tag().to_owned(),
        is_encrypted_by_headers: block.headers().get("DEK-Info").is_some(),
        der: Zeroizing::new(block.into_contents()),
    });
    Ok(blocks.collect())
}
