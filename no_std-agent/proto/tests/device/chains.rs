//! Paths and certificates against openssl and x509-parser, on sound, broken and mutated input.
//!
//! The rule for differences: where this crate accepts, openssl must accept too. Where it refuses more, the reason
//! is in the table of `is_stricter`.

use std::path::Path as FilePath;
use std::process::Command;

use muster_proto::time::UnixTime;
use muster_proto::x509::{
    Anchors, Certificate, Moment, PathError, Purpose, ServerName, VerifyError, check_path,
};
use proptest::prelude::*;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose,
};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::authority::{
    Authority, P256Verifier, START, TestKey, at, ca_params, device_params, server_params,
};

/// A leaf, what may lie between, and the anchors.
struct Chain {
    leaf: Vec<u8>,
    between: Vec<Vec<u8>>,
    anchor: Vec<u8>,
    purpose: Purpose,
}

impl Chain {
    fn check_at(&self, moment: Moment) -> Result<(), PathError> {
        let leaf = Certificate::parse(&self.leaf).map_err(PathError::Leaf)?;
        let certificates = [self.anchor.as_slice()];
        let anchors = Anchors { certificates: &certificates, fingerprint: None };
        let between = self.between.iter().map(Vec::as_slice);
        check_path(&leaf, between, &anchors, self.purpose, moment, &P256Verifier::default()).map(|_| ())
    }

    fn check(&self) -> Result<(), PathError> {
        self.check_at(Moment::Known(UnixTime::from_secs(START + 100)))
    }

    /// What `openssl verify` says at the same time.
    fn openssl(&self, folder: &FilePath) -> bool {
        let write = |name: &str, certificates: &[&[u8]]| {
            let path = folder.join(name);
            std::fs::write(&path, certificates.iter().map(|der| pem(der)).collect::<String>())
                .expect("writes");
            path
        };
        let between: Vec<&[u8]> = self.between.iter().map(Vec::as_slice).collect();
        let purpose = if self.purpose == Purpose::ClientAuth { "sslclient" } else { "sslserver" };
        Command::new("openssl")
            .args(["verify", "-x509_strict", "-purpose", purpose, "-attime", &(START + 100).to_string()])
            .args(["-partial_chain", "-no-CApath", "-no-CAstore"])
            .arg("-CAfile")
            .arg(write("anchor.pem", &[&self.anchor]))
            .arg("-untrusted")
            .arg(write("between.pem", &between))
            .arg(write("leaf.pem", &[&self.leaf]))
            .output()
            .expect("openssl is installed")
            .status
            .success()
    }
}

fn pem(der: &[u8]) -> String {
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", wrap(&crate::server::base64(der)))
}

fn wrap(text: &str) -> String {
    text.as_bytes().chunks(64).map(|l| std::str::from_utf8(l).expect("ASCII")).collect::<Vec<_>>().join("\n")
}

fn leaf_params() -> CertificateParams {
    device_params("dev-1", 7, START - 60, START + 3600)
}

/// A chain of root, issuing CA and leaf, after `change` to the parameters of the latter two.
fn chain_with(change: impl FnOnce(&mut CertificateParams, &mut CertificateParams)) -> Chain {
    let root = Authority::root("Root", 1);
    let mut issuing = ca_params("Issuing", BasicConstraints::Constrained(0));
    let mut leaf = leaf_params();
    change(&mut issuing, &mut leaf);
    let issuing = root.issue_authority(issuing, 2);
    let leaf = issuing.issue(&leaf, &TestKey::from_seed(3));
    Chain { leaf, between: vec![issuing.der], anchor: root.der, purpose: Purpose::ClientAuth }
}

