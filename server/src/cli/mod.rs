//! The command line: what was asked is read, done, and told.
//!
//! Exit codes: 0 done, 1 refused or failed, 2 wrong usage. An error is one line on standard error
//! that says what, why and what to do.

pub mod args;
mod client;
mod device_csv;
mod doctor;
mod firmware;
mod fleet;
mod hosts;
mod manage;
mod print;
mod profile_fields;
mod revocation;
mod server;
#[cfg(test)]
mod tests;
mod watch;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use self::args::{Cli, Command};
use self::client::Client;
use self::print::Printer;
use crate::datadir::DataDir;
use crate::settings::SETTINGS;

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
        Command::Init(args) => runtime.block_on(server::init(args, &cli.dir, cli.json)),
        Command::Serve(args) => runtime.block_on(server::serve(args, &cli.dir)),
        Command::Restore { file } => server::restore(&cli.dir, &file, cli.json),
        Command::Flash(args) => firmware::flash(&args, &mut Printer::new(&mut std::io::stdout(), cli.json)),
        Command::Factory(args) => runtime.block_on(async {
            let dir = DataDir::new(&cli.dir);
            let client = Client::connect(&dir).await?;
            let mut out = std::io::stdout();
            firmware::factory(&client, &dir, *args, &mut Printer::new(&mut out, cli.json)).await
        }),
        Command::Completions { shell } => {
            // Not at once to standard output: it panics there when nobody reads on.
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "muster", &mut script);
            Printer::new(&mut std::io::stdout(), false).line(String::from_utf8(script)?.trim_end())
        }
        Command::Settings => {
            let mut out = std::io::stdout();
            let done = serde_json::json!({ "toml": SETTINGS });
            Printer::new(&mut out, cli.json).done(&done, SETTINGS.trim_end())
        }
        Command::Doctor => {
            let mut out = std::io::stdout();
            runtime.block_on(doctor::doctor(&DataDir::new(&cli.dir), &mut Printer::new(&mut out, cli.json)))
        }
        command => runtime.block_on(async {
            let client = Client::connect(&DataDir::new(&cli.dir)).await?;
            let mut out = std::io::stdout();
            act(&client, command, &mut Printer::new(&mut out, cli.json)).await
        }),
    }
}

/// The commands that are a client of the admin API.
async fn act(client: &Client, command: Command, out: &mut Printer<'_>) -> anyhow::Result<()> {
    match command {
        Command::AdminToken(command) => manage::admin_token(client, command, out).await,
        Command::Approval(command) => manage::approval(client, command, out).await,
        Command::Audit(command) => manage::audit(client, command, out).await,
        Command::Ca(command) => manage::ca(client, command, out).await,
        Command::Cert(command) => fleet::cert(client, command, out).await,
        Command::Connection(command) => watch::connection(client, command, out).await,
        Command::Device(command) => fleet::device(client, command, out).await,
        Command::Event(command) => watch::event(client, command, out).await,
        Command::Host(command) => hosts::host(client, command, out).await,
        Command::Profile(command) => manage::profile(client, command, out).await,
        Command::Token(command) => manage::token(client, command, out).await,
        Command::Webhook(command) => watch::webhook(client, command, out).await,
        Command::Zone(command) => manage::zone(client, command, out).await,
        Command::Backup { file } => {
            let bytes = client.download_backup(&file).await?;
            let done = serde_json::json!({ "file": file, "bytes": bytes });
            out.done(&done, &format!("Wrote {bytes} bytes to {}; it holds the CA keys", file.display()))
        }
        // `run` has dealt with these.
        Command::Completions { .. }
        | Command::Doctor
        | Command::Factory(_)
        | Command::Flash(_)
        | Command::Init(_)
        | Command::Restore { .. }
        | Command::Serve(_)
        | Command::Settings => Ok(()),
    }
}
