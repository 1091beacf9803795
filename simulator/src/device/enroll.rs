//! Drives one device core over tokio until it has what is wanted: its first certificate, or the next.
//!
//! One input, then drain. Everything is done in the device's own task: connecting, signing, appending to the
//! directory. The core decides about retries, waits and whether a certificate is good; this only counts.

use std::sync::Arc;
use std::time::{Duration, Instant};

use muster_proto::csr::CertificationRequest;
use muster_proto::enrollment::{
    AskWishes, Binding, Config, Connect, Enrollment, Event, Identity, Input, Memory, Output, Pace, Pair,
    Present, Presents, Record, Restored, Session, Slot, State, StoredRequest, Trust,
};
use muster_proto::est::{Credential, Server};
use muster_proto::time::{EARLIEST_WALL_TIME, Instant as CoreInstant, UnixTime, Validity};
use muster_proto::x509::{Bundle, Certificate, Moment};
use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::key::{DeviceKey, KeyPool, certified};
use super::verify::Remembering;
use crate::clock::Clocks;
use crate::identities::{Content, Directory, StoredPair, StoredRequest as RequestOnDisk};
use crate::reason::Reason;
use crate::tally::Tally;
use crate::tls::{Door, Stream, TlsClient};

/// What all devices of a run have in common.
#[derive(Debug)]
pub(crate) struct Enroller {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) label: Option<String>,
    pub(crate) door: Door,
    pub(crate) tls: TlsClient,
    pub(crate) anchors: Vec<CertificateDer<'static>>,
    pub(crate) keys: KeyPool,
    pub(crate) directory: Directory,
    pub(crate) wishes: AskWishes,
    pub(crate) pace: Pace,
    pub(crate) seed: u64,
    /// Gives up after this.
    pub(crate) patience: Duration,
    pub(crate) clocks: Clocks,
    verifier: Remembering,
}

/// What a device is to get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Want {
    /// A certificate, if it has none.
    First,
    /// A new one in place of the one it has.
    Next,
}

/// What the core asked for and is answered at once.
enum Local {
    Key(Slot),
    Signature(Slot, Vec<u8>),
    Stored,
    Failed,
}

/// What one drain leaves to do.
#[derive(Default)]
struct Todo {
    local: Option<Local>,
    connect: Option<Connect>,
    send: Vec<u8>,
    close: bool,
    wait_until: Option<CoreInstant>,
}

/// One device at work.
struct AtWork<'r> {
    run: &'r Enroller,
    tally: &'r Tally,
    number: u32,
    machine: Enrollment<'r, &'r Remembering>,
    /// One HTTP answer.
    inbox: Vec<u8>,
    keys: [Option<DeviceKey>; 2],
    stream: Option<Stream>,
    started: Instant,
    reason: Option<Reason>,
    link_reason: Option<Reason>,
    sent_at: Option<Instant>,
    issued: bool,
}

impl Enroller {
    /// Devices that enroll at this server.
    #[expect(clippy::too_many_arguments, reason = "it is the whole of a run's settings, made in one place")]
    pub(crate) fn new(
        host: String,
        port: u16,
        label: Option<String>,
        door: Door,
        tls: TlsClient,
        anchors: Vec<CertificateDer<'static>>,
        keys: KeyPool,
        directory: Directory,
        seed: u64,
        patience: Duration,
    ) -> Self {
        // The schedule of arrivals spreads the fleet, not the core.
        let pace = Pace { spread: Duration::ZERO, floor: Duration::from_secs(1), ..Pace::default() };
        let verifier = Remembering::default();
        let wishes = AskWishes::Ask;
        Self {
            host,
            port,
            label,
            door,
            tls,
            anchors,
            keys,
            directory,
            wishes,
            pace,
            seed,
            patience,
            clocks: Clocks::default(),
            verifier,
        }
    }

