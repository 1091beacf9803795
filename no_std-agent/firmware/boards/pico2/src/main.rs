//! The firmware on WIZnet's W5500-EVB-Pico2: RP2350 and W5500 on one board.
//!
//! W5500: SCK GP18, MOSI GP19, MISO GP16, CS GP17, INT GP21, RST GP20, as the board has them. Console: UART0 on GP0,
//! 115,200 baud. Factory reset: a button between GP15 and ground, held for three seconds from the start.
#![no_std]
#![no_main]

use core::convert::Infallible;
use core::fmt;
use core::pin::pin;

use cortex_m_rt::entry;
use embassy_futures::join::join;
use embassy_net_wiznet::State;
use embassy_net_wiznet::chip::W5500;
use embassy_rp::flash::{self, Flash};
use embassy_rp::gpio::{Input, Level, Output, Pull};
use embassy_rp::trng::{self, Trng};
use embassy_rp::uart::{self, UartTx};
use embassy_rp::watchdog::{ResetReason, Watchdog};
use embassy_rp::{bind_interrupts, dma, otp, peripherals, spi};
use embassy_time::{Delay, Duration, Timer};
use embedded_hal_bus::spi::ExclusiveDevice;
use muster_firmware_boot::console::Console;
use muster_firmware_boot::layout::W5500_EVB_PICO2 as LAYOUT;
use muster_firmware_boot::noise::{Noise, Tested};
use muster_firmware_boot::{Button, Hardware, WAIT_FOR_EVENT, block_on, give_up, remember_watchdog, run};

bind_interrupts!(struct Interrupts {
    DMA_IRQ_0 => dma::InterruptHandler<peripherals::DMA_CH0>, dma::InterruptHandler<peripherals::DMA_CH1>;
    TRNG_IRQ => trng::InterruptHandler<peripherals::TRNG>;
});

#[entry]
fn main() -> ! {
    let board = embassy_rp::init(embassy_rp::config::Config::default());
    let mut watchdog = Watchdog::new(board.WATCHDOG);
    if watchdog.reset_reason() == Some(ResetReason::TimedOut) {
        remember_watchdog();
    }
    watchdog.pause_on_debug(true);
    watchdog.start(WATCHDOG_TIMEOUT);
    let console = Console::new(Port(UartTx::new_blocking(board.UART0, board.PIN_0, uart::Config::default())));

    let mut settings = spi::Config::default();
    settings.frequency = 20_000_000;
    let bus = spi::Spi::new(
        board.SPI0,
        board.PIN_18,
        board.PIN_19,
        board.PIN_16,
        board.DMA_CH0,
        board.DMA_CH1,
        Interrupts,
        settings,
    );
    let Ok(controller) = ExclusiveDevice::new(bus, Output::new(board.PIN_17, Level::High), Delay);
    let interrupt = Input::new(board.PIN_21, Pull::Up);
    let reset = Output::new(board.PIN_20, Level::High);
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

    let flash: Flash<'_, _, flash::Blocking, FLASH_BYTES> = Flash::new_blocking(board.FLASH);
    let hardware = Hardware {
        flash,
        data_offset: LAYOUT.data_offset(),
        entropy: Tested::start(Generator(Trng::new(board.TRNG, Interrupts, trng::Config::default()))),
        network,
        platform: &console,
        button: block_on(button(Input::new(board.PIN_15, Pull::Up))),
        background,
        sleep: WAIT_FOR_EVENT,
    };
    give_up(run(hardware))
}

/// As often as this, which it is not when a turn does not end.
async fn feed(mut watchdog: Watchdog) -> Infallible {
    loop {
        watchdog.feed(WATCHDOG_TIMEOUT);
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
    let [a, b, c, d, e, ..] = otp::get_chipid().unwrap_or_default().to_le_bytes();
    [0x02, a, b, c, d, e]
}

/// The serial port.
struct Port(UartTx<'static, uart::Blocking>);

impl fmt::Write for Port {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.blocking_write(text.as_bytes()).map_err(|_| fmt::Error)
    }
}

/// The part's generator. Its own tests are on as well.
struct Generator(Trng<'static, peripherals::TRNG>);

impl Noise for Generator {
    fn sample(&mut self, samples: &mut [u8]) {
        self.0.blocking_fill_bytes(samples);
    }
}

/// A handshake with P-256 in software takes one or two seconds.
const WATCHDOG_TIMEOUT: Duration = Duration::from_secs(8);
const BUTTON_LOOKS: u32 = 30;
const FLASH_BYTES: usize = 2 * 1024 * 1024;
const _: () =
    assert!(LAYOUT.flash_bytes == 2 * 1024 * 1024, "the same number twice, since `as` is not used here");
const _: () =
    assert!(flash::ERASE_SIZE == 4096 && LAYOUT.page_bytes == 4096, "the layout has this flash's pages");
