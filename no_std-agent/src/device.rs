//! The loop between the machine and the board.
//!
//! An application calls [`Device::work`] whenever it has nothing better to do, at the latest at the time that the
//! call before returned. It gets its identity from [`Device::connect`], and says with [`Device::accepted`] or
//! [`Device::refused`] how a new one fared. There is one connection at a time, because there is memory for one.
//! Everything that must survive is in flash before the machine goes on, so a reset is safe at every point: after
//! it [`Device::start`] finds the same identities, and the machine takes up where it was.

mod line;
mod local;
mod session;

use core::ops::Range;

use embedded_storage::nor_flash::NorFlash;
use muster_proto::enrollment::{
    Config, Enrollment, Event, Input, Memory, Misuse, Restored, Slot, Times, Trust,
};
use muster_proto::est::Credential;
use muster_proto::time::Instant;
use muster_proto::x509::{Anchors, Bundle, ServerName};
use zeroize::Zeroize;

use self::line::Line;
use self::local::Slots;
use self::session::Next;
use crate::clock::Clock;
use crate::entropy::Entropy;
use crate::key::{KeyReference, KeyStore};
use crate::net::{Deadline, Net};
use crate::software::P256Verifier;
use crate::store::{BadRegion, IdentityStore, StoreError};
use crate::tls::{self, ClientIdentity, ConnectError, Connection, NamedServer, Peer, TlsMemory};

/// What the board has. Each is a trait of this crate, but the flash.
#[derive(Debug)]
pub struct Board<N, F, K, E, C> {
    /// Its network stack.
    pub net: N,
    /// The flash with the identity store.
    pub flash: F,
    /// Where private keys are.
    pub keys: K,
    /// Its source of randomness.
    pub entropy: E,
    /// Its clocks.
    pub clock: C,
}

/// The memory that a device works in, lent for its whole life. More is on the stack, while no handshake needs that.
#[derive(Debug)]
pub struct DeviceMemory<'m> {
    /// The machine's.
    pub machine: Memory<'m>,
    /// One connection's. `receive` also holds an item of the store at start, at least `ITEM` bytes.
    pub tls: TlsMemory<'m>,
}

/// The manufacturer's certificate (IDevID), for a device that proves itself with it the first time.
#[derive(Clone, Copy, Debug)]
pub struct Manufacturer<'m> {
    /// The leaf in DER.
    pub leaf: &'m [u8],
    /// Its key.
    pub key: &'m KeyReference,
}

/// One device. See the [module](self) for its use.
///
/// `ANSWER` is the longest HTTP answer of the EST server in bytes, see [`Memory::INBOX_BYTES`]; `ITEM`, no longer than
/// that, the longest item of the store, see [`ITEM_BYTES`](crate::store::ITEM_BYTES), which the store's pages must be
/// able to hold. The memory for them is on the stack, where the handshake was before.
pub struct Device<'m, N, F, K, E, C, const ANSWER: usize, const ITEM: usize> {
    machine: Enrollment<'m, P256Verifier>,
    manufacturer: Option<Manufacturer<'m>>,
    net: N,
    store: IdentityStore<F>,
    keys: K,
    entropy: E,
    clock: C,
    tls: TlsMemory<'m>,
    /// Of the one connection.
    deadline: Deadline,
    slots: Slots,
}

