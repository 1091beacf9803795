//! A board of memory: from a reset to what the console says.

extern crate std;

use core::panic::AssertUnwindSafe;
use core::task::{Context, Poll, Waker};
use std::panic::{catch_unwind, resume_unwind};
use std::string::{String, ToString as _};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use std::vec::Vec;

use embassy_net_driver::{Capabilities, HardwareAddress, LinkState, RxToken, TxToken};
use embedded_storage::nor_flash::{ErrorType, NorFlashError, NorFlashErrorKind, ReadNorFlash};

use super::*;
use crate::last_words::{recall, remember, remember_watchdog};

/// What a restart does not clear is one for all tests.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    let guard = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    remember(&journal::Crash::untold(0, journal::cut("")).told());
    guard
}

/// A flash whose last eight pages are the data.
struct Flash<'a>(&'a RefCell<Vec<u8>>);

#[derive(Debug)]
struct Outside;

impl NorFlashError for Outside {
    fn kind(&self) -> NorFlashErrorKind {
        NorFlashErrorKind::OutOfBounds
    }
}

impl ErrorType for Flash<'_> {
    type Error = Outside;
}

impl ReadNorFlash for Flash<'_> {
    const READ_SIZE: usize = 1;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), Outside> {
        let (flash, offset) = (self.0.borrow(), usize::try_from(offset).expect("small"));
        bytes.copy_from_slice(flash.get(offset..offset + bytes.len()).ok_or(Outside)?);
        Ok(())
    }

    fn capacity(&self) -> usize {
        self.0.borrow().len()
    }
}

impl NorFlash for Flash<'_> {
    const WRITE_SIZE: usize = 4;
    const ERASE_SIZE: usize = 4096;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), Outside> {
        let range = usize::try_from(from).expect("small")..usize::try_from(to).expect("small");
        self.0.borrow_mut().get_mut(range).ok_or(Outside)?.fill(0xff);
        Ok(())
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), Outside> {
        let (mut flash, offset) = (self.0.borrow_mut(), usize::try_from(offset).expect("small"));
        let place = flash.get_mut(offset..offset + bytes.len()).ok_or(Outside)?;
        place.iter_mut().zip(bytes).for_each(|(place, byte)| *place &= byte);
        Ok(())
    }
}

/// A cable that leads nowhere.
struct Unplugged;

struct Nothing;

impl RxToken for Nothing {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, read: F) -> R {
        read(&mut [])
    }
}

impl TxToken for Nothing {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, write: F) -> R {
        write(&mut std::vec![0; len])
    }
}

impl Driver for Unplugged {
    type RxToken<'a> = Nothing;
    type TxToken<'a> = Nothing;

    fn receive(&mut self, _: &mut Context<'_>) -> Option<(Nothing, Nothing)> {
        None
    }

    fn transmit(&mut self, _: &mut Context<'_>) -> Option<Nothing> {
        None
    }

    fn link_state(&mut self, _: &mut Context<'_>) -> LinkState {
        LinkState::Down
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::default();
        capabilities.max_transmission_unit = 1514;
        capabilities
    }

    fn hardware_address(&self) -> HardwareAddress {
        HardwareAddress::Ethernet([2, 0, 0, 0, 0, 1])
    }
}

struct Counting(u8);

impl Entropy for Counting {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), NoEntropy> {
        for byte in bytes {
            self.0 = self.0.wrapping_mul(5).wrapping_add(77);
            *byte = self.0;
        }
        Ok(())
    }
}

#[derive(Default)]
struct Log(RefCell<Vec<String>>);

impl Log {
    fn has(&self, text: &str) -> bool {
        self.0.borrow().iter().any(|line| line.contains(text))
    }
}

impl Platform for Log {
    fn log(&self, line: fmt::Arguments<'_>) {
        self.0.borrow_mut().push(line.to_string());
    }

    fn restart(&self) -> ! {
        panic!("restarted")
    }
}

const SETTINGS: &[u8] = include_bytes!("../../../app/testdata/settings.bin");
const TOKEN: &[u8] = include_bytes!("../../../app/testdata/token.bin");
const PAGE: usize = 4096;
/// The image's part of the flash.
const DATA_OFFSET: usize = 4 * PAGE;

fn flash(settings: &[u8]) -> RefCell<Vec<u8>> {
    let mut flash = std::vec![0xff; DATA_OFFSET + 8 * PAGE];
    flash[..DATA_OFFSET].fill(0xc0);
    flash[DATA_OFFSET..][..settings.len()].copy_from_slice(settings);
    flash[DATA_OFFSET + PAGE..][..TOKEN.len()].copy_from_slice(TOKEN);
    RefCell::new(flash)
}

