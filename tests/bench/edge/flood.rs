//! New connections of an honest client while others flood the edge with handshakes.
//!
//! The flood is made by processes of its own, from many addresses, with one ClientHello over and over: some leave as
//! soon as they have sent it, so that the server computes for nobody, and some stay and say nothing more. The server has
//! one processor and the flood the other, so what is offered can be more than the server can do.

use std::collections::VecDeque;
use std::io::Read;
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, ValueEnum};
use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;
use rustls::pki_types::ServerName;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio::process::{Child, Command};
use tokio::sync::Mutex;

use super::caller::Caller;
use super::peers::{load_average, origin};
use super::revoke::{print_quantiles, quantile};
use super::site::{DOOR, Site, raise_file_limit};
use crate::Goals;
use crate::processors::{self, on_the_servers, pin};
use crate::server::Server;

/// The goal for an honest client, and how far above what the server can do the flood has to be.
const VISIT_AT_P99_MS: f64 = 2_000.0;
const FLOOD_TO_CAPACITY: f64 = 2.0;
/// 502: DOOR has no origin, and answers itself.
const DOOR_STATUS: u16 = 502;
/// Between two visits of the honest client.
const PAUSE: Duration = Duration::from_millis(20);
/// After this it would have given up.
const VISIT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long it is looked at what others leave of a processor.
const SPIN: Duration = Duration::from_secs(2);
/// How many a second are made to learn what one costs.
const CALM_PER_S: u32 = 300;
/// Connections that a flooding process opens at once.
const AT_ONCE: u32 = 64;
/// Connections that a process keeps when it stays: together far more than there are slots.
const KEPT: usize = 4_000;
/// The first of the addresses that the flood comes from is 127.1.0.1.
const SOURCE_NET: [u8; 2] = [127, 1];

/// Arguments of `flood`.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// Of each flood.
    #[arg(long, default_value_t = 15)]
    seconds: u64,
    /// Addresses that it comes from.
    #[arg(long, default_value_t = 64)]
    sources: u8,
    /// Processes that make it.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    processes: u32,
    /// How many times what the server can do is offered.
    #[arg(long, default_value_t = 2.5)]
    times: f64,
    /// Connections that send nothing at all, all the while.
    #[arg(long, default_value_t = 500)]
    silent: usize,
}

/// What a flooding connection does once it has sent its hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Then {
    Leave,
    Stay,
}

/// Arguments of `flooder`.
#[derive(Args, Debug)]
pub(crate) struct FlooderArguments {
    #[arg(long)]
    server: SocketAddr,
    /// Base64.
    #[arg(long)]
    hello: String,
    #[arg(long)]
    sources: u8,
    #[arg(long, value_enum)]
    then: Then,
    /// Connections a second.
    #[arg(long)]
    per_s: u32,
}

/// Measures.
#[expect(clippy::print_stdout, reason = "the report of a bench")]
pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<Goals> {
    let (site, devices) = Site::found(1).await?;
    // As it ships, with all its bounds.
    std::fs::write(site.dir().join("muster.toml"), "")?;
    let server = site.serve(origin().await?).await?;
    pin(processors::SERVER, server.pid().as_raw().try_into()?).await?;
    let caller = site.callers(&devices)?.pop().context("a device")?;
    let flood = Flood { hello: STANDARD.encode(hello()?), server: &server, arguments: &arguments };
    let span = Duration::from_secs(arguments.seconds);

    let mut calm = Visits::within(&caller, server.address, span / 3).await;
    print_quantiles("visits in calm", &mut calm.took_ms);
    let (made, cpu_ms, _) = flood.run(Then::Leave, CALM_PER_S, tokio::time::sleep(span / 3)).await?;
    let cost_ms = cpu_ms / made;
    let share = share_of_a_processor().await?;
    let capacity = 1e3 / cost_ms * share;
    println!(
        "a handshake that is left costs {cost_ms:.3} ms of the server, which has {share:.2} of a processor: {capacity:.0} a second"
    );

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate")]
    let per_s = (capacity * arguments.times) as u32;
    let mut silent = Vec::new();
    for _ in 0..arguments.silent {
        silent.push(TcpStream::connect(server.address).await?);
    }
    let mut goals = Goals::Met;
    for then in [Then::Leave, Then::Stay] {
        let visits = Visits::within(&caller, server.address, span);
        let began = Instant::now();
        let (made, cpu_ms, mut visits) = flood.run(then, per_s, visits).await?;
        let span = began.elapsed();
        let offered = made / span.as_secs_f64();
        let busy = cpu_ms / span.as_secs_f64() / 1e3;
        println!(
            "{then:?}: {offered:.0} a second, {:.1} times capacity; the server used {busy:.2} processors; load average {}",
            offered / capacity,
            load_average()
        );
        print_quantiles("visits meanwhile", &mut visits.took_ms);
        println!("{} visits", visits.took_ms.len());
        if then == Then::Leave {
            goals.check("capacity, of the flood", FLOOD_TO_CAPACITY * capacity / offered, 1.0);
        }
        goals.check("ms of an honest visit, p99", quantile(&visits.took_ms, 0.99), VISIT_AT_P99_MS);
        goals.check("honest visits that failed", u32::try_from(visits.failed)?.into(), 0.0);
    }
    drop(silent);
    server.stop().await?;
    Ok(goals)
}

