//! From `muster cert revoke` to the end of the device's connections, with many connections live and
//! new ones being made.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout};
use tokio::task::JoinSet;

use super::caller::Caller;
use super::crowd::{self, now_ns};
use super::peers::{load_average, origin};
use super::site::{DOOR, Site};
use crate::Goals;
use crate::fleet::Device;

/// The goal: milliseconds from the command's return.
const CLOSED_AT_P99_MS: f64 = 100.0;
/// Clients that make one connection after the other all the while.
const VISITORS: usize = 4;
/// For the last news to come, and for what must not come.
const SETTLE: Duration = Duration::from_secs(2);
/// 502: DOOR has no origin, and answers itself.
const DOOR_STATUS: u16 = 502;

/// Arguments of `revoke`.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// Devices that are connected.
    #[arg(long, default_value_t = 5_000)]
    devices: usize,
    /// Connections of each.
    #[arg(long, default_value_t = 2)]
    each: usize,
    /// Client processes that share them.
    #[arg(long, default_value_t = 2)]
    processes: usize,
    /// Devices whose certificate is revoked, one after the other.
    #[arg(long, default_value_t = 200)]
    revoked: usize,
}

/// A crowd that is ready.
struct Crowd {
    _process: Child,
    questions: ChildStdin,
    news: Lines<BufReader<ChildStdout>>,
}

impl Crowd {
    async fn ready(mut process: Child) -> anyhow::Result<Self> {
        let questions = process.stdin.take().context("a pipe")?;
        let mut news = BufReader::new(process.stdout.take().context("a pipe")?).lines();
        anyhow::ensure!(news.next_line().await?.as_deref() == Some("ready"), "a crowd did not get in");
        Ok(Self { _process: process, questions, news })
    }

    /// Who is gone since when, and how many of the rest answer.
    async fn report(&mut self, gone: &mut HashMap<String, u64>) -> anyhow::Result<usize> {
        self.questions.write_all(b"?\n").await?;
        while let Some(line) = self.news.next_line().await? {
            match line.split(' ').collect::<Vec<_>>()[..] {
                ["gone", id, at] => drop(gone.insert(id.to_owned(), at.parse()?)),
                ["alive", count] => return Ok(count.parse()?),
                _ => anyhow::bail!("{line}"),
            }
        }
        anyhow::bail!("a crowd ended")
    }
}

/// When a command was called and returned.
struct Revocation {
    device: String,
    called_ns: u64,
    returned_ns: u64,
}

/// Measures.
#[expect(clippy::print_stdout, reason = "the report of a bench")]
pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<Goals> {
    let (site, devices) = Site::found(arguments.devices + VISITORS).await?;
    let (visitors, devices) = devices.split_at(VISITORS);
    let server = site.serve(origin().await?).await?;
    let mut starting = Vec::new();
    for (number, share) in devices.chunks(arguments.devices.div_ceil(arguments.processes)).enumerate() {
        let file = site.file(&format!("crowd-{number}"));
        let address = server.mqtt.context("an edge")?;
        starting.push(Crowd::ready(crowd::start(&site, &file, share, address, arguments.each)?));
    }
    let mut crowds = Vec::new();
    for crowd in starting {
        crowds.push(crowd.await?);
    }
    let live = arguments.devices * arguments.each;
    println!("{live} connections of {} devices, load average {}", arguments.devices, load_average());

    let visits = Visits::start(site.callers(visitors)?, server.address);
    let revoked = devices.get(..arguments.revoked).context("fewer devices than revocations")?;
    let revocations = revoke(&site, revoked).await?;
    tokio::time::sleep(SETTLE).await;
    let visited = visits.end().await?;

    let (mut gone, mut alive) = (HashMap::new(), 0);
    for crowd in &mut crowds {
        alive += crowd.report(&mut gone).await?;
    }
    let (mut since_called, mut since_returned, mut missing) = (Vec::new(), Vec::new(), 0_u32);
    for revocation in &revocations {
        for number in 0..arguments.each {
            match gone.remove(&format!("{}/{number}", revocation.device)) {
                Some(at) => {
                    since_called.push(ms_between(revocation.called_ns, at));
                    since_returned.push(ms_between(revocation.returned_ns, at));
                }
                None => missing += 1,
            }
        }
    }
    print_quantiles("call of `muster cert revoke` to closed", &mut since_called);
    print_quantiles("its return to closed", &mut since_returned);
    println!("{visited} new connections meanwhile, load average {}", load_average());
    let mut goals = Goals::Met;
    goals.check("ms from the return to closed, p99", quantile(&since_returned, 0.99), CLOSED_AT_P99_MS);
    goals.check("connections of revoked devices still open", missing.into(), 0.0);
    let others = live - arguments.revoked * arguments.each;
    let disturbed = gone.len() + others.saturating_sub(alive);
    goals.check("other connections lost or silent", u32::try_from(disturbed)?.into(), 0.0);
    server.stop().await?;
    Ok(goals)
}

/// One command after the other, as an operator's script would.
async fn revoke(site: &Site, devices: &[Device]) -> anyhow::Result<Vec<Revocation>> {
    let mut revocations = Vec::new();
    for device in devices {
        let called_ns = now_ns()?;
        site.muster(&["cert", "revoke", "--device", &device.name]).await?;
        revocations.push(Revocation { device: device.name.clone(), called_ns, returned_ns: now_ns()? });
    }
    Ok(revocations)
}

#[expect(clippy::cast_precision_loss, reason = "nanoseconds of a run are far below 2^52")]
fn ms_between(from_ns: u64, to_ns: u64) -> f64 {
    (to_ns as f64 - from_ns as f64) / 1e6
}

#[expect(clippy::print_stdout, reason = "the report of a bench")]
pub(crate) fn print_quantiles(what: &str, figures: &mut [f64]) {
    figures.sort_by(f64::total_cmp);
    let [p50, p99, most] = [0.5, 0.99, 1.0].map(|part| quantile(figures, part));
    println!("{what}, ms: p50 {p50:.1}, p99 {p99:.1}, most {most:.1}");
}

/// Of sorted figures.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "an index made from a part of a small length"
)]
pub(crate) fn quantile(figures: &[f64], part: f64) -> f64 {
    let index = (part * figures.len() as f64).ceil() as usize;
    figures.get(index.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

/// New HTTPS connections, one after the other.
pub(crate) struct Visits {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    visitors: JoinSet<anyhow::Result<()>>,
}

impl Visits {
    /// Each caller begins, and goes on.
    pub(crate) fn start(callers: Vec<Caller>, server: SocketAddr) -> Self {
        let (stop, done, mut visitors) =
            (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default(), JoinSet::new());
        for caller in callers {
            let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
            visitors.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    caller.visit(server, DOOR, DOOR_STATUS).await?;
                    done.fetch_add(1, Ordering::Relaxed);
                }
                anyhow::Ok(())
            });
        }
        Self { stop, done, visitors }
    }

    /// How many there were; an error when one failed.
    pub(crate) async fn end(mut self) -> anyhow::Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(visitor) = self.visitors.join_next().await {
            visitor?.context("a connection was disturbed")?;
        }
        Ok(self.done.load(Ordering::Relaxed))
    }
}
