//! What the story plays in: a server of all roles in this process, an account with two zones, and an origin.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use muster::Clock;
use muster::config::ConfigWritten;
use muster::datadir::DataDir;
use muster::init::{InitPlan, init};
use muster::serve::{Ready, Roles, Server};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::api::Api;

/// Every listener on a free port; operators by their group, as in production. New connections from one address
/// are many here: it is one machine.
const SETTINGS: &str = r##"
[listen]
admin = "127.0.0.1:0"
est = "127.0.0.1:0"
https = "127.0.0.1:0"
mqtt = "127.0.0.1:0"

[log]
level = "error"

[[broker.rules]]
publish = ["devices/%i/#"]
subscribe = ["devices/%i/#", "fleet/#"]

[[broker.rules]]
groups = ["operators"]
publish = ["fleet/#"]
subscribe = ["devices/#"]
"##;
const READY_TIMEOUT: Duration = Duration::from_secs(30);

/// A server with an account of its own; both are gone when it is dropped.
pub(crate) struct World {
    folder: TempDir,
    pub(crate) api: Api,
    pub(crate) admin_url: String,
    pub(crate) admin_token: String,
    pub(crate) est: SocketAddr,
    pub(crate) https: SocketAddr,
    pub(crate) mqtt: SocketAddr,
    stop: CancellationToken,
    thread: Option<std::thread::JoinHandle<anyhow::Result<()>>>,
}

impl World {
    /// Makes an account and serves it.
    ///
    /// # Errors
    /// In words.
    pub(crate) async fn start(account: &str, zones: &[&str]) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let made = init(InitPlan::new(folder.path().join("data"), account, zones)?, &Clock::system()).await?;
        let dir = DataDir::new(folder.path().join("data"));
        let config = ConfigWritten::parse(SETTINGS)?.check(dir.path())?;
        let stop = CancellationToken::new();
        let (teller, ready) = tokio::sync::oneshot::channel();
        let stopped = stop.clone();
        // A runtime of its own: the fleet's work must not starve the server, nor the other way round.
        let thread = std::thread::Builder::new().name("server".to_owned()).spawn(move || {
            tokio::runtime::Runtime::new()?.block_on(async move {
                let roles = Roles { admin: true, edge: true, enroll: true };
                let server = Server::start(dir, config, roles, Clock::system()).await?;
                let told: Ready = server.ready().clone();
                server
                    .run(stopped, move || teller.send(told).map_err(|_| anyhow::anyhow!("nobody waits")))
                    .await
            })
        })?;
        let Ok(Ok(ready)) = tokio::time::timeout(READY_TIMEOUT, ready).await else {
            stop.cancel();
            let ended = thread.join().map_err(|_| anyhow::anyhow!("the server panicked"))?;
            return Err(ended.err().unwrap_or_else(|| anyhow::anyhow!("the server did not start in time")));
        };
        let address = |text: Option<&str>| -> anyhow::Result<SocketAddr> {
            let text = text.context("the server listens")?;
            Ok(text.rsplit("//").next().unwrap_or(text).parse()?)
        };
        let admin_url = ready.admin.clone().context("the server listens")?;
        Ok(Self {
            api: Api::open(&admin_url, &made.admin_token).await?,
            admin_url,
            admin_token: made.admin_token,
            est: address(ready.est.as_deref())?,
            https: address(ready.edge_https.as_deref())?,
            mqtt: address(ready.edge_mqtt.as_deref())?,
            folder,
            stop,
            thread: Some(thread),
        })
    }

    /// What clients trust.
    pub(crate) fn ca_file(&self) -> PathBuf {
        self.folder.path().join("data/ca.pem")
    }

    /// A place for the fleet's identities.
    pub(crate) fn identities(&self) -> PathBuf {
        self.folder.path().join("identities")
    }

    /// Stops the server in order.
    ///
    /// # Errors
    /// When it did not end well.
    pub(crate) async fn end(mut self) -> anyhow::Result<()> {
        self.stop.cancel();
        let Some(thread) = self.thread.take() else { return Ok(()) };
        tokio::task::spawn_blocking(move || thread.join())
            .await?
            .map_err(|_| anyhow::anyhow!("the server panicked"))?
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// An origin behind the edge: it answers every request with a line.
///
/// # Errors
/// When there is no port.
pub(crate) async fn origin() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream));
        }
    });
    Ok(address)
}

async fn answer(mut stream: TcpStream) {
    let mut head = Vec::new();
    let mut buffer = [0; 1024];
    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
        head.extend_from_slice(buffer.get(..read).unwrap_or_default());
        if head.len() > HEAD_MAX_BYTES {
            return;
        }
        if head.ends_with(b"\r\n\r\n") {
            head.clear();
            if stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello\n").await.is_err() {
                return;
            }
        }
    }
}

/// The heads that the edge sends are a few kilobytes.
const HEAD_MAX_BYTES: usize = 64 << 10;
