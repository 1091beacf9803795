//! The admin API and the dashboard with many stored certificates: how long a page of a list takes, and how
//! many requests a second of the server's CPU answers.
//!
//! All certificates are client certificates of one zone and of as many devices; a quarter has expired, one
//! in a hundred is revoked, and one device in a thousand suspended. Each answer is awaited.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use clap::Args;
use http::{Request, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use muster::init::Initialised;
use muster_enroll::Registrar;
use muster_policy::enrol::DeviceStatus;
use muster_policy::identity::{AccountId, CertificateId};
use muster_policy::name::DeviceId;
use muster_policy::revocation::RevocationReason;
use muster_store::act::{By, REVOKE_MAX, RevokeCertificates, RevokeWhich, STATUS_MAX, SetDevicesStatus};
use muster_store::record::{Actor, Certificate, ClientRequest};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::task::JoinSet;

use crate::server::{Server, program};
use crate::{Goals, fleet, median, start};

/// Goals, milliseconds: a page that a person waits for, and one that a script reaches by its number.
const PAGE_MS: f64 = 50.0;
const DEEP_PAGE_MS: f64 = 250.0;
/// Goals, milliseconds of CPU: 5,000 requests for a token or a record in a second of CPU, 1,000 lists.
const RECORD_CPU_MS: f64 = 0.2;
const LIST_CPU_MS: f64 = 1.0;
/// One certificate of so many has expired, is revoked, or is of a suspended device.
const EXPIRED: usize = 4;
const REVOKED: usize = 100;
const SUSPENDED: usize = 1_000;
const DAY: Duration = Duration::from_secs(86_400);

/// Arguments of `api`.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// Certificates of the ledger.
    #[arg(long, default_value_t = 1_000_000)]
    certificates: usize,
    /// Requests for each page, one after the other.
    #[arg(long, default_value_t = 200)]
    pages: usize,
    /// Connections at once when CPU is measured.
    #[arg(long, default_value_t = 16)]
    connections: usize,
    /// Requests of each connection then.
    #[arg(long, default_value_t = 256)]
    each: usize,
    /// Rounds of those; the median counts.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
}

/// Measures.
#[expect(clippy::print_stdout, reason = "the report of a bench")]
pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<Goals> {
    let home = tempfile::tempdir()?;
    let dir = home.path().join("muster");
    let made = fleet::found(&dir).await?;
    let known = fill(&dir, &made, arguments.certificates).await?;
    let server = Server::muster(Command::new(program()?), &dir).await?;
    let admin = server.admin.context("an admin address")?;
    let caller = Caller::enter(admin, &made.admin_token).await?;
    let mut goals = Goals::Met;

    println!("{:<58} {:>8} {:>8} {:>8}", "page", "p50 ms", "p99 ms", "CPU ms");
    for Listed { path, deep } in pages(&made, arguments.certificates)? {
        let mut connection = Connection::open(admin).await?;
        connection.get(&path, &caller).await?;
        let cpu = server.cpu_ms()?;
        let mut took = Vec::with_capacity(arguments.pages);
        for _ in 0..arguments.pages {
            let begin = Instant::now();
            connection.get(&path, &caller).await?;
            took.push(begin.elapsed().as_secs_f64() * 1e3);
        }
        let cpu = (server.cpu_ms()? - cpu) / f64::from(u32::try_from(arguments.pages)?);
        took.sort_by(f64::total_cmp);
        let p99 = took.get(took.len() * 99 / 100).copied().context("at least one page")?;
        let shown = path.replace(&made.account_id.to_string(), "A");
        println!("{shown:<58} {:8.2} {p99:8.2} {cpu:8.2}", median(took));
        goals.check("p99 ms", p99, if deep { DEEP_PAGE_MS } else { PAGE_MS });
    }

    let account = format!("/client/v4/accounts/{}/muster", made.account_id);
    for (name, path, at_most) in [
        ("token verified", "/client/v4/user/tokens/verify".to_owned(), RECORD_CPU_MS),
        ("certificate", format!("{account}/certificates/{}", known.certificate), RECORD_CPU_MS),
        ("device", format!("{account}/devices/{}", known.device), RECORD_CPU_MS),
        ("list of 20", format!("{account}/certificates"), LIST_CPU_MS),
    ] {
        let mut rounds = Vec::new();
        for _ in 0..arguments.rounds {
            rounds.push(cpu_of(&server, admin, &caller, &path, &arguments).await?);
        }
        let cpu = median(rounds);
        println!("{name}: {:.0} requests per CPU second", 1e3 / cpu);
        goals.check("CPU ms per request", cpu, at_most);
    }
    server.stop().await?;
    Ok(goals)
}

