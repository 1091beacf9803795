//! Certificates and bundles, as others read and verify them.

use core::time::Duration;

use muster_ca::authority::{Purpose, roll_over};
use muster_ca::bundle::certs_only;
use muster_ca::csr_attributes::csr_attributes;
use muster_ca::file_key::CaAlgorithm;
use muster_ca::server_leaf::ServerNames;
use muster_policy::key::KeyKind;
use muster_policy::profile::{CsrAttributes, ProfileWritten};

use crate::account::{self, Account, NOW, serial};
use crate::tools::Bench;

const AT: &str = "-x509_strict -attime 1800000000";

#[test]
fn openssl_verifies_a_device_under_every_kind_of_ca() {
    for algorithm in [CaAlgorithm::EcdsaP256, CaAlgorithm::EcdsaP384, CaAlgorithm::Rsa3072] {
        let (account, bench) = (Account::new(algorithm), Bench::new());
        bench.write_pem("root.pem", &[account.root.certificate().der()]);
        bench.write_pem("devices.pem", &[account.devices.certificate().der()]);
        bench.write_pem("leaf.pem", &[&account::leaf(&account.devices, 9).der]);
        bench.openssl(&format!(
            "verify {AT} -purpose sslclient -CAfile root.pem -untrusted devices.pem leaf.pem"
        ));
    }
}

#[test]
fn openssl_takes_no_device_for_a_server() {
    let (account, bench) = (Account::new(CaAlgorithm::EcdsaP256), Bench::new());
    bench.write_pem("root.pem", &[account.root.certificate().der()]);
    bench.write_pem("devices.pem", &[account.devices.certificate().der()]);
    bench.write_pem("leaf.pem", &[&account::leaf(&account.devices, 9).der]);
    let said = bench.openssl("x509 -in leaf.pem -noout -purpose");
    assert!(said.contains("SSL client : Yes") && said.contains("SSL server : No"), "{said}");
    assert!(said.contains("SSL client CA : No"), "{said}");
}

#[test]
fn openssl_reads_what_was_granted_and_writes_the_same_bytes() {
    let (account, bench) = (Account::new(CaAlgorithm::EcdsaP256), Bench::new());
    let issued = account::leaf(&account.devices, 9);
    bench.write("leaf.der", &issued.der);
    let said = bench.openssl("x509 -inform DER -in leaf.der -noout -text");
    for line in [
        "Version: 3 (0x2)",
        "Issuer: O = Example, CN = Devices",
        "Subject: CN = meter-1",
        "Not Before: Jan 15 07:55:00 2027 GMT",
        "Not After : Apr 15 08:00:00 2027 GMT",
        "X509v3 Key Usage: critical\n                Digital Signature\n",
        "X509v3 Extended Key Usage: \n                TLS Web Client Authentication\n",
        "X509v3 Basic Constraints: critical\n                CA:FALSE\n",
        "URI:spiffe://example.com/device/meter-1, DNS:meter-1.dev.example.com\n",
        "URI:http://crl.example.com/devices.crl",
    ] {
        assert!(said.contains(line), "{line:?} in {said}");
    }
    bench.openssl("x509 -inform DER -in leaf.der -outform DER -out again.der");
    assert_eq!(bench.read("again.der"), issued.der);
}

