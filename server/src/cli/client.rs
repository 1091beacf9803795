//! The client of the admin API: over HTTP to the running server, in process on the ledger otherwise.
//!
//! A running server leaves a note (`serving.json`) with its address and a secret that dies with it.
//! A note whose server is gone is passed over. Both ways use the same routes, so a command does the
//! same whether the server runs or not.

use core::pin::pin;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::body::Body;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper_util::rt::TokioIo;
use muster_admin::{Api, Hooks};
use muster_enroll::{Clock, new_secret};
use serde_json::Value;
use tokio::io::{AsyncSeekExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tower::ServiceExt as _;
use zeroize::Zeroizing;

use super::args::PageArgs;
use super::print::cell;
use super::server::configuration;
use crate::backup;
use crate::datadir::DataDir;
use crate::edge::machine_roots;
use crate::open;
use crate::outbound;
use crate::serve::ca_file_hook;
use crate::serving::Serving;
use crate::webhooks;

/// Base of the API's paths.
const BASE: &str = "/client/v4";
/// Entries asked for at once when the whole list is wanted; the most the API gives.
const PER_PAGE_MAX: u32 = 1_000;
/// Entries of a page when only the page is named.
const PER_PAGE_DEFAULT: u32 = 20;
/// How long a server may take to answer that it is there.
const FIRST_ANSWER: Duration = Duration::from_secs(10);
/// How long until an answer begins: longer than any key takes that is made, or list that is taken in.
const ANSWER: Duration = Duration::from_secs(120);
/// How long a download may stand still.
const DOWNLOAD_IDLE: Duration = Duration::from_secs(120);
/// Far more than a page of 1,000 entries of any list.
const ANSWER_MAX_BYTES: usize = 64 << 20;

/// Events hold ids only.
const EVENT_MAX_BYTES: usize = 64 << 10;

/// What the API refused, in its words.
#[derive(Debug, thiserror::Error)]
#[error("{message} [code: {code}]")]
pub(super) struct Refused {
    pub(super) status: StatusCode,
    pub(super) code: u64,
    pub(super) message: String,
    /// Which part of the request is meant.
    pub(super) pointer: Option<String>,
}

/// A way to the API.
pub(super) struct Client {
    transport: Transport,
    secret: Zeroizing<String>,
    account: String,
}

enum Transport {
    Http(SocketAddr),
    InProcess(axum::Router),
}

/// How long an answer may be in coming.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Patience {
    /// [`ANSWER`].
    Bounded,
    /// As long as the server answers others meanwhile: it reads the whole ledger, which takes the longer the more it
    /// holds.
    WhileItLives,
}

impl Client {
    /// Finds the running server, or opens the ledger when nobody else has it.
    pub(super) async fn connect(dir: &DataDir) -> anyhow::Result<Self> {
        open::in_turn(|| Self::find(dir))
            .await
            .map_err(|error| if open::is_in_use(&error) { in_use(dir) } else { error })
    }

    async fn find(dir: &DataDir) -> anyhow::Result<Self> {
        if let Some((address, secret)) = running(dir).await? {
            match Self::new(Transport::Http(address), secret).await {
                Ok(client) => return Ok(client),
                // After a crash something else may have taken the port; then the ledger is free.
                Err(error) => match in_process(dir) {
                    Ok((transport, secret)) => return Self::new(transport, secret).await,
                    Err(_) => return Err(error),
                },
            }
        }
        let (transport, secret) = in_process(dir)?;
        Self::new(transport, secret).await
    }

    async fn new(transport: Transport, secret: Zeroizing<String>) -> anyhow::Result<Self> {
        let mut client = Self { transport, secret, account: String::new() };
        let accounts = client.accounts().await?;
        let id = accounts.pointer("/result/0/id").and_then(Value::as_str);
        client.account = id.context("the ledger has no account; create one with `muster init`")?.to_owned();
        Ok(client)
    }

    /// What a server answers at once that lives.
    async fn accounts(&self) -> anyhow::Result<Value> {
        let accounts = self.send(Method::GET, "/accounts", None, Patience::Bounded);
        tokio::time::timeout(FIRST_ANSWER, accounts).await.unwrap_or_else(|_| Err(self.silent(FIRST_ANSWER)))
    }

