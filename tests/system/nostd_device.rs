//! The no_std shell against the real server: everything between flash and HTTP is what runs on a board.
//!
//! The board is memory: a NOR flash in a vector, blocking TCP, software keys. It enrolls, tries its identity on a
//! server that asks for it, renews, and takes up after resets and power cuts.

use std::cell::{Cell, RefCell};
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::rc::Rc;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use embedded_io::{ErrorKind, ErrorType, Read, Write};
use embedded_storage::nor_flash::{ErrorType as FlashErrorType, NorFlash, NorFlashErrorKind, ReadNorFlash};
use muster_nostd_agent::clock::Clock;
use muster_nostd_agent::device::{Board, Device, DeviceMemory, Manufacturer};
use muster_nostd_agent::entropy::{Entropy, NoEntropy};
use muster_nostd_agent::key::KeyReference;
use muster_nostd_agent::net::{Close, Deadline, Net, NotConnected};
use muster_nostd_agent::software::SoftwareKeys;
use muster_nostd_agent::store::ITEM_BYTES;
use muster_nostd_agent::tls::TlsMemory;
use muster_proto::enrollment::{
    AskWishes, Binding, Config, Event, Failure, Identity, Memory, Pace, Presents, Slot, State, Trust,
};
use muster_proto::est::{Credential, Server as EstServer};
use muster_proto::time::{Instant, UnixTime};
use muster_proto::x509::{Certificate, ServerName};
use muster_tests::{Maker, Server};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

const PAGE: usize = 4096;
const WORD: usize = 8;
/// Three pages for each slot.
const PAGES: usize = 6;

/// A flash that outlives the device, as a flash does. Its power fails after so many words and pages.
#[derive(Clone)]
struct Flash {
    bytes: Rc<RefCell<Vec<u8>>>,
    steps_left: Rc<Cell<usize>>,
}

impl Flash {
    fn new() -> Self {
        Self {
            bytes: Rc::new(RefCell::new(vec![0xff; PAGES * PAGE])),
            steps_left: Rc::new(Cell::new(usize::MAX)),
        }
    }

    /// Counts one step, if there is power for it.
    fn step(&self) -> Result<(), NorFlashErrorKind> {
        let left = self.steps_left.get().checked_sub(1).ok_or(NorFlashErrorKind::Other)?;
        self.steps_left.set(left);
        Ok(())
    }
}

impl FlashErrorType for Flash {
    type Error = NorFlashErrorKind;
}

impl ReadNorFlash for Flash {
    const READ_SIZE: usize = WORD;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), NorFlashErrorKind> {
        let offset = usize::try_from(offset).expect("small");
        bytes.copy_from_slice(&self.bytes.borrow()[offset..offset + bytes.len()]);
        if self.steps_left.get() == 0 { Err(NorFlashErrorKind::Other) } else { Ok(()) }
    }

    fn capacity(&self) -> usize {
        self.bytes.borrow().len()
    }
}

impl NorFlash for Flash {
    const WRITE_SIZE: usize = WORD;
    const ERASE_SIZE: usize = PAGE;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), NorFlashErrorKind> {
        let (from, to) = (usize::try_from(from).expect("small"), usize::try_from(to).expect("small"));
        for page in (from..to).step_by(PAGE) {
            self.step()?;
            self.bytes.borrow_mut()[page..page + PAGE].fill(0xff);
        }
        Ok(())
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), NorFlashErrorKind> {
        let offset = usize::try_from(offset).expect("small");
        for (at, word) in (offset..).step_by(WORD).zip(bytes.chunks(WORD)) {
            self.step()?;
            for (place, byte) in self.bytes.borrow_mut()[at..].iter_mut().zip(word) {
                *place &= byte;
            }
        }
        Ok(())
    }
}

struct Tcp<'n> {
    stream: TcpStream,
    deadline: &'n Deadline,
}

impl Tcp<'_> {
    /// The stream, which waits until the deadline.
    fn until_deadline(&mut self) -> Result<&mut TcpStream, ErrorKind> {
        let left = self.deadline.get().since(now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut);
        }
        self.stream.set_read_timeout(Some(left)).map_err(|_| ErrorKind::Other)?;
        self.stream.set_write_timeout(Some(left)).map_err(|_| ErrorKind::Other)?;
        Ok(&mut self.stream)
    }
}

