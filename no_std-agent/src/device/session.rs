//! One connection with the EST server, from the machine's wish to its end.

use core::time::Duration;

use embedded_io::{Read, Write};
use embedded_storage::nor_flash::NorFlash;
use muster_proto::Enrollment;
use muster_proto::enrollment::{
    Connect, Ending, Event, Input, Misuse, Output, Present, ServerTrust, Session,
};
use muster_proto::time::Instant;

use super::Device;
use super::line::Line;
use super::local::Local;
use crate::clock::Clock;
use crate::entropy::Entropy;
use crate::key::KeyStore;
use crate::net::Net;
use crate::software::P256Verifier;
use crate::tls::{self, AnyServer, ClientIdentity, ConnectError, Connection, Failure, Peer, ServerCheck};

/// What is next when nothing is left to do without a connection.
#[derive(Clone, Copy)]
pub(super) enum Next {
    /// Connect, within the time until this.
    Connect(Connect, Instant),
    /// Nothing before this.
    Rest(Instant),
}

/// Bytes that go between the machine and TLS at once.
const PIECE_BYTES: usize = 256;

/// For a server that does not take what is sent to it; as long as the machine waits for an answer.
const SEND_TIMEOUT: Duration = Duration::from_secs(60);

impl<N, F, K, E, C, const ANSWER: usize, const ITEM: usize> Device<'_, N, F, K, E, C, ANSWER, ITEM>
where
    N: Net,
    F: NorFlash,
    K: KeyStore,
    E: Entropy,
    C: Clock,
{
    /// Does what needs no connection.
    // Apart: its memory is off the stack before a connection is made.
    #[inline(never)]
    pub(super) fn settle(&mut self, observe: &mut impl FnMut(Event)) -> Result<Next, Misuse> {
        let mut wanted = None;
        let mut piece = [0; PIECE_BYTES];
        let mut scratch = [0; ITEM];
        loop {
            let Ok(output) = self.machine.poll(&mut piece) else { return Err(Misuse::Unasked) };
            match output {
                // The connection is gone already.
                Output::Close | Output::Send(_) => {}
                Output::Connect(connect) => wanted = Some(connect),
                Output::Event(event) => observe(event),
                Output::WaitUntil(until) => {
                    return Ok(wanted.map_or(Next::Rest(until), |connect| Next::Connect(connect, until)));
                }
                Output::MakeKey(_) | Output::Retire(_) | Output::Sign { .. } | Output::Store(_) => {
                    let mut local = Local {
                        store: &mut self.store,
                        keys: &mut self.keys,
                        entropy: &mut self.entropy,
                        slots: &mut self.slots,
                    };
                    if let Some(input) = local.answer(&output, &mut scratch).input() {
                        self.machine.handle(input, self.clock.now())?;
                    }
                }
            }
        }
    }

    /// Makes the connection that the machine wants and serves it until it is gone. Then [`settle`](Self::settle).
    // Apart: the connection is off the stack when there is none.
    #[inline(never)]
    pub(super) fn session(
        &mut self,
        wanted: Connect,
        until: Instant,
        observe: &mut impl FnMut(Event),
    ) -> Result<(), Misuse> {
        let (machine, clock) = (&mut self.machine, &self.clock);
        let leaf_and_reference = match wanted.present {
            Present::Nothing => None,
            Present::Manufacturer => self.manufacturer.map(|made| (made.leaf, made.key)),
            Present::Slot(slot) => {
                let leaf = machine.chain(slot).and_then(|chain| chain.iter().next());
                leaf.zip(self.slots.key(slot).map(|key| &key.reference))
            }
        };
        let mut place = None;
        let opened = if leaf_and_reference.is_none() && wanted.present != Present::Nothing {
            Err(ConnectError::Key)
        } else {
            let keys = &mut self.keys;
            let client = leaf_and_reference.map(|(leaf, reference)| ClientIdentity { leaf, keys, reference });
            let anyone = AnyServer(machine.verifier());
            let check: &dyn ServerCheck = match wanted.trust {
                ServerTrust::Bootstrap => &anyone,
                ServerTrust::Verified => &*machine,
            };
            let server = machine.config().server;
            self.deadline.set(until);
            let line = Line { net: &mut self.net, tls: &mut self.tls, deadline: &self.deadline };
            let peer = Peer { name: server.name(), check };
            line.open(peer, server.port(), client, &mut self.entropy, &mut place)
        };
        match opened {
            Ok(()) => {}
            // The machine sees for itself that the time is over.
            Err(ConnectError::Timeout) if clock.now() >= until => {
                return machine.handle(Input::TimerFired, clock.now());
            }
            Err(error) => return machine.handle(Input::Closed(error.ending()), clock.now()),
        }
        let Some(connection) = &mut place else { return Err(Misuse::Unasked) };
        let session = Session { server_valid: connection.server_valid(), binding: None };
        machine.handle(Input::Connected(session), clock.now())?;
        let mut local = Local {
            store: &mut self.store,
            keys: &mut self.keys,
            entropy: &mut self.entropy,
            slots: &mut self.slots,
        };
        let served = serve::<_, _, _, _, ANSWER, ITEM>(machine, connection, clock, &mut local, observe);
        // Also one that the server has ended: it waits for this side's end.
        connection.close(clock.now().plus(tls::CLOSE_TIMEOUT));
        served
    }
}

