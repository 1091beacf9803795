//! What goes through the router in place of a payload: the payload with what the router would lose.
//!
//! The router delivers at the quality of the subscription, forgets whether a message was to be retained, takes an
//! empty payload for the wish to drop the retained message, and knows no `no local`. In an envelope no payload is
//! empty, and the rest is written down.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

use crate::wire::Qos;

/// A message on its way through the router.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Envelope {
    pub(super) qos: Qos,
    pub(super) retain: bool,
    /// The number of the connection that published it.
    pub(super) publisher: u64,
    /// Properties that go on with the message, encoded.
    pub(super) forward: Bytes,
    pub(super) payload: Bytes,
}

const RETAIN: u8 = 4;
const HEADER_BYTES: usize = 1 + 8 + 4;

impl Envelope {
    pub(super) fn seal(&self) -> Bytes {
        let size = HEADER_BYTES.saturating_add(self.forward.len()).saturating_add(self.payload.len());
        let mut octets = BytesMut::with_capacity(size);
        octets.put_u8(self.qos.bits() | if self.retain { RETAIN } else { 0 });
        octets.put_u64(self.publisher);
        octets.put_u32(u32::try_from(self.forward.len()).unwrap_or(u32::MAX));
        octets.put_slice(&self.forward);
        octets.put_slice(&self.payload);
        octets.freeze()
    }

    /// Opens one; nothing when it is none, as the empty message that drops a retained one.
    pub(super) fn open(mut octets: Bytes) -> Option<Self> {
        if octets.len() < HEADER_BYTES {
            return None;
        }
        let first = octets.get_u8();
        let publisher = octets.get_u64();
        let forward = usize::try_from(octets.get_u32()).ok().filter(|length| *length <= octets.len())?;
        let forward = octets.split_to(forward);
        let qos = Qos::from_bits(first & 3)?;
        Some(Self { qos, retain: first & RETAIN != 0, publisher, forward, payload: octets })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_is_opened_and_nothing_else() {
        for payload in ["", "x"] {
            let envelope = Envelope {
                qos: Qos::One,
                retain: true,
                publisher: 7,
                forward: Bytes::from_static(&[1, 1]),
                payload: Bytes::from_static(payload.as_bytes()),
            };
            let sealed = envelope.seal();
            assert!(!sealed.is_empty());
            assert_eq!(Envelope::open(sealed), Some(envelope));
        }
        for octets in [&[][..], &[0; 12], &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], &[3; 13]] {
            assert_eq!(Envelope::open(Bytes::copy_from_slice(octets)), None, "{octets:?}");
        }
    }
}
