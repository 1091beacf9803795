//! The command line, as clap reads it.
//!
//! Names and shapes are a contract (scripts rely on them): change nothing, only add.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use super::place::{EstUrl, Named, Target};
use crate::arrival::Arrival;
use crate::edge::Mode;
use crate::slo::Slo;
use crate::span;
use crate::tls::Groups;

/// Fleets of simulated devices: enrollment, load on any mTLS edge, scenarios.
#[derive(Debug, Parser)]
#[command(name = "muster-sim", version, about, long_about = None, propagate_version = true)]
pub(super) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(super) command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run a complete demo on this machine: server, edge, broker, fleet, attacks and a report.
    Demo(DemoArgs),
    /// Enroll devices at any EST server, or renew them.
    Fleet(FleetArgs),
    /// Load any mTLS HTTPS or MQTT endpoint with devices.
    Edge(EdgeArgs),
    /// Simulate a fleet over time from a file, in virtual time: same seed, same result.
    Scenario(ScenarioArgs),
    /// Merge the results of shards.
    Merge(MergeArgs),
    /// Compare runs.
    Compare(CompareArgs),
}

/// Arguments of `edge`.
#[derive(Args, Clone, Debug)]
pub(super) struct EdgeArgs {
    /// The endpoint: `https://HOST[:PORT][/PATH]` or `mqtts://HOST[:PORT]`. Several, each with a name before it
    /// (`ours=https://...`), take turns and are compared with the first.
    #[arg(long = "target", value_name = "[NAME=]URL", required = true)]
    pub(super) targets: Vec<Named<Target>>,
    /// Address to connect to instead of resolving the host.
    #[arg(long = "address", value_name = "[NAME=]IP:PORT")]
    pub(super) addresses: Vec<Named<SocketAddr>>,
    /// With several targets: how many turns each of them takes.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(super) rounds: u32,
    /// PEM file of the root CAs that the devices trust.
    #[arg(long, value_name = "FILE")]
    pub(super) ca: PathBuf,
    /// Directory of identities, made by `muster-sim fleet`.
    #[arg(long, value_name = "DIR")]
    pub(super) identities: PathBuf,
    /// How many of them; default: all.
    #[arg(long, value_name = "N")]
    pub(super) devices: Option<u32>,
    /// What a device does after it is admitted.
    #[arg(long, value_enum, default_value = "handshake")]
    pub(super) mode: Mode,
    /// How long the run takes; with several targets, each of them.
    #[arg(long = "for", value_name = "SPAN", default_value = "30s", value_parser = span::parse)]
    pub(super) span: Duration,
    /// Time between two requests of a device that stays connected.
    #[arg(long, value_name = "SPAN", default_value = "1s", value_parser = span::parse)]
    pub(super) every: Duration,
    /// Topic of round trips; `{device}` in it is the device's id.
    #[arg(long, value_name = "TOPIC", default_value = "devices/{device}/echo")]
    pub(super) topic: String,
    /// Offer ALPN `mqtt`, to reach MQTT on the HTTPS port of Muster's edge.
    #[arg(long)]
    pub(super) alpn_mqtt: bool,
    /// Key agreement that devices offer.
    #[arg(long, value_enum, default_value_t)]
    pub(super) groups: Groups,
    /// Longest wait for a connection or an answer.
    #[arg(long, value_name = "SPAN", default_value = super::edge::TIMEOUT, value_parser = span::parse)]
    pub(super) timeout: Duration,
    /// Processes on this machine: each has its own limit on open files.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(super) workers: u32,
    /// First compare this client's CPU with a bare tokio-rustls client's over this many handshakes.
    #[arg(long, value_name = "N")]
    pub(super) bare: Option<u64>,
    #[command(flatten)]
    pub(super) run: RunArgs,
}

