//! A flash whose calls return when they are done, for sequential-storage, which wants futures. They are ready at once.

use embedded_storage::nor_flash::{NorFlash, NorFlashError, ReadNorFlash};
use embedded_storage_async::nor_flash::{
    ErrorType, NorFlash as AsyncNorFlash, ReadNorFlash as AsyncReadNorFlash,
};

/// The flash.
pub(super) struct Immediate<'f, F>(pub(super) &'f mut F);

impl<F: ReadNorFlash> ErrorType for Immediate<'_, F>
where
    F::Error: NorFlashError,
{
    type Error = F::Error;
}

impl<F: ReadNorFlash> AsyncReadNorFlash for Immediate<'_, F> {
    const READ_SIZE: usize = F::READ_SIZE;

    async fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), F::Error> {
        self.0.read(offset, bytes)
    }

    fn capacity(&self) -> usize {
        self.0.capacity()
    }
}

impl<F: NorFlash> AsyncNorFlash for Immediate<'_, F> {
    const WRITE_SIZE: usize = F::WRITE_SIZE;
    const ERASE_SIZE: usize = F::ERASE_SIZE;

    async fn erase(&mut self, from: u32, to: u32) -> Result<(), F::Error> {
        self.0.erase(from, to)
    }

    async fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), F::Error> {
        self.0.write(offset, bytes)
    }
}