fn error_kind(error: std::io::Error) -> ErrorKind {
    match error.kind() {
        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut => ErrorKind::TimedOut,
        _ => ErrorKind::ConnectionReset,
    }
}

impl ErrorType for Tcp<'_> {
    type Error = ErrorKind;
}

impl Read for Tcp<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ErrorKind> {
        self.until_deadline()?.read(buffer).map_err(error_kind)
    }
}

impl Write for Tcp<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, ErrorKind> {
        self.until_deadline()?.write(bytes).map_err(error_kind)
    }

    fn flush(&mut self) -> Result<(), ErrorKind> {
        self.stream.flush().map_err(error_kind)
    }
}

impl Close for Tcp<'_> {
    fn close(&mut self) {
        // The server may have been first.
        let _ = self.stream.shutdown(Shutdown::Write);
    }
}

/// Knows one address for every name.
struct Host(SocketAddr);

impl Net for Host {
    type Connection<'n> = Tcp<'n>;

    fn connect<'n>(
        &'n mut self,
        _: ServerName<'_>,
        _: u16,
        deadline: &'n Deadline,
    ) -> Result<Tcp<'n>, NotConnected> {
        let stream = TcpStream::connect(self.0).map_err(|_| NotConnected::Unreachable)?;
        Ok(Tcp { stream, deadline })
    }
}

struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), NoEntropy> {
        aws_lc_rs::rand::fill(bytes).map_err(|_| NoEntropy)
    }
}

/// Since the first look at it.
fn now() -> Instant {
    static BEGIN: LazyLock<std::time::Instant> = LazyLock::new(std::time::Instant::now);
    // Not zero, which is a deadline that nobody has set.
    Instant::from_millis(1 + u64::try_from(BEGIN.elapsed().as_millis()).expect("not that long"))
}

/// Knows the date or not.
#[derive(Clone, Copy)]
struct HostClock {
    knows_the_date: bool,
}

impl Clock for HostClock {
    fn now(&self) -> Instant {
        now()
    }

    #[expect(clippy::disallowed_methods, reason = "this is a shell's clock")]
    fn wall(&self) -> Option<UnixTime> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
        self.knows_the_date.then(|| UnixTime::from_secs(now.as_secs()))
    }
}

type HostDevice =
    Device<'static, Host, Flash, SoftwareKeys, SystemEntropy, HostClock, { Memory::INBOX_BYTES }, ITEM_BYTES>;

fn leak(bytes: usize) -> &'static mut [u8] {
    Box::leak(vec![0; bytes].into_boxed_slice())
}

/// The root as the device trusts it.
fn root(server: &Server) -> Vec<u8> {
    CertificateDer::from_pem_file(server.ca_file()).expect("the account's root").to_vec()
}

/// What a device is made with.
struct Made {
    trust: Trust<'static>,
    credential: Option<Credential<'static>>,
    manufacturer: Option<Manufacturer<'static>>,
    /// The profile that it asks for.
    label: Option<&'static str>,
    knows_the_date: bool,
    /// The memory for one record from a server.
    receive_bytes: usize,
}

fn start(
    server: &Server,
    flash: &Flash,
    trust: Trust<'static>,
    credential: Option<Credential<'static>>,
    knows_the_date: bool,
) -> HostDevice {
    let receive_bytes = TlsMemory::RECEIVE_BYTES;
    let made = Made { trust, credential, manufacturer: None, label: None, knows_the_date, receive_bytes };
    start_made(server, flash, made)
}

fn start_made(server: &Server, flash: &Flash, made: Made) -> HostDevice {
    let config = Config {
        server: EstServer::new("localhost", server.est_address().port(), made.label).expect("an address"),
        identity: Identity::new("dev-1", None).expect("an id"),
        credential: made.credential,
        trust: made.trust,
        wishes: AskWishes::Ask,
        binding: Binding::Never,
        presents: Presents::Leaf,
        pace: Pace { spread: Duration::ZERO, ..Pace::default() },
        built_at: UnixTime::from_secs(1_767_225_600),
        seed: 7,
    };
    let memory = DeviceMemory {
        machine: Memory {
            authorities: leak(Memory::AUTHORITIES_BYTES),
            request: leak(Memory::REQUEST_BYTES),
            current: leak(Memory::CHAIN_BYTES),
            candidate: leak(Memory::CHAIN_BYTES),
        },
        tls: TlsMemory { receive: leak(made.receive_bytes), send: leak(TlsMemory::SEND_BYTES) },
    };
    let board = Board {
        net: Host(server.est_address()),
        flash: flash.clone(),
        keys: SoftwareKeys,
        entropy: SystemEntropy,
        clock: HostClock { knows_the_date: made.knows_the_date },
    };
    let region = 0..u32::try_from(PAGES * PAGE).expect("small");
    Device::start(board, region, config, made.manufacturer, memory).expect("the device starts")
}

