//! One test per rule of the decision, and properties that hold for every grant.

use proptest::prelude::*;

use super::*;
use crate::profile::ProfileWritten;

const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);

fn device() -> DeviceId {
    "meter-1".parse().expect("valid")
}

fn trust_domain() -> TrustDomain {
    "example.test".parse().expect("valid")
}

fn profile(written: &ProfileWritten) -> Profile {
    written.check("default".parse().expect("valid")).expect("valid profile")
}

fn common_name(text: &str) -> SubjectAttribute {
    SubjectAttribute { oid: OID_COMMON_NAME.into(), text: text.into() }
}

fn wish() -> Wish {
    Wish {
        key: WishedKey::Curve(KeyKind::EcdsaP256),
        key_fingerprint: KeyFingerprint::from_bytes([1; 32]),
        subject: vec![common_name("meter-1")],
        sans: vec![],
        changes_subject: false,
    }
}

fn token() -> Caller {
    Caller::Token { device: device(), token: TokenTerms::default() }
}

fn holder() -> Caller {
    holder_under("default")
}

fn holder_under(profile: &str) -> Caller {
    Caller::Holder(Held {
        device: device(),
        profile: profile.parse().expect("a label"),
        subject: vec![common_name("meter-1")],
        sans: vec![San::Uri("spiffe://example.test/device/meter-1".into())],
        not_after: NOW.plus(Duration::from_secs(10)),
    })
}

fn decide_with(
    wish: &Wish,
    caller: &Caller,
    written: &ProfileWritten,
    status: DeviceStatus,
) -> Result<Grant, Reason> {
    let trust_domain = trust_domain();
    let setting = Setting {
        trust_domain: &trust_domain,
        device_status: status,
        issuer_not_after: UnixTime::MAX,
        now: NOW,
        spread: 7,
    };
    enrol(wish, caller, &profile(written), setting).map_err(|refusal| refusal.reason)
}

fn decide(wish: &Wish, caller: &Caller) -> Result<Grant, Reason> {
    decide_with(wish, caller, &ProfileWritten::default(), DeviceStatus::Active)
}

#[test]
fn grants_the_device_its_own_names_and_no_others() {
    let grant = decide(&wish(), &token()).expect("granted");
    assert_eq!(grant.device(), &device());
    assert_eq!(grant.sans(), [San::Uri("spiffe://example.test/device/meter-1".into())]);
    assert_eq!(grant.not_before(), NOW.minus(Duration::from_secs(300)));
    assert_eq!(grant.not_after(), NOW.plus(Duration::from_secs(90 * 86_400)));
}

#[test]
fn refuses_another_devices_name() {
    let wish = Wish { subject: vec![common_name("meter-2")], ..wish() };
    assert_eq!(decide(&wish, &token()), Err(Reason::NameMismatch));
}

#[test]
fn compares_the_common_name_exactly() {
    let wish = Wish { subject: vec![common_name("METER-1")], ..wish() };
    assert_eq!(decide(&wish, &token()), Err(Reason::NameMismatch));
}

#[test]
fn refuses_no_name_and_two_names() {
    assert_eq!(decide(&Wish { subject: vec![], ..wish() }, &token()), Err(Reason::SubjectEmpty));
    let two = vec![common_name("meter-1"), common_name("meter-1")];
    assert_eq!(decide(&Wish { subject: two, ..wish() }, &token()), Err(Reason::SubjectAmbiguous));
}

#[test]
fn refuses_wildcards_and_control_characters() {
    for text in ["meter-1\0", "*", "meter\n1"] {
        let wish = Wish { subject: vec![common_name(text)], ..wish() };
        assert_eq!(decide(&wish, &token()), Err(Reason::NameMalformed));
    }
    let wish = Wish { sans: vec![San::Dns("*.example.test".into())], ..wish() };
    assert_eq!(decide(&wish, &token()), Err(Reason::NameMalformed));
}

#[test]
fn says_which_subject_attributes_were_not_taken_over() {
    let organization = SubjectAttribute { oid: "2.5.4.10".into(), text: "Evil Inc".into() };
    let wish = Wish { subject: vec![organization, common_name("meter-1")], ..wish() };
    assert_eq!(decide(&wish, &token()).expect("granted").dropped(), ["/csr/subject/2.5.4.10"]);
}

