//! The factory's two pages in flash, read at boot; and what is erased of them later.

use embedded_storage::nor_flash::{NorFlash, ReadNorFlash};
use zeroize::Zeroize;

/// Reads the settings' page into memory.
///
/// # Errors
/// The flash's.
pub fn read_settings<'b, F: NorFlash>(flash: &mut F, buffer: &'b mut [u8]) -> Result<&'b [u8], F::Error> {
    read(flash, 0, buffer)
}

/// Reads the token's page into memory.
///
/// # Errors
/// The flash's.
pub fn read_token<'b, F: NorFlash>(flash: &mut F, buffer: &'b mut [u8]) -> Result<&'b [u8], F::Error> {
    read(flash, page_bytes::<F>(), buffer)
}

fn read<'b, F: ReadNorFlash>(flash: &mut F, offset: u32, buffer: &'b mut [u8]) -> Result<&'b [u8], F::Error> {
    buffer.zeroize();
    flash.read(offset, buffer)?;
    Ok(buffer)
}

/// Erases the token's page. After a power cut in the middle the block's check value is wrong, which is as good.
///
/// # Errors
/// The flash's.
pub fn erase_token<F: NorFlash>(flash: &mut F) -> Result<(), F::Error> {
    flash.erase(page_bytes::<F>(), PAGES * page_bytes::<F>())
}

fn page_bytes<F: NorFlash>() -> u32 {
    u32::try_from(F::ERASE_SIZE).unwrap_or(u32::MAX)
}

/// Settings, and the token.
pub const PAGES: u32 = 2;
