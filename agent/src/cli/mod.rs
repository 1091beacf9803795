//! The command line: what was asked is read, done, and told.
//!
//! Exit codes: 0 done, 1 refused or failed, 2 wrong usage. An error is one line on standard error that
//! says what, why and what to do.

pub mod args;
mod attend;
mod describe;
mod enroll;
mod renew;
mod status;

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser as _;

use self::args::{Cli, Command, Place};
use crate::config::{Config, FILE_NAME};
use crate::install::{self, Installed};
use crate::settings::Wrong;

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    // clap prints usage errors itself and exits with 2.
    let cli = Cli::parse();
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("muster-agent: {error:#}");
            // A setting that can't be right is wrong usage, whether it was typed or written in a file.
            if error.is::<Wrong>() { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build()?;
    match cli.command {
        Command::Enroll(args) => runtime.block_on(enroll::enroll(&args)),
        Command::Install(options) => installed(install::install(&options)?),
        Command::Renew(args) => runtime.block_on(renew::renew(args)),
        Command::Run { config } => runtime.block_on(crate::run::run(&config)),
        Command::Status(args) => status::status(&args),
    }
}

fn installed(done: Installed) -> anyhow::Result<()> {
    let text = match done {
        Installed::Printed(unit) => unit.trim_end().to_owned(),
        Installed::Unchanged(path) => format!("{} is up to date", path.display()),
        Installed::Written(path) => {
            format!(
                "wrote {}\nnext: systemctl daemon-reload && systemctl enable --now muster-agent",
                path.display()
            )
        }
    };
    Ok(print(&text)?)
}

impl Place {
    /// The configuration file.
    fn config_path(&self) -> PathBuf {
        match (&self.config, &self.dir) {
            (Some(config), _) => config.clone(),
            (None, dir) => dir.clone().unwrap_or_default().join(FILE_NAME),
        }
    }

    /// The folder of keys and certificates.
    fn dir(&self) -> Result<PathBuf, Wrong> {
        match &self.dir {
            Some(dir) => Ok(dir.clone()),
            None => {
                let path = self.config_path();
                Ok(Config::read(&path)?.dir_at(&path))
            }
        }
    }
}

/// Prints a result, and nothing else goes to standard output.
fn print(text: &str) -> io::Result<()> {
    match writeln!(io::stdout(), "{text}") {
        // Whoever reads has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        done => done,
    }
}

/// One for the device, one for local traffic: an agent shares its machine with others.
const WORKERS: usize = 2;
