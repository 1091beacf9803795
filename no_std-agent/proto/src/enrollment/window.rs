//! When a certificate is to be renewed: a window inside its validity.
//!
//! The server may steer it; otherwise renewal begins at 60 % of the lifetime, spread by the seed over the next
//! 10 %, and is urgent from 80 %. The order of the three times is held by the only constructor.

use crate::http::Steering;
use crate::jitter::Jitter;
use crate::time::{Millis, UnixTime, Validity};

/// Times of one certificate. Always `renew_at <= urgent_at <= expires_at`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    renew_at: UnixTime,
    urgent_at: UnixTime,
    expires_at: UnixTime,
}

impl Window {
    /// Takes three times; `None` when they are out of order.
    #[must_use]
    pub fn new(renew_at: UnixTime, urgent_at: UnixTime, expires_at: UnixTime) -> Option<Self> {
        (renew_at <= urgent_at && urgent_at <= expires_at).then_some(Self { renew_at, urgent_at, expires_at })
    }

    /// The window of a certificate. A steered time outside of its validity, or out of order, is ignored.
    pub(super) fn choose(validity: Validity, steering: Steering, jitter: &mut Jitter) -> Self {
        let lifetime = validity.not_after.millis_since(validity.not_before);
        let spread = jitter.up_to(lifetime.percent(RENEW_SPREAD_PERCENT));
        let usual_renew_at = validity.not_before.after(lifetime.percent(RENEW_PERCENT).and(spread));
        let usual_urgent_at = validity.not_before.after(lifetime.percent(URGENT_PERCENT));
        let inside = |at: &UnixTime| validity.not_before < *at && *at < validity.not_after;

        let renew_at = steering.renew_at.filter(inside);
        let urgent_at = steering.urgent_at.filter(inside);
        let expires_at = validity.not_after;
        let (renew_at, urgent_at) = match (renew_at, urgent_at) {
            (Some(renew_at), Some(urgent_at)) => (renew_at, urgent_at),
            (Some(renew_at), None) => (renew_at, usual_urgent_at.max(renew_at)),
            (None, Some(urgent_at)) => (usual_renew_at.min(urgent_at), urgent_at),
            (None, None) => (usual_renew_at, usual_urgent_at),
        };
        Self::new(renew_at, urgent_at, expires_at)
            .or_else(|| Self::new(usual_renew_at, usual_urgent_at, expires_at))
            // A lifetime too short for percentages to differ, or a clock that is past it all.
            .unwrap_or(Self { renew_at: expires_at, urgent_at: expires_at, expires_at })
    }

    /// From when on to renew.
    #[must_use]
    pub const fn renew_at(&self) -> UnixTime {
        self.renew_at
    }

    /// From when on renewal is urgent: retries come closer together.
    #[must_use]
    pub const fn urgent_at(&self) -> UnixTime {
        self.urgent_at
    }

    /// The last second of the certificate.
    #[must_use]
    pub const fn expires_at(&self) -> UnixTime {
        self.expires_at
    }

    /// Whole time in which a renewal can be late without harm.
    pub(super) const fn length(&self) -> Millis {
        self.expires_at.millis_since(self.renew_at)
    }
}

const RENEW_PERCENT: u64 = 60;
const RENEW_SPREAD_PERCENT: u64 = 10;
const URGENT_PERCENT: u64 = 80;

#[cfg(test)]
mod tests {
    extern crate std;
    use proptest::prelude::*;

    use super::*;

    fn at(secs: u64) -> UnixTime {
        UnixTime::from_secs(secs)
    }

    fn choose(steering: Option<(Option<u64>, Option<u64>)>) -> (u64, u64, u64) {
        let validity = Validity { not_before: at(1000), not_after: at(11_000) };
        let steering =
            steering.map(|(renew, urgent)| Steering { renew_at: renew.map(at), urgent_at: urgent.map(at) });
        let window = Window::choose(validity, steering.unwrap_or_default(), &mut Jitter::new(3));
        (window.renew_at.as_secs(), window.urgent_at.as_secs(), window.expires_at.as_secs())
    }

    #[test]
    fn the_server_steers() {
        assert_eq!(choose(Some((Some(5000), Some(6000)))), (5000, 6000, 11_000));
        assert_eq!(choose(Some((Some(10_500), None))), (10_500, 10_500, 11_000));
        let (renew_at, urgent_at, _) = choose(Some((None, Some(2000))));
        assert_eq!((renew_at, urgent_at), (2000, 2000));
    }

    #[test]
    fn times_outside_of_the_validity_or_out_of_order_are_ignored() {
        let usual = choose(None);
        assert!((7000..=8000).contains(&usual.0));
        assert_eq!((usual.1, usual.2), (9000, 11_000));
        assert_eq!(choose(Some((Some(1000), Some(11_000)))), usual);
        assert_eq!(choose(Some((Some(9), None))), usual);
        assert_eq!(choose(Some((Some(6000), Some(5000)))), usual);
    }

    proptest! {
        #[test]
        fn the_order_always_holds(
            not_before: u32, length: u32, renew: Option<u64>, urgent: Option<u64>, seed: u64,
        ) {
            let not_before = at(not_before.into());
            let validity = Validity { not_before, not_after: not_before.after(Millis::from_secs(length.into())) };
            let steering = Steering { renew_at: renew.map(at), urgent_at: urgent.map(at) };
            let window = Window::choose(validity, steering, &mut Jitter::new(seed));
            prop_assert!(window.renew_at <= window.urgent_at && window.urgent_at <= window.expires_at);
            prop_assert_eq!(window.expires_at, validity.not_after);
        }
    }
}
