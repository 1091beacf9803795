//! CPU of the server process per renewed certificate.
//!
//! Rounds of four loads in turn: Muster and cfssl, each on new mTLS 1.3 connections and on kept ones.
//! Every request is another CSR, every connection another device's; an answer is awaited before the
//! next request of its connection. Ratios are taken inside a round.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use clap::Args;
use tokio::task::JoinSet;

use crate::client::{Connection, Exchange, Identity, roots};
use crate::fleet::{self, Device};
use crate::server::Server;
use crate::{Goals, bound, cfssl, median};

/// Goals of issue 2, milliseconds of CPU per certificate.
const NEW_CONNECTION_MS: f64 = 0.5;
const KEEP_ALIVE_MS: f64 = 0.15;

/// Arguments of `enroll`.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// Requests of each load in a round.
    #[arg(long, default_value_t = 2_048)]
    requests: usize,
    /// Connections at once.
    #[arg(long, default_value_t = 32)]
    connections: usize,
    /// Rounds; the median counts.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Only the load on kept connections of Muster; for profilers.
    #[arg(long)]
    keep_alive_only: bool,
}

/// How requests are laid on connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Load {
    /// One request on each connection.
    NewConnections,
    /// All requests of a client on one connection.
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
    let muster = Server::muster(&dir).await?;
    let trust = dir.join("ca.pem");
    if arguments.keep_alive_only {
        let pid = muster.pid();
        println!("muster is process {pid}");
        for _ in 0..arguments.rounds {
            let work = clients(&devices, &trust, &arguments, Load::KeepAlive, reenroll)?;
            println!("keep-alive {:.4} ms", measure(&muster, Load::KeepAlive, work).await?);
        }
        muster.stop().await?;
        return Ok(Goals::Met);
    }
    let baseline = cfssl::start(&cfssl_dir, &trust).await?;
    let their_trust = cfssl_dir.join("ca.pem");
    println!("CPU ms per certificate     muster   cfssl   ratio   bound   ratio");
    let mut figures: [Vec<f64>; 2] = Default::default();
    for _ in 0..arguments.rounds {
        let bound = bound::measure()?;
        for (figures, load) in figures.iter_mut().zip([Load::NewConnections, Load::KeepAlive]) {
            let work = clients(&devices, &trust, &arguments, load, reenroll)?;
            let ours = measure(&muster, load, work).await?;
            let work = clients(&devices, &their_trust, &arguments, load, cfssl::exchange)?;
            let theirs = measure(&baseline, load, work).await?;
            let least = if load == Load::KeepAlive { bound.keep_alive } else { bound.new_connection };
            figures.push(ours);
            let (to_theirs, to_least) = (ours / theirs, ours / least);
            println!("{load:<24?}  {ours:7.4} {theirs:7.4} {to_theirs:7.3} {least:7.4} {to_least:7.2}");
        }
    }
    println!("resident: muster {:.1} MiB, cfssl {:.1} MiB", muster.resident_mib()?, baseline.resident_mib()?);
    let work = clients(&devices, &trust, &arguments, Load::KeepAlive, |_| Ok(Exchange::cacerts()))?;
    println!(
        "cacerts on a kept connection (TLS and HTTP alone): {:.4}",
        measure(&muster, Load::KeepAlive, work).await?
    );
    let [new_connection, keep_alive] = figures;
    let mut goals = Goals::Met;
    goals.check("CPU ms per renewal on a new connection", median(new_connection), NEW_CONNECTION_MS);
    goals.check("CPU ms per renewal on a kept connection", median(keep_alive), KEEP_ALIVE_MS);
    muster.stop().await?;
    baseline.stop().await?;
    Ok(goals)
}

/// A renewal of a device's certificate with its own key.
pub(crate) fn reenroll(device: &Device) -> anyhow::Result<Exchange> {
    let body = Bytes::from(STANDARD.encode(device.request()?));
    Ok(Exchange { path: "/.well-known/est/simplereenroll", media_type: "application/pkcs10", body })
}

fn clients(
    devices: &[Device],
    trust: &Path,
    arguments: &Arguments,
    load: Load,
    exchange: fn(&Device) -> anyhow::Result<Exchange>,
) -> anyhow::Result<Vec<Client>> {
    let roots = roots(trust)?;
    let each = arguments.requests / arguments.connections;
    devices
        .chunks(each.max(1))
        .take(arguments.connections)
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