#[test]
fn cryptography_builds_the_same_bytes_from_the_same_facts() {
    const PROGRAM: &str = r#"
import datetime, hashlib, sys
from cryptography import x509
from cryptography.x509.oid import NameOID, ExtendedKeyUsageOID
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
leaf = x509.load_der_x509_certificate(open("leaf.der", "rb").read())
issuer = x509.load_der_x509_certificate(open("devices.der", "rb").read())
issuer.public_key().verify(leaf.signature, leaf.tbs_certificate_bytes, ec.ECDSA(hashes.SHA256()))
def key_id(key):
    point = key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    return hashlib.sha256(point).digest()[:20]
def time(seconds):
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)
no = dict.fromkeys("content_commitment key_encipherment data_encipherment key_agreement key_cert_sign crl_sign encipher_only decipher_only".split(), False)
point = x509.DistributionPoint([x509.UniformResourceIdentifier("http://crl.example.com/devices.crl")], None, None, None)
built = (x509.CertificateBuilder()
    .serial_number(int(sys.argv[1], 16))
    .issuer_name(issuer.subject)
    .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "meter-1")]))
    .not_valid_before(time(1800000000 - 300)).not_valid_after(time(1800000000 + 90 * 86400))
    .public_key(leaf.public_key())
    .add_extension(x509.AuthorityKeyIdentifier(key_id(issuer.public_key()), None, None), False)
    .add_extension(x509.SubjectAlternativeName([
        x509.UniformResourceIdentifier("spiffe://example.com/device/meter-1"),
        x509.DNSName("meter-1.dev.example.com")]), False)
    .add_extension(x509.KeyUsage(digital_signature=True, **no), True)
    .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), False)
    .add_extension(x509.CRLDistributionPoints([point]), False)
    .add_extension(x509.SubjectKeyIdentifier(key_id(leaf.public_key())), False)
    .add_extension(x509.BasicConstraints(False, None), True)
    .sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()))
assert built.tbs_certificate_bytes == leaf.tbs_certificate_bytes, (built.tbs_certificate_bytes.hex(), leaf.tbs_certificate_bytes.hex())
"#;
    let (account, bench) = (Account::new(CaAlgorithm::EcdsaP256), Bench::new());
    bench.write("leaf.der", account::leaf(&account.devices, 9).der);
    bench.write("devices.der", account.devices.certificate().der());
    bench.python(PROGRAM, &[&serial(9).to_string()]);
}

#[test]
fn cryptography_builds_the_same_cas_from_the_same_facts() {
    const PROGRAM: &str = r#"
import datetime, hashlib
from cryptography import x509
from cryptography.x509.oid import NameOID, ExtendedKeyUsageOID
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
def key_id(key):
    point = key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    return hashlib.sha256(point).digest()[:20]
def time(seconds):
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)
def name(title):
    return x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Example"), x509.NameAttribute(NameOID.COMMON_NAME, title)])
no = dict.fromkeys("digital_signature content_commitment key_encipherment data_encipherment key_agreement encipher_only decipher_only".split(), False)
def build(found, title, issuer_title, issuer_key, years, length, purpose):
    builder = (x509.CertificateBuilder().serial_number(found.serial_number)
        .issuer_name(name(issuer_title)).subject_name(name(title)).public_key(found.public_key())
        .not_valid_before(time(1800000000 - 3600)).not_valid_after(time(1800000000 + years * 365 * 86400))
        .add_extension(x509.AuthorityKeyIdentifier(key_id(issuer_key), None, None), False)
        .add_extension(x509.KeyUsage(key_cert_sign=True, crl_sign=True, **no), True))
    if purpose:
        builder = (builder.add_extension(x509.ExtendedKeyUsage([purpose]), False)
            .add_extension(x509.NameConstraints([x509.DNSName("example.com")], None), True))
    built = (builder.add_extension(x509.SubjectKeyIdentifier(key_id(found.public_key())), False)
        .add_extension(x509.BasicConstraints(True, length), True)
        .sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()))
    assert built.tbs_certificate_bytes == found.tbs_certificate_bytes, (built.tbs_certificate_bytes.hex(), found.tbs_certificate_bytes.hex())
load = lambda file: x509.load_der_x509_certificate(open(file, "rb").read())
root, devices = load("root.der"), load("devices.der")
build(root, "Account root", "Account root", root.public_key(), 20, 2, None)
build(devices, "Devices", "Account root", root.public_key(), 5, 0, ExtendedKeyUsageOID.CLIENT_AUTH)
"#;
    let (account, bench) = (Account::new(CaAlgorithm::EcdsaP256), Bench::new());
    bench.write("root.der", account.root.certificate().der());
    bench.write("devices.der", account.devices.certificate().der());
    bench.python(PROGRAM, &[]);
}

