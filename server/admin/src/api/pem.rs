//! Certificates, lists and requests as PEM text (RFC 7468).

/// One DER object as PEM, with LF line ends.
pub(crate) fn encode(label: &str, der: &[u8]) -> String {
    let config = ::pem::EncodeConfig::new().set_line_ending(::pem::LineEnding::LF);
    ::pem::encode_config(&::pem::Pem::new(label, der), config)
}

/// The first certificate of a text.
pub(crate) fn first(text: &str) -> Option<Vec<u8>> {
    let blocks = ::pem::parse_many(text).ok()?;
    blocks.into_iter().find(|block| block.tag() == "CERTIFICATE").map(::pem::Pem::into_contents)
}

/// Certificates, one after the other.
pub(crate) fn certificates<'a>(ders: impl IntoIterator<Item = &'a [u8]>) -> String {
    ders.into_iter().map(|der| encode("CERTIFICATE", der)).collect()
}
