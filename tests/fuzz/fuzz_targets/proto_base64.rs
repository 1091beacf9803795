//! Decoding is total and never grows.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut buffer = data.to_vec();
    if let Ok(bytes) = muster_proto::base64::decode_in_place(&mut buffer) {
        assert!(bytes.len() <= data.len() / 4 * 3);
    }
});