/// Arguments of `scenario`.
#[derive(Args, Clone, Debug)]
pub(super) struct ScenarioArgs {
    /// The scenario.
    #[arg(value_name = "FILE")]
    pub(super) file: PathBuf,
    /// Run it on sockets against this EST server: https://HOST:PORT[/LABEL]. Needs --ca and --identities.
    #[arg(long, value_name = "URL", requires_all = ["ca", "identities"])]
    pub(super) live: Option<EstUrl>,
    /// PEM file of the root CA that the devices trust (live).
    #[arg(long, value_name = "FILE")]
    pub(super) ca: Option<PathBuf>,
    /// Directory of the devices' identities (live).
    #[arg(long, value_name = "DIR")]
    pub(super) identities: Option<PathBuf>,
    /// Claim token for first enrollments (live).
    #[arg(long, value_name = "TOKEN")]
    pub(super) token: Option<String>,
    /// Where certificates are used: `https://HOST[:PORT][/PATH]` or `mqtts://HOST[:PORT]` (live).
    #[arg(long, value_name = "URL")]
    pub(super) edge: Option<Target>,
    /// Address of the edge, instead of resolving its host (live).
    #[arg(long, value_name = "IP:PORT")]
    pub(super) edge_address: Option<SocketAddr>,
    /// Speed-up over the file's times (live).
    #[arg(long, value_name = "TIMES", default_value_t = 1.0)]
    pub(super) speed: f64,
    /// Command for an event that only the server's operator can cause (live): ca-away, ca-back, revoke with {device},
    /// lifetime with {seconds}. Repeatable.
    #[arg(long = "hook", value_name = "NAME=COMMAND")]
    pub(super) hooks: Vec<String>,
    /// Seed; default: the file's.
    #[arg(long)]
    pub(super) seed: Option<u64>,
    /// Number of devices; default: the file's.
    #[arg(long, value_name = "N")]
    pub(super) devices: Option<u32>,
    #[command(flatten)]
    pub(super) output: OutputArgs,
}

/// Arguments of `demo`.
#[derive(Args, Clone, Debug)]
pub(super) struct DemoArgs {
    /// How many devices.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(20..=8000))]
    pub(super) devices: u32,
    /// Also write the results as JSON.
    #[arg(long, value_name = "FILE")]
    pub(super) json: Option<PathBuf>,
    /// Where the report goes.
    #[arg(long, value_name = "FILE", default_value = "report.html")]
    pub(super) report: PathBuf,
    /// Exit when done; otherwise the server stays up until Ctrl-C.
    #[arg(long)]
    pub(super) exit: bool,
}

/// Arguments of `merge`.
#[derive(Args, Clone, Debug)]
pub(super) struct MergeArgs {
    /// Results of shards (`--json`).
    #[arg(required = true, value_name = "FILE")]
    pub(super) files: Vec<PathBuf>,
    /// Write the merged results.
    #[arg(long, value_name = "FILE")]
    pub(super) json: Option<PathBuf>,
    /// Write an HTML report.
    #[arg(long, value_name = "FILE")]
    pub(super) report: Option<PathBuf>,
    /// Write an HdrHistogram interval log.
    #[arg(long, value_name = "FILE")]
    pub(super) hdr_log: Option<PathBuf>,
    /// A goal for the merged results. Repeatable.
    #[arg(long = "slo", value_name = "GOAL")]
    pub(super) slos: Vec<Slo>,
}

/// Arguments of `compare`.
#[derive(Args, Clone, Debug)]
pub(super) struct CompareArgs {
    /// Results of runs (`--json`).
    #[arg(required = true, value_name = "FILE")]
    pub(super) files: Vec<PathBuf>,
    /// Write an HTML report of all of them.
    #[arg(long, value_name = "FILE")]
    pub(super) report: Option<PathBuf>,
}

/// What all runs have in common.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Run and report")]
pub(super) struct RunArgs {
    /// When devices arrive: constant:RATE, poisson:RATE, ramp:FROM..TO/SPAN or stampede (rates per second).
    #[arg(long, value_name = "LAW", default_value = "constant:100")]
    pub(super) arrival: Arrival,
    /// Seed of arrivals, links and faults; never of keys.
    #[arg(long, default_value_t = 1)]
    pub(super) seed: u64,
    /// Which part of the run this process is, from 0.
    #[arg(long, value_name = "I", env = "JOB_COMPLETION_INDEX", default_value_t = 0)]
    pub(super) shard: u32,
    /// How many parts the run is split into, on any machines; `muster-sim merge` merges their results.
    #[arg(long, value_name = "N", env = "MUSTER_SIM_SHARDS", default_value_t = 1)]
    pub(super) shards: u32,
    /// Start at this time (seconds since 1970), so that shards begin together.
    #[arg(long, value_name = "SECONDS")]
    pub(super) start_at: Option<f64>,
    /// Most connections at once; default: what the limit on open files allows.
    #[arg(long, value_name = "N")]
    pub(super) most_at_once: Option<usize>,
    /// Process of the server on this machine, whose CPU is measured together with its children's. Repeatable; with several
    /// targets, name the one it belongs to.
    #[arg(long = "pid", value_name = "[NAME=]PID")]
    pub(super) pids: Vec<Named<u32>>,
    /// A name for this run, for comparisons.
    #[arg(long, default_value = "")]
    pub(super) label: String,
    /// Earlier runs (`--json`) to compare with in the report.
    #[arg(long, value_name = "FILE", num_args = 1.., requires = "report")]
    pub(super) compare: Vec<PathBuf>,
    /// Write an HdrHistogram interval log.
    #[arg(long, value_name = "FILE")]
    pub(super) hdr_log: Option<PathBuf>,
    #[command(flatten)]
    pub(super) output: OutputArgs,
}

