//! The loop on boards that misbehave: networks that are silent at any point, elements and flashes that fail, and
//! what a device finds after a reset. Time is a number that jumps.

use std::cell::Cell;
use std::time::Duration;

use embedded_io::{ErrorKind, ErrorType, Read, Write};
use muster_nostd_agent::clock::Clock;
use muster_nostd_agent::device::{Board, Device, DeviceMemory, StartError};
use muster_nostd_agent::entropy::{Entropy, NoEntropy};
use muster_nostd_agent::key::{KeyStore, SlotKey};
use muster_nostd_agent::net::{Close, Deadline, Net, NotConnected};
use muster_nostd_agent::software::SoftwareKeys;
use muster_nostd_agent::store::{BadRegion, ITEM_BYTES, IdentityStore, Item};
use muster_nostd_agent::tls::{ConnectError, TlsMemory};
use muster_proto::enrollment::{
    AskWishes, Binding, Config, Ending, Event, Failure, Identity, Memory, Misuse, Pace, Pair, Presents,
    Record, Slot, Trust, Window,
};
use muster_proto::est::{Credential, Server};
use muster_proto::time::{Instant, UnixTime};
use muster_proto::x509::{Bundle, ServerName};

use crate::authority::{Authority, Point, START, device_params};
use crate::board::Seeded;
use crate::element::Element;
use crate::flash::Flash;

type BoardFlash = Flash<8, 4096>;

/// Where the network falls silent.
#[derive(Clone, Copy, Debug)]
enum Line {
    Dead,
    SilentBeforeTcp,
    SilentAfterTcp,
    Deaf,
}

// The board's time, for its network too.
thread_local!(static NOW_MS: Cell<u64> = const { Cell::new(0) });

/// Nothing else happens before the deadline, so it is there.
fn jump(deadline: &Deadline) {
    NOW_MS.set(NOW_MS.get().max(deadline.get().as_millis()));
}

struct Wire<'n> {
    line: Line,
    deadline: &'n Deadline,
}

impl Net for Line {
    type Connection<'n> = Wire<'n>;

    fn connect<'n>(
        &'n mut self,
        _: ServerName<'_>,
        _: u16,
        deadline: &'n Deadline,
    ) -> Result<Wire<'n>, NotConnected> {
        match self {
            Self::Dead => Err(NotConnected::Unreachable),
            Self::SilentBeforeTcp => {
                jump(deadline);
                Err(NotConnected::TimedOut)
            }
            Self::SilentAfterTcp | Self::Deaf => Ok(Wire { line: *self, deadline }),
        }
    }
}

impl Close for Wire<'_> {
    fn close(&mut self) {
        jump(self.deadline);
    }
}

impl ErrorType for Wire<'_> {
    type Error = ErrorKind;
}

impl Read for Wire<'_> {
    fn read(&mut self, _: &mut [u8]) -> Result<usize, ErrorKind> {
        jump(self.deadline);
        Err(ErrorKind::TimedOut)
    }
}

impl Write for Wire<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, ErrorKind> {
        match self.line {
            Line::Deaf => {
                jump(self.deadline);
                Err(ErrorKind::TimedOut)
            }
            _ => Ok(bytes.len()),
        }
    }

    fn flush(&mut self) -> Result<(), ErrorKind> {
        Ok(())
    }
}

/// Jumps to the deadline, as soon as nothing else happens.
struct Jumping;

impl Clock for Jumping {
    fn now(&self) -> Instant {
        Instant::from_millis(NOW_MS.get())
    }

    fn wall(&self) -> Option<UnixTime> {
        Some(UnixTime::from_secs(START + NOW_MS.get() / 1000))
    }
}

/// Has nothing to give.
struct Broken;

impl Entropy for Broken {
    fn fill(&mut self, _: &mut [u8]) -> Result<(), NoEntropy> {
        Err(NoEntropy)
    }
}

fn leak(bytes: usize) -> &'static mut [u8] {
    Box::leak(vec![0; bytes].into_boxed_slice())
}

