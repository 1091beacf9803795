//! Who a client certificate speaks for at the edge, and whether it may come in.
//!
//! A holder is what the edge makes of a verified certificate, once per connection. Account, CA and
//! serial name the certificate; the device and its groups are what rules are written about.
//! [`access`] is asked at the handshake's end, again on each request, and again when a change may
//! have taken the right away. It is the only maker of a [`Permit`], without which nothing is served.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::enrol::DeviceStatus;
use crate::host::{HostMode, HostRule, Protocol, WhenStale};
use crate::identity::{AccountId, CaId, Fingerprint, Serial};
use crate::name::DeviceId;
use crate::reason::Reason;
use crate::time::UnixTime;

/// The holder of a verified client certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The owner of the CA.
    pub account: AccountId,
    /// The CA that issued the certificate, as far as it is known here; else the one below.
    pub ca: CaId,
    /// The CA that the certificate was verified with; never a name that could be another's. It may be above the
    /// one that issued.
    pub anchor: CaId,
    /// The certificate's serial, unique within the CA.
    pub serial: Serial,
    /// SHA-256 of the certificate.
    pub fingerprint: Fingerprint,
    /// The CAs between the certificate and its anchor. They can be revoked too, and it with them.
    #[serde(default)]
    pub above: Vec<Above>,
    /// Who it says it is: the common name, when it is a device id and no other name contradicts it.
    pub device: DeviceId,
    /// The groups of the device; the rules of operators and back-ends go by these.
    pub groups: BTreeSet<String>,
    /// The end of the certificate: its connections end with it.
    pub not_after: UnixTime,
}

/// A CA as a certificate of the CA above it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Above {
    /// The CA above it.
    pub ca: CaId,
    /// The serial it has there.
    pub serial: Serial,
    /// SHA-256 of its certificate.
    pub fingerprint: Fingerprint,
}

/// How old the edge's knowledge of revocations is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// Heard of within the allowed time.
    Fresh,
    /// Older than allowed.
    Stale,
}

/// What holds at the moment of asking.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances {
    /// What the caller wants to speak.
    pub protocol: Protocol,
    /// The time.
    pub now: UnixTime,
    /// How old the answers below are.
    pub news: News,
    /// Whether the holder's CA is one of those that the hostname accepts; without a holder, anything.
    pub ca_accepted: bool,
    /// Whether the holder's certificate is revoked; without a holder, anything.
    pub revoked: bool,
    /// How old the own revocation list of the holder's CA is; without a holder, anything.
    pub list: News,
    /// The state of the holder's device; without a holder, anything.
    pub device: DeviceStatus,
}

/// Leave to be served under a rule, now. Only [`access`] makes one.
#[derive(Debug)]
pub struct Permit<'a> {
    holder: Option<&'a Holder>,
}

impl<'a> Permit<'a> {
    /// Who was let in; nobody in particular when the rule asks for no certificate.
    pub const fn holder(&self) -> Option<&'a Holder> {
        self.holder
    }
}

