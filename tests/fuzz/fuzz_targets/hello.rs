//! What is read of a ClientHello by hand, before TLS: whatever comes, a limit of the four there are, or none.
#![no_main]

use muster_policy::fragment::FragmentLimit;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Some(limit) = FragmentLimit::of_hello(data) {
        // Five octets of header, less the inner content type.
        assert!([512, 1024, 2048, 4096].map(|plain| plain + 4).contains(&limit.record_bytes()));
    }
});
