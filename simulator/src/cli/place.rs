//! Where things are, as the command line says it: EST servers, endpoints, and which of them a value is for.

use std::fmt::Display;
use std::str::FromStr;

use crate::edge::Protocol;

/// Where an EST server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct EstUrl {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) label: Option<String>,
}

impl FromStr for EstUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}`: write https://HOST[:PORT][/LABEL]");
        let rest = text.strip_prefix("https://").ok_or_else(wrong)?;
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (host, port) = host_and_port(authority, EST_PORT).ok_or_else(wrong)?;
        let path = path.trim_matches('/');
        let path = path.strip_prefix(".well-known/est").unwrap_or(path).trim_matches('/');
        if path.contains('/') {
            return Err(wrong());
        }
        Ok(Self { host, port, label: (!path.is_empty()).then(|| path.to_owned()) })
    }
}

/// Where an endpoint is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) protocol: Protocol,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}`: write https://HOST[:PORT][/PATH] or mqtts://HOST[:PORT]");
        if let Some(rest) = text.strip_prefix("https://") {
            let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
            let (host, port) = host_and_port(authority, HTTPS_PORT).ok_or_else(wrong)?;
            if path.chars().any(|c| c.is_whitespace() || c.is_control()) {
                return Err(wrong());
            }
            return Ok(Self { host, port, protocol: Protocol::Https { path: format!("/{path}") } });
        }
        let rest = text.strip_prefix("mqtts://").ok_or_else(wrong)?;
        let (host, port) = host_and_port(rest.trim_end_matches('/'), MQTTS_PORT).ok_or_else(wrong)?;
        Ok(Self { host, port, protocol: Protocol::Mqtt })
    }
}

impl Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { host, port, .. } = self;
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        match &self.protocol {
            Protocol::Https { path } => write!(f, "https://{host}:{port}{path}"),
            Protocol::Mqtt => write!(f, "mqtts://{host}:{port}"),
        }
    }
}

/// `[NAME=]VALUE`: a value for the target of that name, or for the only one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Named<T> {
    pub(super) name: Option<String>,
    pub(super) value: T,
}

impl<T: FromStr<Err: Display>> FromStr for Named<T> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) if is_name(name) => (Some(name.to_owned()), value),
            // The one in the query of a URL.
            _ => (None, text),
        };
        let value = value.parse().map_err(|error: T::Err| format!("`{value}`: {error}"))?;
        Ok(Self { name, value })
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

/// Splits `HOST[:PORT]`, IPv6 in brackets.
fn host_and_port(authority: &str, default: u16) -> Option<(String, u16)> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']')?;
            (host, rest.strip_prefix(':'))
        }
        None => match authority.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    let port = port.map_or(Some(default), |port| port.parse().ok())?;
    (!host.is_empty()).then(|| (host.to_owned(), port))
}

/// Where our server listens.
const EST_PORT: u16 = 8443;
/// Where our edge listens.
const HTTPS_PORT: u16 = 9443;
const MQTTS_PORT: u16 = 8883;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_est_servers_are_read() {
        let read = |text: &str| text.parse::<EstUrl>().ok().map(|url| (url.host, url.port, url.label));
        assert_eq!(read("https://ca.example:9"), Some(("ca.example".into(), 9, None)));
        assert_eq!(read("https://ca.example/iot/"), Some(("ca.example".into(), 8443, Some("iot".into()))));
        assert_eq!(read("https://[::1]:9/.well-known/est/x"), Some(("::1".into(), 9, Some("x".into()))));
        for wrong in ["http://a", "https://", "https://a:b", "https://a/b/c"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_target_may_have_a_name_and_a_url_keeps_its_query() {
        let read =
            |text: &str| text.parse::<Named<Target>>().map(|named| (named.name, named.value.to_string()));
        let named = |name: Option<&str>, url: &str| Ok((name.map(str::to_owned), url.to_owned()));
        assert_eq!(read("nginx=https://a:1/"), named(Some("nginx"), "https://a:1/"));
        assert_eq!(read("https://a/x?y=z"), named(None, "https://a:9443/x?y=z"));
        assert_eq!(read("ours=mqtts://[::1]"), named(Some("ours"), "mqtts://[::1]:8883"));
        for wrong in ["nginx=", "nginx=ftp://a", "=https://a", "a b=https://a"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
