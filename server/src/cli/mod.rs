//! The command line: what was asked is read, done, and told.
//!
//! Exit codes: 0 done, 1 refused or failed, 2 wrong usage. An error is one line on standard error
//! that says what, why and what to do.

pub mod args;
mod server;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use self::args::{Cli, Command};

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    // clap prints usage errors itself and exits with 2.
    let cli = Cli::parse();
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("muster: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    match cli.command {
        Command::Init(args) => runtime.block_on(server::init(args, cli.json)),
        Command::Serve(args) => runtime.block_on(server::serve(args, &cli.dir)),
        Command::Restore { file } => server::restore(&cli.dir, &file, cli.json),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "muster", &mut std::io::stdout());
            Ok(())
        }
        _ => anyhow::bail!("not wired"),
    }
}
