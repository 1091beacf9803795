//! From hardware that works to a device that lives: the crash before, a factory reset, settings, network, device.

use core::cell::RefCell;
use core::fmt;
use core::future::poll_fn;
use core::pin::pin;
use core::task::Poll;
use core::time::Duration;

use embassy_embedded_hal::flash::partition::BlockingPartition;
use embassy_net_driver::Driver;
use embassy_sync::blocking_mutex::NoopMutex;
use embedded_storage::nor_flash::NorFlash;
use muster_firmware::clock::BoardClock;
use muster_firmware::device::{Life, Parts};
use muster_firmware::factory::{self, BadBlock, MAX_SETTINGS_BYTES, MAX_TOKEN_BYTES, Settings};
use muster_firmware::net::{Sockets, Stack, TcpNet};
use muster_firmware::platform::Platform;
use muster_firmware::turns::{Background, Sleep, Turns};
use muster_firmware::{journal, partition};
use muster_nostd_agent::clock::Clock as _;
use muster_nostd_agent::entropy::{Entropy, NoEntropy};
use muster_nostd_agent::key::KeyStore;
use muster_nostd_agent::software::SoftwareKeys;
use muster_proto::enrollment::{Misuse, Pace};
use muster_proto::est::Credential;
use muster_proto::time::Instant;

use crate::last_words;
use crate::layout::DATA_PAGES;
use crate::memory::Pool;

/// What a board brings.
pub struct Hardware<'p, F, E, D, P> {
    /// Its flash, all of it.
    pub flash: F,
    /// Where in the flash the data begins, in bytes: [`Layout::data_offset`](crate::layout::Layout::data_offset).
    pub data_offset: u32,
    /// Its randomness, if that passed its tests.
    pub entropy: Result<E, NoEntropy>,
    /// Its network, if the controller answers.
    pub network: Option<D>,
    /// Its console.
    pub platform: &'p P,
    /// The button for a factory reset.
    pub button: Button,
    /// What the network's driver and the watchdog need to go on.
    pub background: Background<'p>,
    /// How it sleeps.
    pub sleep: Sleep,
}

/// Whether a button was held down while the board started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Button {
    /// No.
    Free,
    /// Yes, and long enough to be meant.
    Held,
}

/// Why the board does not work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The generator or its tests failed.
    Entropy,
    /// The flash failed.
    Flash,
    /// A bug in how the device is driven.
    Misuse(Misuse),
    /// The network controller does not answer.
    Network,
    /// The factory partition is not sound.
    Settings(BadBlock),
    /// The identities cannot be read.
    Store,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Entropy => write!(f, "no randomness"),
            Self::Flash => write!(f, "the flash failed"),
            Self::Misuse(misuse) => write!(f, "{misuse:?}"),
            Self::Network => write!(f, "the network controller does not answer"),
            Self::Settings(bad) => write!(f, "the factory partition is not sound: {bad:?}"),
            Self::Store => write!(f, "the identities cannot be read"),
        }
    }
}

