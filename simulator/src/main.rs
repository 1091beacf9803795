//! The `muster-sim` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    muster_simulator::main()
}
