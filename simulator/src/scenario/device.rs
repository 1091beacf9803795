//! A device in virtual time: the core, a flash that survives reboots, and a use for its certificate.

use std::rc::Rc;
use std::time::Duration;

use muster_proto::enrollment::{
    AskWishes, Binding, Config, Connect, Ending, Enrollment, Event, Failure, Identity, Input, Memory, Output,
    Pace, Pair, Present, Presents, Record, Restored, ServerTrust, Session, Slot, StoredRequest, Trust,
    Window,
};
use muster_proto::est::{Credential, Server};
use muster_proto::time::{Instant, UnixTime};
use muster_proto::x509::Bundle;

use super::crypto::{ModelKey, ModelVerifier};
use super::server::{Answer, SERVER_NAME, START_S, token_of};
use super::world::{Post, World};
use crate::chance::Chance;
use crate::link::{BROKEN_AFTER, SYN_BYTES, transit};
use crate::reason::Reason;

/// What survives a reboot, by slot.
#[derive(Clone, Default)]
struct Flash([Cell; 2]);

#[derive(Clone, Default)]
struct Cell {
    key: Option<ModelKey>,
    record: Option<Stored>,
}

#[derive(Clone)]
enum Stored {
    Pair { generation: u32, chain: Vec<u8>, window: Window, saved_at: UnixTime },
    Request { csr: Vec<u8>, saved_at: UnixTime },
}

/// What is on its way.
enum OnWay {
    Connected(Connect),
    Refused(Ending),
    ToServer(Vec<u8>),
    FromServer(Vec<u8>),
}

/// What the core waits for from its own board.
enum Local {
    Key(Slot),
    Signature(Slot, Vec<u8>),
    Stored,
}

/// Everything of a device but the core.
struct Body {
    world: Rc<World>,
    number: u32,
    id: String,
    flash: Flash,
    /// One HTTP answer.
    inbox: Vec<u8>,
    keys_made: u64,
    skew_s: i64,
    chance: Chance,
    on_way: Option<(u64, OnWay)>,
    outgoing: Vec<u8>,
    local: Option<Local>,
    wait_until_ms: u64,
    client: Option<Vec<u8>>,
    connected_at_ms: u64,
    next_use_ms: u64,
    began_ms: Option<u64>,
    /// The identity in use, as far as the device was told.
    in_use_until_s: Option<u64>,
    revoked: bool,
    counted_holding: bool,
}

type Core<'a> = Enrollment<'a, ModelVerifier>;

/// A device's life, reboots and all.
pub(super) async fn live(world: Rc<World>, number: u32) {
    let id = format!("dev-{number:07}");
    let token = token_of(&id);
    let root = world.server.borrow().root.clone();
    let anchors = [root.as_slice()];
    let (Ok(server), Ok(identity), Ok(credential)) =
        (Server::new(SERVER_NAME, 443, None), Identity::new(&id, None), Credential::basic(&id, &token))
    else {
        return;
    };
    let mut body = Body::new(world, number, id.clone());
    let mut buffers: [Vec<u8>; 4] = [
        vec![0; Memory::AUTHORITIES_BYTES],
        vec![0; Memory::REQUEST_BYTES],
        vec![0; Memory::CHAIN_BYTES],
        vec![0; Memory::CHAIN_BYTES],
    ];
    for boot in 0_u64.. {
        let config = Config {
            server,
            identity,
            credential: Some(credential),
            trust: Trust::Certificates(&anchors),
            wishes: AskWishes::Ask,
            binding: Binding::Never,
            presents: Presents::Chain,
            pace: Pace::default(),
            built_at: UnixTime::from_secs(START_S - 86_400),
            seed: body.chance.number() ^ boot,
        };
        let [authorities, request, current, candidate] = &mut buffers;
        let memory = Memory { authorities, request, current, candidate };
        let flash = body.flash.clone();
        let mut core = Enrollment::new(config, memory, &flash.restored(), ModelVerifier, body.now());
        body.boot(&mut core);
        body.run(&mut core).await;
    }
}

impl Body {
    fn new(world: Rc<World>, number: u32, id: String) -> Self {
        let mut chance = Chance::new(world.scenario.seed, DEVICE_STREAMS + u64::from(number));
        let first_use = (world.scenario.use_every.as_secs_f64() * chance.unit() * 1e3) as u64;
        Self {
            world,
            number,
            id,
            flash: Flash::default(),
            inbox: vec![0; Memory::INBOX_BYTES],
            keys_made: 0,
            skew_s: 0,
            chance,
            on_way: None,
            outgoing: Vec::new(),
            local: None,
            wait_until_ms: 0,
            client: None,
            connected_at_ms: 0,
            next_use_ms: first_use,
            began_ms: None,
            in_use_until_s: None,
            revoked: false,
            counted_holding: false,
        }
    }

