//! The service: renews unattended, listens to signals and to local commands, and says how it is.
//!
//! SIGTERM and Ctrl-C end it once the disk is at rest; SIGHUP reads the configuration again, and a wrong
//! one changes nothing. A local address that is taken keeps traffic from being carried and nothing else: the
//! certificate must not lapse because of it. Under systemd it tells when it is ready, reloading, stopping and alive.

mod carrying;
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

use self::carrying::Carrying;
use self::report::Reporter;
use crate::carry::Command;
use crate::clock::Clock;
use crate::config::Config;
use crate::control::{self, Outcome, Wish};
use crate::enroll::{Device, Ground, News};
use crate::identity::Publisher;
use crate::log;
use crate::settings::Settings;
use crate::store::Store;

/// Runs until it is told to stop.
///
/// # Errors
/// When it can't start: a wrong configuration, or a store that can't be read or is in use.
pub async fn run(path: &Path) -> anyhow::Result<()> {
    let config = Config::read(path)?;
    log::start(&config.log).with_context(|| format!("log.level `{}` is not a filter", config.log.level))?;
    let settings = config.checked(path)?;
    let store = Arc::new(Store::open(&settings.dir)?);
    let shutdown = CancellationToken::new();
    let tasks = TaskTracker::new();

    let mut reporter = Reporter::new(&settings.dir, Clock::start());
    let (carrying, publisher) = match Carrying::start(&config, path).await {
        Ok(started) => started,
        Err(error) => {
            reporter.uncarried(&error);
            Carrying::nothing()
        }
    };
    reporter.carries(carrying.health());

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
        reporter,
        carrying,
        carry_again: tokio::time::interval(CARRY_INTERVAL),
        refresh: tokio::time::interval(STATUS_INTERVAL),
        config,
    };
    let dir = settings.dir.clone();
    let ended = service.attend(settings, store, publisher).await;
    tell_systemd(&[NotifyState::Stopping]);
    service.carrying.finish().await;
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
    carrying: Carrying,
    /// When what could not be carried is tried again.
    carry_again: Interval,
    /// When the status file is due again, for what is carried.
    refresh: Interval,
    config: Config,
}

/// Why the service lets go of a device.
enum Turn {
    Carry(Box<(Carrying, Publisher)>),
    Reload(Box<(Config, Settings)>),
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
            // Whoever waits for a renewal by the device before this one waits for it by this one.
            if let Some(wish) = self.wish.take() {
                self.renew(wish, &mut device);
            }
            tell_systemd(&[NotifyState::Ready]);
            let turn = self.serve(&mut device, &settings).await;
            publisher = device.finish().await;
            match turn {
                Turn::Carry(started) => {
                    (self.carrying, publisher) = *started;
                    self.reporter.carries(self.carrying.health());
                }
                Turn::Reload(changed) => {
                    (self.config, settings) = *changed;
                    if self.carrying.differs(&self.config, &self.path) {
                        publisher = self.carry().await;
                    }
                }
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
                Command::Renew = self.carrying.command() => device.renew_now(),
                _ = self.refresh.tick() => self.reporter.refresh(),
                _ = self.carry_again.tick(), if self.carrying.differs(&self.config, &self.path) => {
                    // Why not is known since the first try.
                    if let Ok(started) = Carrying::start(&self.config, &self.path).await {
                        return Turn::Carry(Box::new(started));
                    }
                }
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

    /// Carries by a changed configuration from now on; what can't be carried is told, and tried again.
    async fn carry(&mut self) -> Publisher {
        let (nothing, publisher) = Carrying::nothing();
        std::mem::replace(&mut self.carrying, nothing).finish().await;
        let publisher = match Carrying::start(&self.config, &self.path).await {
            Ok((carrying, publisher)) => {
                self.carrying = carrying;
                publisher
            }
            Err(error) => {
                self.reporter.uncarried(&error);
                publisher
            }
        };
        self.reporter.carries(self.carrying.health());
        publisher
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
    fn reload(&self, settings: &Settings) -> Option<(Config, Settings)> {
        // systemd wants the time beside it (sd_notify(3)).
        let states = [NotifyState::Reloading].into_iter().chain(NotifyState::monotonic_usec_now().ok());
        tell_systemd(&states.collect::<Vec<_>>());
        let read = Config::read(&self.path).and_then(|config| {
            let checked = config.checked(&self.path)?;
            Ok((config, checked))
        });
        let changed = match read {
            Ok(changed) if changed.1.dir == settings.dir => {
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

/// How old the figures of the status file may be.
const STATUS_INTERVAL: Duration = Duration::from_secs(10);
/// How often a local address that was taken is tried again.
const CARRY_INTERVAL: Duration = Duration::from_secs(5);
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