    /// The address of the running server; none when the ledger was opened instead.
    pub(super) const fn server(&self) -> Option<SocketAddr> {
        match &self.transport {
            Transport::Http(address) => Some(*address),
            Transport::InProcess(_) => None,
        }
    }

    /// A path of Muster's own below the account; `path` begins with a slash.
    pub(super) fn own(&self, path: &str) -> String {
        format!("/accounts/{}/muster{path}", self.account)
    }

    /// Reads one object.
    pub(super) async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.call(Method::GET, path, None).await
    }

    /// Reads one object that is made from the whole ledger, however long that takes.
    pub(super) async fn get_patiently(&self, path: &str) -> anyhow::Result<Value> {
        Ok(result_of(self.send(Method::GET, path, None, Patience::WhileItLives).await?))
    }

    /// Calls the API; hands out the `result`.
    pub(super) async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Value> {
        Ok(result_of(self.send(method, path, body, Patience::Bounded).await?))
    }

    /// Reads a list: the page that is named, else all of it.
    ///
    /// `query` is what comes after the `?`, without paging; empty for no filter.
    pub(super) async fn list(&self, path: &str, query: &str, page: PageArgs) -> anyhow::Result<Vec<Value>> {
        let all = page.page.is_none();
        let per_page = page.per_page.unwrap_or(if all { PER_PAGE_MAX } else { PER_PAGE_DEFAULT });
        let mut place = format!("page={}", page.page.unwrap_or(1));
        let mut number = u64::from(page.page.unwrap_or(1));
        let mut items = Vec::new();
        loop {
            let target = format!("{path}?{query}&per_page={per_page}&{place}");
            let mut answer = self.send(Method::GET, &target, None, Patience::Bounded).await?;
            if let Some(Value::Array(found)) = answer.get_mut("result") {
                items.append(found);
            }
            let info = |name: &str| answer.pointer(&format!("/result_info/{name}"));
            let cursor = info("cursor").and_then(Value::as_str);
            let pages = info("total_pages").and_then(Value::as_u64).unwrap_or(0);
            place = match cursor {
                _ if !all => return Ok(items),
                Some(cursor) => format!("cursor={cursor}"),
                // Lists of the ledger end with a page without cursor; short ones are only numbered.
                None if number < pages && !place.starts_with("cursor") => {
                    number += 1;
                    format!("page={number}")
                }
                None => return Ok(items),
            };
        }
    }

    /// Downloads a backup into a new file, readable by its owner alone. It has its name once it is whole, and sound as
    /// far as can be told without opening the ledger in it.
    pub(super) async fn download_backup(&self, target: &Path) -> anyhow::Result<u64> {
        let refused = || format!("can't create {}", target.display());
        anyhow::ensure!(!target.exists(), "{}: there is a file of this name", refused());
        let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or_else(|| Path::new("."));
        let partial =
            tempfile::Builder::new().prefix(".muster-backup-").suffix(".partial").tempfile_in(folder);
        let partial = partial.with_context(refused)?;
        let mut file = tokio::fs::File::from_std(partial.as_file().try_clone()?);
        let request = self.request(Method::GET, &self.own("/backup"), None)?;
        let written = self.exchange(request, Patience::WhileItLives, async |response| {
            if response.status() != StatusCode::OK {
                return Err(read_envelope(response)
                    .await
                    .map_or_else(|error| error, |_| anyhow::anyhow!("no file")));
            }
            self.write_body(response.into_body(), &mut file).await
        });
        let written = written.await?;
        file.sync_all().await?;
        file.rewind().await?;
        let file = file.into_std().await;
        let checked = tokio::task::spawn_blocking(move || backup::check(file)).await?;
        checked.context("the backup did not come whole, and is not kept")?;
        partial.persist_noclobber(target).map_err(|error| error.error).with_context(refused)?;
        std::fs::File::open(folder).and_then(|folder| folder.sync_all()).with_context(refused)?;
        Ok(written)
    }

    async fn write_body(&self, mut body: Body, file: &mut tokio::fs::File) -> anyhow::Result<u64> {
        let mut written = 0_u64;
        loop {
            let frame = tokio::time::timeout(DOWNLOAD_IDLE, body.frame()).await;
            let Some(frame) = frame.map_err(|_| self.silent(DOWNLOAD_IDLE))? else { return Ok(written) };
            if let Ok(data) = frame.context("the answer broke off")?.into_data() {
                file.write_all(&data).await?;
                written += data.len() as u64;
            }
        }
    }

    /// Follows a stream of server-sent events: hands out the data of each, until told not to go on.
    ///
    /// # Errors
    /// Also when the stream ends first, and whatever `take` returns.
    pub(super) async fn follow(
        &self,
        path: &str,
        mut take: impl FnMut(&Value) -> anyhow::Result<bool>,
    ) -> anyhow::Result<()> {
        let request = self.request(Method::GET, path, None)?;
        self.exchange(request, Patience::Bounded, async |response| {
            if response.status() != StatusCode::OK {
                return read_envelope(response).await.map(drop);
            }
            let mut body = response.into_body();
            let mut text = Vec::new();
            while let Some(frame) = body.frame().await {
                let Ok(data) = frame.context("the stream broke off")?.into_data() else { continue };
                text.extend_from_slice(&data);
                while let Some(end) = text.windows(2).position(|octets| octets == b"\n\n") {
                    let block: Vec<u8> = text.drain(..end + 2).collect();
                    for line in block.split(|octet| *octet == b'\n') {
                        let Some(data) = line.strip_prefix(b"data:") else { continue };
                        if !take(&serde_json::from_slice(data)?)? {
                            return Ok(());
                        }
                    }
                }
                anyhow::ensure!(
                    text.len() <= EVENT_MAX_BYTES,
                    "an event is larger than {EVENT_MAX_BYTES} bytes"
                );
            }
            anyhow::bail!("the server ended the stream: it is stopping, or the secret is no longer valid")
        })
        .await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        patience: Patience,
    ) -> anyhow::Result<Value> {
        let request = self.request(method, path, body)?;
        let envelope = self.exchange(request, patience, read_envelope).await?;
        for message in messages(&envelope) {
            eprintln!("muster: {message}");
        }
        Ok(envelope)
    }

    fn request(&self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<Request<Body>> {
        let host = self.server().map_or_else(|| "localhost".to_owned(), |address| address.to_string());
        let request = Request::builder()
            .method(method)
            .uri(format!("{BASE}{path}"))
            .header(HOST, host)
            .header(AUTHORIZATION, format!("Bearer {}", *self.secret));
        Ok(match body {
            Some(body) => request
                .header(CONTENT_TYPE, "application/json")
                .body(Body::from(serde_json::to_vec(body)?))?,
            None => request.body(Body::empty())?,
        })
    }

    async fn exchange<T>(
        &self,
        request: Request<Body>,
        patience: Patience,
        read: impl AsyncFnOnce(Response<Body>) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        match &self.transport {
            Transport::InProcess(router) => {
                let Ok(response) = router.clone().oneshot(request).await;
                read(response).await
            }
            Transport::Http(address) => {
                let lost = || lost(*address);
                let stream = TcpStream::connect(address).await.with_context(lost)?;
                let io = TokioIo::new(stream);
                let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await?;
                let exchange = async move {
                    let response =
                        self.wait(sender.send_request(request), patience).await?.with_context(lost)?;
                    read(response.map(Body::new)).await
                };
                // The connection ends when the exchange drops its sender.
                let (answer, _) = tokio::join!(exchange, connection);
                answer
            }
        }
    }

    /// Waits for an answer to begin.
    async fn wait<T>(&self, answer: impl Future<Output = T>, patience: Patience) -> anyhow::Result<T> {
        let mut answer = pin!(answer);
        loop {
            match tokio::time::timeout(ANSWER, answer.as_mut()).await {
                Ok(answer) => return Ok(answer),
                // On the heap, as this waits for an answer too.
                Err(_) if patience == Patience::WhileItLives => drop(Box::pin(self.accounts()).await?),
                Err(_) => return Err(self.silent(ANSWER)),
            }
        }
    }

    fn silent(&self, time: Duration) -> anyhow::Error {
        let server = self.server().map_or_else(|| "the ledger did not answer".to_owned(), lost);
        anyhow::anyhow!("{server} (after {})", humantime::format_duration(time))
    }
}

