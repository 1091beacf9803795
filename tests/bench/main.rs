//! Benches of the server: what a certificate costs, how commits are shared, how a start and a list grow,
//! what a connection at the edge costs, and how soon a revoked one ends.
//!
//! Each claim is a figure of CPU time or a count, and a ratio taken in the same run, because wall
//! times of a shared machine say little. A goal that is missed makes the exit code 1.
//! See `README.md` beside this file for the commands and the figures.

mod api;
mod bound;
mod cfssl;
mod client;
mod commits;
mod edge;
mod enroll;
mod fleet;
mod processors;
mod server;
mod start;

use std::process::ExitCode;

use clap::Parser;

/// Benches of the Muster server; needs a release build of `muster` beside this program.
#[derive(Debug, Parser)]
enum Bench {
    /// CPU of the server process per renewed certificate, beside cfssl and the cryptographic bound.
    Enroll(enroll::Arguments),
    /// Commits and fsyncs per certificate with many writers at once.
    Commits(commits::Arguments),
    /// Pages of lists and requests per second of CPU with many stored certificates.
    Api(api::Arguments),
    /// Start and first answers with many stored certificates, beside an empty ledger.
    Start(start::Arguments),
    /// CPU and memory of the edge per connection, beside nginx, mosquitto and the cryptographic bound.
    Edge(edge::Arguments),
    /// From `muster cert revoke` to the end of the device's connections, with many of them live.
    Revoke(edge::revoke::Arguments),
    /// How long an honest client's connection takes while others flood the edge with handshakes.
    Flood(edge::flood::Arguments),
    /// An edge from the library, with many hostnames or revoked certificates; started by `edge`.
    #[command(hide = true)]
    Alone(edge::alone::Arguments),
    /// MQTT clients that stay; started by `revoke`.
    #[command(hide = true)]
    Crowd(edge::crowd::Arguments),
    /// Connections that send a hello and nothing more; started by `flood`.
    #[command(hide = true)]
    Flooder(edge::flood::FlooderArguments),
}

/// Whether a bench met its goals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goals {
    Met,
    Missed,
}

impl Goals {
    /// Prints one goal and adds its outcome.
    #[expect(clippy::print_stdout, reason = "the report of a bench")]
    fn check(&mut self, what: &str, found: f64, at_most: f64) {
        let met = found <= at_most;
        println!("goal {}: {what} {found:.3} (at most {at_most:.3})", if met { "met" } else { "MISSED" });
        if !met {
            *self = Self::Missed;
        }
    }
}

fn main() -> anyhow::Result<ExitCode> {
    let bench = Bench::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let goals = runtime.block_on(async {
        match bench {
            Bench::Enroll(arguments) => enroll::run(arguments).await,
            Bench::Commits(arguments) => commits::run(arguments).await,
            Bench::Api(arguments) => api::run(arguments).await,
            Bench::Start(arguments) => start::run(arguments).await,
            Bench::Edge(arguments) => edge::run(arguments).await,
            Bench::Revoke(arguments) => edge::revoke::run(arguments).await,
            Bench::Flood(arguments) => edge::flood::run(arguments).await,
            Bench::Alone(arguments) => edge::alone::run(arguments).await.map(|()| Goals::Met),
            Bench::Crowd(arguments) => edge::crowd::run(arguments).await.map(|()| Goals::Met),
            Bench::Flooder(arguments) => edge::flood::run_flooder(arguments).await.map(|()| Goals::Met),
        }
    })?;
    Ok(if goals == Goals::Met { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The middle of some figures.
fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}
