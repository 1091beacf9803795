//! Names, checked once at the border.
//!
//! A value of a type in this file is in normal form, so equality is a comparison of bytes.
//! Nothing outside this file compares names as plain text.

use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Serialize};

/// Text that is not the name it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NameError(pub &'static str);

// A table of alike types: text in a normal form, behind a parser.
macro_rules! names {
    ($($(#[$doc:meta])* $name:ident, $parse:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The normal form.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                let parse: fn(&str) -> Result<String, NameError> = $parse;
                parse(text).map(Self)
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}

names! {
    /// A device's id: 1 to 64 of `A-Z a-z 0-9 . _ -`, compared exactly, and not `.` or `..`.
    ///
    /// The two dots are refused because the id is a path segment of the SPIFFE URI (SPIFFE-ID §2.2).
    DeviceId, parse_device_id;
    /// What an edge is called among those of one server: 1 to 32 of `a-z 0-9 - _`.
    EdgeName, parse_edge_name;
    /// A DNS name in lower case without a trailing dot (RFC 1123 §2.1, RFC 5890 A-labels).
    Hostname, parse_hostname;
    /// The name of a profile, and the EST path label that selects it: 1 to 32 of `a-z 0-9 - _`.
    ///
    /// Names of EST operations are refused (RFC 7030 §3.2.2).
    Label, parse_label;
    /// The trust domain of the account's SPIFFE ids: 1 to 255 of `a-z 0-9 . - _` (SPIFFE-ID §2.1).
    TrustDomain, parse_trust_domain;
    /// What people call an account, a CA or a token: 1 to 128 characters, none of them a control.
    Title, parse_title;
}

/// Longest device id; with `spiffe://` and a 255-octet trust domain the URI stays under 512 octets.
pub const DEVICE_ID_MAX_BYTES: usize = 64;
/// RFC 1035 §2.3.4.
const HOSTNAME_MAX_BYTES: usize = 253;
/// RFC 1035 §2.3.4.
const DNS_LABEL_MAX_BYTES: usize = 63;
/// RFC 7030 §3.2.2 operations, which a path label must not be named after.
const EST_OPERATIONS: [&str; 6] =
    ["cacerts", "csrattrs", "fullcmc", "serverkeygen", "simpleenroll", "simplereenroll"];

fn parse_device_id(text: &str) -> Result<String, NameError> {
    let allowed = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-');
    if text.is_empty() || text.len() > DEVICE_ID_MAX_BYTES || !text.bytes().all(allowed) {
        return Err(NameError("a device id has 1 to 64 characters out of A-Z a-z 0-9 . _ -"));
    }
    if text == "." || text == ".." {
        return Err(NameError("a device id is not `.` or `..`"));
    }
    Ok(text.to_owned())
}

fn parse_edge_name(text: &str) -> Result<String, NameError> {
    let allowed = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'-' | b'_');
    if text.is_empty() || text.len() > 32 || !text.bytes().all(allowed) {
        return Err(NameError("an edge's name is 1 to 32 of a-z 0-9 - _"));
    }
    Ok(text.to_owned())
}

fn parse_hostname(text: &str) -> Result<String, NameError> {
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    if name.is_empty() || name.len() > HOSTNAME_MAX_BYTES {
        return Err(NameError("a hostname has 1 to 253 characters"));
    }
    if !name.split('.').all(is_dns_label) {
        return Err(NameError("a hostname is labels of a-z 0-9 - joined by dots, none longer than 63"));
    }
    Ok(name)
}

fn is_dns_label(label: &str) -> bool {
    let allowed = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    !label.is_empty()
        && label.len() <= DNS_LABEL_MAX_BYTES
        && label.bytes().all(allowed)
        && !label.starts_with('-')
        && !label.ends_with('-')
}

fn parse_label(text: &str) -> Result<String, NameError> {
    let allowed = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'-' | b'_');
    if text.is_empty() || text.len() > 32 || !text.bytes().all(allowed) {
        return Err(NameError("a profile's name is 1 to 32 of a-z 0-9 - _"));
    }
    if EST_OPERATIONS.contains(&text) {
        return Err(NameError("a profile can't have the name of an EST operation"));
    }
    Ok(text.to_owned())
}

fn parse_trust_domain(text: &str) -> Result<String, NameError> {
    let allowed = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'.' | b'-' | b'_');
    if text.is_empty() || text.len() > 255 || !text.bytes().all(allowed) {
        return Err(NameError("a trust domain is 1 to 255 of a-z 0-9 . - _"));
    }
    Ok(text.to_owned())
}

fn parse_title(text: &str) -> Result<String, NameError> {
    let trimmed = text.trim();
    if trimmed.is_empty() || trimmed.chars().count() > 128 || trimmed.chars().any(char::is_control) {
        return Err(NameError("a name is 1 to 128 characters without control characters"));
    }
    Ok(trimmed.to_owned())
}

impl TrustDomain {
    /// The device's SPIFFE id: `spiffe://TRUST_DOMAIN/device/ID`.
    pub fn spiffe_id(&self, device: &DeviceId) -> String {
        format!("spiffe://{}/device/{}", self.0, device.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn device_ids_are_compared_exactly() {
        let lower: DeviceId = "meter-1".parse().expect("valid");
        let upper: DeviceId = "METER-1".parse().expect("valid");
        assert_ne!(lower, upper);
    }

    #[test]
    fn refuses_device_ids_that_could_be_read_two_ways() {
        let long = "a".repeat(65);
        for wrong in ["", ".", "..", "a/b", "a b", "a\0", "ä", "a\n", "*", "a+b", &long] {
            assert!(wrong.parse::<DeviceId>().is_err(), "{wrong:?}");
        }
        assert!("a".repeat(64).parse::<DeviceId>().is_ok());
    }

    #[test]
    fn hostnames_have_one_form() {
        let name: Hostname = "Api.Example.COM.".parse().expect("valid");
        assert_eq!(name.as_str(), "api.example.com");
        for wrong in ["", ".", "a..b", "-a.b", "a-.b", "*.a.b", "a_b.c", &format!("{}.b", "a".repeat(64))] {
            assert!(wrong.parse::<Hostname>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn an_edge_s_name_can_stand_in_a_path_before_a_dot() {
        assert!("north-1_b".parse::<EdgeName>().is_ok());
        for wrong in ["", "a.b", "North", "a/b", "a b", &"a".repeat(33)] {
            assert!(wrong.parse::<EdgeName>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn labels_are_never_est_operations() {
        assert!("simpleenroll".parse::<Label>().is_err());
        assert!("meters".parse::<Label>().is_ok());
        assert!("Meters".parse::<Label>().is_err());
    }

    proptest! {
        #[test]
        fn parsing_a_normal_form_changes_nothing(text in "\\PC{0,80}") {
            if let Ok(name) = text.parse::<Hostname>() {
                prop_assert_eq!(name.as_str().parse::<Hostname>(), Ok(name.clone()));
            }
            if let Ok(id) = text.parse::<DeviceId>() {
                prop_assert_eq!(id.as_str(), text);
            }
        }
    }
}
