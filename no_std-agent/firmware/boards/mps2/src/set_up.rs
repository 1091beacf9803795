//! From a reset to a device that can run: arguments, flash, the crash before, settings, network, memory.
//!
//! In steps that return, each with a frame of its own: what one of them needs of the stack is there for the next. What
//! they make is in statics, and not on the stack as on the real boards, so that its size is seen at link time.

use core::cell::RefCell;
use core::pin::{Pin, pin};
use core::time::Duration;

use embassy_embedded_hal::flash::partition::BlockingPartition;
use embassy_sync::blocking_mutex::NoopMutex;
use embassy_sync::blocking_mutex::raw::NoopRawMutex;
use embedded_storage::nor_flash::NorFlash as _;
use muster_firmware::device::{Life, Parts};
use muster_firmware::factory::Settings;
use muster_firmware::net::{Sockets, Stack, TcpNet};
use muster_firmware::platform::Platform as _;
use muster_firmware::turns::Turns;
use muster_firmware::{journal, partition};
use muster_firmware_boot::{FactoryPages, Failure, IDENTITY_PAGES, Lent, Pool, Row, tell_and_wait};
use muster_nostd_agent::device::DeviceMemory;
use muster_nostd_agent::entropy::Entropy as _;
use muster_proto::enrollment::Pace;
use muster_proto::est::Credential;
use static_cell::{ConstStaticCell, StaticCell};

use crate::board::{Console, HostEntropy, Metering, ToldKeys};
use crate::flash::{FileFlash, PAGE_BYTES};
use crate::lan9118::Lan9118;
use crate::network::Network;
use crate::turn::SLEEP;
use crate::{semihosting, stack};

type Part = BlockingPartition<'static, NoopRawMutex, FileFlash>;
/// The device of this board.
pub(crate) type BoardLife = Life<'static, Part, Part, ToldKeys, HostEntropy, Console>;

/// Makes everything ready.
#[inline(never)]
pub(crate) fn set_up() -> Result<&'static mut BoardLife, Failure> {
    static CONSOLE: StaticCell<Console> = StaticCell::new();
    static POOL: ConstStaticCell<Pool> = ConstStaticCell::new(Pool::new());

    let arguments = arguments();
    let console: &'static Console = CONSOLE.init(Console::open(arguments.metering));
    console.log(format_args!("boot: static {} bytes", stack::statics()));
    let mut parts = open_flash(&arguments)?;
    look_back(console, &mut parts, &arguments)?;
    let told = read_factory(console, &mut parts)?;
    let mut entropy = HostEntropy::open().ok_or(Failure::Entropy)?;
    let mut seed = [0; 8];
    entropy.fill(&mut seed).map_err(|_| Failure::Entropy)?;
    let seed = u64::from_le_bytes(seed);
    let Lent { device: memory, tcp_receive, tcp_send } = POOL.take().lend();
    let net = start_network(told.0, tcp_receive, tcp_send, seed);
    start_life(console, parts, told, entropy, net, memory, seed)
}

#[inline(never)]
fn arguments() -> Arguments {
    let mut line = [0; 256];
    Arguments::parse(semihosting::arguments(&mut line))
}

/// The flash, divided.
struct FlashParts {
    factory: Part,
    journal: Part,
    identities: Part,
}

#[inline(never)]
fn open_flash(arguments: &Arguments) -> Result<FlashParts, Failure> {
    static FLASH: StaticCell<NoopMutex<RefCell<FileFlash>>> = StaticCell::new();

    let flash = FileFlash::open(&arguments.flash, arguments.die_at_write).ok_or(Failure::Flash)?;
    let flash = FLASH.init(NoopMutex::new(RefCell::new(flash)));
    let part = |from: u32, pages: u32| BlockingPartition::new(flash, from * PAGE, pages * PAGE);
    Ok(FlashParts {
        factory: part(0, partition::PAGES),
        journal: part(partition::PAGES, journal::PAGES),
        identities: part(partition::PAGES + journal::PAGES, IDENTITY_PAGES),
    })
}

/// Tells of the boot before, and does what was asked for on the command line.
#[inline(never)]
fn look_back(console: &Console, parts: &mut FlashParts, arguments: &Arguments) -> Result<(), Failure> {
    let nothing = pin!(core::future::pending());
    let waiting = Turns::new(nothing, SLEEP);
    tell_and_wait(console, &mut parts.journal, &waiting).map_err(|_| Failure::Flash)?;
    assert!(!arguments.panic, "asked to panic");
    if arguments.reset {
        parts.identities.erase(0, IDENTITY_PAGES * PAGE).map_err(|_| Failure::Flash)?;
        parts.journal.erase(0, journal::PAGES * PAGE).map_err(|_| Failure::Flash)?;
        console.log(format_args!("boot: the identities are erased"));
    }
    Ok(())
}

type Told = (&'static Settings<'static>, Option<Credential<'static>>);

#[inline(never)]
fn read_factory(console: &Console, parts: &mut FlashParts) -> Result<Told, Failure> {
    static PAGES: ConstStaticCell<FactoryPages> = ConstStaticCell::new(FactoryPages::new());
    static SETTINGS: StaticCell<Settings<'static>> = StaticCell::new();

    let (settings, credential) = PAGES.take().read(&mut parts.factory, console)?;
    Ok((SETTINGS.init(settings), credential))
}

#[inline(never)]
fn start_network(
    settings: &'static Settings<'static>,
    receive: &'static mut [u8],
    send: &'static mut [u8],
    seed: u64,
) -> TcpNet<'static> {
    static SOCKETS: StaticCell<Sockets<'static>> = StaticCell::new();
    static STACK: StaticCell<Stack<'static>> = StaticCell::new();
    static NETWORK: StaticCell<Network> = StaticCell::new();
    static TURNS: StaticCell<Turns<'static>> = StaticCell::new();

    let mut controller = Lan9118::start();
    let stack = STACK.init(Stack::new(
        &mut controller,
        settings.address,
        SOCKETS.init(Sockets::new()),
        receive,
        send,
        seed,
    ));
    let network = Pin::new(NETWORK.init(Network { stack, controller, row: Row::begin() }));
    TcpNet::new(stack, TURNS.init(Turns::new(network, SLEEP)), &settings.hosts)
}

#[inline(never)]
fn start_life(
    console: &'static Console,
    flash: FlashParts,
    (settings, credential): Told,
    entropy: HostEntropy,
    net: TcpNet<'static>,
    memory: DeviceMemory<'static>,
    seed: u64,
) -> Result<&'static mut BoardLife, Failure> {
    static LIFE: StaticCell<BoardLife> = StaticCell::new();

    let parts = Parts {
        settings,
        credential,
        net,
        identities: flash.identities,
        factory: flash.factory,
        keys: ToldKeys(console),
        entropy,
        platform: console,
        memory,
        pace: PACE,
        seed,
    };
    let life = Life::start(parts).map_err(|_| Failure::Store)?;
    Ok(LIFE.init(life))
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