    fn boot(&mut self, core: &mut Core<'_>) {
        self.on_way = None;
        self.local = None;
        self.client = None;
        self.outgoing.clear();
        self.began_ms = None;
        let until = self.in_use_until_s.filter(|until| *until > self.wall_s());
        if until.is_some() && core.current().is_none() {
            let lost = &self.world.notes.lost_identities;
            lost.set(lost.get() + 1);
            self.in_use_until_s = None;
        }
        self.tell_wall(core);
    }

    /// Until the next reboot.
    async fn run(&mut self, core: &mut Core<'_>) {
        loop {
            self.drain(core);
            self.count_holding(core);
            if let Some(local) = self.local.take() {
                self.answer(core, local);
                continue;
            }
            let on_way_ms = self.on_way.as_ref().map_or(u64::MAX, |(at, _)| *at);
            let until = on_way_ms.min(self.wait_until_ms).min(self.next_use_ms);
            let world = Rc::clone(&self.world);
            world.wait(self.number, until).await;
            let now = world.now_ms();
            match world.take_post(self.number) {
                Some(Post::Reboot) => return,
                Some(Post::RenewNow) => core.renew_now(self.now()),
                Some(Post::Revoked) => self.revoke(core),
                Some(Post::Skew(seconds)) => {
                    self.skew_s = seconds;
                    self.tell_wall(core);
                }
                None if now >= on_way_ms => self.arrive(core),
                None if now >= self.next_use_ms => self.use_identity(core),
                None => handle(core, Input::TimerFired, self.now()),
            }
        }
    }

    fn drain(&mut self, core: &mut Core<'_>) {
        let mut buffer = [0; SEND_BYTES];
        loop {
            let Ok(output) = core.poll(&mut buffer) else { return };
            match output {
                Output::Close => {
                    self.on_way = None;
                    self.client = None;
                    self.outgoing.clear();
                }
                Output::Connect(connect) => self.connect(connect),
                Output::Event(event) => self.tell(&event),
                Output::MakeKey(slot) => {
                    if self.world.scenario.defect.swap_early {
                        *self.flash.cell(slot.other()) = Cell::default();
                    }
                    self.local = Some(Local::Key(slot));
                }
                Output::Retire(slot) => *self.flash.cell(slot) = Cell::default(),
                Output::Send(bytes) => self.outgoing.extend_from_slice(bytes),
                Output::Sign { slot, message } => self.local = Some(Local::Signature(slot, message.to_vec())),
                Output::Store(record) => {
                    let stored = Stored::of(&record);
                    self.flash.cell(record.slot()).record = Some(stored);
                    self.local = Some(Local::Stored);
                }
                Output::WaitUntil(at) => {
                    self.wait_until_ms = at.as_millis();
                    break;
                }
            }
        }
        if !self.outgoing.is_empty() {
            let request = std::mem::take(&mut self.outgoing);
            self.send(request.len(), OnWay::ToServer(request));
        }
        if core.candidate().is_some() {
            self.next_use_ms = self.next_use_ms.min(self.world.now_ms() + TRY_AFTER_MS);
        }
        if let Some(until) = core.current().and_then(|_| core.times().window) {
            self.in_use_until_s = Some(until.expires_at().as_secs());
        }
    }

    fn tell(&mut self, event: &Event) {
        match event {
            Event::Failed(failure, _) => {
                if *failure == Failure::Timeout && self.was_whole() {
                    let unanswered = &self.world.notes.unanswered;
                    unanswered.set(unanswered.get() + 1);
                }
                self.world.failed("try", Reason::of_failure(failure).label());
            }
            Event::Issued(..) => {
                let began = self.began_ms.take().unwrap_or_else(|| self.world.now_ms());
                let series = if self.in_use_until_s.is_some() { "renew" } else { "enroll" };
                self.world.done(series, self.world.now_ms() - began);
            }
            Event::Postponed(_) => self.world.failed("try", Reason::Postponed.label()),
            _ => {}
        }
    }

    /// Whether nothing but the server can be why an answer did not come.
    fn was_whole(&self) -> bool {
        let server = self.world.server.borrow();
        let link = self.world.link(self.number);
        server.is_up(self.connected_at_ms)
            && server.is_up(self.world.now_ms())
            && link.loss <= 0.0
            && link.bytes_per_s.is_none()
    }