/// What a run shows and writes.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Run and report")]
pub(super) struct OutputArgs {
    /// Write a self-contained HTML report.
    #[arg(long, value_name = "FILE")]
    pub(super) report: Option<PathBuf>,
    /// Write the results as JSON, with whole histograms.
    #[arg(long, value_name = "FILE")]
    pub(super) json: Option<PathBuf>,
    /// Write a JSON line every second, or from time to time in virtual time; `-` is standard output.
    #[arg(long, value_name = "FILE")]
    pub(super) json_lines: Option<PathBuf>,
    /// A goal, e.g. 'p99<50ms', 'errors<0.1%', 'enroll.max<2s'; exit code 1 if it is missed. Repeatable; with several
    /// targets, for the first.
    #[arg(long = "slo", value_name = "GOAL")]
    pub(super) slos: Vec<Slo>,
    /// Show only errors.
    #[arg(long, short)]
    pub(super) quiet: bool,
}

/// Arguments of `fleet`.
#[derive(Args, Clone, Debug)]
pub(super) struct FleetArgs {
    /// The EST server: https://HOST:PORT, with a label after the port for a profile.
    #[arg(long, value_name = "URL")]
    pub(super) server: EstUrl,
    /// Address to connect to instead of resolving the host.
    #[arg(long, value_name = "IP:PORT")]
    pub(super) address: Option<SocketAddr>,
    /// PEM file of the root CA that the devices trust.
    #[arg(long, value_name = "FILE")]
    pub(super) ca: PathBuf,
    /// Directory of the devices' identities; created if missing, continued if not.
    #[arg(long, value_name = "DIR")]
    pub(super) identities: PathBuf,
    /// How many devices.
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(super) devices: u32,
    /// Prefix of device ids; seven digits follow.
    #[arg(long, value_name = "TEXT", default_value = "sim-")]
    pub(super) prefix: String,
    /// Renew devices that hold a certificate instead of enrolling those that hold none.
    #[arg(long)]
    pub(super) renew: bool,
    /// One token for all devices (a claim token).
    #[arg(long, value_name = "TOKEN", group = "token_source")]
    pub(super) token: Option<String>,
    /// File with lines of `DEVICE TOKEN`.
    #[arg(long, value_name = "FILE", group = "token_source")]
    pub(super) tokens: Option<PathBuf>,
    /// Command that prints a token; `{device}` in it is the device's id.
    #[arg(long, value_name = "COMMAND", group = "token_source")]
    pub(super) token_command: Option<String>,
    /// Admin API that creates a claim token for all, e.g. http://127.0.0.1:8080; needs --api-token.
    #[arg(long, value_name = "URL", group = "token_source", requires = "api_token")]
    pub(super) api: Option<String>,
    /// File with the token of the admin API.
    #[arg(long, value_name = "FILE")]
    pub(super) api_token: Option<PathBuf>,
    /// Key agreement that devices offer.
    #[arg(long, value_enum, default_value_t)]
    pub(super) groups: Groups,
    /// Do not request csrattrs, which saves a round trip.
    #[arg(long)]
    pub(super) skip_csrattrs: bool,
    /// A device gives up after this.
    #[arg(long, value_name = "SPAN", default_value = "60s", value_parser = span::parse)]
    pub(super) patience: Duration,
    #[command(flatten)]
    pub(super) run: RunArgs,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