/// Serves the machine over `connection` until one of them ends it.
// Apart: off the stack while the connection is made. That is why the inbox is here.
#[inline(never)]
fn serve<IO: Read + Write, F: NorFlash, K: KeyStore, E: Entropy, const ANSWER: usize, const ITEM: usize>(
    machine: &mut Enrollment<'_, P256Verifier>,
    connection: &mut Connection<'_, IO>,
    clock: &impl Clock,
    local: &mut Local<'_, F, K, E>,
    observe: &mut impl FnMut(Event),
) -> Result<(), Misuse> {
    const { assert!(ITEM <= ANSWER, "an item has the memory of an answer") };
    let mut piece = [0; PIECE_BYTES];
    let mut inbox = [0; ANSWER];
    loop {
        let Ok(output) = machine.poll(&mut piece) else { return Err(Misuse::Unasked) };
        let ended = match output {
            Output::Close => return Ok(()),
            // Never without `Close` before it.
            Output::Connect(_) => return Err(Misuse::Unasked),
            Output::Event(event) => {
                observe(event);
                None
            }
            Output::Send(bytes) => {
                connection.set_deadline(clock.now().plus(SEND_TIMEOUT));
                connection.write_all(bytes).err().map(ending)
            }
            Output::WaitUntil(until) => {
                connection.set_deadline(until);
                match exchange(connection, &mut piece) {
                    Ok(0) => Some(Ending::Closed),
                    Ok(len) => {
                        let received = piece.get(..len).unwrap_or_default();
                        machine.receive(received, &mut inbox, clock.now())?;
                        None
                    }
                    Err(failure) => {
                        if clock.now() >= until {
                            machine.handle(Input::TimerFired, clock.now())?;
                        }
                        Some(ending(failure))
                    }
                }
            }
            Output::MakeKey(_) | Output::Retire(_) | Output::Sign { .. } | Output::Store(_) => {
                // Not in the middle of an answer.
                let scratch = inbox.get_mut(..ITEM).unwrap_or_default();
                if let Some(input) = local.answer(&output, scratch).input() {
                    machine.handle(input, clock.now())?;
                }
                None
            }
        };
        if let Some(ending) = ended {
            return machine.handle(Input::Closed(ending), clock.now());
        }
    }
}

/// Sends what is written and waits for what comes back.
fn exchange<IO: Read + Write>(
    connection: &mut Connection<'_, IO>,
    received: &mut [u8],
) -> Result<usize, Failure> {
    connection.flush()?;
    connection.read(received)
}

/// An answer that does not come is a connection that is of no use.
const fn ending(failure: Failure) -> Ending {
    match failure {
        Failure::Ended(ending) => ending,
        Failure::TimedOut => Ending::Reset,
    }
}
