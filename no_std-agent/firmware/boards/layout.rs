//! Where things lie in the flash of each real board: the one place that says so.
//!
//! Compiled into the firmware, into the build scripts that tell the linker, and into `muster factory` and
//! `muster flash`. The last pages of the flash hold what outlives an image: factory data, journal, identities.
#![allow(unreachable_pub, reason = "a build script exports nothing, the firmware does")]

/// One board.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// As `build.sh` and `muster` call it.
    pub name: &'static str,
    /// Where the processor sees the flash.
    pub flash_address: u32,
    /// Its length in bytes.
    pub flash_bytes: u32,
    /// What is erased at once, in bytes.
    pub page_bytes: u32,
    /// The family that a UF2 loader looks for.
    pub uf2_family: u32,
}

impl Layout {
    /// Where the data begins, from the beginning of the flash, in bytes. The image ends before it.
    pub const fn data_offset(&self) -> u32 {
        self.flash_bytes - DATA_PAGES * self.page_bytes
    }

    /// Where the data begins for the processor; the factory's two pages are its first.
    pub const fn factory_address(&self) -> u32 {
        self.flash_address + self.data_offset()
    }
}

/// Factory data, journal and identities: 2 + 2 + 4 pages.
pub const DATA_PAGES: u32 = 8;

/// Nordic's nRF52840 DK with a W5500 on its pins. The family is that of Microsoft's list of UF2 families.
pub const NRF52840_DK: Layout = Layout {
    name: "nrf52840-dk",
    flash_address: 0,
    flash_bytes: 1024 * 1024,
    page_bytes: 4096,
    uf2_family: 0xada5_2840,
};

/// WIZnet's W5500-EVB-Pico2: RP2350 and W5500. The family is "absolute": written where the file says, whatever
/// partitions there are (RP2350 data sheet, section 5.5.3).
pub const W5500_EVB_PICO2: Layout = Layout {
    name: "w5500-evb-pico2",
    flash_address: 0x1000_0000,
    flash_bytes: 2 * 1024 * 1024,
    page_bytes: 4096,
    uf2_family: 0xe48b_ff57,
};
