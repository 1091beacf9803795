//! A message on its way from one publisher to any number of sessions, which share it.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

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
}

impl Message {
    /// The message of a PUBLISH. It is copied: a slice would keep the whole read buffer alive.
    pub(crate) fn new(publish: Publish, now: Millis) -> Self {
        Self {
            topic: publish.topic.into(),
            payload: boxed(&publish.payload),
            qos: publish.qos,
            retain: publish.retain,
            forward: boxed(&publish.forward),
            expires_at: publish.expiry_s.map(|seconds| now.plus_seconds(seconds)),
        }
    }

    /// The message of a will that is due.
    pub(crate) fn of_will(will: Will, now: Millis) -> Self {
        Self {
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
