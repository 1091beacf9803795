//! A device around the machine: two slots that survive reboots, keys from seeds, and what happened.

use muster_proto::csr::P256Point;
use muster_proto::enrollment::{
    AskWishes, Binding, Config, Enrollment, Event, Identity, Input, Memory, Output, Pace, Pair, Presents,
    Record, Restored, Slot, State, StoredRequest, Trust, Window,
};
use muster_proto::est::{Credential, Server};
use muster_proto::time::{Instant, UnixTime};
use muster_proto::x509::{Bundle, Certificate};

use crate::authority::{P256Verifier, START, TestKey};
use crate::server::NAME;

/// What a slot of the flash holds.
#[derive(Clone, Default)]
pub(crate) struct Cell {
    pub(crate) key: Option<u64>,
    pub(crate) record: Option<Stored>,
}

#[derive(Clone)]
pub(crate) enum Stored {
    Pair { generation: u32, chain: Vec<u8>, anchor: Vec<u8>, window: Window, saved_at: UnixTime },
    Request { csr: Vec<u8>, saved_at: UnixTime },
}

/// How a power cut meets a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    Before,
    After,
}

pub(crate) struct Device {
    pub(crate) name: &'static str,
    pub(crate) machine: Enrollment<'static, &'static P256Verifier>,
    pub(crate) config: Config<'static>,
    verifier: &'static P256Verifier,
    pub(crate) flash: [Cell; 2],
    keys_made: u64,
    number: u64,
    pub(crate) boots: u64,
    pub(crate) cut_at_next_store: Option<Cut>,
    pub(crate) events: Vec<(u64, Event)>,
    pub(crate) local: Vec<Answer>,
    piece: usize,
    pub(crate) inbox: &'static mut [u8],
}

/// What the shell has to tell the machine after draining.
pub(crate) enum Answer {
    Key(u64),
    Signature(Vec<u8>),
    Stored,
    Reboot,
}

/// What the machine wants of the network.
pub(crate) enum Wish {
    Close,
    Connect(muster_proto::enrollment::Connect),
    Send(Vec<u8>),
    Wait(Instant),
}

pub(crate) fn leak(size: usize) -> &'static mut [u8] {
    Box::leak(vec![0; size].into_boxed_slice())
}

pub(crate) fn memory() -> Memory<'static> {
    Memory {
        authorities: leak(Memory::AUTHORITIES_BYTES),
        request: leak(Memory::REQUEST_BYTES),
        current: leak(Memory::CHAIN_BYTES),
        candidate: leak(Memory::CHAIN_BYTES),
    }
}

pub(crate) fn config(number: u64, trust: Trust<'static>) -> (Config<'static>, &'static str) {
    let name: &'static str = Box::leak(format!("dev-{number}").into_boxed_str());
    let token: &'static str = Box::leak(format!("token-{number}").into_boxed_str());
    let config = Config {
        server: Server::new(NAME, 443, None).expect("an address"),
        identity: Identity::new(name, None).expect("an id"),
        credential: Some(Credential::basic(name, token).expect("a token")),
        trust,
        wishes: AskWishes::Ask,
        binding: Binding::Never,
        presents: Presents::Chain,
        pace: Pace { spread: std::time::Duration::ZERO, ..Pace::default() },
        built_at: UnixTime::from_secs(START - 30 * 86_400),
        seed: number.wrapping_mul(0x9E37_79B9),
    };
    (config, name)
}

impl Device {
    pub(crate) fn new(
        number: u64,
        config: Config<'static>,
        name: &'static str,
        verifier: &'static P256Verifier,
        now: Instant,
    ) -> Self {
        Self {
            name,
            machine: Enrollment::new(config, memory(), &Restored::default(), verifier, now),
            config,
            verifier,
            flash: Default::default(),
            keys_made: 0,
            number,
            boots: 0,
            cut_at_next_store: None,
            events: Vec::new(),
            local: Vec::new(),
            piece: 400,
            inbox: leak(Memory::INBOX_BYTES),
        }
    }

    /// Loses everything but the flash.
    pub(crate) fn reboot(&mut self, now: Instant) {
        self.boots += 1;
        self.local.clear();
        let mut restored = Restored::default();
        for (slot, place) in [Slot::A, Slot::B].into_iter().zip(&mut restored.records) {
            *place = self.flash[index(slot)].record.as_ref().map(|stored| match stored {
                Stored::Pair { generation, chain, anchor, window, saved_at } => Record::Pair(Pair {
                    slot,
                    generation: *generation,
                    chain: Bundle::new(chain),
                    anchor,
                    window: *window,
                    saved_at: *saved_at,
                }),
                Stored::Request { csr, saved_at } => {
                    Record::Request(StoredRequest { slot, csr, saved_at: *saved_at })
                }
            });
        }
        self.machine = Enrollment::new(self.config, memory(), &restored, self.verifier, now);
    }

