//! Names in certificates and requests, turned into the words of policy.
//!
//! Text is accepted only where its reading is beyond doubt: UTF8String, the ASCII part of
//! PrintableString, IA5String, NumericString and TeletexString, and BMPString (RFC 5280 §4.1.2.4).
//! Anything else is malformed, so that no two readers can see two names.

use core::net::IpAddr;

use der::asn1::Any;
use der::{Tag, Tagged};
use muster_policy::enrol::{San, SubjectAttribute};
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::name::Name;

/// A name that can't be read; the text says which.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed name: {0}")]
pub(crate) struct MalformedName(pub(crate) String);

/// All attributes of a distinguished name, in order; those of one RDN one after the other.
pub(crate) fn subject_attributes(name: &Name) -> Result<Vec<SubjectAttribute>, MalformedName> {
    name.iter()
        .map(|attribute| {
            let oid = attribute.oid.to_string();
            let text = text(&attribute.value).ok_or_else(|| MalformedName(oid.clone()))?;
            Ok(SubjectAttribute { oid, text })
        })
        .collect()
}

/// The text of a string, whatever its type.
pub(crate) fn text(value: &Any) -> Option<String> {
    let octets = value.value();
    match value.tag() {
        Tag::Utf8String => core::str::from_utf8(octets).ok().map(str::to_owned),
        Tag::PrintableString | Tag::Ia5String | Tag::NumericString | Tag::TeletexString => {
            core::str::from_utf8(octets).ok().filter(|text| text.is_ascii()).map(str::to_owned)
        }
        Tag::BmpString => {
            let (pairs, rest) = octets.as_chunks::<2>();
            if !rest.is_empty() {
                return None;
            }
            // BMPString is UCS-2: `from_utf16` would also take surrogate pairs, which it has none of.
            let units: Vec<u16> = pairs.iter().map(|pair| u16::from_be_bytes(*pair)).collect();
            units.iter().map(|unit| char::from_u32(u32::from(*unit))).collect()
        }
        _ => None,
    }
}

/// The alternative names, in order.
pub(crate) fn sans(names: &[GeneralName]) -> Result<Vec<San>, MalformedName> {
    names.iter().map(san).collect()
}

fn san(name: &GeneralName) -> Result<San, MalformedName> {
    Ok(match name {
        GeneralName::DnsName(name) => San::Dns(name.as_str().to_ascii_lowercase()),
        GeneralName::Rfc822Name(name) => San::Email(name.as_str().to_owned()),
        GeneralName::UniformResourceIdentifier(name) => San::Uri(name.as_str().to_owned()),
        GeneralName::IpAddress(octets) => San::Ip(ip(octets.as_bytes())?.to_string()),
        GeneralName::DirectoryName(name) => San::Other(format!("directoryName:{name}")),
        GeneralName::OtherName(name) => San::Other(format!("otherName:{}", name.type_id)),
        GeneralName::RegisteredId(oid) => San::Other(format!("registeredID:{oid}")),
        GeneralName::EdiPartyName(_) => San::Other("ediPartyName".to_owned()),
    })
}

/// RFC 5280 §4.2.1.6: four octets or sixteen.
fn ip(octets: &[u8]) -> Result<IpAddr, MalformedName> {
    <[u8; 4]>::try_from(octets)
        .map(IpAddr::from)
        .or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from))
        .map_err(|_| MalformedName("iPAddress".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(tag: Tag, octets: &[u8]) -> Option<String> {
        text(&Any::new(tag, octets).expect("short"))
    }

    #[test]
    fn reads_every_string_type_that_has_one_reading() {
        assert_eq!(read(Tag::Utf8String, "zähler".as_bytes()).as_deref(), Some("zähler"));
        for tag in [Tag::PrintableString, Tag::Ia5String, Tag::TeletexString] {
            assert_eq!(read(tag, b"meter-1").as_deref(), Some("meter-1"));
            assert_eq!(read(tag, &[0xe4]), None);
        }
        assert_eq!(read(Tag::BmpString, &[0, b'm', 0, b'1']).as_deref(), Some("m1"));
    }

    #[test]
    fn refuses_text_that_is_not_what_its_type_says() {
        assert_eq!(read(Tag::Utf8String, &[0xff]), None);
        assert_eq!(read(Tag::BmpString, &[0, b'm', 0]), None);
        assert_eq!(read(Tag::BmpString, &[0xd8, 0, 0xdc, 0]), None);
        assert_eq!(read(Tag::OctetString, b"m"), None);
    }
}
