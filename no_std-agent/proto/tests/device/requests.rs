//! Certification requests: what this crate writes, openssl and x509-parser read; and the other way round.

use std::process::Command;

use muster_proto::csr::{Attributes, CertificationRequest, Draft, P256Point, SignatureError, Subject};
use muster_proto::der::{Oid, Reader};
use muster_proto::x509::Extension;
use muster_proto::{ShortBuffer, cms};
use proptest::prelude::*;
use x509_parser::prelude::{FromDer, X509CertificationRequest};

use crate::authority::{Authority, P256Verifier, TestKey, certs_only};

fn request(
    seed: u64,
    size: usize,
    subject: Subject<'_>,
    attributes: &Attributes<'_>,
) -> Result<Vec<u8>, ShortBuffer> {
    let key = TestKey::from_seed(seed);
    let point = P256Point::new(&key.point).expect("an uncompressed point");
    let mut buffer = vec![0; size];
    let draft = Draft::write(&mut buffer, subject, &point, attributes)?;
    let signature = key.sign(draft.message(&buffer));
    match draft.sign(&mut buffer, &signature) {
        Ok(length) => Ok(buffer[..length].to_vec()),
        Err(SignatureError::ShortBuffer) => Err(ShortBuffer),
        Err(SignatureError::NotASignature) => panic!("p256 makes signatures"),
    }
}

/// The SAN of a device, encoded.
const SAN: &[u8] = b"\x30\x20\x86\x1espiffe://example.com/device/d1";

fn full() -> Attributes<'static> {
    const EXTENSIONS: &[Extension<'_>] = &[
        Extension { id: Oid::SUBJECT_ALT_NAME, critical: false, value: SAN },
        Extension { id: Oid::KEY_USAGE, critical: true, value: &[0x03, 0x02, 0x07, 0x80] },
    ];
    Attributes { challenge_password: Some("AQIDBAUGBwg="), extensions: EXTENSIONS }
}

#[test]
fn openssl_verifies_what_is_written() {
    let folder = tempfile::tempdir().expect("a folder");
    for (number, attributes) in [Attributes::default(), full()].iter().enumerate() {
        let path = folder.path().join("request.der");
        std::fs::write(&path, request(5, 800, Subject::CommonName("dev-1"), attributes).expect("fits"))
            .expect("writes");
        let output = Command::new("openssl")
            .args(["req", "-inform", "DER", "-verify", "-noout", "-text", "-in"])
            .arg(&path)
            .output()
            .expect("openssl is installed");
        let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(text.contains("verify OK") && text.contains("CN = dev-1"), "{text}");
        assert_eq!(text.contains("URI:spiffe://example.com/device/d1"), number == 1, "{text}");
        assert_eq!(text.contains("AQIDBAUGBwg="), number == 1, "{text}");
    }
}

#[test]
fn a_request_of_openssl_is_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("request.der");
    let made = Command::new("openssl")
        .args([
            "req",
            "-new",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-subj",
            "/CN=dev-1",
        ])
        .args(["-addext", "subjectAltName=URI:urn:x", "-outform", "DER", "-keyout"])
        .arg(folder.path().join("key.pem"))
        .arg("-out")
        .arg(&path)
        .output()
        .expect("openssl is installed");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let der = std::fs::read(&path).expect("reads");
    let parsed = CertificationRequest::parse(&der).expect("a request");
    assert_eq!(parsed.check_signature(&P256Verifier::default()), Ok(()));
    assert!(parsed.attributes().expect("attributes").extensions.is_some());
}

#[test]
fn a_certs_only_message_of_openssl_is_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = Authority::root("Root", 1);
    let (certificate, message) = (folder.path().join("root.der"), folder.path().join("message.der"));
    std::fs::write(&certificate, &root.der).expect("writes");
    let pem = folder.path().join("root.pem");
    let run = |arguments: &[&std::ffi::OsStr]| {
        assert!(
            Command::new("openssl").args(arguments).output().expect("openssl is installed").status.success()
        );
    };
    run(&[
        "x509".as_ref(),
        "-inform".as_ref(),
        "DER".as_ref(),
        "-in".as_ref(),
        certificate.as_ref(),
        "-out".as_ref(),
        pem.as_ref(),
    ]);
    run(&[
        "crl2pkcs7".as_ref(),
        "-nocrl".as_ref(),
        "-outform".as_ref(),
        "DER".as_ref(),
        "-certfile".as_ref(),
        pem.as_ref(),
        "-out".as_ref(),
        message.as_ref(),
    ]);
    let der = std::fs::read(&message).expect("reads");
    let bundle = cms::certificates(&der).expect("a certs-only message");
    assert_eq!(bundle.iter().collect::<Vec<_>>(), [root.der.as_slice()]);
}

