//! A request is read whole or refused.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(request) = muster_proto::csr::CertificationRequest::parse(data) {
        assert_eq!(request.der, data);
        let _ = request.attributes();
    }
});