/// Each case with what this crate must say.
fn cases() -> Vec<(&'static str, Chain, Result<(), PathError>)> {
    use PathError::{
        Expired, ExtendedKeyUsage, KeyUsage, LeafIsAuthority, NotAuthority, NotYetValid, PathLength,
        Signature, UnknownIssuer,
    };
    let unknown = |critical: bool| {
        let mut extension = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99_999, 1], vec![5, 0]);
        extension.set_criticality(critical);
        extension
    };
    let sound = || chain_with(|_, _| {});
    let bad_signature = {
        let mut chain = sound();
        *chain.leaf.last_mut().expect("not empty") ^= 1;
        chain
    };
    let impostor = {
        let other = Authority::self_signed(ca_params("Issuing", BasicConstraints::Constrained(0)), 9);
        Chain { leaf: other.issue(&leaf_params(), &TestKey::from_seed(3)), ..sound() }
    };
    let leaf_as_authority = {
        // A device's certificate signs another one.
        let root = Authority::root("Root", 1);
        let device = root.issue_authority(leaf_params(), 5);
        let leaf = device.issue(&device_params("dev-2", 8, START, START + 3600), &TestKey::from_seed(6));
        Chain { leaf, between: vec![device.der], anchor: root.der, purpose: Purpose::ClientAuth }
    };
    let too_long = {
        let root = Authority::root("Root", 1);
        let first = root.issue_authority(ca_params("First", BasicConstraints::Constrained(0)), 2);
        let second = first.issue_authority(ca_params("Second", BasicConstraints::Constrained(0)), 4);
        let leaf = second.issue(&leaf_params(), &TestKey::from_seed(3));
        Chain { leaf, between: vec![first.der, second.der], anchor: root.der, purpose: Purpose::ClientAuth }
    };
    let two_between = {
        let root = Authority::root("Root", 1);
        let first = root.issue_authority(ca_params("First", BasicConstraints::Constrained(1)), 2);
        let second = first.issue_authority(ca_params("Second", BasicConstraints::Constrained(0)), 4);
        let leaf = second.issue(&leaf_params(), &TestKey::from_seed(3));
        // In the wrong order, with a stranger.
        let between = vec![Authority::root("X", 8).der, first.der, second.der];
        Chain { leaf, between, anchor: root.der, purpose: Purpose::ClientAuth }
    };
    let anchored_below_root = {
        let chain = sound();
        Chain { anchor: chain.between[0].clone(), ..chain }
    };
    vec![
        ("sound", sound(), Ok(())),
        ("two intermediates in any order", two_between, Ok(())),
        ("the anchor is the issuing CA", anchored_below_root, Ok(())),
        ("no intermediate", Chain { between: vec![], ..sound() }, Err(UnknownIssuer)),
        ("another root", Chain { anchor: Authority::root("Other", 8).der, ..sound() }, Err(UnknownIssuer)),
        ("broken signature", bad_signature, Err(Signature(VerifyError::Invalid))),
        ("impostor of the same name", impostor, Err(Signature(VerifyError::Invalid))),
        ("a device as an issuer", leaf_as_authority, Err(NotAuthority)),
        ("path length used up", too_long, Err(PathLength)),
        ("leaf is over", chain_with(|_, l| l.not_after = at(START)), Err(Expired)),
        ("leaf begins later", chain_with(|_, l| l.not_before = at(START + 1000)), Err(NotYetValid)),
        ("issuer is over", chain_with(|i, _| i.not_after = at(START)), Err(Expired)),
        (
            "leaf for servers only",
            { chain_with(|_, l| l.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]) },
            Err(ExtendedKeyUsage),
        ),
        (
            "issuer for servers only",
            { chain_with(|i, _| i.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]) },
            Err(ExtendedKeyUsage),
        ),
        (
            "leaf may not sign",
            { chain_with(|_, l| l.key_usages = vec![KeyUsagePurpose::KeyEncipherment]) },
            Err(KeyUsage),
        ),
        (
            "issuer may not certify",
            { chain_with(|i, _| i.key_usages = vec![KeyUsagePurpose::CrlSign]) },
            Err(KeyUsage),
        ),
        (
            "leaf is a CA",
            { chain_with(|_, l| l.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)) },
            Err(LeafIsAuthority),
        ),
        (
            "unknown critical extension",
            { chain_with(|_, l| l.custom_extensions = vec![unknown(true)]) },
            Err(PathError::Leaf(muster_proto::x509::CertificateError::UnknownCriticalExtension)),
        ),
        (
            "unknown harmless extension",
            { chain_with(|_, l| l.custom_extensions = vec![unknown(false)]) },
            Ok(()),
        ),
        (
            "unknown critical extension above",
            { chain_with(|i, _| i.custom_extensions = vec![unknown(true)]) },
            Err(UnknownIssuer),
        ),
    ]
}

