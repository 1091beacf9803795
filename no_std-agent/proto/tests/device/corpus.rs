//! Every stored fuzz input, run without a fuzzer: what was found once stays found.

use std::path::Path;

use muster_proto::x509::Certificate;
use muster_proto::{base64, cms, csr::CertificationRequest, csrattrs::CsrAttributes, http};

/// Runs `check` over a target's folder and says on how many inputs it returned true.
fn accepted(target: &str, check: impl Fn(&[u8]) -> bool) -> usize {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fuzz/corpus").join(target);
    let inputs: Vec<Vec<u8>> = std::fs::read_dir(&folder)
        .expect("each target has a folder")
        .map(|entry| std::fs::read(entry.expect("reads").path()).expect("reads"))
        .collect();
    assert!(inputs.len() >= 3, "{target} has too few inputs");
    inputs.iter().filter(|input| check(input)).count()
}

#[test]
fn stored_inputs_are_read_or_refused() {
    assert!(accepted("proto_base64", |data| base64::decode_in_place(&mut data.to_vec()).is_ok()) > 0);
    assert!(accepted("proto_certificate", |data| Certificate::parse(data).is_ok()) > 0);
    assert!(accepted("proto_cms", |data| cms::certificates(data).is_ok()) > 0);
    assert!(
        accepted("proto_csr", |data| {
            CertificationRequest::parse(data).is_ok_and(|request| request.attributes().is_ok())
        }) > 0
    );
    assert!(accepted("proto_csrattrs", |data| CsrAttributes::parse(data).is_ok()) > 0);
    assert!(accepted("proto_renewal", |data| http::parse_renewal(data).is_some()) > 0);
    let complete = |data: &[u8]| {
        let mut buffer = vec![0; 8192];
        let progress = http::ResponseReader::new().feed(data, &mut buffer);
        matches!(progress, Ok(http::Progress::Complete { .. }))
    };
    assert!(accepted("proto_http", complete) > 0);
}
