//! The gate's reading of packets, for fuzzers: octets in, nothing out, never a panic.

use bytes::Bytes;

use crate::config::Settings;
use crate::gate::{self, Gate};
use crate::stream::cut_frames;
use crate::wire::connect::Connect;
use crate::wire::{Packet, Version};

/// Reads octets as a client's whole connection: a CONNECT, and what follows it through the gate.
///
/// Returns how many packets passed before the first broken one; `None` when it was the CONNECT.
pub fn read_packets(octets: &[u8]) -> Option<usize> {
    let mut frames = cut_frames(octets, PROBE_BYTES).into_iter();
    let mut connect = Connect::parse(&frames.next()?).ok()?;
    let settings = Settings::open();
    let version = connect.version;
    let mut gate = gate::admit(&mut connect, None, &settings, || "probe".to_owned()).ok()?.gate;
    // A CONNECT that was read can be written, and reads as the same again.
    let mut written = Vec::new();
    connect.write(&mut written, connect.username.as_deref(), connect.has_password.then_some(&[]));
    debug_assert!(
        cut_frames(&written, usize::MAX).first().is_some_and(|frame| Connect::parse(frame).is_ok()),
        "what was written must be readable"
    );
    Some(frames.map_while(|frame| pass(&mut gate, version, frame.first, frame.body)).count())
}

fn pass(gate: &mut Gate, version: Version, first: u8, body: Bytes) -> Option<()> {
    let frame = crate::wire::Frame { first, body };
    match Packet::parse(&frame, version).ok()? {
        Packet::Publish(mut publish) => drop(gate.check_publish(&mut publish).ok()?),
        Packet::Subscribe(subscribe) => drop(gate.check_subscribe(subscribe).ok()?),
        Packet::Unsubscribe(unsubscribe) => drop(gate.check_unsubscribe(&unsubscribe)),
        Packet::Ack(_) | Packet::Disconnect(_) | Packet::Ping => {}
    }
    Some(())
}

/// Largest packet that the probe cuts.
const PROBE_BYTES: usize = 64 * 1024;