/// Where this crate refuses and openssl does not, on purpose.
fn is_stricter(name: &str) -> bool {
    // A CA certificate as a client: RFC 5280 allows it, no device of ours is one.
    name == "leaf is a CA"
}

#[test]
fn each_rule_refuses_for_its_own_reason_and_openssl_agrees() {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, chain, expected) in cases() {
        assert_eq!(chain.check(), expected, "{name}");
        let agreed = chain.openssl(folder.path()) == expected.is_ok();
        assert_eq!(agreed, !is_stricter(name), "openssl on: {name}");
    }
}

#[test]
fn an_unknown_time_refuses_only_what_is_certainly_over() {
    let floor = Moment::NotBefore(UnixTime::from_secs(START + 100));
    assert_eq!(chain_with(|_, _| {}).check_at(floor), Ok(()));
    assert_eq!(chain_with(|_, l| l.not_before = at(START + 1000)).check_at(floor), Ok(()));
    assert_eq!(chain_with(|_, l| l.not_after = at(START)).check_at(floor), Err(PathError::Expired));
}

#[test]
fn a_bundle_of_cross_signed_authorities_ends_at_the_budget() {
    // Ten CAs of one name and key, so that each candidate fits each other one.
    let ring: Vec<Vec<u8>> = (0..10)
        .map(|n| {
            let mut params = ca_params("Ring", BasicConstraints::Unconstrained);
            params.serial_number = Some(rcgen::SerialNumber::from_slice(&[1, n]));
            Authority::self_signed(params, 5).der
        })
        .collect();
    let issuer = Authority::self_signed(ca_params("Ring", BasicConstraints::Unconstrained), 5);
    let leaf = issuer.issue(&leaf_params(), &TestKey::from_seed(3));
    let anchor = Authority::root("Elsewhere", 6).der;
    let chain = Chain { leaf, between: ring, anchor, purpose: Purpose::ClientAuth };
    assert_eq!(chain.check(), Err(PathError::Budget));
}

#[test]
fn a_server_is_known_by_its_name_and_purpose() {
    let root = Authority::root("Root", 1);
    let leaf = root.issue(&server_params("*.example.com"), &TestKey::from_seed(4));
    let parsed = Certificate::parse(&leaf).expect("a certificate");
    let names = || parsed.extensions.subject_alt_names();
    assert!(ServerName::Dns("est.example.com").matches(names()));
    assert!(!ServerName::Dns("example.com").matches(names()));
    // The commonName is no host name, whatever it is.
    assert!(!ServerName::Dns("est").matches(names()));
    let chain = Chain { leaf, between: vec![], anchor: root.der, purpose: Purpose::ClientAuth };
    assert_eq!(chain.check(), Err(PathError::ExtendedKeyUsage));
    assert_eq!(Chain { purpose: Purpose::ServerAuth, ..chain }.check(), Ok(()));
}

#[test]
fn a_root_may_roll_over_under_the_old_one() {
    // NewWithOld (RFC 4210 §4.4): the new root's key, certified by the old root that the device still pins.
    let old = Authority::root("Old", 1);
    let new_with_old = old.issue_authority(ca_params("New", BasicConstraints::Unconstrained), 2);
    let issuing = new_with_old.issue_authority(ca_params("Issuing", BasicConstraints::Constrained(0)), 4);
    let leaf = issuing.issue(&leaf_params(), &TestKey::from_seed(3));
    let new_with_new = Authority::root("New", 2).der;
    let between = vec![new_with_new, new_with_old.der, issuing.der];
    let chain = Chain { leaf, between, anchor: old.der, purpose: Purpose::ClientAuth };
    assert_eq!(chain.check(), Ok(()));
}

