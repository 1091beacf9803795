//! Wishes are read or refused.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = muster_proto::csrattrs::CsrAttributes::parse(data);
});
