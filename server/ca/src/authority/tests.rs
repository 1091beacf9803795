//! Roots, issuing CAs and what leads from one root to the next.

use super::*;
use crate::file_key::CaAlgorithm;
use crate::fixtures::{self, serial};

#[test]
fn a_root_stands_over_one_level_of_issuing_cas() {
    let root = fixtures::account_root().certificate();
    assert!(root.is_self_issued());
    assert_eq!(root.path_length(), Some(ROOT_PATH_LENGTH));
    assert_eq!(root.purposes(), None);
    let issuing = fixtures::devices().certificate();
    assert_eq!(issuing.path_length(), Some(0));
    assert_eq!(issuing.issuer_der(), root.subject_der());
    assert_eq!(issuing.purposes(), Some(&[CLIENT_AUTH][..]));
    assert!(issuing.signs_crls());
    assert_eq!(root.subject(), "CN=Root,O=Example");
}

#[test]
fn an_issuing_ca_has_no_cas_below_it() {
    let key = fixtures::key(CaAlgorithm::EcdsaP256);
    let settings = fixtures::settings("Below", 1);
    let refused = new_issuing(fixtures::devices(), &settings, Purpose::Devices, &[], key, serial(3));
    assert_eq!(refused.expect_err("must be refused"), AuthorityError::PathLength);
}

#[test]
fn an_issuing_ca_never_outlives_its_root() {
    let key = fixtures::key(CaAlgorithm::EcdsaP256);
    let settings = fixtures::settings("Long", 21);
    let refused = new_issuing(fixtures::account_root(), &settings, Purpose::Devices, &[], key, serial(3));
    assert!(matches!(refused, Err(AuthorityError::Lint(Lint { section: "4.1.2.5", .. }))));
}

#[test]
fn a_name_that_is_too_long_is_refused() {
    let key = fixtures::key(CaAlgorithm::EcdsaP256);
    let settings = fixtures::settings(&"a".repeat(65), 20);
    let refused = new_root(&settings, ROOT_PATH_LENGTH, key, serial(1));
    assert!(matches!(refused, Err(AuthorityError::Lint(Lint { section: "4.1.2.6", .. }))));
}

#[test]
fn an_issuing_ca_can_be_limited_to_dns_domains() {
    let key = fixtures::key(CaAlgorithm::EcdsaP256);
    let settings = fixtures::settings("Limited", 5);
    let domains = ["example.com".parse().expect("a name")];
    let issuer = new_issuing(fixtures::account_root(), &settings, Purpose::Devices, &domains, key, serial(4))
        .expect("an issuing CA");
    // permittedSubtrees [0] { { dNSName } }
    let constraint = b"\x30\x11\xa0\x0f\x30\x0d\x82\x0bexample.com";
    assert!(issuer.certificate().der().windows(constraint.len()).any(|window| window == constraint));
}

#[test]
fn rollover_certificates_carry_the_names_and_keys_of_both_roots() {
    let old = fixtures::account_root();
    let new = fixtures::root("Root", CaAlgorithm::EcdsaP384);
    let Rollover { old_with_new, new_with_old } =
        roll_over(old, &new, [serial(20), serial(21)]).expect("rolls over");
    let (old, new) = (old.certificate(), new.certificate());
    assert_eq!(old_with_new.subject_key(), old.subject_key());
    assert_eq!(old_with_new.key_id(), old.key_id());
    assert_eq!(old_with_new.subject_der(), old.subject_der());
    assert_eq!(old_with_new.verify_signed_by(new.subject_key()), Ok(()));
    assert_eq!(new_with_old.subject_key(), new.subject_key());
    assert_eq!(new_with_old.verify_signed_by(old.subject_key()), Ok(()));
    assert_eq!((old_with_new.not_after(), new_with_old.not_after()), (old.not_after(), old.not_after()));
}

#[test]
fn a_key_that_is_not_certified_makes_no_issuer() {
    let other = fixtures::key(CaAlgorithm::EcdsaP256);
    let refused = Issuer::new(fixtures::account_root().certificate().der(), other);
    assert_eq!(refused.expect_err("must be refused"), IssuerError::KeyMismatch);
}
