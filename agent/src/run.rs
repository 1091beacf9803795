//! The service: renews unattended, listens to signals and to local commands, and says how it is.
//!
//! SIGTERM and Ctrl-C end it once the disk is at rest; SIGHUP reads the configuration again, and a wrong
//! one changes nothing. Under systemd it tells when it is ready, reloading, stopping and alive.

mod report;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::Interval;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::report::Reporter;
use crate::clock::Clock;
use crate::config::Config;
use crate::control::{self, Outcome, Wish};
use crate::enroll::{Device, Ground, News};
use crate::identity::{self, Publisher};
use crate::log;
use crate::settings::Settings;
use crate::store::Store;

/// Runs until it is told to stop.
///
/// # Errors
/// When it can't start: a wrong configuration, or a store that can't be read or is in use.
pub async fn run(path: &Path) -> anyhow::Result<()> {
    let config = Config::read(path)?;
    log::start(&config.log).with_context(|| format!("log.level `{}` is no filter", config.log.level))?;
    let settings = config.checked(path)?;
    let store = Arc::new(Store::open(&settings.dir)?);
    let shutdown = CancellationToken::new();
    let tasks = TaskTracker::new();

    // Whoever carries traffic gets the other end as a task of `tasks` that ends with `shutdown`, and judges
    // candidates by it. While nobody holds it, the device takes each candidate unseen.
    let (publisher, _) = identity::channel();

    let (wish, wishes) = mpsc::channel(1);
    match control::open(&settings.dir) {
        Ok(listener) => {
            let serving = control::serve(listener, wish);
            let stopped = shutdown.clone();
            tasks.spawn(async move { stopped.run_until_cancelled(serving).await });
        }
        Err(error) => {
            tracing::warn!(%error, "no socket for local commands; `muster-agent renew` will not work")
        }
    }
    let mut service = Service {
        path: path.to_owned(),
        signals: Signals::listen()?,
        wishes,
        wish: None,
        watchdog: sd_notify::watchdog_enabled().map(|limit| tokio::time::interval(limit / 2)),
        reporter: Reporter::new(&settings.dir, Clock::start()),
    };
    let dir = settings.dir.clone();
    let ended = service.attend(settings, store, publisher).await;
    tell_systemd(&[NotifyState::Stopping]);
    shutdown.cancel();
    tasks.close();
    // Local tasks end at once; one that does not must not keep the system from going down.
    let _ = tokio::time::timeout(DRAIN_TIMEOUT, tasks.wait()).await;
    let _ = std::fs::remove_file(control::path(&dir));
    ended
}

/// What the service listens to beside its device.
struct Service {
    path: PathBuf,
    signals: Signals,
    wishes: mpsc::Receiver<Wish>,
    /// Who waits for the outcome of a renewal.
    wish: Option<Wish>,
    watchdog: Option<Interval>,
    reporter: Reporter,
}

/// Why the service lets go of a device.
enum Turn {
    Reload(Box<Settings>),
    Stop,
}

impl Service {
    /// Serves devices, a new one after each reload, until it is told to stop.
    async fn attend(
        &mut self,
        mut settings: Settings,
        store: Arc<Store>,
        mut publisher: Publisher,
    ) -> anyhow::Result<()> {
        loop {
            let mut ground = Ground::new(&settings);
            let mut device =
                Device::start(&mut ground, Arc::clone(&store), self.reporter.clock(), publisher)?;
            self.reporter.started(&device);
            tell_systemd(&[NotifyState::Ready]);
            let turn = self.serve(&mut device, &settings).await;
            publisher = device.finish().await;
            match turn {
                Turn::Reload(changed) => settings = *changed,
                Turn::Stop => return Ok(()),
            }
        }
    }

    async fn serve(&mut self, device: &mut Device<'_>, settings: &Settings) -> Turn {
        loop {
            tokio::select! {
                news = device.next() => {
                    self.reporter.report(&news, device);
                    self.answer(&news);
                }
                Some(wish) = self.wishes.recv() => self.renew(wish, device),
                () = alive(&mut self.watchdog) => tell_systemd(&[NotifyState::Watchdog]),
                _ = self.signals.hang_up.recv() => {
                    if let Some(changed) = self.reload(settings) {
                        return Turn::Reload(Box::new(changed));
                    }
                }
                _ = self.signals.terminate.recv() => return Turn::Stop,
                _ = self.signals.interrupt.recv() => return Turn::Stop,
            }
        }
    }

    fn renew(&mut self, wish: Wish, device: &mut Device<'_>) {
        if device.has_candidate() {
            let why = "a new certificate is there already and waits to be tried".to_owned();
            // Whoever asked may be gone.
            let _ = wish.send(Outcome::Failed { why });
            return;
        }
        self.wish = Some(wish);
        device.renew_now();
    }

    /// Tells who asked for a renewal how it went.
    fn answer(&mut self, news: &News) {
        let outcome = match news {
            News::Failed { words, .. } => Outcome::Failed { why: words.clone() },
            News::Issued(window) => Outcome::Renewed { expires_at: window.expires_at().as_secs() },
            News::Postponed(_) => Outcome::Postponed,
            _ => return,
        };
        if let Some(wish) = self.wish.take() {
            let _ = wish.send(outcome);
        }
    }

    /// Reads the configuration again; `None` when it is wrong, and all stays as it is.
    fn reload(&self, settings: &Settings) -> Option<Settings> {
        // systemd wants the time beside it (sd_notify(3)).
        let states = [NotifyState::Reloading].into_iter().chain(NotifyState::monotonic_usec_now().ok());
        tell_systemd(&states.collect::<Vec<_>>());
        let read = Config::read(&self.path).and_then(|config| config.checked(&self.path));
        let changed = match read {
            Ok(changed) if changed.dir == settings.dir => {
                tracing::info!("the configuration was read again");
                return Some(changed);
            }
            Ok(_) => "the folder of keys changes only with a restart".to_owned(),
            Err(error) => error.to_string(),
        };
        tracing::error!(error = changed, "the configuration is not taken; all goes on as before");
        tell_systemd(&[NotifyState::Ready]);
        None
    }
}

struct Signals {
    hang_up: Signal,
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            hang_up: signal(SignalKind::hangup())?,
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }
}

/// Ready when the watchdog wants a sign of life; never, without one.
async fn alive(watchdog: &mut Option<Interval>) {
    match watchdog {
        Some(interval) => {
            interval.tick().await;
        }
        None => std::future::pending().await,
    }
}

/// Without systemd this does nothing.
fn tell_systemd(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "systemd can't be told");
    }
}

const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