fn lost(server: SocketAddr) -> String {
    format!("the server at {server} did not answer; look into its log")
}

/// The note of a server that still answers.
async fn running(dir: &DataDir) -> anyhow::Result<Option<(SocketAddr, Zeroizing<String>)>> {
    let note = match std::fs::read(dir.serving()) {
        Ok(note) => note,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(error).with_context(|| format!("can't read {}", dir.serving().display()));
        }
    };
    // A note that can't be read was left by a crash; the ledger tells whether a server runs.
    let Ok(serving) = serde_json::from_slice::<Serving>(&note) else { return Ok(None) };
    let address = serving.admin.strip_prefix("http://").and_then(|address| address.parse().ok());
    let Some(address) = address.filter(|address: &SocketAddr| address.ip().is_loopback()) else {
        return Ok(None);
    };
    match TcpStream::connect(address).await {
        Ok(_) => Ok(Some((address, Zeroizing::new(serving.secret)))),
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => Ok(None),
        Err(error) => Err(error).with_context(|| format!("can't reach the server at {address}")),
    }
}

/// Opens the ledger and puts the API on it.
fn in_process(dir: &DataDir) -> anyhow::Result<(Transport, Zeroizing<String>)> {
    let config = configuration(dir)?;
    let (registrar, registry) = open::account(dir, &config, &Clock::system())?;
    let hooks = Hooks {
        edge_is_at: None,
        edge_figures: None,
        edge_connections: None,
        close_connections: None,
        outbound: outbound::settings(&config, machine_roots())?,
        // No command makes a delivery, but one may fetch a CRL.
        webhooks: webhooks::settings(dir, registrar.authority())?,
        rehearse: None,
        est_url: None,
        backup: backup::hook(dir, &registrar),
        // The server looks at its names when it starts; what clients must trust changes now.
        zones_changed: ca_file_hook(dir, &registrar),
    };
    let secret = new_secret("msl_")?;
    let api = Api::new(registrar, registry, secret.clone(), config.crl_lifetime, hooks);
    Ok((Transport::InProcess(muster_admin::router(Arc::new(api))), secret))
}

