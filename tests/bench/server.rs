//! A server process under measurement: its CPU clock, its memory, its end.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use nix::sys::signal::{Signal, kill};
use nix::time::{ClockId, clock_getcpuclockid};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// Longest wait for a server to accept; a ledger of a million certificates after a crash takes seconds.
const START_TIMEOUT: Duration = Duration::from_secs(120);

/// A running server; killed when dropped.
pub(crate) struct Server {
    child: Child,
    pid: Pid,
    clock: ClockId,
    /// Where it answers over TLS.
    pub(crate) address: SocketAddr,
    /// Where its metrics are; Muster only.
    pub(crate) admin: Option<SocketAddr>,
}

impl Server {
    /// Starts `muster serve` on `dir` and waits for its ready line.
    pub(crate) async fn muster(dir: &Path) -> anyhow::Result<Self> {
        let program = std::env::current_exe()?.with_file_name("muster");
        let mut command = Command::new(&program);
        command.arg("serve").arg(dir);
        command.args([
            "--roles",
            "enroll,admin",
            "--listen-admin",
            "127.0.0.1:0",
            "--listen-est",
            "127.0.0.1:0",
        ]);
        command.stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        let mut child = command.spawn().with_context(|| format!("{}: build it first", program.display()))?;
        let mut lines = BufReader::new(child.stdout.take().context("a pipe")?).lines();
        let line =
            tokio::time::timeout(START_TIMEOUT, lines.next_line()).await.context("no ready line")??;
        let ready: serde_json::Value = serde_json::from_str(&line.context("muster ended at once")?)?;
        let address = |name: &str, scheme: &str| -> anyhow::Result<SocketAddr> {
            let base = ready.get(name).and_then(|value| value.as_str()).unwrap_or_default();
            Ok(base.trim_start_matches(scheme).parse()?)
        };
        let admin = address("admin", "http://")?;
        Self::watch(child, address("est", "https://")?, Some(admin))
    }

    /// Watches a server that was started otherwise.
    pub(crate) fn watch(
        child: Child,
        address: SocketAddr,
        admin: Option<SocketAddr>,
    ) -> anyhow::Result<Self> {
        let id = child.id().context("the server ended")?;
        let pid = Pid::from_raw(i32::try_from(id)?);
        Ok(Self { child, pid, clock: clock_getcpuclockid(pid)?, address, admin })
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
