//! Two thousand devices and one server: what a fleet does to a server that was away.

use std::collections::BTreeMap;

use muster_proto::enrollment::{Pace, State};

use crate::rig::Rig;

const DEVICES: usize = 2000;

/// At most this part of the fleet in any one second.
const SHARE: usize = DEVICES * 3 / 100;

/// The fullest second of those at or after `from`, in milliseconds.
fn fullest_second(arrivals: &[u64], from: u64) -> usize {
    let mut seconds = BTreeMap::new();
    for arrival in arrivals.iter().filter(|at| **at >= from) {
        *seconds.entry(arrival / 1000).or_insert(0) += 1;
    }
    seconds.into_values().max().unwrap_or(0)
}

/// A fleet that has its first certificates, which live for `lifetime` seconds.
fn enrolled(lifetime: u64) -> Rig {
    let mut rig = Rig::new();
    rig.server.lifetime = lifetime;
    for _ in 0..DEVICES {
        rig.add_device(|config| config.pace = Pace::default());
    }
    rig.advance(600 * 1000);
    assert!(rig.devices.iter().all(|device| device.state() == State::Holding));
    rig
}

#[test]
fn a_fleet_comes_back_after_the_server_was_away_for_longer_than_the_window() {
    let mut rig = enrolled(6 * 3600);
    assert!(fullest_second(&rig.arrivals, 0) <= SHARE, "first boot: {}", fullest_second(&rig.arrivals, 0));
    rig.advance(3 * 3600 * 1000);
    rig.up = false;
    rig.advance(4 * 3600 * 1000);
    assert!(rig.devices.iter().all(|device| device.state() == State::Lapsed));
    let down = fullest_second(&rig.arrivals, 0);
    assert!(down <= SHARE, "while it was away: {down}");
    rig.up = true;
    let back_at = rig.now;
    rig.advance(1200 * 1000);
    let back = fullest_second(&rig.arrivals, back_at);
    assert!(back <= SHARE, "when it was back: {back}");
    for device in &rig.devices {
        device.check();
        assert_eq!(device.state(), State::Holding, "{}", device.name);
    }
}

#[test]
fn a_fleet_that_reboots_together_does_not_arrive_together() {
    let mut rig = enrolled(24 * 3600);
    let cut_at = rig.now;
    for device in 0..DEVICES {
        rig.reboot(device);
    }
    rig.advance(600 * 1000);
    let together = fullest_second(&rig.arrivals, cut_at);
    assert!(together <= SHARE, "{together}");
    assert!(rig.devices.iter().all(|device| device.state() == State::Holding));
}