/// `None`: the power failed before it was up.
fn start_if_it_can(server: &Server, flash: &Flash, trust: Trust<'static>) -> Option<HostDevice> {
    (flash.steps_left.get() > 0).then(|| start(server, flash, trust, None, true))
}

fn anchors(root: Vec<u8>) -> Trust<'static> {
    let root: &'static [u8] = Box::leak(root.into_boxed_slice());
    Trust::Certificates(Box::leak(vec![root].into_boxed_slice()))
}

fn token(server: &Server) -> Option<Credential<'static>> {
    let token: &'static str = Box::leak(server.token("dev-1").into_boxed_str());
    Some(Credential::basic("dev-1", token).expect("a token"))
}

/// Works once and returns the events.
fn work(device: &mut HostDevice) -> Vec<Event> {
    let mut events = Vec::new();
    device.work(|event| events.push(event)).expect("the shell keeps to the contract");
    events
}

fn serial(device: &HostDevice, slot: Slot) -> Vec<u8> {
    let chain = device.enrollment().chain(slot).expect("an identity");
    let leaf: Certificate<'_> = chain.first().expect("a certificate");
    assert_eq!(leaf.common_name(), Some("dev-1"));
    leaf.serial.to_vec()
}

/// Uses the identity in `slot` on a server that sees it, and says what the answer begins with.
fn use_identity(device: &mut HostDevice, server: &Server, slot: Slot) -> String {
    let port = server.est_address().port();
    let mut place = None;
    device
        .connect(slot, ServerName::Dns("localhost"), port, Instant::NEVER, &mut place)
        .expect("a server that asks for the certificate");
    let connection = place.as_mut().expect("made in its place");
    connection.set_deadline(now().plus(Duration::from_secs(60)));
    let request = b"GET /.well-known/est/cacerts HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    connection.write_all(request).expect("sent");
    connection.flush().expect("sent");
    let mut answer = [0; 12];
    connection.read_exact(&mut answer).expect("an answer");
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn enrolls_renews_and_takes_up_after_resets() {
    let server = Server::start();
    let flash = Flash::new();
    let trust = anchors(root(&server));

    let mut device = start(&server, &flash, trust, token(&server), false);
    assert_eq!(device.identity(), None);
    let events = work(&mut device);
    assert!(events.contains(&Event::Adopted(Slot::A)), "{events:?}");
    let first = serial(&device, Slot::A);
    assert_eq!(use_identity(&mut device, &server, Slot::A), "HTTP/1.1 200");

    // After a reset it needs no token any more.
    let mut device = start(&server, &flash, trust, None, true);
    assert_eq!(device.identity(), Some(Slot::A));
    assert_eq!(serial(&device, Slot::A), first);
    work(&mut device);
    assert_eq!(device.enrollment().state(), State::Holding);

    device.renew_now();
    let events = work(&mut device);
    assert!(events.iter().any(|event| matches!(event, Event::Issued(Slot::B, _))), "{events:?}");
    assert_eq!(device.identity(), Some(Slot::B), "the new one is to be tried");
    assert_eq!(device.enrollment().current(), Some(Slot::A), "the old one stays in use");

    // A reset before the proof loses neither.
    let mut device = start(&server, &flash, trust, None, true);
    work(&mut device);
    assert_eq!((device.enrollment().current(), device.identity()), (Some(Slot::A), Some(Slot::B)));
    assert_eq!(use_identity(&mut device, &server, Slot::A), "HTTP/1.1 200");
    assert_eq!(use_identity(&mut device, &server, Slot::B), "HTTP/1.1 200");
    device.accepted(Slot::B).expect("it is the candidate");
    let events = work(&mut device);
    assert!(events.contains(&Event::Adopted(Slot::B)), "{events:?}");
    let second = serial(&device, Slot::B);
    assert_ne!(first, second);

    let mut device = start(&server, &flash, trust, None, false);
    work(&mut device);
    assert_eq!((device.identity(), serial(&device, Slot::B)), (Some(Slot::B), second));
    assert_eq!(device.enrollment().chain(Slot::A), None);
}

/// The manufacturer's certificate as it lies in a device's flash, beside the firmware.
fn idevid(maker: &Maker, serial: &str) -> Manufacturer<'static> {
    let identity = maker.idevid(serial);
    let pkcs8 = identity.key.serialize_der();
    // In ECPrivateKey: version 1, and then an OCTET STRING of 32 bytes (RFC 5915 §3).
    let head = [2, 1, 1, 4, 32];
    let at = pkcs8.windows(head.len()).position(|part| part == head).expect("a P-256 key") + head.len();
    let reference = KeyReference::new(&pkcs8[at..at + 32]).expect("a scalar");
    Manufacturer { leaf: Box::leak(identity.chain[0].clone().into()), key: Box::leak(Box::new(reference)) }
}

