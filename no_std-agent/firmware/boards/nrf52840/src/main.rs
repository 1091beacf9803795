//! The firmware on Nordic's nRF52840 DK with a W5500 on its Arduino pins.
//!
//! W5500: SCK P1.15, MOSI P1.13, MISO P1.14, CS P1.12, INT P1.03, RST P1.11. Console: the DK's own serial port, from
//! P0.06, 115,200 baud. Factory reset: button 1 (P0.11) held for three seconds from the start.
#![no_std]
#![no_main]

use core::convert::Infallible;
use core::fmt;
use core::pin::pin;

use cortex_m_rt::entry;
use embassy_futures::join::join;
use embassy_net_wiznet::State;
use embassy_net_wiznet::chip::W5500;
use embassy_nrf::gpio::{Input, Level, Output, OutputDrive, Pull};
use embassy_nrf::mode::Blocking;
use embassy_nrf::nvmc::{self, Nvmc};
use embassy_nrf::rng::Rng;
use embassy_nrf::uarte::{self, UarteTx};
use embassy_nrf::wdt::{HaltConfig, Watchdog, WatchdogHandle};
use embassy_nrf::{bind_interrupts, config, pac, peripherals, spim, wdt};
use embassy_time::{Delay, Timer};
use embedded_hal_bus::spi::ExclusiveDevice;
use muster_firmware_boot::console::Console;
use muster_firmware_boot::layout::NRF52840_DK as LAYOUT;
use muster_firmware_boot::noise::{Noise, Tested};
use muster_firmware_boot::{Button, Hardware, WAIT_FOR_EVENT, block_on, give_up, remember_watchdog, run};

bind_interrupts!(struct Interrupts {
    SPI2 => spim::InterruptHandler<peripherals::SPI2>;
    UARTE0 => uarte::InterruptHandler<peripherals::UARTE0>;
});

#[entry]
fn main() -> ! {
    let reasons = pac::POWER.resetreas().read();
    // They add up until they are cleared.
    pac::POWER.resetreas().write_value(reasons);
    if reasons.dog() {
        remember_watchdog();
    }
    let mut settings = config::Config::default();
    settings.hfclk_source = config::HfclkSource::ExternalXtal;
    let board = embassy_nrf::init(settings);

    let mut settings = wdt::Config::default();
    settings.timeout_ticks = WATCHDOG_S * 32_768;
    settings.action_during_debug_halt = HaltConfig::Pause;
    let Ok((_, [mut watchdog])) = Watchdog::try_new(board.WDT, settings) else {
        give_up("another watchdog runs already");
    };
    // It runs on through a restart, and may be about to bite.
    watchdog.pet();
    let console =
        Console::new(Port(UarteTx::new(board.UARTE0, Interrupts, board.P0_06, uarte::Config::default())));

    let mut settings = spim::Config::default();
    settings.frequency = spim::Frequency::M8;
    let bus = spim::Spim::new(board.SPI2, Interrupts, board.P1_15, board.P1_14, board.P1_13, settings);
    let select = Output::new(board.P1_12, Level::High, OutputDrive::Standard);
    let Ok(controller) = ExclusiveDevice::new(bus, select, Delay);
    let interrupt = Input::new(board.P1_03, Pull::Up);
    let reset = Output::new(board.P1_11, Level::High, OutputDrive::Standard);
    // One in each direction: the controller keeps what arrives meanwhile, in 16 KiB of its own.
    let mut frames = State::<1, 1>::new();
    let starting =
        embassy_net_wiznet::new::<_, _, W5500, _, _, _>(address(), &mut frames, controller, interrupt, reset);
    let (network, driver) = block_on(starting).ok().unzip();
    let driving = async {
        match driver {
            Some(driver) => driver.run().await,
            None => core::future::pending().await,
        }
    };
    let background = pin!(async { match join(driving, feed(watchdog)).await.1 {} });

    let rng = Rng::new_blocking(board.RNG);
    rng.set_bias_correction(true);
    let hardware = Hardware {
        flash: Nvmc::new(board.NVMC),
        data_offset: LAYOUT.data_offset(),
        entropy: Tested::start(Generator(rng)),
        network,
        platform: &console,
        button: block_on(button(Input::new(board.P0_11, Pull::Up))),
        background,
        sleep: WAIT_FOR_EVENT,
    };
    give_up(run(hardware))
}

/// As often as this, which it is not when a turn does not end.
async fn feed(mut watchdog: WatchdogHandle) -> Infallible {
    loop {
        watchdog.pet();
        Timer::after_secs(1).await;
    }
}

/// Pressed, it pulls the pin down.
async fn button(pin: Input<'_>) -> Button {
    for _ in 0..BUTTON_LOOKS {
        if pin.is_high() {
            return Button::Free;
        }
        Timer::after_millis(100).await;
    }
    Button::Held
}

/// From the part's serial number; locally administered.
fn address() -> [u8; 6] {
    let [a, b, c, d] = pac::FICR.deviceid(0).read().to_le_bytes();
    let [e, ..] = pac::FICR.deviceid(1).read().to_le_bytes();
    [0x02, a, b, c, d, e]
}

/// The serial port.
struct Port(UarteTx<'static>);

impl fmt::Write for Port {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.blocking_write(text.as_bytes()).map_err(|_| fmt::Error)
    }
}

/// The part's generator, which has no tests of its own.
struct Generator(Rng<'static, Blocking>);

impl Noise for Generator {
    fn sample(&mut self, samples: &mut [u8]) {
        self.0.blocking_fill_bytes(samples);
    }
}

/// A handshake with P-256 in software takes one or two seconds.
const WATCHDOG_S: u32 = 8;
const BUTTON_LOOKS: u32 = 30;
const _: () = assert!(
    nvmc::FLASH_SIZE == 1024 * 1024 && LAYOUT.flash_bytes == 1024 * 1024,
    "the layout is this part's"
);
const _: () = assert!(nvmc::PAGE_SIZE == 4096 && LAYOUT.page_bytes == 4096, "and its pages");
