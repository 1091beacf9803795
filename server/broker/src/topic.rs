//! Topic names and filters, checked once, and what matches and contains what.
//!
//! A name is what a message is published to, a filter what a client subscribes to (MQTT 5 §4.7).
//! Rules are written as filters too: a rule allows a filter when it *contains* it, which means that
//! every name the filter matches is matched by the rule. String prefixes are never compared:
//! `allowed` is not `allowed/x`, and `d/me/#` does not allow `d/+/x`.

use core::fmt;

use crate::wire::{Broken, Code};

/// Most levels of a name or filter: 200 slashes, as in mosquitto; recursion over levels is safe with it.
pub(crate) const LEVELS_MAX: usize = 201;
/// MQTT 5 §1.5.4: a string has a two-octet length.
const BYTES_MAX: usize = 65_535;
/// MQTT 5 §4.8.2: how a shared subscription starts.
pub(crate) const SHARE_PREFIX: &str = "$share/";

/// Text that is not a topic name or filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TopicError {
    /// The standard has no such name or filter, or it has more levels than are looked at.
    #[error("{0}")]
    Malformed(&'static str),
    /// It is well formed, and not for use with this broker.
    #[error("{0}")]
    Refused(&'static str),
}

impl TopicError {
    /// What ends the connection of a client that sent this: `refused` is the code for text that is well
    /// formed and not taken (MQTT 5 §3.14.2.1 has it for nothing else).
    pub(crate) const fn broken(self, refused: Code) -> Broken {
        match self {
            Self::Malformed(what) => Broken::malformed(what),
            Self::Refused(what) => Broken::new(refused, what),
        }
    }
}

/// The name of a topic: no wildcards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TopicName<'a>(&'a str);

impl<'a> TopicName<'a> {
    /// Checks a name (MQTT 5 §4.7.1, §4.7.3).
    ///
    /// # Errors
    /// When it is empty, has a wildcard or NUL, is too long or too deep, or names a shared subscription.
    pub(crate) fn parse(text: &'a str) -> Result<Self, TopicError> {
        bounded(text)?;
        if text.contains(['+', '#']) {
            return Err(TopicError::Malformed("a topic name has no wildcards"));
        }
        if text.starts_with(SHARE_PREFIX) {
            return Err(TopicError::Refused("nothing is published to a shared subscription"));
        }
        Ok(Self(text))
    }

    /// The text.
    pub(crate) const fn as_str(self) -> &'a str {
        self.0
    }
}

/// A topic filter without a share prefix.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct TopicFilter(Box<str>);

impl TopicFilter {
    /// Checks a filter (MQTT 5 §4.7.1).
    ///
    /// # Errors
    /// When a wildcard does not stand alone in its level, `#` is not last, or the text is empty, has a
    /// NUL, or is too long or too deep.
    pub(crate) fn parse(text: &str) -> Result<Self, TopicError> {
        bounded(text)?;
        let mut levels = text.split('/').peekable();
        while let Some(level) = levels.next() {
            if level == "#" && levels.peek().is_some() {
                return Err(TopicError::Malformed("`#` is the last level of a filter"));
            }
            if level.len() > 1 && level.contains(['+', '#']) {
                return Err(TopicError::Malformed("a wildcard is a whole level of a filter"));
            }
        }
        Ok(Self(text.into()))
    }

    /// The text.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The levels, wildcards among them.
    pub(crate) fn levels(&self) -> core::str::Split<'_, char> {
        self.0.split('/')
    }

    /// The text before the first wildcard: every name it matches starts with it, or is it without its
    /// last slash.
    pub(crate) fn literal_prefix(&self) -> &str {
        let end = self.0.find(['+', '#']).unwrap_or(self.0.len());
        self.0.get(..end).unwrap_or_default()
    }

    /// Whether the name is one of those the filter stands for.
    pub(crate) fn matches(&self, name: &str) -> bool {
        if name.starts_with('$') && self.0.starts_with(['+', '#']) {
            return false;
        }
        let mut name = name.split('/');
        for level in self.levels() {
            if level == "#" {
                return true;
            }
            match name.next() {
                Some(found) if level == "+" || level == found => {}
                _ => return false,
            }
        }
        name.next().is_none() || self.0.as_ref() == "#"
    }

    /// Whether every name that `other` matches is matched by this filter.
    ///
    /// `false` may be said of two odd spellings of the same set (`+/#` and `#`); `true` is never wrong.
    pub(crate) fn contains(&self, other: &Self) -> bool {
        if other.0.starts_with('$') && self.0.starts_with(['+', '#']) {
            return false;
        }
        let mut theirs = other.levels();
        for level in self.levels() {
            if level == "#" {
                return true;
            }
            match theirs.next() {
                Some("#") | None => return false,
                Some(their) if level == "+" || level == their => {}
                Some(_) => return false,
            }
        }
        theirs.next().is_none()
    }
}