    /// Runs one device until it has what is wanted; `Err` with the last reason when it gives up.
    ///
    /// Each failed try is counted under `enroll_try`, each exchange under `exchange`, each handshake under
    /// `handshake`.
    pub(crate) async fn run(
        &self,
        number: u32,
        token: Option<&str>,
        want: Want,
        tally: &Tally,
    ) -> Result<(), Reason> {
        let device = self.directory.device(number);
        let anchors: Vec<&[u8]> = self.anchors.iter().map(AsRef::as_ref).collect();
        let config = self.config(number, &device, token, &anchors).ok_or(Reason::Local)?;
        let mut buffers: [Vec<u8>; 4] = [
            vec![0; Memory::AUTHORITIES_BYTES],
            vec![0; Memory::REQUEST_BYTES],
            vec![0; Memory::CHAIN_BYTES],
            vec![0; Memory::CHAIN_BYTES],
        ];
        let [authorities, request, current, candidate] = &mut buffers;
        let memory = Memory { authorities, request, current, candidate };
        let contents = [self.content(number, Slot::A)?, self.content(number, Slot::B)?];
        let chains = contents.each_ref().map(whole_chain);
        let (restored, keys) = restore(&contents, &chains);
        let machine = Enrollment::new(config, memory, &restored, &self.verifier, CoreInstant::from_millis(0));
        let mut at_work = AtWork {
            run: self,
            tally,
            number,
            machine,
            inbox: vec![0; Memory::INBOX_BYTES],
            keys,
            stream: None,
            started: Instant::now(),
            reason: None,
            link_reason: None,
            sent_at: None,
            issued: false,
        };
        let worked = tokio::time::timeout(self.patience, at_work.work(want)).await;
        if let Moment::Known(time) = at_work.machine.moment() {
            self.clocks.believe(number, time.as_secs());
        }
        let last = at_work.reason;
        at_work.hang_up().await;
        match worked {
            Ok(outcome) => outcome,
            Err(_) => Err(last.unwrap_or(Reason::TimedOut)),
        }
    }

    fn config<'a>(
        &'a self,
        number: u32,
        device: &'a str,
        token: Option<&'a str>,
        anchors: &'a [&'a [u8]],
    ) -> Option<Config<'a>> {
        let credential = match token {
            Some(token) => Some(Credential::basic(device, token).ok()?),
            None => None,
        };
        Some(Config {
            server: Server::new(&self.host, self.port, self.label.as_deref()).ok()?,
            identity: Identity::new(device, None).ok()?,
            credential,
            trust: Trust::Certificates(anchors),
            wishes: self.wishes,
            binding: Binding::WhenAsked,
            presents: Presents::Chain,
            pace: self.pace,
            built_at: EARLIEST_WALL_TIME,
            seed: self.seed ^ u64::from(number).wrapping_mul(SEED_STEP),
        })
    }

    fn content(&self, number: u32, slot: Slot) -> Result<Option<Content>, Reason> {
        self.directory.content(number, slot).map_err(|_| Reason::Local)
    }
}

