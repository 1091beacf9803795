//! Lists that are taken, and each reason why one is not.

use super::*;
use crate::crl::CrlSettings;
use crate::fixtures::{self, NOW, serial};
use crate::issuer::Issuer;
use crate::tbs;
use muster_policy::revocation::RevocationReason;

const DAY: Duration = Duration::from_secs(86_400);

fn settings(number: u64) -> CrlSettings {
    CrlSettings { number, this_update: NOW, next_update: NOW.plus(DAY) }
}

fn revoked(number: u64) -> Revoked {
    Revoked { serial: serial(number), revoked_at: NOW, reason: RevocationReason::KeyCompromise }
}

fn ca() -> &'static Issuer {
    fixtures::devices()
}

fn take(der: &[u8]) -> Result<ForeignCrl, ForeignCrlError> {
    read(der, ca().certificate(), None, NOW)
}

/// A list of version 2 with these entries and list extensions, each given whole.
fn list(entries: &[u8], extensions: &[&[u8]]) -> Vec<u8> {
    let end = b"\x18\x0f20500101000000Z";
    let begin = b"\x17\x0d270101000000Z";
    let entries = if entries.is_empty() { Vec::new() } else { tlv::element(tlv::SEQUENCE, &[entries]) };
    let extensions = tlv::element(tlv::CONTEXT_0, &[&tlv::element(tlv::SEQUENCE, extensions)]);
    let tbs = tlv::element(
        tlv::SEQUENCE,
        &[
            &tlv::element(tlv::INTEGER, &[&[1]]),
            &ca().signer().algorithm().identifier_der(),
            ca().certificate().subject_der(),
            begin,
            end,
            &entries,
            &extensions,
        ],
    );
    tbs::sign(&tbs, &**ca().signer()).expect("signs")
}

fn extension(kind: &ObjectIdentifier, critical: bool, value: &[u8]) -> Vec<u8> {
    let critical: &[u8] = if critical { &[1, 1, 0xff] } else { &[] };
    tlv::element(tlv::SEQUENCE, &[&tlv::oid(kind), critical, &tlv::element(tlv::OCTET_STRING, &[value])])
}

fn numbered(number: &[u8]) -> Vec<u8> {
    extension(&CRL_NUMBER, false, &tlv::unsigned(number))
}

fn entry(serial: &[u8], extensions: &[&[u8]]) -> Vec<u8> {
    let extensions = if extensions.is_empty() { Vec::new() } else { tlv::element(tlv::SEQUENCE, extensions) };
    tlv::element(tlv::SEQUENCE, &[&tlv::unsigned(serial), b"\x17\x0d270101000000Z", &extensions])
}

fn because(code: u8) -> Vec<u8> {
    extension(&REASON_CODE, false, &tlv::element(tlv::ENUMERATED, &[&[code]]))
}

#[test]
fn takes_pem_and_der_and_sorts_what_it_says() {
    let der = ca().sign_crl(&settings(300), [revoked(9), revoked(7), revoked(8)]).expect("signs");
    let taken = take(&der).expect("taken");
    assert_eq!(taken.revoked, [7, 8, 9].map(revoked));
    assert_eq!((taken.number.as_slice(), taken.this_update), ([1, 44].as_slice(), NOW));
    assert_eq!(taken.next_update, NOW.plus(DAY));
    let text = pem::encode(&pem::Pem::new("X509 CRL", der.clone()));
    assert_eq!(take(text.as_bytes()).expect("taken"), taken);
    assert_eq!(taken.der, der);
    let empty = ca().sign_crl(&settings(1), []).expect("signs");
    assert!(take(&empty).expect("taken").revoked.is_empty());
}

#[test]
fn an_entry_that_takes_back_revokes_nothing_and_unknown_reasons_revoke() {
    let entries = [
        entry(&[1], &[&because(8)]),
        entry(&[2], &[&because(6)]),
        entry(&[3], &[&because(10)]),
        entry(&[2], &[]),
    ];
    let taken = take(&list(&entries.concat(), &[&numbered(&[5])])).expect("taken");
    let said: Vec<(u8, RevocationReason)> =
        taken.revoked.iter().map(|one| (one.serial.as_bytes()[0], one.reason)).collect();
    assert_eq!(said, [(2, RevocationReason::CertificateHold), (3, RevocationReason::Unspecified)]);
}