/// A page of a list, and whether it lies far from the list's start.
struct Listed {
    path: String,
    deep: bool,
}

fn pages(made: &Initialised, count: usize) -> anyhow::Result<Vec<Listed>> {
    let zone = made.zones.first().context("a zone")?.id;
    let account = format!("/client/v4/accounts/{}/muster", made.account_id);
    // The middle, and the end, of what each list holds.
    let middle = count / 2 / 50;
    let near = [
        format!("{account}/certificates?per_page=50"),
        format!("{account}/certificates?per_page=50&status=active"),
        format!("{account}/certificates?per_page=50&status=expired"),
        format!("{account}/certificates?per_page=50&status=revoked"),
        format!("{account}/devices?per_page=50"),
        format!("{account}/devices?per_page=50&status=active"),
        format!("{account}/devices?per_page=50&status=suspended"),
        format!("{account}/devices?per_page=50&status=retired"),
        format!("/client/v4/zones/{zone}/client_certificates?per_page=50"),
        format!("/client/v4/zones/{zone}/client_certificates?per_page=50&status=active"),
        format!("/client/v4/zones/{zone}/client_certificates?per_page=50&status=revoked"),
        "/certificates".to_owned(),
        "/certificates?status=active".to_owned(),
        "/certificates?status=expired".to_owned(),
        "/certificates?status=revoked".to_owned(),
        "/devices".to_owned(),
        "/devices?status=suspended".to_owned(),
    ];
    let far = [
        format!("{account}/certificates?per_page=50&page={middle}"),
        format!("{account}/certificates?per_page=50&page={}", count / 50),
        format!("{account}/certificates?per_page=50&status=active&page={middle}"),
        format!("{account}/certificates?per_page=50&status=expired&page={}", count / EXPIRED / 2 / 50),
        format!("{account}/certificates?per_page=50&status=revoked&page={}", count / REVOKED / 2 / 50),
        format!("{account}/devices?per_page=50&page={middle}"),
        format!("/client/v4/zones/{zone}/client_certificates?per_page=50&page={middle}"),
        format!("/client/v4/zones/{zone}/client_certificates?per_page=50&status=active&page={middle}"),
        format!("/certificates?page={middle}"),
    ];
    let listed = |paths: Vec<String>, deep| paths.into_iter().map(move |path| Listed { path, deep });
    Ok(listed(near.to_vec(), false).chain(listed(far.to_vec(), true)).collect())
}

/// A certificate that is stored, and its device.
struct Known {
    certificate: CertificateId,
    device: DeviceId,
}

#[expect(clippy::print_stdout, reason = "the report of a bench")]
async fn fill(dir: &std::path::Path, made: &Initialised, count: usize) -> anyhow::Result<Known> {
    let registrar = fleet::open(dir)?;
    let device = fleet::devices(&registrar, 1).await?.pop().context("a device")?;
    let begin = Instant::now();
    let client = ClientRequest {
        zone: made.zones.first().context("a zone")?.id,
        csr: String::new(),
        subject: Vec::new(),
        validity_days: 90,
    };
    let model = Certificate { client: Some(Box::new(client)), ..device.certificate.clone() };
    let ended = registrar.clock().now().minus(DAY);
    let varied = move |number: usize, mut certificate: Certificate| {
        if number.is_multiple_of(EXPIRED) {
            certificate.not_after = ended;
        }
        certificate
    };
    start::fill(&registrar, &model, count, varied).await?;
    // What has expired is not revoked any more.
    let of_every = |step: usize| (1..count).step_by(step).map(start::device).collect::<Result<Vec<_>, _>>();
    revoke(&registrar, made.account_id, &of_every(REVOKED)?).await?;
    suspend(&registrar, made.account_id, &of_every(SUSPENDED)?).await?;
    println!("{count} certificates stored in {:.0} s", begin.elapsed().as_secs_f64());
    Ok(Known { certificate: device.certificate.id, device: device.certificate.device })
}

