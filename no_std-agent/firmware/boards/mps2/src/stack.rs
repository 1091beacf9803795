//! How deep the stack has been.
//!
//! At start the free memory below the stack is painted; what was painted over later has been used.

use crate::map::{RAM, RAM_BYTES};

/// Paints. To be called once, first of all.
#[inline(never)]
pub(crate) fn paint() {
    let here = usize::try_from(cortex_m::register::msp::read()).unwrap_or_default();
    let (bottom, top) = (bottom(), here - GAP);
    for address in (bottom..top).step_by(4) {
        let word = core::ptr::with_exposed_provenance_mut::<u32>(address);
        // SAFETY: between the statics and this frame, less a gap for the frames of painting itself, is free memory
        // that nothing else uses: there is no heap, no interrupt and no second thread.
        #[expect(unsafe_code, reason = "memory that belongs to nobody has no safe name")]
        unsafe {
            word.write_volatile(COLOUR);
        }
    }
}

/// The most bytes of stack that were in use at once, since [`paint`].
pub(crate) fn peak() -> usize {
    let untouched = (bottom()..TOP)
        .step_by(4)
        .take_while(|address| {
            let word = core::ptr::with_exposed_provenance::<u32>(*address);
            // SAFETY: memory of the board, read and not used for anything but this count.
            #[expect(unsafe_code, reason = "as for painting")]
            unsafe {
                word.read_volatile() == COLOUR
            }
        })
        .count();
    TOP - bottom() - 4 * untouched
}

/// Bytes of static memory.
pub(crate) fn statics() -> usize {
    bottom() - RAM
}

fn bottom() -> usize {
    #[expect(unsafe_code, reason = "a symbol of the linker")]
    unsafe extern "C" {
        /// The end of the static memory, from cortex-m-rt's linker script. The stack grows down towards it.
        static __sheap: u32;
    }
    (&raw const __sheap).expose_provenance()
}

const COLOUR: u32 = 0xC0DE_5AFE;
const GAP: usize = 256;
const TOP: usize = RAM + RAM_BYTES;