fn config() -> Config<'static> {
    let root: &'static [u8] = Box::leak(Authority::root("root", 1).der.into_boxed_slice());
    Config {
        server: Server::new("est.example.com", 443, None).expect("an address"),
        identity: Identity::new("dev-1", None).expect("an id"),
        credential: Some(Credential::basic("dev-1", "token").expect("a token")),
        trust: Trust::Certificates(Box::leak(vec![root].into_boxed_slice())),
        wishes: AskWishes::Skip,
        binding: Binding::Never,
        presents: Presents::Leaf,
        pace: Pace { spread: Duration::ZERO, ..Pace::default() },
        built_at: UnixTime::from_secs(START - 1000),
        seed: 1,
    }
}

fn memory() -> DeviceMemory<'static> {
    DeviceMemory {
        machine: Memory {
            authorities: leak(Memory::AUTHORITIES_BYTES),
            request: leak(Memory::REQUEST_BYTES),
            current: leak(Memory::CHAIN_BYTES),
            candidate: leak(Memory::CHAIN_BYTES),
        },
        tls: TlsMemory { receive: leak(TlsMemory::RECEIVE_BYTES), send: leak(TlsMemory::SEND_BYTES) },
    }
}

type TestDevice<'f, K, E> =
    Device<'static, Line, &'f mut BoardFlash, K, E, Jumping, { Memory::INBOX_BYTES }, ITEM_BYTES>;

fn start<'f, K: KeyStore, E: Entropy>(
    flash: &'f mut BoardFlash,
    net: Line,
    keys: K,
    entropy: E,
    config: Config<'static>,
) -> TestDevice<'f, K, E> {
    NOW_MS.set(0);
    let region = 0..u32::try_from(flash.bytes.len()).expect("small");
    let board = Board { net, flash, keys, entropy, clock: Jumping };
    Device::start(board, region, config, None, memory()).expect("the device starts")
}

fn work<K: KeyStore, E: Entropy>(device: &mut TestDevice<'_, K, E>) -> (Vec<Event>, Instant) {
    let mut events = Vec::new();
    let until = device.work(|event| events.push(event)).expect("the shell keeps to the contract");
    (events, until)
}

fn failure(events: &[Event]) -> Option<Failure> {
    events.iter().find_map(|event| if let Event::Failed(failure, _) = event { Some(*failure) } else { None })
}

#[test]
fn silence_at_any_point_ends_in_a_failure_and_a_later_try() {
    for (line, expected) in [
        (Line::Dead, Failure::Link(Ending::Unreachable)),
        (Line::SilentBeforeTcp, Failure::Timeout),
        (Line::SilentAfterTcp, Failure::Timeout),
        (Line::Deaf, Failure::Timeout),
    ] {
        let mut flash = BoardFlash::new(6);
        let mut device = start(&mut flash, line, SoftwareKeys, Seeded::new(1), config());
        let (events, until) = work(&mut device);
        assert_eq!(failure(&events), Some(expected), "{line:?}");
        assert!(until > Instant::from_millis(0) && until < Instant::NEVER, "{line:?}");
        assert_eq!(device.identity(), None);
    }
}

#[test]
fn without_entropy_there_is_no_handshake() {
    let mut flash = BoardFlash::new(6);
    let mut device = start(&mut flash, Line::SilentAfterTcp, SoftwareKeys, Broken, config());
    assert_eq!(failure(&work(&mut device).0), Some(Failure::Link(Ending::Reset)));
}

/// Puts an identity into the store as an enrollment would have.
fn enrolled(flash: &mut BoardFlash, slot: Slot, generation: u32, key: &SlotKey) {
    let devices = Authority::root("root", 1);
    let params = device_params("dev-1", generation.into(), START, START + 1_000_000);
    let leaf = devices.issue(&params, &Point(key.point.as_bytes().to_vec()));
    let at = |after| UnixTime::from_secs(START + after);
    let pair = Pair {
        slot,
        generation,
        chain: Bundle::new(&leaf),
        anchor: &[],
        window: Window::new(at(600_000), at(800_000), at(1_000_000)).expect("in order"),
        saved_at: at(0),
    };
    let region = 0..u32::try_from(flash.bytes.len()).expect("small");
    let mut store = IdentityStore::new(flash, region, ITEM_BYTES).expect("a region of the right size");
    let item = Item::Key { slot, key: key.clone(), record: Some(Record::Pair(pair)) };
    store.put(&item, leak(ITEM_BYTES)).expect("stored");
}