impl fmt::Debug for TopicFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &self.0)
    }
}

impl fmt::Display for TopicFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a client subscribes to: a filter, alone or shared with others.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Subscribed {
    /// The name of the share (MQTT 5 §4.8.2). Name and filter together make the group.
    pub(crate) share: Option<Box<str>>,
    /// The filter without the share prefix.
    pub(crate) filter: TopicFilter,
}

impl Subscribed {
    /// Checks the filter of a SUBSCRIBE or UNSUBSCRIBE.
    ///
    /// # Errors
    /// When the filter is malformed, or the share name is empty or has a wildcard.
    pub(crate) fn parse(text: &str) -> Result<Self, TopicError> {
        bounded(text)?;
        let Some(rest) = text.strip_prefix(SHARE_PREFIX) else {
            return Ok(Self { share: None, filter: TopicFilter::parse(text)? });
        };
        let (share, filter) = rest
            .split_once('/')
            .ok_or(TopicError::Malformed("a shared subscription is $share/NAME/FILTER"))?;
        if share.is_empty() || share.contains(['+', '#']) {
            return Err(TopicError::Malformed("a share name is not empty and has no wildcards"));
        }
        Ok(Self { share: Some(share.into()), filter: TopicFilter::parse(filter)? })
    }
}

impl fmt::Display for Subscribed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.share {
            Some(share) => write!(f, "{SHARE_PREFIX}{share}/{}", self.filter),
            None => self.filter.fmt(f),
        }
    }
}

fn bounded(text: &str) -> Result<(), TopicError> {
    if text.is_empty() || text.len() > BYTES_MAX {
        return Err(TopicError::Malformed("a topic has 1 to 65535 octets"));
    }
    if text.chars().any(is_unfit) {
        return Err(TopicError::Malformed("a topic has no control characters"));
    }
    if text.bytes().filter(|octet| *octet == b'/').count() >= LEVELS_MAX {
        return Err(TopicError::Malformed("a topic has at most 201 levels"));
    }
    Ok(())
}

