//! Distinguished names, times and serials as text, in the forms that OpenSSL prints, which origins and rules
//! know from other servers.
//!
//! Every name is printable ASCII, and says the same certificate apart from any other: what separates parts is
//! escaped inside them. In the legacy form OpenSSL itself is not so strict (`/`, `+` and `\` there).

use std::borrow::Cow;

use x509_parser::asn1_rs::{Tag, ToDer as _};
use x509_parser::time::ASN1Time;
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

/// OpenSSL's short names of what is found in names (RFC 4519, RFC 2985); of all else the number is shown.
const SHORT_NAMES: [(&str, &str); 27] = [
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("1.2.840.113549.1.9.1", "emailAddress"),
    ("1.2.840.113549.1.9.2", "unstructuredName"),
    ("1.3.6.1.4.1.311.60.2.1.1", "jurisdictionL"),
    ("1.3.6.1.4.1.311.60.2.1.2", "jurisdictionST"),
    ("1.3.6.1.4.1.311.60.2.1.3", "jurisdictionC"),
    ("2.5.4.3", "CN"),
    ("2.5.4.4", "SN"),
    ("2.5.4.5", "serialNumber"),
    ("2.5.4.6", "C"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.9", "street"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.12", "title"),
    ("2.5.4.13", "description"),
    ("2.5.4.15", "businessCategory"),
    ("2.5.4.17", "postalCode"),
    ("2.5.4.41", "name"),
    ("2.5.4.42", "GN"),
    ("2.5.4.43", "initials"),
    ("2.5.4.44", "generationQualifier"),
    ("2.5.4.46", "dnQualifier"),
    ("2.5.4.65", "pseudonym"),
    ("2.5.4.97", "organizationIdentifier"),
];

/// RFC 2253 §2: the most specific part first, joined by commas; what is side by side in one part by `+`.
pub(crate) fn rfc2253(name: &X509Name<'_>) -> String {
    let mut parts: Vec<String> = name
        .iter_rdn()
        .map(|part| {
            // OpenSSL turns the order inside of a part round as well.
            let mut texts: Vec<String> = part.iter().map(attribute_rfc2253).collect();
            texts.reverse();
            texts.join("+")
        })
        .collect();
    parts.reverse();
    parts.join(",")
}

fn attribute_rfc2253(attribute: &AttributeTypeAndValue<'_>) -> String {
    let number = attribute.attr_type().to_id_string();
    match (short_name(&number), text(attribute)) {
        (Some(name), Some(text)) => format!("{name}={}", escape_rfc2253(&text)),
        // §2.4: what has no name, or no string form, is `#` and its encoding.
        (name, _) => {
            let der = attribute.attr_value().to_der_vec().unwrap_or_default();
            format!("{}=#{}", name.unwrap_or(&number), hex::encode_upper(der))
        }
    }
}

/// The one-line form of old OpenSSL, in the order of the encoding.
pub(crate) fn legacy(name: &X509Name<'_>) -> String {
    let part = |part: Vec<String>| format!("/{}", part.join("+"));
    name.iter_rdn().map(|rdn| part(rdn.iter().map(attribute_legacy).collect())).collect()
}

fn attribute_legacy(attribute: &AttributeTypeAndValue<'_>) -> String {
    let number = attribute.attr_type().to_id_string();
    let value = text(attribute)
        .map_or(Cow::Borrowed(attribute.as_slice()), |text| Cow::Owned(text.into_owned().into_bytes()));
    format!("{}={}", short_name(&number).unwrap_or(&number), escape_legacy(&value))
}

fn short_name(number: &str) -> Option<&'static str> {
    SHORT_NAMES.iter().find(|(known, _)| *known == number).map(|(_, name)| *name)
}

