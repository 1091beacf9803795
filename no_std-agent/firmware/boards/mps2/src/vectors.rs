//! The vector table behind the exceptions. No interrupt is ever enabled but the system timer's, which is an exception, so
//! it is as short as the linker script allows, and not the 240 entries that a table for any part must have.
#![expect(unsafe_code, reason = "a place and a name that the linker script knows")]

#[unsafe(link_section = ".vector_table.interrupts")]
#[unsafe(no_mangle)]
static __INTERRUPTS: [usize; 1] = [0];
