//! The `muster` command.

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// A request makes some hundred small things and gives them back on another thread; the allocator of the C
/// library takes a tenth of the CPU of an enrollment for that, this one a third of it.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    muster::cli::main()
}
