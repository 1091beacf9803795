//! The body of an enrolment request: base64 or PEM, then PKCS#10.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(der) = muster_enroll::decode_request(data) {
        assert!(der.len() <= data.len());
        let _ = muster_ca::csr::Csr::parse(&der);
    }
});