#[test]
fn refuses_foreign_and_excessive_alternative_names() {
    let foreign = Wish { sans: vec![San::Dns("bank.example".into())], ..wish() };
    assert_eq!(decide(&foreign, &token()), Err(Reason::SanForbidden));
    let other = Wish { sans: vec![San::Uri("spiffe://example.test/device/meter-2".into())], ..wish() };
    assert_eq!(decide(&other, &token()), Err(Reason::SanForbidden));
    let many = Wish { sans: vec![San::Dns("meter-1".into()); SAN_MAX + 1], ..wish() };
    assert_eq!(decide(&many, &token()), Err(Reason::SanExcessive));
}

#[test]
fn grants_the_device_id_as_a_dns_name_once() {
    let wish = Wish { sans: vec![San::Dns("meter-1".into()); 2], ..wish() };
    let grant = decide(&wish, &token()).expect("granted");
    assert_eq!(grant.sans().iter().filter(|san| matches!(san, San::Dns(_))).count(), 1);
}

#[test]
fn adds_the_dns_name_of_a_profile_with_a_suffix() {
    let written = ProfileWritten { dns_suffix: Some("devices.example.test".into()), ..Default::default() };
    let grant = decide_with(&wish(), &token(), &written, DeviceStatus::Active).expect("granted");
    assert!(grant.sans().contains(&San::Dns("meter-1.devices.example.test".into())));
}

#[test]
fn refuses_weak_and_unlisted_keys() {
    let with = |key| Wish { key, ..wish() };
    assert_eq!(decide(&with(WishedKey::Unknown), &token()), Err(Reason::KeyWeak));
    assert_eq!(decide(&with(WishedKey::Rsa { bits: 1024 }), &token()), Err(Reason::KeyWeak));
    assert_eq!(decide(&with(WishedKey::Rsa { bits: 8192 }), &token()), Err(Reason::KeyWeak));
    assert!(decide(&with(WishedKey::Rsa { bits: 2048 }), &token()).is_ok());
    assert_eq!(decide(&with(WishedKey::Curve(KeyKind::Ed25519)), &token()), Err(Reason::KeyKindForbidden));
}

#[test]
fn a_suspended_or_retired_device_gets_nothing() {
    let decide = |status| decide_with(&wish(), &token(), &ProfileWritten::default(), status);
    assert_eq!(decide(DeviceStatus::Suspended), Err(Reason::DeviceSuspended));
    assert_eq!(decide(DeviceStatus::Retired), Err(Reason::DeviceRetired));
}

#[test]
fn a_token_binds_key_and_profile() {
    let bound = |terms| Caller::Token { device: device(), token: terms };
    let key = TokenTerms { key: Some(KeyFingerprint::from_bytes([2; 32])), profile: None };
    assert_eq!(decide(&wish(), &bound(key)), Err(Reason::TokenKeyMismatch));
    let profile = TokenTerms { key: None, profile: Some("other".parse().expect("valid")) };
    assert_eq!(decide(&wish(), &bound(profile)), Err(Reason::ProfileForbidden));
}

#[test]
fn a_profile_decides_which_credentials_are_enough() {
    let manufacturer = Caller::Manufacturer { device: device() };
    let both = Caller::ManufacturerAndToken { device: device(), token: TokenTerms::default() };
    let with = |rule, caller: &Caller| {
        let written = ProfileWritten { credentials: Some(rule), ..Default::default() };
        decide_with(&wish(), caller, &written, DeviceStatus::Active).map(|_| ())
    };
    let missing = Err(Reason::CredentialsMissing);
    assert_eq!(with(CredentialRule::CertificateAndToken, &token()), missing);
    assert_eq!(with(CredentialRule::CertificateAndToken, &manufacturer), missing);
    assert_eq!(with(CredentialRule::CertificateAndToken, &both), Ok(()));
    assert_eq!(with(CredentialRule::Token, &manufacturer), missing);
    assert_eq!(with(CredentialRule::Certificate, &token()), missing);
    assert_eq!(with(CredentialRule::CertificateAndToken, &holder()), Ok(()));
}

