//! openssl and Python `cryptography` read what is made here. They fail the test when they are missing.

#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "a step that fails is a failed test")]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use muster_ca::bundle::certs_only;
use muster_ca::crl::{CrlSettings, Revoked};
use muster_ca::csr::Csr;
use muster_ca::file_key::{CaAlgorithm, FileKey, Passphrase};
use muster_ca::signer::Signer as _;
use muster_policy::reason::Reason;
use support::{NOW, at, house, issue, pem};

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn write(&self, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, contents).expect("written");
        path
    }
}

fn run(program: &str, args: &[&str], folder: &Path) -> String {
    let output = Command::new(program)
        .args(args)
        .current_dir(folder)
        .output()
        .unwrap_or_else(|error| panic!("{program} is needed: {error}"));
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {text}");
    text
}

fn openssl(args: &[&str], folder: &Folder) -> String {
    run("openssl", args, folder.0.path())
}

#[expect(clippy::disallowed_methods, reason = "the test script says which interpreter has the packages")]
fn python() -> String {
    std::env::var("MUSTER_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned())
}

#[test]
fn openssl_follows_the_chain_and_checks_the_purpose() {
    for algorithm in [CaAlgorithm::EcdsaP256, CaAlgorithm::EcdsaP384, CaAlgorithm::Rsa3072] {
        let (house, folder) = (house(algorithm), Folder::new());
        folder.write("root.pem", pem("CERTIFICATE", house.root.certificate().der()));
        folder.write("devices.pem", pem("CERTIFICATE", house.devices.certificate().der()));
        folder.write("leaf.pem", pem("CERTIFICATE", &issue(&house, "meter-1").der));
        let time = NOW.as_secs().to_string();
        let verify =
            ["verify", "-x509_strict", "-attime", &time, "-CAfile", "root.pem", "-untrusted", "devices.pem"];
        let client = [&verify[..], &["-purpose", "sslclient", "leaf.pem"]].concat();
        assert!(openssl(&client, &folder).contains("leaf.pem: OK"));
        let text = openssl(&["x509", "-in", "leaf.pem", "-noout", "-text"], &folder);
        for part in [
            "Subject: CN = meter-1",
            "URI:spiffe://example.test/device/meter-1",
            "CA:FALSE",
            "Digital Signature\n",
        ] {
            assert!(text.contains(part), "{part} is missing in {text}");
        }
    }
}

#[test]
fn openssl_and_python_write_the_same_bytes() {
    let (house, folder) = (house(CaAlgorithm::EcdsaP256), Folder::new());
    let ders = [
        house.root.certificate().der().to_vec(),
        house.devices.certificate().der().to_vec(),
        issue(&house, "meter-1").der,
    ];
    for der in ders {
        folder.write("in.der", &der);
        openssl(&["x509", "-inform", "DER", "-in", "in.der", "-outform", "DER", "-out", "out.der"], &folder);
        assert_eq!(std::fs::read(folder.0.path().join("out.der")).expect("written"), der);
        let script = "
import sys
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
raw = open('in.der', 'rb').read()
cert = x509.load_der_x509_certificate(raw)
assert cert.public_bytes(Encoding.DER) == raw
builder = x509.CertificateBuilder(cert.issuer, cert.subject, cert.public_key(), cert.serial_number,
    cert.not_valid_before_utc, cert.not_valid_after_utc, list(cert.extensions))
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives import hashes
again = builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
assert again.tbs_certificate_bytes == cert.tbs_certificate_bytes, 'the TBS differs'
print('same')
";
        assert!(run(&python(), &["-c", script], folder.0.path()).contains("same"));
    }
}

#[test]
fn openssl_checks_lists_and_bundles() {
    let (house, folder) = (house(CaAlgorithm::EcdsaP256), Folder::new());
    let leaf = issue(&house, "meter-1");
    let plan = CrlSettings { number: 3, this_update: NOW, next_update: at(7) };
    let entry = Revoked { serial: leaf.serial, revoked_at: NOW, reason_code: 1 };
    let list = house.devices.sign_crl(&plan, [entry]).expect("a list");
    folder.write("list.der", list);
    folder.write("devices.pem", pem("CERTIFICATE", house.devices.certificate().der()));
    let text = openssl(
        &["crl", "-inform", "DER", "-in", "list.der", "-CAfile", "devices.pem", "-noout", "-text"],
        &folder,
    );
    assert!(text.contains("verify OK") && text.contains("Key Compromise"), "{text}");
    assert!(text.contains(&leaf.serial.to_string().to_uppercase()), "{text}");
    let bundle = certs_only(&[house.root.certificate().der(), house.devices.certificate().der()]);
    folder.write("bundle.der", bundle);
    let text = openssl(&["pkcs7", "-inform", "DER", "-in", "bundle.der", "-print_certs"], &folder);
    assert_eq!(text.matches("BEGIN CERTIFICATE").count(), 2);
}

#[test]
fn every_key_that_openssl_writes_is_read() {
    let folder = Folder::new();
    let generate = [
        vec!["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "sec1.pem"],
        vec!["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384", "-out", "pkcs8.pem"],
        vec!["genrsa", "-traditional", "-out", "pkcs1.pem", "3072"],
        vec!["pkcs8", "-topk8", "-in", "sec1.pem", "-passout", "pass:secret", "-out", "encrypted.pem"],
        vec![
            "pkcs8",
            "-topk8",
            "-scrypt",
            "-in",
            "sec1.pem",
            "-passout",
            "pass:secret",
            "-out",
            "scrypt.pem",
        ],
    ];
    for args in &generate {
        openssl(args, &folder);
    }
    let passphrase = Passphrase::new("secret".to_owned());
    for name in ["sec1.pem", "pkcs8.pem", "pkcs1.pem", "encrypted.pem", "scrypt.pem"] {
        let key = FileKey::read_file(&folder.0.path().join(name), Some(&passphrase)).expect(name);
        assert!(key.sign(b"message").is_ok(), "{name}");
    }
    let own = folder.0.path().join("own.pem");
    FileKey::generate(CaAlgorithm::EcdsaP256)
        .expect("a key")
        .write_file(&own, Some(&passphrase))
        .expect("written");
    assert!(
        openssl(&["pkey", "-in", "own.pem", "-passin", "pass:secret", "-noout", "-text"], &folder)
            .contains("P-256")
    );
}

#[test]
fn weak_requests_of_openssl_are_refused() {
    let folder = Folder::new();
    let request = |args: &[&str]| {
        let head = [
            "req", "-new", "-nodes", "-keyout", "k.pem", "-subj", "/CN=m", "-outform", "DER", "-out", "r.der",
        ];
        openssl(&[&head[..], args].concat(), &folder);
        Csr::parse(&std::fs::read(folder.0.path().join("r.der")).expect("written")).map(|csr| csr.wish().key)
    };
    let weak = request(&["-newkey", "rsa:2048", "-sha1"]).expect_err("SHA-1");
    assert_eq!(weak.reason, Reason::SignatureWeak);
    assert!(request(&["-newkey", "rsa:2048"]).is_ok());
}