impl AtWork<'_> {
    async fn work(&mut self, want: Want) -> Result<(), Reason> {
        let wall = UnixTime::from_secs(self.run.clocks.unix_now(self.number));
        self.handle(Input::Wall(wall));
        if want == Want::Next {
            let now = self.now();
            self.machine.renew_now(now);
        }
        loop {
            let todo = self.drain();
            if let Some(slot) = self.machine.candidate() {
                // There is no edge here to try it on.
                self.handle(Input::Accepted(slot));
                continue;
            }
            if self.is_done(want) {
                return Ok(());
            }
            if todo.close {
                self.hang_up().await;
            }
            if let Some(local) = todo.local {
                self.answer(local).await;
            } else if let Some(connect) = todo.connect {
                self.connect(connect).await;
            } else if !todo.send.is_empty() {
                self.send(&todo.send).await;
            } else {
                self.wait(todo.wait_until.unwrap_or(CoreInstant::NEVER)).await;
            }
        }
    }

    fn is_done(&self, want: Want) -> bool {
        match want {
            Want::First => self.machine.state() == State::Holding,
            Want::Next => self.issued && self.machine.state() == State::Holding,
        }
    }

    /// Takes outputs until the core waits for an answer or has nothing more.
    fn drain(&mut self) -> Todo {
        let mut todo = Todo::default();
        let mut buffer = [0; SEND_BYTES];
        loop {
            let Ok(output) = self.machine.poll(&mut buffer) else { return todo };
            match output {
                Output::Close => todo.close = true,
                Output::Connect(connect) => todo.connect = Some(connect),
                Output::Event(event) => self.tell(&event),
                Output::MakeKey(slot) => todo.local = Some(Local::Key(slot)),
                Output::Retire(slot) => {
                    // A directory that can't be written is noticed at the next thing that has to be stored.
                    let _ = self.run.directory.retire(self.number, slot);
                }
                Output::Send(bytes) => todo.send.extend_from_slice(bytes),
                Output::Sign { slot, message } => todo.local = Some(Local::Signature(slot, message.to_vec())),
                Output::Store(record) => {
                    let stored = store(self.run, self.number, &mut self.keys, &record);
                    todo.local = Some(if stored { Local::Stored } else { Local::Failed });
                }
                Output::WaitUntil(at) => {
                    todo.wait_until = Some(at);
                    // A server may close between two exchanges; then no failure took it.
                    self.link_reason = None;
                    return todo;
                }
            }
        }
    }

    fn tell(&mut self, event: &Event) {
        let reason = match event {
            Event::Failed(failure, _) => {
                let from_core = Reason::of_failure(failure);
                // The link's own word says more than the core keeps.
                self.link_reason.take().unwrap_or(from_core)
            }
            Event::Issued(..) => {
                self.issued = true;
                return;
            }
            Event::Postponed(_) => Reason::Postponed,
            _ => return,
        };
        self.reason = Some(reason);
        self.tally.failed("enroll_try", reason);
    }

    async fn answer(&mut self, local: Local) {
        match local {
            Local::Failed => self.handle(Input::LocalFailure),
            // The key is on disk with the request that it signs, before that is sent anywhere.
            Local::Key(slot) => match self.run.keys.take().await {
                Ok(key) => {
                    let point = key.point();
                    *place(&mut self.keys, slot) = Some(key);
                    self.handle(Input::KeyReady(point));
                }
                Err(_) => self.handle(Input::LocalFailure),
            },
            Local::Signature(slot, message) => {
                let signature =
                    place(&mut self.keys, slot).as_ref().and_then(|key| key.sign_message(&message));
                match signature {
                    Some(signature) => self.handle(Input::Signed(&signature)),
                    None => self.handle(Input::LocalFailure),
                }
            }
            Local::Stored => self.handle(Input::Stored),
        }
    }

    async fn connect(&mut self, connect: Connect) {
        let identity = match connect.present {
            Present::Slot(slot) => match self.identity(slot) {
                Some(identity) => Some(identity),
                None => return self.ended(Reason::Local),
            },
            Present::Manufacturer | Present::Nothing => None,
        };
        let config = self.run.tls.present(identity, None);
        let begun = Instant::now();
        match self.run.door.connect(self.number, config).await {
            Ok(stream) => {
                self.tally.done("handshake", begun.elapsed());
                let session = match self.judge(&stream) {
                    Ok(server_valid) => Session { server_valid, binding: None },
                    Err(reason) => return self.ended(reason),
                };
                self.tally.opened();
                self.stream = Some(stream);
                self.handle(Input::Connected(session));
            }
            Err(reason) => self.ended(reason),
        }
    }

    /// TLS checked the server's dates against this machine's clock; a device whose own clock is off judges by that.
    fn judge(&self, stream: &Stream) -> Result<Option<Validity>, Reason> {
        if self.run.clocks.off(self.number) == 0 {
            return Ok(None);
        }
        let shown = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let (leaf, others) = shown.split_first().ok_or(Reason::Untrusted)?;
        let checked = self.machine.check_server(leaf, others.iter().map(AsRef::as_ref));
        checked.map(Some).map_err(|_| Reason::Untrusted)
    }

    fn identity(&self, slot: Slot) -> Option<Arc<rustls::sign::CertifiedKey>> {
        match self.run.directory.content(self.number, slot).ok()?? {
            Content::Pair { pair, intermediates } => certified(&pair, &intermediates).ok(),
            Content::Request(_) => None,
        }
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.sent_at = Some(Instant::now());
        let Some(stream) = self.stream.as_mut() else { return };
        let sent = async {
            stream.write_all(bytes).await?;
            stream.flush().await
        };
        if let Err(error) = sent.await {
            self.ended(Reason::of_io(&error));
        }
    }

    async fn wait(&mut self, until: CoreInstant) {
        let left = Duration::from_millis(until.as_millis()).saturating_sub(self.started.elapsed());
        // The patience of the run ends long before this.
        let left = left.min(LONGEST_SLEEP);
        let Some(stream) = self.stream.as_mut() else {
            tokio::time::sleep(left).await;
            return self.handle(Input::TimerFired);
        };
        let mut buffer = [0; READ_BYTES];
        match tokio::time::timeout(left, stream.read(&mut buffer)).await {
            Err(_) => self.handle(Input::TimerFired),
            Ok(Ok(0)) => self.ended(Reason::Closed),
            Ok(Ok(len)) => {
                if let Some(sent_at) = self.sent_at.take() {
                    self.tally.done("exchange", sent_at.elapsed());
                }
                let (received, now) = (buffer.get(..len).unwrap_or_default(), self.now());
                let taken = self.machine.receive(received, &mut self.inbox, now);
                debug_assert!(taken.is_ok(), "the core was called out of turn: {taken:?}");
            }
            Ok(Err(error)) => self.ended(Reason::of_io(&error)),
        }
    }

    fn ended(&mut self, reason: Reason) {
        if self.stream.take().is_some() {
            self.tally.closed();
        }
        self.link_reason = Some(reason);
        self.handle(Input::Closed(reason.ending()));
    }

    async fn hang_up(&mut self) {
        if let Some(mut stream) = self.stream.take() {
            self.tally.closed();
            let _ = tokio::time::timeout(FAREWELL_TIMEOUT, stream.shutdown()).await;
        }
    }

    fn handle(&mut self, input: Input<'_>) {
        let handled = self.machine.handle(input, self.now());
        debug_assert!(handled.is_ok(), "the core was called out of turn: {handled:?}");
    }

    fn now(&self) -> CoreInstant {
        CoreInstant::from_millis(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX))
    }
}