#[test]
fn a_key_of_an_element_is_found_again_by_its_handle() {
    let mut element = Element::default();
    let mut flash = BoardFlash::new(6);
    let key = element.generate(Slot::A, &mut Seeded::new(1)).expect("a key");
    enrolled(&mut flash, Slot::A, 0, &key);
    let device = start(&mut flash, Line::Dead, element, Seeded::new(2), config());
    assert_eq!(device.identity(), Some(Slot::A));
}

#[test]
fn a_handle_whose_key_was_replaced_before_a_power_cut_is_not_used() {
    let mut element = Element::default();
    let mut flash = BoardFlash::new(6);
    let in_use = element.generate(Slot::A, &mut Seeded::new(1)).expect("a key");
    enrolled(&mut flash, Slot::A, 0, &in_use);
    let replaced = element.generate(Slot::B, &mut Seeded::new(2)).expect("a key");
    enrolled(&mut flash, Slot::B, 1, &replaced);
    element.generate(Slot::B, &mut Seeded::new(3)).expect("a key");
    // Power fails before the new key's item is written.
    let device = start(&mut flash, Line::Dead, element, Seeded::new(4), config());
    assert_eq!(device.identity(), Some(Slot::A));
    assert_eq!(device.enrollment().chain(Slot::B), None);
}

#[test]
fn the_old_identity_goes_when_the_new_one_was_accepted_and_takes_its_key_along() {
    let element = Element::default();
    let mut flash = BoardFlash::new(6);
    for (slot, generation) in [(Slot::A, 0), (Slot::B, 1)] {
        let key = element.clone().generate(slot, &mut Seeded::new(generation.into())).expect("a key");
        enrolled(&mut flash, slot, generation, &key);
    }
    let mut device = start(&mut flash, Line::Dead, element.clone(), Seeded::new(4), config());
    work(&mut device);
    assert_eq!((device.enrollment().current(), device.identity()), (Some(Slot::A), Some(Slot::B)));
    device.accepted(Slot::B).expect("it is the candidate");
    work(&mut device);
    assert_eq!((device.identity(), element.keys()), (Some(Slot::B), 1));
    assert_eq!(device.refused(Slot::A), Err(Misuse::EmptySlot));
    drop(device);
    assert!(flash.bytes[..3 * 4096].iter().all(|byte| *byte == 0xff), "slot A is blank");
}

#[test]
fn a_refused_new_identity_goes_and_the_old_one_stays() {
    let mut flash = BoardFlash::new(6);
    for (slot, generation) in [(Slot::A, 0), (Slot::B, 1)] {
        let key = SoftwareKeys.generate(slot, &mut Seeded::new(generation.into())).expect("a key");
        enrolled(&mut flash, slot, generation, &key);
    }
    let mut device = start(&mut flash, Line::Dead, SoftwareKeys, Seeded::new(4), config());
    device.refused(Slot::B).expect("it is the candidate");
    let (events, _) = work(&mut device);
    assert_eq!(failure(&events), Some(Failure::CandidateRefused));
    assert_eq!(device.identity(), Some(Slot::A));
    drop(device);
    assert!(flash.bytes[3 * 4096..].iter().all(|byte| *byte == 0xff), "slot B is blank");
}

#[test]
fn an_emptied_slot_has_no_copy_of_its_key() {
    let mut flash = BoardFlash::new(6);
    let key = SoftwareKeys.generate(Slot::A, &mut Seeded::new(1)).expect("a key");
    let secret = key.reference.as_bytes().to_vec();
    for generation in 0..4 {
        enrolled(&mut flash, Slot::A, generation, &key);
    }
    let copies = |flash: &BoardFlash| flash.bytes.windows(32).filter(|window| *window == secret).count();
    assert!(copies(&flash) > 1);
    let mut store = IdentityStore::new(&mut flash, 0..6 * 4096, ITEM_BYTES).expect("a region");
    store.empty(Slot::A, leak(ITEM_BYTES)).expect("emptied");
    assert_eq!(copies(&flash), 0);
}

