//! One connection with the EST server, from the machine's wish to its end.

use core::pin::pin;
use core::time::Duration;

use embassy_futures::select::{Either, select};
use embedded_io_async::{Read, Write};
use embedded_storage_async::nor_flash::NorFlash;
use muster_proto::Enrollment;
use muster_proto::enrollment::{
    Connect, Ending, Event, Input, Misuse, Output, Present, ServerTrust, Session,
};
use muster_proto::time::Instant;

use super::Device;
use super::local::Local;
use crate::clock::Clock;
use crate::entropy::Entropy;
use crate::key::KeyStore;
use crate::net::Net;
use crate::software::P256Verifier;
use crate::tls::{self, AnyServer, ClientIdentity, ConnectError, Connection, Ended, ServerCheck};

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

impl<N, F, K, E, C> Device<'_, N, F, K, E, C>
where
    N: Net,
    F: NorFlash,
    K: KeyStore,
    E: Entropy,
    C: Clock,
{
    /// Does what needs no connection.
    pub(super) async fn settle(&mut self, observe: &mut impl FnMut(Event)) -> Result<Next, Misuse> {
        let mut wanted = None;
        let mut piece = [0; PIECE_BYTES];
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
                        scratch: self.scratch,
                    };
                    let answer = pin!(local.answer(&output)).await;
                    if let Some(input) = answer.input() {
                        self.machine.handle(input, self.clock.now())?;
                    }
                }
            }
        }
    }

    /// Makes the connection that the machine wants and serves it until it is gone. Then [`settle`](Self::settle).
    pub(super) async fn session(
        &mut self,
        wanted: Connect,
        until: Instant,
        observe: &mut impl FnMut(Event),
    ) -> Result<(), Misuse> {
        let (machine, clock) = (&mut self.machine, &self.clock);
        let mut place = None;
        // Pinned here and not moved into `select`: it is large, and each move is a copy on the stack.
        let connected = {
            let connecting = pin!(async {
                let leaf_and_reference = match wanted.present {
                    Present::Nothing => None,
                    Present::Manufacturer => self.manufacturer.map(|made| (made.leaf, made.key)),
                    Present::Slot(slot) => {
                        let leaf = machine.chain(slot).and_then(|chain| chain.iter().next());
                        leaf.zip(self.slots.key(slot).map(|key| &key.reference))
                    }
                };
                if leaf_and_reference.is_none() && wanted.present != Present::Nothing {
                    return Err(ConnectError::Key);
                }
                let keys = &mut self.keys;
                let client =
                    leaf_and_reference.map(|(leaf, reference)| ClientIdentity { leaf, keys, reference });
                let server = self.config.server;
                let transport = pin!(self.net.connect(server.name(), server.port())).await;
                let transport = transport.map_err(|_| ConnectError::Unreachable)?;
                let (memory, entropy) = (&mut self.tls, &mut self.entropy);
                let anyone = AnyServer(machine.verifier());
                let check: &dyn ServerCheck = match wanted.trust {
                    ServerTrust::Bootstrap => &anyone,
                    ServerTrust::Verified => &*machine,
                };
                let name = server.name();
                pin!(tls::connect(transport, memory, name, check, client, entropy, &mut place)).await
            });
            select(connecting, clock.wait_until(until)).await
        };
        match connected {
            Either::First(Ok(())) => {}
            Either::First(Err(error)) => {
                return machine.handle(Input::Closed(error.ending()), clock.now());
            }
            // The machine sees for itself that the time is over.
            Either::Second(()) => return machine.handle(Input::TimerFired, clock.now()),
        }
        let Some(connection) = &mut place else { return Err(Misuse::Unasked) };
        let session = Session { server_valid: connection.server_valid(), binding: None };
        machine.handle(Input::Connected(session), clock.now())?;
        let mut local = Local {
            store: &mut self.store,
            keys: &mut self.keys,
            entropy: &mut self.entropy,
            slots: &mut self.slots,
            scratch: self.scratch,
        };
        // Lent and not given: each time it is given away it is copied, and it is large.
        let served = pin!(serve(machine, connection, clock, &mut local, observe)).await;
        // Also one that the server has ended: it waits for this side's end.
        let closing = pin!(connection.close());
        select(closing, clock.wait_until(clock.now().plus(tls::CLOSE_TIMEOUT))).await;
        served
    }
}

/// Serves the machine over `connection` until one of them ends it.
async fn serve<IO: Read + Write, F: NorFlash, K: KeyStore, E: Entropy>(
    machine: &mut Enrollment<'_, P256Verifier>,
    connection: &mut Connection<'_, IO>,
    clock: &impl Clock,
    local: &mut Local<'_, F, K, E>,
    observe: &mut impl FnMut(Event),
) -> Result<(), Misuse> {
    let mut piece = [0; PIECE_BYTES];
    loop {
        let Ok(output) = machine.poll(&mut piece) else { return Err(Misuse::Unasked) };
        let happened = match output {
            Output::Close => return Ok(()),
            // Never without `Close` before it.
            Output::Connect(_) => return Err(Misuse::Unasked),
            Output::Event(event) => {
                observe(event);
                Ok(())
            }
            Output::Send(bytes) => {
                let until = clock.now().plus(SEND_TIMEOUT);
                match select(connection.write_all(bytes), clock.wait_until(until)).await {
                    Either::First(sent) => sent,
                    Either::Second(()) => Err(Ended(Ending::Reset)),
                }
            }
            Output::WaitUntil(until) => {
                let mut received = [0; PIECE_BYTES];
                match select(exchange(connection, &mut received), clock.wait_until(until)).await {
                    Either::First(Ok(0)) => Err(Ended(Ending::Closed)),
                    Either::First(Ok(len)) => {
                        let received = received.get(..len).unwrap_or_default();
                        machine.handle(Input::Received(received), clock.now())?;
                        Ok(())
                    }
                    Either::First(Err(ended)) => Err(ended),
                    Either::Second(()) => {
                        machine.handle(Input::TimerFired, clock.now())?;
                        // The read that was given up may have taken bytes with it.
                        Err(Ended(Ending::Reset))
                    }
                }
            }
            Output::MakeKey(_) | Output::Retire(_) | Output::Sign { .. } | Output::Store(_) => {
                let answer = pin!(local.answer(&output)).await;
                if let Some(input) = answer.input() {
                    machine.handle(input, clock.now())?;
                }
                Ok(())
            }
        };
        if let Err(ended) = happened {
            return machine.handle(Input::Closed(ended.0), clock.now());
        }
    }
}

/// Sends what is written and waits for what comes back.
async fn exchange<IO: Read + Write>(
    connection: &mut Connection<'_, IO>,
    received: &mut [u8],
) -> Result<usize, Ended> {
    connection.flush().await?;
    connection.read(received).await
}
