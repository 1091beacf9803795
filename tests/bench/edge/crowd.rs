//! MQTT clients that connect and stay, in a process of their own: a process has only so many files.
//!
//! Says `ready` when all are connected, `gone CLIENT_ID NANOSECONDS` whenever one's connection ends,
//! and, asked by a line on standard input, `alive COUNT` when all that are left have been pinged.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use nix::time::{ClockId, clock_gettime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::sync::watch;

use super::caller::{Caller, Line};
use super::load::do_all;
use super::site::{MQTT, Site, raise_file_limit};
use crate::client::roots;
use crate::fleet::Device;

const CONNECTING_AT_ONCE: usize = 32;
/// MQTT 3.1.1 §3.12 and §3.13.
const PINGREQ: [u8; 2] = [0xC0, 0];
const PINGRESP: u8 = 0xD0;
/// How long answers to pings are awaited.
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// Arguments of `crowd`.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// Who: `NAME LEAF KEY` a line, base64.
    #[arg(long)]
    devices: PathBuf,
    /// Where.
    #[arg(long)]
    server: SocketAddr,
    /// Who vouches for the server, PEM.
    #[arg(long)]
    roots: PathBuf,
    /// Connections of each device.
    #[arg(long)]
    each: usize,
}

/// Starts a crowd of devices; it still has to get ready.
pub(crate) fn start(
    site: &Site,
    file: &Path,
    devices: &[Device],
    server: SocketAddr,
    each: usize,
) -> anyhow::Result<Child> {
    let mut text = String::new();
    for device in devices {
        let leaf = STANDARD.encode(device.chain.first().context("a leaf")?);
        text += &format!("{} {leaf} {}\n", device.name, STANDARD.encode(device.key.serialize_der()));
    }
    std::fs::write(file, text)?;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("crowd").arg("--devices").arg(file).arg("--server").arg(server.to_string());
    command.arg("--roots").arg(site.file("server-ca.pem")).args(["--each", &each.to_string()]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    Ok(command.spawn()?)
}

/// Nanoseconds of a clock that all processes of the machine share.
pub(crate) fn now_ns() -> anyhow::Result<u64> {
    let time = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC)?);
    Ok(u64::try_from(time.as_nanos())?)
}

/// Stays until standard input ends.
#[expect(clippy::print_stdout, reason = "how it speaks to who started it")]
pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<()> {
    raise_file_limit()?;
    let roots = Arc::new(roots(&arguments.roots)?);
    let mut work = Vec::new();
    for line in std::fs::read_to_string(&arguments.devices)?.lines() {
        let [name, leaf, key] = line.split(' ').collect::<Vec<_>>()[..] else { anyhow::bail!("{line}") };
        let caller = Caller::new(name, STANDARD.decode(leaf)?, STANDARD.decode(key)?, &roots)?;
        for number in 0..arguments.each {
            let (caller, server) = (caller.clone(), arguments.server);
            work.push(async move {
                let suffix = format!("/{number}");
                let line = caller.greet(server, MQTT, &suffix).await?;
                Ok((format!("{}{suffix}", caller.name), line))
            });
        }
    }
    let clients = do_all(CONNECTING_AT_ONCE, work).await?;
    let (ping, pinged) = watch::channel(0_u64);
    let (left, answers) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    for (id, line) in clients {
        left.fetch_add(1, Ordering::Relaxed);
        let (pinged, left, answers) = (pinged.clone(), Arc::clone(&left), Arc::clone(&answers));
        tokio::spawn(async move {
            stay(line, pinged, &answers).await;
            left.fetch_sub(1, Ordering::Relaxed);
            println!("gone {id} {}", now_ns().unwrap_or_default());
        });
    }
    println!("ready");
    while tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new())).await?? > 0 {
        answers.store(0, Ordering::Relaxed);
        ping.send_modify(|round| *round += 1);
        let all = async {
            while answers.load(Ordering::Relaxed) < left.load(Ordering::Relaxed) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let _ = tokio::time::timeout(PING_TIMEOUT, all).await;
        println!("alive {}", answers.load(Ordering::Relaxed));
    }
    Ok(())
}

/// Reads until the end, and pings when asked.
async fn stay(mut line: Line, mut pinged: watch::Receiver<u64>, answers: &AtomicU64) {
    let mut octets = [0; 64];
    loop {
        tokio::select! {
            read = line.read(&mut octets) => match read {
                Ok(count) if count > 0 => {
                    answers.fetch_add(u64::from(octets.first() == Some(&PINGRESP)), Ordering::Relaxed);
                }
                _ => return,
            },
            Ok(()) = pinged.changed() => {
                if line.write_all(&PINGREQ).await.is_err() {
                    return;
                }
            }
        }
    }
}