#[test]
fn a_holder_under_another_profile_gets_past_no_rule_for_credentials_and_approval() {
    let with = |holder: &Caller, credentials, approval| {
        let written = ProfileWritten { credentials, approval, ..Default::default() };
        decide_with(&wish(), holder, &written, DeviceStatus::Active).map(|_| ())
    };
    let other = holder_under("other");
    assert_eq!(with(&other, Some(CredentialRule::Any), None), Ok(()));
    for rule in [CredentialRule::Token, CredentialRule::Certificate, CredentialRule::CertificateAndToken] {
        assert_eq!(with(&other, Some(rule), None), Err(Reason::ProfileForbidden), "{rule:?}");
    }
    assert_eq!(with(&other, None, Some(Approval::Manual)), Err(Reason::ProfileForbidden));
    assert_eq!(with(&holder(), None, Some(Approval::Manual)), Ok(()), "a person has agreed");
}

#[test]
fn a_renewal_keeps_subject_and_alternative_names() {
    assert!(decide(&wish(), &holder()).is_ok());
    let grown = vec![common_name("meter-1"), SubjectAttribute { oid: "2.5.4.10".into(), text: "x".into() }];
    assert_eq!(decide(&Wish { subject: grown, ..wish() }, &holder()), Err(Reason::SubjectChanged));
    let san = Wish { sans: vec![San::Dns("meter-1".into())], ..wish() };
    assert_eq!(decide(&san, &holder()), Err(Reason::SanChanged));
    // As of the certificate that the same request had got.
    let Caller::Holder(mut held) = holder() else { unreachable!("a holder") };
    held.sans.push(San::Dns("meter-1".into()));
    let grant =
        decide(&san, &Caller::Holder(held.clone())).expect("the names that policy added are no change");
    assert_eq!(grant.sans(), held.sans);
    let fewer = Wish { sans: vec![held.sans[0].clone()], ..wish() };
    assert_eq!(decide(&fewer, &Caller::Holder(held)), Err(Reason::SanChanged));
    let changes = Wish { changes_subject: true, ..wish() };
    assert_eq!(decide(&changes, &holder()), Err(Reason::SubjectChangeUnsupported));
}

#[test]
fn no_certificate_outlives_its_issuer() {
    let trust_domain = trust_domain();
    let setting = |issuer_not_after| Setting {
        trust_domain: &trust_domain,
        device_status: DeviceStatus::Active,
        issuer_not_after,
        now: NOW,
        spread: 0,
    };
    let profile = profile(&ProfileWritten { approval: Some(Approval::Automatic), ..Default::default() });
    let end = NOW.plus(Duration::from_secs(5));
    assert_eq!(enrol(&wish(), &token(), &profile, setting(end)).expect("granted").not_after(), end);
    let refusal = enrol(&wish(), &token(), &profile, setting(NOW)).expect_err("nothing left");
    assert_eq!(refusal.reason, Reason::CaUnavailable);
}

proptest! {
    #[test]
    fn renewal_times_are_ordered(lifetime_s in 60u64..300_000_000, from in 1u8..98, spread: u32) {
        let written = ProfileWritten {
            lifetime_s: Some(lifetime_s),
            renew_from_percent: Some(from),
            ..Default::default()
        };
        let trust_domain = trust_domain();
        let setting = Setting {
            trust_domain: &trust_domain,
            device_status: DeviceStatus::Active,
            issuer_not_after: UnixTime::MAX,
            now: NOW,
            spread,
        };
        let grant = enrol(&wish(), &token(), &profile(&written), setting).expect("granted");
        prop_assert!(NOW <= grant.renewal().renew_at());
        prop_assert!(grant.renewal().renew_at() <= grant.renewal().urgent_at());
        prop_assert!(grant.renewal().urgent_at() <= grant.not_after());
    }

    #[test]
    fn no_wish_gets_a_name_that_is_not_its_own(text in "\\PC{0,20}", dns in "[a-z.*]{0,20}") {
        let wish = Wish { subject: vec![common_name(&text)], sans: vec![San::Dns(dns)], ..wish() };
        if let Ok(grant) = decide(&wish, &token()) {
            prop_assert_eq!(text, "meter-1");
            for san in grant.sans() {
                prop_assert!(san.text() == "meter-1" || san.text() == "spiffe://example.test/device/meter-1");
            }
        }
    }
}
