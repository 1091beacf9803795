//! The certificate extensions that decide something here (RFC 5280 §4.2.1).
//!
//! Each is read completely, so a later question needs no further parsing that could fail. An unknown critical
//! extension refuses the certificate; that includes nameConstraints and critical policies, which this device does
//! not evaluate. An unknown extension that is not critical is skipped.

use super::{CertificateError, SubjectAltNames};
use crate::der::{DerError, Oid, Reader, Tag};

/// Most extensions in one certificate; real ones have about ten.
const MAX_EXTENSIONS: usize = 24;

/// One extension of a certificate or a request, as it is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extension<'a> {
    /// What it is.
    pub id: Oid<'a>,
    /// Whether it must be understood.
    pub critical: bool,
    /// The content of its OCTET STRING.
    pub value: &'a [u8],
}

impl<'a> Extension<'a> {
    /// Reads one `Extension`.
    ///
    /// # Errors
    /// [`DerError`] when it is not one, also when FALSE is written out (X.690 §11.5).
    pub fn read(reader: &mut Reader<'a>) -> Result<Self, DerError> {
        let mut inside = reader.sequence()?;
        let id = inside.oid()?;
        let critical = inside.peek() == Some(Tag::BOOLEAN);
        if critical && !inside.boolean()? {
            return Err(DerError);
        }
        let value = inside.value(Tag::OCTET_STRING)?;
        inside.end()?;
        Ok(Self { id, critical, value })
    }
}

/// basicConstraints (RFC 5280 §4.2.1.9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BasicConstraints {
    /// The subject is a CA.
    pub authority: bool,
    /// How many non-self-issued intermediates may follow below it.
    pub path_length: Option<u8>,
}

/// keyUsage (RFC 5280 §4.2.1.3): the first eight bits as the first byte of the BIT STRING.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyUsage(u8);

impl KeyUsage {
    /// Whether the key may sign in protocols such as TLS.
    #[must_use]
    pub const fn digital_signature(self) -> bool {
        self.0 & 0x80 != 0
    }

    /// Whether the key may sign certificates.
    #[must_use]
    pub const fn key_cert_sign(self) -> bool {
        self.0 & 0x04 != 0
    }
}

/// The extensions of one certificate that are understood here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extensions<'a> {
    /// basicConstraints.
    pub basic_constraints: Option<BasicConstraints>,
    /// keyUsage.
    pub key_usage: Option<KeyUsage>,
    /// subjectAltName, encoded; see [`Extensions::subject_alt_names`].
    pub subject_alt_name: Option<&'a [u8]>,
    extended_key_usage: Option<&'a [u8]>,
}

impl<'a> Extensions<'a> {
    /// Reads the `[3]` field of a TBSCertificate; absent means none.
    pub(super) fn read(tbs: &mut Reader<'a>) -> Result<Self, CertificateError> {
        let mut extensions = Self::default();
        if tbs.peek() != Some(Tag::context_constructed(3)) {
            return Ok(extensions);
        }
        let list = Reader::only(tbs.value(Tag::context_constructed(3))?, Tag::SEQUENCE)?;
        refuse_duplicates(list)?;
        let mut rest = list;
        while !rest.is_empty() {
            let extension = Extension::read(&mut rest)?;
            extensions.take(&extension).map_err(|error| match error {
                CertificateError::Malformed => CertificateError::Extension,
                other => other,
            })?;
        }
        Ok(extensions)
    }

