//! Revocation lists, as others read and verify them.

use core::time::Duration;

use muster_ca::crl::{CrlSettings, Revoked};
use muster_ca::file_key::CaAlgorithm;
use muster_policy::identity::Serial;
use muster_policy::revocation::RevocationReason;

use crate::account::{self, Account, NOW, serial};
use crate::tools::Bench;

fn settings() -> CrlSettings {
    CrlSettings { number: 300, this_update: NOW, next_update: NOW.plus(Duration::from_secs(86_400)) }
}

fn revoked(serial: Serial, reason: RevocationReason) -> Revoked {
    Revoked { serial, revoked_at: NOW, reason }
}

#[test]
fn openssl_refuses_the_revoked_and_takes_the_others() {
    for algorithm in [CaAlgorithm::EcdsaP256, CaAlgorithm::EcdsaP384, CaAlgorithm::Rsa3072] {
        let (account, bench) = (Account::new(algorithm), Bench::new());
        let entries = [revoked(serial(9), RevocationReason::KeyCompromise)];
        let crl = account.devices.sign_crl(&settings(), entries).expect("signs");
        bench.write("crl.pem", pem::encode(&pem::Pem::new("X509 CRL", crl)));
        bench.write_pem("root.pem", &[account.root.certificate().der()]);
        bench.write_pem("devices.pem", &[account.devices.certificate().der()]);
        bench.write_pem("revoked.pem", &[&account::leaf(&account.devices, 9).der]);
        bench.write_pem("good.pem", &[&account::leaf(&account.devices, 10).der]);
        let verify = "verify -x509_strict -attime 1800000000 -partial_chain -crl_check \
                      -CRLfile crl.pem -CAfile devices.pem";
        bench.openssl(&format!("{verify} good.pem"));
        let said = std::panic::catch_unwind(|| bench.openssl(&format!("{verify} revoked.pem")));
        let message = said.expect_err("the revoked one must not verify");
        let message = message.downcast::<String>().expect("a text");
        assert!(message.contains("certificate revoked"), "{message}");
    }
}

#[test]
fn openssl_reads_numbers_and_reasons_and_writes_the_same_bytes() {
    let (account, bench) = (Account::new(CaAlgorithm::EcdsaP256), Bench::new());
    let reasons = [
        RevocationReason::Unspecified,
        RevocationReason::KeyCompromise,
        RevocationReason::CaCompromise,
        RevocationReason::AffiliationChanged,
        RevocationReason::Superseded,
        RevocationReason::CessationOfOperation,
        RevocationReason::CertificateHold,
        RevocationReason::PrivilegeWithdrawn,
    ];
    let entries = reasons.iter().zip(1_u8..).map(|(reason, number)| revoked(serial(number), *reason));
    let crl = account.devices.sign_crl(&settings(), entries).expect("signs");
    bench.write("crl.der", &crl);
    let said = bench.openssl("crl -inform DER -in crl.der -noout -text");
    assert!(said.contains("Version 2 (0x1)"), "{said}");
    assert!(said.contains("X509v3 CRL Number: \n                300\n"), "{said}");
    assert_eq!(said.matches("Serial Number:").count(), reasons.len(), "{said}");
    assert_eq!(said.matches("X509v3 CRL Reason Code:").count(), reasons.len() - 1, "{said}");
    for name in ["Key Compromise", "Certificate Hold", "Cessation Of Operation", "Privilege Withdrawn"] {
        assert!(said.contains(name), "{name} in {said}");
    }
    bench.openssl("crl -inform DER -in crl.der -outform DER -out again.der");
    assert_eq!(bench.read("again.der"), crl);
}

#[test]
fn cryptography_builds_the_same_list_from_the_same_facts() {
    const PROGRAM: &str = r#"
import datetime, hashlib
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
crl = x509.load_der_x509_crl(open("crl.der", "rb").read())
issuer = x509.load_der_x509_certificate(open("devices.der", "rb").read())
assert crl.is_signature_valid(issuer.public_key())
point = issuer.public_key().public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
time = lambda seconds: datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)
builder = x509.CertificateRevocationListBuilder().issuer_name(issuer.subject).last_update(time(1800000000)).next_update(time(1800086400))
for number in range(1, 101):
    serial = int.from_bytes(bytes([0x40, 0, 0, 0] + [number] * 16), "big")
    builder = builder.add_revoked_certificate(x509.RevokedCertificateBuilder().serial_number(serial)
        .revocation_date(time(1800000000)).add_extension(x509.CRLReason(x509.ReasonFlags.superseded), False).build())
built = (builder.add_extension(x509.AuthorityKeyIdentifier(hashlib.sha256(point).digest()[:20], None, None), False)
    .add_extension(x509.CRLNumber(300), False).sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()))
assert built.tbs_certlist_bytes == crl.tbs_certlist_bytes, (built.tbs_certlist_bytes.hex(), crl.tbs_certlist_bytes.hex())
"#;
    let (account, bench) = (Account::new(CaAlgorithm::EcdsaP256), Bench::new());
    let entries = (1_u8..=100).map(|number| revoked(serial(number), RevocationReason::Superseded));
    bench.write("crl.der", account.devices.sign_crl(&settings(), entries).expect("signs"));
    bench.write("devices.der", account.devices.certificate().der());
    bench.python(PROGRAM, &[]);
}
