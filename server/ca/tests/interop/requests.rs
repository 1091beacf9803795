//! Requests that others wrote.

use muster_ca::csr::Csr;
use muster_policy::enrol::San;
use muster_policy::key::{KeyKind, WishedKey};
use muster_policy::reason::Reason;

use crate::tools::Bench;

const CONFIG: &str = "
[req]
prompt = no
distinguished_name = name
attributes = attributes
req_extensions = extensions
[name]
O = Example
CN = meter-1
serialNumber = SN-7
[attributes]
challengePassword = c2VjcmV0IG9mIHRoZSBjaGFubmVs
[extensions]
keyUsage = critical, digitalSignature, keyCertSign
basicConstraints = CA:TRUE
subjectAltName = DNS:Meter-1, URI:spiffe://example.com/device/meter-1, IP:2001:db8::1, email:a@example.com
";

#[test]
fn requests_by_openssl_are_read_with_every_kind_of_key() {
    let bench = Bench::new();
    bench.write("config", CONFIG);
    let kinds = [
        ("EC -pkeyopt ec_paramgen_curve:P-256", "-sha256", WishedKey::Curve(KeyKind::EcdsaP256)),
        ("EC -pkeyopt ec_paramgen_curve:P-384", "-sha384", WishedKey::Curve(KeyKind::EcdsaP384)),
        ("EC -pkeyopt ec_paramgen_curve:P-256", "-sha512", WishedKey::Curve(KeyKind::EcdsaP256)),
        ("ED25519", "", WishedKey::Curve(KeyKind::Ed25519)),
        ("RSA -pkeyopt rsa_keygen_bits:2048", "-sha256", WishedKey::Rsa { bits: 2048 }),
        ("RSA -pkeyopt rsa_keygen_bits:4096", "-sha512", WishedKey::Rsa { bits: 4096 }),
        (
            "RSA -pkeyopt rsa_keygen_bits:2048",
            "-sha256 -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:digest",
            WishedKey::Rsa { bits: 2048 },
        ),
    ];
    for (algorithm, digest, wished) in kinds {
        bench.openssl(&format!("genpkey -algorithm {algorithm} -out key.pem"));
        bench.openssl(&format!("req -new -config config -key key.pem {digest} -outform DER -out csr.der"));
        let csr = Csr::parse(&bench.read("csr.der")).expect("is good");
        assert_eq!(csr.wish().key, wished);
        assert_eq!(csr.challenge_password(), Some("c2VjcmV0IG9mIHRoZSBjaGFubmVs"));
        let subject: Vec<_> =
            csr.wish().subject.iter().map(|one| (one.oid.as_str(), one.text.as_str())).collect();
        assert_eq!(subject, [("2.5.4.10", "Example"), ("2.5.4.3", "meter-1"), ("2.5.4.5", "SN-7")]);
        let sans = [
            San::Dns("meter-1".into()),
            San::Uri("spiffe://example.com/device/meter-1".into()),
            San::Ip("2001:db8::1".into()),
            San::Email("a@example.com".into()),
        ];
        assert_eq!(csr.wish().sans, sans);
        bench.openssl("pkey -in key.pem -pubout -outform DER -out public.der");
        assert_eq!(csr.subject_key().spki_der(), bench.read("public.der"));
    }
}

#[test]
fn weak_requests_by_openssl_are_refused_for_what_they_are() {
    let bench = Bench::new();
    let kinds = [
        ("EC -pkeyopt ec_paramgen_curve:P-256", "-sha1", Reason::SignatureWeak),
        ("RSA -pkeyopt rsa_keygen_bits:2048", "-sha1", Reason::SignatureWeak),
        ("RSA -pkeyopt rsa_keygen_bits:2048", "-md5", Reason::SignatureWeak),
        ("RSA -pkeyopt rsa_keygen_bits:1024", "-sha256", Reason::KeyWeak),
        ("EC -pkeyopt ec_paramgen_curve:P-521", "-sha512", Reason::KeyWeak),
        ("EC -pkeyopt ec_paramgen_curve:secp256k1", "-sha256", Reason::KeyWeak),
        ("EC -pkeyopt ec_paramgen_curve:P-256 -pkeyopt ec_param_enc:explicit", "-sha256", Reason::KeyWeak),
    ];
    for (algorithm, digest, reason) in kinds {
        bench.openssl(&format!("genpkey -algorithm {algorithm} -out key.pem"));
        bench.openssl(&format!("req -new -subj /CN=meter-1 -key key.pem {digest} -outform DER -out csr.der"));
        let refusal = Csr::parse(&bench.read("csr.der")).expect_err("must be refused");
        assert_eq!(refusal.reason, reason, "{algorithm} {digest}: {refusal}");
    }
}

#[test]
fn requests_by_cryptography_are_read() {
    const PROGRAM: &str = r#"
from cryptography import x509
from cryptography.x509.oid import NameOID, AttributeOID
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
csr = (x509.CertificateSigningRequestBuilder()
    .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "meter-1")]))
    .add_attribute(AttributeOID.CHALLENGE_PASSWORD, b"password")
    .add_extension(x509.SubjectAlternativeName([x509.DNSName("meter-1")]), False)
    .sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()))
open("csr.der", "wb").write(csr.public_bytes(serialization.Encoding.DER))
"#;
    let bench = Bench::new();
    bench.python(PROGRAM, &[]);
    let csr = Csr::parse(&bench.read("csr.der")).expect("is good");
    assert_eq!(csr.challenge_password(), Some("password"));
    assert_eq!(csr.wish().sans, [San::Dns("meter-1".into())]);
}
