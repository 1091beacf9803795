//! The `muster` command.

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// A request makes some hundred small things and gives them back on another thread. The allocator of the C
/// library took a ninth of the CPU of a renewal; with this one a renewal takes 7 % less in all.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    muster::cli::main()
}
