//! A certs-only message yields certificates within the message.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(bundle) = muster_proto::cms::certificates(data) {
        assert!(bundle.iter().count() <= muster_proto::cms::MAX_CERTIFICATES);
    }
});
