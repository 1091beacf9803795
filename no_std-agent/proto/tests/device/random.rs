//! Random lists of operations. Whatever happens, the device comes out with a usable identity.
//!
//! Failures are: a panic, a shell call that the machine calls misuse, an identity in use that is not in the flash
//! with its key, a secret on an unverified connection, a retired identity in use, no rest, no recovery within two
//! hours after the trouble ends, or more than two tries a minute on average. A list that fails
//! becomes a named test in `scenarios`.

use proptest::prelude::*;

use crate::rig::{Op, Rig};
use crate::server::Fault;
use crate::shell::Cut;

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        (0..5000_u32).prop_map(Fault::Busy),
        (0..5000_u32).prop_map(Fault::Postpone),
        Just(Fault::ForeignKey),
        Just(Fault::ForeignAuthority),
        Just(Fault::Redirect),
        Just(Fault::WrongName),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0..2000_u32).prop_map(Op::Advance),
        2 => (0..3_u32).prop_map(Op::Advance),
        1 => prop_oneof![Just(Cut::Before), Just(Cut::After)].prop_map(Op::CutAtStore),
        1 => fault().prop_map(Op::Fault),
        1 => (0..20_000_u16).prop_map(Op::Latency),
        1 => Just(Op::LoseAnswer),
        1 => any::<u8>().prop_map(Op::Pieces),
        2 => Just(Op::Reboot),
        1 => Just(Op::RefuseCandidate),
        1 => Just(Op::ResetInAnswer),
        1 => Just(Op::ServerDown),
        1 => Just(Op::ServerUp),
        1 => (-5000..5000_i32).prop_map(Op::Wall),
        1 => (-100_000_000..100_000_000_i32).prop_map(Op::Wall),
    ]
}

/// Runs a list and holds the device to what is promised.
pub(crate) fn survives(ops: &[Op]) {
    let mut rig = Rig::with_one_device();
    rig.run(ops);
    rig.recover();
    let reboots = usize::try_from(rig.device().boots).expect("few");
    let minutes = usize::try_from(rig.now / 60_000).expect("few");
    assert!(rig.arrivals.len() <= 20 + 2 * minutes + 2 * reboots, "{} tries", rig.arrivals.len());
}

/// A second or so for each hundred; a longer hunt is a matter of raising this for one run.
const CASES: u32 = 300;

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_device_survives_any_list_of_operations(ops in prop::collection::vec(op(), 0..40)) {
        survives(&ops);
    }
}
