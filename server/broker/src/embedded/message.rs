//! A message on its way from one publisher to any number of sessions, which share it.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::author::Author;
use crate::clock::Millis;
use crate::wire::Qos;
use crate::wire::connect::Will;
use crate::wire::publish::Publish;

/// A published message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Message {
    pub(crate) topic: Box<str>,
    #[serde(with = "serde_bytes")]
    pub(crate) payload: Box<[u8]>,
    #[serde(with = "qos")]
    pub(crate) qos: Qos,
    pub(crate) retain: bool,
    /// Properties that go on unchanged, encoded.
    #[serde(with = "serde_bytes")]
    pub(crate) forward: Box<[u8]>,
    pub(crate) expires_at: Option<Millis>,
    /// Who sent it, if it is retained. Files of before it was kept do not say.
    #[serde(default)]
    pub(crate) author: Author,
}

/// A will, and who left it.
#[derive(Clone, Debug)]
pub(crate) struct Testament {
    pub(crate) will: Will,
    pub(crate) author: Author,
}

impl Message {
    /// The message of a PUBLISH. It is copied: a slice would keep the whole read buffer alive.
    pub(crate) fn new(publish: Publish, author: &Author, now: Millis) -> Self {
        Self {
            author: if publish.retain { author.clone() } else { Author::Unknown },
            topic: publish.topic.into(),
            payload: boxed(&publish.payload),
            qos: publish.qos,
            retain: publish.retain,
            forward: boxed(&publish.forward),
            expires_at: publish.expiry_s.map(|seconds| now.plus_seconds(seconds)),
        }
    }

    /// The message of a will that is due.
    pub(crate) fn of_will(Testament { will, author }: Testament, now: Millis) -> Self {
        Self {
            author: if will.retain { author } else { Author::Unknown },
            topic: will.topic.into(),
            payload: boxed(&will.payload),
            qos: will.qos,
            retain: will.retain,
            forward: boxed(&will.forward),
            expires_at: will.expiry_s.map(|seconds| now.plus_seconds(seconds)),
        }
    }

    pub(crate) fn is_expired(&self, now: Millis) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }

    /// What it counts for in a queue.
    pub(crate) fn bytes(&self) -> usize {
        [self.topic.len(), self.payload.len(), self.forward.len()]
            .iter()
            .fold(0, |sum: usize, part| sum.saturating_add(*part))
    }
}

fn boxed(octets: &Bytes) -> Box<[u8]> {
    octets.as_ref().into()
}

/// Quality of service as its two bits.
pub(crate) mod qos {
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::wire::Qos;

    pub(crate) fn serialize<S: Serializer>(qos: &Qos, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(qos.bits())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Qos, D::Error> {
        let bits = u8::deserialize(deserializer)?;
        Qos::from_bits(bits).ok_or_else(|| serde::de::Error::custom("a QoS is 0 to 2"))
    }
}

#[cfg(test)]
mod tests {
    use muster_policy::access::Above;
    use muster_policy::identity::{CaId, Fingerprint, Serial};
    use muster_policy::mqtt::Sender;
    use muster_policy::name::DeviceId;

    use super::*;

    #[test]
    fn a_message_that_was_kept_before_it_had_an_author_is_read() {
        let before =
            ("a", serde_bytes::Bytes::new(b"x"), 1_u8, true, serde_bytes::Bytes::new(b""), None::<Millis>);
        let octets = rmp_serde::to_vec(&before).expect("written");
        let message: Message = rmp_serde::from_slice(&octets).expect("read");
        assert_eq!((&*message.topic, message.author), ("a", Author::Unknown));
    }

    /// A sender as it was kept before the CAs above it were: the same, but for its last field.
    #[derive(Serialize)]
    enum Before {
        Holder((DeviceId, CaId, Serial, Fingerprint)),
    }

    #[test]
    fn an_author_is_read_as_it_was_kept_and_as_it_was_before_the_cas_above_it_were_kept() {
        let (device, ca) = ("meter-1".parse::<DeviceId>().expect("an id"), CaId::from_bytes([1; 16]));
        let (serial, fingerprint) =
            (Serial::from_bytes(&[7]).expect("a serial"), Fingerprint::from_bytes([2; 32]));
        let before = Before::Holder((device.clone(), ca, serial, fingerprint));
        let mut sender = Sender { device, ca, serial, fingerprint, above: Vec::new() };
        let octets = rmp_serde::to_vec(&before).expect("written");
        let read: Author = rmp_serde::from_slice(&octets).expect("read");
        assert_eq!(read, Author::Holder(Box::new(sender.clone())));
        sender.above.push(Above { ca, serial, fingerprint });
        let author = Author::Holder(Box::new(sender));
        let octets = rmp_serde::to_vec(&author).expect("written");
        assert_eq!(rmp_serde::from_slice::<Author>(&octets).expect("read"), author);
    }
}