impl<'m, N, F, K, E, C, const ANSWER: usize, const ITEM: usize> Device<'m, N, F, K, E, C, ANSWER, ITEM>
where
    N: Net,
    F: NorFlash,
    K: KeyStore,
    E: Entropy,
    C: Clock,
{
    /// Starts after a reset, with what the flash holds in `region`.
    ///
    /// # Errors
    /// [`StartError`]. Damaged identities are none: the device starts without them.
    pub fn start(
        board: Board<N, F, K, E, C>,
        region: Range<u32>,
        config: Config<'m>,
        manufacturer: Option<Manufacturer<'m>>,
        memory: DeviceMemory<'m>,
    ) -> Result<Self, StartError<F::Error>> {
        if config.credential.is_some_and(|credential| credential.is_manufacturer()) && manufacturer.is_none()
        {
            return Err(StartError::NoManufacturer);
        }
        let Board { net, flash, mut keys, entropy, clock } = board;
        let DeviceMemory { machine: lent, tls } = memory;
        let mut scratch = [0; ITEM];
        let mut store = IdentityStore::new(flash, region, ITEM).map_err(StartError::Region)?;
        let mut slots = Slots::default();
        let in_a = slots.load(Slot::A, &mut store, &mut keys, &mut scratch).map_err(StartError::Store)?;
        let in_b = slots.load(Slot::B, &mut store, &mut keys, tls.receive).map_err(StartError::Store)?;
        let restored = Restored { records: [in_a, in_b] };
        let machine = Enrollment::new(config, lent, &restored, P256Verifier::new(keys.ec()), clock.now());
        scratch.zeroize();
        tls.receive.zeroize();
        let deadline = Deadline::new();
        let mut device =
            Self { machine, manufacturer, net, store, keys, entropy, clock, tls, deadline, slots };
        device.clock_was_set().map_err(StartError::Misuse)?;
        Ok(device)
    }

    /// Does what is due, with the EST server too, and returns when to call again: earlier is harmless, and right
    /// after each other command it is needed. Each event is shown to `observe`.
    ///
    /// # Errors
    /// [`Misuse`] is a bug here; reset the device, which is safe.
    pub fn work(&mut self, mut observe: impl FnMut(Event)) -> Result<Instant, Misuse> {
        loop {
            self.tell(Input::TimerFired)?;
            match self.settle(&mut observe)? {
                Next::Connect(wanted, until) => self.session(wanted, until, &mut observe)?,
                Next::Rest(until) if self.clock.now() < until => return Ok(until),
                Next::Rest(_) => {}
            }
        }
    }

    /// The identity to use next: a new one that wants to be tried, or else the one in use.
    #[must_use]
    pub fn identity(&self) -> Option<Slot> {
        self.machine.candidate().or_else(|| self.machine.current())
    }

    /// Connects to a server of the application with the identity in `slot`, trusting the same CA as for EST. Gives up
    /// after a minute, or at `until`.
    ///
    /// A server that does not ask for the identity is an error: nothing would be known of it then. The connection is
    /// made in `place`, where it stays: it is large. After an error `place` is empty.
    ///
    /// # Errors
    /// [`ConnectError`]. Only `CertificateRefused` while reading from the connection is a reason for
    /// [`refused`](Self::refused).
    pub fn connect<'d>(
        &'d mut self,
        slot: Slot,
        server: ServerName<'_>,
        port: u16,
        until: Instant,
        place: &mut Option<Connection<'d, N::Connection<'d>>>,
    ) -> Result<(), ConnectError> {
        self.deadline.set(self.clock.now().plus(tls::CONNECT_TIMEOUT).min(until));
        let pinned = self.machine.pinned_authority();
        let pinned_anchor = [pinned.unwrap_or_default()];
        let certificates = match &self.machine.config().trust {
            Trust::Certificates(certificates) => certificates,
            Trust::Fingerprint(_) if pinned.is_some() => &pinned_anchor[..],
            Trust::Fingerprint(_) => &[],
        };
        let check = NamedServer {
            name: server,
            anchors: Anchors { certificates, fingerprint: None },
            intermediates: Bundle::default(),
            moment: self.machine.moment(),
            verifier: self.machine.verifier(),
        };
        let leaf = self.machine.chain(slot).and_then(|chain| chain.iter().next());
        let key = self.slots.key(slot);
        let (Some(leaf), Some(key)) = (leaf, key) else { return Err(ConnectError::Key) };
        let client = ClientIdentity { leaf, keys: &mut self.keys, reference: &key.reference };
        let line = Line { net: &mut self.net, tls: &mut self.tls, deadline: &self.deadline };
        let peer = Peer { name: server, check: &check };
        line.open(peer, port, Some(client), &mut self.entropy, place)?;
        if !place.as_ref().is_some_and(Connection::presented) {
            *place = None;
            return Err(ConnectError::Unasked);
        }
        Ok(())
    }

    /// The identity in `slot` works: a connection with it was answered. Call [`work`](Self::work) next.
    ///
    /// # Errors
    /// [`Misuse::EmptySlot`].
    pub fn accepted(&mut self, slot: Slot) -> Result<(), Misuse> {
        self.tell(Input::Accepted(slot))
    }

    /// The identity in `slot` was refused for itself. Call [`work`](Self::work) next.
    ///
    /// # Errors
    /// [`Misuse::EmptySlot`].
    pub fn refused(&mut self, slot: Slot) -> Result<(), Misuse> {
        self.tell(Input::Refused(slot))
    }

    /// The wall clock was set, or jumped: look at it. Not for each call of [`work`](Self::work), because the
    /// EST server has set the machine's time right meanwhile, and a wrong clock would spoil it again.
    ///
    /// # Errors
    /// [`Misuse`] is a bug here.
    pub fn clock_was_set(&mut self) -> Result<(), Misuse> {
        self.clock.wall().map_or(Ok(()), |wall| self.tell(Input::Wall(wall)))
    }

    /// Renews without waiting for the time to come. Call [`work`](Self::work) next.
    pub fn renew_now(&mut self) {
        self.machine.renew_now(self.clock.now());
    }

    /// Hands in another credential. Call [`work`](Self::work) next.
    pub fn use_credential(&mut self, credential: Credential<'m>) {
        self.machine.use_credential(credential, self.clock.now());
    }

    /// Forgets the credential, which is used up or was refused. Call [`work`](Self::work) next.
    pub fn forget_credential(&mut self) {
        self.machine.forget_credential(self.clock.now());
    }

    /// The machine, to look at: its state, its times, its chains.
    #[must_use]
    pub const fn enrollment(&self) -> &Enrollment<'m, P256Verifier> {
        &self.machine
    }

    /// When things are due.
    #[must_use]
    pub fn times(&self) -> Times {
        self.machine.times()
    }

    fn tell(&mut self, input: Input<'_>) -> Result<(), Misuse> {
        self.machine.handle(input, self.clock.now())
    }
}

/// Why a device does not start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartError<E> {
    /// A bug here.
    Misuse(Misuse),
    /// The configured credential is the manufacturer's certificate, and there is none.
    NoManufacturer,
    /// The region cannot hold the store.
    Region(BadRegion),
    /// The flash failed, or a memory is too short for what it holds.
    Store(StoreError<E>),
}
