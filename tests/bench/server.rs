//! A server process under measurement: its CPU clock, its memory, its end.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use nix::sys::signal::{Signal, kill};
use nix::time::{ClockId, clock_getcpuclockid};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

/// Longest wait for a server to accept; a ledger of a million certificates after a crash takes seconds.
const START_TIMEOUT: Duration = Duration::from_secs(120);

/// Tries to connect to a server that does not say when it is ready, and the time between them.
const START_TRIES: u32 = 200;
const START_PAUSE: Duration = Duration::from_millis(50);

/// A running server; killed when dropped.
pub(crate) struct Server {
    child: Child,
    pid: Pid,
    clock: ClockId,
    /// Where it answers over TLS; of an edge, where its HTTPS is.
    pub(crate) address: SocketAddr,
    /// Where its MQTT over TLS is; an edge only.
    pub(crate) mqtt: Option<SocketAddr>,
    /// Where its metrics are; Muster only.
    pub(crate) admin: Option<SocketAddr>,
}

impl Server {
    /// Starts `muster serve` on `dir` for enrollment, by this command without arguments, and waits for its ready line.
    pub(crate) async fn muster(muster: Command, dir: &Path) -> anyhow::Result<Self> {
        let ready =
            Ready::of(muster, dir, &["--roles", "enroll,admin", "--listen-est", "127.0.0.1:0"]).await?;
        let (admin, est) = (ready.address("admin", "http://")?, ready.address("est", "https://")?);
        Self::watch(ready.child, est, Some(admin))
    }

    /// Starts `muster serve` on `dir` as an edge, by this command without arguments, and waits for its ready line.
    pub(crate) async fn edge(muster: Command, dir: &Path) -> anyhow::Result<Self> {
        let listen = ["--listen-https", "127.0.0.1:0", "--listen-mqtt", "127.0.0.1:0"];
        let ready = Ready::of(muster, dir, &[&["--roles", "edge,admin"][..], &listen].concat()).await?;
        let (admin, mqtt) = (ready.address("admin", "http://")?, ready.address("edge_mqtt", "")?);
        let https = ready.address("edge_https", "")?;
        Ok(Self { mqtt: Some(mqtt), ..Self::watch(ready.child, https, Some(admin))? })
    }

    /// Watches a server that was started otherwise.
    pub(crate) fn watch(
        child: Child,
        address: SocketAddr,
        admin: Option<SocketAddr>,
    ) -> anyhow::Result<Self> {
        let id = child.id().context("the server ended")?;
        let pid = Pid::from_raw(i32::try_from(id)?);
        Ok(Self { child, pid, clock: clock_getcpuclockid(pid)?, address, mqtt: None, admin })
    }

    /// Its process id.
    pub(crate) const fn pid(&self) -> Pid {
        self.pid
    }

    /// CPU time of all its threads so far, user and system, in milliseconds.
    pub(crate) fn cpu_ms(&self) -> anyhow::Result<f64> {
        Ok(Duration::from(self.clock.now()?).as_secs_f64() * 1e3)
    }

    /// Resident memory in MiB.
    pub(crate) fn resident_mib(&self) -> anyhow::Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
        let kib: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
        Ok(kib / 1024.0)
    }

    /// A counter of its metrics.
    pub(crate) async fn metric(&self, name: &str) -> anyhow::Result<u64> {
        let admin = self.admin.context("no metrics")?;
        let text = crate::client::get_plain(admin, "/metrics").await?;
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(value.with_context(|| format!("no {name} in the metrics"))?.parse()?)
    }

    /// Ends it and waits.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        kill(self.pid, Signal::SIGTERM)?;
        self.child.wait().await?;
        Ok(())
    }
}

/// A `muster serve` that said that it is ready.
struct Ready {
    child: Child,
    line: serde_json::Value,
}

impl Ready {
    async fn of(mut command: Command, dir: &Path, arguments: &[&str]) -> anyhow::Result<Self> {
        command.arg("serve").arg(dir).args(["--listen-admin", "127.0.0.1:0"]).args(arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        let mut child = command.spawn().context("no muster: build it first")?;
        let line = first_line(&mut child).await?;
        Ok(Self { child, line: serde_json::from_str(&line)? })
    }

    fn address(&self, name: &str, scheme: &str) -> anyhow::Result<SocketAddr> {
        let base = self.line.get(name).and_then(|value| value.as_str()).unwrap_or_default();
        Ok(base.trim_start_matches(scheme).parse()?)
    }
}

/// The `muster` program beside this one.
pub(crate) fn program() -> anyhow::Result<PathBuf> {
    Ok(std::env::current_exe()?.with_file_name("muster"))
}

/// What a program says when it is ready.
pub(crate) async fn first_line(child: &mut Child) -> anyhow::Result<String> {
    let mut lines = BufReader::new(child.stdout.take().context("a pipe")?).lines();
    let line = tokio::time::timeout(START_TIMEOUT, lines.next_line()).await.context("no ready line")??;
    line.context("the server ended at once")
}

/// Waits until something listens.
pub(crate) async fn accepts(address: SocketAddr) -> anyhow::Result<()> {
    for _ in 0..START_TRIES {
        if TcpStream::connect(address).await.is_ok() {
            return Ok(());
        }
        tokio::time::sleep(START_PAUSE).await;
    }
    anyhow::bail!("nothing listens on {address}")
}
