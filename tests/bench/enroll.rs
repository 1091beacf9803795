//! CPU of the server process per renewed certificate.
//!
//! Rounds of four loads in turn: Muster and cfssl, each on new mTLS 1.3 connections and on kept ones,
//! and with few connections at once and with many, whose certificates share commits. Every request is
//! another CSR, every connection another device's; an answer is awaited before the next request of its
//! connection. Ratios are taken inside a round. Both servers have one processor, the load has the other.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use clap::{Args, ValueEnum};
use tokio::task::JoinSet;

use crate::client::{Connection, Exchange, Identity, roots};
use crate::fleet::{self, Device};
use crate::processors::{self, on_the_servers, pin};
use crate::server::{Server, program};
use crate::{Goals, bound, cfssl, median};

/// Goals of issue 2, milliseconds of CPU per certificate.
const NEW_CONNECTION_MS: f64 = 0.5;
const KEEP_ALIVE_MS: f64 = 0.15;
/// Counts the commits of the ledger.
const COMMITS: &str = "muster_ledger_commits_total";

/// Arguments of `enroll`.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// Requests of each load in a round.
    #[arg(long, default_value_t = 2_048)]
    requests: usize,
    /// Connections at once; a round goes through all of these.
    #[arg(long, value_delimiter = ',', default_values_t = [32, 64, 128])]
    connections: Vec<usize>,
    /// Rounds; the median counts.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Only this load, on Muster alone; for profilers.
    #[arg(long, value_enum)]
    only: Option<Load>,
}

/// How requests are laid on connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Load {
    /// One request on each connection.
    #[value(name = "new")]
    NewConnections,
    /// All requests of a client on one connection.
    #[value(name = "kept")]
    KeepAlive,
}

/// What one client does: its identity and its requests, in order.
pub(crate) type Client = Vec<(Identity, Vec<Exchange>)>;

/// Measures.
#[expect(clippy::print_stdout, reason = "the report of a bench")]
pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<Goals> {
    let home = tempfile::tempdir()?;
    let (dir, cfssl_dir) = (home.path().join("muster"), home.path().join("cfssl"));
    std::fs::create_dir(&cfssl_dir)?;
    fleet::found(&dir).await?;
    let registrar = fleet::open(&dir)?;
    let devices = fleet::devices(&registrar, arguments.requests).await?;
    drop(registrar);
    let muster = Server::muster(on_the_servers(program()?), &dir).await?;
    let trust = dir.join("ca.pem");
    if let Some(load) = arguments.only {
        pin(processors::LOAD, std::process::id()).await?;
        let pid = muster.pid();
        println!("muster is process {pid}");
        for at_once in arguments.rounds() {
            let work = clients(&devices, &trust, at_once, load, reenroll)?;
            println!("{load:?} {at_once}: {:.4} ms", measure(&muster, load, work).await?);
        }
        muster.stop().await?;
        return Ok(Goals::Met);
    }
    let baseline = cfssl::start(&cfssl_dir, &trust).await?;
    let their_trust = cfssl_dir.join("ca.pem");
    pin(processors::LOAD, std::process::id()).await?;
    let mut figures = Figures::new();
    println!("CPU ms per certificate          muster   cfssl   ratio   bound   ratio  commits");
    for at_once in arguments.rounds() {
        let bound = bound::measure()?;
        for load in [Load::NewConnections, Load::KeepAlive] {
            let work = clients(&devices, &trust, at_once, load, reenroll)?;
            let commits = muster.metric(COMMITS).await?;
            let ours = measure(&muster, load, work).await?;
            let commits = u32::try_from(muster.metric(COMMITS).await? - commits)?;
            let each = f64::from(commits) / f64::from(u32::try_from(arguments.requests)?);
            let work = clients(&devices, &their_trust, at_once, load, cfssl::exchange)?;
            let theirs = measure(&baseline, load, work).await?;
            let least = if load == Load::KeepAlive { bound.keep_alive } else { bound.new_connection };
            figures.entry((at_once, load)).or_default().push(ours);
            let (to_theirs, to_least) = (ours / theirs, ours / least);
            println!(
                "{load:<24?} {at_once:>4}  {ours:7.4} {theirs:7.4} {to_theirs:7.3} {least:7.4} {to_least:7.2} {each:8.3}"
            );
        }
    }
    println!("resident: muster {:.1} MiB, cfssl {:.1} MiB", muster.resident_mib()?, baseline.resident_mib()?);
    let at_once = arguments.connections.first().copied().unwrap_or(1);
    let work = clients(&devices, &trust, at_once, Load::KeepAlive, |_| Ok(Exchange::cacerts()))?;
    println!(
        "cacerts on a kept connection (TLS and HTTP alone): {:.4}",
        measure(&muster, Load::KeepAlive, work).await?
    );
    let mut goals = Goals::Met;
    for ((at_once, load), found) in figures {
        let (connection, at_most) = match load {
            Load::NewConnections => ("new", NEW_CONNECTION_MS),
            Load::KeepAlive => ("kept", KEEP_ALIVE_MS),
        };
        let what = format!("CPU ms per renewal, {at_once} {connection} connections at once");
        goals.check(&what, median(found), at_most);
    }
    muster.stop().await?;
    baseline.stop().await?;
    Ok(goals)
}