#[test]
fn what_is_not_a_full_list_of_this_ca_is_refused() {
    use ForeignCrlError as Error;
    type Expected = fn(&Error) -> bool;
    let number = numbered(&[5]);
    let scope = |inner: &[u8]| extension(&DISTRIBUTION_POINT, true, &tlv::element(tlv::SEQUENCE, &[inner]));
    let unknown = ObjectIdentifier::new_unwrap("1.2.3.4");
    let strange = extension(&unknown, true, b"\x05\x00");
    let cases: [(Vec<u8>, Expected); 10] = [
        (list(b"", &[]), |error| *error == Error::NoNumber),
        (list(b"", &[&number, &extension(&DELTA_INDICATOR, true, &[2, 1, 1])]), |e| *e == Error::Delta),
        (list(b"", &[&number, &scope(&[0x84, 1, 0xff])]), |error| *error == Error::Indirect),
        (list(b"", &[&number, &scope(&[0xa0, 5, 0xa0, 3, 0x86, 1, b'u'])]), |error| {
            *error == Error::Point { found: "u".to_owned() }
        }),
        (list(b"", &[&number, &scope(&[0x82, 1, 0xff])]), |error| matches!(error, Error::Partial(_))),
        (list(b"", &[&number, &scope(&[0x85, 1, 0xff])]), |error| matches!(error, Error::Partial(_))),
        (list(b"", &[&number, &strange]), |error| matches!(error, Error::UnknownCritical(_))),
        (list(&entry(&[1], &[&strange]), &[&number]), |error| matches!(error, Error::UnknownCritical(_))),
        (list(&entry(&[1], &[&extension(&CERTIFICATE_ISSUER, true, &[0x30, 0])]), &[&number]), |error| {
            *error == Error::Indirect
        }),
        (list(b"", &[&numbered(&[1; 21])]), |error| matches!(error, Error::Malformed(_))),
    ];
    for (number, (der, is_expected)) in cases.iter().enumerate() {
        let error = take(der).expect_err("refused");
        assert!(is_expected(&error), "{number}: {error}");
    }
    take(&list(b"", &[&number, &extension(&unknown, false, b"\x05\x00")])).expect("not critical");
    take(&list(b"", &[&number, &scope(&[0x81, 1, 0xff])])).expect("of leaves");
    assert!(take(&list(b"", &[&numbered(&[0])])).expect("number 0").number.is_empty());
}

/// Some CAs name the point in lists that are complete; two of them would be parts.
#[test]
fn a_list_of_a_distribution_point_is_taken_at_somebody_s_word_for_that_point() {
    let at = |scope: &[u8]| {
        let scope = tlv::element(tlv::SEQUENCE, &[scope]);
        list(b"", &[&numbered(&[1]), &extension(&DISTRIBUTION_POINT, true, &scope)])
    };
    // fullName: the URIs u and v, in any order; nameRelativeToCRLIssuer.
    let (both, relative) = ([0xa0, 8, 0xa0, 6, 0x86, 1, b'u', 0x86, 1, b'v'], [0xa0, 4, 0xa1, 2, 0x31, 0]);
    let read = |der: &[u8], point| read(der, ca().certificate(), point, NOW);
    for point in ["u", "v"] {
        read(&at(&both), Some(point)).expect("the point that was named");
    }
    for point in [None, Some("w"), Some(""), Some("uv")] {
        let refused = read(&at(&both), point).expect_err("another point");
        assert_eq!(refused, ForeignCrlError::Point { found: "u".to_owned() });
    }
    read(&at(&relative), Some("u")).expect_err("of no URI");
    // The word is about the point alone.
    let some_reasons = [&both[..], &[0x83, 2, 0, 0x80]].concat();
    assert!(matches!(read(&at(&some_reasons), Some("u")), Err(ForeignCrlError::Partial(_))));
    // And a list without any is complete as ever.
    read(&list(b"", &[&numbered(&[1])]), Some("u")).expect("complete");
}

#[test]
fn a_list_of_another_ca_or_another_time_is_refused() {
    let der = ca().sign_crl(&settings(1), [revoked(7)]).expect("signs");
    let read_at = |now| read(&der, ca().certificate(), None, now);
    let next_update = NOW.plus(DAY);
    assert_eq!(read_at(next_update), Err(ForeignCrlError::Ended { next_update }));
    assert_eq!(read_at(NOW.minus(DAY)), Err(ForeignCrlError::Future { this_update: NOW }));
    // The same name, another key.
    let twin = fixtures::issuing(fixtures::account_root(), crate::authority::Purpose::Devices);
    assert_eq!(read(&der, twin.certificate(), None, NOW), Err(ForeignCrlError::WrongSignature));
    let root = fixtures::account_root().certificate();
    assert!(matches!(read(&der, root, None, NOW), Err(ForeignCrlError::WrongIssuer { .. })));
    let mut spoilt = der.clone();
    // The last octet of the name of the reason: still well-formed.
    let place = der.windows(3).rposition(|octets| octets == [0x0a, 1, 1]).expect("a reason");
    spoilt[place + 2] = 2;
    assert_eq!(take(&spoilt), Err(ForeignCrlError::WrongSignature));
}

#[test]
fn what_is_no_list_is_refused_in_words() {
    let der = ca().sign_crl(&settings(1), [revoked(7)]).expect("signs");
    let twice = pem::encode(&pem::Pem::new("X509 CRL", der.clone())).repeat(2);
    let certificate = pem::encode(&pem::Pem::new("CERTIFICATE", der.clone()));
    for octets in [
        &b""[..],
        b"0",
        b"hello",
        b"\xff\xfe",
        &der[..der.len() - 1],
        twice.as_bytes(),
        certificate.as_bytes(),
    ] {
        assert!(matches!(take(octets), Err(ForeignCrlError::Malformed(_))), "{octets:02x?}");
    }
    let longer = [der.as_slice(), b"\0"].concat();
    assert!(matches!(take(&longer), Err(ForeignCrlError::Malformed(_))));
    let many = ca().sign_crl(&settings(1), (0..110_000).map(revoked)).expect("signs");
    assert_eq!(take(&many), Err(ForeignCrlError::TooLarge));
    let short: Vec<u8> =
        (0..100_001_u32).flat_map(|number| entry(&(number + 1).to_be_bytes(), &[])).collect();
    assert_eq!(take(&list(&short, &[&numbered(&[1])])), Err(ForeignCrlError::TooMany));
    assert_eq!(take(&vec![b'0'; 7 << 20]), Err(ForeignCrlError::TooLarge));
}