/// What x509-parser reads must be what this crate reads, wherever this crate reads anything.
fn agrees_with_x509_parser(der: &[u8]) {
    let Ok(ours) = Certificate::parse(der) else { return };
    let read = X509Certificate::from_der(der);
    let (rest, theirs) =
        read.unwrap_or_else(|error| panic!("only x509-parser refuses ({error}): {der:02x?}"));
    assert!(rest.is_empty());
    assert_eq!(ours.issuer, theirs.issuer().as_raw());
    assert_eq!(ours.subject, theirs.subject().as_raw());
    assert_eq!(ours.key.spki, theirs.public_key().raw);
    assert_eq!(ours.serial, theirs.raw_serial());
    let unix = |time: x509_parser::time::ASN1Time| u64::try_from(time.timestamp()).unwrap_or(0);
    assert_eq!(ours.validity.not_before.as_secs(), unix(theirs.validity().not_before));
    assert_eq!(ours.validity.not_after.as_secs(), unix(theirs.validity().not_after));
    let theirs_ca = theirs.basic_constraints().ok().flatten().map(|found| found.value.ca);
    assert_eq!(ours.extensions.basic_constraints.map(|found| found.authority), theirs_ca);
    let theirs_usage = theirs.key_usage().ok().flatten().map(|found| found.value.digital_signature());
    assert_eq!(ours.extensions.key_usage.map(|usage| usage.digital_signature()), theirs_usage);
}

#[test]
fn x509_parser_reads_the_same_certificates() {
    for (_, chain, _) in cases() {
        std::iter::once(&chain.leaf).chain(&chain.between).for_each(|der| agrees_with_x509_parser(der));
    }
}

/// The DER of a sound leaf with its first `from` replaced by `to`.
fn edited(from: &[u8], to: &[u8]) -> Vec<u8> {
    let leaf = chain_with(|_, _| {}).leaf;
    let place = leaf.windows(from.len()).position(|window| window == from).expect("it is there");
    [&leaf[..place], to, &leaf[place + from.len()..]].concat()
}

#[test]
fn a_name_that_is_no_sequence_of_sets_refuses_the_certificate() {
    // Found by mutation: the issuer's RDN with a length past the end of the Name.
    assert!(Certificate::parse(&edited(&[0x31, 0x10, 0x30, 0x0e], &[0x31, 0x50, 0x30, 0x0e])).is_err());
}

#[test]
fn a_key_s_algorithm_with_broken_parameters_refuses_the_certificate() {
    // Found by mutation: the algorithm's OID reaches into its parameters, which then are no value.
    assert!(Certificate::parse(&edited(&[0x06, 0x07, 0x2a, 0x86], &[0x06, 0x0a, 0x2a, 0x86])).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_mutated_certificate_is_read_alike_or_refused(
        place: prop::sample::Index, bits in 1..=255_u8, cut: Option<prop::sample::Index>,
    ) {
        thread_local! {
            static LEAF: Vec<u8> = chain_with(|_, _| {}).leaf;
        }
        let mut der = LEAF.with(Clone::clone);
        let at = place.index(der.len());
        der[at] ^= bits;
        if let Some(cut) = cut.filter(|_| bits > 200) {
            der.truncate(cut.index(der.len()));
        }
        agrees_with_x509_parser(&der);
    }

    #[test]
    fn a_mutated_leaf_never_passes(place: prop::sample::Index, bits in 1..=255_u8) {
        thread_local! {
            static SOUND: Chain = chain_with(|_, _| {});
        }
        SOUND.with(|sound| {
            let mut leaf = sound.leaf.clone();
            let at = place.index(leaf.len());
            leaf[at] ^= bits;
            let chain = Chain {
                leaf, between: sound.between.clone(), anchor: sound.anchor.clone(), purpose: sound.purpose,
            };
            prop_assert!(chain.check().is_err());
            Ok(())
        })?;
    }
}