    fn connect(&mut self, connect: Connect) {
        self.began_ms.get_or_insert_with(|| self.world.now_ms());
        self.connected_at_ms = self.world.now_ms();
        if !self.world.server.borrow().is_up(self.world.now_ms()) {
            return self.send(SYN_BYTES, OnWay::Refused(Ending::Unreachable));
        }
        self.client = match connect.present {
            Present::Slot(slot) => self.flash.leaf(slot),
            Present::Manufacturer | Present::Nothing => None,
        };
        let refused = self
            .client
            .as_ref()
            .is_some_and(|leaf| !self.world.server.borrow_mut().lets_renew(leaf, self.wall_s()));
        let on_way =
            if refused { OnWay::Refused(Ending::CertificateRefused) } else { OnWay::Connected(connect) };
        // TCP and TLS: two round trips, the second with certificates.
        self.send(SYN_BYTES, on_way);
        let more =
            transit(&self.world.link(self.number), HANDSHAKE_BYTES, &mut self.chance).unwrap_or_default();
        if let Some((at, _)) = &mut self.on_way {
            *at += millis(more) * 2;
        }
    }

    fn send(&mut self, bytes: usize, what: OnWay) {
        let link = self.world.link(self.number);
        let now = self.world.now_ms();
        self.on_way = Some(match transit(&link, bytes, &mut self.chance) {
            Some(time) => (now + millis(time), what),
            None => (now + millis(BROKEN_AFTER), OnWay::Refused(Ending::Reset)),
        });
    }

    fn arrive(&mut self, core: &mut Core<'_>) {
        let Some((_, what)) = self.on_way.take() else { return };
        let now = self.now();
        match what {
            OnWay::Refused(ending) => handle(core, Input::Closed(ending), now),
            OnWay::FromServer(bytes) => {
                let taken = core.receive(&bytes, &mut self.inbox, now);
                debug_assert!(taken.is_ok(), "the core was called out of turn: {taken:?}");
            }
            OnWay::Connected(connect) => {
                let leaf = self.world.server.borrow().leaf.clone();
                let checked = core.check_server(&leaf, std::iter::empty());
                match (connect.trust, checked) {
                    (ServerTrust::Bootstrap, _) => handle(core, Input::Connected(Session::default()), now),
                    (ServerTrust::Verified, Ok(valid)) => {
                        let session = Session { server_valid: Some(valid), binding: None };
                        handle(core, Input::Connected(session), now);
                    }
                    (ServerTrust::Verified, Err(refused)) => {
                        handle(core, Input::Closed(Ending::of_refused(refused)), now)
                    }
                }
            }
            OnWay::ToServer(request) => {
                let now_ms = self.world.now_ms();
                if !self.world.server.borrow().is_up(now_ms) {
                    return handle(core, Input::Closed(Ending::Reset), now);
                }
                let answer = self.world.server.borrow_mut().answer(&request, self.client.as_deref(), now_ms);
                if let Answer::Bytes(bytes) = answer {
                    self.send(bytes.len(), OnWay::FromServer(bytes));
                    let service = millis(self.world.scenario.service_time);
                    if let Some((at, _)) = &mut self.on_way {
                        *at += service;
                    }
                }
            }
        }
    }

    fn answer(&mut self, core: &mut Core<'_>, local: Local) {
        let now = self.now();
        match local {
            Local::Key(slot) => {
                self.keys_made += 1;
                let key =
                    ModelKey::new(self.world.scenario.seed, u64::from(self.number) << 24 | self.keys_made);
                *self.flash.cell(slot) = Cell { key: Some(key), record: None };
                match key.point() {
                    Some(point) => handle(core, Input::KeyReady(point), now),
                    None => handle(core, Input::LocalFailure, now),
                }
            }
            Local::Signature(slot, message) => match self.flash.cell(slot).key {
                Some(key) => handle(core, Input::Signed(&key.signature(&message)), now),
                None => handle(core, Input::LocalFailure, now),
            },
            Local::Stored => handle(core, Input::Stored, now),
        }
    }