#[test]
fn an_application_without_identity_or_network_gets_an_error() {
    let mut flash = BoardFlash::new(6);
    let key = SoftwareKeys.generate(Slot::A, &mut Seeded::new(1)).expect("a key");
    enrolled(&mut flash, Slot::A, 0, &key);
    let name = ServerName::Dns("broker.example.com");
    let mut device = start(&mut flash, Line::Dead, SoftwareKeys, Seeded::new(2), config());
    let unreachable = device.connect(Slot::A, name, 8883, Instant::NEVER, &mut None).map(drop);
    assert!(matches!(unreachable, Err(ConnectError::Unreachable)), "{unreachable:?}");
    let nothing = device.connect(Slot::B, name, 8883, Instant::NEVER, &mut None).map(drop);
    assert!(matches!(nothing, Err(ConnectError::Key)), "{nothing:?}");
    drop(device);
    let mut device = start(&mut flash, Line::SilentAfterTcp, SoftwareKeys, Seeded::new(2), config());
    let mut place = None;
    let silent = device.connect(Slot::A, name, 8883, Instant::NEVER, &mut place).map(drop);
    assert!(matches!(silent, Err(ConnectError::Timeout)), "{silent:?}");
    assert!(place.is_none(), "half a connection is none");
}

#[test]
fn a_damaged_flash_is_an_empty_one_and_heals() {
    let mut flash = BoardFlash::new(6);
    let key = SoftwareKeys.generate(Slot::A, &mut Seeded::new(1)).expect("a key");
    enrolled(&mut flash, Slot::A, 0, &key);
    for (seed, place) in flash.bytes.iter_mut().enumerate() {
        *place &= (seed.wrapping_mul(0x9E37_79B9) >> 7) as u8;
    }
    let device = start(&mut flash, Line::Dead, SoftwareKeys, Seeded::new(2), config());
    assert_eq!(device.identity(), None);
    drop(device);
    enrolled(&mut flash, Slot::A, 0, &key);
    enrolled(&mut flash, Slot::B, 1, &key);
    let device = start(&mut flash, Line::Dead, SoftwareKeys, Seeded::new(2), config());
    assert_eq!((device.enrollment().current(), device.identity()), (Some(Slot::A), Some(Slot::B)));
}

#[test]
fn a_region_that_is_too_small_says_what_is_needed() {
    let region = |bytes| IdentityStore::new(BoardFlash::new(8), bytes, ITEM_BYTES).map(drop);
    assert_eq!(region(0..6 * 4096), Ok(()));
    assert_eq!(region(0..5 * 4096), Err(BadRegion::Size { needed_bytes: 6 * 4096 }));
    assert_eq!(region(100..6 * 4096), Err(BadRegion::Alignment));
    assert_eq!(region(std::ops::Range { start: 4096, end: 100 }), Err(BadRegion::Alignment));
    assert_eq!(region(4 * 4096..10 * 4096), Err(BadRegion::OutsideFlash));
    let small_items = IdentityStore::new(BoardFlash::new(8), 0..4 * 4096, 1500).map(drop);
    assert_eq!(small_items, Ok(()));
    let too_large = IdentityStore::new(BoardFlash::new(8), 0..8 * 4096, 5000).map(drop);
    assert_eq!(too_large, Err(BadRegion::Pages));
}

#[test]
fn a_manufacturer_credential_needs_the_certificate() {
    let mut flash = BoardFlash::new(6);
    let config = Config { credential: Some(Credential::manufacturer()), ..config() };
    let board = Board {
        net: Line::Dead,
        flash: &mut flash,
        keys: SoftwareKeys,
        entropy: Seeded::new(1),
        clock: Jumping,
    };
    let started: Result<TestDevice<'_, _, _>, _> = Device::start(board, 0..6 * 4096, config, None, memory());
    assert_eq!(started.err(), Some(StartError::NoManufacturer));
}
