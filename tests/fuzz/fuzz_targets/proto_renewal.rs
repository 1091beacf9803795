//! A renewal field is read or ignored.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = muster_proto::http::parse_renewal(data);
});
