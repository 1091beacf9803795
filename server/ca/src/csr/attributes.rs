//! The attributes of a request: what EST reads of them, and nothing else.
//!
//! An attribute or extension that occurs twice is refused: two readers could take another one each.
//! Unknown attributes and extensions are wishes that nobody grants; they are passed over.

use der::asn1::{Any, ObjectIdentifier};
use der::{Decode, Encode};
use muster_policy::enrol::San;
use muster_policy::reason::{Reason, Refusal};
use x509_cert::attr::{Attribute, Attributes as AttributeSet};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::request::ExtensionReq;

use crate::names;

/// Longest challengePassword: base64 of a 64-octet channel binding fits twice; RFC 2985 bounds it at 255.
const CHALLENGE_PASSWORD_MAX_BYTES: usize = 256;

/// RFC 2985 §5.4.1.
const CHALLENGE_PASSWORD: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.7");
/// RFC 2985 §5.4.2.
const EXTENSION_REQUEST: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.14");
/// RFC 6402 §2.8, id-cmc-changeSubjectName.
const CHANGE_SUBJECT_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.7.36");
/// RFC 7030 §4.4.1.1, id-aa-decryptKeyID.
const DECRYPT_KEY_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.16.2.37");
/// RFC 7030 §4.4.1.2, id-aa-asymmDecryptKeyID.
const ASYMMETRIC_DECRYPT_KEY_ID: ObjectIdentifier =
    ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.16.2.54");
/// RFC 5280 §4.2.1.6.
const SUBJECT_ALT_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.17");

/// Where a refusal speaks of the attributes.
const FIELD_ATTRIBUTES: &str = "/csr/attributes";
/// Where a refusal speaks of the challengePassword.
const FIELD_CHALLENGE: &str = "/csr/attributes/challengePassword";
/// Where a refusal speaks of the extensions.
const FIELD_EXTENSIONS: &str = "/csr/extensions";
/// Where a refusal speaks of alternative names.
const FIELD_SAN: &str = "/csr/extensions/subjectAltName";

/// What was found among the attributes.
#[derive(Default)]
pub(super) struct Attributes {
    pub(super) sans: Vec<San>,
    pub(super) changes_subject: bool,
    pub(super) challenge_password: Option<String>,
    pub(super) asks_encrypted_key: bool,
}

impl Attributes {
    pub(super) fn read(set: &AttributeSet) -> Result<Self, Refusal> {
        let mut found = Self::default();
        let mut seen: Vec<ObjectIdentifier> = Vec::with_capacity(set.len());
        for attribute in set.iter() {
            if seen.contains(&attribute.oid) {
                return Err(malformed(FIELD_ATTRIBUTES).with_detail(attribute.oid));
            }
            seen.push(attribute.oid);
            match attribute.oid {
                CHALLENGE_PASSWORD => found.challenge_password = Some(challenge_password(attribute)?),
                EXTENSION_REQUEST => found.sans = requested_sans(attribute)?,
                CHANGE_SUBJECT_NAME => found.changes_subject = true,
                DECRYPT_KEY_ID | ASYMMETRIC_DECRYPT_KEY_ID => found.asks_encrypted_key = true,
                _ => {}
            }
        }
        Ok(found)
    }
}

const fn malformed(field: &'static str) -> Refusal {
    Refusal::new(Reason::CsrMalformed, field)
}

/// RFC 2985 §5.4: both attributes are SINGLE VALUE TRUE.
fn single<'a>(attribute: &'a Attribute, field: &'static str) -> Result<&'a Any, Refusal> {
    match attribute.values.as_slice() {
        [value] => Ok(value),
        _ => Err(malformed(field).with_detail("not exactly one value")),
    }
}

fn challenge_password(attribute: &Attribute) -> Result<String, Refusal> {
    let value = single(attribute, FIELD_CHALLENGE)?;
    if value.value().len() > CHALLENGE_PASSWORD_MAX_BYTES {
        return Err(malformed(FIELD_CHALLENGE).with_detail("longer than 256 octets"));
    }
    names::text(value).ok_or_else(|| malformed(FIELD_CHALLENGE))
}

fn requested_sans(attribute: &Attribute) -> Result<Vec<San>, Refusal> {
    let value = single(attribute, FIELD_EXTENSIONS)?.to_der().map_err(|_| malformed(FIELD_EXTENSIONS))?;
    let extensions =
        ExtensionReq::from_der(&value).map_err(|error| malformed(FIELD_EXTENSIONS).with_detail(error))?.0;
    let mut sans = Vec::new();
    for (place, extension) in extensions.iter().enumerate() {
        if extensions.iter().take(place).any(|earlier| earlier.extn_id == extension.extn_id) {
            return Err(malformed(FIELD_EXTENSIONS).with_detail(extension.extn_id));
        }
        if extension.extn_id == SUBJECT_ALT_NAME {
            let names = SubjectAltName::from_der(extension.extn_value.as_bytes())
                .map_err(|error| malformed(FIELD_SAN).with_detail(error))?;
            sans = names::sans(&names.0)
                .map_err(|found| Refusal::new(Reason::NameMalformed, FIELD_SAN).with_detail(found.0))?;
        }
    }
    Ok(sans)
}
