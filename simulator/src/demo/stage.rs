//! What the story is played on: two accounts, each with its server in this process, an origin, and a fleet.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use muster::Clock;
use muster::config::ConfigWritten;
use muster::datadir::DataDir;
use muster::init::{InitPlan, init};
use muster::serve::{Ready, Roles, Server};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::api::Api;
use crate::arrival::Arrival;
use crate::device::{Enroller, KeyPool, Want};
use crate::edge::{Endpoint, Manner, Protocol};
use crate::fleet::{ENROLL, FleetRun, TokenSource};
use crate::identities::Directory;
use crate::results::Results;
use crate::tls::{self, Door, Groups, TlsClient};
use crate::view::View;

/// One account and its server.
pub(super) struct Account {
    pub(super) api: Api,
    pub(super) ready: Ready,
    pub(super) ca: PathBuf,
    identities: PathBuf,
}

/// Everything.
pub(super) struct Stage {
    folder: tempfile::TempDir,
    pub(super) devices: u32,
    pub(super) account: Account,
    pub(super) stranger: Account,
    pub(super) origin: SocketAddr,
    pub(super) runs: Vec<Results>,
    stop: CancellationToken,
    tasks: JoinSet<anyhow::Result<()>>,
}

impl Stage {
    /// Makes both accounts and starts their servers.
    pub(super) async fn set(devices: u32, stop: CancellationToken) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("can't make a folder for the demonstration")?;
        let mut tasks = JoinSet::new();
        let account = Account::open(&folder.path().join("demo"), &ZONES, &stop, &mut tasks).await?;
        let stranger =
            Account::open(&folder.path().join("stranger"), &["demo.test"], &stop, &mut tasks).await?;
        let listener = TcpListener::bind(SocketAddr::from(LOOPBACK)).await?;
        let origin = listener.local_addr()?;
        tasks.spawn(serve_origin(listener, stop.clone()));
        Ok(Self { folder, devices, account, stranger, origin, runs: Vec::new(), stop, tasks })
    }

    /// Where everything is.
    pub(super) fn describe(&self) -> String {
        let ready = &self.account.ready;
        let part = |name: &str, address: &Option<String>| {
            format!("  {name:<6} {}\n", address.as_deref().unwrap_or("-"))
        };
        format!(
            "Account demo with zones {} in {}\n{}{}{}{}",
            ZONES.join(" and "),
            self.folder.path().display(),
            part("admin", &ready.admin),
            part("EST", &ready.est),
            part("HTTPS", &ready.edge_https),
            part("MQTT", &ready.edge_mqtt)
        )
    }

    /// Enrolls or renews `devices` devices of an account, and keeps what was measured under a name.
    pub(super) async fn fleet(
        &mut self,
        of: Whose,
        devices: u32,
        want: Want,
        label: &str,
    ) -> anyhow::Result<(u64, u64)> {
        let account = match of {
            Whose::Ours => &self.account,
            Whose::Stranger => &self.stranger,
        };
        let run = account.fleet_run(devices, want).await?;
        let results = Results::new("fleet", label, account.ready.est.as_deref().unwrap_or_default(), ENROLL);
        let view = View::new(Some(u64::from(devices)), of == Whose::Stranger, None)?;
        let (results, view) = run.run(results, view, self.stop.clone()).await?;
        view.end();
        let series = results.series.get(ENROLL).cloned().unwrap_or_default();
        if of == Whose::Ours {
            self.runs.push(results);
        }
        Ok((series.hdr.count(), series.failed()))
    }

    /// Ends both servers in order.
    pub(super) async fn strike(mut self) {
        self.stop.cancel();
        let ending = async { while self.tasks.join_next().await.is_some() {} };
        // The folder goes anyway.
        let _ = tokio::time::timeout(DRAIN_TIMEOUT, ending).await;
    }
}

/// Whose devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    Ours,
    Stranger,
}

