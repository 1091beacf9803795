//! Who sent a retained message or left a will, and whether it is given out still.
//!
//! Both outlive the connection that brought them. What their sender may say is asked again each time that one is
//! given out: a device whose right is gone must not go on commanding others by what it left.

use muster_policy::identity::AccountId;
use muster_policy::mqtt::{Sender, Senders};
use muster_policy::name::DeviceId;
use muster_policy::reason::Reason;
use serde::{Deserialize, Serialize};

use crate::config::Settings;
use crate::rules::Rules;
use crate::topic::TopicName;

/// Who sent a message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Author {
    /// Someone without a certificate.
    Anonymous,
    /// The holder of a certificate.
    Holder(Box<Sender>),
    /// Nobody knows: it is not asked of this message, or its file is older than the question.
    #[default]
    Unknown,
}

/// Whether what was left is given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is.
    Given,
    /// It never will be again.
    Void,
    /// Not now.
    Withheld,
}

impl Author {
    /// The device, if it is one.
    pub(crate) fn device(&self) -> Option<&DeviceId> {
        match self {
            Self::Holder(sender) => Some(&sender.device),
            Self::Anonymous | Self::Unknown => None,
        }
    }

    /// Judges what it left for the topic. Without anyone who knows of senders, a certificate is as good as it was.
    pub(crate) fn judge(
        &self,
        topic: &str,
        account: AccountId,
        settings: &Settings,
        senders: Option<&dyn Senders>,
    ) -> Verdict {
        let rules = match (self, senders) {
            (Self::Unknown, _) | (Self::Holder(_), None) => return Verdict::Given,
            (Self::Anonymous, _) => Rules::of_anonymous(settings),
            (Self::Holder(sender), Some(senders)) => match senders.groups(account, sender) {
                Ok(groups) => Rules::of_device(settings, &groups, sender.device.as_str()),
                Err(Reason::CertificateRevoked) => return Verdict::Void,
                Err(_) => return Verdict::Withheld,
            },
        };
        let may_publish = |rules: Rules| TopicName::parse(topic).is_ok_and(|topic| rules.may_publish(topic));
        if rules.is_ok_and(may_publish) { Verdict::Given } else { Verdict::Withheld }
    }
}