/// Runs the device until the power is cut; returns if the board does not work. A panic is the right answer to that: it
/// restarts the board, ever more slowly.
pub fn run<F, E, D, P>(hardware: Hardware<'_, F, E, D, P>) -> Failure
where
    F: NorFlash,
    E: Entropy,
    D: Driver,
    P: Platform,
{
    let Err(failure) = live(hardware);
    failure
}

fn live<F, E, D, P>(hardware: Hardware<'_, F, E, D, P>) -> Result<core::convert::Infallible, Failure>
where
    F: NorFlash,
    E: Entropy,
    D: Driver,
    P: Platform,
{
    let Hardware { flash, data_offset, entropy, network, platform, button, mut background, sleep } = hardware;
    let flash = NoopMutex::new(RefCell::new(flash));
    let page_bytes = u32::try_from(F::ERASE_SIZE).unwrap_or(u32::MAX);
    let part = |from: u32, pages: u32| {
        BlockingPartition::new(&flash, data_offset + from * page_bytes, pages * page_bytes)
    };
    let mut factory = part(0, partition::PAGES);
    let mut journal = part(partition::PAGES, journal::PAGES);
    let mut identities = part(partition::PAGES + journal::PAGES, IDENTITY_PAGES);

    let waiting = Turns::new(background.as_mut(), sleep);
    tell_and_wait(platform, &mut journal, &waiting).map_err(|_| Failure::Flash)?;
    if button == Button::Held {
        for (part, pages) in [(&mut identities, IDENTITY_PAGES), (&mut journal, journal::PAGES)] {
            part.erase(0, pages * page_bytes).map_err(|_| Failure::Flash)?;
        }
        platform.log(format_args!("boot: the identities are erased"));
    }

    let mut pages = FactoryPages::new();
    let (settings, credential) = pages.read(&mut factory, platform)?;
    let mut entropy = entropy.map_err(|_| Failure::Entropy)?;
    let mut network = network.ok_or(Failure::Network)?;
    let mut seed = [0; 8];
    entropy.fill(&mut seed).map_err(|_| Failure::Entropy)?;
    let seed = u64::from_le_bytes(seed);
    // Not as a pair: it would have a copy of its own.
    let mut pool = Pool::new();
    let mut sockets = Sockets::new();
    let lent = pool.lend();
    let (receive, send) = (lent.tcp_receive, lent.tcp_send);
    let stack = Stack::new(&mut network, settings.address, &mut sockets, receive, send, seed);
    let mut row = Row::begin();
    let everything = pin!(poll_fn(|context| {
        row.look();
        stack.poll(&mut network, context);
        // It never ends.
        let _ = background.as_mut().poll(context);
        Poll::Pending
    }));
    let turns = Turns::new(everything, sleep);
    let parts = Parts {
        settings: &settings,
        credential,
        net: TcpNet::new(&stack, &turns, &settings.hosts),
        identities,
        factory,
        keys: SoftwareKeys,
        entropy,
        platform,
        memory: lent.device,
        pace: Pace::default(),
        seed,
    };
    let mut life = start(parts)?;
    life.run().map_err(Failure::Misuse)
}

// Apart: what starting needs of the stack is given back.
#[inline(never)]
fn start<I: NorFlash, T: NorFlash, K: KeyStore, E: Entropy, P: Platform>(
    parts: Parts<'_, I, T, K, E, P>,
) -> Result<Life<'_, I, T, K, E, P>, Failure> {
    Life::start(parts).map_err(|_| Failure::Store)
}

/// Memory for what is read of the factory's pages.
#[derive(Debug)]
pub struct FactoryPages {
    settings: [u8; MAX_SETTINGS_BYTES],
    token: [u8; MAX_TOKEN_BYTES],
}

impl Default for FactoryPages {
    fn default() -> Self {
        Self::new()
    }
}

impl FactoryPages {
    /// Zeros.
    #[must_use]
    pub const fn new() -> Self {
        Self { settings: [0; _], token: [0; _] }
    }

    /// Reads the settings, and the token if there is one.
    ///
    /// # Errors
    /// [`Failure::Flash`] and [`Failure::Settings`].
    pub fn read(
        &mut self,
        factory: &mut impl NorFlash,
        platform: &impl Platform,
    ) -> Result<(Settings<'_>, Option<Credential<'_>>), Failure> {
        let settings = partition::read_settings(factory, &mut self.settings);
        let settings = Settings::parse(settings.map_err(|_| Failure::Flash)?).map_err(Failure::Settings)?;
        let token = partition::read_token(factory, &mut self.token).map_err(|_| Failure::Flash)?;
        let token = factory::parse_token(token);
        let credential = token.ok().and_then(|token| factory::credential(&settings, token));
        platform.log(format_args!(
            "boot: device {}, token {}",
            settings.identity.device(),
            if credential.is_some() { "there" } else { "none" }
        ));
        Ok((settings, credential))
    }
}

/// Writes down why the boot before ended, if it ended badly, and waits the longer the more there were in a row.
///
/// # Errors
/// The flash's.
#[inline(never)]
pub fn tell_and_wait<F: NorFlash>(
    platform: &impl Platform,
    journal: &mut F,
    turns: &Turns<'_>,
) -> Result<(), F::Error> {
    if let Some(crash) = last_words::recall()
        && crash.is_untold()
    {
        journal::record(journal, crash.in_a_row, &crash.reason)?;
        let wait = journal::back_off(crash.in_a_row);
        platform.log(format_args!("boot: crash {} in a row, waiting {} s", crash.in_a_row, wait.as_secs()));
        last_words::remember(&crash.told());
        turns.wait_until(BoardClock.now().plus(wait));
    }
    if let Some(crash) = journal::newest(journal)? {
        platform.log(format_args!("boot: last crash: {}", crash.reason));
    }
    Ok(())
}

/// The row of crashes that a device began its work in, until that has lasted for ten minutes.
#[derive(Debug)]
pub struct Row {
    ends_at: Option<Instant>,
}

impl Row {
    /// The work begins now.
    #[must_use]
    pub fn begin() -> Self {
        Self { ends_at: Some(BoardClock.now().plus(STEADY_AFTER)) }
    }

    /// To be called again and again. Ends the row when it is time: the next crash is the first of a new one.
    pub fn look(&mut self) {
        if self.ends_at.is_some_and(|at| BoardClock.now() >= at) {
            self.ends_at = None;
            last_words::end_row();
        }
    }
}

/// A device that has worked for so long did not crash in a row.
const STEADY_AFTER: Duration = Duration::from_secs(10 * 60);
/// Two for each identity.
pub const IDENTITY_PAGES: u32 = 4;
const _: () =
    assert!(partition::PAGES + journal::PAGES + IDENTITY_PAGES == DATA_PAGES, "the layout of all boards");

#[cfg(test)]
mod tests;
