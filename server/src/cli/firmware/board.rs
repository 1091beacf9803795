//! What is known of each board: where its factory partition lies, and what flashes it.

use super::layout::{self, Layout};
use crate::cli::args::{Board, FlashTool};

/// Where things are on a board.
pub(super) struct Place {
    /// Where in the processor's memory the factory partition begins.
    pub(super) factory_address: u32,
    /// The flash's erase unit.
    pub(super) page_octets: usize,
    /// The family that UF2 loaders look for.
    pub(super) uf2_family: u32,
}

/// A real board.
#[derive(Clone, Copy)]
pub(super) struct Silicon {
    pub(super) layout: &'static Layout,
    /// As probe-rs calls the chip.
    pub(super) chip: &'static str,
    /// The tool that suits it best.
    pub(super) tool: FlashTool,
    /// Whether picotool can reach it.
    pub(super) has_picoboot: bool,
}

impl Board {
    /// What is known of it, if it is not emulated.
    pub(super) const fn silicon(self) -> Option<Silicon> {
        match self {
            Self::Mps2An385 | Self::Mps2An386 | Self::Mps2An505 => None,
            Self::Nrf52840Dk => Some(Silicon {
                layout: &layout::NRF52840_DK,
                chip: "nRF52840_xxAA",
                tool: FlashTool::ProbeRs,
                has_picoboot: false,
            }),
            Self::W5500EvbPico2 => Some(Silicon {
                layout: &layout::W5500_EVB_PICO2,
                chip: "RP235x",
                tool: FlashTool::Picotool,
                has_picoboot: true,
            }),
        }
    }

    pub(super) fn place(self) -> Place {
        self.silicon().map_or(
            // The emulator takes `bin`, and no loader looks at the family.
            Place { factory_address: 0, page_octets: EMULATED_PAGE_OCTETS, uf2_family: 0 },
            |Silicon { layout, .. }| Place {
                factory_address: layout.factory_address(),
                page_octets: usize::try_from(layout.page_bytes).unwrap_or(usize::MAX),
                uf2_family: layout.uf2_family,
            },
        )
    }
}

/// Factory data, journal and identities: as many pages as on a real board.
pub(super) const EMULATED_FLASH_OCTETS: usize = 8 * EMULATED_PAGE_OCTETS;
pub(super) const EMULATED_PAGE_OCTETS: usize = 4096;
const _: () = assert!(layout::DATA_PAGES == 8, "the same number twice, since `as` is not used here");

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    #[test]
    fn the_data_is_the_last_of_each_flash_and_whole_pages() {
        for board in Board::value_variants() {
            let Some(Silicon { layout, .. }) = board.silicon() else { continue };
            assert_eq!(layout.name, board.to_string());
            assert_eq!(layout.factory_address() % layout.page_bytes, 0, "{board}");
            let data_octets = layout::DATA_PAGES * layout.page_bytes;
            assert_eq!(
                layout.factory_address() + data_octets,
                layout.flash_address + layout.flash_bytes,
                "{board}"
            );
        }
    }

    #[test]
    fn addresses_stay_where_devices_in_the_field_have_their_data() {
        let addresses = Board::value_variants().iter().map(|board| board.place().factory_address);
        assert_eq!(addresses.collect::<Vec<_>>(), [0, 0, 0, 0x000f_8000, 0x101f_8000]);
    }
}
