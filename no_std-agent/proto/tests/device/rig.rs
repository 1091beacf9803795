//! Devices and a server joined by a link in virtual time. Nothing here waits: time is the next event's.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use muster_proto::enrollment::{Config, Connect, Ending, Input, Present, ServerTrust, Session, State, Trust};
use muster_proto::time::{Instant, UnixTime};

use crate::authority::{P256Verifier, START};
use crate::server::{EstServer, Fault};
use crate::shell::{Answer, Cut, Device, Wish, config, point};

/// One thing that happens to device 0 or to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    /// Time passes, in seconds.
    Advance(u32),
    /// The power goes at the next write, before or after it took hold.
    CutAtStore(Cut),
    /// The server's next enrolment answer.
    Fault(Fault),
    /// One way of the link takes this long, in milliseconds.
    Latency(u16),
    /// The next answer never arrives; the connection hangs.
    LoseAnswer,
    /// Answers arrive in pieces of this many bytes.
    Pieces(u8),
    /// The device reboots.
    Reboot,
    /// The edge refuses the next new identity.
    RefuseCandidate,
    /// The connection breaks in the middle of the next answer.
    ResetInAnswer,
    /// Nobody listens any more.
    ServerDown,
    /// The server is back.
    ServerUp,
    /// The shell's wall clock is set to the true time plus this, in seconds.
    Wall(i32),
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Happening {
    Connected,
    Closed,
    FromServer(Vec<u8>),
    ToServer(Vec<u8>),
    Try,
}

/// When, in which order, for which device and which connection.
type Entry = Reverse<(u64, u64, usize, u64, Happening)>;

struct Connection {
    id: u64,
    connect: Connect,
    client: Option<Vec<u8>>,
    received: Vec<u8>,
}

pub(crate) struct Rig {
    pub(crate) now: u64,
    pub(crate) server: EstServer,
    pub(crate) devices: Vec<Device>,
    verifier: &'static P256Verifier,
    queue: BinaryHeap<Entry>,
    sequence: u64,
    timers: BinaryHeap<Reverse<(u64, usize)>>,
    wake_at: Vec<u64>,
    connections: HashMap<usize, Connection>,
    connection_ids: u64,
    pub(crate) up: bool,
    latency: u64,
    piece: usize,
    lose_answer: bool,
    reset_in_answer: bool,
    refuse_candidate: bool,
    /// The edge refuses every new identity.
    pub(crate) refuse_candidates: bool,
    /// When a device tried to connect, in milliseconds.
    pub(crate) arrivals: Vec<u64>,
}

impl Rig {
    pub(crate) fn new() -> Self {
        Self {
            now: 0,
            server: EstServer::new(),
            devices: Vec::new(),
            verifier: Box::leak(Box::default()),
            queue: BinaryHeap::new(),
            sequence: 0,
            timers: BinaryHeap::new(),
            wake_at: Vec::new(),
            connections: HashMap::new(),
            connection_ids: 0,
            up: true,
            latency: 20,
            piece: 700,
            lose_answer: false,
            reset_in_answer: false,
            refuse_candidate: false,
            refuse_candidates: false,
            arrivals: Vec::new(),
        }
    }

    /// A rig with one device that pins the CA certificate.
    pub(crate) fn with_one_device() -> Self {
        let mut rig = Self::new();
        rig.add_device(|_| {});
        rig
    }

