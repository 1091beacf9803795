//! Device registers by their address.

/// The registers of one device: 32-bit words from a base address.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Registers(usize);

impl Registers {
    /// The registers from `base`, which must be those of a device of this board.
    pub(crate) const fn new(base: usize) -> Self {
        Self(base)
    }

    pub(crate) fn read(self, offset: usize) -> u32 {
        let register = core::ptr::with_exposed_provenance::<u32>(self.0 + offset);
        // SAFETY: the bases in this crate are those of devices, whose registers can be read at any time.
        #[expect(unsafe_code, reason = "there is no safe way to a register")]
        unsafe {
            register.read_volatile()
        }
    }

    pub(crate) fn write(self, offset: usize, value: u32) {
        let register = core::ptr::with_exposed_provenance_mut::<u32>(self.0 + offset);
        // SAFETY: as above; none of these devices writes to memory by itself.
        #[expect(unsafe_code, reason = "there is no safe way to a register")]
        unsafe {
            register.write_volatile(value);
        }
    }
}