    pub(crate) fn handle(&mut self, input: Input<'_>, now: Instant) {
        match input {
            Input::TimerFired | Input::Wall(_) | Input::Accepted(_) | Input::Refused(_) => {}
            // Between two answers, and after a connection, the inbox serves for something else.
            _ => self.inbox.fill(0xa5),
        }
        self.machine.handle(input, now).expect("the shell keeps to the contract");
    }

    pub(crate) fn receive(&mut self, bytes: &[u8], now: Instant) {
        self.machine.receive(bytes, self.inbox, now).expect("the shell keeps to the contract");
    }

    /// Takes outputs until there are none, does the local ones, and returns those for the network.
    pub(crate) fn drain(&mut self, now: Instant) -> Vec<Wish> {
        let mut wishes = Vec::new();
        let mut buffer = vec![0; self.piece];
        for _ in 0..1000 {
            match self.machine.poll(&mut buffer).expect("the buffer is not empty") {
                Output::Close => wishes.push(Wish::Close),
                Output::Connect(connect) => wishes.push(Wish::Connect(connect)),
                Output::Event(event) => self.events.push((now.as_millis(), event)),
                Output::Send(bytes) => wishes.push(Wish::Send(bytes.to_vec())),
                Output::MakeKey(slot) => {
                    self.keys_made += 1;
                    let seed = self.number * 1_000_000 + 1000 + self.keys_made;
                    self.flash[index(slot)] = Cell { key: Some(seed), record: None };
                    self.local.push(Answer::Key(seed));
                }
                Output::Sign { slot, message } => {
                    let seed = self.flash[index(slot)].key.expect("signs with a key that was made");
                    self.local.push(Answer::Signature(TestKey::from_seed(seed).sign(message)));
                }
                Output::Store(record) => {
                    let (slot, stored) = owned(&record);
                    let cut = self.cut_at_next_store.take();
                    if cut != Some(Cut::Before) {
                        self.flash[index(slot)].record = Some(stored);
                    }
                    self.local.push(if cut.is_some() { Answer::Reboot } else { Answer::Stored });
                }
                Output::Retire(slot) => {
                    assert_ne!(self.machine.current(), Some(slot), "the identity in use was retired");
                    self.flash[index(slot)] = Cell::default();
                }
                Output::WaitUntil(at) => {
                    wishes.push(Wish::Wait(at));
                    return wishes;
                }
            }
        }
        panic!("{}: the machine never comes to rest: {:?}", self.name, self.events);
    }

    pub(crate) fn state(&self) -> State {
        self.machine.state()
    }

    /// The leaf of the identity in use.
    pub(crate) fn leaf(&self) -> Option<Vec<u8>> {
        let chain = self.machine.chain(self.machine.current()?)?;
        chain.iter().next().map(<[u8]>::to_vec)
    }

    /// What must hold whenever the machine rests: the identity in use is in the flash, whole, with its key.
    pub(crate) fn check(&self) {
        let Some(slot) = self.machine.current() else { return };
        let cell = &self.flash[index(slot)];
        let Some(Stored::Pair { chain, .. }) = &cell.record else {
            panic!("the identity in use is not stored")
        };
        let most = if self.config.presents == Presents::Leaf { 1 } else { usize::MAX };
        let kept = self.machine.chain(slot).expect("it is in use");
        assert!(kept.iter().eq(Bundle::new(chain).iter().take(most)));
        let leaf =
            Certificate::parse(Bundle::new(chain).iter().next().expect("a leaf")).expect("a certificate");
        assert_eq!(leaf.key.bits, TestKey::from_seed(cell.key.expect("a key")).point);
        assert_eq!(leaf.common_name(), Some(self.name));
    }
}

pub(crate) fn point(seed: u64) -> P256Point {
    P256Point::new(&TestKey::from_seed(seed).point).expect("an uncompressed point")
}

fn owned(record: &Record<'_>) -> (Slot, Stored) {
    match record {
        Record::Pair(pair) => (
            pair.slot,
            Stored::Pair {
                generation: pair.generation,
                chain: pair.chain.as_bytes().to_vec(),
                anchor: pair.anchor.to_vec(),
                window: pair.window,
                saved_at: pair.saved_at,
            },
        ),
        Record::Request(request) => {
            (request.slot, Stored::Request { csr: request.csr.to_vec(), saved_at: request.saved_at })
        }
    }
}

pub(crate) const fn index(slot: Slot) -> usize {
    match slot {
        Slot::A => 0,
        Slot::B => 1,
    }
}