fn hardware<'a>(
    flash: &'a RefCell<Vec<u8>>,
    platform: &'a Log,
) -> Hardware<'a, Flash<'a>, Counting, Unplugged, Log> {
    let sleep = || std::thread::sleep(Duration::from_millis(1));
    // Of a clone's clone alone it is sure that the queue of timers knows it.
    let waker = std::boxed::Box::leak(std::boxed::Box::new(Waker::noop().clone()));
    let idle = core::pin::Pin::new(std::boxed::Box::leak(std::boxed::Box::new(core::future::pending())));
    Hardware {
        flash: Flash(flash),
        data_offset: u32::try_from(DATA_OFFSET).expect("small"),
        entropy: Ok(Counting(1)),
        network: Some(Unplugged),
        platform,
        button: Button::Free,
        background: idle,
        sleep: Sleep { begin: || {}, sleep, waker },
    }
}

/// What ends a board that has said enough.
struct Enough;

/// Lets the board run until it fails or says this.
fn until(hardware: Hardware<'_, Flash<'_>, Counting, Unplugged, Log>, text: &str) -> Option<Failure> {
    let (log, began_at) = (hardware.platform, Instant::now());
    let background = pin!(poll_fn(|_| {
        if log.has(text) {
            resume_unwind(std::boxed::Box::new(Enough));
        }
        assert!(began_at.elapsed() < Duration::from_secs(60), "no `{text}`: {:?}", log.0.borrow());
        Poll::Pending
    }));
    match catch_unwind(AssertUnwindSafe(|| run(Hardware { background, ..hardware }))) {
        Ok(failure) => Some(failure),
        Err(why) if why.is::<Enough>() => None,
        Err(why) => resume_unwind(why),
    }
}

#[test]
fn a_device_starts_with_what_the_factory_wrote() {
    let _alone = alone();
    let (flash, log) = (flash(SETTINGS), Log::default());
    assert_eq!(until(hardware(&flash, &log), "boot: device pump-7, token there"), None);
    let flash = flash.borrow();
    assert!(flash[..DATA_OFFSET].iter().all(|byte| *byte == 0xc0), "the image is as it was");
}

#[test]
fn what_does_not_work_is_named() {
    let _alone = alone();
    let log = Log::default();
    let blank = flash(&[]);
    assert_eq!(until(hardware(&blank, &log), "never"), Some(Failure::Settings(BadBlock::Absent)));
    let flash = flash(SETTINGS);
    let deaf = Hardware { network: None, ..hardware(&flash, &log) };
    assert_eq!(until(deaf, "never"), Some(Failure::Network));
    let predictable = Hardware { entropy: Err(NoEntropy), ..hardware(&flash, &log) };
    assert_eq!(until(predictable, "never"), Some(Failure::Entropy));
    let short =
        Hardware { data_offset: u32::try_from(DATA_OFFSET + PAGE).expect("small"), ..hardware(&flash, &log) };
    assert!(matches!(until(short, "never"), Some(Failure::Settings(_) | Failure::Flash | Failure::Store)));
}

#[test]
fn a_factory_reset_erases_identities_and_journal_and_leaves_the_factory_data() {
    let _alone = alone();
    let (flash, log) = (flash(SETTINGS), Log::default());
    flash.borrow_mut()[DATA_OFFSET + 2 * PAGE..].fill(0xa5);
    let held = Hardware { button: Button::Held, ..hardware(&flash, &log) };
    assert_eq!(until(held, "boot: the identities are erased"), None);
    let flash = flash.borrow();
    assert!(flash[DATA_OFFSET + 2 * PAGE..].iter().all(|byte| *byte == 0xff));
    assert!(flash[DATA_OFFSET..].starts_with(SETTINGS) && flash[DATA_OFFSET + PAGE..].starts_with(TOKEN));
}

#[test]
fn a_watchdog_that_bit_is_waited_for_and_written_down() {
    let _alone = alone();
    let (flash, log) = (flash(SETTINGS), Log::default());
    remember_watchdog();
    let began_at = Instant::now();
    assert_eq!(until(hardware(&flash, &log), "boot: last crash: the watchdog was not fed"), None);
    assert!(log.has("boot: crash 1 in a row, waiting 2 s"), "{:?}", log.0.borrow());
    // The board counts whole milliseconds.
    assert!(began_at.elapsed() >= Duration::from_millis(1_999));
    remember_watchdog();
    assert_eq!(recall().map(|crash| crash.in_a_row), Some(2), "it is still in the row");
    remember(&journal::Crash::untold(3, journal::cut("a panic")));
    remember_watchdog();
    assert_eq!(recall().map(|crash| crash.reason), Some(journal::cut("a panic")), "the newer reason stays");
    last_words::end_row();
    remember_watchdog();
    assert_eq!(recall().map(|crash| crash.in_a_row), Some(1), "a new row");
}
