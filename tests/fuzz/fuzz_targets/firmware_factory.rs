//! A factory partition is read or refused, whatever is in it. Length and check value are put right first, so that the
//! fields behind them are reached.
#![no_main]

// The module alone: the crate around it links on boards.
#[expect(dead_code, reason = "what only the firmware uses of it")]
#[path = "../../../no_std-agent/firmware/app/src/factory.rs"]
mod factory;

use factory::{Settings, credential, parse_token};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut bytes = data.to_vec();
    if let Some((header, body)) = bytes.split_first_chunk_mut::<16>() {
        let length = u32::try_from(body.len()).expect("short");
        header[8..12].copy_from_slice(&length.to_le_bytes());
        let crc = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC);
        let mut digest = crc.digest();
        digest.update(&header[..12]);
        digest.update(body);
        header[12..].copy_from_slice(&digest.finalize().to_le_bytes());
    }
    for input in [data, &bytes] {
        if let Ok(token) = parse_token(input) {
            assert!(!token.is_empty());
        }
        if let Ok(settings) = Settings::parse(input) {
            assert!(settings.path.starts_with('/') && settings.report_every_s > 0);
            assert!(credential(&settings, "token").is_some());
        }
    }
});
