//! From the DER of a verified leaf to the names of its holder.
//!
//! One parser reads certificates for identity, and what it can't read is refused. Every name is
//! read: the common name must be one device id, and no SPIFFE id of the account's trust domain may
//! say otherwise. The values are what policy goes by; nothing compares distinguished names.

use muster_policy::identity::{Fingerprint, Serial};
use muster_policy::name::{DeviceId, TrustDomain};
use muster_policy::reason::Reason;
use muster_policy::time::UnixTime;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;

/// The largest RSA key that is worked with; Go stops at 8192 bits, and devices have 2048 to 4096.
const RSA_MAX_BITS: usize = 4096;
/// Names in one certificate; device certificates have one to three.
const SAN_MAX_NAMES: usize = 64;
/// SPIFFE-ID §2: the scheme.
const SPIFFE_SCHEME: &str = "spiffe://";

/// Who a leaf names, and until when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// Its serial number.
    pub serial: Serial,
    /// SHA-256 of the DER.
    pub fingerprint: Fingerprint,
    /// The device it was issued to.
    pub device: DeviceId,
    /// Its first second.
    pub not_before: UnixTime,
    /// Its last second.
    pub not_after: UnixTime,
}

/// Reads the leaf of a device of the account with this trust domain.
///
/// # Errors
/// [`Reason::IdentityMalformed`], [`Reason::IdentityAmbiguous`], [`Reason::CertificateUnfit`] when it
/// is not for client authentication, or [`Reason::ChainExcessive`] when its key is too long.
pub fn read_leaf(der: &[u8], trust_domain: &TrustDomain) -> Result<Leaf, Reason> {
    let certificate = parse(der)?;
    key_within_bounds(&certificate)?;
    Leaf::of(&certificate, der, trust_domain)
}

impl Leaf {
    /// Reads a parsed leaf; `der` is what it was parsed from.
    pub(crate) fn of(
        certificate: &X509Certificate<'_>,
        der: &[u8],
        trust_domain: &TrustDomain,
    ) -> Result<Self, Reason> {
        for_client_authentication(certificate)?;
        let device = common_name(certificate)?;
        let alternative = certificate.subject_alternative_name().map_err(|_| Reason::IdentityMalformed)?;
        if let Some(names) = alternative {
            agree(&names.value.general_names, &device, trust_domain)?;
        }
        let validity = certificate.validity();
        Ok(Self {
            serial: Serial::from_bytes(certificate.raw_serial()).map_err(|_| Reason::IdentityMalformed)?,
            fingerprint: fingerprint(der),
            device,
            not_before: UnixTime::from_secs(validity.not_before.timestamp()),
            not_after: UnixTime::from_secs(validity.not_after.timestamp()),
        })
    }
}

/// SHA-256 of a certificate.
pub(crate) fn fingerprint(der: &[u8]) -> Fingerprint {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, der);
    // The digest of SHA-256 has 32 octets, so nothing is cut or padded.
    let mut octets = [0; 32];
    octets.iter_mut().zip(digest.as_ref()).for_each(|(octet, value)| *octet = *value);
    Fingerprint::from_bytes(octets)
}

/// One whole certificate and nothing behind it.
pub(crate) fn parse(der: &[u8]) -> Result<X509Certificate<'_>, Reason> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(Reason::IdentityMalformed),
    }
}

/// Refuses keys that are made to cost time.
pub(crate) fn key_within_bounds(certificate: &X509Certificate<'_>) -> Result<(), Reason> {
    match certificate.public_key().parsed() {
        Ok(PublicKey::RSA(key)) if key.key_size() > RSA_MAX_BITS => Err(Reason::ChainExcessive),
        Ok(_) => Ok(()),
        Err(_) => Err(Reason::IdentityMalformed),
    }
}

