//! An address, or all addresses that begin alike; and those that nothing is sent to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A network in the form `ADDRESS/BITS`, or one address. IPv4 written as IPv6 counts as IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

/// Text that is no network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected an IP address or ADDRESS/BITS")]
pub struct NetworkError;

impl Network {
    /// Whether an address lies in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        let Self { address: own, bits } = self.to_canonical();
        match (own, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let shift = 32_u32.saturating_sub(u32::from(bits));
                own.to_bits().checked_shr(shift) == other.to_bits().checked_shr(shift)
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let shift = 128_u32.saturating_sub(u32::from(bits));
                own.to_bits().checked_shr(shift) == other.to_bits().checked_shr(shift)
            }
            _ => false,
        }
    }

    /// As IPv4 where it holds nothing but IPv4 written as IPv6 (`::ffff:0:0/96` and longer).
    fn to_canonical(self) -> Self {
        match (self.address.to_canonical(), self.bits.checked_sub(MAPPED_BITS)) {
            (address, Some(bits)) if address.is_ipv4() && self.address.is_ipv6() => Self { address, bits },
            _ => self,
        }
    }
}

/// How much of IPv4 written as IPv6 is the same in all of it (RFC 4291 §2.5.5.2).
const MAPPED_BITS: u8 = 96;

impl core::str::FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let (address, bits) =
            text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().map_err(|_| NetworkError)?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let digits = |bits: &&str| bits.bytes().all(|digit| digit.is_ascii_digit());
        let bits = match bits {
            None => most,
            Some(bits) => Some(bits).filter(digits).and_then(|bits| bits.parse().ok()).ok_or(NetworkError)?,
        };
        if bits > most { Err(NetworkError) } else { Ok(Self { address, bits }) }
    }
}

impl core::fmt::Display for Network {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl TryFrom<String> for Network {
    type Error = NetworkError;

    fn try_from(text: String) -> Result<Self, NetworkError> {
        text.parse()
    }
}

impl From<Network> for String {
    fn from(network: Network) -> Self {
        network.to_string()
    }
}

/// Networks that the server makes no connection to, whoever asks for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeniedNetworks(Arc<[Network]>);

impl DeniedNetworks {
    /// Whether an address may be connected to.
    ///
    /// # Errors
    /// The first network that it lies in.
    pub fn check(&self, address: IpAddr) -> Result<(), Denied> {
        let reached = reached(address);
        let translated = translated(reached).map(IpAddr::V4);
        let holds = |network: &&Network| {
            network.contains(reached) || translated.is_some_and(|address| network.contains(address))
        };
        match self.0.iter().find(holds) {
            Some(network) => Err(Denied { address, network: *network }),
            None => Ok(()),
        }
    }
}

impl FromIterator<Network> for DeniedNetworks {
    fn from_iter<I: IntoIterator<Item = Network>>(networks: I) -> Self {
        Self(networks.into_iter().collect())
    }
}

/// An address that no connection is made to, and the network that it lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{address} is in {network}, which outbound.denied_networks in muster.toml denies")]
pub struct Denied {
    address: IpAddr,
    network: Network,
}

/// Where a connection to an address ends: IPv4 may be written as IPv6, and the unspecified address is this machine.
pub fn reached(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        other => other,
    }
}

/// The IPv4 address that a gateway on the way makes of an IPv6 address: one with the well-known prefix of NAT64
/// (RFC 6052 §2.1), or of 6to4 (RFC 3056 §2). A gateway's own prefix is known to its network alone.
fn translated(address: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(address) = address else { return None };
    match address.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => {
            Some(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_what_begins_like_it() {
        for (network, address, holds) in [
            ("192.0.2.0/24", "192.0.2.255", true),
            ("192.0.2.0/24", "192.0.3.0", false),
            ("192.0.2.7", "192.0.2.7", true),
            ("0.0.0.0/0", "203.0.113.1", true),
            ("192.0.2.0/24", "::ffff:192.0.2.1", true),
            ("::/0", "192.0.2.1", false),
            ("::ffff:192.0.2.0/120", "192.0.2.1", true),
            ("::ffff:192.0.2.0/120", "::ffff:192.0.2.1", true),
            ("::ffff:192.0.2.0/120", "192.0.3.1", false),
            ("::ffff:0.0.0.0/96", "203.0.113.1", true),
            ("::ffff:192.0.2.0/95", "192.0.2.0", false),
            ("2001:db8::/32", "2001:db8:1::", true),
            ("2001:db8::/32", "2001:db9::", false),
        ] {
            let network: Network = network.parse().expect("a network");
            assert_eq!(network.contains(address.parse().expect("an address")), holds, "{network} {address}");
        }
        for wrong in ["", "192.0.2.0/33", "192.0.2.0/", "192.0.2.0/+8", "::/129", "a/8", "192.0.2/24"] {
            assert_eq!(wrong.parse::<Network>(), Err(NetworkError), "{wrong}");
        }
    }

    #[test]
    fn every_form_of_a_denied_address_is_denied() {
        let networks = ["169.254.0.0/16", "fe80::/10", "127.0.0.0/8", "::1"];
        let denied: DeniedNetworks = networks.iter().map(|text| text.parse().expect("a network")).collect();
        for (address, allowed) in [
            ("169.254.169.254", false),
            ("::ffff:169.254.169.254", false),
            ("fe80::1", false),
            ("0.0.0.0", false),
            ("::", false),
            ("::ffff:0.0.0.0", false),
            ("64:ff9b::169.254.169.254", false),
            ("2002:a9fe:a9fe::1", false),
            ("64:ff9b::8.8.8.8", true),
            ("2002:808:808::1", true),
            ("64:ff9b:1::169.254.169.254", true),
            ("127.1.2.3", false),
            ("169.253.0.1", true),
            ("10.0.0.1", true),
            ("2001:db8::1", true),
        ] {
            let judged = denied.check(address.parse().expect("an address"));
            assert_eq!(judged.is_ok(), allowed, "{address}: {judged:?}");
        }
        let said = denied.check(IpAddr::from([169, 254, 1, 1])).expect_err("denied").to_string();
        assert!(said.contains("169.254.0.0/16") && said.contains("outbound.denied_networks"), "{said}");
    }
}
