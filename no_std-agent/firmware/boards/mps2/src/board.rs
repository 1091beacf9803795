//! Randomness, keys and the console of the board.

use core::cell::RefCell;
use core::fmt::{self, Write as _};

use cortex_m::peripheral::SCB;
use cortex_m_semihosting::nr;
use muster_firmware::platform::Platform;
use muster_nostd_agent::entropy::{Entropy, NoEntropy};
use muster_nostd_agent::key::{KeyError, KeyReference, KeyStore, Signature, SlotKey};
use muster_nostd_agent::software::SoftwareKeys;
use muster_proto::csr::P256Point;
use muster_proto::enrollment::Slot;

use crate::semihosting::{File, console};
use crate::{stack, time};

/// The host's randomness: the board has none of its own.
pub(crate) struct HostEntropy(File);

impl HostEntropy {
    pub(crate) fn open() -> Option<Self> {
        File::open(b"/dev/urandom\0", nr::open::R_BINARY).map(Self)
    }
}

impl Entropy for HostEntropy {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), NoEntropy> {
        if self.0.read(bytes) { Ok(()) } else { Err(NoEntropy) }
    }
}

/// The console.
pub(crate) struct Console {
    file: RefCell<Option<File>>,
    metering: Metering,
}

/// Whether each line says what was spent.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Metering {
    Off,
    On,
}

impl Console {
    pub(crate) fn open(metering: Metering) -> Self {
        Self { file: RefCell::new(console()), metering }
    }
}

impl Platform for Console {
    fn log(&self, line: fmt::Arguments<'_>) {
        let kilo_instructions = time::kilo_instructions();
        time::uncounted(|| {
            let mut file = self.file.borrow_mut();
            let Some(file) = file.as_mut() else { return };
            let peak = stack::peak();
            // Nobody is there to be told that the console failed.
            let _ = match self.metering {
                Metering::Off => writeln!(file, "{line}"),
                Metering::On => writeln!(file, "[{kilo_instructions} k, stack {peak}] {line}"),
            };
        });
    }

    fn restart(&self) -> ! {
        SCB::sys_reset()
    }
}

/// Software keys that tell when they are made and used, so that their cost can be seen.
pub(crate) struct ToldKeys(pub(crate) &'static Console);

impl KeyStore for ToldKeys {
    fn generate(&mut self, slot: Slot, entropy: &mut impl Entropy) -> Result<SlotKey, KeyError> {
        self.0.log(format_args!("key: making one for slot {slot:?}"));
        let made = SoftwareKeys.generate(slot, entropy);
        self.0.log(format_args!("key: made"));
        made
    }

    fn public(&mut self, reference: &KeyReference) -> Result<P256Point, KeyError> {
        SoftwareKeys.public(reference)
    }

    fn sign(&mut self, reference: &KeyReference, message: &[u8]) -> Result<Signature, KeyError> {
        self.0.log(format_args!("key: signing {} bytes", message.len()));
        let signed = SoftwareKeys.sign(reference, message);
        self.0.log(format_args!("key: signed"));
        signed
    }

    fn forget(&mut self, reference: &KeyReference) -> Result<(), KeyError> {
        SoftwareKeys.forget(reference)
    }
}