/// RFC 5280 §4.2.1.12: the purpose must be named; a leaf for anything, or for nothing said, is not
/// for this. §4.2.1.3: and where key usages are limited, signing is among them.
fn for_client_authentication(certificate: &X509Certificate<'_>) -> Result<(), Reason> {
    let purposes = certificate.extended_key_usage().map_err(|_| Reason::IdentityMalformed)?;
    let usages = certificate.key_usage().map_err(|_| Reason::IdentityMalformed)?;
    let named = purposes.is_some_and(|purposes| purposes.value.client_auth);
    let signs = usages.is_none_or(|usages| usages.value.digital_signature());
    if named && signs { Ok(()) } else { Err(Reason::CertificateUnfit) }
}

fn common_name(certificate: &X509Certificate<'_>) -> Result<DeviceId, Reason> {
    let mut names = certificate.subject().iter_common_name();
    let name = names.next().ok_or(Reason::IdentityMalformed)?;
    if names.next().is_some() {
        return Err(Reason::IdentityAmbiguous);
    }
    let text = name.as_str().map_err(|_| Reason::IdentityMalformed)?;
    text.parse().map_err(|_| Reason::IdentityMalformed)
}

/// Reads every alternative name; one that can't be read spoils the certificate.
fn agree(names: &[GeneralName<'_>], device: &DeviceId, trust_domain: &TrustDomain) -> Result<(), Reason> {
    if names.len() > SAN_MAX_NAMES {
        return Err(Reason::ChainExcessive);
    }
    let mut spiffe_ids = 0;
    for name in names {
        match name {
            GeneralName::Invalid(..) => return Err(Reason::IdentityMalformed),
            GeneralName::URI(uri) if is_spiffe(uri) => {
                spiffe_ids += 1;
                // X509-SVID §2: one SPIFFE id and no more.
                if spiffe_ids > 1 || contradicts(uri, device, trust_domain) {
                    return Err(Reason::IdentityAmbiguous);
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn is_spiffe(uri: &str) -> bool {
    uri.get(..SPIFFE_SCHEME.len()).is_some_and(|scheme| scheme.eq_ignore_ascii_case(SPIFFE_SCHEME))
}

/// Whether an id of the account's trust domain names anything but the device, or an id could be taken for one:
/// SPIFFE-ID §2.1 has no user, port or escapes, which others may read past. The ids of other trust domains are
/// a matter of who put them there.
fn contradicts(uri: &str, device: &DeviceId, trust_domain: &TrustDomain) -> bool {
    let authority =
        uri.get(SPIFFE_SCHEME.len()..).and_then(|rest| rest.split('/').next()).unwrap_or_default();
    let authority = authority.trim_end_matches('.').to_ascii_lowercase();
    let other = authority.parse().ok().filter(|domain: &TrustDomain| domain != trust_domain);
    other.is_none() && uri != trust_domain.spiffe_id(device)
}

#[cfg(test)]
mod tests {
    use rcgen::{
        CertificateParams, DistinguishedName, DnType, DnValue, ExtendedKeyUsagePurpose, KeyPair,
        KeyUsagePurpose, SanType,
    };

    use super::*;

    fn domain() -> TrustDomain {
        "fleet.example".parse().expect("a trust domain")
    }

    fn wish(name: &str) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params
    }

    fn read(params: &CertificateParams) -> Result<Leaf, Reason> {
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        read_leaf(certificate.der(), &domain())
    }

    fn uri(text: &str) -> SanType {
        SanType::URI(text.try_into().expect("ASCII"))
    }

    #[test]
    fn reads_the_device_and_its_span() {
        let mut params = wish("meter-1");
        params.subject_alt_names = vec![
            uri("spiffe://fleet.example/device/meter-1"),
            uri("https://example.com/elsewhere"),
            SanType::DnsName("meter-1.local".try_into().expect("ASCII")),
        ];
        let leaf = read(&params).expect("a good leaf");
        assert_eq!(leaf.device.as_str(), "meter-1");
        assert!(leaf.not_before < leaf.not_after);
    }

    #[test]
    fn names_that_contradict_each_other_are_refused() {
        for other in [
            "spiffe://fleet.example/device/meter-2",
            "spiffe://fleet.example/device/METER-1",
            "spiffe://fleet.example/gateway/meter-1",
            "spiffe://fleet.example",
            "SPIFFE://fleet.example/device/meter-2",
            "spiffe://FLEET.example/device/meter-2",
            "spiffe://fleet.example:443/device/meter-2",
            "spiffe://x@fleet.example/device/meter-2",
            "spiffe://fleet%2Eexample/device/meter-2",
            "spiffe://fleet.example?/device/meter-2",
            "spiffe://fleet.example#/device/meter-2",
            "spiffe://fleet.example./device/meter-2",
            "spiffe://fleet.example\0/device/meter-2",
            "spiffe://fleet.example/device/meter-1\0",
            "spiffe://fleet.example/device/meter-1?x",
            "spiffe:///device/meter-2",
        ] {
            let mut params = wish("meter-1");
            params.subject_alt_names = vec![uri(other)];
            assert_eq!(read(&params), Err(Reason::IdentityAmbiguous), "{other}");
        }
        let mut two = wish("meter-1");
        two.subject_alt_names =
            vec![uri("spiffe://fleet.example/device/meter-1"), uri("spiffe://other.example/x")];
        assert_eq!(read(&two), Err(Reason::IdentityAmbiguous));
    }

    #[test]
    fn a_common_name_is_one_device_id_or_none() {
        for wrong in ["", "a b", "meter-1\0", "meter/1", "*", "m\u{e9}ter", "..", &"a".repeat(65)] {
            assert_eq!(read(&wish(wrong)), Err(Reason::IdentityMalformed), "{wrong:?}");
        }
        let mut params = wish("meter-1");
        params.distinguished_name = DistinguishedName::new();
        assert_eq!(read(&params), Err(Reason::IdentityMalformed));
        let two = DnValue::BmpString("meter-1".try_into().expect("a string"));
        params.distinguished_name.push(DnType::CommonName, two);
        assert_eq!(read(&params), Err(Reason::IdentityMalformed));
    }

    #[test]
    fn only_leaves_that_say_client_authentication_are_fit() {
        let mut params = wish("meter-1");
        for purposes in
            [vec![], vec![ExtendedKeyUsagePurpose::ServerAuth], vec![ExtendedKeyUsagePurpose::Any]]
        {
            params.extended_key_usages = purposes;
            assert_eq!(read(&params), Err(Reason::CertificateUnfit));
        }
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.key_usages = vec![KeyUsagePurpose::KeyAgreement];
        assert_eq!(read(&params), Err(Reason::CertificateUnfit));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        assert!(read(&params).is_ok());
    }

    #[test]
    fn names_are_said_once_and_readably() {
        let with = |names: &[&[u8]]| {
            let mut params = wish("meter-1");
            for name in names {
                // SEQUENCE of one uniformResourceIdentifier.
                let length = u8::try_from(name.len()).expect("short");
                let content = [&[0x30, length + 2, 0x86, length][..], name].concat();
                // RFC 5280 §4.2.1.6.
                params
                    .custom_extensions
                    .push(rcgen::CustomExtension::from_oid_content(&[2, 5, 29, 17], content));
            }
            read(&params)
        };
        assert!(with(&[b"spiffe://fleet.example/device/meter-1"]).is_ok());
        let twice: [&[u8]; 2] =
            [b"spiffe://fleet.example/device/meter-1", b"spiffe://fleet.example/device/meter-2"];
        assert_eq!(with(&twice), Err(Reason::IdentityMalformed));
        assert_eq!(with(&[b"spiffe://fleet.example/device/\xff"]), Err(Reason::IdentityMalformed));
    }

    #[test]
    fn a_crowd_of_names_is_refused() {
        let mut params = wish("meter-1");
        params.subject_alt_names = vec![uri("https://example.com/"); 65];
        assert_eq!(read(&params), Err(Reason::ChainExcessive));
    }

    #[test]
    fn nothing_may_follow_the_certificate() {
        let key = KeyPair::generate().expect("a key");
        let mut der = wish("meter-1").self_signed(&key).expect("a certificate").der().to_vec();
        assert!(read_leaf(&der, &domain()).is_ok());
        der.push(0);
        assert_eq!(read_leaf(&der, &domain()), Err(Reason::IdentityMalformed));
    }
}
