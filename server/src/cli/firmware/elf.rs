//! As much of an ELF file as says where its image goes: a firmware of another board is not written to this one.

use anyhow::{Context as _, ensure};

use super::layout::Layout;

/// Checks that all of an image goes into the flash of this board, and not over the data there.
///
/// # Errors
/// What it is instead.
pub(super) fn check_image(elf: &[u8], layout: &Layout) -> anyhow::Result<()> {
    const IDENT: &[u8] = b"\x7fELF\x01\x01";
    const MACHINE_ARM: u16 = 40;
    ensure!(elf.starts_with(IDENT) && half(elf, 18) == Some(MACHINE_ARM), "it is not an ELF file for Arm");
    let segments = segments(elf).context("the ELF file is cut off")?;
    ensure!(!segments.is_empty(), "the ELF file has nothing to write");
    for Segment { address, octets } in segments {
        let end = address.checked_add(octets).context("the ELF file makes no sense")?;
        let flash = layout.flash_address..=layout.factory_address();
        ensure!(
            flash.contains(&address) && flash.contains(&end),
            "it has {octets} octets at {address:#010x}, and an image for {} is between {:#010x} and {:#010x}",
            layout.name,
            flash.start(),
            flash.end()
        );
    }
    Ok(())
}

struct Segment {
    address: u32,
    octets: u32,
}

/// What a loader writes (ELF, "Program header").
fn segments(elf: &[u8]) -> Option<Vec<Segment>> {
    const LOAD: u32 = 1;
    let at = usize::try_from(word(elf, 28)?).ok()?;
    let (length, count) = (usize::from(half(elf, 42)?), usize::from(half(elf, 44)?));
    let mut segments = Vec::new();
    for number in 0..count {
        let header = elf.get(at.checked_add(number.checked_mul(length)?)?..)?;
        let (kind, address, octets) = (word(header, 0)?, word(header, 12)?, word(header, 16)?);
        if kind == LOAD && octets > 0 {
            segments.push(Segment { address, octets });
        }
    }
    Some(segments)
}

fn word(octets: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*octets.get(at..)?.first_chunk()?))
}

fn half(octets: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*octets.get(at..)?.first_chunk()?))
}

/// A file of segments, for tests.
#[cfg(test)]
pub(in crate::cli) fn file(segments: &[(u32, u32)]) -> Vec<u8> {
    let mut elf = vec![0; 52];
    elf[..6].copy_from_slice(b"\x7fELF\x01\x01");
    elf[18] = 40;
    elf[28] = 52;
    elf[42] = 32;
    elf[44] = u8::try_from(segments.len()).expect("few");
    for (address, octets) in segments {
        for word in [1, 0, *address, *address, *octets, *octets, 0, 0] {
            elf.extend_from_slice(&word.to_le_bytes());
        }
    }
    elf
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::firmware::layout::{NRF52840_DK, W5500_EVB_PICO2};

    #[test]
    fn an_image_stays_in_front_of_the_data() {
        check_image(&file(&[(0, 0xf_8000)]), &NRF52840_DK).expect("fits to the last octet");
        check_image(&file(&[(0x1000_0000, 400), (0x1000_0200, 20)]), &W5500_EVB_PICO2).expect("fits");
        for (segments, layout) in [
            (&[(0, 0xf_8001)][..], &NRF52840_DK),
            (&[(0x1000_0000, 400)], &NRF52840_DK),
            (&[(0, 400)], &W5500_EVB_PICO2),
            (&[(0x1000_0000, 400), (0x101f_8000, 1)], &W5500_EVB_PICO2),
        ] {
            let refused = check_image(&file(segments), layout).expect_err("elsewhere").to_string();
            assert!(refused.contains(layout.name), "{segments:?}: {refused}");
        }
        let refused = check_image(&file(&[(u32::MAX, 2)]), &NRF52840_DK).expect_err("wraps");
        assert!(refused.to_string().contains("no sense"), "{refused}");
    }

    #[test]
    fn what_is_cut_or_no_elf_is_refused() {
        let whole = file(&[(0, 400)]);
        for length in 0..whole.len() - 12 {
            check_image(&whole[..length], &NRF52840_DK).expect_err("cut");
        }
        for other in [&b"UF2\n"[..], b"\x7fELF\x02\x01\x01", &file(&[]), &file(&[(0, 0)])] {
            check_image(other, &NRF52840_DK).expect_err("no image");
        }
    }
}
