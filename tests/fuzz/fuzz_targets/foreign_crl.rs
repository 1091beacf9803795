//! A revocation list of another CA is a sorted set of serials, or refused with the reason.
#![no_main]

use muster_ca::certificate::CaCertificate;
use muster_ca::foreign_crl::{ENTRIES_MAX, read};

const CA: &[u8] = include_bytes!("../crl_ca.der");

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let now = muster_policy::time::UnixTime::from_secs(1_795_600_000);
    let ca = CaCertificate::parse(CA).expect("a CA");
    if let Ok(list) = read(data, &ca, Some("http://crl.example.test/ca.crl"), now) {
        assert!(list.revoked.len() <= ENTRIES_MAX);
        assert!(list.revoked.is_sorted_by(|one, next| one.serial < next.serial));
        assert!(list.next_update > now);
    }
});
