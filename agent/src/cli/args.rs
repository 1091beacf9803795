//! The command line, as clap reads it.
//!
//! Names and shapes are a contract (scripts rely on them): change nothing, only add.

use std::path::PathBuf;
use std::time::Duration;

use crate::install::InstallOptions;
use clap::{Args, Parser, Subcommand};

use crate::span;

/// Gets a certificate for a device, and keeps it renewed.
#[derive(Debug, Parser)]
#[command(name = "muster-agent", version, about, long_about = None, propagate_version = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Get the first certificate, and write the configuration for `run`.
    Enroll(Box<EnrollArgs>),
    /// Write a hardened systemd unit for the service.
    Install(InstallOptions),
    /// Renew now: through the running agent, or directly if none runs.
    Renew(RenewArgs),
    /// Renew unattended until SIGTERM or Ctrl-C; SIGHUP reloads the configuration.
    Run {
        /// The configuration file.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Show the certificate in use and the renewal state.
    Status(StatusArgs),
}

/// Arguments of `enroll`.
#[derive(Args, Debug)]
pub struct EnrollArgs {
    /// The EST server, https://HOST:PORT.
    #[arg(long, value_name = "URL")]
    pub server: String,
    /// PEM file of the CA certificates to trust.
    #[arg(long, value_name = "FILE", required_unless_present = "ca_sha256", conflicts_with = "ca_sha256")]
    pub ca: Option<PathBuf>,
    /// SHA-256 of the CA certificate to trust, hex.
    #[arg(long, value_name = "HEX")]
    pub ca_sha256: Option<String>,
    /// The device id.
    #[arg(long, value_name = "ID")]
    pub device: String,
    /// Profile of the certificate, as an EST label.
    #[arg(long, value_name = "PROFILE")]
    pub label: Option<String>,
    /// A token for this device; other programs can see the command line, so prefer --token-file.
    #[arg(long, value_name = "TOKEN", env = "MUSTER_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// File with a token for this device.
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// The manufacturer's certificate (IDevID), PEM; with a token too, both are sent.
    #[arg(long, value_name = "FILE", requires = "idevid_key")]
    pub idevid_cert: Option<PathBuf>,
    /// Key of the manufacturer's certificate, PEM.
    #[arg(long, value_name = "FILE", requires = "idevid_cert")]
    pub idevid_key: Option<PathBuf>,
    /// A certificate of this CA that the device already has, PEM: it is renewed with a new key.
    #[arg(long, value_name = "FILE", requires = "existing_key", conflicts_with = "idevid_cert")]
    pub existing_cert: Option<PathBuf>,
    /// Key of that certificate, PEM.
    #[arg(long, value_name = "FILE", requires = "existing_cert")]
    pub existing_key: Option<PathBuf>,
    /// The folder for keys and certificates.
    #[arg(long, value_name = "DIR")]
    pub dir: PathBuf,
    /// Where to write the configuration for `run`; default: DIR/agent.toml.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Enroll even though the device holds a certificate that has not expired, such as a revoked one. It is removed once
    /// the new one is there.
    #[arg(long, conflicts_with = "existing_cert")]
    pub replace: bool,
    /// How long to try, including waiting for approval.
    #[arg(long, value_name = "SPAN", value_parser = span::parse, default_value = "10m")]
    pub timeout: Duration,
    /// Print JSON instead of text.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `renew`.
#[derive(Args, Debug)]
pub struct RenewArgs {
    /// Whose certificate.
    #[command(flatten)]
    pub place: Place,
    /// How long to try.
    #[arg(long, value_name = "SPAN", value_parser = span::parse, default_value = "2m")]
    pub timeout: Duration,
    /// Print JSON instead of text.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `status`.
#[derive(Args, Debug)]
pub struct StatusArgs {
    /// Whose status.
    #[command(flatten)]
    pub place: Place,
    /// Print JSON instead of text.
    #[arg(long)]
    pub json: bool,
}

/// Which agent is meant.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub struct Place {
    /// The folder that `enroll` filled.
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn one_way_to_trust_and_one_agent_must_be_named() {
        let parse = |line: &str| Cli::try_parse_from(line.split(' ')).map(drop);
        let enroll = "muster-agent enroll --server https://ca --device meter-1 --dir d --token t";
        assert!(parse(enroll).is_err());
        assert!(parse(&format!("{enroll} --ca ca.pem")).is_ok());
        assert!(parse(&format!("{enroll} --ca ca.pem --ca-sha256 00")).is_err());
        assert!(parse("muster-agent status").is_err());
        assert!(parse("muster-agent status --dir d --config c").is_err());
    }
}
