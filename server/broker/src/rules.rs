//! What one client may publish and subscribe to.
//!
//! The rules of all groups of a holder are put together once, when it connects, with its device id in
//! place of `%i`. An identity that could be read as more than one topic level is refused there,
//! whatever the type says that it came in (a `+` in a name would turn a rule into a wider one).

use std::collections::BTreeSet;

use crate::config::{CheckedRule, ClientIdRule, DEVICE_PLACE, Settings};
use crate::topic::{TopicFilter, TopicName};

/// The rules of one client.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    publish: Box<[TopicFilter]>,
    subscribe: Box<[TopicFilter]>,
    deny: Box<[TopicFilter]>,
    pub(crate) client_id: ClientIdRule,
}

/// Where a filter lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// Within what may be read.
    Allowed,
    /// Outside of it.
    Beyond,
    /// Within it, and among the exceptions. Whoever made one may not want to say so: the code of the answer is the one
    /// for no reason given (MQTT 5 §3.9.3).
    Excepted,
}

/// An identity that can't stand in a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UnfitIdentity;

impl Rules {
    /// The rules of a device in these groups.
    ///
    /// # Errors
    /// When its id can't stand in a pattern.
    pub(crate) fn of_device(
        settings: &Settings,
        groups: &BTreeSet<String>,
        device: &str,
    ) -> Result<Self, UnfitIdentity> {
        let theirs =
            settings.rules.iter().filter(|rule| rule.groups.is_empty() || !rule.groups.is_disjoint(groups));
        Self::new(theirs, device)
    }

    /// The rules of someone without a certificate; none to do anything by when nobody is let in without.
    ///
    /// # Errors
    /// None, for there is no name in it; as in the others.
    pub(crate) fn of_anonymous(settings: &Settings) -> Result<Self, UnfitIdentity> {
        Self::new(&settings.anonymous, "anonymous")
    }

    /// Puts together what applies.
    ///
    /// # Errors
    /// When the identity has a wildcard, a slash or NUL.
    pub(crate) fn new<'a>(
        rules: impl IntoIterator<Item = &'a CheckedRule>,
        identity: &str,
    ) -> Result<Self, UnfitIdentity> {
        if identity.contains(['+', '#', '/', '\0']) {
            return Err(UnfitIdentity);
        }
        let filter = |pattern: &String| {
            TopicFilter::parse(&pattern.replace(DEVICE_PLACE, identity)).map_err(|_| UnfitIdentity)
        };
        let (mut publish, mut subscribe, mut deny) = (Vec::new(), Vec::new(), Vec::new());
        let mut client_id = ClientIdRule::Bound;
        for rule in rules {
            for (patterns, filters) in
                [(&rule.publish, &mut publish), (&rule.subscribe, &mut subscribe), (&rule.deny, &mut deny)]
            {
                for pattern in patterns {
                    filters.push(filter(pattern)?);
                }
            }
            client_id = client_id.max(rule.client_id);
        }
        Ok(Self { publish: publish.into(), subscribe: subscribe.into(), deny: deny.into(), client_id })
    }

    /// Whether a message may be published to the topic.
    pub(crate) fn may_publish(&self, topic: TopicName<'_>) -> bool {
        self.publish.iter().any(|rule| rule.matches(topic.as_str())) && self.may_receive(topic.as_str())
    }

    /// Whether the filter lies within what may be read.
    pub(crate) fn may_subscribe(&self, filter: &TopicFilter) -> bool {
        self.judge_filter(filter) == Reading::Allowed
    }

    /// Where the filter lies.
    pub(crate) fn judge_filter(&self, filter: &TopicFilter) -> Reading {
        if !self.subscribe.iter().any(|rule| rule.contains(filter)) {
            Reading::Beyond
        } else if self.deny.iter().any(|rule| rule.contains(filter)) {
            Reading::Excepted
        } else {
            Reading::Allowed
        }
    }

    /// Whether a message with the topic may be read at all.
    pub(crate) fn may_read(&self, topic: TopicName<'_>) -> bool {
        self.subscribe.iter().any(|rule| rule.matches(topic.as_str())) && self.may_receive(topic.as_str())
    }

    /// Whether a message that a permitted filter matches may be delivered.
    pub(crate) fn may_receive(&self, topic: &str) -> bool {
        !self.deny.iter().any(|rule| rule.matches(topic))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(publish: &[&str], subscribe: &[&str], deny: &[&str]) -> CheckedRule {
        let owned = |patterns: &[&str]| patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
        CheckedRule {
            publish: owned(publish),
            subscribe: owned(subscribe),
            deny: owned(deny),
            ..CheckedRule::default()
        }
    }

    fn publishes(rules: &Rules, topic: &str) -> bool {
        rules.may_publish(TopicName::parse(topic).expect("a name"))
    }

    fn subscribes(rules: &Rules, filter: &str) -> bool {
        rules.may_subscribe(&TopicFilter::parse(filter).expect("a filter"))
    }

    #[test]
    fn a_device_has_its_own_topics_and_no_others() {
        let rules = Rules::new(&[rule(&["devices/%i/#"], &["fleet/#"], &[])], "me").expect("fit");
        assert!(publishes(&rules, "devices/me/a") && publishes(&rules, "devices/me"));
        assert!(!publishes(&rules, "devices/me2/a") && !publishes(&rules, "fleet/a"));
        assert!(subscribes(&rules, "fleet/+/a") && !subscribes(&rules, "#") && !subscribes(&rules, "+/a"));
    }

    #[test]
    fn an_exception_holds_inside_a_wider_rule() {
        let rules = Rules::new(&[rule(&["#"], &["#"], &["secret/#"])], "me").expect("fit");
        assert!(subscribes(&rules, "#") && !subscribes(&rules, "secret/+") && !subscribes(&rules, "secret"));
        assert!(!publishes(&rules, "secret/a") && !rules.may_receive("secret/a"));
        assert!(publishes(&rules, "public") && rules.may_receive("public"));
    }

    #[test]
    fn an_identity_never_widens_a_rule() {
        for identity in ["+", "#", "a/b", "a\0b", "a+", ""] {
            let made = Rules::new(&[rule(&["devices/%i/#"], &["%i"], &[])], identity);
            assert!(made.is_err(), "{identity:?}");
        }
    }
}