fn in_use(dir: &DataDir) -> anyhow::Error {
    anyhow::anyhow!(
        "the ledger in {} is in use, but no server can be reached: another command has it, or a server that starts, \
         stops or runs without the role `admin`; try again, or stop it first",
        dir.path().display()
    )
}

/// What the API has to say of what it did, for people: standard output is for the result.
fn messages(envelope: &Value) -> Vec<String> {
    let messages = envelope.get("messages").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let line = |said: &Value| format!("{} [code: {}]", cell(said.get("message")), cell(said.get("code")));
    messages.iter().map(line).collect()
}

fn result_of(mut envelope: Value) -> Value {
    envelope.get_mut("result").map(Value::take).unwrap_or_default()
}

/// Reads the envelope; a refusal becomes an error.
async fn read_envelope(response: Response<Body>) -> anyhow::Result<Value> {
    let status = response.status();
    let body = http_body_util::Limited::new(response.into_body(), ANSWER_MAX_BYTES).collect().await;
    let octets = body.map_err(|error| anyhow::anyhow!("the answer broke off: {error}"))?.to_bytes();
    let envelope: Value = serde_json::from_slice(&octets)
        .with_context(|| format!("the server answered {status} without an envelope"))?;
    if envelope.get("success") == Some(&Value::Bool(true)) {
        return Ok(envelope);
    }
    let text = |pointer: &str| envelope.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    Err(Refused {
        status,
        code: envelope.pointer("/errors/0/code").and_then(Value::as_u64).unwrap_or_default(),
        message: text("/errors/0/message").unwrap_or_else(|| status.to_string()),
        pointer: text("/errors/0/source/pointer"),
    }
    .into())
}