/// Control characters and non-characters, which a receiver may refuse (MQTT 5 §1.5.4): no client needs them in a
/// topic, and what shows topics to people should not have to fear them.
fn is_unfit(c: char) -> bool {
    let is_non_character = matches!(c, '\u{fdd0}'..='\u{fdef}') || u32::from(c) & 0xfffe == 0xfffe;
    c.is_control() || is_non_character
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn filter(text: &str) -> TopicFilter {
        TopicFilter::parse(text).expect(text)
    }

    #[test]
    fn wildcards_stand_alone_and_hash_stands_last() {
        for wrong in [
            "",
            "a/#/b",
            "#/a",
            "a+",
            "a/+b",
            "a#",
            "##",
            "a/b#",
            "a\0b",
            "a\nb",
            "a\u{7f}",
            "\u{9f}",
            "\u{ffff}",
            "\u{1fffe}",
            "\u{fdd0}",
        ] {
            assert!(matches!(TopicFilter::parse(wrong), Err(TopicError::Malformed(_))), "{wrong:?}");
        }
        assert!(matches!(TopicFilter::parse(&"/".repeat(201)), Err(TopicError::Malformed(_))));
        for right in ["#", "+", "/", "+/+", "/+", "a//b", "a/+/#", "$SYS/#", "ä/ %", "\u{fffd}", "\u{1f600}"]
        {
            assert!(TopicFilter::parse(right).is_ok(), "{right:?}");
        }
        for wrong in ["", "a/+", "#", "a\0", "$share/g/a"] {
            assert!(TopicName::parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn shares_have_a_name_and_a_filter() {
        for wrong in ["$share/", "$share/g", "$share//a", "$share/+/a", "$share/g#/a", "$share/g/"] {
            assert!(Subscribed::parse(wrong).is_err(), "{wrong:?}");
        }
        let shared = Subscribed::parse("$share/g//a/#").expect("valid");
        assert_eq!((shared.share.as_deref(), shared.filter.as_str()), (Some("g"), "/a/#"));
        assert_eq!(shared.to_string(), "$share/g//a/#");
    }

    #[test]
    fn matches_as_the_standard_says() {
        // MQTT 5 §4.7.1.2, §4.7.1.3 and §4.7.2.
        for (pattern, name, expected) in [
            ("sport/tennis/player1/#", "sport/tennis/player1", true),
            ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true),
            ("sport/#", "sport", true),
            ("sport/+", "sport", false),
            ("sport/+", "sport/", true),
            ("+/+", "/finance", true),
            ("/+", "/finance", true),
            ("+", "/finance", false),
            ("#", "$SYS/a", false),
            ("+/monitor/Clients", "$SYS/monitor/Clients", false),
            ("$SYS/#", "$SYS/a", true),
            ("allowed", "allowed/x", false),
        ] {
            assert_eq!(filter(pattern).matches(name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn a_rule_contains_no_more_than_its_own() {
        for (rule, asked, expected) in [
            ("d/me/#", "d/me/+/x", true),
            ("d/me/#", "d/me", true),
            ("d/me/#", "d/+/x", false),
            ("d/me/#", "#", false),
            ("d/me/#", "+/#", false),
            ("d/me/#", "d/me2/x", false),
            ("d/+/x", "d/#", false),
            ("d/+", "d/+", true),
            ("d/+", "d/#", false),
            ("a/+/#", "a/#", false),
            ("#", "$SYS/#", false),
            ("#", "+/x", true),
            ("allowed", "allowed/x", false),
        ] {
            assert_eq!(filter(rule).contains(&filter(asked)), expected, "{rule} {asked}");
        }
    }

    /// Matches by trying every way to spend levels, as slow and plain as can be.
    fn brute(pattern: &[&str], name: &[&str]) -> bool {
        match (pattern.split_first(), name.split_first()) {
            (None, None) => true,
            (Some((&"#", _)), _) => true,
            (Some((&"+", rest)), Some((_, others))) => brute(rest, others),
            (Some((level, rest)), Some((other, others))) => level == other && brute(rest, others),
            _ => false,
        }
    }

    fn names() -> Vec<String> {
        let mut all = vec![String::new()];
        let mut longest = vec![Vec::new()];
        for _ in 0..4 {
            longest = longest
                .iter()
                .flat_map(|levels: &Vec<&str>| {
                    ["a", "b", "", "$x"].map(|level| [levels.as_slice(), &[level]].concat())
                })
                .collect();
            all.extend(longest.iter().map(|levels| levels.join("/")));
        }
        all.retain(|name| !name.is_empty());
        all
    }

    proptest! {
        #[test]
        fn matching_agrees_with_brute_force(pattern in "(a|b|\\+|)(/(a|b|\\+|)){0,3}(/#)?|#") {
            prop_assume!(!pattern.is_empty());
            let checked = filter(&pattern);
            let levels: Vec<_> = pattern.split('/').collect();
            for name in names() {
                let hidden = name.starts_with('$') && pattern.starts_with(['+', '#']);
                let expected = !hidden && brute(&levels, &name.split('/').collect::<Vec<_>>());
                prop_assert_eq!(checked.matches(&name), expected, "{} {}", pattern, name);
            }
        }

        #[test]
        fn a_contained_filter_matches_nothing_that_its_container_does_not(
            rule in "(a|b|\\+|\\$x)(/(a|b|\\+)){0,3}(/#)?|#",
            asked in "(a|b|\\+|\\$x)(/(a|b|\\+)){0,3}(/#)?|#",
        ) {
            let (rule, asked) = (filter(&rule), filter(&asked));
            let wider = names().iter().any(|name| asked.matches(name) && !rule.matches(name));
            if rule.contains(&asked) {
                prop_assert!(!wider);
            }
        }
    }
}
