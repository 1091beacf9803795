//! `init`, `serve` and `restore`: the commands that are not a client of the admin API.

use std::io::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;
use muster_ca::file_key::CaAlgorithm;
use muster_enroll::Clock;
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Interval;
use tokio_util::sync::CancellationToken;

use super::args::{CaAlgorithmArg, InitArgs, Role, ServeArgs};
use crate::backup;
use crate::config::{Config, ConfigWritten};
use crate::datadir::DataDir;
use crate::init::{InitPlan, Initialised, init as make};
use crate::passphrase;
use crate::serve::{EdgeServer, Roles, Server};
use crate::telemetry;

/// `muster init`.
pub(super) async fn init(args: InitArgs, default_dir: &Path, json: bool) -> anyhow::Result<()> {
    let target = args.target.unwrap_or_else(|| default_dir.to_owned());
    let given = passphrase::given(args.passphrase_file.as_deref())?;
    let passphrase = if args.passphrase_prompt { Some(passphrase::asked_twice()?) } else { given };
    let absolute = |path: std::path::PathBuf| std::path::absolute(&path).unwrap_or(path);
    let mut config = ConfigWritten::default();
    config.ca.passphrase_file = args.passphrase_file.map(absolute);
    config.est.tls_certificate = args.est_certificate.map(absolute);
    config.est.tls_key = args.est_key.map(absolute);
    let plan = InitPlan {
        dir: target.clone(),
        account: args.account,
        zones: args.zones,
        trust_domain: args.trust_domain,
        algorithm: match args.ca_algorithm {
            CaAlgorithmArg::EcdsaP256 => CaAlgorithm::EcdsaP256,
            CaAlgorithmArg::EcdsaP384 => CaAlgorithm::EcdsaP384,
            CaAlgorithmArg::Rsa3072 => CaAlgorithm::Rsa3072,
        },
        permitted_dns: args.permitted_dns,
        passphrase,
        config,
    };
    let made = make(plan, &Clock::system()).await?;
    if json { print_json(&made) } else { print_text(&made, &target) }
}

fn print_json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    Ok(writeln!(std::io::stdout(), "{}", serde_json::to_string(value)?)?)
}

fn print_text(made: &Initialised, dir: &Path) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "Created the account {} in {}", made.account_id, dir.display())?;
    for zone in &made.zones {
        writeln!(out, "  zone         {} ({})", zone.name, zone.id)?;
    }
    writeln!(out, "  admin token  {}   (shown only this once)", made.admin_token)?;
    writeln!(out, "  admin API    {}", made.api_url)?;
    writeln!(out, "  EST          {}", made.est_url)?;
    writeln!(out, "  trust        {}   (what clients must trust)", made.ca_file.display())?;
    writeln!(out, "\nNext:")?;
    writeln!(out, "  muster serve {}", dir.display())?;
    writeln!(out, "  muster -C {} token new --device DEVICE", dir.display())?;
    Ok(())
}

/// `muster serve`.
pub(super) async fn serve(args: ServeArgs, default_dir: &Path) -> anyhow::Result<()> {
    let dir = DataDir::new(args.target.as_deref().unwrap_or(default_dir));
    let mut config = configuration(&dir)?;
    telemetry::start(config.log_format, &config.log_level).context("log.level in muster.toml")?;
    config.listen_admin = args.listen_admin.unwrap_or(config.listen_admin);
    config.listen_est = args.listen_est.unwrap_or(config.listen_est);
    config.listen_https = args.listen_https.unwrap_or(config.listen_https);
    config.listen_mqtt = args.listen_mqtt.unwrap_or(config.listen_mqtt);
    config.listen_crl = args.listen_crl.or(config.listen_crl);
    anyhow::ensure!(config.listen_admin.ip().is_loopback(), "--listen-admin must be a loopback address");
    let runs = |role| args.roles.contains(&role);
    let roles = Roles { admin: runs(Role::Admin), edge: runs(Role::Edge), enroll: runs(Role::Enroll) };
    let stop = CancellationToken::new();
    // One that comes during the start is heard after it: unheard, it ends the process.
    let reload = signal(SignalKind::hangup())?;
    if let Some(socket) = config.edge_follows.clone() {
        let edge = EdgeServer::start(&dir, config, socket, roles, &Clock::system())?;
        let ready = edge.ready().clone();
        let running = edge.run(stop.clone(), move || is_ready(&ready));
        return until_told(running, &stop, reload, || {}).await;
    }
    let server = Server::start(dir, config, roles, Clock::system()).await?;
    let ready = server.ready().clone();
    let upkeep_now = server.upkeep_now();
    let running = server.run(stop.clone(), move || is_ready(&ready));
    until_told(running, &stop, reload, || upkeep_now.notify_one()).await
}

/// Says that every listener accepts, and where.
fn is_ready(ready: &impl serde::Serialize) -> anyhow::Result<()> {
    print_json(ready)?;
    IS_READY.store(true, Ordering::Relaxed);
    tell_systemd(&[NotifyState::Ready]);
    Ok(())
}

/// Whether this process has said so.
static IS_READY: AtomicBool = AtomicBool::new(false);

/// Without systemd this does nothing.
fn tell_systemd(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "systemd can't be told");
    }
}

/// Runs until a signal says to stop, and what then is under way has ended.
async fn until_told(
    running: impl Future<Output = anyhow::Result<()>>,
    stop: &CancellationToken,
    mut reload: Signal,
    reloads: impl Fn(),
) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let watchdog = sd_notify::watchdog_enabled().filter(|limit| !limit.is_zero());
    let mut watchdog = watchdog.map(|limit| tokio::time::interval(limit / 2));
    tokio::pin!(running);
    loop {
        tokio::select! {
            ended = &mut running => return ended,
            _ = terminate.recv() => end(stop),
            _ = tokio::signal::ctrl_c() => end(stop),
            _ = reload.recv() => {
                reloads();
                // One that came during the start is part of it.
                if IS_READY.load(Ordering::Relaxed) {
                    // systemd wants the time beside it (sd_notify(3)).
                    let states = [NotifyState::Reloading].into_iter().chain(NotifyState::monotonic_usec_now().ok());
                    tell_systemd(&states.collect::<Vec<_>>());
                    tell_systemd(&[NotifyState::Ready]);
                }
            }
            () = due(&mut watchdog) => tell_systemd(&[NotifyState::Watchdog]),
        }
    }
}

fn end(stop: &CancellationToken) {
    tell_systemd(&[NotifyState::Stopping]);
    stop.cancel();
}

/// Ready when a sign of life is due; never, without a watchdog.
async fn due(watchdog: &mut Option<Interval>) {
    match watchdog {
        Some(interval) => {
            interval.tick().await;
        }
        None => std::future::pending().await,
    }
}

/// `muster restore`.
pub(super) fn restore(dir: &Path, file: &Path, json: bool) -> anyhow::Result<()> {
    backup::restore(&DataDir::new(dir), file)?;
    if json {
        return print_json(&serde_json::json!({ "restored": dir }));
    }
    writeln!(std::io::stdout(), "Restored {} from {}", dir.display(), file.display())?;
    Ok(())
}

/// The configuration of a data directory.
pub(super) fn configuration(dir: &DataDir) -> anyhow::Result<Config> {
    let path = dir.config();
    let written = ConfigWritten::read(&path).with_context(|| path.display().to_string())?;
    written.check(dir.path()).with_context(|| path.display().to_string())
}
