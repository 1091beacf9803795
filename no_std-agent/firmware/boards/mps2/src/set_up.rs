//! From a reset to a device that can run: arguments, flash, the crash before, settings, network, memory.

use core::pin::pin;
use core::time::Duration;

use embassy_embedded_hal::flash::partition::Partition;
use embassy_net::{Runner, StackResources};
use embassy_sync::blocking_mutex::raw::NoopRawMutex;
use embassy_sync::mutex::Mutex;
use embassy_time::Timer;
use embedded_storage_async::nor_flash::NorFlash;
use muster_firmware::device::{Life, Parts};
use muster_firmware::factory::{self, MAX_SETTINGS_BYTES, MAX_TOKEN_BYTES, Settings};
use muster_firmware::net::TcpNet;
use muster_firmware::platform::Platform as _;
use muster_firmware::{https, journal, mqtt, net, partition};
use muster_nostd_agent::device::DeviceMemory;
use muster_nostd_agent::entropy::Entropy as _;
use muster_nostd_agent::tls::TlsMemory;
use muster_proto::enrollment::{Memory, Pace};
use static_cell::{ConstStaticCell, StaticCell};

use crate::board::{Console, HostEntropy, Metering, ToldKeys};
use crate::flash::{FileFlash, PAGE_BYTES};
use crate::lan9118::Lan9118;
use crate::{executor, last_words, semihosting, stack};

type Part = Partition<'static, NoopRawMutex, FileFlash>;
/// The device of this board.
pub(crate) type BoardLife = Life<'static, Part, Part, ToldKeys, HostEntropy, Console>;
type Prepared = (&'static mut BoardLife, &'static mut Runner<'static, Lan9118>);

/// Why the board does not work at all.
pub(crate) enum Failure {
    Entropy,
    Flash,
    Settings(factory::BadBlock),
    Store,
}

/// Makes everything ready.
#[inline(never)]
pub(crate) fn set_up() -> Result<Prepared, Failure> {
    executor::block_on(pin!(prepare()))
}

async fn prepare() -> Result<Prepared, Failure> {
    static LINE: ConstStaticCell<[u8; 256]> = ConstStaticCell::new([0; 256]);
    static CONSOLE: StaticCell<Console> = StaticCell::new();
    static FLASH: StaticCell<Mutex<NoopRawMutex, FileFlash>> = StaticCell::new();

    let arguments = Arguments::parse(semihosting::arguments(LINE.take()));
    let console: &'static Console = CONSOLE.init(Console::open(arguments.metering));
    console.log(format_args!("boot: static {} bytes", stack::statics()));
    let flash = FileFlash::open(&arguments.flash, arguments.die_at_write).ok_or(Failure::Flash)?;
    let flash = FLASH.init(Mutex::new(flash));
    let part = |from: u32, pages: u32| Partition::new(flash, from * PAGE, pages * PAGE);
    let mut factory = part(0, partition::PAGES);
    let mut journal = part(partition::PAGES, journal::PAGES);
    let mut identities = part(partition::PAGES + journal::PAGES, IDENTITY_PAGES);

    tell_and_wait(console, &mut journal).await?;
    assert!(!arguments.panic, "asked to panic");
    if arguments.reset {
        identities.erase(0, IDENTITY_PAGES * PAGE).await.map_err(|_| Failure::Flash)?;
        journal.erase(0, journal::PAGES * PAGE).await.map_err(|_| Failure::Flash)?;
        console.log(format_args!("boot: the identities are erased"));
    }

    static SETTINGS_BYTES: ConstStaticCell<[u8; MAX_SETTINGS_BYTES]> =
        ConstStaticCell::new([0; MAX_SETTINGS_BYTES]);
    static SETTINGS: StaticCell<Settings<'static>> = StaticCell::new();
    static TOKEN_BYTES: ConstStaticCell<[u8; MAX_TOKEN_BYTES]> = ConstStaticCell::new([0; MAX_TOKEN_BYTES]);
    let bytes =
        partition::read_settings(&mut factory, SETTINGS_BYTES.take()).await.map_err(|_| Failure::Flash)?;
    let settings: &'static Settings<'static> =
        SETTINGS.init(Settings::parse(bytes).map_err(Failure::Settings)?);
    let bytes = partition::read_token(&mut factory, TOKEN_BYTES.take()).await.map_err(|_| Failure::Flash)?;
    let token = factory::parse_token(bytes);
    let credential = token.ok().and_then(|token| factory::credential(settings, token));
    console.log(format_args!(
        "boot: device {}, token {}",
        settings.identity.device(),
        if credential.is_some() { "there" } else { "none" }
    ));

    let mut entropy = HostEntropy::open().ok_or(Failure::Entropy)?;
    let mut seed = [0; 8];
    entropy.fill(&mut seed).map_err(|_| Failure::Entropy)?;
    let seed = u64::from_le_bytes(seed);

    static RESOURCES: StaticCell<StackResources<SOCKETS>> = StaticCell::new();
    static RECEIVE: ConstStaticCell<[u8; TCP_RECEIVE_BYTES]> = ConstStaticCell::new([0; TCP_RECEIVE_BYTES]);
    static SEND: ConstStaticCell<[u8; TCP_SEND_BYTES]> = ConstStaticCell::new([0; TCP_SEND_BYTES]);
    let (stack, runner) = embassy_net::new(
        Lan9118::start(),
        net::config(settings.address),
        RESOURCES.init(StackResources::new()),
        seed,
    );
    let parts = Parts {
        settings,
        credential,
        net: TcpNet::new(stack, settings.hosts.clone(), RECEIVE.take(), SEND.take()),
        identities,
        factory,
        keys: ToldKeys(console),
        entropy,
        platform: console,
        memory: memory(),
        inbox: inbox(),
        pace: PACE,
        seed,
    };
    static LIFE: StaticCell<BoardLife> = StaticCell::new();
    static RUNNER: StaticCell<Runner<'static, Lan9118>> = StaticCell::new();
    let life = Life::start(parts).await.map_err(|_| Failure::Store)?;
    Ok((LIFE.init(life), RUNNER.init(runner)))
}

/// Writes down why the boot before ended, if it was a panic, and waits the longer the more there were in a row.
async fn tell_and_wait(console: &Console, journal: &mut impl NorFlash) -> Result<(), Failure> {
    if let Some(crash) = last_words::recall()
        && crash.is_untold()
    {
        journal::record(journal, crash.in_a_row, &crash.reason).await.map_err(|_| Failure::Flash)?;
        let wait = journal::back_off(crash.in_a_row);
        console.log(format_args!("boot: panic {} in a row, waiting {} s", crash.in_a_row, wait.as_secs()));
        last_words::remember(&crash.told());
        Timer::after_secs(wait.as_secs()).await;
    }
    if let Some(crash) = journal::newest(journal).await.map_err(|_| Failure::Flash)? {
        console.log(format_args!("boot: last panic: {}", crash.reason));
    }
    Ok(())
}

fn memory() -> DeviceMemory<'static> {
    static INBOX: ConstStaticCell<[u8; 2560]> = ConstStaticCell::new([0; 2560]);
    static AUTHORITIES: ConstStaticCell<[u8; 1536]> = ConstStaticCell::new([0; 1536]);
    static REQUEST: ConstStaticCell<[u8; 512]> = ConstStaticCell::new([0; 512]);
    static CURRENT: ConstStaticCell<[u8; CHAIN_BYTES]> = ConstStaticCell::new([0; CHAIN_BYTES]);
    static CANDIDATE: ConstStaticCell<[u8; CHAIN_BYTES]> = ConstStaticCell::new([0; CHAIN_BYTES]);
    static TLS_RECEIVE: ConstStaticCell<[u8; TLS_RECEIVE_BYTES]> =
        ConstStaticCell::new([0; TLS_RECEIVE_BYTES]);
    static TLS_SEND: ConstStaticCell<[u8; TLS_SEND_BYTES]> = ConstStaticCell::new([0; TLS_SEND_BYTES]);
    static SCRATCH: ConstStaticCell<[u8; ITEM_BYTES]> = ConstStaticCell::new([0; ITEM_BYTES]);
    DeviceMemory {
        machine: Memory {
            inbox: INBOX.take(),
            authorities: AUTHORITIES.take(),
            request: REQUEST.take(),
            current: CURRENT.take(),
            candidate: CANDIDATE.take(),
        },
        tls: TlsMemory { receive: TLS_RECEIVE.take(), send: TLS_SEND.take() },
        scratch: SCRATCH.take(),
    }
}

