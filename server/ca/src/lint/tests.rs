//! Each rule is broken once, by a certificate that is good but for that.

use der::asn1::ObjectIdentifier;
use muster_policy::profile::ProfileWritten;
use proptest::prelude::*;

use super::*;
use crate::fixtures::{self, serial};
use crate::tlv;

/// A device certificate as it is signed, and the key in it.
fn good() -> (Vec<u8>, SubjectKey) {
    let csr = fixtures::csr();
    let grant = fixtures::grant(csr.wish(), &ProfileWritten { crl_url: Some(true), ..Default::default() });
    let crl = Some("http://crl.example.com/1.crl");
    let prepared = fixtures::devices().prepare(&grant, csr.subject_key(), serial(9), crl).expect("is good");
    (prepared.tbs_der().to_vec(), csr.subject_key().clone())
}

fn check_client(tbs: &[u8], key: &SubjectKey) -> Result<(), Lint> {
    check(tbs, Role::Client, &fixtures::devices().view(), key)
}

/// The section of the rule that a change of one member of the TBSCertificate breaks.
fn broken_by(place: usize, change: impl FnOnce(&[u8]) -> Vec<u8>) -> &'static str {
    let (tbs, key) = good();
    let mut members: Vec<Vec<u8>> =
        tlv::split(&tbs).expect("members").into_iter().map(<[u8]>::to_vec).collect();
    members[place] = change(&members[place]);
    let changed = tlv::element(tlv::SEQUENCE, &[&members.concat()]);
    check_client(&changed, &key).expect_err("a rule must be broken").section
}

/// The section of the rule that a change of the list of extensions breaks.
fn broken_by_extensions(change: impl FnOnce(&mut Vec<Vec<u8>>)) -> &'static str {
    broken_by(7, |tagged| {
        let list = tagged[tagged.len() - inner_length(tagged)..].to_vec();
        let mut members: Vec<Vec<u8>> =
            tlv::split(&list).expect("extensions").into_iter().map(<[u8]>::to_vec).collect();
        change(&mut members);
        tlv::element(0xa3, &[&tlv::element(tlv::SEQUENCE, &[&members.concat()])])
    })
}

/// Octets of the contents, for a length in two octets (0x81) or three (0x82).
fn inner_length(tagged: &[u8]) -> usize {
    match tagged[1] {
        0x81 => tagged.len() - 3,
        0x82 => tagged.len() - 4,
        _ => tagged.len() - 2,
    }
}

fn extension(dotted: &str, critical: bool, value: &[u8]) -> Vec<u8> {
    let oid = tlv::oid(&ObjectIdentifier::new(dotted).expect("an OID"));
    let flag: &[u8] = if critical { &[1, 1, 0xff] } else { &[] };
    tlv::element(tlv::SEQUENCE, &[&oid, flag, &tlv::element(tlv::OCTET_STRING, &[value])])
}

/// Puts an extension in the place of the one of the same kind.
fn replaced(dotted: &str, critical: bool, value: &[u8]) -> &'static str {
    broken_by_extensions(|list| {
        let oid = tlv::oid(&ObjectIdentifier::new(dotted).expect("an OID"));
        list.retain(|member| !member.windows(oid.len()).any(|window| window == oid));
        list.push(extension(dotted, critical, value));
    })
}

#[test]
fn a_good_certificate_breaks_no_rule() {
    let (tbs, key) = good();
    assert_eq!(check_client(&tbs, &key), Ok(()));
}