/// The value of an attribute that is a string of any kind. T61 is read as Latin-1, as everybody does.
fn text<'a>(attribute: &'a AttributeTypeAndValue<'_>) -> Option<Cow<'a, str>> {
    let octets = attribute.as_slice();
    match attribute.attr_value().tag() {
        Tag::Ia5String | Tag::NumericString | Tag::PrintableString | Tag::Utf8String | Tag::VisibleString => {
            core::str::from_utf8(octets).ok().map(Cow::Borrowed)
        }
        Tag::T61String => Some(octets.iter().map(|octet| char::from(*octet)).collect()),
        Tag::BmpString => {
            let units = octets.chunks(2).map(|pair| match pair {
                [high, low] => Some(u16::from_be_bytes([*high, *low])),
                _ => None,
            });
            char::decode_utf16(units.collect::<Option<Vec<_>>>()?)
                .collect::<Result<_, _>>()
                .ok()
                .map(Cow::Owned)
        }
        _ => None,
    }
}

fn escape_rfc2253(text: &str) -> String {
    let last = text.chars().count().saturating_sub(1);
    let mut escaped = String::with_capacity(text.len());
    for (index, c) in text.chars().enumerate() {
        match c {
            ',' | '+' | '"' | '\\' | '<' | '>' | ';' => escaped.extend(['\\', c]),
            '#' if index == 0 => escaped.push_str("\\#"),
            ' ' if index == 0 || index == last => escaped.push_str("\\ "),
            ' '..='~' => escaped.push(c),
            other => {
                let mut octets = [0; 4];
                for octet in other.encode_utf8(&mut octets).bytes() {
                    escaped.push_str(&format!("\\{octet:02X}"));
                }
            }
        }
    }
    escaped
}

fn escape_legacy(value: &[u8]) -> String {
    let mut escaped = String::with_capacity(value.len());
    for octet in value {
        match octet {
            // Stricter than OpenSSL: each would begin or hide another attribute, and a name could be forged.
            b'/' | b'+' | b'\\' => escaped.push_str(&format!("\\x{octet:02X}")),
            b' '..=b'~' => escaped.push(char::from(*octet)),
            _ => escaped.push_str(&format!("\\x{octet:02X}")),
        }
    }
    escaped
}

/// Upper-case hex of the number, without the octet that only says that it is positive.
pub(crate) fn serial(octets: &[u8]) -> String {
    let number = match octets {
        [0, rest @ ..] if !rest.is_empty() => rest,
        all => all,
    };
    hex::encode_upper(number)
}

/// `Mar 21 13:35:00 2022 GMT`.
pub(crate) fn time(at: &ASN1Time) -> String {
    let at = at.to_datetime();
    let month = at.month().to_string();
    let month = month.get(..3).unwrap_or(&month);
    let (hour, minute, second) = at.to_hms();
    format!("{month} {:>2} {hour:02}:{minute:02}:{second:02} {} GMT", at.day(), at.year())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distinguished_names_stay_what_they_are_in_a_header() {
        assert_eq!(escape_rfc2253(" a,b=c\n\u{e9} "), "\\ a\\,b=c\\0A\\C3\\A9\\ ");
        assert_eq!(escape_rfc2253("#1"), "\\#1");
        assert_eq!(escape_legacy(b"a/CN=root\n+\\"), "a\\x2FCN=root\\x0A\\x2B\\x5C");
    }

    #[test]
    fn a_serial_is_its_number() {
        assert_eq!(serial(&[0, 0x9f, 0]), "9F00");
        assert_eq!(serial(&[7]), "07");
        assert_eq!(serial(&[0]), "00");
    }

    #[test]
    fn times_look_as_openssl_prints_them() {
        let at = ASN1Time::from_timestamp(1_647_869_700).expect("a time");
        assert_eq!(time(&at), "Mar 21 13:35:00 2022 GMT");
        let at = ASN1Time::from_timestamp(1_646_141_645).expect("a time");
        assert_eq!(time(&at), "Mar  1 13:34:05 2022 GMT");
    }
}
