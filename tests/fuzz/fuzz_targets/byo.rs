//! A bundle is a CA with its path, or refused with the reason.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| {
    let now = muster_policy::time::UnixTime::from_secs(1_800_000_000);
    if let Ok(imported) = muster_ca::byo::import(text, None, now) {
        assert!((1..=muster_ca::byo::BUNDLE_MAX_CERTIFICATES).contains(&imported.certificates.len()));
    }
});
