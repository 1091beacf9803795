//! How often one may ask: limits per source address, per device and per account.
//!
//! Only proven identities use up a device's or the account's share: a stranger can't lock a device
//! out. A right credential is never refused for the wrong ones sent before it from the same address;
//! only the wrong ones are slowed. Every table is bounded: entries that have recovered are dropped.

use std::hash::Hash;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};
use muster_arrival::source::source_of;
use muster_policy::identity::AccountId;
use muster_policy::name::DeviceId;
use muster_policy::reason::{Reason, Refusal};

/// One limit: this many at once, then one more each `refill`.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// How many may come at once.
    pub burst: NonZeroU32,
    /// How long until one more may come.
    pub refill: Duration,
}

/// The limits of the enrollment front.
#[derive(Clone, Copy, Debug)]
pub struct AdmissionLimits {
    /// Requests from one address (IPv6: one /64).
    pub source: Rate,
    /// Wrong credentials from one address before the answer becomes 429.
    pub guesses: Rate,
    /// Certificates and polls of one device.
    pub device: Rate,
    /// Certificates and polls of the account.
    pub account: Rate,
}

const fn rate(burst: u32, refill: Duration) -> Rate {
    let burst = match NonZeroU32::new(burst) {
        Some(burst) => burst,
        None => NonZeroU32::MIN,
    };
    Rate { burst, refill }
}

impl Default for AdmissionLimits {
    /// * source: a gateway with thousands of devices behind it may send them all at once, and each
    ///   may try a few times; steady state 1,000/s is above what one core answers.
    /// * guesses: tokens have 256 random bits, so the limit guards the log, not the secret.
    /// * device: a broken device can renew in a loop; a thousand at once and then 360 an hour keep the
    ///   ledger's growth below what a healthy fleet writes.
    /// * account: more than one machine can sign.
    fn default() -> Self {
        Self {
            source: rate(20_000, Duration::from_millis(1)),
            guesses: rate(600, Duration::from_millis(200)),
            device: rate(1_000, Duration::from_secs(10)),
            account: rate(100_000, Duration::from_micros(100)),
        }
    }
}

type Keyed<K> = RateLimiter<K, DashMapStateStore<K>, DefaultClock>;

/// The state of all limits.
pub(crate) struct Admission {
    clock: DefaultClock,
    sources: Keyed<IpAddr>,
    guesses: Keyed<IpAddr>,
    devices: Keyed<DeviceId>,
    accounts: Keyed<AccountId>,
}

/// A refusal, and when to come again.
#[derive(Debug)]
pub(crate) struct TooOften {
    pub(crate) refusal: Refusal,
    pub(crate) retry_after: Duration,
}

impl Admission {
    pub(crate) fn new(limits: &AdmissionLimits) -> Self {
        Self {
            clock: DefaultClock::default(),
            sources: keyed(limits.source),
            guesses: keyed(limits.guesses),
            devices: keyed(limits.device),
            accounts: keyed(limits.account),
        }
    }

    /// One request from this address, before anything is known of it.
    pub(crate) fn admit_source(&self, peer: IpAddr) -> Result<(), TooOften> {
        self.check(&self.sources, &source_of(peer), Reason::RateLimitedSource)
    }

    /// One wrong credential from this address.
    pub(crate) fn admit_guess(&self, peer: IpAddr) -> Result<(), TooOften> {
        self.check(&self.guesses, &source_of(peer), Reason::CredentialGuessing)
    }

    /// One request of the account's, by the device whose identity is proven; the bearer of a claim token may be any.
    pub(crate) fn admit_proven(&self, account: AccountId, device: Option<&DeviceId>) -> Result<(), TooOften> {
        if let Some(device) = device {
            self.check(&self.devices, device, Reason::RateLimitedDevice)?;
        }
        self.check(&self.accounts, &account, Reason::RateLimitedAccount)
    }

    /// Forgets keys that have recovered their whole share.
    pub(crate) fn forget_idle(&self) {
        self.sources.retain_recent();
        self.guesses.retain_recent();
        self.devices.retain_recent();
    }

    fn check<K: Hash + Eq + Clone>(
        &self,
        limiter: &Keyed<K>,
        key: &K,
        reason: Reason,
    ) -> Result<(), TooOften> {
        limiter.check_key(key).map_err(|not_until| TooOften {
            refusal: Refusal::new(reason, "/"),
            retry_after: not_until.wait_time_from(self.clock.now()).max(Duration::from_secs(1)),
        })
    }
}

fn keyed<K: Hash + Eq + Clone>(rate: Rate) -> Keyed<K> {
    let quota = Quota::with_period(rate.refill.max(Duration::from_nanos(1))).unwrap_or_else(|| {
        // Unwrap safety: with_period refuses a zero period only, and the period is at least 1 ns.
        Quota::per_second(NonZeroU32::MIN)
    });
    RateLimiter::dashmap(quota.allow_burst(rate.burst))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tight() -> Admission {
        let one = rate(1, Duration::from_secs(3600));
        Admission::new(&AdmissionLimits {
            source: one,
            guesses: one,
            device: one,
            account: rate(2, one.refill),
        })
    }

    fn reason(result: Result<(), TooOften>) -> Reason {
        result.expect_err("must be refused").refusal.reason
    }

    #[test]
    fn one_limit_does_not_use_up_another() {
        let admission = tight();
        let peer: IpAddr = "192.0.2.1".parse().expect("an address");
        let device: DeviceId = "meter-1".parse().expect("valid");
        let account = AccountId::from_bytes([1; 16]);
        assert!(admission.admit_source(peer).is_ok());
        assert!(admission.admit_guess(peer).is_ok());
        assert!(admission.admit_proven(account, Some(&device)).is_ok());
        assert_eq!(reason(admission.admit_source(peer)), Reason::RateLimitedSource);
        assert_eq!(reason(admission.admit_guess(peer)), Reason::CredentialGuessing);
        assert_eq!(reason(admission.admit_proven(account, Some(&device))), Reason::RateLimitedDevice);
        assert!(admission.admit_proven(account, None).is_ok());
        let third = "meter-3".parse().expect("valid");
        assert_eq!(reason(admission.admit_proven(account, Some(&third))), Reason::RateLimitedAccount);
    }

    #[test]
    fn says_when_to_come_again() {
        let admission = tight();
        let peer: IpAddr = "192.0.2.1".parse().expect("an address");
        admission.admit_source(peer).expect("first");
        let too_often = admission.admit_source(peer).expect_err("second");
        assert!(too_often.retry_after > Duration::from_secs(3000));
    }

    #[test]
    fn the_defaults_let_a_gateway_and_a_clumsy_installer_in() {
        let admission = Admission::new(&AdmissionLimits::default());
        let peer: IpAddr = "192.0.2.1".parse().expect("an address");
        assert!((0..10_000).all(|_| admission.admit_source(peer).is_ok()));
        assert!((0..300).all(|_| admission.admit_guess(peer).is_ok()));
    }
}
