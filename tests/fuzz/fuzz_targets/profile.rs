//! A profile of the admin API is checked or refused; a checked one keeps its order of dates.
#![no_main]

use muster_policy::profile::ProfileWritten;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(written) = serde_json::from_slice::<ProfileWritten>(data) else { return };
    if let Ok(profile) = written.check("fuzz".parse().expect("a label")) {
        assert!(profile.renew_from_percent < profile.renew_urgent_percent);
    }
});
