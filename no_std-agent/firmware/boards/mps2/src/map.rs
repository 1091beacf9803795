//! Where things are on the board, and how fast it is, by its FPGA image.
//!
//! AN505 is an IoT kit with TrustZone, where all of this firmware is on the secure side: its memory and its devices are
//! secure until somebody says otherwise, and are at the addresses with the bit for that.

#[cfg(not(feature = "an505"))]
mod image {
    pub(crate) const CLOCK_HZ: u32 = 25_000_000;
    pub(crate) const RAM: usize = 0x2000_0000;
    pub(crate) const WATCHDOG: usize = 0x4000_8000;
    pub(crate) const FPGA_IO: usize = 0x4002_8000;
    pub(crate) const LAN9118: usize = 0x4020_0000;
}

#[cfg(feature = "an505")]
mod image {
    pub(crate) const CLOCK_HZ: u32 = 20_000_000;
    pub(crate) const RAM: usize = 0x3800_0000;
    pub(crate) const WATCHDOG: usize = 0x5008_1000;
    pub(crate) const FPGA_IO: usize = 0x5030_2000;
    pub(crate) const LAN9118: usize = 0x5200_0000;
}

pub(crate) use self::image::{CLOCK_HZ, FPGA_IO, LAN9118, RAM, WATCHDOG};

/// As in the linker's memory map.
pub(crate) const RAM_BYTES: usize = 64 * 1024;