/// Decides whether a caller may be served under a rule.
///
/// # Errors
/// The one reason why not; the first in the order protocol, freshness, presence, CA, time,
/// revocation, the CA's list, device.
pub fn access<'a>(
    rule: &HostRule,
    holder: Option<&'a Holder>,
    circumstances: &Circumstances,
) -> Result<Permit<'a>, Reason> {
    if !rule.protocols.contains(&circumstances.protocol) {
        return Err(Reason::ProtocolNotOffered);
    }
    let Some(holder) = (match rule.mode {
        HostMode::Off => return Ok(Permit { holder: None }),
        HostMode::Require | HostMode::Request => holder,
    }) else {
        return match rule.mode {
            HostMode::Require => Err(Reason::ClientCertificateRequired),
            HostMode::Request | HostMode::Off => Ok(Permit { holder: None }),
        };
    };
    if circumstances.news == News::Stale && rule.when_stale == WhenStale::Closed {
        return Err(Reason::RevocationsStale);
    }
    if holder.account != rule.account || !circumstances.ca_accepted {
        return Err(Reason::CaNotAccepted);
    }
    if circumstances.now > holder.not_after {
        return Err(Reason::CertificateExpired);
    }
    if circumstances.revoked {
        return Err(Reason::CertificateRevoked);
    }
    if circumstances.list == News::Stale {
        return Err(Reason::CrlStale);
    }
    match circumstances.device {
        DeviceStatus::Active => Ok(Permit { holder: Some(holder) }),
        DeviceStatus::Suspended => Err(Reason::DeviceSuspended),
        DeviceStatus::Retired => Err(Reason::DeviceRetired),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{DefaultCas, MinTls};
    use crate::identity::ZoneId;

    const ACCOUNT: AccountId = AccountId::from_bytes([1; 16]);

    fn rule(mode: HostMode) -> HostRule {
        HostRule {
            host: "api.example.com".parse().expect("a host"),
            account: ACCOUNT,
            zone: ZoneId::from_bytes([2; 16]),
            mode,
            protocols: [Protocol::Https].into(),
            cas: BTreeSet::new(),
            default_cas: DefaultCas::default(),
            min_tls: MinTls::Tls13,
            origins: Vec::new(),
            when_stale: WhenStale::Closed,
            forward_certificate: true,
            origin_timeout_s: 60,
        }
    }

    fn holder() -> Holder {
        Holder {
            account: ACCOUNT,
            ca: CaId::from_bytes([3; 16]),
            anchor: CaId::from_bytes([3; 16]),
            serial: Serial::from_bytes(&[4]).expect("a serial"),
            fingerprint: Fingerprint::from_bytes([5; 32]),
            above: Vec::new(),
            device: "meter-1".parse().expect("an id"),
            groups: BTreeSet::new(),
            not_after: UnixTime::from_secs(100),
        }
    }

    const GOOD: Circumstances = Circumstances {
        protocol: Protocol::Https,
        now: UnixTime::from_secs(100),
        news: News::Fresh,
        ca_accepted: true,
        revoked: false,
        list: News::Fresh,
        device: DeviceStatus::Active,
    };

    fn decide(
        rule: &HostRule,
        holder: Option<&Holder>,
        circumstances: &Circumstances,
    ) -> Result<bool, Reason> {
        access(rule, holder, circumstances).map(|permit| permit.holder().is_some())
    }

    #[test]
    fn a_mode_says_who_comes_in_without_a_certificate() {
        let holder = holder();
        assert_eq!(decide(&rule(HostMode::Require), Some(&holder), &GOOD), Ok(true));
        assert_eq!(decide(&rule(HostMode::Require), None, &GOOD), Err(Reason::ClientCertificateRequired));
        assert_eq!(decide(&rule(HostMode::Request), None, &GOOD), Ok(false));
        assert_eq!(decide(&rule(HostMode::Off), Some(&holder), &GOOD), Ok(false));
    }

    #[test]
    fn each_fault_of_a_holder_is_named_whether_or_not_one_was_demanded() {
        let holder = holder();
        let late = UnixTime::from_secs(101);
        for mode in [HostMode::Require, HostMode::Request] {
            for (circumstances, reason) in [
                (Circumstances { protocol: Protocol::Mqtt, ..GOOD }, Reason::ProtocolNotOffered),
                (Circumstances { news: News::Stale, ..GOOD }, Reason::RevocationsStale),
                (Circumstances { ca_accepted: false, ..GOOD }, Reason::CaNotAccepted),
                (Circumstances { now: late, ..GOOD }, Reason::CertificateExpired),
                (Circumstances { revoked: true, ..GOOD }, Reason::CertificateRevoked),
                (Circumstances { list: News::Stale, ..GOOD }, Reason::CrlStale),
                (Circumstances { list: News::Stale, revoked: true, ..GOOD }, Reason::CertificateRevoked),
                (Circumstances { device: DeviceStatus::Suspended, ..GOOD }, Reason::DeviceSuspended),
                (Circumstances { device: DeviceStatus::Retired, ..GOOD }, Reason::DeviceRetired),
            ] {
                assert_eq!(decide(&rule(mode), Some(&holder), &circumstances), Err(reason));
            }
        }
    }

    #[test]
    fn a_holder_of_another_account_is_refused_whatever_the_ca_set_says() {
        let stranger = Holder { account: AccountId::from_bytes([9; 16]), ..holder() };
        assert_eq!(decide(&rule(HostMode::Request), Some(&stranger), &GOOD), Err(Reason::CaNotAccepted));
    }

    #[test]
    fn stale_news_keep_a_host_open_only_by_its_own_word() {
        let (holder, mut rule) = (holder(), rule(HostMode::Require));
        rule.when_stale = WhenStale::Open;
        let stale = Circumstances { news: News::Stale, ..GOOD };
        assert_eq!(decide(&rule, Some(&holder), &stale), Ok(true));
    }
}
