//! The `muster-agent` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    muster_agent::cli::main()
}
