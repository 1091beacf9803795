//! The gate's reading of packets, for fuzzers: octets in, nothing out, never a panic.

use std::sync::Arc;

use bytes::Bytes;
use muster_policy::mqtt::Unjudged;

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
    let mut gate =
        gate::admit(&mut connect, None, &settings, Arc::new(Unjudged), || "probe".to_owned()).ok()?.gate;
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
    let frame = crate::wire::Frame { first, body, is_padded: false }.unmarked(version);
    match Packet::parse(&frame, version).ok()? {
        Packet::Publish(mut publish) => drop(gate.check_publish(&mut publish).ok()?),
        Packet::Subscribe(subscribe) => drop(gate.check_subscribe(subscribe).ok()?),
        Packet::Unsubscribe(unsubscribe) => drop(gate.check_unsubscribe(&unsubscribe).ok()?),
        Packet::Ack(_) | Packet::Disconnect(_) | Packet::Ping => {}
    }
    Some(())
}

/// Largest packet that the probe cuts.
const PROBE_BYTES: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CONNECT: [&[u8]; 3] = [
        b"\x10\x0f\0\x06MQIsdp\x03\x02\0\0\0\x01m",
        b"\x10\x0d\0\x04MQTT\x04\x02\0\0\0\x01m",
        b"\x10\x0e\0\x04MQTT\x05\x02\0\0\0\0\x01m",
    ];

    proptest! {
        #[test]
        fn no_octets_after_a_connect_make_it_panic(
            version in 0..3_usize,
            first in any::<u8>(),
            body in prop::collection::vec(any::<u8>(), 0..100),
        ) {
            let length = u8::try_from(body.len()).expect("below 128");
            let octets = [CONNECT[version], &[first, length], &body].concat();
            prop_assert!(read_packets(&octets).is_some());
        }

        #[test]
        fn no_connect_makes_it_panic(place in 0..16_usize, octet in any::<u8>(), cut in 0..16_usize) {
            for connect in CONNECT {
                let mut octets = connect.to_vec();
                let last = octets.len() - 1;
                octets[place.min(last)] = octet;
                octets.truncate(octets.len() - cut.min(last));
                let _ = read_packets(&octets);
            }
        }
    }
}
