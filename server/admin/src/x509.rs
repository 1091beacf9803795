//! What of a certificate is told to clients: names of algorithms, identifiers, dates, names.
//!
//! Nothing is decided here: a certificate that can't be read has empty fields.

use muster_policy::identity::Serial;
use muster_policy::time::UnixTime;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{ExtendedKeyUsage, ParsedExtension};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::{SubjectPublicKeyInfo, X509Name};

/// What a certificate says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    /// `ECDSAWithSHA256` and the like.
    pub(crate) signature: String,
    /// Lower-case hex.
    pub(crate) ski: String,
    /// RFC 2253 §2.
    pub(crate) issuer: String,
    /// Decimal.
    pub(crate) serial_decimal: String,
    pub(crate) not_after: Option<UnixTime>,
    pub(crate) is_ca: bool,
    /// SubjectPublicKeyInfo, DER.
    pub(crate) spki_der: Vec<u8>,
}

impl Facts {
    /// Reads one certificate; none when it is none.
    pub(crate) fn of(der: &[u8]) -> Option<Self> {
        let (rest, certificate) = X509Certificate::from_der(der).ok()?;
        if !rest.is_empty() {
            return None;
        }
        let is_ca = certificate.basic_constraints().ok()?.is_some_and(|found| found.value.ca);
        Some(Self {
            signature: signature_name(&certificate.signature_algorithm.algorithm.to_id_string()),
            ski: ski(&certificate),
            issuer: rfc2253(certificate.issuer()),
            serial_decimal: certificate.tbs_certificate.serial.to_string(),
            not_after: Some(UnixTime::from_secs(certificate.validity().not_after.timestamp())),
            is_ca,
            spki_der: certificate.public_key().raw.to_vec(),
        })
    }

    /// Whether it is signed with SHA-1 or MD5.
    pub(crate) fn is_weakly_signed(&self) -> bool {
        self.signature.contains("SHA1") || self.signature.contains("MD5")
    }
}

/// What of a certificate a person reads on its page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Decoded {
    /// RFC 2253 §2.
    pub(crate) subject: String,
    /// Likewise.
    pub(crate) issuer: String,
    /// The kind of key, with its size in bits.
    pub(crate) key: String,
    /// `ECDSAWithSHA256` and the like.
    pub(crate) signature: String,
    /// Key usages (RFC 5280 §4.2.1.3), as text.
    pub(crate) usages: String,
    /// Extended key usages (RFC 5280 §4.2.1.12), as text.
    pub(crate) purposes: String,
}

impl Decoded {
    /// Reads the certificate of a PEM text; none when there is none.
    pub(crate) fn of_pem(text: &str) -> Option<Self> {
        let pem = ::pem::parse(text).ok()?;
        let (_, certificate) = X509Certificate::from_der(pem.contents()).ok()?;
        let usages = certificate.key_usage().ok()?.map(|found| found.value.to_string());
        let purposes = certificate.extended_key_usage().ok()?.map(|found| purposes(found.value));
        Some(Self {
            subject: rfc2253(certificate.subject()),
            issuer: rfc2253(certificate.issuer()),
            key: key_name(certificate.public_key()),
            signature: signature_name(&certificate.signature_algorithm.algorithm.to_id_string()),
            usages: usages.unwrap_or_default(),
            purposes: purposes.unwrap_or_default(),
        })
    }
}

/// The serial of a certificate that a CA issued, by the CA's name on it; else why not.
pub(crate) fn serial_under(der: &[u8], ca_der: &[u8]) -> Result<Serial, String> {
    let unreadable = || "it can't be read".to_owned();
    let (_, certificate) = X509Certificate::from_der(der).map_err(|_| unreadable())?;
    let (_, ca) = X509Certificate::from_der(ca_der).map_err(|_| unreadable())?;
    if certificate.issuer().as_raw() != ca.subject().as_raw() {
        return Err(format!("it was issued by {}, not by this CA", rfc2253(certificate.issuer())));
    }
    Serial::from_bytes(certificate.raw_serial()).map_err(|error| error.to_string())
}