#[test]
fn a_manufacturer_s_certificate_enrolls_a_device_alone_or_with_a_token() {
    let server = Server::start();
    let maker = Maker::known_to(&server, &[("dev-1", "SN-1")]);
    server.muster(&["profile", "set", "both", "credentials=certificate-and-token"]);
    let trust = anchors(root(&server));
    let made = |serial: &str, credential: Credential<'static>, label| Made {
        trust,
        credential: Some(credential),
        manufacturer: Some(idevid(&maker, serial)),
        label,
        knows_the_date: false,
        receive_bytes: TlsMemory::RECEIVE_BYTES,
    };
    let enroll = |made: Made| {
        let mut device = start_made(&server, &Flash::new(), made);
        let events = work(&mut device);
        (device, events)
    };
    let refusal = |events: &[Event]| {
        events.iter().find_map(|event| match event {
            Event::Failed(failure, _) => Some(*failure),
            _ => None,
        })
    };
    let (mut device, events) = enroll(made("SN-1", Credential::manufacturer(), None));
    assert!(events.contains(&Event::Adopted(Slot::A)), "{events:?}");
    assert_eq!(use_identity(&mut device, &server, Slot::A), "HTTP/1.1 200");
    // From now on it renews with what it got.
    assert!(renew(&mut device, &server));

    let (device, events) = enroll(made("SN-2", Credential::manufacturer(), None));
    assert_eq!((refusal(&events), device.identity()), (Some(Failure::Status(403)), None), "not listed");
    let (_, events) = enroll(made("SN-1", Credential::manufacturer(), Some("both")));
    assert!(matches!(refusal(&events), Some(Failure::Status(401 | 403))), "a token is missing: {events:?}");
    let both = token(&server).expect("a token").with_manufacturer();
    let (mut device, events) = enroll(made("SN-1", both, Some("both")));
    assert!(events.contains(&Event::Adopted(Slot::A)), "{events:?}");
    assert_eq!(use_identity(&mut device, &server, Slot::A), "HTTP/1.1 200");
}

#[test]
fn a_device_with_room_for_records_of_2_kib_gets_no_longer_ones() {
    let server = Server::start();
    let trust = anchors(root(&server));
    // Two roots and what ties them make a long answer.
    server.muster(&["ca", "create"]);
    let cacerts = server.est().get("cacerts").body.len();
    assert!(cacerts > 2304, "{cacerts} bytes would fit one record, and the test would show nothing");
    let made = Made {
        trust,
        credential: token(&server),
        manufacturer: None,
        label: None,
        knows_the_date: true,
        receive_bytes: 2304,
    };
    let mut device = start_made(&server, &Flash::new(), made);
    let events = work(&mut device);
    assert!(events.contains(&Event::Adopted(Slot::A)), "{events:?}");
    assert_eq!(use_identity(&mut device, &server, Slot::A), "HTTP/1.1 200");
}

#[test]
fn a_change_of_root_and_of_issuing_cas_loses_no_device_and_needs_no_new_trust() {
    for is_pinned in [false, true] {
        let server = Server::start();
        let fingerprint = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &root(&server));
        let pinned = Trust::Fingerprint(fingerprint.as_ref().try_into().expect("32 bytes"));
        let trust = if is_pinned { pinned } else { anchors(root(&server)) };
        let flash = Flash::new();
        let mut device = start(&server, &flash, trust, token(&server), true);
        work(&mut device);
        for change in ["rotate", "rotate", "rotate", "rotate", "rotate", "create", "rotate", "rotate"] {
            server.muster(&["ca", change]);
            assert!(renew(&mut device, &server), "after {change}");
        }
        let mut device = start(&server, &flash, trust, None, true);
        let slot = device.identity().expect("kept");
        assert_eq!(use_identity(&mut device, &server, slot), "HTTP/1.1 200");
    }
}