#[test]
fn openssl_verifies_a_server_by_name_and_address() {
    let (account, bench) = (Account::new(CaAlgorithm::EcdsaP256), Bench::new());
    let key = account::device_key();
    let names = ServerNames {
        hostnames: ["est.example.com", "*.wild.example.com"].map(|name| name.parse().expect("a name")).into(),
        addresses: vec!["192.0.2.1".parse().expect("an address")],
    };
    let end = NOW.plus(Duration::from_secs(90 * 86_400));
    let prepared =
        account.services.prepare_server(&names, NOW, end, key.subject_key(), serial(3)).expect("is good");
    bench.write_pem("leaf.pem", &[&prepared.sign().expect("signs").der]);
    bench.write_pem("root.pem", &[account.root.certificate().der()]);
    bench.write_pem("services.pem", &[account.services.certificate().der()]);
    let verify = format!("verify {AT} -purpose sslserver -CAfile root.pem -untrusted services.pem");
    bench.openssl(&format!("{verify} -verify_hostname est.example.com leaf.pem"));
    bench.openssl(&format!("{verify} -verify_hostname a.wild.example.com leaf.pem"));
    bench.openssl(&format!("{verify} -verify_ip 192.0.2.1 leaf.pem"));
}

#[test]
fn openssl_follows_the_rollover_certificates_both_ways() {
    let (account, bench) = (Account::new(CaAlgorithm::EcdsaP256), Bench::new());
    let new = account::root("Account root", CaAlgorithm::EcdsaP384);
    let next = account::issuing(&new, Purpose::Devices, CaAlgorithm::EcdsaP384);
    let between = roll_over(&account.root, &new, [serial(20), serial(21)]).expect("rolls over");
    bench.write_pem("old.pem", &[account.root.certificate().der()]);
    bench.write_pem("new.pem", &[new.certificate().der()]);
    let middle = [
        account.devices.certificate().der(),
        next.certificate().der(),
        between.old_with_new.der(),
        between.new_with_old.der(),
    ];
    bench.write_pem("middle.pem", &middle);
    bench.write_pem("first.pem", &[&account::leaf(&account.devices, 9).der]);
    bench.write_pem("second.pem", &[&account::leaf(&next, 10).der]);
    for root in ["old.pem", "new.pem"] {
        bench.openssl(&format!(
            "verify {AT} -purpose sslclient -CAfile {root} -untrusted middle.pem first.pem second.pem"
        ));
    }
}

#[test]
fn both_read_a_bundle_and_find_every_certificate_unchanged() {
    const PROGRAM: &str = r#"
import sys
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7
found = pkcs7.load_der_pkcs7_certificates(open("bundle.p7", "rb").read())
assert sorted(c.public_bytes(Encoding.DER) for c in found) == sorted(open(f, "rb").read() for f in sys.argv[1:])
"#;
    let (account, bench) = (Account::new(CaAlgorithm::EcdsaP256), Bench::new());
    let certificates =
        [&account.root, &account.devices, &account.services].map(|issuer| issuer.certificate().der());
    bench.write("bundle.p7", certs_only(&certificates));
    for (name, der) in ["root.der", "devices.der", "services.der"].iter().zip(certificates) {
        bench.write(name, der);
    }
    bench.python(PROGRAM, &["root.der", "devices.der", "services.der"]);
    bench.openssl("pkcs7 -inform DER -in bundle.p7 -outform DER -out again.p7");
    assert_eq!(bench.read("again.p7"), bench.read("bundle.p7"));
    let said = bench.openssl("pkcs7 -inform DER -in bundle.p7 -print_certs -noout");
    assert_eq!(said.matches("subject=").count(), 3, "{said}");
    bench.openssl("cms -cmsout -inform DER -in bundle.p7 -print -noout");
    bench.openssl("asn1parse -inform DER -in bundle.p7");
}

#[test]
fn openssl_parses_csrattrs_of_every_kind() {
    let bench = Bench::new();
    for keys in [KeyKind::EcdsaP256, KeyKind::EcdsaP384, KeyKind::Ed25519, KeyKind::Rsa] {
        for kind in [CsrAttributes::Plain, CsrAttributes::Template] {
            let written = ProfileWritten {
                keys: Some(vec![keys]),
                csr_attributes: Some(kind),
                ..ProfileWritten::default()
            };
            let profile = written.check("default".parse().expect("a label")).expect("a profile");
            bench.write("csrattrs.der", csr_attributes(&profile).expect("is told"));
            bench.openssl("asn1parse -inform DER -in csrattrs.der");
        }
    }
}