fn store(run: &Enroller, number: u32, keys: &mut [Option<DeviceKey>; 2], record: &Record<'_>) -> bool {
    let Some(key) = place(keys, record.slot()) else { return false };
    let scalar = *key.scalar();
    let written = match record {
        Record::Pair(pair) => {
            let all = pair.chain.as_bytes();
            let Some(leaf) = pair.chain.iter().next() else { return false };
            let intermediates = all.get(leaf.len()..).unwrap_or_default();
            let stored = StoredPair {
                number,
                slot: pair.slot,
                generation: pair.generation,
                window: pair.window,
                saved_at: pair.saved_at,
                scalar,
                chain: 0,
                leaf: leaf.to_vec(),
            };
            run.directory.put_pair(stored, intermediates)
        }
        Record::Request(request) => run.directory.put_request(RequestOnDisk {
            number,
            slot: request.slot,
            saved_at: request.saved_at,
            scalar,
            csr: request.csr.to_vec(),
        }),
    };
    written.is_ok()
}

/// Leaf and intermediates, one after the other, as the core takes them.
fn whole_chain(content: &Option<Content>) -> Vec<u8> {
    match content {
        Some(Content::Pair { pair, intermediates }) => [pair.leaf.as_slice(), intermediates].concat(),
        Some(Content::Request(_)) | None => Vec::new(),
    }
}

/// What the directory holds, as the core takes it, and the keys for it.
fn restore<'c>(
    contents: &'c [Option<Content>; 2],
    chains: &'c [Vec<u8>; 2],
) -> (Restored<'c>, [Option<DeviceKey>; 2]) {
    let mut keys = [None, None];
    let mut restored = Restored::default();
    for (((content, chain), slot), record) in
        contents.iter().zip(chains).zip([Slot::A, Slot::B]).zip(&mut restored.records)
    {
        let (found, key) = match content {
            None => (None, None),
            Some(Content::Pair { pair, .. }) => (
                Some(Record::Pair(Pair {
                    slot,
                    generation: pair.generation,
                    chain: Bundle::new(chain),
                    anchor: &[],
                    window: pair.window,
                    saved_at: pair.saved_at,
                })),
                Certificate::parse(&pair.leaf)
                    .ok()
                    .and_then(|leaf| DeviceKey::of(pair.scalar, leaf.key.bits)),
            ),
            Some(Content::Request(request)) => (
                Some(Record::Request(StoredRequest { slot, csr: &request.csr, saved_at: request.saved_at })),
                CertificationRequest::parse(&request.csr)
                    .ok()
                    .and_then(|csr| DeviceKey::of(request.scalar, csr.key.bits)),
            ),
        };
        *record = found;
        *place(&mut keys, slot) = key;
    }
    (restored, keys)
}

fn place(keys: &mut [Option<DeviceKey>; 2], slot: Slot) -> &mut Option<DeviceKey> {
    let [a, b] = keys;
    match slot {
        Slot::A => a,
        Slot::B => b,
    }
}

/// For requests and their answers: one record of TLS at most.
const READ_BYTES: usize = 4 << 10;
const SEND_BYTES: usize = 2 << 10;
/// A peer is owed no more than a moment.
const FAREWELL_TIMEOUT: Duration = Duration::from_millis(200);
const LONGEST_SLEEP: Duration = Duration::from_secs(3600);
/// The golden ratio in 64 bits: neighbours get seeds that are far apart.
const SEED_STEP: u64 = 0x9E37_79B9_7F4A_7C15;