    /// Uses the certificate at the edge, the new one first where there is one to try.
    fn use_identity(&mut self, core: &mut Core<'_>) {
        let spread = self.world.scenario.use_every.as_secs_f64() * (0.9 + 0.2 * self.chance.unit());
        self.next_use_ms = self.world.now_ms() + (spread * 1e3) as u64;
        let tried = core.candidate().or_else(|| core.current());
        let Some(slot) = tried else {
            return self.world.failed("edge", "no_certificate".to_owned());
        };
        let Some(leaf) = core.chain(slot).and_then(|chain| chain.iter().next()).map(<[u8]>::to_vec) else {
            return;
        };
        let link = self.world.link(self.number);
        let Some(time) = transit(&link, HANDSHAKE_BYTES, &mut self.chance) else {
            return self.world.failed("edge", Reason::Reset.label());
        };
        let now = self.now();
        if self.world.server.borrow_mut().lets_in(&leaf, self.wall_s()) {
            self.world.done("edge", millis(time) * 4);
            handle(core, Input::Accepted(slot), now);
        } else {
            let why = if self.revoked { "revoked" } else { "not_valid" };
            self.world.failed("edge", why.to_owned());
            handle(core, Input::Refused(slot), now);
        }
    }

    fn revoke(&mut self, core: &Core<'_>) {
        if !self.revoked {
            self.revoked = true;
            let revoked = &self.world.notes.revoked;
            revoked.set(revoked.get() + 1);
        }
        let mut server = self.world.server.borrow_mut();
        server.suspend(&self.id);
        for slot in [core.current(), core.candidate()].into_iter().flatten() {
            if let Some(leaf) = core.chain(slot).and_then(|chain| chain.iter().next()) {
                server.revoke(leaf);
            }
        }
    }

    /// Keeps the count of devices that hold a certificate they may use.
    fn count_holding(&mut self, core: &Core<'_>) {
        let until =
            core.current().and_then(|_| core.times().window).map(|window| window.expires_at().as_secs());
        let end_s = START_S + self.world.scenario.span.as_secs();
        // A certificate that outlives the run holds at its end; one that does not has to be renewed first.
        let holds = !self.revoked && until.is_some_and(|until| until >= end_s.min(self.wall_s()));
        if holds != self.counted_holding {
            self.counted_holding = holds;
            let count = &self.world.notes.holding;
            count.set(if holds { count.get() + 1 } else { count.get().saturating_sub(1) });
        }
    }

    fn tell_wall(&self, core: &mut Core<'_>) {
        let wall = self.wall_s().saturating_add_signed(self.skew_s);
        handle(core, Input::Wall(UnixTime::from_secs(wall)), self.now());
    }

    fn now(&self) -> Instant {
        Instant::from_millis(self.world.now_ms())
    }

    fn wall_s(&self) -> u64 {
        START_S + self.world.now_ms() / 1000
    }
}

fn handle(core: &mut Core<'_>, input: Input<'_>, now: Instant) {
    let handled = core.handle(input, now);
    debug_assert!(handled.is_ok(), "the core was called out of turn: {handled:?}");
}

impl Flash {
    fn cell(&mut self, slot: Slot) -> &mut Cell {
        let Self([a, b]) = self;
        match slot {
            Slot::A => a,
            Slot::B => b,
        }
    }

    fn leaf(&mut self, slot: Slot) -> Option<Vec<u8>> {
        match &self.cell(slot).record {
            Some(Stored::Pair { chain, .. }) => Bundle::new(chain).iter().next().map(<[u8]>::to_vec),
            _ => None,
        }
    }

    fn restored(&self) -> Restored<'_> {
        let mut restored = Restored::default();
        for ((cell, slot), place) in self.0.iter().zip([Slot::A, Slot::B]).zip(&mut restored.records) {
            *place = cell.record.as_ref().map(|stored| match stored {
                Stored::Pair { generation, chain, window, saved_at } => Record::Pair(Pair {
                    slot,
                    generation: *generation,
                    chain: Bundle::new(chain),
                    anchor: &[],
                    window: *window,
                    saved_at: *saved_at,
                }),
                Stored::Request { csr, saved_at } => {
                    Record::Request(StoredRequest { slot, csr, saved_at: *saved_at })
                }
            });
        }
        restored
    }
}

impl Stored {
    fn of(record: &Record<'_>) -> Self {
        match record {
            Record::Pair(pair) => Self::Pair {
                generation: pair.generation,
                chain: pair.chain.as_bytes().to_vec(),
                window: pair.window,
                saved_at: pair.saved_at,
            },
            Record::Request(request) => {
                Self::Request { csr: request.csr.to_vec(), saved_at: request.saved_at }
            }
        }
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// A request with a P-256 CSR in one piece.
const SEND_BYTES: usize = 2 << 10;
/// ClientHello and certificates of both sides.
const HANDSHAKE_BYTES: usize = 2500;
/// A new certificate is tried soon.
const TRY_AFTER_MS: u64 = 1000;
/// The first of the seed's sequences that devices use, one each.
const DEVICE_STREAMS: u64 = 1 << 32;