#[test]
fn a_short_buffer_is_an_error_at_every_size() {
    let whole = request(5, 800, Subject::CommonName("dev-1"), &full()).expect("fits");
    for size in 0..whole.len() {
        assert_eq!(request(5, size, Subject::CommonName("dev-1"), &full()), Err(ShortBuffer), "{size}");
    }
    assert_eq!(request(5, whole.len() + 4, Subject::CommonName("dev-1"), &full()), Ok(whole));
}

#[test]
fn what_is_no_signature_completes_nothing() {
    let key = TestKey::from_seed(5);
    let point = P256Point::new(&key.point).expect("an uncompressed point");
    let mut buffer = [0; 600];
    let draft =
        Draft::write(&mut buffer, Subject::CommonName("d"), &point, &Attributes::default()).expect("fits");
    let good = key.sign(draft.message(&buffer));
    let mut trailing = good.clone();
    trailing.push(0);
    for bad in
        [&[][..], &[0x30, 0x00], &good[..good.len() - 1], &trailing, &[0x30, 6, 2, 1, 0, 2, 1, 1], &[0; 64]]
    {
        assert_eq!(draft.sign(&mut buffer, bad), Err(SignatureError::NotASignature), "{bad:?}");
    }
}

#[test]
fn a_message_that_is_not_certs_only_is_told_apart() {
    use muster_proto::cms::CmsError;
    let root = Authority::root("Root", 1).der;
    let good = certs_only(&[&root]);
    assert!(cms::certificates(&good).is_ok());
    assert_eq!(cms::certificates(&certs_only(&[])), Err(CmsError::Empty));
    let many: Vec<&[u8]> = vec![&[0x30, 0x00]; cms::MAX_CERTIFICATES + 1];
    assert_eq!(cms::certificates(&certs_only(&many)), Err(CmsError::TooMany));
    let mut ber = good.clone();
    ber[1] = 0x80;
    assert!(matches!(cms::certificates(&ber), Err(CmsError::Malformed)));
    for end in 0..good.len() {
        assert!(cms::certificates(&good[..end]).is_err());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn x509_parser_reads_what_is_written(
        seed in 1..1000_u64,
        name in "[A-Za-z0-9._-]{1,64}",
        password in proptest::option::of("[A-Za-z0-9+/=]{1,200}"),
        san in any::<bool>(),
    ) {
        let attributes = Attributes {
            challenge_password: password.as_deref(),
            extensions: if san { &full().extensions[..1] } else { &[] },
        };
        let der = request(seed, 1200, Subject::CommonName(&name), &attributes).expect("fits");
        let (rest, theirs) = X509CertificationRequest::from_der(&der).expect("a request");
        prop_assert!(rest.is_empty());
        let info = &theirs.certification_request_info;
        prop_assert_eq!(info.subject.iter_common_name().next().expect("a name").as_str(), Ok(name.as_str()));
        prop_assert_eq!(info.subject_pki.subject_public_key.data.as_ref(), &TestKey::from_seed(seed).point);
        prop_assert_eq!(info.iter_attributes().count(), usize::from(password.is_some()) + usize::from(san));
        let ours = CertificationRequest::parse(&der).expect("a request");
        prop_assert_eq!(ours.check_signature(&P256Verifier::default()), Ok(()));
        let asked = ours.attributes().expect("attributes");
        prop_assert_eq!(asked.challenge_password, password.as_deref().map(str::as_bytes));
        prop_assert_eq!(asked.extensions.is_some(), san);
        prop_assert_eq!(ours.subject, info.subject.as_raw());
        prop_assert!(attributes_are_in_order(&der));
    }

    #[test]
    fn a_mutated_request_is_read_alike_or_refused(place: prop::sample::Index, bits in 1..=255_u8) {
        let mut der = request(5, 800, Subject::CommonName("dev-1"), &full()).expect("fits");
        let at = place.index(der.len());
        der[at] ^= bits;
        if let Ok(ours) = CertificationRequest::parse(&der) {
            prop_assert!(ours.check_signature(&P256Verifier::default()).is_err());
            if let Ok((_, theirs)) = X509CertificationRequest::from_der(&der) {
                prop_assert_eq!(ours.subject, theirs.certification_request_info.subject.as_raw());
                prop_assert_eq!(ours.key.spki, theirs.certification_request_info.subject_pki.raw);
            }
        }
    }
}

/// DER orders a SET OF by the encodings of its members.
fn attributes_are_in_order(der: &[u8]) -> bool {
    let mut info = Reader::new(der).sequence().expect("a request").sequence().expect("its info");
    let attributes = (0..4).map(|_| info.any().expect("four fields")).last().expect("four fields");
    let mut members = Reader::new(attributes.value);
    let wholes: Vec<&[u8]> = std::iter::from_fn(|| members.any().ok()).map(|member| member.whole).collect();
    wholes.is_sorted()
}