    /// The names in subjectAltName; empty when there is none.
    #[must_use]
    pub fn subject_alt_names(&self) -> SubjectAltNames<'a> {
        SubjectAltNames::new(self.subject_alt_name.unwrap_or_default())
    }

    /// Whether extKeyUsage, if there is one, lists `purpose`. anyExtendedKeyUsage does not count.
    #[must_use]
    pub fn allows_purpose(&self, purpose: Oid<'_>) -> bool {
        let Some(list) = self.extended_key_usage else { return true };
        let mut reader = Reader::new(list);
        core::iter::from_fn(|| reader.oid().ok()).any(|id| id == purpose)
    }

    fn take(&mut self, extension: &Extension<'a>) -> Result<(), CertificateError> {
        let mut reader = Reader::new(extension.value);
        match extension.id {
            Oid::BASIC_CONSTRAINTS => self.basic_constraints = Some(read_basic_constraints(&mut reader)?),
            Oid::KEY_USAGE => self.key_usage = Some(read_key_usage(&mut reader)?),
            Oid::EXTENDED_KEY_USAGE => self.extended_key_usage = Some(read_purposes(&mut reader)?),
            Oid::SUBJECT_ALT_NAME => {
                self.subject_alt_name = Some(extension.value);
                SubjectAltNames::check(extension.value)?;
                return Ok(());
            }
            Oid::SUBJECT_KEY_IDENTIFIER | Oid::AUTHORITY_KEY_IDENTIFIER => return Ok(()),
            _ if extension.critical => return Err(CertificateError::UnknownCriticalExtension),
            _ => return Ok(()),
        }
        reader.end()?;
        Ok(())
    }
}

/// Compares each extension with those before it: quadratic, hence the bound on their number.
fn refuse_duplicates(list: Reader<'_>) -> Result<(), CertificateError> {
    let mut rest = list;
    let mut count = 0;
    while !rest.is_empty() {
        let extension = Extension::read(&mut rest)?;
        let mut earlier = list;
        for _ in 0..count {
            if Extension::read(&mut earlier)?.id == extension.id {
                return Err(CertificateError::DuplicateExtension);
            }
        }
        count += 1;
        if count > MAX_EXTENSIONS {
            return Err(CertificateError::TooLarge);
        }
    }
    Ok(())
}

fn read_basic_constraints(reader: &mut Reader<'_>) -> Result<BasicConstraints, DerError> {
    let mut inside = reader.sequence()?;
    let authority = inside.peek() == Some(Tag::BOOLEAN);
    if authority && !inside.boolean()? {
        return Err(DerError);
    }
    let path_length = if inside.is_empty() { None } else { Some(inside.small_integer()?) };
    inside.end()?;
    // RFC 5280 §4.2.1.9: pathLenConstraint only together with cA.
    if path_length.is_some() && !authority {
        return Err(DerError);
    }
    Ok(BasicConstraints { authority, path_length })
}

fn read_key_usage(reader: &mut Reader<'_>) -> Result<KeyUsage, DerError> {
    let (_, bits) = reader.bit_string()?;
    // RFC 5280 §4.2.1.3: at least one bit is set; there are nine of them. DER drops zero bits at the end (X.690
    // §11.2.2), but encoders in wide use keep the ninth; the meaning is the same.
    match bits {
        [first] | [first, 0x00 | 0x80] if bits.iter().any(|byte| *byte != 0) => Ok(KeyUsage(*first)),
        _ => Err(DerError),
    }
}

/// Checks the list of purposes and returns its content.
fn read_purposes<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], DerError> {
    let list = reader.value(Tag::SEQUENCE)?;
    let mut inside = Reader::new(list);
    loop {
        inside.oid()?;
        if inside.is_empty() {
            return Ok(list);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(encoded: &[u8]) -> Option<u8> {
        let mut reader = Reader::new(encoded);
        read_key_usage(&mut reader).ok().map(|usage| usage.0)
    }

    #[test]
    fn key_usage_is_read_with_and_without_its_ninth_bit_and_never_empty() {
        assert_eq!(usage(&[0x03, 0x02, 0x02, 0x04]), Some(0x04));
        // As rcgen 0.13 writes keyCertSign.
        assert_eq!(usage(&[0x03, 0x03, 0x07, 0x04, 0x00]), Some(0x04));
        assert_eq!(usage(&[0x03, 0x03, 0x07, 0x80, 0x80]), Some(0x80));
        for wrong in [
            &[0x03, 0x02, 0x00, 0x00][..],
            &[0x03, 0x03, 0x07, 0x00, 0x00],
            &[0x03, 0x03, 0x06, 0x80, 0x40],
            &[0x03, 0x04, 0x07, 0x80, 0x00, 0x00],
            &[0x03, 0x01, 0x00],
        ] {
            assert_eq!(usage(wrong), None, "{wrong:x?}");
        }
    }
}
