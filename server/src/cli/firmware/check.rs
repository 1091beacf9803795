//! What can be told to a device, checked on the bench: what its firmware would refuse, or never reach, is found before
//! a token is made for it.

use std::net::Ipv4Addr;

use anyhow::{Context as _, bail, ensure};
use http::Uri;
use muster_ca::certificate::CaCertificate;
use muster_policy::name::{Hostname, Label};

use super::block::{Endpoint, Settings};

/// Reads CA certificates from PEM.
///
/// # Errors
/// When there is none, or anything beside: a device would trust a leaf for what it is not, and a key is not for it.
pub(super) fn anchors(pem: &[u8]) -> anyhow::Result<Vec<Vec<u8>>> {
    let found = pem::parse_many(pem)?;
    ensure!(!found.is_empty(), "it holds no CA certificate");
    let anchor = |(number, item): (usize, pem::Pem)| {
        let what = || format!("its item {}, {}", number + 1, item.tag());
        ensure!(item.tag() == "CERTIFICATE", "{} is not a certificate", what());
        let parsed = CaCertificate::parse(item.contents()).with_context(what)?;
        Ok(parsed.der().to_vec())
    };
    found.into_iter().enumerate().map(anchor).collect()
}

/// The server that a URL names.
///
/// # Errors
/// When it is of another scheme, says more than a device is told, or a device can't reach such a host.
pub(super) fn endpoint<'a>(uri: &'a Uri, scheme: &str, usual_port: u16) -> anyhow::Result<Endpoint<'a>> {
    ensure!(uri.scheme_str() == Some(scheme), "`{uri}` is not an {scheme}:// URL");
    ensure!(uri.query().is_none(), "`{uri}`: a device sends no query; leave it out");
    ensure!(!uri.authority().is_some_and(|a| a.as_str().contains('@')), "`{uri}`: a device has no user name");
    let host = uri.host().with_context(|| format!("`{uri}` names no host"))?;
    ensure!(!host.starts_with('['), "`{uri}`: the firmware has IPv4 only");
    if host.parse::<Ipv4Addr>().is_err() {
        host.parse::<Hostname>().with_context(|| format!("`{uri}`"))?;
    }
    let port = uri.port_u16().unwrap_or(usual_port);
    ensure!(port != 0, "`{uri}`: there is no port 0");
    Ok(Endpoint { host, port })
}

impl Settings<'_> {
    /// Checks what the firmware checks, and what it relies on.
    ///
    /// # Errors
    /// What is wrong, and how it should be.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        if let Some(label) = self.label {
            label.parse::<Label>().with_context(|| format!("--profile `{label}`"))?;
        }
        for (name, _) in self.hosts {
            name.parse::<Hostname>().with_context(|| format!("--host `{name}`"))?;
        }
        if self.mqtt.is_some() {
            check_prefix(&self.topics())?;
        }
        let is_path = self.path.starts_with('/') && self.path.bytes().all(|octet| octet.is_ascii_graphic());
        ensure!(
            is_path && self.path.len() <= MAX_PATH_OCTETS,
            "--https: the path is not one of at most {MAX_PATH_OCTETS} octets of ASCII"
        );
        if let Some((ssid, passphrase)) = self.wifi {
            ensure!((1..=32).contains(&ssid.len()), "--wifi-ssid has 1 to 32 octets (IEEE 802.11)");
            let fits = passphrase.is_empty() || (8..=63).contains(&passphrase.len());
            ensure!(
                fits && passphrase.bytes().all(is_printable),
                "a Wi-Fi passphrase has 8 to 63 characters of ASCII"
            );
        }
        if let Some(apn) = self.apn {
            let fits = (1..=100).contains(&apn.len());
            ensure!(
                fits && apn.parse::<Hostname>().is_ok(),
                "--apn `{apn}` is not labels joined by dots, at most 100 octets"
            );
        }
        Ok(())
    }
}

fn check_prefix(prefix: &str) -> anyhow::Result<()> {
    ensure!(prefix.ends_with('/'), "--prefix must end with a slash: `{prefix}`");
    ensure!(
        prefix.len() <= MAX_PREFIX_OCTETS,
        "the topics' prefix `{prefix}` is longer than {MAX_PREFIX_OCTETS} octets"
    );
    if prefix.contains(['+', '#']) || prefix.starts_with('$') || prefix.chars().any(char::is_control) {
        bail!(
            "--prefix `{prefix}` is no beginning of a topic: no + # or control characters, and no $ in front"
        );
    }
    Ok(())
}

const fn is_printable(octet: u8) -> bool {
    octet.is_ascii_graphic() || octet == b' '
}

// The firmware's own limits.
const MAX_PREFIX_OCTETS: usize = 100;
const MAX_PATH_OCTETS: usize = 200;
