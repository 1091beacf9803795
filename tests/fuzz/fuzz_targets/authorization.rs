//! Any set of Authorization headers is a credential, nothing, or unreadable.
#![no_main]

use http::{HeaderMap, HeaderValue, header::AUTHORIZATION};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut headers = HeaderMap::new();
    for line in data.split(|octet| *octet == b'\n').take(3) {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append(AUTHORIZATION, value);
        }
    }
    let _ = muster_enroll::Presented::from_headers(&headers);
});