impl Account {
    async fn open(
        dir: &Path,
        zones: &[&str],
        stop: &CancellationToken,
        tasks: &mut JoinSet<anyhow::Result<()>>,
    ) -> anyhow::Result<Self> {
        let mut config = ConfigWritten::default();
        let any = Some(SocketAddr::from(LOOPBACK));
        (config.listen.admin, config.listen.est) = (any, any);
        (config.listen.https, config.listen.mqtt) = (any, any);
        let plan = InitPlan {
            dir: dir.join("data"),
            account: "demo".parse()?,
            zones: zones.iter().map(|zone| zone.parse()).collect::<Result<_, _>>()?,
            trust_domain: None,
            algorithm: Default::default(),
            permitted_dns: Vec::new(),
            passphrase: None,
            config: config.clone(),
        };
        let clock = Clock::system();
        let made = init(plan, &clock).await?;
        let data = DataDir::new(dir.join("data"));
        let checked = config.check(data.path())?;
        let roles = Roles { admin: true, edge: true, enroll: true };
        let server = Server::start(data, checked, roles, clock).await?;
        let ready = server.ready().clone();
        let (told, is_ready) = tokio::sync::oneshot::channel();
        let running = server.run(stop.clone(), move || {
            // Whoever waited has gone: then nobody needs to know.
            let _ = told.send(());
            Ok(())
        });
        tasks.spawn(Box::pin(running));
        is_ready.await.context("a server ended before it was ready")?;
        let api = Api::open(ready.admin.as_deref().unwrap_or_default(), &made.admin_token).await?;
        Ok(Self { api, ready, ca: made.ca_file, identities: dir.join("identities") })
    }

    /// The directory of this account's devices.
    pub(super) fn directory(&self) -> anyhow::Result<Directory> {
        Directory::open(&self.identities)
    }

    /// A hostname at an account's edge, seen by devices that trust `ca`.
    pub(super) async fn endpoint(&self, host: &str, protocol: Protocol) -> anyhow::Result<Endpoint> {
        let address = match protocol {
            Protocol::Https { .. } => &self.ready.edge_https,
            Protocol::Mqtt => &self.ready.edge_mqtt,
        };
        let address: SocketAddr = address.as_deref().context("the edge does not listen")?.parse()?;
        let manner = Manner { groups: Groups::default(), alpn_mqtt: false, timeout: TIMEOUT };
        Endpoint::find((host, address.port()), Some(address), tls::roots(&self.ca)?, protocol, manner).await
    }

    async fn fleet_run(&self, devices: u32, want: Want) -> anyhow::Result<FleetRun> {
        let directory = Directory::open_to_write(&self.identities, PREFIX, 0)?;
        let base = self
            .ready
            .est
            .as_deref()
            .and_then(|est| est.strip_prefix("https://"))
            .context("EST does not listen")?;
        let (host, port) = base.rsplit_once(':').context("an address")?;
        let port: u16 = port.parse()?;
        let roots = tls::roots(&self.ca)?;
        let enroller = Enroller::new(
            host.to_owned(),
            port,
            None,
            Door::find(host, port, None, TIMEOUT).await?,
            TlsClient::new(roots, Groups::default(), &["http/1.1"])?,
            tls::certificates(&self.ca)?,
            KeyPool::start(devices as usize).await,
            directory,
            SEED,
            PATIENCE,
        );
        let tokens = match want {
            Want::First => TokenSource::Same(self.api.claim_token(devices as usize).await?),
            Want::Next => TokenSource::Nothing,
        };
        Ok(FleetRun {
            enroller,
            tokens: tokens.open(devices as usize).await?,
            devices: (0..devices).collect(),
            want,
            arrival: Arrival::Poisson { per_s: ENROLL_PER_S },
            shard: (0, 1),
            seed: SEED,
            most_at_once: MOST_AT_ONCE,
            watched: None,
            start_at: None,
        })
    }
}

/// Answers every request with 200.
async fn serve_origin(listener: TcpListener, stop: CancellationToken) -> anyhow::Result<()> {
    let mut serving = JoinSet::new();
    loop {
        let (mut stream, _) = tokio::select! {
            accepted = listener.accept() => accepted?,
            () = stop.cancelled() => return Ok(()),
        };
        while serving.try_join_next().is_some() {}
        serving.spawn(async move {
            let mut head = Vec::with_capacity(1024);
            // The edge sends GET alone here, so a request ends with its head.
            while stream.read_buf(&mut head).await.is_ok_and(|read| read > 0) && head.len() < HEAD_MAX_BYTES {
                if head.ends_with(b"\r\n\r\n") {
                    head.clear();
                    if stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n").await.is_err() {
                        return;
                    }
                }
            }
        });
    }
}

pub(super) const ZONES: [&str; 2] = ["demo.test", "other.test"];
const LOOPBACK: ([u8; 4], u16) = ([127, 0, 0, 1], 0);
const PREFIX: &str = "demo-";
const SEED: u64 = 1;
/// Half of what one core of a usual machine does.
const ENROLL_PER_S: f64 = 400.0;
const MOST_AT_ONCE: usize = 500;
const TIMEOUT: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(60);
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
const HEAD_MAX_BYTES: usize = 32 << 10;