    pub(crate) fn pinned_root(&self) -> Trust<'static> {
        let root: &'static [u8] = Box::leak(self.server.root.der.clone().into_boxed_slice());
        Trust::Certificates(Box::leak(Box::new([root])))
    }

    pub(crate) fn add_device(&mut self, change: impl FnOnce(&mut Config<'static>)) -> usize {
        let number = self.devices.len();
        let trust = match self.devices.first() {
            Some(device) => device.config.trust,
            None => self.pinned_root(),
        };
        let (mut config, name) = config(number.try_into().expect("few"), trust);
        change(&mut config);
        self.server.add_token(name, &format!("token-{number}"));
        let seed = number.try_into().expect("few");
        self.devices.push(Device::new(seed, config, name, self.verifier, Instant::from_millis(self.now)));
        self.wake_at.push(u64::MAX);
        self.settle(number);
        number
    }

    pub(crate) fn device(&self) -> &Device {
        &self.devices[0]
    }

    pub(crate) fn wall(&self) -> u64 {
        START + self.now / 1000
    }

    pub(crate) fn apply(&mut self, op: Op) {
        match op {
            Op::Advance(seconds) => self.advance(u64::from(seconds) * 1000),
            Op::CutAtStore(cut) => self.devices[0].cut_at_next_store = Some(cut),
            Op::Fault(fault) => self.server.faults.push(fault),
            Op::Latency(millis) => self.latency = millis.into(),
            Op::LoseAnswer => self.lose_answer = true,
            Op::Pieces(size) => self.piece = usize::from(size).max(1),
            Op::Reboot => self.reboot(0),
            Op::RefuseCandidate => self.refuse_candidate = true,
            Op::ResetInAnswer => self.reset_in_answer = true,
            Op::ServerDown => self.up = false,
            Op::ServerUp => self.up = true,
            Op::Wall(offset) => {
                let wall = self.wall().saturating_add_signed(offset.into());
                self.input(0, Input::Wall(UnixTime::from_secs(wall)));
            }
        }
    }

    pub(crate) fn run(&mut self, ops: &[Op]) {
        ops.iter().for_each(|op| self.apply(*op));
    }

    /// Ends all trouble and lets time pass: what a device must come out of, whatever happened before.
    pub(crate) fn recover(&mut self) {
        self.up = true;
        self.lose_answer = false;
        self.reset_in_answer = false;
        self.refuse_candidate = false;
        self.server.faults.clear();
        self.devices.iter_mut().for_each(|device| device.cut_at_next_store = None);
        self.latency = 20;
        self.advance(2 * 3600 * 1000);
        for device in &self.devices {
            device.check();
            let state = device.state();
            assert!(matches!(state, State::Holding | State::Renewing), "{state:?} {:?}", device.events);
            let window = device.machine.times().window.expect("it holds a certificate");
            assert!(window.expires_at().as_secs() >= self.wall(), "{:?}", device.events);
        }
    }

    pub(crate) fn reboot(&mut self, device: usize) {
        self.connections.remove(&device);
        self.devices[device].reboot(Instant::from_millis(self.now));
        self.settle(device);
    }

    pub(crate) fn input(&mut self, device: usize, input: Input<'_>) {
        self.devices[device].handle(input, Instant::from_millis(self.now));
        self.settle(device);
    }

    /// Runs until `millis` have passed.
    pub(crate) fn advance(&mut self, millis: u64) {
        let end = self.now + millis;
        loop {
            let timer = self.timers.peek().map_or(u64::MAX, |Reverse((at, _))| *at);
            let event = self.queue.peek().map_or(u64::MAX, |Reverse((at, ..))| *at);
            if timer.min(event) > end {
                break;
            }
            if event <= timer {
                let Some(Reverse((at, _, device, connection, happening))) = self.queue.pop() else { break };
                self.now = self.now.max(at);
                self.happen(device, connection, happening);
            } else {
                let Some(Reverse((at, device))) = self.timers.pop() else { break };
                if self.wake_at[device] == at {
                    self.now = self.now.max(at);
                    self.wake_at[device] = u64::MAX;
                    self.input(device, Input::TimerFired);
                }
            }
        }
        self.now = end;
    }

    fn happen(&mut self, device: usize, connection: u64, happening: Happening) {
        if happening == Happening::Try {
            return self.try_candidate(device);
        }
        if self.connections.get(&device).is_none_or(|open| open.id != connection) {
            return;
        }
        match happening {
            Happening::Try => {}
            Happening::Connected => self.finish_connecting(device),
            Happening::Closed => {
                self.connections.remove(&device);
                self.input(device, Input::Closed(Ending::Reset));
            }
            Happening::FromServer(bytes) => {
                self.devices[device].receive(&bytes, Instant::from_millis(self.now));
                self.settle(device);
            }
            Happening::ToServer(bytes) => self.serve(device, &bytes),
        }
    }

    fn finish_connecting(&mut self, device: usize) {
        let wall = self.wall();
        let open = &self.connections[&device];
        let machine = &self.devices[device].machine;
        let refused = match &open.client {
            _ if !self.up => Some(Ending::Unreachable),
            Some(leaf) if !self.server.accepts_client(leaf, wall) => Some(Ending::CertificateRefused),
            _ => None,
        };
        let checked = machine.check_server(&self.server.leaf, std::iter::empty());
        let input = match (refused, open.connect.trust, checked) {
            (Some(ending), ..) => Input::Closed(ending),
            (None, ServerTrust::Bootstrap, _) => Input::Connected(Session::default()),
            (None, ServerTrust::Verified, Ok(valid)) => {
                Input::Connected(Session { server_valid: Some(valid), binding: Some([9; 32]) })
            }
            (None, ServerTrust::Verified, Err(refused)) => Input::Closed(Ending::of_refused(refused)),
        };
        if matches!(input, Input::Closed(_)) {
            self.connections.remove(&device);
        }
        self.input(device, input);
    }

    fn serve(&mut self, device: usize, bytes: &[u8]) {
        let wall = self.wall();
        let Some(open) = self.connections.get_mut(&device) else { return };
        open.received.extend_from_slice(bytes);
        let Some(request) = EstServer::take_request(&mut open.received) else { return };
        let id = open.id;
        let bootstrap = open.connect.trust == ServerTrust::Bootstrap;
        assert!(!bootstrap || !request.windows(13).any(|w| w == b"Authorization"), "a secret for anyone");
        let client = open.client.clone();
        if !self.up {
            return self.schedule(self.latency, device, id, Happening::Closed);
        }
        let answer = self.server.answer(&request, client.as_deref(), wall);
        if std::mem::take(&mut self.lose_answer) {
            return;
        }
        let end = if self.reset_in_answer { answer.len() / 2 } else { answer.len() };
        for (number, piece) in answer[..end].chunks(self.piece).enumerate() {
            let delay = self.latency + u64::try_from(number).expect("few");
            self.schedule(delay, device, id, Happening::FromServer(piece.to_vec()));
        }
        if std::mem::take(&mut self.reset_in_answer) {
            self.schedule(self.latency + 5000, device, id, Happening::Closed);
        }
    }

    /// The device uses its new identity on the edge.
    fn try_candidate(&mut self, device: usize) {
        let Some(slot) = self.devices[device].machine.candidate() else { return };
        let refused = std::mem::take(&mut self.refuse_candidate) || self.refuse_candidates;
        self.input(device, if refused { Input::Refused(slot) } else { Input::Accepted(slot) });
    }

    /// Lets a device drain, and gives it its local answers at once.
    fn settle(&mut self, device: usize) {
        let now = Instant::from_millis(self.now);
        loop {
            for wish in self.devices[device].drain(now) {
                self.grant(device, wish);
            }
            if self.devices[device].local.is_empty() {
                break;
            }
            match self.devices[device].local.remove(0) {
                Answer::Key(seed) => self.devices[device].handle(Input::KeyReady(point(seed)), now),
                Answer::Signature(bytes) => self.devices[device].handle(Input::Signed(&bytes), now),
                Answer::Stored => self.devices[device].handle(Input::Stored, now),
                Answer::Reboot => {
                    self.connections.remove(&device);
                    self.devices[device].reboot(now);
                }
            }
        }
        self.devices[device].check();
        if self.devices[device].machine.candidate().is_some() {
            self.schedule(1000, device, 0, Happening::Try);
        }
    }

    fn grant(&mut self, device: usize, wish: Wish) {
        match wish {
            Wish::Close => {
                self.connections.remove(&device);
            }
            Wish::Connect(connect) => {
                self.arrivals.push(self.now);
                self.connection_ids += 1;
                let client = match connect.present {
                    Present::Slot(slot) => {
                        let chain = self.devices[device].machine.chain(slot).expect("presents what it holds");
                        chain.iter().next().map(<[u8]>::to_vec)
                    }
                    _ => None,
                };
                let id = self.connection_ids;
                self.connections.insert(device, Connection { id, connect, client, received: Vec::new() });
                self.schedule(self.latency * 4, device, id, Happening::Connected);
            }
            Wish::Send(bytes) => {
                let id = self.connections[&device].id;
                self.schedule(self.latency, device, id, Happening::ToServer(bytes));
            }
            Wish::Wait(at) => {
                self.wake_at[device] = at.as_millis();
                if at != Instant::NEVER {
                    self.timers.push(Reverse((at.as_millis().max(self.now), device)));
                    self.wake_at[device] = at.as_millis().max(self.now);
                }
            }
        }
    }

    fn schedule(&mut self, delay: u64, device: usize, connection: u64, happening: Happening) {
        self.sequence += 1;
        self.queue.push(Reverse((self.now + delay, self.sequence, device, connection, happening)));
    }
}
