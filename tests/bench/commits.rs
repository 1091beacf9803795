//! How many commits, and how many fsyncs, a certificate costs with many writers at once.
//!
//! Counted twice: by the ledger's own figures, and by strace on the whole process in a second pass
//! (which slows the server down, so its batches differ).

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStderr, Command};
use tokio::task::JoinSet;

use crate::Goals;
use crate::client::{Connection, Identity, roots};
use crate::enroll::reenroll;
use crate::fleet::{self, Device};
use crate::server::{Server, program};

/// Goal of issue 2: one fsync for eight certificates.
const FSYNCS_PER_CERTIFICATE: f64 = 1.0 / 8.0;

/// Arguments of `commits`.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// Writers at once, each on its own kept connection.
    #[arg(long, default_value_t = 64)]
    writers: usize,
    /// Certificates of each writer.
    #[arg(long, default_value_t = 64)]
    each: usize,
}

/// Measures.
#[expect(clippy::print_stdout, reason = "the report of a bench")]
pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<Goals> {
    let home = tempfile::tempdir()?;
    let dir = home.path().join("muster");
    fleet::found(&dir).await?;
    let registrar = fleet::open(&dir)?;
    let devices = fleet::devices(&registrar, arguments.writers).await?;
    drop(registrar);
    let server = Server::muster(Command::new(program()?), &dir).await?;
    let roots = roots(&dir.join("ca.pem"))?;
    let count = u32::try_from(arguments.writers * arguments.each)?;
    let mut goals = Goals::Met;

    let before = server.metric("muster_ledger_commits_total").await?;
    let begin = Instant::now();
    renew(&server, &roots, &devices, arguments.each).await?;
    let seconds = begin.elapsed().as_secs_f64();
    let commits = u32::try_from(server.metric("muster_ledger_commits_total").await? - before)?;
    println!("{count} certificates in {commits} commits, {:.0}/s", f64::from(count) / seconds);
    goals.check("commits per certificate", f64::from(commits) / f64::from(count), FSYNCS_PER_CERTIFICATE);

    let (mut strace, mut report) = trace(server.pid()).await?;
    renew(&server, &roots, &devices, arguments.each).await?;
    let syncs = count_syncs(&mut strace, &mut report).await?;
    println!("{count} certificates in {syncs} fsync and fdatasync calls (strace)");
    goals.check("fsyncs per certificate", f64::from(syncs) / f64::from(count), FSYNCS_PER_CERTIFICATE);
    server.stop().await?;
    Ok(goals)
}

async fn renew(
    server: &Server,
    roots: &rustls::RootCertStore,
    devices: &[Device],
    each: usize,
) -> anyhow::Result<()> {
    let mut working = JoinSet::new();
    for device in devices {
        let identity = Identity::new(device, roots)?;
        let requests = (0..each).map(|_| reenroll(device)).collect::<Result<Vec<_>, _>>()?;
        let address = server.address;
        working.spawn(async move {
            let mut connection = Connection::open(address, &identity).await?;
            for request in &requests {
                connection.exchange(request).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(finished) = working.join_next().await {
        finished??;
    }
    Ok(())
}

/// Attaches strace to a process and waits until it counts.
async fn trace(pid: Pid) -> anyhow::Result<(Child, BufReader<ChildStderr>)> {
    let mut command = Command::new("strace");
    command.args(["-f", "-c", "-e", "trace=fsync,fdatasync,sync_file_range,msync", "-p", &pid.to_string()]);
    let mut strace = command.stderr(Stdio::piped()).kill_on_drop(true).spawn().context("strace")?;
    let mut report = BufReader::new(strace.stderr.take().context("a pipe")?);
    let mut line = String::new();
    report.read_line(&mut line).await?;
    anyhow::ensure!(line.contains("attached"), "strace: {line}");
    // It names one thread after the other; the last of them is not marked.
    tokio::time::sleep(Duration::from_millis(500)).await;
    Ok((strace, report))
}

async fn count_syncs(strace: &mut Child, report: &mut BufReader<ChildStderr>) -> anyhow::Result<u32> {
    let pid = Pid::from_raw(i32::try_from(strace.id().context("strace ended")?)?);
    kill(pid, Signal::SIGINT)?;
    let mut text = String::new();
    report.read_to_string(&mut text).await?;
    strace.wait().await?;
    // % time, seconds, usecs/call, calls, [errors,] syscall
    let calls = text.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let known =
            matches!(fields.last().copied(), Some("fsync" | "fdatasync" | "sync_file_range" | "msync"));
        fields.get(3).filter(|_| known)?.parse::<u32>().ok()
    });
    Ok(calls.sum())
}
