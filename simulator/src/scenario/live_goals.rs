//! What must hold in every live run.

use std::sync::atomic::{AtomicU64, Ordering};

use super::live::Shared;
use crate::results::{Check, Results};

/// Adds facts and checks.
pub(super) fn conclude(shared: &Shared, results: &mut Results) {
    let directory = &shared.live.enroller.directory;
    let devices = shared.scenario.devices;
    let holding = (0..devices).filter(|number| directory.is_enrolled(*number)).count() as u64;
    let revoked = shared.revoked.load(Ordering::Relaxed);
    results.facts.insert("devices".into(), f64::from(devices));
    results.facts.insert("revoked".into(), revoked as f64);
    results.facts.insert("holding_at_the_end".into(), holding as f64);
    let count = |count: &AtomicU64| count.load(Ordering::Relaxed) as f64;
    results.facts.insert("clocks_off".into(), count(&shared.clocks_off));
    results.facts.insert("links_slow".into(), count(&shared.links_slow));
    let held = |name: &str, bad: u64, what: &str| Check {
        name: name.into(),
        held: bad == 0,
        detail: format!("{bad} {what}"),
    };
    results.checks = vec![
        held("no revoked device is let in", shared.revoked_accepted.load(Ordering::Relaxed), "were"),
        held("nobody hostile gets anything", shared.hostile_accepted.load(Ordering::Relaxed), "did"),
        held(
            "every device holds a certificate at the end",
            u64::from(devices).saturating_sub(holding),
            "do not",
        ),
    ];
}
