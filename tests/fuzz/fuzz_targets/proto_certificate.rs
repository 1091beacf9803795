//! A certificate is read whole or refused, and its names can be walked.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(certificate) = muster_proto::x509::Certificate::parse(data) {
        let _ = certificate.common_name();
        certificate.extensions.subject_alt_names().count();
    }
});