fn inbox() -> &'static mut [u8] {
    static INBOX: ConstStaticCell<[u8; INBOX_BYTES]> = ConstStaticCell::new([0; INBOX_BYTES]);
    INBOX.take()
}

/// What the emulator was told.
struct Arguments {
    /// With a zero byte at its end.
    flash: [u8; 160],
    die_at_write: Option<u32>,
    reset: bool,
    panic: bool,
    metering: Metering,
}

impl Arguments {
    fn parse(line: &str) -> Self {
        let mut arguments =
            Self { flash: [0; 160], die_at_write: None, reset: false, panic: false, metering: Metering::Off };
        for word in line.split_ascii_whitespace() {
            match word.split_once('=') {
                Some(("flash", name)) => {
                    arguments.flash.iter_mut().zip(name.bytes()).for_each(|(place, byte)| *place = byte);
                }
                Some(("die", number)) => arguments.die_at_write = number.parse().ok(),
                None if word == "reset" => arguments.reset = true,
                None if word == "panic" => arguments.panic = true,
                None if word == "meter" => arguments.metering = Metering::On,
                _ => {}
            }
        }
        arguments
    }
}

/// A bench and not a fleet: no spreading, and quick to try again.
const PACE: Pace = Pace {
    floor: Duration::from_secs(1),
    ceiling: Duration::from_secs(60),
    urgent_ceiling: Duration::from_secs(15),
    spread: Duration::ZERO,
};
const PAGE: u32 = 4096;
const _: () = assert!(PAGE_BYTES == 4096, "the same number twice, since `as` is not used here");
/// Two for each identity.
const IDENTITY_PAGES: u32 = 4;
/// The longest item of which two fit one page: a leaf and one intermediate, with the key.
const ITEM_BYTES: usize = 1984;
/// A leaf and one intermediate.
const CHAIN_BYTES: usize = 1536;
/// The EST server's longest answer in one record.
const TLS_RECEIVE_BYTES: usize = 2816;
/// The leaf, and a piece of a request.
const TLS_SEND_BYTES: usize = 800;
const TCP_RECEIVE_BYTES: usize = 1536;
const TCP_SEND_BYTES: usize = 1024;
const INBOX_BYTES: usize =
    if mqtt::MEMORY_BYTES > https::MEMORY_BYTES { mqtt::MEMORY_BYTES } else { https::MEMORY_BYTES };
/// One for TCP, two that the stack needs for DHCP and DNS.
const SOCKETS: usize = 3;