fn purposes(found: &ExtendedKeyUsage<'_>) -> String {
    let named = [
        (found.any, "any"),
        (found.client_auth, "client authentication"),
        (found.server_auth, "server authentication"),
        (found.code_signing, "code signing"),
        (found.email_protection, "email protection"),
        (found.time_stamping, "time stamping"),
        (found.ocsp_signing, "OCSP signing"),
    ];
    let named = named.into_iter().filter(|(is_there, _)| *is_there).map(|(_, name)| name.to_owned());
    named.chain(found.other.iter().map(|oid| oid.to_id_string())).collect::<Vec<_>>().join(", ")
}

fn key_name(key: &SubjectPublicKeyInfo<'_>) -> String {
    match key.parsed() {
        Ok(PublicKey::EC(point)) => format!("ECDSA, {} bits", point.key_size()),
        Ok(PublicKey::RSA(rsa)) => format!("RSA, {} bits", rsa.key_size()),
        _ => signature_name(&key.algorithm.algorithm.to_id_string()),
    }
}

fn ski(certificate: &X509Certificate<'_>) -> String {
    let found = certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0),
        _ => None,
    });
    found.unwrap_or_default().iter().map(|octet| format!("{octet:02x}")).collect()
}

/// The names that Go gives algorithms.
fn signature_name(oid: &str) -> String {
    match oid {
        "1.2.840.113549.1.1.4" => "MD5WithRSA",
        "1.2.840.113549.1.1.5" => "SHA1WithRSA",
        "1.2.840.113549.1.1.11" => "SHA256WithRSA",
        "1.2.840.113549.1.1.12" => "SHA384WithRSA",
        "1.2.840.113549.1.1.13" => "SHA512WithRSA",
        "1.2.840.10045.4.1" => "ECDSAWithSHA1",
        "1.2.840.10045.4.3.2" => "ECDSAWithSHA256",
        "1.2.840.10045.4.3.3" => "ECDSAWithSHA384",
        "1.2.840.10045.4.3.4" => "ECDSAWithSHA512",
        "1.3.101.112" => "Ed25519",
        other => other,
    }
    .to_owned()
}

fn rfc2253(name: &X509Name<'_>) -> String {
    let mut parts: Vec<String> = name
        .iter_attributes()
        .map(|attribute| {
            let registry = x509_parser::objects::oid_registry();
            let key = x509_parser::objects::oid2abbrev(attribute.attr_type(), registry)
                .map_or_else(|_| attribute.attr_type().to_id_string(), str::to_owned);
            format!("{key}={}", escaped(attribute.as_str().unwrap_or_default()))
        })
        .collect();
    parts.reverse();
    parts.join(",")
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars().filter(|c| !c.is_control()) {
        if matches!(c, ',' | '+' | '"' | '\\' | '<' | '>' | ';') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_certificate_and_nothing_else() {
        let pem = ::pem::parse(include_str!("tests/data/maker-ca.pem")).expect("PEM");
        let facts = Facts::of(pem.contents()).expect("a certificate");
        assert!(facts.is_ca && facts.not_after.is_some() && !facts.is_weakly_signed());
        assert!(facts.issuer.contains("CN="), "{facts:?}");
        assert!(!facts.serial_decimal.is_empty() && facts.serial_decimal.bytes().all(|b| b.is_ascii_digit()));
        assert_eq!(Facts::of(b"x"), None);
        let longer: Vec<u8> = [pem.contents(), &[0]].concat();
        assert_eq!(Facts::of(&longer), None);
    }

    #[test]
    fn a_person_reads_what_a_certificate_says() {
        let decoded = Decoded::of_pem(include_str!("tests/data/maker-ca.pem")).expect("a certificate");
        assert!(decoded.subject.contains("CN=") && decoded.issuer.contains("CN="), "{decoded:?}");
        assert!(decoded.key.ends_with(" bits") && decoded.signature.contains("With"), "{decoded:?}");
        assert!(decoded.usages.contains("Key Cert Sign"), "{decoded:?}");
        assert_eq!(Decoded::of_pem("x"), None);
    }

    #[test]
    fn separators_in_names_are_escaped() {
        assert_eq!(escaped("a,CN=b\n"), "a\\,CN=b");
    }
}
