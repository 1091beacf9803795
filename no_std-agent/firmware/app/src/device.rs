//! The life of a device: enroll, use the identity, renew, recover.
//!
//! One loop, one connection at a time. First whatever the EST machine has due, then the application's servers with
//! the identity: the HTTPS service once for each round, the broker until something else is due. A service that fails
//! is left alone for a while and holds nothing up.
//! The token of the factory serves the first enrollment, and a later one only when the identity was refused, once for
//! each boot; it is erased as soon as an identity that works is in flash.

use core::time::Duration;

use embedded_io::{Read, Write};
use embedded_storage::nor_flash::NorFlash;
use muster_nostd_agent::clock::Clock;
use muster_nostd_agent::device::{Board, Device, DeviceMemory, StartError};
use muster_nostd_agent::entropy::Entropy;
use muster_nostd_agent::key::KeyStore;
use muster_nostd_agent::net::Close;
use muster_nostd_agent::tls::{CLOSE_TIMEOUT, ConnectError, Connection};
use muster_proto::enrollment::{
    AskWishes, Binding, Config, Event, Failure, Misuse, Pace, Presents, Slot, Trust,
};
use muster_proto::est::Credential;
use muster_proto::time::{EARLIEST_WALL_TIME, Instant};
use muster_proto::x509::ServerName;

use crate::clock::BoardClock;
use crate::factory::{Endpoint, Settings, TrustSetting};
use crate::https::{self, Visit};
use crate::mqtt::{End, Next, Session, Trial};
use crate::net::TcpNet;
use crate::partition::erase_token;
use crate::pause::Pauses;
use crate::platform::Platform;
use crate::report::Report;
use crate::turns::Turns;

/// What a device is made of.
pub struct Parts<'m, I, T, K, E, P> {
    /// What the factory told it.
    pub settings: &'m Settings<'m>,
    /// Its token, until that is used.
    pub credential: Option<Credential<'m>>,
    /// Its network.
    pub net: TcpNet<'m>,
    /// The flash with the identities, all of it.
    pub identities: I,
    /// The flash with the factory's two pages, all of it.
    pub factory: T,
    /// Where private keys are.
    pub keys: K,
    /// Its source of randomness.
    pub entropy: E,
    /// The rest of the board.
    pub platform: &'m P,
    /// Memory of the EST machine and TLS.
    pub memory: DeviceMemory<'m>,
    /// How fast to go.
    pub pace: Pace,
    /// Different for each device, e.g. from its serial number; nothing secret.
    pub seed: u64,
}

/// A device that has started.
pub struct Life<'m, I, T, K, E, P> {
    device: Device<'m, TcpNet<'m>, I, K, E, BoardClock, ANSWER_BYTES, ITEM_BYTES>,
    settings: &'m Settings<'m>,
    factory: T,
    credential: Option<Credential<'m>>,
    platform: &'m P,
    turns: &'m Turns<'m>,
    recovery: Recovery,
    /// Between rounds.
    rounds: Pauses,
    /// Between visits to an HTTPS service that fails.
    visits: Pauses,
    /// Not visited before.
    visit_at: Instant,
}

/// What became of the token as a cure for an identity that is refused.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Recovery {
    Untried,
    Trying,
    /// The server does not take it. Asking again would change nothing; the next boot does.
    Refused,
}