#[test]
fn the_fixed_fields_are_held_to_their_sections() {
    let name = |text: &[u8]| {
        let cn = [tlv::oid(&ObjectIdentifier::new_unwrap("2.5.4.3")), tlv::element(0x0c, &[text])].concat();
        tlv::element(tlv::SEQUENCE, &[&tlv::element(tlv::SET, &[&tlv::element(tlv::SEQUENCE, &[&cn])])])
    };
    let validity = |not_before: &str, not_after: &str| {
        let times = [not_before, not_after].map(|time| tlv::element(0x17, &[time.as_bytes()])).concat();
        tlv::element(tlv::SEQUENCE, &[&times])
    };
    assert_eq!(broken_by(0, |_| tlv::element(0xa0, &[&[2, 1, 1]])), "4.1.2.1");
    assert_eq!(broken_by(1, |_| vec![2, 1, 0]), "4.1.2.2");
    assert_eq!(
        broken_by(2, |_| crate::signature::SignatureAlgorithm::RsaPkcs1Sha256.identifier_der()),
        "4.1.2.3"
    );
    assert_eq!(broken_by(3, |_| name(b"another CA")), "4.1.2.4");
    assert_eq!(broken_by(4, |_| validity("270115080000Z", "260115080000Z")), "4.1.2.5");
    assert_eq!(broken_by(4, |_| validity("200115080000Z", "270415080000Z")), "4.1.2.5");
    assert_eq!(broken_by(4, |_| validity("270115080000Z", "450115080000Z")), "4.1.2.5");
    assert_eq!(broken_by(5, |_| tlv::element(tlv::SEQUENCE, &[])), "4.1.2.6");
    assert_eq!(broken_by(5, |_| name(b"a\nb")), "4.1.2.6");
    assert_eq!(broken_by(5, |_| name(&[b'a'; 65])), "4.1.2.6");
    assert_eq!(broken_by(6, |_| fixtures::csr().subject_key().spki_der().to_vec()), "4.1.2.7");
    assert_eq!(broken_by(6, |key| [key, &[0x81, 2, 0, 1]].concat()), "4.1.2.8");
}

#[test]
fn the_extensions_are_held_to_their_sections() {
    assert_eq!(broken_by_extensions(|list| list.push(list[0].clone())), "4.2");
    assert_eq!(broken_by_extensions(|list| list.push(extension("1.2.3.4", false, &[5, 0]))), "4.2");
    assert_eq!(replaced("2.5.29.35", false, &[0x30, 3, 0x80, 1, 7]), "4.2.1.1");
    assert_eq!(replaced("2.5.29.14", false, &[4, 1, 7]), "4.2.1.2");
    // Not critical; then keyCertSign.
    assert_eq!(replaced("2.5.29.15", false, &[3, 2, 7, 0x80]), "4.2.1.3");
    assert_eq!(replaced("2.5.29.15", true, &[3, 2, 2, 0x84]), "4.2.1.3");
    // No name; an empty DNS name; a relative URI; a mail address.
    assert_eq!(replaced("2.5.29.17", false, &[0x30, 0]), "4.2.1.6");
    assert_eq!(replaced("2.5.29.17", false, &[0x30, 2, 0x82, 0]), "4.2.1.6");
    assert_eq!(replaced("2.5.29.17", false, &[0x30, 4, 0x86, 2, b'/', b'a']), "4.2.1.6");
    assert_eq!(replaced("2.5.29.17", false, &[0x30, 5, 0x81, 3, b'a', b'@', b'b']), "4.2.1.6");
    assert_eq!(replaced("2.5.29.19", true, &[0x30, 3, 1, 1, 0xff]), "4.2.1.9");
    assert_eq!(broken_by_extensions(|list| list.push(extension("2.5.29.30", true, &[0x30, 0]))), "4.2.1.10");
    // serverAuth instead of clientAuth.
    assert_eq!(replaced("2.5.29.37", false, &[0x30, 10, 6, 8, 0x2b, 6, 1, 5, 5, 7, 3, 1]), "4.2.1.12");
    let https = b"\x30\x11\x30\x0f\xa0\x0d\xa0\x0b\x86\x09https://a";
    assert_eq!(replaced("2.5.29.31", false, https), "4.2.1.13");
}

#[test]
fn an_issuer_of_one_purpose_issues_for_no_other() {
    let (tbs, key) = good();
    let mut view = fixtures::devices().view();
    view.purposes = Some(&[SERVER_AUTH]);
    let broken = check(&tbs, Role::Client, &view, &key).expect_err("a rule must be broken");
    assert_eq!(broken.rule, "the issuer may issue for this purpose");
}

#[test]
fn a_certificate_beyond_one_tls_record_is_refused() {
    assert_eq!(
        broken_by_extensions(|list| list.push(extension("1.2.3.4", false, &[0; TBS_MAX_BYTES]))),
        "4.1"
    );
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        let (_, key) = good();
        prop_assert!(check_client(&bytes, &key).is_err());
    }
}
