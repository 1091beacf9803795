//! What an MQTT client asks, as the rules of its zone see it, and who judges it.
//!
//! The edge knows the rules and the broker reads the packets: each asks the other through [`Judge`].

use core::fmt;
use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::access::{Above, Holder};
use crate::identity::{AccountId, CaId, Fingerprint, Serial};
use crate::name::DeviceId;
use crate::reason::Reason;

/// Judges what an MQTT connection asks, by the rules that hold at that moment.
pub trait Judge: Send + Sync + fmt::Debug {
    /// Judges one packet. CONNECT comes first, and once; it is kept, to be judged again when rules change.
    ///
    /// # Errors
    /// [`Reason::RuleBlocked`], [`Reason::AccessDenied`], or why the connection has lost its right.
    fn judge(&self, asked: &Asked<'_>) -> Result<(), Reason>;
}

/// Judges nothing: for brokers without an edge in front.
#[derive(Clone, Copy, Debug)]
pub struct Unjudged;

impl Judge for Unjudged {
    fn judge(&self, _: &Asked<'_>) -> Result<(), Reason> {
        Ok(())
    }
}

/// Who sent a message that outlives its connection, by the certificate of that connection.
///
/// It is kept in files by the order of its fields: another one comes last, with a default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sender {
    /// The device.
    pub device: DeviceId,
    /// The CA of the certificate, as in [`Holder::ca`].
    pub ca: CaId,
    /// The certificate's serial.
    pub serial: Serial,
    /// Its fingerprint, which a certificate that was issued elsewhere may be revoked by.
    pub fingerprint: Fingerprint,
    /// The CAs above it, as in [`Holder::above`]. Files of before they were kept do not say.
    #[serde(default)]
    pub above: Vec<Above>,
}

impl From<&Holder> for Sender {
    fn from(holder: &Holder) -> Self {
        Self {
            device: holder.device.clone(),
            ca: holder.ca,
            serial: holder.serial,
            fingerprint: holder.fingerprint,
            above: holder.above.clone(),
        }
    }
}

/// Knows whether who sent a message may still speak, connected or not.
pub trait Senders: Send + Sync + fmt::Debug {
    /// The groups that the sender's device is in now.
    ///
    /// # Errors
    /// [`Reason::CaNotAccepted`], [`Reason::CertificateRevoked`] (also when a CA above is), [`Reason::DeviceSuspended`]
    /// or [`Reason::DeviceRetired`]. That the certificate has ended is no error: a message may be older than that.
    fn groups(&self, account: AccountId, sender: &Sender) -> Result<Arc<BTreeSet<String>>, Reason>;
}

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub enum Asked<'a> {
    /// To be let in.
    Connect(&'a Connect),
    /// That a message reaches the client.
    Deliver(Message<'a>),
    /// That a message of the client reaches others.
    Publish(Message<'a>),
    /// To get what a filter means, with at most this quality of service.
    Subscribe {
        /// The filter, without the prefix of a shared subscription.
        filter: &'a str,
        /// 0 to 2.
        qos: u8,
    },
}

/// What rules see of a message.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// Its topic.
    pub topic: &'a str,
    /// 0 to 2.
    pub qos: u8,
    /// Whether it is to be kept.
    pub retain: bool,
}

/// What rules see of a CONNECT.
#[derive(Clone, Debug)]
pub struct Connect {
    /// The client id; the one that was assigned where the client sent none.
    pub client_id: Box<str>,
    /// The user name; empty without.
    pub username: Box<str>,
    /// The version of the protocol.
    pub version: Version,
    /// The message that is published when the connection breaks.
    pub will: Option<Will>,
}

/// A version of MQTT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// MQTT 3.1.1.
    V311,
    /// MQTT 5.
    V5,
}

impl Version {
    /// The version as it is written in rules.
    pub const fn name(self) -> &'static str {
        match self {
            Self::V311 => "3.1.1",
            Self::V5 => "5",
        }
    }
}

/// What rules see of a will.
#[derive(Clone, Debug)]
pub struct Will {
    /// Its topic.
    pub topic: Box<str>,
    /// 0 to 2.
    pub qos: u8,
    /// Whether it is to be kept.
    pub retain: bool,
}

impl Will {
    /// The message that it becomes.
    pub const fn message(&self) -> Message<'_> {
        Message { topic: &self.topic, qos: self.qos, retain: self.retain }
    }
}

impl<'a> Asked<'a> {
    /// The kind of packet, as it is written in rules.
    pub const fn packet(&self) -> &'static str {
        match self {
            Self::Connect(_) => "connect",
            Self::Deliver(_) => "deliver",
            Self::Publish(_) => "publish",
            Self::Subscribe { .. } => "subscribe",
        }
    }

    /// The message, or what a filter asks for as one; empty of a CONNECT.
    pub const fn message(&self) -> Message<'a> {
        match *self {
            Self::Connect(_) => Message { topic: "", qos: 0, retain: false },
            Self::Deliver(message) | Self::Publish(message) => message,
            Self::Subscribe { filter, qos } => Message { topic: filter, qos, retain: false },
        }
    }
}
