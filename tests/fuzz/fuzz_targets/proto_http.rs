//! A response reads the same at once and byte by byte.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    use muster_proto::http::ResponseReader;
    let (mut once, mut slowly) = ([0; 512], [0; 512]);
    let whole = ResponseReader::new().feed(data, &mut once);
    let mut reader = ResponseReader::new();
    let pieces = data.chunks(1).map(|byte| reader.feed(byte, &mut slowly)).find(Result::is_err);
    assert_eq!(whole.is_err(), pieces.is_some());
});