#[test]
fn enrolls_with_nothing_but_a_fingerprint_of_the_root() {
    let server = Server::start();
    let flash = Flash::new();
    let fingerprint = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &root(&server));
    let trust = Trust::Fingerprint(fingerprint.as_ref().try_into().expect("32 bytes"));
    let mut device = start(&server, &flash, trust, token(&server), false);
    let events = work(&mut device);
    assert!(events.contains(&Event::Adopted(Slot::A)), "{events:?}");
    assert_eq!(use_identity(&mut device, &server, Slot::A), "HTTP/1.1 200");

    // The root came into the store with the identity: after a reset no server is believed without it.
    let mut device = start(&server, &flash, trust, None, true);
    assert_eq!(device.enrollment().pinned_authority(), Some(&*root(&server)));
    assert_eq!(use_identity(&mut device, &server, Slot::A), "HTTP/1.1 200");
}

#[test]
fn a_server_of_another_account_gets_no_token() {
    let (server, other) = (Server::start(), Server::start());
    let trust = anchors(root(&other));
    let mut device = start(&server, &Flash::new(), trust, token(&server), true);
    let events = work(&mut device);
    let untrusted = |event: &Event| {
        let Event::Failed(Failure::Link(ending), _) = event else { return false };
        *ending == muster_proto::enrollment::Ending::ServerUntrusted
    };
    assert!(events.iter().any(untrusted), "{events:?}");
    assert_eq!(device.identity(), None);
}

#[test]
fn a_suspended_device_keeps_its_identity_and_asks_later() {
    let server = Server::start();
    let flash = Flash::new();
    let mut device = start(&server, &flash, anchors(root(&server)), token(&server), true);
    work(&mut device);
    let serial_before = serial(&device, Slot::A);
    server.muster(&["device", "suspend", "dev-1"]);
    device.renew_now();
    let events = work(&mut device);
    assert!(events.iter().any(|event| matches!(event, Event::Failed(..))), "{events:?}");
    assert_eq!((device.identity(), serial(&device, Slot::A)), (Some(Slot::A), serial_before));
    assert!(device.times().retry_at > Instant::from_millis(1000), "not at once");
}

/// A renewal from its beginning to the end of the identity before it. Says whether the flash let it.
fn renew(device: &mut HostDevice, server: &Server) -> bool {
    device.renew_now();
    work(device);
    let (Some(current), Some(new)) = (device.enrollment().current(), device.identity()) else { return false };
    if current == new {
        return false;
    }
    assert_eq!(use_identity(device, server, new), "HTTP/1.1 200");
    device.accepted(new).expect("it is the candidate");
    work(device);
    true
}

#[test]
fn a_power_cut_anywhere_in_a_renewal_leaves_an_identity_that_the_server_takes() {
    let server = Server::start();
    let trust = anchors(root(&server));
    let flash = Flash::new();
    work(&mut start(&server, &flash, trust, token(&server), true));
    let mut device = start(&server, &flash, trust, None, true);
    assert!(renew(&mut device, &server));
    let steps = usize::MAX - flash.steps_left.get();

    // Not every step, to be done in seconds: the store's own test cuts at each one.
    let mut cuts = 0;
    for cut in (0..steps).step_by(7) {
        flash.steps_left.set(cut);
        let mut device = start_if_it_can(&server, &flash, trust);
        if let Some(device) = &mut device {
            renew(device, &server);
        }
        drop(device);
        flash.steps_left.set(usize::MAX);
        let mut device = start(&server, &flash, trust, None, true);
        work(&mut device);
        let current = device.enrollment().current().unwrap_or_else(|| panic!("no identity: step {cut}"));
        assert_eq!(use_identity(&mut device, &server, current), "HTTP/1.1 200", "step {cut}");
        if let Some(new) = device.enrollment().candidate() {
            assert_eq!(use_identity(&mut device, &server, new), "HTTP/1.1 200", "step {cut}");
            device.accepted(new).expect("it is the candidate");
            work(&mut device);
        }
        cuts += 1;
    }
    println!("{cuts} cuts in {steps} steps");
}
