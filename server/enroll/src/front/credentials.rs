//! The Authorization header: HTTP Basic (RFC 7617) and Bearer (RFC 6750).
//!
//! Only the form is read here; whether the token is good is the ledger's knowledge. A header that
//! can't be read is a wrong credential, not a malformed request: a guesser learns nothing from it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, header};
use muster_policy::name::DeviceId;
use zeroize::Zeroizing;

/// Longest header value that is looked at; a token is 50 characters and a device id 64.
const HEADER_MAX_BYTES: usize = 1024;

/// What a client puts forward in its Authorization header.
pub enum Presented {
    /// A device id and a token.
    Basic {
        /// The user name.
        device: DeviceId,
        /// The password.
        token: Zeroizing<String>,
    },
    /// A token alone.
    Bearer {
        /// The token.
        token: Zeroizing<String>,
    },
    /// No header.
    Nothing,
    /// A header that is neither.
    Unreadable,
}

impl Presented {
    /// Reads the one Authorization header of a request.
    pub fn from_headers(headers: &HeaderMap) -> Self {
        let mut values = headers.get_all(header::AUTHORIZATION).iter();
        let (first, second) = (values.next(), values.next());
        match (first, second) {
            (None, _) => Self::Nothing,
            (Some(value), None) if value.len() <= HEADER_MAX_BYTES => {
                value.to_str().ok().and_then(Self::parse).unwrap_or(Self::Unreadable)
            }
            _ => Self::Unreadable,
        }
    }

    fn parse(value: &str) -> Option<Self> {
        let (scheme, rest) = value.trim().split_once(' ')?;
        let rest = rest.trim();
        if scheme.eq_ignore_ascii_case("bearer") {
            return Some(Self::Bearer { token: Zeroizing::new(rest.to_owned()) });
        }
        if !scheme.eq_ignore_ascii_case("basic") {
            return None;
        }
        let decoded = Zeroizing::new(STANDARD.decode(rest).ok()?);
        let text = core::str::from_utf8(&decoded).ok()?;
        let (user, password) = text.split_once(':')?;
        Some(Self::Basic { device: user.parse().ok()?, token: Zeroizing::new(password.to_owned()) })
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn presented(values: &[&str]) -> Presented {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::AUTHORIZATION, HeaderValue::from_str(value).expect("printable"));
        }
        Presented::from_headers(&headers)
    }

    #[test]
    fn reads_basic_with_colons_in_the_token() {
        let value = format!("basic {}", STANDARD.encode("meter-1:a:b"));
        let Presented::Basic { device, token } = presented(&[&value]) else { panic!("must be Basic") };
        assert_eq!((device.as_str(), token.as_str()), ("meter-1", "a:b"));
    }

    #[test]
    fn reads_bearer_in_any_case() {
        assert!(
            matches!(presented(&["BEARER  abc"]), Presented::Bearer { token } if token.as_str() == "abc")
        );
    }

    #[test]
    fn takes_what_it_cannot_read_for_wrong_credentials() {
        let bad_id = format!("Basic {}", STANDARD.encode("me/ter:x"));
        let no_colon = format!("Basic {}", STANDARD.encode("meter-1"));
        let long = format!("Bearer {}", "a".repeat(HEADER_MAX_BYTES));
        for value in ["Basic", "Basic !!!", "Digest x", &bad_id, &no_colon, &long] {
            assert!(matches!(presented(&[value]), Presented::Unreadable), "{value}");
        }
        assert!(matches!(presented(&["Bearer a", "Bearer b"]), Presented::Unreadable));
        assert!(matches!(presented(&[]), Presented::Nothing));
    }
}