/// CPU per certificate by connections at once and load.
type Figures = BTreeMap<(usize, Load), Vec<f64>>;

impl Arguments {
    /// The connections at once of each round of loads.
    fn rounds(&self) -> impl Iterator<Item = usize> {
        (0..self.rounds).flat_map(|_| self.connections.iter().copied())
    }
}

/// A renewal of a device's certificate with its own key.
pub(crate) fn reenroll(device: &Device) -> anyhow::Result<Exchange> {
    let body = Bytes::from(STANDARD.encode(device.request()?));
    Ok(Exchange { path: "/.well-known/est/simplereenroll", media_type: "application/pkcs10", body })
}

fn clients(
    devices: &[Device],
    trust: &Path,
    at_once: usize,
    load: Load,
    exchange: fn(&Device) -> anyhow::Result<Exchange>,
) -> anyhow::Result<Vec<Client>> {
    let roots = roots(trust)?;
    let each = devices.len() / at_once.max(1);
    devices
        .chunks(each.max(1))
        .take(at_once)
        .map(|chunk| match load {
            Load::NewConnections => chunk
                .iter()
                .map(|device| Ok((Identity::new(device, &roots)?, vec![exchange(device)?])))
                .collect(),
            Load::KeepAlive => {
                let device = chunk.first().context("a device")?;
                // One more, which is sent before the clock starts.
                let requests = (0..=each).map(|_| exchange(device)).collect::<Result<_, _>>()?;
                Ok(vec![(Identity::new(device, &roots)?, requests)])
            }
        })
        .collect()
}

/// CPU milliseconds of the server per request.
async fn measure(server: &Server, load: Load, clients: Vec<Client>) -> anyhow::Result<f64> {
    let begin = Arc::new(tokio::sync::Barrier::new(clients.len() + 1));
    let address = server.address;
    let mut working = JoinSet::new();
    for client in clients {
        let begin = Arc::clone(&begin);
        working.spawn(async move {
            let mut open = None;
            if load == Load::KeepAlive {
                let (identity, requests) = client.first().context("a connection")?;
                let mut connection = Connection::open(address, identity).await?;
                connection.exchange(requests.first().context("a request")?).await?;
                open = Some(connection);
            }
            begin.wait().await;
            begin.wait().await;
            let mut done = 0_u32;
            for (identity, requests) in client {
                let (mut connection, skip) = match open.take() {
                    Some(connection) => (connection, 1),
                    None => (Connection::open(address, &identity).await?, 0),
                };
                for request in requests.iter().skip(skip) {
                    connection.exchange(request).await?;
                    done += 1;
                }
            }
            anyhow::Ok(done)
        });
    }
    // Between the two, all clients stand still.
    begin.wait().await;
    let before = server.cpu_ms()?;
    begin.wait().await;
    let mut done = 0;
    while let Some(finished) = working.join_next().await {
        done += finished??;
    }
    Ok((server.cpu_ms()? - before) / f64::from(done))
}