impl<'m, I, T, K, E, P> Life<'m, I, T, K, E, P>
where
    I: NorFlash,
    T: NorFlash,
    K: KeyStore,
    E: Entropy,
    P: Platform,
{
    /// Starts a device with what its flash holds.
    ///
    /// # Errors
    /// [`StartError`]: the flash failed, or is too small.
    pub fn start(parts: Parts<'m, I, T, K, E, P>) -> Result<Self, StartError<I::Error>> {
        let Parts { settings, credential, net, identities, factory, keys, entropy, platform, .. } = parts;
        let trust = match &settings.trust {
            TrustSetting::Certificates(certificates) => Trust::Certificates(certificates),
            TrustSetting::Fingerprint(fingerprint) => Trust::Fingerprint(*fingerprint),
        };
        let config = Config {
            server: settings.est,
            identity: settings.identity,
            credential,
            trust,
            wishes: AskWishes::Ask,
            binding: Binding::Never,
            presents: Presents::Leaf,
            pace: parts.pace,
            built_at: EARLIEST_WALL_TIME,
            seed: parts.seed,
        };
        let capacity = u32::try_from(identities.capacity()).unwrap_or(u32::MAX);
        let turns = net.turns();
        let board = Board { net, flash: identities, keys, entropy, clock: BoardClock };
        let device = Device::start(board, 0..capacity, config, None, parts.memory)?;
        let (rounds, visits) = (Pauses::new(parts.seed), Pauses::new(!parts.seed));
        let (recovery, visit_at) = (Recovery::Untried, BoardClock.now());
        Ok(Self {
            device,
            settings,
            factory,
            credential,
            platform,
            turns,
            recovery,
            rounds,
            visits,
            visit_at,
        })
    }

    /// Lives until the power is cut.
    ///
    /// # Errors
    /// [`Misuse`] is a bug here; restart, which is safe.
    pub fn run(&mut self) -> Result<core::convert::Infallible, Misuse> {
        loop {
            let until = self.enroll()?;
            let Some(slot) = self.device.identity() else {
                self.turns.wait_until(until);
                continue;
            };
            let pause_until = self.round(slot, until)?;
            self.turns.wait_until(pause_until.min(until));
        }
    }

    /// Does what the EST machine has due.
    fn enroll(&mut self) -> Result<Instant, Misuse> {
        let platform = self.platform;
        loop {
            let (mut is_enrolled, mut is_refused) = (false, false);
            let observe = |event| {
                is_enrolled |= matches!(event, Event::Issued(..));
                is_refused |= matches!(event, Event::Failed(Failure::Status(401 | 403), _));
                platform.log(format_args!("est: {event}"));
            };
            let until = self.device.work(observe)?;
            if is_enrolled {
                self.spend_token();
            } else if is_refused && self.recovery == Recovery::Trying {
                self.platform.log(format_args!("the token is refused; it is tried again at the next start"));
                self.recovery = Recovery::Refused;
                self.device.forget_credential();
                continue;
            }
            return Ok(until);
        }
    }

    /// One round with the application's servers. Returns when the next one is to begin at the latest.
    fn round(&mut self, slot: Slot, until: Instant) -> Result<Instant, Misuse> {
        let trial =
            if self.device.enrollment().candidate() == Some(slot) { Trial::Candidate } else { Trial::InUse };
        if let Some(service) = self.settings.https
            && self.visit_at <= BoardClock.now()
        {
            let visit = self.visit(service, slot);
            self.platform.log(format_args!("https: {visit}"));
            match visit {
                Visit::Answered { .. } => self.visits.reset(),
                Visit::Refused => return self.refused(slot),
                Visit::Broken(_) | Visit::Unanswered => self.visit_at = self.visits.next(BoardClock.now()),
            }
            if visit != Visit::Unanswered {
                self.taken(slot)?;
                if trial == Trial::Candidate {
                    // It is in use now; the one before is put away first.
                    return Ok(BoardClock.now());
                }
            }
        }
        let Some(broker) = self.settings.mqtt else {
            if self.settings.https.is_none() {
                // There is nobody to try it on.
                self.taken(slot)?;
            }
            return Ok(BoardClock.now().plus(self.report_every()).max(self.visit_at));
        };
        let began_at = BoardClock.now();
        let end = self.converse(broker, slot, trial, until);
        let now = BoardClock.now();
        match end {
            End::Refused => self.refused(slot),
            End::Unanswered => Ok(self.rounds.next(now)),
            End::Broken => {
                self.taken(slot)?;
                // A broker that only ever says hello is not well.
                if now.since(began_at) >= STEADY_AFTER {
                    self.rounds.reset();
                }
                Ok(self.rounds.next(now))
            }
            End::Done(next) => {
                self.taken(slot)?;
                self.rounds.reset();
                if next == Next::Renew {
                    self.device.renew_now();
                }
                Ok(now)
            }
        }
    }

    // Apart, here and below: one connection's memory is off the stack before the next one's is on it.
    #[inline(never)]
    fn visit(&mut self, service: Endpoint<'m>, slot: Slot) -> Visit {
        let Some(status) = self.report(slot).and_then(|report| report.status().ok()) else {
            return Visit::Unanswered;
        };
        let name = ServerName::without_ipv6(service.host);
        self.platform.log(format_args!("https: connecting to {}", service.host));
        let until = BoardClock.now().plus(https::VISIT_TIMEOUT);
        let mut place = None;
        let connected = self.device.connect(slot, name, service.port, until, &mut place);
        let (Ok(()), Some(connection)) = (told(self.platform, "https", connected), &mut place) else {
            return Visit::Unanswered;
        };
        self.platform.log(format_args!("https: TLS is up"));
        let path = self.settings.path;
        connection.set_deadline(until);
        let visit = https::visit(connection, service, path, &status);
        end(connection);
        visit
    }

    #[inline(never)]
    fn converse(&mut self, broker: Endpoint<'m>, slot: Slot, trial: Trial, until: Instant) -> End {
        let name = ServerName::without_ipv6(broker.host);
        let Some(report) = self.report(slot) else { return End::Unanswered };
        let session = Session {
            platform: self.platform,
            report,
            prefix: self.settings.prefix,
            trial,
            report_every: self.report_every(),
            until,
        };
        self.platform.log(format_args!("mqtt: connecting to {}", broker.host));
        let mut place = None;
        let connected = self.device.connect(slot, name, broker.port, Instant::NEVER, &mut place);
        let (Ok(()), Some(connection)) = (told(self.platform, "mqtt", connected), &mut place) else {
            return End::Unanswered;
        };
        self.platform.log(format_args!("mqtt: TLS is up"));
        let ended = session.run(connection);
        end(connection);
        ended
    }

    /// A server answered: the identity works.
    fn taken(&mut self, slot: Slot) -> Result<(), Misuse> {
        self.device.accepted(slot)?;
        self.spend_token();
        Ok(())
    }

    /// A server refused the identity for itself. A token that is still there can get another.
    fn refused(&mut self, slot: Slot) -> Result<Instant, Misuse> {
        self.platform.log(format_args!("the identity in slot {slot:?} is refused"));
        self.device.refused(slot)?;
        if self.recovery == Recovery::Untried
            && let Some(credential) = self.credential
        {
            self.platform.log(format_args!("trying the token"));
            self.recovery = Recovery::Trying;
            self.device.use_credential(credential);
            return Ok(BoardClock.now());
        }
        Ok(self.rounds.next(BoardClock.now()))
    }

    /// Erases the token. Whatever comes of it, it is not used again before the next start.
    fn spend_token(&mut self) {
        if self.credential.take().is_none() {
            return;
        }
        self.device.forget_credential();
        match erase_token(&mut self.factory) {
            Ok(()) => self.platform.log(format_args!("the token is erased")),
            Err(_) => self.platform.log(format_args!("the token could not be erased")),
        }
    }

    fn report(&self, slot: Slot) -> Option<Report<'m>> {
        let enrollment = self.device.enrollment();
        let (generation, leaf) = (enrollment.generation(slot)?, enrollment.chain(slot)?.iter().next()?);
        let uptime_s = BoardClock.now().as_millis() / 1000;
        Some(Report { uptime_s, ..Report::new(self.settings.identity.device(), generation, leaf) })
    }

    fn report_every(&self) -> Duration {
        Duration::from_secs(self.settings.report_every_s.into())
    }
}

/// Ends a connection in order, as far as the peer takes part in it.
fn end<IO: Read + Write + Close>(connection: &mut Connection<'_, IO>) {
    connection.close(BoardClock.now().plus(CLOSE_TIMEOUT));
}

fn told<T>(
    platform: &impl Platform,
    service: &str,
    connected: Result<T, ConnectError>,
) -> Result<T, ConnectError> {
    connected.inspect_err(|error| platform.log(format_args!("{service}: {error}")))
}

/// Longest answer of the EST server: six CA certificates on P-256 in base64, as after a change of root.
const ANSWER_BYTES: usize = 4608;
/// The longest item of which two fit one page: a leaf and one intermediate, with the key.
const ITEM_BYTES: usize = 1984;
/// A session that held for so long was one.
const STEADY_AFTER: Duration = Duration::from_secs(60);