async fn revoke(registrar: &Registrar, account: AccountId, devices: &[DeviceId]) -> anyhow::Result<()> {
    for devices in devices.chunks(REVOKE_MAX) {
        let revoke = RevokeCertificates {
            account,
            which: RevokeWhich::Devices(devices.to_vec()),
            reason: RevocationReason::Superseded,
            by: By { actor: Actor::Local, at: registrar.clock().now() },
        };
        registrar.ledger().transact(revoke).await?;
    }
    Ok(())
}

async fn suspend(registrar: &Registrar, account: AccountId, devices: &[DeviceId]) -> anyhow::Result<()> {
    for devices in devices.chunks(STATUS_MAX) {
        let suspend = SetDevicesStatus {
            account,
            devices: devices.to_vec(),
            status: DeviceStatus::Suspended,
            by: By { actor: Actor::Local, at: registrar.clock().now() },
        };
        registrar.ledger().transact(suspend).await?;
    }
    Ok(())
}

/// CPU of the server for one request, while several connections ask.
async fn cpu_of(
    server: &Server,
    admin: SocketAddr,
    caller: &Caller,
    path: &str,
    arguments: &Arguments,
) -> anyhow::Result<f64> {
    let mut connections = Vec::new();
    for _ in 0..arguments.connections {
        connections.push(Connection::open(admin).await?);
    }
    let before = server.cpu_ms()?;
    let mut working = JoinSet::new();
    for mut connection in connections {
        let (caller, path, each) = (caller.clone(), path.to_owned(), arguments.each);
        working.spawn(async move {
            for _ in 0..each {
                connection.get(&path, &caller).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(finished) = working.join_next().await {
        finished??;
    }
    let requests = u32::try_from(arguments.connections * arguments.each)?;
    Ok((server.cpu_ms()? - before) / f64::from(requests))
}

/// Who asks: a token for the API, a session for the dashboard.
#[derive(Clone)]
struct Caller {
    bearer: String,
    cookie: String,
}

impl Caller {
    /// Logs in at the dashboard.
    async fn enter(admin: SocketAddr, token: &str) -> anyhow::Result<Self> {
        let mut connection = Connection::open(admin).await?;
        let message = Request::post("/login")
            .header(header::HOST, admin.to_string())
            .header(header::ORIGIN, format!("http://{admin}"))
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Full::new(Bytes::from(format!("token={token}"))))?;
        let answer = connection.0.send_request(message).await?;
        let cookie = answer.headers().get(header::SET_COOKIE).context("a cookie")?.to_str()?;
        let cookie = cookie.split(';').next().unwrap_or_default().to_owned();
        Ok(Self { bearer: format!("Bearer {token}"), cookie })
    }
}

/// A kept connection over plain HTTP.
struct Connection(http1::SendRequest<Full<Bytes>>);

impl Connection {
    async fn open(admin: SocketAddr) -> anyhow::Result<Self> {
        let socket = TcpStream::connect(admin).await?;
        socket.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(socket)).await?;
        tokio::spawn(connection);
        Ok(Self(sender))
    }

    /// Reads a whole answer, which must be 200.
    async fn get(&mut self, path: &str, caller: &Caller) -> anyhow::Result<()> {
        let message = Request::get(path)
            .header(header::HOST, "localhost")
            .header(header::AUTHORIZATION, &caller.bearer)
            .header(header::COOKIE, &caller.cookie)
            .body(Full::default())?;
        self.0.ready().await?;
        let answer = self.0.send_request(message).await?;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        anyhow::ensure!(status == 200, "{path}: {status}: {}", String::from_utf8_lossy(&body));
        Ok(())
    }
}
