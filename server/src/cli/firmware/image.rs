//! A factory partition in the three forms that flashing tools take: octets, Intel HEX and UF2.

use std::fmt::Write as _;

use anyhow::ensure;

use super::block::check_settings_block;

/// Both blocks, each at the beginning of its page, and blank flash between.
pub(super) fn partition(settings: &[u8], token: &[u8], page_octets: usize) -> Vec<u8> {
    let mut partition = vec![BLANK; 2 * page_octets];
    for (page, block) in partition.chunks_exact_mut(page_octets).zip([settings, token]) {
        page.iter_mut().zip(block).for_each(|(place, octet)| *place = *octet);
    }
    partition
}

/// Whether a file of this kind is what is written here, so that writing it again loses nothing else.
///
/// # Errors
/// What it is not.
pub(super) fn recognise(kind: &str, octets: &[u8]) -> anyhow::Result<()> {
    match kind {
        "bin" => return check_settings_block(octets),
        "hex" => ensure!(octets.starts_with(b":02000004"), "it is not the Intel HEX file of an image"),
        _ => ensure!(octets.starts_with(b"UF2\n"), "it is not a UF2 file"),
    }
    Ok(())
}

/// Intel HEX: lines of 16 octets, with the upper half of the address in lines of its own. Blank ones are there
/// too, because what is not named is not erased.
pub(super) fn intel_hex(octets: &[u8], address: u32) -> String {
    let mut text = String::new();
    let mut upper = None;
    for (line, at) in octets.chunks(16).zip((address..).step_by(16)) {
        let [high, higher, low, lowest] = at.to_be_bytes();
        if upper != Some([high, higher]) {
            upper = Some([high, higher]);
            record(&mut text, 4, [0, 0], &[high, higher]);
        }
        record(&mut text, 0, [low, lowest], line);
    }
    record(&mut text, 1, [0, 0], &[]);
    text
}

fn record(text: &mut String, kind: u8, address: [u8; 2], octets: &[u8]) {
    let length = u8::try_from(octets.len()).unwrap_or(u8::MAX);
    let whole = [&[length][..], &address, &[kind], octets].concat();
    let sum = whole.iter().fold(0_u8, |sum, octet| sum.wrapping_sub(*octet));
    text.push(':');
    for octet in whole.iter().chain([&sum]) {
        // Writing to a String does not fail.
        let _ = write!(text, "{octet:02X}");
    }
    text.push_str("\r\n");
}

/// UF2: blocks of 512 octets that each carry 256 and say where they belong.
pub(super) fn uf2(octets: &[u8], address: u32, family: u32) -> Vec<u8> {
    const START: [u32; 2] = [0x0a32_4655, 0x9e5d_5157];
    const END: u32 = 0x0ab1_6f30;
    const FAMILY_PRESENT: u32 = 0x2000;
    const PAYLOAD: u32 = 256;
    let mut file = Vec::new();
    let count = u32::try_from(octets.len().div_ceil(256)).unwrap_or(u32::MAX);
    for (number, payload) in (0_u32..).zip(octets.chunks(256)) {
        let at = address + number * PAYLOAD;
        for word in [START[0], START[1], FAMILY_PRESENT, at, PAYLOAD, number, count, family] {
            file.extend_from_slice(&word.to_le_bytes());
        }
        file.extend_from_slice(payload);
        file.resize(file.len() + 476 - payload.len(), 0);
        file.extend_from_slice(&END.to_le_bytes());
    }
    file
}

/// What erased flash reads as.
const BLANK: u8 = 0xff;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_block_has_a_page_of_its_own() {
        let partition = partition(b"settings", b"token", 4096);
        assert_eq!(partition.len(), 8192);
        assert!(partition.starts_with(b"settings\xff") && partition[4096..].starts_with(b"token\xff"));
    }

    #[test]
    fn hex_is_as_intel_describes_it() {
        let text = intel_hex(&[0x21, 0x46, 0x01, 0x36], 0x0001_0100);
        assert_eq!(text, ":020000040001F9\r\n:0401000021460136".to_owned() + "5D\r\n:00000001FF\r\n");
    }

    #[test]
    fn uf2_blocks_say_where_they_belong() {
        let file = uf2(&[7; 300], 0x1000_0000, 0xe48b_ff59);
        assert_eq!(file.len(), 1024);
        for (number, block) in file.chunks(512).enumerate() {
            assert_eq!(&block[..4], b"UF2\n");
            assert_eq!(block[12..16], (0x1000_0000 + 256 * number as u32).to_le_bytes());
            assert_eq!(block[20..28], [number as u8, 0, 0, 0, 2, 0, 0, 0]);
            assert_eq!(block[508..], 0x0ab1_6f30_u32.to_le_bytes());
        }
        assert_eq!(file[512 + 32 + 44], 0, "what is behind the octets is zero");
    }
}