/// What floods of a run have in common.
struct Flood<'r> {
    hello: String,
    server: &'r Server,
    arguments: &'r Arguments,
}

impl Flood<'_> {
    /// Floods while something is done; how many connections were made, the server's CPU in milliseconds, and what was
    /// done.
    async fn run<T>(
        &self,
        then: Then,
        per_s: u32,
        meanwhile: impl Future<Output = T>,
    ) -> anyhow::Result<(f64, f64, T)> {
        let mut flooders = Vec::new();
        for _ in 0..self.arguments.processes {
            let flooder = self.start(then, per_s / self.arguments.processes)?;
            pin(processors::LOAD, flooder.id().context("a flooder")?).await?;
            flooders.push(flooder);
        }
        let before = self.server.cpu_ms()?;
        let done = meanwhile.await;
        let cpu_ms = self.server.cpu_ms()? - before;
        let mut made = 0.0;
        for flooder in flooders {
            // It ends with its standard input.
            let output = flooder.wait_with_output().await?;
            made += String::from_utf8(output.stdout)?.trim().parse::<f64>().context("how many it made")?;
        }
        Ok((made, cpu_ms, done))
    }

    fn start(&self, then: Then, per_s: u32) -> anyhow::Result<Child> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("flooder").arg("--server").arg(self.server.address.to_string());
        command.arg("--hello").arg(&self.hello).arg("--sources").arg(self.arguments.sources.to_string());
        command.arg("--then").arg(if then == Then::Leave { "leave" } else { "stay" });
        command.arg("--per-s").arg(per_s.to_string());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        Ok(command.spawn()?)
    }
}

/// How much of the server's processor others leave: what a process that never waits gets of it.
async fn share_of_a_processor() -> anyhow::Result<f64> {
    let mut spinning = on_the_servers("sh").args(["-c", "while :; do :; done"]).kill_on_drop(true).spawn()?;
    let pid = Pid::from_raw(i32::try_from(spinning.id().context("a process")?)?);
    let (began, clock) = (Instant::now(), clock_getcpuclockid(pid)?);
    tokio::time::sleep(SPIN).await;
    let used = Duration::from(clock.now()?);
    let share = used.as_secs_f64() / began.elapsed().as_secs_f64();
    spinning.kill().await?;
    Ok(share)
}

/// Visits of the honest client.
#[derive(Default)]
struct Visits {
    took_ms: Vec<f64>,
    failed: usize,
}

impl Visits {
    /// One after the other for so long.
    async fn within(caller: &Caller, server: SocketAddr, span: Duration) -> Self {
        let (mut visits, began) = (Self::default(), Instant::now());
        while began.elapsed() < span {
            let visit = Instant::now();
            let visited = tokio::time::timeout(VISIT_TIMEOUT, caller.visit(server, DOOR, DOOR_STATUS)).await;
            match visited {
                Ok(Ok(())) => visits.took_ms.push(visit.elapsed().as_secs_f64() * 1e3),
                Ok(Err(_)) | Err(_) => visits.failed += 1,
            }
            tokio::time::sleep(PAUSE).await;
        }
        visits
    }
}

/// The first message of a client.
fn hello() -> anyhow::Result<Vec<u8>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let mut client = rustls::ClientConnection::new(Arc::new(config), ServerName::try_from(DOOR)?)?;
    let mut hello = Vec::new();
    client.write_tls(&mut hello)?;
    Ok(hello)
}

/// Floods until standard input ends, and says how many hellos it has sent.
#[expect(clippy::print_stdout, reason = "how it speaks to who started it")]
pub(crate) async fn run_flooder(arguments: FlooderArguments) -> anyhow::Result<()> {
    raise_file_limit()?;
    let hello: Arc<[u8]> = STANDARD.decode(&arguments.hello)?.into();
    let (made, next) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let kept: Arc<Mutex<VecDeque<TcpStream>>> = Arc::default();
    let pause = Duration::from_secs(1) * AT_ONCE / arguments.per_s.max(1);
    for _ in 0..AT_ONCE {
        let (hello, made, next, kept) = (hello.clone(), made.clone(), next.clone(), kept.clone());
        let (server, sources, then) = (arguments.server, arguments.sources, arguments.then);
        tokio::spawn(async move {
            let mut due = tokio::time::interval(pause);
            loop {
                due.tick().await;
                let number = next.fetch_add(1, Ordering::Relaxed);
                let last = 1 + u8::try_from(number % u64::from(sources.max(1))).unwrap_or_default();
                let [first, second] = SOURCE_NET;
                if let Ok(stream) = knock([first, second, 0, last], server, &hello).await {
                    made.fetch_add(1, Ordering::Relaxed);
                    if then == Then::Stay {
                        let mut kept = kept.lock().await;
                        kept.push_back(stream);
                        if kept.len() > KEPT {
                            kept.pop_front();
                        }
                    }
                }
            }
        });
    }
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
    println!("{}", made.load(Ordering::Relaxed));
    Ok(())
}

async fn knock(from: [u8; 4], server: SocketAddr, hello: &[u8]) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((from, 0).into())?;
    let mut stream = socket.connect(server).await?;
    stream.write_all(hello).await?;
    Ok(stream)
}
